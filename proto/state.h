// SPDX-License-Identifier: Apache-2.0
// What the records say: keys, their generations and open leases, rotations and counterparts' keys,
// built only by applying records in order.
#ifndef PROTO_STATE_H
#define PROTO_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lifecycle.h"
#include "peers.h"
#include "psks.h"
#include "record.h"
#include "request_list.h"
#include "rotations.h"

struct state; // opaque

// One generation of a key.
struct state_key {
    char name[KEY_MAX + 1];
    uint64_t generation;
    enum key_state state;
    enum record_purpose purpose;
    uint8_t public_key[RECORD_KEY_SIZE];
    int64_t generated_us;
    int64_t activated_us;   // 0 = never
    int64_t deactivated_us; // 0 = never
    uint64_t releases;      // granted so far
    int64_t released_us;    // the last time; 0 = never
};

// A release whose outcome is not recorded yet.
struct state_lease {
    char lease[RECORD_LEASE_MAX + 1];
    char key[KEY_MAX + 1];
    uint64_t generation; // 0: a preshared key was released
    uint64_t seq;        // of its release.granted
    int64_t expires_us;
    uint32_t uid; // of the applier
    uint32_t pid;
};

// Returns NULL when out of memory.
struct state *state_new(void);
void state_free(struct state *state);

// Applies the next record. A destroyed generation is forgotten once a higher one of its key exists
// and none of its leases is open, so that a state grows with the keys and not with the log. Pure:
// nothing but `state` changes, and on failure (-1: out of sequence, time running back, a transition
// that lifecycle_next does not know, an outcome without its lease, …) nothing at all does.
int state_apply(struct state *state, const struct record *record, struct error *err);
// Whether state_apply would accept the record, without applying it.
int state_check(const struct state *state, const struct record *record, struct error *err);

uint64_t state_size(const struct state *state);    // records applied so far
int64_t state_time_us(const struct state *state);  // of the last one; 0 before the first
bool state_initialised(const struct state *state); // token.initialised was applied
// The log key in force and the host key, from the records; "" before the first.
const char *state_log_vkey(const struct state *state);
const char *state_host_vkey(const struct state *state);
const char *state_host(const struct state *state); // "" before the first record

// Generations, ordered by name then number. Pointers live until the next state_apply. NULL where
// there is none.
size_t state_keys(const struct state *state);
const struct state_key *state_key_at(const struct state *state, size_t i);
const struct state_key *state_key_find(const struct state *state, const char *name,
                                       uint64_t generation);
// The active generation of a key, else the pre-active one, else NULL.
const struct state_key *state_key_current(const struct state *state, const char *name);
const struct state_key *state_key_active(const struct state *state, const char *name);
const struct state_key *state_key_pre_active(const struct state *state, const char *name);
// The highest generation ever recorded for `name`; 0 = none.
uint64_t state_key_highest(const struct state *state, const char *name);

// Open leases: how many, the one granted first, and the one after (NULL at the end). Pointers live
// until the next state_apply.
size_t state_leases(const struct state *state);
const struct state_lease *state_lease_first(const struct state *state);
const struct state_lease *state_lease_next(const struct state_lease *lease);
const struct state_lease *state_lease_find(const struct state *state, const char *lease);

// Requests for dangerous operations that wait for approvals, or to be carried out.
const struct request_list *state_requests(const struct state *state);

// What is true of keys as a whole, and of the counterparts' keys.
const struct rotations *state_rotations(const struct state *state);
const struct peers *state_peers(const struct state *state);
const struct psks *state_psks(const struct state *state);

// ---- for snapshot.c alone: a state from what its text says ----

// What is not about keys, leases and requests.
struct state_head {
    uint64_t size;
    int64_t time_us;
    char host[HOST_MAX + 1];
    char log_vkey[NOTE_VKEY_MAX];
    char host_vkey[NOTE_VKEY_MAX];
};
void state_restore_head(struct state *state, const struct state_head *head);
// Each must come after the one before it in the state's own order. -1 with `err` otherwise, and
// when out of memory.
int state_restore_key(struct state *state, const struct state_key *key, struct error *err);
int state_restore_rotation(struct state *state, const struct rotation *rotation, struct error *err);
int state_restore_peer(struct state *state, const struct peer *peer, struct error *err);
int state_restore_psk(struct state *state, const struct psk *psk, struct error *err);
int state_restore_lease(struct state *state, const struct state_lease *lease, struct error *err);
int state_restore_requests(struct state *state, const struct request_list *requests,
                           struct error *err);

#endif
