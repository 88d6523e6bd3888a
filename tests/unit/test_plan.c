// SPDX-License-Identifier: Apache-2.0
// What is decided: for a counterpart's key a table of what its host says, what our log knows and
// what is on the interface; for our own key a table of its states; and what is published of it.
#include "tools/applier/plan.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

// A row says what matters to it; the rest is zero.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define SECOND INT64_C(1000000)
#define NOW    (1800000000 * SECOND)
#define GRACE  600 // seconds

static void public_key_of(uint8_t key[DEVICE_KEY_SIZE], uint64_t generation)
{
    memset(key, (int)generation, DEVICE_KEY_SIZE);
}

// ---- a counterpart's key ----

struct known {
    uint64_t generation;
    enum custody_peer_state state;
    int staged_s, moved_s; // so long ago; 0: never
};

// A peer on the interface: with the counterpart's allowed-ips, with none, or with another's.
struct there {
    uint64_t generation;
    enum { BARE, WHOLE, OTHER } prefixes;
};

struct ended {
    uint64_t generation;
    uint32_t state;
};

struct row {
    const char *name;
    // What the host says.
    uint64_t active, pre_active;
    struct ended ended[3];
    bool stale, withheld;
    // What we know and have.
    struct known known[4];
    struct there there[4];
    bool own_rotation;
    uint64_t answered;
    const char *own_host, *own_key; // NULL: "alpha", "wg0"; the counterpart is beta's wg1

    struct step {
        enum plan_step_kind kind;
        uint64_t generation;
        const char *why; // in its detail; NULL: none wanted
        bool compromised;
    } steps[4];
    bool watch, yield;
    int due_s; // from now; 0: no need
};

#define STAGED  CUSTODY_PEER_STAGED
#define MOVED   CUSTODY_PEER_MOVED
#define RETIRED CUSTODY_PEER_RETIRED

static const struct row rows[] = {
    // First contact.
    {"nothing is known of it", .stale = true},
    {"first contact", .active = 5, .steps = {{PLAN_MOVE, 5, "first"}}},
    {"first contact by what is on the interface already", .active = 5, .there = {{5, WHOLE}},
     .steps = {{PLAN_MOVE, 5, "first"}}},
    {"first contact through a registry that lags", .active = 5, .stale = true,
     .steps = {{PLAN_MOVE, 5, "first"}}},
    {"first contact amid a rotation stages nothing before there is a key to stage beside",
     .pre_active = 6},
    {"first contact amid a rotation", .active = 5, .pre_active = 6,
     .steps = {{PLAN_MOVE, 5, "first"}, {PLAN_STAGE, 6}}, .watch = true},
    {"all that was known is retired, and a new one is active", .active = 6,
     .known = {{5, RETIRED, 900, 800}}, .steps = {{PLAN_MOVE, 6, "first"}}},

    // In use.
    {"in use", .active = 5, .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}},
    {"late: the next is active already, and never was staged", .active = 6,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}, .steps = {{PLAN_MOVE, 6, "is active"}}},
    {"late: it was staged, and is active now", .active = 6,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, WHOLE}, {6, BARE}},
     .steps = {{PLAN_MOVE, 6, "is active"}}},
    {"the registry shows nothing: what is known stays", .stale = true,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}},

    // Staging.
    {"a rotation begins", .active = 5, .pre_active = 6, .known = {{5, MOVED, 0, 900}},
     .there = {{5, WHOLE}}, .steps = {{PLAN_STAGE, 6}}, .watch = true},
    {"a rotation begins, and the active bundle is not shown", .pre_active = 6,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}, .steps = {{PLAN_STAGE, 6}},
     .watch = true},
    {"staged", .active = 5, .pre_active = 6, .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}},
     .there = {{5, WHOLE}, {6, BARE}}, .answered = 6, .watch = true},
    {"staged by a process that is gone: its secret is lost", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, WHOLE}, {6, BARE}},
     .steps = {{PLAN_STAGE, 6}}, .watch = true},
    {"staged again although the registry lags: nothing new comes of it", .active = 5,
     .pre_active = 6, .stale = true, .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}},
     .there = {{5, WHOLE}, {6, BARE}}, .steps = {{PLAN_STAGE, 6}}, .watch = true},
    {"staged, and the interface lost it", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, WHOLE}}, .answered = 6,
     .steps = {{PLAN_STAGE, 6}}, .watch = true},
    {"a registry that lags stages nothing", .active = 5, .pre_active = 6, .stale = true,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}},
    {"a registry that hides a bundle stages nothing", .active = 5, .pre_active = 6,
     .withheld = true, .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}},
    {"a pre-active one below the current is none to stage", .pre_active = 4,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}},

    // Taking over.
    {"it took over, and the log does not know", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, BARE}, {6, WHOLE}},
     .answered = 6, .steps = {{PLAN_MOVE, 6, "taken over"}}, .watch = true},
    {"another's allowed-ips are no take-over", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, WHOLE}, {6, OTHER}},
     .answered = 6, .watch = true},
    {"moved to, not confirmed yet", .active = 5, .pre_active = 6,
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 60, 10}}, .there = {{5, BARE}, {6, WHOLE}},
     .watch = true},

    // Rolled back and withdrawn.
    {"rolled back after we moved", .active = 5, .ended = {{6, BUNDLE_DESTROYED}},
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 60, 10}}, .there = {{5, BARE}, {6, WHOLE}},
     .steps = {{PLAN_MOVE, 5, "withdrawn"}, {PLAN_RETIRE, 6, "withdrew"}}},
    {"an older one said to be active is no roll-back unless the newer was withdrawn", .active = 5,
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 60, 10}}, .there = {{5, BARE}, {6, WHOLE}}},
    {"withdrawn before we moved", .active = 5, .ended = {{6, BUNDLE_DESTROYED}},
     .known = {{5, MOVED, 0, 900}, {6, STAGED, 60}}, .there = {{5, WHOLE}, {6, BARE}},
     .answered = 6, .steps = {{PLAN_RETIRE, 6, "withdrew"}}},
    {"staged, and nothing more is heard of it, within the grace period", .active = 5,
     .known = {{5, MOVED, 0, 900}, {6, STAGED, GRACE - 10}}, .there = {{5, WHOLE}, {6, BARE}},
     .due_s = 10},
    {"... and after", .active = 5, .known = {{5, MOVED, 0, 900}, {6, STAGED, GRACE}},
     .there = {{5, WHOLE}, {6, BARE}}, .steps = {{PLAN_RETIRE, 6, "nothing came"}}},
    {"staged, and overtaken by a later one", .active = 7,
     .known = {{5, STAGED, 0, 900}, {6, STAGED, 60}, {7, MOVED, 30, 10}},
     .there = {{5, BARE}, {6, BARE}, {7, WHOLE}}, .steps = {{PLAN_RETIRE, 6, "later one"}},
     .due_s = GRACE - 10},
    {"moved to and away from again, within the grace period", .active = 5,
     .known = {{5, MOVED, 0, 10}, {6, STAGED, 60, 20}}, .there = {{5, WHOLE}, {6, BARE}},
     .due_s = GRACE - 20},
    {"... and after", .active = 5, .known = {{5, MOVED, 0, 10}, {6, STAGED, 900, GRACE}},
     .there = {{5, WHOLE}, {6, BARE}}, .steps = {{PLAN_RETIRE, 6, "nothing came"}}},
    {"... and after, while its host still is at it", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 10}, {6, STAGED, 900, GRACE}}, .there = {{5, WHOLE}, {6, BARE}},
     .answered = 6, .watch = true},

    // Replaced.
    {"replaced, within the grace period", .active = 6,
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 60, 10}}, .there = {{5, BARE}, {6, WHOLE}},
     .due_s = GRACE - 10},
    {"... and after", .active = 6, .known = {{5, STAGED, 0, 900}, {6, MOVED, 900, GRACE}},
     .there = {{5, BARE}, {6, WHOLE}}, .steps = {{PLAN_RETIRE, 5, "grace"}}},
    {"... and after, but its host has not confirmed", .active = 5, .pre_active = 6,
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 900, GRACE}}, .there = {{5, BARE}, {6, WHOLE}},
     .watch = true},
    {"... and after, and its host says nothing", .stale = true,
     .known = {{5, STAGED, 0, 900}, {6, MOVED, 900, GRACE}}, .there = {{5, BARE}, {6, WHOLE}}},

    // Compromised.
    {"compromised, and replaced by a pre-active one", .pre_active = 6,
     .ended = {{5, BUNDLE_COMPROMISED}}, .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}},
     .steps = {{PLAN_STAGE, 6}, {PLAN_RETIRE, 5, "compromised", true}}, .watch = true},
    {"compromised, and its replacement is active", .active = 6, .ended = {{5, BUNDLE_COMPROMISED}},
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}},
     .steps = {{PLAN_MOVE, 6, "is active"}, {PLAN_RETIRE, 5, "compromised", true}}},
    {"compromised, with nothing to take its place", .ended = {{5, BUNDLE_COMPROMISED}},
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}},
     .steps = {{PLAN_RETIRE, 5, "compromised", true}}},
    {"compromised, and gone from the interface: it is not made anew",
     .ended = {{5, BUNDLE_COMPROMISED}}, .known = {{5, MOVED, 0, 900}},
     .steps = {{PLAN_RETIRE, 5, "compromised", true}}},
    {"compromised and retired", .ended = {{5, BUNDLE_COMPROMISED}},
     .known = {{5, RETIRED, 0, 900}}},
    {"an old one is found to be compromised within its grace period", .active = 6,
     .ended = {{5, BUNDLE_COMPROMISED}}, .known = {{5, STAGED, 0, 900}, {6, MOVED, 60, 10}},
     .there = {{5, BARE}, {6, WHOLE}}, .steps = {{PLAN_RETIRE, 5, "compromised", true}}},

    // Our own rotation.
    {"both rotate: ours goes first", .active = 5, .pre_active = 6, .known = {{5, MOVED, 0, 900}},
     .there = {{5, WHOLE}}, .own_rotation = true},
    {"both rotate: the other goes first", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}, .own_rotation = true,
     .own_host = "gamma", .yield = true},
    {"both ends are one host's: the lower key goes first, ours", .active = 5, .pre_active = 6,
     .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}, .own_rotation = true, .own_host = "beta",
     .own_key = "wg0"},
    {"both ends are one host's: the lower key goes first, the other's", .active = 5,
     .pre_active = 6, .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}}, .own_rotation = true,
     .own_host = "beta", .own_key = "wg2", .yield = true},
    {"only ours rotates", .active = 5, .known = {{5, MOVED, 0, 900}}, .there = {{5, WHOLE}},
     .own_rotation = true, .own_host = "gamma"},

    // The interface.
    {"the interface was made anew", .active = 5, .known = {{5, MOVED, 0, 900}},
     .steps = {{PLAN_REPAIR, 5}}},
    {"the interface was made anew, and the registry is silent", .stale = true,
     .known = {{5, MOVED, 0, 900}}, .steps = {{PLAN_REPAIR, 5}}},
    {"its allowed-ips were taken away", .active = 5, .known = {{5, MOVED, 0, 900}},
     .there = {{5, BARE}}, .steps = {{PLAN_REPAIR, 5}}},
    {"its allowed-ips are others", .active = 5, .known = {{5, MOVED, 0, 900}},
     .there = {{5, OTHER}}, .steps = {{PLAN_REPAIR, 5}}},
    {"peers that nobody told of are left alone", .active = 5, .known = {{5, MOVED, 0, 900}},
     .there = {{5, WHOLE}, {77, BARE}, {78, OTHER}}},
};

static void fill_bundle(struct bundle *bundle, uint64_t generation, uint32_t state)
{
    *bundle = (struct bundle){.host = "beta", .key = "wg1", .generation = generation};
    bundle->state = state;
    public_key_of(bundle->public_key, generation);
}

static void fill_says(struct counterpart_says *says, const struct row *row)
{
    memset(says, 0, sizeof *says);
    says->stale = row->stale;
    says->withheld = row->withheld;
    says->has_active = row->active != 0;
    says->has_pre_active = row->pre_active != 0;
    if (says->has_active)
        fill_bundle(&says->active, row->active, BUNDLE_ACTIVE);
    if (says->has_pre_active)
        fill_bundle(&says->pre_active, row->pre_active, BUNDLE_PRE_ACTIVE);
    for (; row->ended[says->ended_count].generation != 0; says->ended_count++) {
        struct counterpart_ended *ended = &says->ended[says->ended_count];
        ended->generation = row->ended[says->ended_count].generation;
        ended->state = row->ended[says->ended_count].state;
        public_key_of(ended->public_key, ended->generation);
    }
}

static struct custody_peer make_known(const char *host, const char *key, const struct known *known)
{
    struct custody_peer peer = {.generation = known->generation, .state = known->state};
    snprintf(peer.host, sizeof peer.host, "%s", host);
    snprintf(peer.key, sizeof peer.key, "%s", key);
    public_key_of(peer.public_key, known->generation);
    peer.staged_us = known->staged_s != 0 ? NOW - known->staged_s * SECOND : 0;
    peer.moved_us = known->moved_s != 0 ? NOW - known->moved_s * SECOND : 0;
    return peer;
}

// Others stand about it, with the same numbers: they are none of its business.
static size_t fill_known(struct custody_peer peers[16], const struct row *row)
{
    static const struct known theirs[] = {{5, STAGED, 900, 0}, {6, MOVED, 0, 900}};
    size_t count = 0;
    peers[count++] = make_known("aardvark", "wg1", &theirs[0]);
    peers[count++] = make_known("beta", "wg0", &theirs[0]);
    peers[count++] = make_known("beta", "wg0", &theirs[1]);
    for (size_t i = 0; i < 4 && row->known[i].generation != 0; i++)
        peers[count++] = make_known("beta", "wg1", &row->known[i]);
    peers[count++] = make_known("beta", "wg10", &theirs[1]);
    peers[count++] = make_known("gamma", "wg1", &theirs[1]);
    return count;
}

static void fill_there(struct device_view *view, struct device_peer peers[4],
                       struct device_allowed_ip *own, struct device_allowed_ip *other,
                       const struct row *row)
{
    memset(view, 0, sizeof *view);
    memset(peers, 0, 4 * sizeof *peers);
    view->peers = peers;
    for (; view->peer_count < 4 && row->there[view->peer_count].generation != 0;
         view->peer_count++) {
        const struct there *there = &row->there[view->peer_count];
        struct device_peer *peer = &peers[view->peer_count];
        public_key_of(peer->public_key, there->generation);
        peer->allowed_count = there->prefixes == BARE ? 0 : 1;
        peer->allowed_ips = there->prefixes == WHOLE ? own : other;
    }
}

static void expect(const struct row *row, const struct plan *plan)
{
    size_t count = 0;
    bool right = true;
    for (; count < 4 && (row->steps[count].generation != 0); count++) {
        const struct step *wanted = &row->steps[count];
        const struct plan_step *step = &plan->steps[count];
        uint8_t public_key[DEVICE_KEY_SIZE];
        public_key_of(public_key, wanted->generation);
        right = right && count < plan->count && step->kind == wanted->kind &&
                step->generation == wanted->generation &&
                step->compromised == wanted->compromised &&
                memcmp(step->public_key, public_key, sizeof public_key) == 0 &&
                (wanted->why == NULL || strstr(step->detail, wanted->why) != NULL);
    }
    int64_t due = row->due_s != 0 ? NOW + row->due_s * SECOND : 0;
    right = right && plan->count == count && plan->watch == row->watch &&
            plan->yield == row->yield && plan->due_us == due;
    CU_ASSERT_TRUE(right);
    if (right)
        return;
    printf("# %s: %zu steps:", row->name, plan->count);
    for (size_t i = 0; i < plan->count; i++)
        printf(" %d of %d (%s)", (int)plan->steps[i].kind, (int)plan->steps[i].generation,
               plan->steps[i].detail);
    printf("; watch %d, yield %d, due in %d s\n", plan->watch, plan->yield,
           plan->due_us != 0 ? (int)((plan->due_us - NOW) / SECOND) : 0);
}

static void test_counterpart(void)
{
    struct setup_prefix prefix = {.bits = 32};
    struct device_allowed_ip own = {.family = AF_INET, .address = {10, 0, 0, 2}, .cidr = 32};
    struct device_allowed_ip other = {.family = AF_INET, .address = {10, 0, 0, 3}, .cidr = 32};
    struct setup_peer setup = {
        .host = "beta", .key = "wg1", .allowed_ips = &prefix, .allowed_ip_count = 1};
    CU_ASSERT_TRUE_FATAL(setup_parse_prefix(&prefix, "10.0.0.2/32"));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct counterpart_says says;
        struct custody_peer known[16];
        struct device_peer there[4];
        struct device_view device;
        struct custody_view view = {.peers = known, .peer_count = fill_known(known, &rows[i])};
        struct plan plan;
        fill_says(&says, &rows[i]);
        fill_there(&device, there, &own, &other, &rows[i]);
        plan_for_counterpart(
            &(struct plan_counterpart){.setup = &setup,
                                       .says = &says,
                                       .view = &view,
                                       .device = &device,
                                       .own_host =
                                           rows[i].own_host != NULL ? rows[i].own_host : "alpha",
                                       .own_key = rows[i].own_key != NULL ? rows[i].own_key : "wg0",
                                       .own_rotation = rows[i].own_rotation,
                                       .answered_generation = rows[i].answered,
                                       .grace_us = GRACE * SECOND,
                                       .now_us = NOW},
            &plan);
        expect(&rows[i], &plan);
    }
}

// Of two hosts, or two keys, that both rotate, exactly one gives way.
static void test_one_gives_way(void)
{
    static const struct {
        const char *host, *key;
    } ends[] = {{"alpha", "wg0"}, {"alpha", "wg1"}, {"beta", "wg0"}, {"beta", "a"}};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            bool yields[2];
            for (size_t side = 0; side < 2 && i != j; side++) {
                size_t us = side == 0 ? i : j, them = side == 0 ? j : i;
                struct setup_peer setup = {.allowed_ip_count = 0};
                struct known known = {5, MOVED, 0, 900};
                struct custody_peer peer = make_known(ends[them].host, ends[them].key, &known);
                struct custody_view view = {.peers = &peer, .peer_count = 1};
                struct counterpart_says says = {.has_pre_active = true};
                struct device_view device = {.peer_count = 0};
                struct plan plan;
                fill_bundle(&says.pre_active, 6, BUNDLE_PRE_ACTIVE);
                snprintf(setup.host, sizeof setup.host, "%s", ends[them].host);
                snprintf(setup.key, sizeof setup.key, "%s", ends[them].key);
                plan_for_counterpart(&(struct plan_counterpart){.setup = &setup,
                                                                .says = &says,
                                                                .view = &view,
                                                                .device = &device,
                                                                .own_host = ends[us].host,
                                                                .own_key = ends[us].key,
                                                                .own_rotation = true,
                                                                .now_us = NOW},
                                     &plan);
                yields[side] = plan.yield;
            }
            CU_ASSERT_TRUE(i == j || yields[0] != yields[1]);
        }
}

// ---- our own key ----

#define PRE  CUSTODY_KEY_PRE_ACTIVE
#define ACT  CUSTODY_KEY_ACTIVE
#define OLD  CUSTODY_KEY_DEACTIVATED
#define COMP CUSTODY_KEY_COMPROMISED

struct generation {
    uint64_t number;
    enum custody_key_state state;
};

#define NONE    0 // a device without key
#define FOREIGN 99

struct own_row {
    const char *name;
    struct generation generations[4];
    uint64_t rotation; // open to that generation
    bool suspended;
    uint64_t device; // whose key is set: a generation's, NONE or FOREIGN
    uint64_t ours;   // set last by this process; 0: none
    bool seen;       // the interface had a key of ours before

    enum plan_own_kind kind;
    uint64_t generation;
    enum custody_reason reason; // 0: does not matter
};

#define BOOT     CUSTODY_REASON_BOOT
#define RESTORE  CUSTODY_REASON_RESTORE
#define ROTATION CUSTODY_REASON_ROTATION
#define ROLLBACK CUSTODY_REASON_ROLLBACK

static const struct own_row own_rows[] = {
    {"no generation", .device = FOREIGN},
    {"a generation that ended", {{1, OLD}}, .rotation = 0},
    // The first key.
    {"the first key", {{1, PRE}}, .kind = PLAN_SET_KEY, .generation = 1, .reason = BOOT},
    {"the first key, over a foreign one",
     {{1, PRE}},
     .device = FOREIGN,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = BOOT},
    {"the first key is set, and not yet active", {{1, PRE}}, .device = 1},
    // An active key.
    {"active and set", {{1, ACT}}, .device = 1, .generation = 1},
    {"active, a boot", {{1, ACT}}, .kind = PLAN_SET_KEY, .generation = 1, .reason = BOOT},
    {"active, a foreign key at the start",
     {{1, ACT}},
     .device = FOREIGN,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = BOOT},
    {"active, the interface was made anew",
     {{1, ACT}},
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = RESTORE},
    {"active, somebody set a foreign key",
     {{1, ACT}},
     .device = FOREIGN,
     .ours = 1,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = RESTORE},
    {"active, an old one of ours is set",
     {{1, OLD}, {2, ACT}},
     .device = 1,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 2,
     .reason = RESTORE},
    {"active, and what this process set was rolled back",
     {{1, ACT}},
     .device = 2,
     .ours = 2,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = ROLLBACK},
    {"active, a next one is generated but no rotation open",
     {{1, ACT}, {2, PRE}},
     .device = 1,
     .generation = 1},
    {"active, the next is set without a rotation",
     {{1, ACT}, {2, PRE}},
     .device = 2,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = BOOT},
    // A rotation.
    {"a rotation is open",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .device = 1,
     .seen = true,
     .kind = PLAN_ROTATE,
     .generation = 2,
     .reason = ROTATION},
    {"a rotation is open, and its key is set",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .device = 2,
     .ours = 2,
     .kind = PLAN_TAKE_OVER,
     .generation = 2},
    {"a rotation is open, and its key was set before this process began",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .device = 2,
     .kind = PLAN_TAKE_OVER,
     .generation = 2},
    {"a rotation is open, and the machine was started anew",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = BOOT},
    {"a rotation is open, and a foreign key was set",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .device = FOREIGN,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 1,
     .reason = RESTORE},
    // A revocation.
    {"compromised, and nothing in its place", {{1, COMP}}, .device = 1},
    {"compromised, its replacement's rotation is not open yet", {{1, COMP}, {2, PRE}}, .device = 1},
    {"compromised, replaced",
     {{1, COMP}, {2, PRE}},
     .rotation = 2,
     .device = 1,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 2,
     .reason = ROTATION},
    {"compromised, its replacement set and the outcome not told",
     {{1, COMP}, {2, PRE}},
     .rotation = 2,
     .device = 2,
     .kind = PLAN_SET_KEY,
     .generation = 2,
     .reason = ROTATION},
    {"compromised, its replacement active and the rotation open",
     {{1, COMP}, {2, ACT}},
     .rotation = 2,
     .device = 2,
     .kind = PLAN_REPLACED,
     .generation = 2},
    {"... and the interface was made anew",
     {{1, COMP}, {2, ACT}},
     .rotation = 2,
     .seen = true,
     .kind = PLAN_SET_KEY,
     .generation = 2,
     .reason = RESTORE},
    // Suspended: nothing is released.
    {"suspended, active and set", {{1, ACT}}, .suspended = true, .device = 1},
    {"suspended, no key is set", {{1, ACT}}, .suspended = true},
    {"suspended, the first key", {{1, PRE}}, .suspended = true},
    {"suspended amid what was a rotation",
     {{1, ACT}, {2, PRE}},
     .rotation = 2,
     .suspended = true,
     .device = 1},
};

static size_t fill_generations(struct custody_key keys[4], const struct generation from[4])
{
    size_t count = 0;
    for (; count < 4 && from[count].number != 0; count++) {
        keys[count] = (struct custody_key){.name = "wg0", .generation = from[count].number};
        keys[count].state = from[count].state;
        public_key_of(keys[count].public_key, from[count].number);
    }
    return count;
}

static void test_own(void)
{
    for (size_t i = 0; i < sizeof own_rows / sizeof own_rows[0]; i++) {
        const struct own_row *row = &own_rows[i];
        struct custody_key keys[4];
        struct custody_view view = {.generations = keys,
                                    .generation_count = fill_generations(keys, row->generations),
                                    .rotation_generation = row->rotation,
                                    .suspended = row->suspended};
        uint8_t device[DEVICE_KEY_SIZE], ours[DEVICE_KEY_SIZE];
        public_key_of(device, row->device);
        public_key_of(ours, row->ours);
        struct plan_own own = plan_for_own(&view, device, row->seen, row->ours != 0 ? ours : NULL);
        bool right = own.kind == row->kind && own.generation == row->generation &&
                     (row->reason == 0 || own.reason == row->reason);
        CU_ASSERT_TRUE(right);
        if (!right)
            printf("# %s: %d of generation %d, reason %d\n", row->name, (int)own.kind,
                   (int)own.generation, (int)own.reason);
    }
}

// ---- what is published ----

struct bundle_row {
    const char *name;
    struct generation generations[4];
    uint64_t rotation, asked;
    enum record_bundle_state state;
};

static const struct bundle_row bundle_rows[] = {
    {"active", {{1, ACT}}, 0, 1, BUNDLE_ACTIVE},
    {"the next one, before its rotation", {{1, ACT}, {2, PRE}}, 0, 2, BUNDLE_NONE},
    {"the next one, in its rotation", {{1, ACT}, {2, PRE}}, 2, 2, BUNDLE_PRE_ACTIVE},
    {"the active one, in that rotation", {{1, ACT}, {2, PRE}}, 2, 1, BUNDLE_ACTIVE},
    {"the first one, not set yet", {{1, PRE}}, 0, 1, BUNDLE_NONE},
    {"compromised", {{1, COMP}, {2, PRE}}, 2, 1, BUNDLE_COMPROMISED},
    {"compromised, replaced", {{1, COMP}, {2, ACT}}, 0, 1, BUNDLE_COMPROMISED},
    {"replaced: its bundle lies where it was", {{1, OLD}, {2, ACT}}, 0, 1, BUNDLE_NONE},
    {"rolled back, being destroyed",
     {{1, ACT}, {2, CUSTODY_KEY_DESTROYING}},
     0,
     2,
     BUNDLE_DESTROYED},
    {"rolled back and destroyed", {{1, ACT}}, 0, 2, BUNDLE_DESTROYED},
    {"replaced and destroyed", {{2, ACT}}, 0, 1, BUNDLE_NONE},
    {"destroyed, and nothing is active", {{0}}, 0, 1, BUNDLE_NONE},
};

static void test_bundle_state(void)
{
    for (size_t i = 0; i < sizeof bundle_rows / sizeof bundle_rows[0]; i++) {
        const struct bundle_row *row = &bundle_rows[i];
        struct custody_key keys[4];
        struct custody_view view = {.generations = keys,
                                    .generation_count = fill_generations(keys, row->generations),
                                    .rotation_generation = row->rotation};
        enum record_bundle_state state = plan_bundle_state(&view, row->asked);
        CU_ASSERT_EQUAL(state, row->state);
        if (state != row->state)
            printf("# %s: %d\n", row->name, (int)state);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a counterpart's key", test_counterpart},
        {"of two that rotate one gives way", test_one_gives_way},
        {"our own key", test_own},
        {"what is published of it", test_bundle_state},
        CU_TEST_INFO_NULL,
    };
    return tap_run("plan", tests);
}
