// SPDX-License-Identifier: Apache-2.0
// Snapshots beside the segments of an audit-dir, and whether they are what log.sealed vouches for.
#ifndef TOOLS_AUDIT_SNAPSHOT_FILE_H
#define TOOLS_AUDIT_SNAPSHOT_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "snapshot.h"
#include "state.h"

#define SNAPSHOT_FILE_PATH (SNAPSHOT_NAME_SIZE + 8)

// "log/000000000042.snapshot".
void snapshot_file_path(uint64_t next, char path[SNAPSHOT_FILE_PATH]);
// The record that a file name says; false for a name that is no snapshot's.
bool snapshot_file_parse(const char *name, uint64_t *next);

// Whether the snapshot before record `next` has the digest. ERROR_NOT_FOUND when there is none.
int snapshot_file_check(int dirfd, uint64_t next, const char *sha256, struct error *err);

// The state at the beginning of the segment after `sealed`, a log.sealed: the snapshot that it
// vouches for, and then itself. NULL with `err` on failure.
struct state *snapshot_file_state(int dirfd, const struct record *sealed, struct error *err);

#endif
