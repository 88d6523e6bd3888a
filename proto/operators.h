// SPDX-License-Identifier: Apache-2.0
// The operators' pinned SSH keys: one file that custodyd and the keeper both read.
#ifndef PROTO_OPERATORS_H
#define PROTO_OPERATORS_H

#include <stddef.h>

#include "error.h"
#include "record.h"

#define OPERATORS_MAX 64 // keys

struct operators {
    size_t count;
    struct {
        char name[RECORD_OPERATOR_MAX + 1];
        char key[RECORD_OPERATOR_KEY_MAX + 1]; // "TYPE BASE64"
    } items[OPERATORS_MAX];
};

// Parses a file's text: a line for each key, "NAME TYPE BASE64", and after that a comment for
// whoever wants one, as in the .pub files of ssh-keygen; blank lines and such that begin with '#'
// count for nothing. An operator may have several keys, a key one operator only. Errors name the
// line.
int operators_parse(const char *text, size_t length, struct operators *operators,
                    struct error *err);
// Reads the file; errors name it.
int operators_read(const char *path, struct operators *operators, struct error *err);

// Whose key it is; NULL where it is nobody's.
const char *operators_name(const struct operators *operators, const char *key);

#endif
