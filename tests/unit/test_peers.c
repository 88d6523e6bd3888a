// SPDX-License-Identifier: Apache-2.0
// Steps with a counterpart's key: every event in every state of a generation, and what is
// remembered of it.
#include "peers.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int64_t now_us = 1;

// Of key wg1 of host beta; the public key follows from the number.
static struct record step(enum record_event event, uint64_t generation)
{
    struct record r;
    memset(&r, 0, sizeof(r));
    r.event = event;
    r.time_us = now_us++;
    strcpy(r.host, "alpha");
    strcpy(r.key, "wg0");
    strcpy(r.peer, "beta");
    strcpy(r.peer_key, "wg1");
    r.peer_generation = generation;
    memset(r.peer_public_key, (int)generation, sizeof(r.peer_public_key));
    if (event == RECORD_PEER_STAGED)
        strcpy(r.move_sha256, SHA);
    if (event == RECORD_PEER_ACKNOWLEDGED)
        r.peer_state = PEER_STAGED;
    return r;
}

static void take(struct peers *peers, const struct record *record)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(peers_check(peers, record, &err), 0);
    if (err.message[0] != '\0')
        printf("# %s\n", err.message);
    CU_ASSERT_EQUAL_FATAL(peers_reserve(peers, record, NULL), 0);
    peers_apply(peers, record);
}

static void take_step(struct peers *peers, enum record_event event, uint64_t generation)
{
    struct record r = step(event, generation);
    take(peers, &r);
}

static void refuses(const struct peers *peers, const struct record *record, const char *words)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(peers_check(peers, record, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, words));
    if (strstr(err.message, words) == NULL)
        printf("# '%s' is not '%s'\n", err.message, words);
}

static void refuses_step(const struct peers *peers, enum record_event event, uint64_t generation,
                         const char *words)
{
    struct record r = step(event, generation);
    refuses(peers, &r, words);
}

static uint32_t state_of(const struct peers *peers, uint64_t generation)
{
    const struct peer *peer = peers_find(peers, "wg0", "beta", "wg1", generation);
    return peer != NULL ? peer->state : PEER_NONE;
}

static uint64_t current(const struct peers *peers)
{
    const struct peer *peer = peers_current(peers, "wg0", "beta", "wg1");
    return peer != NULL ? peer->generation : 0;
}

// ---- every event in every state ----

// Generation 5 is what each event is about; `other` has the allowed-ips meanwhile, if it is not 0.
struct situation {
    uint32_t state;
    uint64_t other;
};

static void bring_about(struct peers *peers, const struct situation *situation)
{
    memset(peers, 0, sizeof(*peers));
    if (situation->other != 0 && situation->other < 5)
        take_step(peers, RECORD_PEER_MOVED, situation->other);
    if (situation->state != PEER_NONE)
        take_step(peers, RECORD_PEER_STAGED, 5);
    if (situation->state == PEER_MOVED)
        take_step(peers, RECORD_PEER_MOVED, 5);
    if (situation->other > 5) {
        take_step(peers, RECORD_PEER_STAGED, situation->other);
        take_step(peers, RECORD_PEER_MOVED, situation->other);
    }
    if (situation->state == PEER_RETIRED)
        take_step(peers, RECORD_PEER_RETIRED, 5);
    CU_ASSERT_EQUAL(state_of(peers, 5), situation->state);
}

static bool is_legal(const struct situation *situation, enum record_event event)
{
    switch (event) {
    case RECORD_PEER_STAGED:
        return situation->state != PEER_RETIRED && situation->other < 5;
    case RECORD_PEER_MOVED:
        return situation->state != PEER_RETIRED &&
               (situation->state != PEER_NONE || situation->other == 0);
    case RECORD_PEER_RETIRED:
        return situation->state != PEER_RETIRED;
    default:
        return true; // whatever it is about, it is no step with a counterpart's key
    }
}

static uint32_t state_after(const struct situation *situation, enum record_event event)
{
    switch (event) {
    case RECORD_PEER_STAGED:
        return situation->state == PEER_MOVED ? PEER_MOVED : PEER_STAGED;
    case RECORD_PEER_MOVED:
        return PEER_MOVED;
    case RECORD_PEER_RETIRED:
        return PEER_RETIRED;
    default:
        return situation->state;
    }
}

static void try_event(const struct situation *situation, enum record_event event)
{
    struct peers peers;
    struct error err;
    bring_about(&peers, situation);
    struct record r = step(event, 5);
    bool legal = peers_check(&peers, &r, &err) == 0;
    CU_ASSERT_EQUAL(legal, is_legal(situation, event));
    if (legal != is_legal(situation, event))
        printf("# %s with state %u, current %u\n", record_event_name(event), situation->state,
               (unsigned)situation->other);
    if (legal) {
        take(&peers, &r);
        CU_ASSERT_EQUAL(state_of(&peers, 5), state_after(situation, event));
        if (event == RECORD_PEER_MOVED) {
            CU_ASSERT_EQUAL(current(&peers), 5);
            CU_ASSERT(situation->other == 0 || state_of(&peers, situation->other) == PEER_STAGED);
        }
    }
    peers_free(&peers);
}

static void test_every_event_in_every_state(void)
{
    static const struct situation situations[] = {
        {PEER_NONE, 0},   {PEER_NONE, 4},  {PEER_NONE, 6},    {PEER_STAGED, 0},  {PEER_STAGED, 4},
        {PEER_STAGED, 6}, {PEER_MOVED, 0}, {PEER_RETIRED, 0}, {PEER_RETIRED, 4}, {PEER_RETIRED, 6},
    };
    for (size_t i = 0; i < sizeof(situations) / sizeof(situations[0]); i++)
        for (unsigned event = 1; event < RECORD_EVENTS; event++)
            try_event(&situations[i], event);
}

// ---- what is asked of a record ----

static void test_fields(void)
{
    static const enum record_event events[] = {RECORD_PEER_STAGED, RECORD_PEER_MOVED,
                                               RECORD_PEER_RETIRED, RECORD_PEER_LATE,
                                               RECORD_PEER_ACKNOWLEDGED};
    struct peers peers = {.count = 0};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        struct record r = step(events[i], 1);
        r.key[0] = '\0';
        refuses(&peers, &r, "is missing");
        r = step(events[i], 1);
        strcpy(r.peer, "Beta");
        refuses(&peers, &r, "is missing");
        r = step(events[i], 1);
        strcpy(r.peer_key, "a b");
        refuses(&peers, &r, "is missing");
        r = step(events[i], 0);
        refuses(&peers, &r, "is missing");
        r = step(events[i], 1);
        memset(r.peer_public_key, 0, sizeof(r.peer_public_key));
        if (events[i] <= RECORD_PEER_RETIRED)
            refuses(&peers, &r, "peer_public_key is missing");
    }
    struct record r = step(RECORD_PEER_ACKNOWLEDGED, 1);
    r.peer_state = PEER_NONE;
    refuses(&peers, &r, "peer_state is missing");
    r.peer_state = PEER_STATES;
    refuses(&peers, &r, "peer_state is missing");
    r = step(RECORD_PEER_STAGED, 1);
    r.move_sha256[0] = '\0';
    refuses(&peers, &r, "move-sha256");
    strcpy(r.move_sha256, SHA);
    r.move_sha256[63] = '\0';
    refuses(&peers, &r, "move-sha256");
    r = step(RECORD_PEER_RETIRED, 1);
    strcpy(r.move_sha256, SHA);
    refuses(&peers, &r, "move-sha256");
    peers_free(&peers);
}

static void test_public_key_stays(void)
{
    struct peers peers = {.count = 0};
    take_step(&peers, RECORD_PEER_MOVED, 1);
    static const enum record_event events[] = {RECORD_PEER_STAGED, RECORD_PEER_MOVED,
                                               RECORD_PEER_RETIRED};
    for (size_t i = 0; i < 3; i++) {
        struct record r = step(events[i], 1);
        r.peer_public_key[31] ^= 1;
        refuses(&peers, &r, "had another public key before");
    }
    peers_free(&peers);
}

// ---- what is remembered ----

static void test_rotation(void)
{
    struct peers peers = {.count = 0};
    take_step(&peers, RECORD_PEER_MOVED, 1);
    take_step(&peers, RECORD_PEER_STAGED, 2);
    CU_ASSERT_EQUAL(current(&peers), 1);
    struct record again = step(RECORD_PEER_STAGED, 2);
    again.move_sha256[0] = 'f';
    take(&peers, &again);
    take_step(&peers, RECORD_PEER_MOVED, 2);
    CU_ASSERT_EQUAL(current(&peers), 2);
    CU_ASSERT_EQUAL(state_of(&peers, 1), PEER_STAGED); // no allowed-ips, still on the interface
    take_step(&peers, RECORD_PEER_MOVED, 1);           // rolled back
    CU_ASSERT_EQUAL(current(&peers), 1);
    take_step(&peers, RECORD_PEER_RETIRED, 2);
    CU_ASSERT_EQUAL(current(&peers), 1);
    take_step(&peers, RECORD_PEER_STAGED, 3);
    refuses_step(&peers, RECORD_PEER_MOVED, 2, "to generation 2, which is retired");
    take_step(&peers, RECORD_PEER_MOVED, 3);
    CU_ASSERT_EQUAL(state_of(&peers, 2), PEER_NONE); // forgotten: 3 was moved to
    CU_ASSERT_EQUAL(peers.count, 2);
    refuses_step(&peers, RECORD_PEER_STAGED, 2, "below the current one, 3");
    refuses_step(&peers, RECORD_PEER_MOVED, 2, "never staged; the current one is 3");
    const struct peer *peer = peers_find(&peers, "wg0", "beta", "wg1", 3);
    CU_ASSERT(peer->staged_us > 0 && peer->moved_us > peer->staged_us && peer->retired_us == 0);
    peers_free(&peers);
}

// Whoever retired all of a counterpart's generations takes no older one from a registry.
static void test_nothing_older_than_what_was_retired(void)
{
    struct peers peers = {.count = 0};
    take_step(&peers, RECORD_PEER_MOVED, 4);
    take_step(&peers, RECORD_PEER_RETIRED, 4);
    CU_ASSERT_EQUAL(current(&peers), 0);
    refuses_step(&peers, RECORD_PEER_STAGED, 3, "below a retired one, 4");
    refuses_step(&peers, RECORD_PEER_MOVED, 3, "below a retired one, 4");
    refuses_step(&peers, RECORD_PEER_STAGED, 4, "retired");
    take_step(&peers, RECORD_PEER_STAGED, 5);
    take_step(&peers, RECORD_PEER_MOVED, 5);
    CU_ASSERT_EQUAL(state_of(&peers, 4), PEER_NONE);
    peers_free(&peers);
}

// A withdrawn generation never had the allowed-ips: the one below it may still come.
static void test_withdrawn(void)
{
    struct peers peers = {.count = 0};
    take_step(&peers, RECORD_PEER_STAGED, 4);
    take_step(&peers, RECORD_PEER_RETIRED, 4);
    take_step(&peers, RECORD_PEER_MOVED, 3);
    CU_ASSERT_EQUAL(current(&peers), 3);
    CU_ASSERT_EQUAL(state_of(&peers, 4), PEER_RETIRED);
    peers_free(&peers);
}

static void test_counterparts_apart(void)
{
    static const char *const hosts[] = {"beta", "alpha.example", "gamma"};
    static const char *const keys[] = {"wg1", "wg0"};
    struct peers peers = {.count = 0};
    for (uint64_t generation = 1; generation <= 12; generation += 11)
        for (size_t i = 0; i < 6; i++) {
            struct record r = step(RECORD_PEER_STAGED, generation);
            strcpy(r.peer, hosts[i % 3]);
            strcpy(r.peer_key, keys[i % 2]);
            take(&peers, &r);
            r.event = RECORD_PEER_MOVED;
            take(&peers, &r);
        }
    CU_ASSERT_EQUAL(peers.count, 12);
    struct peers again = {.count = 0};
    for (size_t i = 0; i < peers.count; i++) {
        const struct peer *peer = &peers.items[i];
        CU_ASSERT_PTR_EQUAL(
            peers_find(&peers, peer->key, peer->host, peer->peer_key, peer->generation), peer);
        CU_ASSERT_EQUAL(peers_current(&peers, peer->key, peer->host, peer->peer_key)->generation,
                        12);
        CU_ASSERT_EQUAL(peers_restore(&again, peer, NULL), 0);
        CU_ASSERT_EQUAL(peers_restore(&again, peer, NULL), -1);
    }
    CU_ASSERT_EQUAL(memcmp(again.items, peers.items, peers.count * sizeof(*peers.items)), 0);
    CU_ASSERT_PTR_NULL(peers_find(&peers, "wg1", "beta", "wg1", 1));
    CU_ASSERT_PTR_NULL(peers_current(&peers, "wg0", "delta", "wg1"));
    peers_free(&peers);
    peers_free(&again);
}

static void test_restore_takes_one_current(void)
{
    struct peers peers = {.count = 0};
    struct peer peer = {.generation = 1, .state = PEER_MOVED};
    strcpy(peer.key, "wg0");
    strcpy(peer.host, "beta");
    strcpy(peer.peer_key, "wg1");
    CU_ASSERT_EQUAL(peers_restore(&peers, &peer, NULL), 0);
    peer.generation = 2;
    CU_ASSERT_EQUAL(peers_restore(&peers, &peer, NULL), -1);
    peer.state = PEER_STAGED;
    CU_ASSERT_EQUAL(peers_restore(&peers, &peer, NULL), 0);
    peers_free(&peers);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"every event in every state", test_every_event_in_every_state},
        {"what a record must name", test_fields},
        {"a generation's public key stays", test_public_key_stays},
        {"a rotation, rolled back and done again", test_rotation},
        {"nothing older than what was retired", test_nothing_older_than_what_was_retired},
        {"what was withdrawn", test_withdrawn},
        {"counterparts do not mix", test_counterparts_apart},
        {"at most one is current", test_restore_takes_one_current},
        CU_TEST_INFO_NULL,
    };
    return tap_run("peers", tests);
}
