// SPDX-License-Identifier: Apache-2.0
// The audit folder as custodyd writes it. All of this may wait for the disk: it is called from the
// disk's thread alone.
//
//   DIR/log/NNNNNNNNNNNN.jsonl     segments, by first index; all but the last end with log.sealed
//   DIR/log/NNNNNNNNNNNN.snapshot  the state before the log.sealed that ends the segment before NNN
//   DIR/tile/...                   hash tiles (c2sp.org/tlog-tiles)
//   DIR/checkpoint                 the latest signed head
//   DIR/reserve                    room for the record that says that the disk is full
//
// Only the segments cannot be had again from the rest.
#ifndef CUSTODY_LOG_FILES_H
#define CUSTODY_LOG_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "checkpoint.h"
#include "error.h"
#include "record.h"
#include "replay.h"
#include "tile.h"

struct log_files; // opaque

// How a message goes on that tells how to bring a deleted segment back.
#define LOG_FILES_STILL_OPEN "; the file that was deleted is still open"

struct log_files *log_files_new(const char *dir, struct error *err);
void log_files_free(struct log_files *files);

// Locks the log: one writer at a time. Makes the folders that are missing, but only the first time.
// Later it does nothing as long as the folders are those that it opened, and otherwise opens anew
// what stands under their names. ERROR_NOT_FOUND where one is missing.
int log_files_open(struct log_files *files, struct error *err);

// See log.h.
struct log_aside {
    bool any;
    uint64_t offset; // in the last segment
    uint64_t length;
    char sha256[65];
};

int log_files_read_checkpoint(struct log_files *files, const struct note_key *key,
                              struct checkpoint *head, char *note, struct error *err);
bool log_files_is_empty(struct log_files *files, struct error *err);

// Reads the log (replay.h), sets aside what lies beyond its last record, and opens its last segment
// to append to.
int log_files_replay(struct log_files *files, const struct checkpoint *head, bool from_start,
                     struct replay *replay, struct log_aside *aside, struct error *err);
tile_read_fn log_files_read_tile; // the context is the struct log_files

// The next records, at most `room`, that the head did not count when the log was read.
int log_files_next_unsigned(struct log_files *files, struct record *records, size_t room,
                            size_t *count, struct error *err);

// Sets aside record `index`, which the head does not count, and all that follows it: they are no
// part of the log. Nothing may be appended until the log was read again.
int log_files_cut(struct log_files *files, uint64_t index, struct log_aside *aside,
                  struct error *err);
// Removes DIR/checkpoint: a head that no longer counts must not be taken for the newest.
int log_files_drop_checkpoint(struct log_files *files, struct error *err);

// Appends whole lines to the last segment, which must be the file that it was. After a failure
// nothing more is appended until the log was read again.
int log_files_append(struct log_files *files, const char *lines, size_t length, struct error *err);
// Whether the last segment still is the file that it was. Nothing is said of one that cannot be
// appended to anyway.
int log_files_look(struct log_files *files, struct error *err);
// Why the last append failed: the disk, or a quota, is full.
bool log_files_are_full(const struct log_files *files);
// Whether there is room again.
int log_files_make_room(struct log_files *files, struct error *err);

// A tile that became full.
struct full_tile {
    STAILQ_ENTRY(full_tile) link;
    unsigned level;
    uint64_t index;
    struct merkle_hash hashes[TILE_WIDTH];
};
STAILQ_HEAD(full_tiles, full_tile);

// What those who read from outside still lack.
struct publication {
    struct full_tiles tiles; // freed and taken out as they are written
    bool has_edge;
    struct tile_edge edge;     // the unfinished tiles
    char checkpoint[NOTE_MAX]; // "" = none
};
int log_files_publish(struct log_files *files, struct publication *publication, struct error *err);

// The last segment ends with log.sealed, and that is signed: makes segment `next`, and writes the
// snapshot (`text`; NULL: it stands there), unless they are there.
int log_files_rotate(struct log_files *files, uint64_t next, const char *text, size_t length,
                     struct error *err);

#endif
