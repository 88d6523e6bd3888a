// SPDX-License-Identifier: Apache-2.0
// The log's projection: each rule of it broken once, and random records against what must always
// hold.
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "approval.h"
#include "snapshot.h"
#include "tap.h"

#define HOST "alpha"

static uint64_t random_state = 20261122;

// xorshift64*: the same numbers in every run.
static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 32) % bound;
}

// ---- records ----

static struct record next_record(const struct state *state, enum record_event event)
{
    struct record r;
    memset(&r, 0, sizeof(r));
    r.seq = state_size(state);
    r.time_us = state_time_us(state) + 1;
    r.event = event;
    strcpy(r.host, HOST);
    if (event == RECORD_TOKEN_INITIALISED || event == RECORD_LOG_KEY_CHANGED)
        snprintf(r.log_vkey, sizeof(r.log_vkey), "log-%" PRIu64, r.seq);
    if (event == RECORD_TOKEN_INITIALISED)
        strcpy(r.host_vkey, "host");
    return r;
}

// About a generation; a release and its outcome name the lease too. The public key follows from
// name and number.
static struct record key_record(const struct state *state, enum record_event event, const char *key,
                                uint64_t generation, const char *lease)
{
    struct record r = next_record(state, event);
    snprintf(r.key, sizeof(r.key), "%s", key);
    r.generation = generation;
    r.public_key[0] = (uint8_t)generation;
    r.public_key[1] = (uint8_t)key[0];
    r.public_key[2] = 1;
    snprintf(r.lease, sizeof(r.lease), "%s", lease);
    if (event == RECORD_KEY_IMPORTED)
        r.purpose = PURPOSE_IMPORTED;
    if (event == RECORD_RELEASE_GRANTED) {
        r.actor.present = true;
        r.actor.uid = 5;
        r.actor.pid = 6;
        r.reason = REASON_BOOT;
        memset(r.applier_public_key, 9, sizeof(r.applier_public_key));
        r.expires_us = r.time_us + 10;
    }
    return r;
}

static void must(struct state *state, const struct record *record)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(state_apply(state, record, &err), 0);
    if (err.message[0] != '\0')
        printf("# %s: %s\n", record_event_name(record->event), err.message);
}

static void must_key(struct state *state, enum record_event event, const char *key,
                     uint64_t generation, const char *lease)
{
    struct record r = key_record(state, event, key, generation, lease);
    must(state, &r);
}

// a: 1 deactivated, 2 active, 3 pre-active; b: 1 pre-active. Lease 01 of a 2 and 02 of b 1 are
// open.
static struct state *example(void)
{
    struct state *state = state_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    struct record r = next_record(state, RECORD_TOKEN_INITIALISED);
    must(state, &r);
    must_key(state, RECORD_KEY_GENERATED, "a", 1, "");
    must_key(state, RECORD_KEY_ACTIVATED, "a", 1, "");
    must_key(state, RECORD_KEY_GENERATED, "a", 2, "");
    must_key(state, RECORD_KEY_DEACTIVATED, "a", 1, "");
    must_key(state, RECORD_KEY_ACTIVATED, "a", 2, "");
    must_key(state, RECORD_KEY_GENERATED, "a", 3, "");
    must_key(state, RECORD_KEY_GENERATED, "b", 1, "");
    must_key(state, RECORD_RELEASE_GRANTED, "a", 2, "01");
    must_key(state, RECORD_RELEASE_GRANTED, "b", 1, "02");
    return state;
}

// ---- seeing all of a state ----

// Everything that the accessors tell, digested.
static void digest(const struct state *state, uint8_t out[32])
{
    crypto_generichash_state hash;
    uint64_t numbers[] = {state_size(state), (uint64_t)state_time_us(state),
                          state_initialised(state), state_keys(state), state_leases(state)};
    crypto_generichash_init(&hash, NULL, 0, 32);
    crypto_generichash_update(&hash, (const uint8_t *)numbers, sizeof(numbers));
    crypto_generichash_update(&hash, (const uint8_t *)state_log_vkey(state),
                              strlen(state_log_vkey(state)) + 1);
    crypto_generichash_update(&hash, (const uint8_t *)state_host_vkey(state),
                              strlen(state_host_vkey(state)) + 1);
    for (size_t i = 0; i < state_keys(state); i++)
        crypto_generichash_update(&hash, (const uint8_t *)state_key_at(state, i),
                                  sizeof(struct state_key));
    for (const struct state_lease *l = state_lease_first(state); l != NULL; l = state_lease_next(l))
        crypto_generichash_update(&hash, (const uint8_t *)l, sizeof(*l));
    const struct rotations *rotations = state_rotations(state);
    for (size_t i = 0; i < rotations->count; i++)
        crypto_generichash_update(&hash, (const uint8_t *)&rotations->items[i],
                                  sizeof(struct rotation));
    const struct peers *peers = state_peers(state);
    for (size_t i = 0; i < peers->count; i++)
        crypto_generichash_update(&hash, (const uint8_t *)&peers->items[i], sizeof(struct peer));
    const struct psks *psks = state_psks(state);
    for (size_t i = 0; i < psks->count; i++)
        crypto_generichash_update(&hash, (const uint8_t *)&psks->items[i], sizeof(struct psk));
    crypto_generichash_final(&hash, out, 32);
}

// The record is refused by both, with these words, and nothing has changed.
static void refused(struct state *state, const struct record *record, const char *words)
{
    uint8_t before[32], after[32];
    struct error checked = {.message = ""}, applied = {.message = ""};
    digest(state, before);
    CU_ASSERT_EQUAL(state_check(state, record, &checked), -1);
    CU_ASSERT_EQUAL(state_apply(state, record, &applied), -1);
    digest(state, after);
    CU_ASSERT_EQUAL(memcmp(before, after, sizeof(before)), 0);
    CU_ASSERT_EQUAL(checked.code, ERROR_FAILED_PRECONDITION);
    CU_ASSERT_STRING_EQUAL(checked.message, applied.message);
    CU_ASSERT_PTR_NOT_NULL(strstr(checked.message, words));
    if (strstr(checked.message, words) == NULL)
        printf("# '%s' is not '%s'\n", checked.message, words);
}

// ---- rules ----

static void test_example(void)
{
    struct state *state = example();
    CU_ASSERT_EQUAL(state_size(state), 10);
    CU_ASSERT_EQUAL(state_time_us(state), 10);
    CU_ASSERT(state_initialised(state));
    CU_ASSERT_STRING_EQUAL(state_log_vkey(state), "log-0");
    CU_ASSERT_STRING_EQUAL(state_host_vkey(state), "host");
    CU_ASSERT_EQUAL(state_keys(state), 4);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 1)->state, KEY_DEACTIVATED);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 1)->generated_us, 2);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 1)->activated_us, 3);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 1)->deactivated_us, 5);
    CU_ASSERT_EQUAL(state_key_current(state, "a")->generation, 2);
    CU_ASSERT_EQUAL(state_key_active(state, "a")->generation, 2);
    CU_ASSERT_EQUAL(state_key_pre_active(state, "a")->generation, 3);
    CU_ASSERT_EQUAL(state_key_current(state, "b")->generation, 1);
    CU_ASSERT_PTR_NULL(state_key_active(state, "b"));
    CU_ASSERT_PTR_NULL(state_key_current(state, "c"));
    CU_ASSERT_PTR_NULL(state_key_find(state, "a", 4));
    CU_ASSERT_PTR_NULL(state_key_at(state, 4));
    CU_ASSERT_EQUAL(state_key_highest(state, "a"), 3);
    CU_ASSERT_EQUAL(state_key_highest(state, "c"), 0);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 2)->releases, 1);
    CU_ASSERT_EQUAL(state_key_find(state, "a", 2)->released_us, 9);
    const struct state_lease *first = state_lease_first(state);
    CU_ASSERT_STRING_EQUAL(first->lease, "01");
    CU_ASSERT(first->seq == 8 && first->uid == 5 && first->pid == 6 && first->expires_us == 19);
    CU_ASSERT_STRING_EQUAL(state_lease_next(first)->lease, "02");
    CU_ASSERT_PTR_NULL(state_lease_next(state_lease_next(first)));
    struct record r = next_record(state, RECORD_LOG_KEY_CHANGED);
    must(state, &r);
    CU_ASSERT_STRING_EQUAL(state_log_vkey(state), "log-10");
    state_free(state);
}

static void test_first_record(void)
{
    struct state *state = state_new();
    struct record r = next_record(state, RECORD_DAEMON_STARTED);
    refused(state, &r, "must be record 0");
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    r.log_vkey[0] = '\0';
    refused(state, &r, "log_vkey");
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    r.host_vkey[0] = '\0';
    refused(state, &r, "host_vkey");
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    strcpy(r.host, "Alpha");
    refused(state, &r, "host");
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    r.seq = 1;
    refused(state, &r, "seq");
    CU_ASSERT(!state_initialised(state));
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    must(state, &r);
    state_free(state);
}

static void test_sequence(void)
{
    struct state *state = example();
    struct record r = next_record(state, RECORD_NONE);
    refused(state, &r, "unknown");
    r = next_record(state, RECORD_EVENTS);
    refused(state, &r, "unknown");
    r = next_record(state, RECORD_DAEMON_STARTED);
    r.seq++;
    refused(state, &r, "seq is 11 where 10");
    r.seq -= 2;
    refused(state, &r, "seq is 9 where 10");
    r = next_record(state, RECORD_DAEMON_STARTED);
    r.time_us = state_time_us(state) - 1;
    refused(state, &r, "time runs back");
    r.time_us++;
    CU_ASSERT_EQUAL(state_check(state, &r, NULL), 0); // the same time is none that runs back
    r = next_record(state, RECORD_TOKEN_INITIALISED);
    refused(state, &r, "must be record 0");
    r = next_record(state, RECORD_DAEMON_STARTED);
    strcpy(r.host, "beta");
    refused(state, &r, "host is 'beta'");
    r = next_record(state, RECORD_LOG_KEY_CHANGED);
    r.log_vkey[0] = '\0';
    refused(state, &r, "log_vkey");
    state_free(state);
}

static void test_generations(void)
{
    struct state *state = example();
    struct record r = key_record(state, RECORD_KEY_GENERATED, "c", 1, "");
    memset(r.public_key, 0, sizeof(r.public_key));
    refused(state, &r, "public_key is missing");
    r = key_record(state, RECORD_KEY_GENERATED, "-c", 1, "");
    refused(state, &r, "key or generation");
    r = key_record(state, RECORD_KEY_GENERATED, "c", 0, "");
    refused(state, &r, "key or generation");
    r = key_record(state, RECORD_KEY_GENERATED, "a", 4, "");
    refused(state, &r, "already has a pre-active");
    r = key_record(state, RECORD_KEY_GENERATED, "b", 1, "");
    refused(state, &r, "not legal");
    must_key(state, RECORD_KEY_DESTROYING, "a", 3, "");
    must_key(state, RECORD_KEY_DESTROYED, "a", 3, "");
    r = key_record(state, RECORD_KEY_IMPORTED, "a", 3, "");
    refused(state, &r, "not legal");
    must_key(state, RECORD_KEY_GENERATED, "a", 7, "");
    must_key(state, RECORD_KEY_REVOKED, "a", 7, "");
    r = key_record(state, RECORD_KEY_GENERATED, "a", 5, "");
    refused(state, &r, "not above the highest");
    r = key_record(state, RECORD_KEY_ACTIVATED, "a", 1, "");
    refused(state, &r, "already has an active");
    r = key_record(state, RECORD_KEY_ACTIVATED, "a", 7, "");
    refused(state, &r, "it is compromised");
    r = key_record(state, RECORD_KEY_DESTROYING, "a", 2, "");
    refused(state, &r, "names no request that two operators approved");
    r = key_record(state, RECORD_KEY_PUBLISHED, "c", 1, "");
    refused(state, &r, "it is none");
    state_free(state);
}

static void test_grants(void)
{
    struct state *state = example();
    struct record r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "03");
    CU_ASSERT_EQUAL(state_check(state, &r, NULL), 0);
    r.actor.present = false;
    refused(state, &r, "missing");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "");
    refused(state, &r, "missing");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "03");
    memset(r.applier_public_key, 0, sizeof(r.applier_public_key));
    refused(state, &r, "missing");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "03");
    r.expires_us = r.time_us - 1;
    refused(state, &r, "missing");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "03");
    r.public_key[31] ^= 1;
    refused(state, &r, "not the generation's");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "02");
    refused(state, &r, "open already");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 1, "03");
    refused(state, &r, "deactivated generation may not be released for BOOT");
    r.reason = REASON_NONE;
    refused(state, &r, "no reason");
    r.reason = REASON_ROLLBACK;
    CU_ASSERT_EQUAL(state_check(state, &r, NULL), 0);
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 9, "03");
    refused(state, &r, "it is none");
    must_key(state, RECORD_KEY_REVOKED, "a", 2, "");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 2, "03");
    refused(state, &r, "it is compromised");
    state_free(state);
}

static void test_outcomes(void)
{
    static const enum record_event outcomes[] = {RECORD_RELEASE_APPLIED, RECORD_RELEASE_FAILED,
                                                 RECORD_LEASE_EXPIRED};
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        struct state *state = example();
        struct record r = key_record(state, outcomes[i], "a", 2, "03");
        r.time_us = 100;
        refused(state, &r, "not open");
        strcpy(r.lease, "");
        refused(state, &r, "not open");
        strcpy(r.lease, "02");
        refused(state, &r, "is of key b generation 1");
        strcpy(r.lease, "01");
        r.generation = 1;
        refused(state, &r, "is of key a generation 2");
        r.generation = 2;
        must(state, &r);
        CU_ASSERT_EQUAL(state_leases(state), 1);
        CU_ASSERT_PTR_NULL(state_lease_find(state, "01"));
        CU_ASSERT_EQUAL(state_key_find(state, "a", 2)->state, KEY_ACTIVE);
        r = key_record(state, outcomes[i], "a", 2, "01");
        refused(state, &r, "not open");
        state_free(state);
    }
}

static void test_expiry(void)
{
    struct state *state = example();
    struct record r = key_record(state, RECORD_LEASE_EXPIRED, "a", 2, "01");
    r.time_us = 18;
    refused(state, &r, "not expired yet");
    r.time_us = 19;
    must(state, &r);
    state_free(state);
}

// The outcome of what was released before may come when the key itself is gone.
static void test_outcome_after_destruction(void)
{
    struct state *state = example();
    must_key(state, RECORD_KEY_DESTROYING, "b", 1, "");
    must_key(state, RECORD_KEY_DESTROYED, "b", 1, "");
    must_key(state, RECORD_RELEASE_FAILED, "b", 1, "02");
    CU_ASSERT_EQUAL(state_leases(state), 1);
    CU_ASSERT_EQUAL(state_key_find(state, "b", 1)->state, KEY_DESTROYED);
    state_free(state);
}

// ---- approvals ----

// A request to destroy the active generation 2 of a.
static struct record request_record(const struct state *state, const char *id)
{
    struct record r = next_record(state, RECORD_APPROVAL_REQUESTED);
    strcpy(r.request_id, id);
    r.actor.present = true;
    r.operation = OPERATION_KEY_DESTROY;
    strcpy(r.key, "a");
    r.generation = 2;
    r.expires_us = r.time_us + 100;
    return r;
}

static struct record approval_record(const struct state *state, const char *id,
                                     const char *operator, const char * key, uint32_t uid)
{
    struct record r = next_record(state, RECORD_APPROVAL_GIVEN);
    strcpy(r.request_id, id);
    r.actor.present = true;
    r.actor.uid = uid;
    strcpy(r.operator_name, operator);
    strcpy(r.operator_key, key);
    strcpy(r.signature, key[0] != '\0' ? "c2ln" : "");
    return r;
}

#define ID_1 "0123456789abcdef0123456789abcdef"
#define ID_2 "1123456789abcdef0123456789abcdef"

static void test_requests(void)
{
    struct state *state = example();
    struct record r = request_record(state, ID_1);
    r.generation = 3;
    refused(state, &r, "only the destruction of an active generation");
    r = request_record(state, "01");
    refused(state, &r, "request_id or actor is missing");
    r = request_record(state, ID_1);
    r.expires_us = r.time_us;
    refused(state, &r, "later expires is missing");
    r = request_record(state, ID_1);
    r.operation = OPERATION_NONE;
    refused(state, &r, "operation is missing");
    r = request_record(state, ID_1);
    must(state, &r);
    r = request_record(state, ID_1);
    refused(state, &r, "is open already");
    CU_ASSERT_EQUAL(state_requests(state)->count, 1);
    // What has expired makes room.
    r = request_record(state, ID_2);
    r.time_us += 200;
    r.expires_us = r.time_us + 1;
    must(state, &r);
    CU_ASSERT_EQUAL(state_requests(state)->count, 1);
    CU_ASSERT_PTR_NULL(request_list_find(state_requests(state), ID_1));
    state_free(state);
}

static void test_too_many_requests(void)
{
    struct state *state = example();
    char id[RECORD_REQUEST_MAX + 1];
    for (unsigned i = 0; i < REQUESTS_MAX; i++) {
        snprintf(id, sizeof(id), "%032x", i);
        struct record r = request_record(state, id);
        must(state, &r);
    }
    struct record r = request_record(state, ID_1);
    struct error err;
    CU_ASSERT_EQUAL(state_check(state, &r, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_RESOURCE_EXHAUSTED);
    state_free(state);
}

static void test_approvals(void)
{
    struct state *state = example();
    struct record r = request_record(state, ID_1);
    must(state, &r);
    r = approval_record(state, ID_2, "ann", "key ann", 1);
    refused(state, &r, "is not open");
    r = approval_record(state, ID_1, "", "key ann", 1);
    refused(state, &r, "operator or actor is missing");
    r = approval_record(state, ID_1, "ann", "key ann", 1);
    r.signature[0] = '\0';
    refused(state, &r, "signature without operator_key");
    r = approval_record(state, ID_1, "ann", "key ann", 1);
    must(state, &r);
    r = approval_record(state, ID_1, "ann", "key bob", 2);
    refused(state, &r, "has approved request");
    r = approval_record(state, ID_1, "bob", "key ann", 2);
    refused(state, &r, "has approved request");
    r = key_record(state, RECORD_KEY_DESTROYING, "a", 2, "");
    strcpy(r.request_id, ID_1);
    refused(state, &r, "has 1 of the 2 approvals");
    r = approval_record(state, ID_1, "bob", "key bob", 1); // one process may bring both
    must(state, &r);
    r = key_record(state, RECORD_KEY_DESTROYING, "a", 3, "");
    strcpy(r.request_id, ID_1);
    refused(state, &r, "was for something else");
    r = key_record(state, RECORD_KEY_DESTROYING, "a", 2, "");
    strcpy(r.request_id, ID_1);
    r.time_us += 1000;
    refused(state, &r, "is not open");
    r.time_us -= 1000;
    must(state, &r);
    CU_ASSERT_EQUAL(state_requests(state)->count, 0);
    r = approval_record(state, ID_1, "eve", "key eve", 3);
    refused(state, &r, "is not open");
    state_free(state);
}

static void test_approvals_by_uid(void)
{
    struct state *state = example();
    struct record r = request_record(state, ID_1);
    must(state, &r);
    r = approval_record(state, ID_1, "ann", "", 1);
    must(state, &r);
    r = approval_record(state, ID_1, "bob", "", 1);
    refused(state, &r, "has approved request");
    r = approval_record(state, ID_1, "bob", "", 2);
    must(state, &r);
    state_free(state);
}

static void test_loss(void)
{
    struct state *state = example();
    struct record r = next_record(state, RECORD_APPROVAL_REQUESTED);
    r.actor.present = true;
    r.operation = OPERATION_ACCEPT_LOSS;
    r.old_size = r.seq + 7;
    r.new_size = r.seq;
    r.old_root[0] = 1;
    r.new_root[0] = 2;
    CU_ASSERT_EQUAL(approval_loss_id(&r, r.request_id), 0);
    struct record requested = r;
    r.new_size--;
    refused(state, &r, "as it is at this record");
    r = requested;
    r.new_root[0] = 3;
    refused(state, &r, "follows from the two heads");
    must(state, &requested);
    r = approval_record(state, requested.request_id, "ann", "key ann", 1);
    must(state, &r);
    r = approval_record(state, requested.request_id, "bob", "key bob", 1);
    must(state, &r);
    requested.seq = state_size(state);
    requested.time_us = state_time_us(state);
    requested.event = RECORD_LOG_LOSS_ACCEPTED;
    r = requested;
    r.old_root[0] = 9;
    refused(state, &r, "was for something else");
    must(state, &requested);
    CU_ASSERT_EQUAL(state_requests(state)->count, 0);
    state_free(state);
}

// ---- texts that a snapshot holds ----

// What would make two states' texts alike, or a text that cannot be read, is in no state.
static void test_words(void)
{
    static const char *const bad[] = {"a b", "a\nkey x", "a\x7f", "-"};
    struct state *state = state_new();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct record r = next_record(state, RECORD_TOKEN_INITIALISED);
        strcpy(r.log_vkey, bad[i]);
        refused(state, &r, "log_vkey");
        r = next_record(state, RECORD_TOKEN_INITIALISED);
        strcpy(r.host_vkey, bad[i]);
        refused(state, &r, "host_vkey");
    }
    state_free(state);
    state = example();
    struct record r = next_record(state, RECORD_LOG_KEY_CHANGED);
    strcpy(r.log_vkey, bad[1]);
    refused(state, &r, "log_vkey");
    r = request_record(state, ID_1);
    must(state, &r);
    r = approval_record(state, ID_1, "ann\napproval - 0 bob", "", 1);
    refused(state, &r, "operator");
    state_free(state);
}

static void test_snapshot_of_odd_names(void)
{
    struct state *state = example();
    size_t length, again_length;
    struct record r = request_record(state, ID_1);
    must(state, &r);
    r = approval_record(state, ID_1, "-", "", 1);
    refused(state, &r, "is one line, and not '-'");
    r = approval_record(state, ID_1, "- -", "", 1);
    must(state, &r);
    r = approval_record(state, ID_1, " ann of\xc3\xa9  ", "", 2);
    must(state, &r);
    char *text = snapshot_format(state, &length, NULL);
    struct state *read = snapshot_parse(text, length, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(read);
    char *again = snapshot_format(read, &again_length, NULL);
    CU_ASSERT_STRING_EQUAL(text, again);
    char *host = strstr(text, "\nhost alpha\n");
    memcpy(host, "\nhost Alpha\n", 12);
    CU_ASSERT_PTR_NULL(snapshot_parse(text, length, NULL));
    free(text);
    free(again);
    state_free(read);
    state_free(state);
}

// ---- digests, and what is forgotten ----

static void test_digests(void)
{
    static const enum record_event events[] = {RECORD_LOG_SEALED, RECORD_DAEMON_STOPPED};
    struct state *state = example();
    for (size_t i = 0; i < 2; i++) {
        struct record r = next_record(state, events[i]);
        memset(r.sha256, 'a', 64);
        refused(state, &r, "not that of the state");
        CU_ASSERT_EQUAL(snapshot_digest(state, r.sha256, NULL), 0);
        must(state, &r);
    }
    struct record r = next_record(state, RECORD_LOG_SEALED);
    refused(state, &r, "not that of the state");
    r = next_record(state, RECORD_DAEMON_STOPPED);
    must(state, &r);
    state_free(state);
}

static void test_forgetting(void)
{
    struct state *state = example();
    must_key(state, RECORD_RELEASE_GRANTED, "a", 3, "0a");
    must_key(state, RECORD_KEY_DESTROYING, "a", 3, "");
    must_key(state, RECORD_KEY_DESTROYED, "a", 3, "");
    CU_ASSERT_PTR_NOT_NULL(state_key_find(state, "a", 3)); // the highest: numbers only rise
    must_key(state, RECORD_KEY_GENERATED, "a", 4, "");
    CU_ASSERT_PTR_NOT_NULL(state_key_find(state, "a", 3)); // its lease is open
    must_key(state, RECORD_RELEASE_FAILED, "a", 3, "0a");
    CU_ASSERT_PTR_NULL(state_key_find(state, "a", 3));
    CU_ASSERT_PTR_NOT_NULL(state_key_find(state, "a", 2));
    CU_ASSERT_EQUAL(state_key_highest(state, "a"), 4);
    state_free(state);
}

// ---- random records ----

static void check_invariants(const struct state *state, size_t open)
{
    size_t leases = 0;
    for (size_t i = 0; i < state_keys(state); i++) {
        const struct state_key *key = state_key_at(state, i), *before = i > 0 ? key - 1 : NULL;
        unsigned active = 0, pre_active = 0;
        for (size_t j = 0; j < state_keys(state); j++) {
            const struct state_key *other = state_key_at(state, j);
            if (strcmp(other->name, key->name) != 0)
                continue;
            active += other->state == KEY_ACTIVE;
            pre_active += other->state == KEY_PRE_ACTIVE;
        }
        CU_ASSERT(active <= 1 && pre_active <= 1);
        CU_ASSERT(before == NULL || strcmp(before->name, key->name) < 0 ||
                  (strcmp(before->name, key->name) == 0 && before->generation < key->generation));
        CU_ASSERT_PTR_EQUAL(state_key_find(state, key->name, key->generation), key);
        CU_ASSERT(key->generation <= state_key_highest(state, key->name));
    }
    for (const struct state_lease *l = state_lease_first(state); l != NULL;
         l = state_lease_next(l), leases++)
        CU_ASSERT_PTR_EQUAL(state_lease_find(state, l->lease), l);
    CU_ASSERT_EQUAL(leases, open);
    CU_ASSERT_EQUAL(state_leases(state), open);
}

// A rotation that is open leads to a generation that can still become active, or has; nobody holds
// its key.
static void check_rotations(const struct state *state)
{
    for (size_t i = 0; i < state_rotations(state)->count; i++) {
        const struct rotation *rotation = &state_rotations(state)->items[i];
        CU_ASSERT_PTR_EQUAL(rotations_find(state_rotations(state), rotation->key), rotation);
        CU_ASSERT_EQUAL(rotation->bundle_generation != 0, rotation->bundle_sha256[0] != '\0');
        if (rotation->generation == 0)
            continue;
        const struct state_key *key = state_key_find(state, rotation->key, rotation->generation);
        CU_ASSERT(key != NULL && (key->state == KEY_PRE_ACTIVE || key->state == KEY_ACTIVE));
        CU_ASSERT(rotation->suspended_us == 0 && rotation->started_us != 0);
    }
}

// At most one of a counterpart's generations has the allowed-ips, and none of those that are
// retired is below it.
static void check_peers(const struct state *state)
{
    const struct peers *peers = state_peers(state);
    for (size_t i = 0; i < peers->count; i++) {
        const struct peer *peer = &peers->items[i];
        const struct peer *current = peers_current(peers, peer->key, peer->host, peer->peer_key);
        CU_ASSERT_PTR_EQUAL(
            peers_find(peers, peer->key, peer->host, peer->peer_key, peer->generation), peer);
        CU_ASSERT(peer->state != PEER_MOVED || peer == current);
        CU_ASSERT((peer->state == PEER_RETIRED) == (peer->retired_us != 0));
    }
}

// What makes the record one about a key as a whole, or about a counterpart's.
static void fill_rotation(struct record *r, const struct state *state)
{
    static const char *const peers[] = {"beta", "gamma"};
    const struct rotation *rotation = rotations_find(state_rotations(state), r->key);
    const struct state_key *key = state_key_find(state, r->key, r->generation);
    if (r->event == RECORD_KEY_SUSPENDED || r->event == RECORD_KEY_RESUMED)
        r->generation = 0;
    if (rotation != NULL && rotation->generation != 0 && random_below(2) &&
        (r->event == RECORD_ROTATION_CONFIRMED || r->event == RECORD_ROTATION_ROLLED_BACK))
        r->generation = rotation->generation;
    if (r->event == RECORD_ROTATION_STARTED)
        r->reason = REASON_ROTATION;
    if (r->event == RECORD_KEY_PUBLISHED) {
        r->bundle_state = key != NULL && random_below(8) ? lifecycle_bundle_state(key->state) : 1;
        r->not_after_us = r->time_us;
        if (rotation != NULL && random_below(8))
            strcpy(r->previous, rotation->bundle_sha256);
    }
    if (r->event == RECORD_KEY_REFRESHED && rotation != NULL) {
        r->generation = rotation->bundle_generation;
        strcpy(r->sha256, rotation->bundle_sha256);
    }
    if (r->event < RECORD_PEER_STAGED || r->event > RECORD_PEER_ACKNOWLEDGED)
        return;
    strcpy(r->peer, peers[random_below(2)]);
    strcpy(r->peer_key, "wg0");
    r->peer_generation = 1 + random_below(4) + r->seq / 50; // they rise with time
    memset(r->peer_public_key, (int)(1 + r->peer_generation), sizeof(r->peer_public_key));
    r->peer_state = random_below(PEER_STATES);
    if (r->event == RECORD_PEER_STAGED)
        memset(r->move_sha256, 'a', 64);
}

// What makes the record one about a link's preshared key.
static void fill_psk(struct record *r, const struct state *state)
{
    bool release = r->event >= RECORD_RELEASE_GRANTED && r->event <= RECORD_LEASE_EXPIRED &&
                   r->event != RECORD_RELEASE_DENIED;
    bool step = r->event >= RECORD_PSK_GENERATED && r->event <= RECORD_PSK_DESTROYED;
    // Half of the grants, and the outcomes of what was granted so.
    if (r->event == RECORD_RELEASE_GRANTED ? random_below(2) : release && r->generation != 0)
        return;
    if (!release && !step)
        return;
    r->generation = 0;
    r->purpose = release ? PURPOSE_PRESHARED : PURPOSE_NONE;
    strcpy(r->peer, "beta");
    bool takes = r->event == RECORD_PSK_RECEIVED || r->event == RECORD_PSK_DESTROYED;
    strcpy(r->peer_key, takes || random_below(2) ? "takes" : "makes");
    const struct psk *psk = psks_find(state_psks(state), r->key, r->peer, r->peer_key);
    uint64_t highest = psk == NULL ? 0 : psk->made > psk->received ? psk->made : psk->received;
    r->epoch = highest + 1 > 3 ? highest + 1 - random_below(4) : random_below(3);
    if (r->event == RECORD_PSK_GENERATED && strcmp(r->peer_key, "makes") == 0)
        r->receive_key[0] = 1;
    if (r->event == RECORD_PSK_DESTROYED && psk != NULL)
        r->epoch = psk->destroyed + 1;
    if (r->event == RECORD_PSK_RECEIVED || (r->event == RECORD_PSK_SET && random_below(2)))
        r->epoch = highest + (r->event == RECORD_PSK_RECEIVED && random_below(4) > 0);
    if (r->event == RECORD_RELEASE_GRANTED && psk != NULL)
        strcpy(r->method, psks_method(psk));
}

static void check_psks(const struct state *state)
{
    for (size_t i = 0; i < state_psks(state)->count; i++) {
        const struct psk *psk = &state_psks(state)->items[i];
        CU_ASSERT_PTR_EQUAL(psks_find(state_psks(state), psk->key, psk->host, psk->peer_key), psk);
        CU_ASSERT(psk->made == 0 || psk->received == 0);
        CU_ASSERT(psk->set == 0 || psks_has(psk, psk->set));
    }
}

// A generation that was imported is released to be set again or rolled back to, and for nothing
// else.
static void test_imported(void)
{
    struct state *state = state_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    struct record r = next_record(state, RECORD_TOKEN_INITIALISED);
    must(state, &r);
    r = key_record(state, RECORD_KEY_IMPORTED, "a", 1, "");
    r.purpose = PURPOSE_WIREGUARD;
    refused(state, &r, "its purpose is not key.imported's");
    r = key_record(state, RECORD_KEY_GENERATED, "a", 1, "");
    r.purpose = PURPOSE_IMPORTED;
    refused(state, &r, "its purpose is not key.generated's");
    must_key(state, RECORD_KEY_IMPORTED, "a", 1, "");
    must_key(state, RECORD_KEY_ACTIVATED, "a", 1, "");
    for (enum record_reason reason = REASON_BOOT; reason < REASONS; reason++) {
        char lease[3] = {'a', (char)('a' + (int)reason), '\0'};
        r = key_record(state, RECORD_RELEASE_GRANTED, "a", 1, lease);
        r.reason = reason;
        if (reason == REASON_ROTATION || reason == REASON_OPERATOR)
            refused(state, &r, "an imported generation may not be released");
        else
            must(state, &r);
    }
    must_key(state, RECORD_KEY_DEACTIVATED, "a", 1, "");
    r = key_record(state, RECORD_RELEASE_GRANTED, "a", 1, "cc");
    refused(state, &r, "a deactivated generation may not be released for BOOT");
    r.reason = REASON_ROLLBACK;
    must(state, &r);
    state_free(state);
}

static struct record random_record(const struct state *state)
{
    static const char *const keys[] = {"a", "b", "bb"};
    char lease[8];
    const char *key = keys[random_below(3)];
    enum record_event event =
        RECORD_KEY_GENERATED + random_below(RECORD_EVENTS - RECORD_KEY_GENERATED);
    uint64_t highest = state_key_highest(state, key);
    uint64_t generation = highest + 2 > 3 ? highest + 2 - random_below(4) : 1 + random_below(3);
    snprintf(lease, sizeof(lease), "%02x", random_below(8));
    // Half of the outcomes are of a lease that is open.
    const struct state_lease *open = state_lease_first(state);
    struct record r = key_record(state, event, key, generation, lease);
    if (open != NULL && event >= RECORD_RELEASE_APPLIED && event <= RECORD_LEASE_EXPIRED &&
        random_below(2)) {
        strcpy(r.key, open->key);
        strcpy(r.lease, open->lease);
        r.generation = open->generation;
    }
    if (r.reason == REASON_BOOT && random_below(2))
        r.reason = REASON_ROLLBACK;
    r.time_us += random_below(8);
    fill_rotation(&r, state);
    fill_psk(&r, state);
    return r;
}

static void test_random(void)
{
    unsigned applied = 0, count[RECORD_EVENTS] = {0};
    for (int round = 0; round < 40; round++) {
        struct state *state = state_new();
        size_t open = 0;
        CU_ASSERT_PTR_NOT_NULL_FATAL(state);
        struct record r = next_record(state, RECORD_TOKEN_INITIALISED);
        must(state, &r);
        for (int i = 0; i < 1000; i++) {
            uint8_t before[32], after[32];
            r = random_record(state);
            digest(state, before);
            bool legal = state_check(state, &r, NULL) == 0;
            CU_ASSERT_EQUAL(state_apply(state, &r, NULL) == 0, legal);
            digest(state, after);
            CU_ASSERT_EQUAL(memcmp(before, after, sizeof(before)) != 0, legal);
            if (!legal)
                continue;
            applied++;
            count[r.event]++;
            open += r.event == RECORD_RELEASE_GRANTED;
            open -= r.event == RECORD_RELEASE_APPLIED || r.event == RECORD_RELEASE_FAILED ||
                    r.event == RECORD_LEASE_EXPIRED;
            check_invariants(state, open);
            check_rotations(state);
            check_peers(state);
            check_psks(state);
        }
        state_free(state);
    }
    CU_ASSERT(applied > 2000);
    // Each kind of event has had its turn, or the test has seen less than it says.
    for (unsigned e = RECORD_KEY_GENERATED; e < RECORD_EVENTS; e++) {
        bool approval = e >= RECORD_APPROVAL_REQUESTED && e <= RECORD_LOG_LOSS_ACCEPTED;
        CU_ASSERT(count[e] > 0 || approval);
        if (count[e] == 0 && !approval)
            printf("# %s never came\n", record_event_name(e));
    }
}

static void test_many_leases(void)
{
    struct state *state = example();
    char lease[RECORD_LEASE_MAX + 1];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(lease, sizeof(lease), "%032x", i);
        must_key(state, RECORD_RELEASE_GRANTED, "a", 2, lease);
    }
    CU_ASSERT_EQUAL(state_leases(state), 1002);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(lease, sizeof(lease), "%032x", i * 7 % 1000);
        must_key(state, RECORD_RELEASE_APPLIED, "a", 2, lease);
    }
    CU_ASSERT_EQUAL(state_leases(state), 2);
    CU_ASSERT_STRING_EQUAL(state_lease_first(state)->lease, "01");
    CU_ASSERT_EQUAL(state_key_find(state, "a", 2)->releases, 1001);
    CU_ASSERT_PTR_NULL(
        state_lease_find(state, "0000000000000000000000000000000000000001")); // too long
    state_free(state);
    state_free(NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"what an example's records say", test_example},
        {"the first record", test_first_record},
        {"sequence, time and host", test_sequence},
        {"generations", test_generations},
        {"releases", test_grants},
        {"outcomes", test_outcomes},
        {"a lease expires no sooner than it does", test_expiry},
        {"an outcome after the key's destruction", test_outcome_after_destruction},
        {"requests", test_requests},
        {"as many requests as there may be", test_too_many_requests},
        {"approvals by signature", test_approvals},
        {"approvals by uid", test_approvals_by_uid},
        {"an accepted loss", test_loss},
        {"what a snapshot could not hold", test_words},
        {"a snapshot of odd names", test_snapshot_of_odd_names},
        {"digests of the state", test_digests},
        {"what is forgotten", test_forgetting},
        {"an imported generation", test_imported},
        {"random records", test_random},
        {"many leases", test_many_leases},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? EXIT_FAILURE : tap_run("state", tests);
}
