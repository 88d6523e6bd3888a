// SPDX-License-Identifier: Apache-2.0
// Fuzzes a log, line by line: a refused record changes nothing, and a state that was written down
// and read back goes on like the one that was not.
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "record.h"
#include "snapshot.h"
#include "state.h"

static char *text_of(const struct state *state)
{
    size_t length;
    struct error err;
    char *text = snapshot_format(state, &length, &err);
    REQUIRE(text != NULL && strlen(text) == length);
    return text;
}

// So that a line need not say what only the lines before it decide: index, host and digest, and a
// time that is not past.
static void fit(struct record *record, const struct state *state)
{
    record->seq = state_size(state);
    if (record->time_us < state_time_us(state))
        record->time_us = state_time_us(state);
    if (state_size(state) > 0)
        memcpy(record->host, state_host(state), strlen(state_host(state)) + 1);
    if (record->event == RECORD_LOG_SEALED || record->event == RECORD_DAEMON_STOPPED)
        REQUIRE(snapshot_digest(state, record->sha256, NULL) == 0);
}

static void require_whole_keys(const struct state *state)
{
    const struct rotations *rotations = state_rotations(state);
    for (size_t i = 0; i < rotations->count; i++) {
        const struct rotation *rotation = &rotations->items[i];
        REQUIRE(rotations_find(rotations, rotation->key) == rotation);
        if (rotation->generation == 0)
            continue;
        const struct state_key *key = state_key_find(state, rotation->key, rotation->generation);
        REQUIRE(key != NULL && (key->state == KEY_PRE_ACTIVE || key->state == KEY_ACTIVE));
        REQUIRE(rotation->suspended_us == 0);
    }
    const struct peers *peers = state_peers(state);
    for (size_t i = 0; i < peers->count; i++) {
        const struct peer *peer = &peers->items[i];
        REQUIRE(peers_find(peers, peer->key, peer->host, peer->peer_key, peer->generation) == peer);
        REQUIRE(peer->state != PEER_MOVED ||
                peers_current(peers, peer->key, peer->host, peer->peer_key) == peer);
    }
}

static void require_sane(const struct state *state)
{
    const struct state_key *last = NULL;
    require_whole_keys(state);
    for (size_t i = 0; i < state_keys(state); i++) {
        const struct state_key *key = state_key_at(state, i);
        REQUIRE(state_key_find(state, key->name, key->generation) == key);
        REQUIRE(key->state != KEY_ACTIVE || state_key_active(state, key->name) == key);
        REQUIRE(key->state != KEY_PRE_ACTIVE || state_key_pre_active(state, key->name) == key);
        REQUIRE(state_key_highest(state, key->name) >= key->generation);
        if (last != NULL)
            REQUIRE(strcmp(last->name, key->name) < 0 ||
                    (strcmp(last->name, key->name) == 0 && last->generation < key->generation));
        last = key;
    }
    size_t leases = 0;
    for (const struct state_lease *lease = state_lease_first(state); lease != NULL;
         lease = state_lease_next(lease), leases++) {
        REQUIRE(state_lease_find(state, lease->lease) == lease);
        REQUIRE(state_key_find(state, lease->key, lease->generation) != NULL);
    }
    REQUIRE(leases == state_leases(state) && state_requests(state)->count <= REQUESTS_MAX);
}

// Whether the record was accepted.
static bool apply(struct state *state, const struct record *record)
{
    struct error err = {.code = ERROR_OK};
    char *before = text_of(state);
    uint64_t size = state_size(state);
    bool acceptable = state_check(state, record, &err) == 0;
    REQUIRE((state_apply(state, record, &err) == 0) == acceptable);
    char *after = text_of(state);
    if (acceptable) {
        REQUIRE(state_size(state) == size + 1 && state_time_us(state) == record->time_us);
        require_sane(state);
    } else {
        fuzz_require_refusal(&err);
        REQUIRE(strcmp(before, after) == 0);
    }
    free(before);
    free(after);
    return acceptable;
}

// The same state by way of its text.
static struct state *written_and_read(const struct state *state)
{
    struct error err = {.code = ERROR_OK};
    char *text = text_of(state);
    struct state *read = snapshot_parse(text, strlen(text), &err);
    REQUIRE(read != NULL);
    char *again = text_of(read);
    REQUIRE(strcmp(text, again) == 0);
    free(text);
    free(again);
    return read;
}

static void require_equal(const struct state *a, const struct state *b)
{
    char *x = text_of(a), *y = text_of(b);
    REQUIRE(strcmp(x, y) == 0);
    free(x);
    free(y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct state *live = state_new(), *other = state_new();
    struct record record;
    char *line;
    if (live == NULL || other == NULL)
        abort();
    while ((line = input_line(&input)) != NULL) {
        if (record_parse(&record, line, strlen(line), NULL) == 0) {
            bool as_it_is = apply(live, &record);
            REQUIRE(apply(other, &record) == as_it_is);
            if (!as_it_is) {
                fit(&record, live);
                REQUIRE(apply(live, &record) == apply(other, &record));
            }
            require_equal(live, other);
            state_free(other);
            other = written_and_read(live);
        }
        free(line);
    }
    state_free(live);
    state_free(other);
    return 0;
}
