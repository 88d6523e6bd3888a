// SPDX-License-Identifier: Apache-2.0
// Whole files: read at once, and replaced so that a reader sees the old or the new one.
#ifndef CUSTODY_FILE_H
#define CUSTODY_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

// Writes everything, whatever the kernel takes at a time. -1 with errno.
int file_write_all(int fd, const void *data, size_t length);

// Writes NAME in the folder `dir` under a name of its own, then renames it. `durable`: the bytes
// and the folder's entry are on the disk before this returns.
int file_replace(int dir, const char *name, const void *data, size_t length, bool durable,
                 struct error *err);

// Reads NAME in the folder `dir`, at most `limit` bytes: NUL-terminated, the caller's to free(),
// `*length` without the NUL. NULL with `err`: ERROR_NOT_FOUND when there is none.
char *file_read(int dir, const char *name, size_t limit, size_t *length, struct error *err);

// Reads exactly `length` bytes at `offset`. -1 with errno; 0 for errno: the file is too short.
int file_read_at(int fd, void *data, size_t length, unsigned long long offset);

#endif
