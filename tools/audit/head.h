// SPDX-License-Identifier: Apache-2.0
// The signed head in an audit-dir, and small files of text as the auditor hands them in.
#ifndef TOOLS_AUDIT_HEAD_H
#define TOOLS_AUDIT_HEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "checkpoint.h"
#include "error.h"

// A signed head as it stands in a file.
struct head {
    char note[NOTE_MAX];
    size_t length;
};

// Reads a small file relative to the folder `dirfd` (or AT_FDCWD; "-" is standard input) into
// `text`, which has room for `size` bytes. Fails when it is larger, no regular file, or cannot
// be read; ERROR_NOT_FOUND when it is not there.
int head_read_file(int dirfd, const char *path, char *text, size_t size, size_t *length,
                   struct error *err);

// Reads a checkpoint file.
int head_read(int dirfd, const char *path, struct head *head, struct error *err);
// What the head says, WITHOUT checking its signature: for commands that have no key.
int head_peek(const struct head *head, struct checkpoint *checkpoint, struct error *err);

#endif
