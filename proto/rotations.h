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
    uint64_t generation; // that is to become active; 0 = no rotation is open
    uint32_t reason;     // enum record_reason: ROTATION by schedule, OPERATOR
    char ticket[TICKET_MAX + 1];
    int64_t started_us;
    uint32_t failures;          // rotations rolled back since the last one that was confirmed
    int64_t ended_us;           // of the last one; 0 = never
    bool suspended;             // an operator holds the key: no release, no rotation
    uint64_t bundle_generation; // of the bundle published last; 0 = none
    uint32_t bundle_state;      // enum record_bundle_state
    char bundle_sha256[65];     // of the whole signed note, lower-case hex
};

struct rotations {
    size_t count, room;
    struct rotation *items; // ordered by key
};

void rotations_free(struct rotations *rotations);
// NULL where nothing was recorded of that key.
const struct rotation *rotations_find(const struct rotations *rotations, const char *key);

#endif
