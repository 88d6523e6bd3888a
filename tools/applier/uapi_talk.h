// SPDX-License-Identifier: Apache-2.0
// Talks with a WireGuard daemon over its UAPI socket. Whatever may hold a key is guarded memory,
// and wiped.
#ifndef APPLIER_UAPI_TALK_H
#define APPLIER_UAPI_TALK_H

#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"
#include "uapi.h"

#define UAPI_TALK_TIMEOUT_MS 5000 // for an answer: setting 10,000 peers takes two seconds
#define UAPI_TALK_PATH_MAX   107  // bytes of a socket's path, without its NUL

// Where interface's socket is. Any name that device_name_is_valid accepts fits.
void uapi_talk_path(char path[UAPI_TALK_PATH_MAX + 1], const char *interface);
// Calls `found` for each interface that has a socket. 0, or -1 with `err`.
int uapi_talk_list(device_found *found, void *context, struct error *err);

// Memory for conversations with one interface's daemon, and the connection, which is kept for the
// next one: a device is read some hundred times a second while a cutover is in flight. Where the
// daemon closes it after an answer a new one is made.
struct uapi_talk;
int uapi_talk_open(struct uapi_talk **talk, const char *interface, struct error *err);
void uapi_talk_close(struct uapi_talk *talk); // wipes; NULL is fine

// DEVICE_KEY_SIZE guarded bytes, which the next question and uapi_talk_close wipe.
uint8_t *uapi_talk_key(struct uapi_talk *talk);

// Sends `request` (again, where a kept connection turns out to be closed: no request does more when
// it comes twice) and reads its whole answer, whose lines go to `hook`; checks its errno. `doing`
// says what was asked. `*answer` belongs to `talk`, until uapi_talk_forget or the next question.
// Returns 0, or -1 with `err`: ERROR_NOT_FOUND there is no daemon, ERROR_PERMISSION_DENIED it is
// not root's nor ours, ERROR_DEADLINE_EXCEEDED, ERROR_DATA_LOSS, ERROR_UNAVAILABLE it hung up,
// ERROR_UNKNOWN it refused.
int uapi_talk_ask(struct uapi_talk *talk, const char *request, size_t length, uapi_line *hook,
                  void *context, const char *doing, const struct uapi_answer **answer,
                  struct error *err);
// Wipes what the last answer left in memory.
void uapi_talk_forget(struct uapi_talk *talk);

#endif
