// SPDX-License-Identifier: Apache-2.0
// WireGuard's cross-platform userspace protocol (wireguard.com/xplatform): requests and answers,
// pure; all of it guarded.
#ifndef APPLIER_UAPI_H
#define APPLIER_UAPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"

#define UAPI_SET_SIZE 96 // bytes: room for a request that sets a private key, with a NUL

// Writes "set=1\nprivate_key=HEX\n\n" into `request` (guarded memory, for the caller to wipe).
// Returns its length.
size_t uapi_set_private_key(char request[UAPI_SET_SIZE],
                            const uint8_t private_key[DEVICE_KEY_SIZE]);

// An answer that is being read, piece by piece as it comes. Lies in guarded memory: a device's
// private key is in it.
struct uapi_answer;
struct uapi_answer *uapi_answer_new(void);          // NULL: no memory
void uapi_answer_free(struct uapi_answer *answer);  // wipes; NULL is fine
void uapi_answer_clear(struct uapi_answer *answer); // wipes: as new

// Takes one line NAME=VALUE, both in guarded memory and there for the call only. Returns 0, or -1
// with `err` filled when it makes no sense.
typedef int uapi_line(const char *name, const char *value, void *context, struct error *err);
// From now on each line but private_key= and errno= goes to `hook`.
void uapi_answer_tell(struct uapi_answer *answer, uapi_line *hook, void *context);

// Takes the next `length` bytes. Returns 1 at the end of the answer, 0 when more must come, or -1
// with ERROR_DATA_LOSS for what is no answer.
int uapi_answer_take(struct uapi_answer *answer, const char *bytes, size_t length,
                     struct error *err);

// After the end: the errno value the device answered (0: done).
int uapi_answer_errno(const struct uapi_answer *answer);
// After the end: the public key of the private key in the answer; all zeros when it has none (a
// device without a key).
int uapi_answer_public_key(const struct uapi_answer *answer, uint8_t public_key[DEVICE_KEY_SIZE],
                           struct error *err);
// The private key itself, into guarded memory; all zeros likewise.
void uapi_answer_private_key(const struct uapi_answer *answer, uint8_t *private_key);

#endif
