// SPDX-License-Identifier: Apache-2.0
// Drift: a table of what log, bundles and interface say, and what is found.
#include "tools/applier/drift.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tap.h"

#define SECOND 1000000LL
#define NOW    (1800000000 * SECOND)
#define GRACE  (300 * SECOND)

// Public keys are told by their first byte: our own generations 0xa1.., beta's 0xb1.., others.
enum { OWN = 0xa0, BETA = 0xb0, OTHER = 0xc1 };

struct there {   // a peer of the interface
    uint8_t key; // 0: none
    int allowed; // 1: beta's prefix; 2: another; 3: both
    uint16_t keepalive;
    bool preshared;
};

// A row says what matters to it; the rest is zero.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

struct known { // a generation of beta's, by the log
    uint64_t generation;
    enum custody_peer_state state;
    int staged_s, moved_s; // ago; moved 0: never
};

struct row {
    const char *name;
    uint8_t key; // of the interface
    uint64_t active, next, rotation;
    uint64_t published;
    enum custody_bundle_state says;
    struct known known[3];
    struct there there[3];
    // beta's notes; `blind`: the registry was not looked at
    bool blind;
    uint64_t beta_active, beta_next, beta_ended;
    enum drift_preshared preshared;

    struct {
        enum drift_kind kind;
        bool drift, repairable;
        const char *words;
    } found[3];
};

// 0 in a row: as it is when nothing is amiss; NONE: 0.
#define NONE 99
static unsigned or_sound(unsigned value, unsigned sound)
{
    return value == 0 ? sound : value == NONE ? 0 : value;
}

#define MOVED1                                                                                     \
    {                                                                                              \
        1, CUSTODY_PEER_MOVED, 900                                                                 \
    }
#define PEER1                                                                                      \
    {                                                                                              \
        BETA + 1, 1, 25, false                                                                     \
    }

static const struct row rows[] = {
    {"nothing", .known = {MOVED1}, .there = {PEER1}},
    {"no key of ours in the log yet", .key = OTHER, .active = NONE, .published = NONE,
     .known = {MOVED1}, .there = {PEER1}},
    {"no private key", .key = NONE, .known = {MOVED1}, .there = {PEER1},
     .found = {{DRIFT_NO_KEY, true, true, "has no private key"}}},
    {"a foreign private key", .key = OTHER, .known = {MOVED1}, .there = {PEER1},
     .found = {{DRIFT_OWN_KEY, true, true, "generation 1"}}},
    {"the next key outside a rotation", .key = OWN + 2, .next = 2, .known = {MOVED1},
     .there = {PEER1}, .found = {{DRIFT_OWN_KEY, true, true, "generation 1"}}},
    {"the next key in its rotation", .key = OWN + 2, .next = 2, .rotation = 2, .published = 2,
     .says = CUSTODY_BUNDLE_PRE_ACTIVE, .known = {MOVED1}, .there = {PEER1}},
    {"an old bundle", .key = OWN + 2, .active = 2, .known = {MOVED1}, .there = {PEER1},
     .found = {{DRIFT_OWN_BUNDLE, true, false, "generation 2 is active"}}},
    {"a bundle that says pre-active", .says = CUSTODY_BUNDLE_PRE_ACTIVE, .known = {MOVED1},
     .there = {PEER1}, .found = {{DRIFT_OWN_BUNDLE, true, false, "counterparts are told"}}},
    {"a bundle that was withdrawn", .published = 2, .says = CUSTODY_BUNDLE_DESTROYED,
     .known = {MOVED1}, .there = {PEER1}},
    {"no peer", .known = {MOVED1}, .there = {{0}},
     .found = {{DRIFT_PEER_MISSING, true, true, "is no peer of the interface"}}},
    {"no allowed-ips", .known = {MOVED1}, .there = {{BETA + 1, 0, 25, false}},
     .found = {{DRIFT_ALLOWED_IPS, true, true, "0 of its 1"}}},
    {"more allowed-ips", .known = {MOVED1}, .there = {{BETA + 1, 3, 25, false}},
     .found = {{DRIFT_ALLOWED_IPS, true, true, "1 of its 1 allowed-ips, and 1 that are not"}}},
    {"another keepalive", .known = {MOVED1}, .there = {{BETA + 1, 1, 0, false}},
     .found = {{DRIFT_KEEPALIVE, true, true, "has keepalive 0, configured is 25"}}},
    {"a preshared key where none is wanted", .preshared = DRIFT_PRESHARED_NONE, .known = {MOVED1},
     .there = {{BETA + 1, 1, 25, true}},
     .found = {{DRIFT_PRESHARED, true, false, "has a preshared key"}}},
    {"none where one is wanted", .preshared = DRIFT_PRESHARED_ONE, .known = {MOVED1},
     .there = {PEER1}, .found = {{DRIFT_PRESHARED, true, false, "has no preshared key"}}},
    {"a preshared key of which nothing is known", .known = {MOVED1},
     .there = {{BETA + 1, 1, 25, true}}},
    {"an active bundle above the log", .beta_active = 2, .known = {MOVED1}, .there = {PEER1},
     .found = {{DRIFT_GENERATION, true, false, "moved to generation 1 last"}}},
    {"a bundle of which the log knows nothing", .there = {{BETA + 1, 1, 25, false}},
     .found = {{DRIFT_GENERATION, true, false, "the log knows no key of it yet"}}},
    {"a bundle below the log, as a registry that lags has it", .beta_active = 1,
     .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 10}}, .there = {PEER1, {BETA + 2, 0, 0, false}},
     .beta_next = 2},
    {"a retired generation", .beta_active = 2,
     .known = {{1, CUSTODY_PEER_RETIRED, 900}, {2, CUSTODY_PEER_MOVED, 900}},
     .there = {{BETA + 2, 1, 25, false}, {BETA + 1, 0, 0, false}},
     .found = {{DRIFT_RETIRED, true, true, "generation 1"}}},
    {"a withdrawn generation", .beta_ended = 2, .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 10}},
     .there = {PEER1, {BETA + 2, 0, 0, false}},
     .found = {{DRIFT_RETIRED, true, true, "has withdrawn generation 2"}}},
    {"a staged generation within its grace", .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 299}},
     .there = {PEER1, {BETA + 2, 0, 0, false}}},
    {"a staged generation past its grace", .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 301}},
     .there = {PEER1, {BETA + 2, 0, 0, false}},
     .found = {{DRIFT_STALE_STAGED, true, false, "longer than the grace period"}}},
    {"the same, still wanted", .beta_next = 2, .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 301}},
     .there = {PEER1, {BETA + 2, 0, 0, false}}},
    {"the same, and the registry is gone", .blind = true,
     .known = {MOVED1, {2, CUSTODY_PEER_STAGED, 301}}, .there = {PEER1, {BETA + 2, 0, 0, false}}},
    {"one that was moved away from, within its grace", .beta_active = 2,
     .known = {{1, CUSTODY_PEER_STAGED, 2000, 1500}, {2, CUSTODY_PEER_MOVED, 310, 299}},
     .there = {{BETA + 1, 0, 0, false}, {BETA + 2, 1, 25, false}}},
    {"one that was moved away from, past its grace", .beta_active = 2,
     .known = {{1, CUSTODY_PEER_STAGED, 2000, 1500}, {2, CUSTODY_PEER_MOVED, 310, 301}},
     .there = {{BETA + 1, 0, 0, false}, {BETA + 2, 1, 25, false}},
     .found = {{DRIFT_STALE_STAGED, true, false, "longer than the grace period"}}},
    {"a peer of nobody's", .known = {MOVED1}, .there = {PEER1, {OTHER, 2, 0, false}},
     .found = {{DRIFT_UNMANAGED, false, false, "managed by nobody"}}},
    {"a peer of nobody's with beta's allowed-ips", .known = {MOVED1},
     .there = {{BETA + 1, 0, 25, false}, {OTHER, 1, 0, false}},
     .found = {{DRIFT_ALLOWED_IPS, true, true, "0 of its 1"},
               {DRIFT_TAKEN, true, true, "has allowed-ips of beta"}}},
    {"the same before beta is known", .beta_active = NONE, .there = {{OTHER, 1, 0, false}},
     .found = {{DRIFT_TAKEN, true, false, "the log knows no key yet"}}},
    {"a staged one that the log does not have yet", .beta_next = 2, .known = {MOVED1},
     .there = {PEER1, {BETA + 2, 0, 0, false}}},
};

// ---- making what a row tells ----

static struct device_allowed_ip allowed_ips[2] = {
    {.family = AF_INET, .address = {10, 0, 0, 2}, .cidr = 32},
    {.family = AF_INET, .address = {10, 9, 0, 0}, .cidr = 16},
};
static struct setup_prefix prefix = {
    .address = {.family = AF_INET, .bytes = {10, 0, 0, 2}, .text = "10.0.0.2"}, .bits = 32};

static void fill_key(uint8_t key[DEVICE_KEY_SIZE], uint8_t first)
{
    memset(key, 0, DEVICE_KEY_SIZE);
    key[0] = first;
}

static void add_generation(struct custody_view *view, uint64_t generation,
                           enum custody_key_state state)
{
    if (generation == 0)
        return;
    struct custody_key *key = &view->generations[view->generation_count++];
    key->generation = generation;
    key->state = state;
    fill_key(key->public_key, (uint8_t)(OWN + generation));
}

static void fill_view(const struct row *row, struct custody_view *view)
{
    add_generation(view, or_sound((unsigned)row->active, 1), CUSTODY_KEY_ACTIVE);
    add_generation(view, row->next, CUSTODY_KEY_PRE_ACTIVE);
    view->rotation_generation = row->rotation;
    view->bundle_generation = or_sound((unsigned)row->published, 1);
    view->bundle_state = row->says != 0 ? row->says : CUSTODY_BUNDLE_ACTIVE;
    for (size_t i = 0; i < 3 && row->known[i].generation != 0; i++) {
        struct custody_peer *peer = &view->peers[view->peer_count++];
        *peer = (struct custody_peer){
            .generation = row->known[i].generation,
            .state = row->known[i].state,
            .staged_us = NOW - row->known[i].staged_s * SECOND,
            .moved_us = row->known[i].moved_s == 0 ? 0 : NOW - row->known[i].moved_s * SECOND};
        snprintf(peer->host, sizeof peer->host, "beta");
        snprintf(peer->key, sizeof peer->key, "wg0");
        fill_key(peer->public_key, (uint8_t)(BETA + row->known[i].generation));
    }
}

static void fill_device(const struct row *row, struct device_view *device)
{
    fill_key(device->public_key, (uint8_t)or_sound(row->key, OWN + 1));
    for (size_t i = 0; i < 3 && row->there[i].key != 0; i++) {
        const struct there *there = &row->there[i];
        // Sorted by key: a view is.
        size_t at = device->peer_count++;
        for (; at > 0 && device->peers[at - 1].public_key[0] > there->key; at--)
            device->peers[at] = device->peers[at - 1];
        device->peers[at] =
            (struct device_peer){.keepalive = there->keepalive,
                                 .has_preshared = there->preshared,
                                 .allowed_ips = there->allowed == 2 ? &allowed_ips[1] : allowed_ips,
                                 .allowed_count = there->allowed == 3   ? 2
                                                  : there->allowed == 0 ? 0
                                                                        : 1};
        fill_key(device->peers[at].public_key, there->key);
    }
}

static void fill_says(const struct row *row, struct counterpart_says *says)
{
    unsigned active = or_sound((unsigned)row->beta_active, 1);
    says->has_active = active != 0;
    says->active.generation = active;
    fill_key(says->active.public_key, (uint8_t)(BETA + active));
    says->has_pre_active = row->beta_next != 0;
    says->pre_active.generation = row->beta_next;
    fill_key(says->pre_active.public_key, (uint8_t)(BETA + row->beta_next));
    says->ended_count = row->beta_ended != 0 ? 1 : 0;
    says->ended[0].generation = row->beta_ended;
}

static void compare(const struct row *row, struct drift *drift)
{
    static struct setup_peer peer = {.host = "beta",
                                     .key = "wg0",
                                     .allowed_ips = &prefix,
                                     .allowed_ip_count = 1,
                                     .keepalive_s = 25};
    static struct setup_interface setup = {
        .name = "wg0", .key = "wg0", .peers = &peer, .peer_count = 1};
    static struct counterpart_says says;
    struct custody_key generations[3] = {0};
    struct custody_peer peers[3] = {0};
    struct device_peer there[4] = {0};
    struct custody_view view = {.generations = generations, .peers = peers};
    struct device_view device = {.peers = there};
    struct drift_peer told = {.says = row->blind ? NULL : &says, .preshared = row->preshared};
    memset(&says, 0, sizeof says);
    fill_view(row, &view);
    fill_device(row, &device);
    fill_says(row, &says);
    const struct drift_in in = {.setup = &setup,
                                .view = &view,
                                .device = &device,
                                .peers = &told,
                                .grace_us = GRACE,
                                .now_us = NOW};
    drift_compare(&in, drift);
}

static void test_table(void)
{
    static struct drift drift;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];
        size_t wanted = 0;
        bool right = true;
        compare(row, &drift);
        while (wanted < 3 && row->found[wanted].words != NULL)
            wanted++;
        right = drift.count == wanted && !drift.cut;
        for (size_t j = 0; right && j < wanted; j++)
            right = drift.items[j].kind == row->found[j].kind &&
                    drift.items[j].drift == row->found[j].drift &&
                    drift.items[j].repairable == row->found[j].repairable &&
                    strstr(drift.items[j].words, row->found[j].words) != NULL;
        if (!right)
            for (size_t j = 0; j < drift.count; j++)
                printf("# %s: %s (%d, %d): %s\n", row->name, drift_kind_name(drift.items[j].kind),
                       drift.items[j].drift, drift.items[j].repairable, drift.items[j].words);
        if (!right)
            printf("# wrong: %s\n", row->name);
        CU_ASSERT(right);
    }
}

static void test_same(void)
{
    static struct drift before, after;
    struct row row = {.known = {MOVED1}, .there = {{BETA + 1, 1, 0, false}}};
    compare(&row, &before);
    row.there[0].keepalive = 5; // other words for the same thing
    compare(&row, &after);
    CU_ASSERT_EQUAL_FATAL(before.count, 1);
    CU_ASSERT_EQUAL_FATAL(after.count, 1);
    CU_ASSERT_STRING_NOT_EQUAL(before.items[0].words, after.items[0].words);
    CU_ASSERT(drift_same(&before.items[0], &after.items[0]));
    after.items[0].kind = DRIFT_ALLOWED_IPS;
    CU_ASSERT_FALSE(drift_same(&before.items[0], &after.items[0]));
    after.items[0] = before.items[0];
    after.items[0].public_key[31] = 1;
    CU_ASSERT_FALSE(drift_same(&before.items[0], &after.items[0]));
}

static void test_count(void)
{
    static struct drift drift;
    struct row row = {.known = {MOVED1}, .there = {{BETA + 1, 1, 0, false}, {OTHER, 2, 0, false}}};
    compare(&row, &drift);
    CU_ASSERT_EQUAL(drift.count, 2);
    CU_ASSERT_EQUAL(drift_count(&drift), 1); // what is only told is none
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"each kind is found, and nothing where nothing is", test_table},
        {"a finding is known again", test_same},
        {"what is unmanaged is told and not counted", test_count},
        CU_TEST_INFO_NULL,
    };
    return tap_run("drift", tests);
}
