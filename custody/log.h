// SPDX-License-Identifier: Apache-2.0
// The audit log's files as custodyd writes them: the segment, the hash tiles, the checkpoint.
//
//   DIR/log/NNNNNNNNNNNN.jsonl   segments, by first index
//   DIR/tile/…                   hash tiles (c2sp.org/tlog-tiles); rebuilt from the segments when
//   they are missing DIR/checkpoint               the latest signed head
//
// The tree kept here holds what is signed. Lines appended and not signed yet are in the segment
// alone.
#ifndef CUSTODY_LOG_H
#define CUSTODY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint.h"
#include "error.h"
#include "merkle.h"
#include "record.h"
#include "state.h"

struct log; // opaque

// Opens the log in `dir`, makes the folders that are missing, and locks it: one writer at a time.
// NULL with `err` on failure.
struct log *log_new(const char *dir, struct error *err);
void log_free(struct log *log);

// What lay beyond the last valid record and was moved to a side file.
struct log_aside {
    bool any;
    uint64_t offset; // in the last segment
    uint64_t length;
    char sha256[65];
};

// Finds DIR and DIR/log anew, where they were replaced since (a copy was put back); DIR is locked
// again then. ERROR_NOT_FOUND where one is missing.
int log_find_folders(struct log *log, struct error *err);

// Reads the newest signed head that DIR/checkpoint holds. Returns 1 with `head` and `note`
// (NOTE_MAX bytes), 0 when there is none or none that `key` signed (`err` says why), -1 when it
// cannot be read.
int log_read_checkpoint(struct log *log, const struct note_key *key, struct checkpoint *head,
                        char *note, struct error *err);

// Reads every record, applies it to `state` (which must be new), and rebuilds the tree up to `head`
// (NULL: nothing is signed). Fails with ERROR_DATA_LOSS, naming the place, when what is signed is
// not all there as it was. What follows the head is kept as far as it is complete, valid and
// consecutive; the rest is set aside.
int log_read(struct log *log, const struct checkpoint *head, struct state *state,
             struct log_aside *aside, struct error *err);

bool log_is_empty(struct log *log, struct error *err); // no record stands in any segment

uint64_t log_size(const struct log *log);           // leaves signed
struct merkle_hash log_root(const struct log *log); // of those
uint64_t log_segment_first(
    const struct log *log); // index of the first record of the segment that is appended to

// The tree's right edge at `size` leaves, and a consistency proof between two signed sizes (see
// merkle.h).
int log_edge(struct log *log, uint64_t size, struct merkle_edge *edge, struct error *err);
int log_prove_consistency(struct log *log, uint64_t old_size, uint64_t new_size,
                          struct merkle_hash *proof, size_t *length, struct error *err);

// Goes through the records that are in the segment but not signed yet, in order: each call gives
// the next. Returns 1, 0 at the end, -1 with `err`. log_signed starts it anew.
int log_next_unsigned(struct log *log, struct record *record, struct merkle_hash *leaf,
                      struct error *err);

// Sets aside the record that log_next_unsigned gave last and all that follows it: they are no part
// of the log. Until log_read has read it again, nothing may be appended.
int log_set_aside_from_last(struct log *log, struct log_aside *aside, struct error *err);

// Appends whole lines. On failure nothing more may be appended until log_read has looked at what is
// there.
int log_append(struct log *log, const char *lines, size_t length, struct error *err);

// The head over `count` more leaves was signed: `note` is its checkpoint. The tree takes the
// leaves; tiles that became full are written, and the checkpoint, unless one was written just
// before. Fails when `note` is not of this tree.
int log_signed(struct log *log, const struct merkle_hash *leaves, size_t count, const char *origin,
               const char *note, struct error *err);

// The receipt of a signed record.
int log_receipt(struct log *log, uint64_t index, const char *note, char *receipt, size_t size,
                size_t *length, struct error *err);

// Removes DIR/checkpoint: a head that no longer counts must not be taken for the newest.
int log_drop_checkpoint(struct log *log, struct error *err);

// Writes what those who read from outside still lack: the latest checkpoint, and the tiles that are
// not full yet. Call it soon after the last record, when nothing else waits.
int log_publish(struct log *log, struct error *err);

#endif
