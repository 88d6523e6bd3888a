// SPDX-License-Identifier: Apache-2.0
// What is true of a key as a whole: every event in every phase of a rotation, and the story of one
// rotation after the other as a log tells it.
#include "rotations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "bundle.h"
#include "state.h"
#include "tap.h"

#define DAY (INT64_C(86400) * 1000000)

// ---- every event in every phase ----

enum phase { NOTHING, OPEN, HELD, CONFIRMED, ROLLED_BACK, PHASES };

static struct record about(enum record_event event, uint64_t generation)
{
    struct record r;
    memset(&r, 0, sizeof(r));
    r.event = event;
    r.time_us = 7;
    strcpy(r.host, "alpha");
    strcpy(r.key, "wg0");
    r.generation = generation;
    r.public_key[0] = (uint8_t)generation;
    r.reason = REASON_ROTATION;
    if (event == RECORD_KEY_PUBLISHED) {
        r.bundle_state = BUNDLE_ACTIVE;
        r.not_after_us = DAY;
    }
    return r;
}

static void take(struct rotations *rotations, enum record_event event, uint64_t generation)
{
    struct record r = about(event, generation);
    CU_ASSERT_EQUAL_FATAL(rotations_check(rotations, &r, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(rotations_reserve(rotations, &r, NULL), 0);
    rotations_apply(rotations, &r);
}

// Generation 2 is the one that a rotation leads to.
static void bring_about(struct rotations *rotations, enum phase phase)
{
    memset(rotations, 0, sizeof(*rotations));
    if (phase == OPEN || phase == CONFIRMED || phase == ROLLED_BACK)
        take(rotations, RECORD_ROTATION_STARTED, 2);
    if (phase == CONFIRMED)
        take(rotations, RECORD_ROTATION_CONFIRMED, 2);
    if (phase == ROLLED_BACK)
        take(rotations, RECORD_ROTATION_ROLLED_BACK, 2);
    if (phase == HELD)
        take(rotations, RECORD_KEY_SUSPENDED, 0);
}

static bool is_legal(enum phase phase, enum record_event event, uint64_t generation)
{
    switch (event) {
    case RECORD_ROTATION_STARTED:
        return phase != OPEN && phase != HELD;
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
        return phase == OPEN && generation == 2;
    case RECORD_KEY_SUSPENDED:
        return phase != OPEN && phase != HELD && generation == 0;
    case RECORD_KEY_RESUMED:
        return phase == HELD && generation == 0;
    case RECORD_KEY_PUBLISHED:
        return generation != 0; // its bundle would be none
    case RECORD_KEY_REFRESHED:
        return false; // no bundle was published
    case RECORD_RELEASE_GRANTED:
        return phase != HELD;
    case RECORD_KEY_DEACTIVATED:
        return phase != OPEN;
    case RECORD_KEY_REVOKED:
    case RECORD_KEY_DESTROYING:
        return phase != OPEN || generation != 2;
    default:
        return true;
    }
}

static void test_every_event_in_every_phase(void)
{
    for (unsigned phase = 0; phase < PHASES; phase++)
        for (unsigned event = 1; event < RECORD_EVENTS; event++)
            for (uint64_t generation = 0; generation <= 3; generation++) {
                struct rotations rotations;
                struct record r = about(event, generation);
                bring_about(&rotations, phase);
                bool legal = rotations_check(&rotations, &r, NULL) == 0;
                CU_ASSERT_EQUAL(legal, is_legal(phase, event, generation));
                if (legal != is_legal(phase, event, generation))
                    printf("# %s of generation %u in phase %u\n", record_event_name(event),
                           (unsigned)generation, phase);
                rotations_free(&rotations);
            }
}

static void test_tickets_and_reasons(void)
{
    static const char *const bad[] = {"-", "two\nlines", "tab\t"};
    struct rotations rotations = {.count = 0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct record r = about(RECORD_ROTATION_STARTED, 2);
        strcpy(r.ticket, bad[i]);
        CU_ASSERT_EQUAL(rotations_check(&rotations, &r, NULL), -1);
    }
    for (unsigned reason = 0; reason < REASONS; reason++) {
        struct record r = about(RECORD_ROTATION_STARTED, 2);
        r.reason = reason;
        bool legal = reason == REASON_ROTATION || reason == REASON_OPERATOR;
        CU_ASSERT_EQUAL(rotations_check(&rotations, &r, NULL), legal ? 0 : -1);
    }
    rotations_free(&rotations);
}

// ---- a log's story ----

static struct record next(const struct state *state, enum record_event event, uint64_t generation)
{
    struct record r = about(event, generation);
    r.seq = state_size(state);
    r.time_us = state_time_us(state) + 1;
    const struct rotation *rotation = rotations_find(state_rotations(state), r.key);
    const struct state_key *key = state_key_find(state, r.key, generation);
    if (event == RECORD_TOKEN_INITIALISED) {
        r.key[0] = '\0';
        strcpy(r.log_vkey, "log");
        strcpy(r.host_vkey, "host");
    }
    if (event == RECORD_KEY_PUBLISHED && key != NULL)
        r.bundle_state = lifecycle_bundle_state(key->state);
    if (event == RECORD_KEY_PUBLISHED && rotation != NULL)
        strcpy(r.previous, rotation->bundle_sha256);
    if (event == RECORD_KEY_REFRESHED && rotation != NULL)
        strcpy(r.sha256, rotation->bundle_sha256);
    if (event == RECORD_RELEASE_GRANTED) {
        r.actor.present = true;
        snprintf(r.lease, sizeof(r.lease), "%02x", (unsigned)r.seq);
        r.expires_us = r.time_us + 10;
        r.applier_public_key[0] = 1;
    }
    return r;
}

static void must_take(struct state *state, const struct record *record)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(state_apply(state, record, &err), 0);
    if (err.message[0] != '\0')
        printf("# %s: %s\n", record_event_name(record->event), err.message);
}

static void must(struct state *state, enum record_event event, uint64_t generation)
{
    struct record r = next(state, event, generation);
    must_take(state, &r);
}

static void refused(struct state *state, const struct record *record, const char *words)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(state_check(state, record, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, words));
    if (strstr(err.message, words) == NULL)
        printf("# '%s' is not '%s'\n", err.message, words);
}

static void refuses(struct state *state, enum record_event event, uint64_t generation,
                    const char *words)
{
    struct record r = next(state, event, generation);
    refused(state, &r, words);
}

static const struct rotation *rotation_of(const struct state *state)
{
    static const struct rotation none;
    const struct rotation *rotation = rotations_find(state_rotations(state), "wg0");
    return rotation != NULL ? rotation : &none;
}

// Generation 1 is active, 2 pre-active.
static struct state *example(void)
{
    struct state *state = state_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    must(state, RECORD_TOKEN_INITIALISED, 0);
    must(state, RECORD_KEY_GENERATED, 1);
    must(state, RECORD_KEY_ACTIVATED, 1);
    must(state, RECORD_KEY_GENERATED, 2);
    return state;
}

static void test_confirmed(void)
{
    struct state *state = example();
    refuses(state, RECORD_ROTATION_STARTED, 1, "is not its pre-active one");
    refuses(state, RECORD_ROTATION_STARTED, 3, "is not its pre-active one");
    refuses(state, RECORD_ROTATION_CONFIRMED, 2, "of which no rotation is open");
    struct record r = next(state, RECORD_ROTATION_STARTED, 2);
    r.reason = REASON_OPERATOR;
    strcpy(r.ticket, "CHG-7 of today");
    must_take(state, &r);
    CU_ASSERT_EQUAL(rotation_of(state)->generation, 2);
    CU_ASSERT_EQUAL(rotation_of(state)->reason, REASON_OPERATOR);
    CU_ASSERT_STRING_EQUAL(rotation_of(state)->ticket, "CHG-7 of today");
    CU_ASSERT_EQUAL(rotation_of(state)->started_us, r.time_us);
    CU_ASSERT_PTR_NOT_NULL(rotations_open(state_rotations(state), "wg0"));
    refuses(state, RECORD_ROTATION_STARTED, 2, "while its rotation to generation 2 is open");
    refuses(state, RECORD_KEY_ACTIVATED, 2, "already has an active generation");
    refuses(state, RECORD_KEY_DEACTIVATED, 1, "while its rotation to generation 2 is open");
    refuses(state, RECORD_KEY_REVOKED, 2, "while its rotation to generation 2 is open");
    refuses(state, RECORD_KEY_DESTROYING, 2, "while its rotation to generation 2 is open");
    refuses(state, RECORD_KEY_SUSPENDED, 0, "while its rotation to generation 2 is open");
    refuses(state, RECORD_ROTATION_CONFIRMED, 1, "the open rotation is to generation 2");
    refuses(state, RECORD_ROTATION_CONFIRMED, 2, "was not released since its rotation started");
    must(state, RECORD_RELEASE_GRANTED, 2);
    must(state, RECORD_ROTATION_CONFIRMED, 2);
    CU_ASSERT_EQUAL(rotation_of(state)->generation, 0);
    CU_ASSERT_EQUAL(rotation_of(state)->confirmed, 2);
    CU_ASSERT_EQUAL(rotation_of(state)->reason, REASON_NONE);
    CU_ASSERT_STRING_EQUAL(rotation_of(state)->ticket, "");
    CU_ASSERT_EQUAL(rotation_of(state)->ended_us, state_time_us(state));
    CU_ASSERT_PTR_NULL(rotations_open(state_rotations(state), "wg0"));
    must(state, RECORD_KEY_DEACTIVATED, 1);
    must(state, RECORD_KEY_ACTIVATED, 2);
    CU_ASSERT_EQUAL(state_key_active(state, "wg0")->generation, 2);
    state_free(state);
}

// What was released before the rotation started confirms nothing.
static void test_early_release(void)
{
    struct state *state = example();
    must(state, RECORD_RELEASE_GRANTED, 2);
    must(state, RECORD_ROTATION_STARTED, 2);
    refuses(state, RECORD_ROTATION_CONFIRMED, 2, "was not released since its rotation started");
    state_free(state);
}

static void test_rolled_back(void)
{
    struct state *state = example();
    for (uint64_t generation = 2; generation < 5; generation++) {
        must(state, RECORD_ROTATION_STARTED, generation);
        must(state, RECORD_RELEASE_GRANTED, generation);
        must(state, RECORD_ROTATION_ROLLED_BACK, generation);
        CU_ASSERT_EQUAL(rotation_of(state)->failures, generation - 1);
        refuses(state, RECORD_ROTATION_ROLLED_BACK, generation, "of which no rotation is open");
        must(state, RECORD_KEY_DESTROYING, generation);
        must(state, RECORD_KEY_DESTROYED, generation);
        must(state, RECORD_KEY_PUBLISHED, generation);
        CU_ASSERT_EQUAL(rotation_of(state)->bundle_state, BUNDLE_DESTROYED);
        struct record r = next(state, RECORD_RELEASE_GRANTED, 1);
        r.reason = REASON_ROLLBACK;
        must_take(state, &r);
        must(state, RECORD_KEY_GENERATED, generation + 1);
    }
    must(state, RECORD_ROTATION_STARTED, 5);
    must(state, RECORD_RELEASE_GRANTED, 5);
    must(state, RECORD_ROTATION_CONFIRMED, 5);
    CU_ASSERT_EQUAL(rotation_of(state)->failures, 0);
    state_free(state);
}

// After a revocation nothing is active: the replacement becomes so as soon as it is applied.
static void test_replacement_of_a_revoked_one(void)
{
    struct state *state = example();
    must(state, RECORD_KEY_REVOKED, 1);
    must(state, RECORD_KEY_PUBLISHED, 1);
    CU_ASSERT_EQUAL(rotation_of(state)->bundle_state, BUNDLE_COMPROMISED);
    must(state, RECORD_ROTATION_STARTED, 2);
    must(state, RECORD_RELEASE_GRANTED, 2);
    must(state, RECORD_KEY_ACTIVATED, 2);
    refuses(state, RECORD_KEY_REVOKED, 2, "while its rotation to generation 2 is open");
    refuses(state, RECORD_KEY_DEACTIVATED, 2, "while its rotation to generation 2 is open");
    must(state, RECORD_ROTATION_CONFIRMED, 2);
    must(state, RECORD_KEY_REVOKED, 2);
    state_free(state);
}

static void test_held(void)
{
    struct state *state = example();
    struct record r = next(state, RECORD_KEY_SUSPENDED, 0);
    strcpy(r.key, "wg9");
    refused(state, &r, "has no generation yet");
    refuses(state, RECORD_KEY_SUSPENDED, 1, "is about a key, not a generation");
    refuses(state, RECORD_KEY_RESUMED, 0, "is not suspended");
    must(state, RECORD_KEY_SUSPENDED, 0);
    CU_ASSERT_EQUAL(rotation_of(state)->suspended_us, state_time_us(state));
    refuses(state, RECORD_KEY_SUSPENDED, 0, "is suspended already");
    refuses(state, RECORD_RELEASE_GRANTED, 1, "which an operator suspended");
    refuses(state, RECORD_ROTATION_STARTED, 2, "which an operator suspended");
    must(state, RECORD_KEY_REVOKED, 1);
    must(state, RECORD_KEY_PUBLISHED, 1);
    must(state, RECORD_KEY_RESUMED, 0);
    CU_ASSERT_EQUAL(rotation_of(state)->suspended_us, 0);
    must(state, RECORD_ROTATION_STARTED, 2);
    must(state, RECORD_RELEASE_GRANTED, 2);
    state_free(state);
}

static void test_bundles(void)
{
    struct state *state = example();
    refuses(state, RECORD_KEY_REFRESHED, 1, "are not those of the bundle");
    // As version 0.1 recorded it: legal before the first bundle that has a state, and changes
    // nothing.
    struct record r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.bundle_state = BUNDLE_NONE;
    must_take(state, &r);
    CU_ASSERT_PTR_NULL(rotations_find(state_rotations(state), "wg0"));
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.bundle_state = BUNDLE_NONE;
    strcpy(r.address, "10.0.0.1");
    r.port = 51821;
    refused(state, &r, "bundle_state is missing");
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.bundle_state = BUNDLE_DESTROYED;
    refused(state, &r, "bundle_state is destroyed, but key wg0 generation 1 is active");
    r = next(state, RECORD_KEY_PUBLISHED, 2);
    r.bundle_state = BUNDLE_ACTIVE;
    refused(state, &r, "whose bundle says pre-active");
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.public_key[31] = 1;
    refused(state, &r, "public_key is not the generation's");
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.not_after_us = r.not_before_us;
    refused(state, &r, "not-after");
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    strcpy(r.address, "10.0.0.1");
    refused(state, &r, "port");
    r.port = 51821;
    strcpy(r.previous, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    refused(state, &r, "previous is not the digest of the bundle of key wg0 published last");
    r.previous[0] = '\0';
    must_take(state, &r);
    char digest[65];
    struct bundle bundle;
    bundle_from_record(&bundle, &r);
    bundle_digest(&bundle, digest);
    CU_ASSERT_STRING_EQUAL(rotation_of(state)->bundle_sha256, digest);
    CU_ASSERT_EQUAL(rotation_of(state)->bundle_generation, 1);
    r = next(state, RECORD_KEY_PUBLISHED, 1);
    r.bundle_state = BUNDLE_NONE;
    r.previous[0] = '\0';
    refused(state, &r, "bundle_state is missing");
    must(state, RECORD_KEY_REFRESHED, 1);
    refuses(state, RECORD_KEY_REFRESHED, 2, "published last, generation 1");
    r = next(state, RECORD_KEY_PUBLISHED, 2);
    r.previous[0] = '\0';
    refused(state, &r, "previous is not the digest");
    must(state, RECORD_KEY_PUBLISHED, 2);
    r = next(state, RECORD_KEY_REFRESHED, 2);
    r.sha256[0] ^= 1;
    refused(state, &r, "are not those of the bundle");
    must(state, RECORD_KEY_REFRESHED, 2);
    state_free(state);
}

static void test_many_keys(void)
{
    struct rotations rotations = {.count = 0};
    for (unsigned i = 0; i < 100; i++) {
        struct record r = about(RECORD_ROTATION_STARTED, i + 1);
        snprintf(r.key, sizeof(r.key), "k%u", i * 37 % 100);
        CU_ASSERT_EQUAL(rotations_reserve(&rotations, &r, NULL), 0);
        rotations_apply(&rotations, &r);
    }
    CU_ASSERT_EQUAL(rotations.count, 100);
    struct rotations again = {.count = 0};
    for (size_t i = 0; i < rotations.count; i++) {
        const struct rotation *rotation = &rotations.items[i];
        CU_ASSERT_PTR_EQUAL(rotations_find(&rotations, rotation->key), rotation);
        CU_ASSERT_EQUAL(rotations_restore(&again, rotation, NULL), 0);
        CU_ASSERT_EQUAL(rotations_restore(&again, rotation, NULL), -1);
    }
    CU_ASSERT_EQUAL(memcmp(again.items, rotations.items, 100 * sizeof(*again.items)), 0);
    CU_ASSERT_PTR_NULL(rotations_find(&rotations, "k100"));
    rotations_free(&rotations);
    rotations_free(&again);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"every event in every phase", test_every_event_in_every_phase},
        {"tickets and reasons", test_tickets_and_reasons},
        {"a rotation that is confirmed", test_confirmed},
        {"a release before the rotation confirms nothing", test_early_release},
        {"rotations that are rolled back", test_rolled_back},
        {"the replacement of a revoked generation", test_replacement_of_a_revoked_one},
        {"a key that an operator holds", test_held},
        {"bundles, each naming the one before", test_bundles},
        {"many keys", test_many_keys},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? EXIT_FAILURE : tap_run("rotations", tests);
}
