// SPDX-License-Identifier: Apache-2.0
// What is true of a key as a whole, whatever its generation: the rotation under way, the operator's
// hold, the bundle published last: a part of the log's state.
#ifndef PROTO_ROTATIONS_H
#define PROTO_ROTATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

struct rotation {
    char key[KEY_MAX + 1];
    // The open rotation; all of it 0 or "" where none is.
    uint64_t generation; // that is to become active; 0 = no rotation is open
    uint32_t reason;     // enum record_reason: ROTATION by schedule, OPERATOR
    char ticket[TICKET_MAX + 1];
    int64_t started_us;
    // Those that ended.
    int64_t ended_us;   // the last one; 0 = never
    uint32_t failures;  // rolled back since the last one that was confirmed
    uint64_t confirmed; // generation of the last one that was confirmed; 0 = never. While that is
                        // still pre-active, key.deactivated and key.activated are to follow

    int64_t suspended_us; // since when an operator holds the key (no release, no rotation); 0 = not

    uint64_t bundle_generation; // of the bundle published last; 0 = none
    uint32_t bundle_state;      // enum record_bundle_state
    char bundle_sha256[65];     // bundle_digest of it, lower-case hex; "" = none
};

struct rotations {
    size_t count, room;
    struct rotation *items; // ordered by key
};

// A key.published of version 0.1: its bundles had no state and no chain, and only the first of a
// key are such. They change nothing here.
bool rotations_is_early_bundle(const struct record *record);

void rotations_free(struct rotations *rotations);
// NULL where nothing was recorded of that key.
const struct rotation *rotations_find(const struct rotations *rotations, const char *key);
// The open rotation of that key; NULL where none is.
const struct rotation *rotations_open(const struct rotations *rotations, const char *key);

// Whether rotation.*, key.suspended, key.resumed, key.published or key.refreshed may come next, and
// whether a hold or an open rotation forbids what the record says of a generation. What follows
// from the generations' states is for state.c to check. Pure.
int rotations_check(const struct rotations *rotations, const struct record *record,
                    struct error *err);
// Makes room for what the record may add, so that applying it cannot fail. Nothing else changes.
int rotations_reserve(struct rotations *rotations, const struct record *record, struct error *err);
// Applies a record that was checked.
void rotations_apply(struct rotations *rotations, const struct record *record);

// For snapshot.c: takes one that comes after all the others. -1 with `err` where it does not.
int rotations_restore(struct rotations *rotations, const struct rotation *rotation,
                      struct error *err);

#endif
