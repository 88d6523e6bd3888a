// SPDX-License-Identifier: Apache-2.0
// Reading the log back: the state and the tree out of its segments, from the newest snapshot that
// holds on, or from record 0.
#ifndef CUSTODY_REPLAY_H
#define CUSTODY_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "checkpoint.h"
#include "error.h"
#include "state.h"
#include "tree.h"

struct replay {
    // What is to be read.
    const char *dir;               // the audit folder, for messages
    int dir_fd, log_fd;            // it, and its folder log
    const struct checkpoint *head; // NULL: nothing is signed
    bool from_start;               // use no snapshot

    // What came of it.
    struct state *state; // of all records
    struct tree *tree;   // of those that the head counts
    uint64_t last;       // first index of the last segment
    uint64_t end;        // bytes of its records
    int64_t began_us;    // its first record's time; 0 = it has none
    bool sealed;         // it ends with log.sealed, but the head does not count that yet
    bool torn;           // something else than records follows in it
    uint64_t head_in;    // first index of the segment in which the head ends
    uint64_t tail; // byte in that segment where the records begin that the head does not count
    bool lacking;  // a tile or snapshot is missing or damaged
    bool repairs;  // ... and is made again in this pass
    struct error unrepaired; // a tile or snapshot that was missing could not be written; ERROR_OK
};

// Fails with ERROR_DATA_LOSS, naming the place, when what is signed is not all there as it was.
// What follows the head is kept as far as it is complete, valid and consecutive. Tiles and
// snapshots that are missing or damaged on the way are made again, in a second pass: nothing is
// written before the lines have led to the signed root, since what stands there may be what tells
// which of them was changed. The segment `last` may not exist
// yet: the one before it is complete.
int replay_run(struct replay *replay, struct error *err);
// Frees the state and the tree that were not taken (set to NULL).
void replay_clear(struct replay *replay);

#endif
