// SPDX-License-Identifier: Apache-2.0
// Preshared keys in the log's state: which step may follow which, their releases' leases, and the
// snapshot.
#include "psks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot.h"
#include "state.h"
#include "tap.h"

static struct record next(const struct state *state, enum record_event event)
{
    struct record r;
    memset(&r, 0, sizeof(r));
    r.seq = state_size(state);
    r.time_us = state_time_us(state) + 1;
    r.event = event;
    strcpy(r.host, "alpha");
    return r;
}

static struct state *begin(void)
{
    struct state *state = state_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    struct record r = next(state, RECORD_TOKEN_INITIALISED);
    strcpy(r.log_vkey, "log");
    strcpy(r.host_vkey, "host");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), 0);
    r = next(state, RECORD_KEY_GENERATED);
    strcpy(r.key, "wg0");
    r.generation = 1;
    r.public_key[0] = 1;
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), 0);
    return state;
}

static struct record step(const struct state *state, enum record_event event, uint64_t epoch)
{
    struct record r = next(state, event);
    strcpy(r.key, "wg0");
    strcpy(r.peer, "beta");
    strcpy(r.peer_key, "wg1");
    r.epoch = epoch;
    if (event == RECORD_PSK_GENERATED)
        r.receive_key[0] = 9;
    return r;
}

static bool does(struct state *state, enum record_event event, uint64_t epoch)
{
    struct record r = step(state, event, epoch);
    return state_apply(state, &r, NULL) == 0;
}

static const struct psk *link_of(const struct state *state)
{
    return psks_find(state_psks(state), "wg0", "beta", "wg1");
}

// The state as text, and the state of that text: the same.
static void must_survive(const struct state *state)
{
    size_t length;
    char *text = snapshot_format(state, &length, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    struct error err = {.message = ""};
    struct state *again = snapshot_parse(text, length, &err);
    CU_ASSERT_PTR_NOT_NULL(again);
    if (again == NULL)
        printf("# %s\n", err.message);
    state_free(again);
    free(text);
}

static void test_maker(void)
{
    struct state *state = begin();
    CU_ASSERT_FALSE(does(state, RECORD_PSK_GENERATED, 2));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_GENERATED, 0));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_SET, 1));
    CU_ASSERT(does(state, RECORD_PSK_GENERATED, 1));
    int64_t made_us = link_of(state)->made_us;
    CU_ASSERT(does(state, RECORD_PSK_GENERATED, 1)); // sent anew
    CU_ASSERT_EQUAL(link_of(state)->made_us, made_us);
    CU_ASSERT_FALSE(does(state, RECORD_PSK_GENERATED, 2)); // the first is not in use
    CU_ASSERT(does(state, RECORD_PSK_SET, 1));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_RECEIVED, 1)); // the maker takes none
    CU_ASSERT(does(state, RECORD_PSK_GENERATED, 2));
    CU_ASSERT(does(state, RECORD_PSK_SET, 2));
    CU_ASSERT(does(state, RECORD_PSK_SET, 1)); // back
    CU_ASSERT_FALSE(does(state, RECORD_PSK_SET, 3));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_DESTROYED, 1)); // it stores none
    CU_ASSERT_EQUAL(link_of(state)->made, 2);
    CU_ASSERT_EQUAL(link_of(state)->set, 1);
    CU_ASSERT_STRING_EQUAL(psks_method(link_of(state)), "made");
    must_survive(state);
    state_free(state);
}

static void test_taker(void)
{
    struct state *state = begin();
    CU_ASSERT_FALSE(does(state, RECORD_PSK_RECEIVED, 2));
    CU_ASSERT(does(state, RECORD_PSK_RECEIVED, 1));
    CU_ASSERT(does(state, RECORD_PSK_RECEIVED, 1)); // acknowledged again
    CU_ASSERT_FALSE(does(state, RECORD_PSK_GENERATED, 1));
    CU_ASSERT(does(state, RECORD_PSK_SET, 1));
    CU_ASSERT(does(state, RECORD_PSK_RECEIVED, 2));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_RECEIVED, 1)); // a replay
    CU_ASSERT(does(state, RECORD_PSK_SET, 2));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_DESTROYED, 1)); // the maker may go back to it
    CU_ASSERT(does(state, RECORD_PSK_RECEIVED, 3));
    CU_ASSERT(does(state, RECORD_PSK_DESTROYED, 1));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_DESTROYED, 1));
    CU_ASSERT_FALSE(does(state, RECORD_PSK_DESTROYED, 2)); // in use
    CU_ASSERT_FALSE(does(state, RECORD_PSK_SET, 1));       // gone
    CU_ASSERT(does(state, RECORD_PSK_SET, 3));
    CU_ASSERT_STRING_EQUAL(psks_method(link_of(state)), "received");
    must_survive(state);
    state_free(state);
}

static void test_yielding(void)
{
    struct state *state = begin();
    CU_ASSERT(does(state, RECORD_PSK_GENERATED, 1));
    CU_ASSERT(does(state, RECORD_PSK_RECEIVED, 1)); // never set: given up
    CU_ASSERT_EQUAL(link_of(state)->made, 0);
    CU_ASSERT_FALSE(does(state, RECORD_PSK_GENERATED, 1));
    must_survive(state);
    state_free(state);
}

static struct record grant(const struct state *state, uint64_t epoch, const char *lease)
{
    struct record r = step(state, RECORD_RELEASE_GRANTED, epoch);
    r.purpose = PURPOSE_PRESHARED;
    r.reason = REASON_ROTATION;
    r.actor.present = true;
    memset(r.applier_public_key, 9, sizeof(r.applier_public_key));
    strcpy(r.lease, lease);
    strcpy(r.method, "made");
    r.expires_us = r.time_us + 10;
    return r;
}

static void test_release(void)
{
    struct state *state = begin();
    struct record r = grant(state, 1, "01");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1); // there is none yet
    CU_ASSERT(does(state, RECORD_PSK_GENERATED, 1));
    r = grant(state, 2, "01");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1);
    r = grant(state, 1, "");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1);
    r = grant(state, 1, "01");
    strcpy(r.method, "received");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1);
    r = grant(state, 1, "01");
    r.generation = 1;
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1);
    r = grant(state, 1, "01");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), 0);
    CU_ASSERT_EQUAL(state_key_find(state, "wg0", 1)->releases, 0); // no private key left
    must_survive(state);
    r = next(state, RECORD_RELEASE_APPLIED);
    strcpy(r.key, "wg0");
    strcpy(r.lease, "01");
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), -1); // without its purpose it is a private key's
    r.purpose = PURPOSE_PRESHARED;
    CU_ASSERT_EQUAL(state_apply(state, &r, NULL), 0);
    CU_ASSERT_EQUAL(state_leases(state), 0);
    state_free(state);
}

static void test_chain(void)
{
    CU_ASSERT_EQUAL(psks_chain_first(1), 1);
    CU_ASSERT_EQUAL(psks_chain_first(PSKS_CHAIN_MAX), 1);
    CU_ASSERT_EQUAL(psks_chain_first(PSKS_CHAIN_MAX + 1), PSKS_CHAIN_MAX + 1);
    CU_ASSERT_EQUAL(psks_chain_first(2 * PSKS_CHAIN_MAX), PSKS_CHAIN_MAX + 1);
}

static void test_order(void)
{
    struct state *state = begin();
    static const char *const hosts[] = {"delta", "beta", "gamma", "alpha2"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        struct record r = step(state, RECORD_PSK_GENERATED, 1);
        strcpy(r.peer, hosts[i]);
        CU_ASSERT_EQUAL(state_apply(state, &r, NULL), 0);
    }
    const struct psks *psks = state_psks(state);
    CU_ASSERT_EQUAL(psks->count, 4);
    for (size_t i = 1; i < psks->count; i++)
        CU_ASSERT(strcmp(psks->items[i - 1].host, psks->items[i].host) < 0);
    must_survive(state);
    state_free(state);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what a maker may do", test_maker},
                           {"what a taker may do", test_taker},
                           {"an end that began may take instead", test_yielding},
                           {"a release has a lease of its own", test_release},
                           {"where a chain begins", test_chain},
                           {"links are in order", test_order},
                           CU_TEST_INFO_NULL};
    return tap_run("psks", tests);
}
