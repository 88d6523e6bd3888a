// SPDX-License-Identifier: Apache-2.0
// The audit log as the event loop sees it: the tree in memory, and jobs for the disk's thread,
// which alone touches the files (log_files.h).
//
// The tree kept here holds what is signed. Lines appended and not signed yet are in the segment
// alone.
#ifndef CUSTODY_LOG_H
#define CUSTODY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint.h"
#include "disk.h"
#include "error.h"
#include "log_files.h"
#include "merkle.h"
#include "record.h"
#include "state.h"

struct log; // opaque

// When a segment is closed.
struct log_limits {
    uint64_t segment_size; // bytes
    uint64_t segment_age;  // seconds
};

// The folder is not touched before a job of the disk's is. NULL with `err` on failure.
struct log *log_new(const char *dir, struct disk *disk, const struct log_limits *limits,
                    struct error *err);
void log_free(struct log *log);
void log_set_limits(struct log *log, const struct log_limits *limits);

// ---- opening: in the disk's thread ----

// The files, for log_files_open, ..._read_checkpoint, ..._is_empty and ..._next_unsigned.
struct log_files *log_files(struct log *log);

// A log that was read.
struct log_view {
    struct state *state;    // of all records, signed or not; whoever takes it sets it to NULL
    struct replay replay;   // where its last segment stands
    struct log_aside aside; // what lay beyond the last record and was moved to a side file
    // What the keeper needs to open it:
    struct merkle_edge edge;                    // at the segment in which the head ends
    struct merkle_hash proof[MERKLE_PROOF_MAX]; // from the token's head to this
    size_t proof_length;
    bool full; // the disk is
};

// Reads the log up to and beyond `head` (NULL: nothing is signed); `token_size` is the size of the
// token's head when that is older, else 0.
int log_read(struct log *log, const struct checkpoint *head, uint64_t token_size,
             struct log_view *view, struct error *err);
void log_view_clear(struct log_view *view);

// ---- on the event loop ----

// The log goes on from what was read; takes what it needs out of `view`.
void log_take(struct log *log, struct log_view *view);

uint64_t log_size(const struct log *log);           // leaves signed
uint64_t log_segment_bytes(const struct log *log);  // in the segment that is appended to
struct merkle_hash log_root(const struct log *log); // of those
struct merkle_edge log_edge(const struct log *log); // of those

// Whether the segment is to be closed, once `more` bytes are appended to it.
bool log_is_due(const struct log *log, size_t more, int64_t now_us);

// A job of the log's. `done` is called on the event loop, with NULL or why it failed.
typedef void log_done_fn(void *context, const struct error *why);

// Appends whole lines, which must stay until `done`. `time_us` is the first one's. On failure
// nothing more may be appended until the log was read again.
int log_append(struct log *log, const char *lines, size_t length, int64_t time_us,
               log_done_fn *done, void *context, struct error *err);

// The head over `count` more leaves was signed: `note` is its checkpoint. The tree takes the
// leaves; the files follow. Fails when `note` is not of this tree.
int log_signed(struct log *log, const struct merkle_hash *leaves, size_t count, const char *origin,
               const char *note, struct error *err);

// log.sealed is signed as the record before log_size: makes the next segment, and writes `snapshot`
// (taken, freed; NULL: it was written before).
int log_rotate(struct log *log, char *snapshot, size_t length, log_done_fn *done, void *context,
               struct error *err);

// The receipt of a signed record of the last batch.
int log_receipt(struct log *log, uint64_t index, const char *note, char *receipt, size_t size,
                size_t *length, struct error *err);

// Writes what those who read from outside still lack: tiles and the latest checkpoint. Call it soon
// after the last record, when nothing else waits.
void log_publish(struct log *log);

// Looks whether the segment is still in its place, and whether the disk answers at all: records may
// be rare, or wait in the keeper. Nothing while the last look is under way.
void log_look(struct log *log, log_done_fn *done, void *context);

// The disk was full: `done` says whether there is room again.
int log_make_room(struct log *log, log_done_fn *done, void *context, struct error *err);

#endif
