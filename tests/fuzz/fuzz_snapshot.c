// SPDX-License-Identifier: Apache-2.0
// Fuzzes a snapshot's text: it has one form, and the state read from it is one that can go on.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "snapshot.h"
#include "state.h"

static void require_digest(const struct state *state, const uint8_t *data, size_t size)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    char expected[65], told[65];
    crypto_hash_sha256(digest, data, size);
    sodium_bin2hex(expected, sizeof(expected), digest, sizeof(digest));
    REQUIRE(snapshot_digest(state, told, NULL) == 0 && strcmp(told, expected) == 0);
}

static void require_found(const struct state *state)
{
    size_t leases = 0;
    for (size_t i = 0; i < state_keys(state); i++) {
        const struct state_key *key = state_key_at(state, i);
        REQUIRE(state_key_find(state, key->name, key->generation) == key);
    }
    for (const struct state_lease *lease = state_lease_first(state); lease != NULL;
         lease = state_lease_next(lease), leases++)
        REQUIRE(state_lease_find(state, lease->lease) == lease);
    const struct rotations *rotations = state_rotations(state);
    for (size_t i = 0; i < rotations->count; i++)
        REQUIRE(rotations_find(rotations, rotations->items[i].key) == &rotations->items[i]);
    const struct peers *peers = state_peers(state);
    for (size_t i = 0; i < peers->count; i++) {
        const struct peer *peer = &peers->items[i];
        REQUIRE(peers_find(peers, peer->key, peer->host, peer->peer_key, peer->generation) == peer);
    }
    REQUIRE(leases == state_leases(state) && state_requests(state)->count <= REQUESTS_MAX);
    for (size_t i = 0; i < state_requests(state)->count; i++)
        REQUIRE(state_requests(state)->items[i].approval_count <= APPROVALS_MAX);
}

// A record that any log may go on with.
static void require_going_on(struct state *state)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.seq = state_size(state);
    record.time_us = state_time_us(state);
    record.event = RECORD_DAEMON_STARTED;
    strcpy(record.host, state_host(state));
    if (record.seq == 0 || record.seq == UINT64_MAX || record.host[0] == '\0')
        return;
    REQUIRE(state_apply(state, &record, NULL) == 0);
    REQUIRE(state_size(state) == record.seq + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {.code = ERROR_OK};
    size_t length = 0;
    struct state *state = snapshot_parse((const char *)data, size, &err);
    if (state == NULL) {
        fuzz_require_refusal(&err);
        return 0;
    }
    char *text = snapshot_format(state, &length, &err);
    REQUIRE(text != NULL && length == size && memcmp(text, data, size) == 0);
    free(text);
    require_digest(state, data, size);
    require_found(state);
    require_going_on(state);
    state_free(state);
    return 0;
}
