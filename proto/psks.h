// SPDX-License-Identifier: Apache-2.0
// Preshared keys as this host's log tells of them: which epoch each link is at: a part of the log's
// state.
//
// A link's preshared keys are counted by epochs from 1 on; epoch 0 is none. One end makes them, the
// other takes them: PSK(e) = HMAC-SHA256(key = PSK(e-1), T(e)), T(e) being what the maker's token
// derives and the taker is sent. PSK(e-1) is 32 zero bytes where a chain begins.
#ifndef PROTO_PSKS_H
#define PROTO_PSKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

// A chain begins at epoch 1 and anew after so many epochs: the maker stores none and computes its
// chain from the beginning each time.
#define PSKS_CHAIN_MAX 4096

// The epoch at which the chain of this one (1 or more) begins.
uint64_t psks_chain_first(uint64_t epoch);

// One link.
struct psk {
    char key[KEY_MAX + 1];   // our own key: the interface
    char host[HOST_MAX + 1]; // the counterpart
    char peer_key[KEY_MAX + 1];
    uint64_t made, received; // the highest epoch that this end made, or took; 0 = none
    uint64_t set;            // the epoch on the interface; 0 = none
    uint64_t destroyed;      // of what was received, up to this
    int64_t made_us;         // when `made` was made first; 0 = never
    int64_t received_us, set_us;
};

struct psks {
    size_t count, room;
    struct psk *items; // ordered by key, host, peer_key
};

void psks_free(struct psks *psks);
const struct psk *psks_find(const struct psks *psks, const char *key, const char *host,
                            const char *peer_key);
// Whether the epoch is there to be released: made or received, and not destroyed. `psk` may be
// NULL.
bool psks_has(const struct psk *psk, uint64_t epoch);
// "made" or "received": whether this end made it; for a release's record.
const char *psks_method(const struct psk *psk);

// Whether a record is about a preshared key: psk.*, and a release, its outcome or the end of its
// lease with the purpose "preshared".
bool psks_is_about(const struct record *record);

// Whether such a record may come next (of a release: as far as this knows it; its lease is the
// state's to look after); any other record may. Pure.
int psks_check(const struct psks *psks, const struct record *record, struct error *err);
// Makes room for what the record may add, so that applying it cannot fail. Nothing else changes.
int psks_reserve(struct psks *psks, const struct record *record, struct error *err);
// Applies a record that was checked.
void psks_apply(struct psks *psks, const struct record *record);

// For snapshot.c: takes one that comes after all the others. -1 with `err` where it does not.
int psks_restore(struct psks *psks, const struct psk *psk, struct error *err);

#endif
