// SPDX-License-Identifier: Apache-2.0
// Counterparts' key generations as this host's log tells of them: staged, moved to, retired: a part
// of the log's state.
#ifndef PROTO_PEERS_H
#define PROTO_PEERS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

// One generation of a counterpart's key. A retired one is kept until a higher one was moved to, so
// that an old bundle which the registry shows again is known for what it is.
struct peer {
    char key[KEY_MAX + 1];   // our own key: the interface
    char host[HOST_MAX + 1]; // the counterpart
    char peer_key[KEY_MAX + 1];
    uint64_t generation;
    uint32_t state; // enum record_peer_state. At most one of a counterpart's generations is MOVED:
                    // the others are peers without allowed-ips, so STAGED again when the
                    // allowed-ips went elsewhere, or RETIRED
    uint8_t public_key[RECORD_KEY_SIZE];
    int64_t staged_us;  // 0 = never
    int64_t moved_us;   // last time the allowed-ips went to it; 0 = never
    int64_t retired_us; // 0 = never
};

struct peers {
    size_t count, room;
    struct peer *items; // ordered by key, host, peer_key, generation
};

void peers_free(struct peers *peers);
const struct peer *peers_find(const struct peers *peers, const char *key, const char *host,
                              const char *peer_key, uint64_t generation);
// The generation that has the allowed-ips (MOVED); NULL where none has.
const struct peer *peers_current(const struct peers *peers, const char *key, const char *host,
                                 const char *peer_key);

// All counterparts of our own key: they stand together. NULL and 0 where it has none.
struct peer_span {
    const struct peer *first;
    size_t count;
};
struct peer_span peers_of(const struct peers *peers, const char *key);

// Whether a peer.* record may come next; other records may for all that is known here. Pure.
int peers_check(const struct peers *peers, const struct record *record, struct error *err);
// Makes room for what the record may add, so that applying it cannot fail. Nothing else changes.
int peers_reserve(struct peers *peers, const struct record *record, struct error *err);
// Applies a record that was checked.
void peers_apply(struct peers *peers, const struct record *record);

// For snapshot.c: takes one that comes after all the others. -1 with `err` where it does not.
int peers_restore(struct peers *peers, const struct peer *peer, struct error *err);

#endif
