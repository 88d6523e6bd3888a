// SPDX-License-Identifier: Apache-2.0
// What libcustody's own files share: one call on a connection, and the copying of an answer's
// fields.
#ifndef PROTO_CLIENT_H
#define PROTO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "custody.h"
#include "custody.pb-c.h"
#include "error.h"
#include "note.h"

// Sends `request` (its id is set here) and waits for its answer, which must be OK and bear the body
// `expected`. On success `*answer` is for client_free. Whatever leaves the two ends out of step (a
// deadline, a frame or an answer that is not what it must be) ends the connection: later calls fail
// with ERROR_UNAVAILABLE.
int client_call(struct custody *custody, Custody__V1__Request *request,
                Custody__V1__Response__BodyCase expected, Custody__V1__Response **answer,
                struct error *err);
// The same where either of two bodies may come.
int client_call_either(struct custody *custody, Custody__V1__Request *request,
                       Custody__V1__Response__BodyCase expected,
                       Custody__V1__Response__BodyCase other, Custody__V1__Response **answer,
                       struct error *err);
void client_free(Custody__V1__Response *answer);

// The pinned log key; NULL when there is none.
const struct note_key *client_log_key(const struct custody *custody);

// Ends the connection because the answer to `what` is not what it must be; returns -1.
int client_bad_answer(struct custody *custody, const char *what, struct error *err);

// Copies a protobuf string, for people to read: control characters become '?'. False when it does
// not fit.
bool client_text(char *out, size_t size, const char *text);

// Hands `err` over to the caller of the library (`out` may be NULL). Returns -1.
int client_fail(const struct error *err, struct custody_error *out);

// The request's string field for `text`, "" for NULL. protobuf-c wants a char *, and only reads it.
char *client_string(const char *text);

// Copies a generation; false when a field is missing or does not fit.
bool client_key(struct custody_key *out, const Custody__V1__Key *key);

// Copies a signed note of an answer into `out` (NULL: it is not wanted) of `size` bytes. -1 with
// `err` where it does not fit.
int client_note(char *out, size_t size, const char *note, struct error *err);

// Ends a call that got its answer: frees that, and when it was not `sound` says so and ends the
// connection.
int client_finish(struct custody *custody, Custody__V1__Response *answer, bool sound,
                  struct custody_error *err);

#endif
