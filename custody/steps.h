// SPDX-License-Identifier: Apache-2.0
// What became of each key's rotation that began last, step by step, for those who follow it: from
// the records that were committed since the daemon was started.
#ifndef CUSTODY_STEPS_H
#define CUSTODY_STEPS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define STEPS_MAX        64  // of a key, the latest
#define STEPS_DETAIL_MAX 120 // bytes; what is longer is cut

struct steps; // opaque

struct step {
    uint64_t seq;
    int64_t time_us;
    enum record_event event;
    uint64_t generation; // in peer.* the counterpart's
    char peer[HOST_MAX + 1];
    char peer_key[KEY_MAX + 1];
    uint32_t peer_state; // enum record_peer_state
    char detail[STEPS_DETAIL_MAX + 1];
};

// NULL when out of memory.
struct steps *steps_new(void);
void steps_free(struct steps *steps);

// Takes in a record that was committed; rotation.started begins anew, and so does key.revoked,
// whose replacement's rotation goes on with it.
void steps_note(struct steps *steps, const struct record *record);
// How many there are of a key, and the one at `i`, oldest first.
size_t steps_count(const struct steps *steps, const char *key);
const struct step *steps_at(const struct steps *steps, const char *key, size_t i);

#endif
