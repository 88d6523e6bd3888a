// SPDX-License-Identifier: Apache-2.0
// An error as a value: a code for programs and one sentence for people, said once, at the edge.
#ifndef PROTO_ERROR_H
#define PROTO_ERROR_H

// The codes of the wire protocol: gRPC's names and numbers.
enum error_code {
    ERROR_OK = 0,
    ERROR_UNKNOWN = 2,
    ERROR_INVALID_ARGUMENT = 3,
    ERROR_DEADLINE_EXCEEDED = 4,
    ERROR_NOT_FOUND = 5,
    ERROR_ALREADY_EXISTS = 6,
    ERROR_PERMISSION_DENIED = 7,
    ERROR_RESOURCE_EXHAUSTED = 8,
    ERROR_FAILED_PRECONDITION = 9,
    ERROR_ABORTED = 10,
    ERROR_INTERNAL = 13,
    ERROR_UNAVAILABLE = 14,
    ERROR_DATA_LOSS = 15,
    ERROR_UNAUTHENTICATED = 16,
};

#define ERROR_MESSAGE_MAX 512

// What went wrong, where, and what to do about it. Never holds a secret.
struct error {
    enum error_code code;
    char message[ERROR_MESSAGE_MAX];
};

// Fills `err` (may be NULL) and returns -1, so that a failing function can end in `return
// error_set(…)`. A message that is too long is cut.
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Puts "WHERE: " before the message that `err` holds, and returns -1.
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The code's name, "PERMISSION_DENIED"; "UNKNOWN" for a number that is none of them.
const char *error_code_name(enum error_code code);

#endif
