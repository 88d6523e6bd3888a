// SPDX-License-Identifier: Apache-2.0
// What is believed of a counterpart's notes: a table of judgements, then signed notes in a real
// folder; and acknowledgements of our own key.
#include "tools/applier/acknowledgements.h"
#include "tools/applier/counterpart.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "signer.h"
#include "tap.h"

#define SECOND 1000000LL
#define NOW    (1800000000 * SECOND)
#define DAY    (86400 * SECOND)

static const struct counterpart_times times = {
    .now_us = NOW,
    .tolerance_us = 120 * SECOND,
    .max_stale_us = 900 * SECOND,
};

// ---- the table ----

// A bundle of beta's wg0, told by its difference from a sound one.
struct say {
    uint64_t generation;
    uint32_t state;
    int age_s;            // published so long ago
    const char *previous; // "": the first; NULL: one of its own
    uint64_t path;        // the generation in its path; 0: its own
    const char *host;     // NULL: beta
    uint8_t public_key;   // 0: the generation's
    int left_s;           // of its time; 0: a day
};

struct peer {
    uint64_t generation;
    enum custody_peer_state state;
    int moved_s;        // moved so long ago; 0: never
    const char *host;   // NULL: beta
    uint8_t public_key; // 0: the generation's
};

struct row {
    const char *name;
    struct say says[4];
    struct peer peers[4];
    // A freshness note: so old (0: none), about that generation's bundle as it is, or another.
    int fresh_s;
    uint64_t fresh_generation;
    bool fresh_other;
    int seen_s; // one was seen that is so old; 0: none

    uint64_t active, pre_active, ended;
    int kinds[3]; // of refusals, in order
    bool stale, withheld;
};

#define A BUNDLE_ACTIVE
#define P BUNDLE_PRE_ACTIVE
#define C BUNDLE_COMPROMISED
#define D BUNDLE_DESTROYED

#define SAY(number, what, age, ...)                                                                \
    {                                                                                              \
        .generation = number, .state = what, .age_s = age, __VA_ARGS__                             \
    }
#define PEER(number, what, moved, ...)                                                             \
    {                                                                                              \
        .generation = number, .state = what, .moved_s = moved, __VA_ARGS__                         \
    }

static const struct row rows[] = {
    // What is sound.
    {"nothing is there", .stale = true},
    {"first contact", {SAY(5, A, 600)}, .active = 5, .fresh_s = 60, .fresh_generation = 5},
    {"first contact, old ones lie about",
     {SAY(4, A, 900), SAY(5, A, 600)},
     .active = 5,
     .stale = true},
    {"first contact amid a rotation",
     {SAY(5, A, 600), SAY(6, P, 60)},
     .active = 5,
     .pre_active = 6,
     .stale = true},
    {"in use",
     {SAY(4, A, 900), SAY(5, A, 600)},
     {PEER(4, CUSTODY_PEER_RETIRED, 900), PEER(5, CUSTODY_PEER_MOVED, 600)},
     .active = 5,
     .fresh_s = 60,
     .fresh_generation = 5},
    {"a rotation begins",
     {SAY(5, A, 600), SAY(6, P, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .active = 5,
     .pre_active = 6,
     .fresh_s = 30,
     .fresh_generation = 6},
    {"moved, not yet confirmed",
     {SAY(5, A, 600), SAY(6, P, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 600), PEER(6, CUSTODY_PEER_MOVED, 10)},
     .pre_active = 6,
     .stale = true},
    {"moved and confirmed",
     {SAY(5, A, 600), SAY(6, A, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 600), PEER(6, CUSTODY_PEER_MOVED, 10)},
     .active = 6,
     .stale = true},
    {"rolled back after the move",
     {SAY(5, A, 600), SAY(6, D, 5)},
     {PEER(5, CUSTODY_PEER_MOVED, 600), PEER(6, CUSTODY_PEER_MOVED, 10)},
     .active = 5,
     .ended = 6,
     .stale = true},
    {"rolled back, moved back, retired",
     {SAY(5, A, 600), SAY(6, D, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 20), PEER(6, CUSTODY_PEER_RETIRED, 30)},
     .active = 5,
     .ended = 6,
     .stale = true},
    {"revoked",
     {SAY(4, A, 900), SAY(5, C, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .ended = 5,
     .stale = true},
    {"revoked and replaced",
     {SAY(5, C, 60), SAY(6, P, 50)},
     {PEER(5, CUSTODY_PEER_RETIRED, 600)},
     .pre_active = 6,
     .ended = 5,
     .stale = true},
    {"revoked before first contact",
     {SAY(4, A, 900), SAY(5, C, 60), SAY(6, P, 50)},
     .pre_active = 6,
     .ended = 5,
     .stale = true},
    {"revoked long ago still is",
     {SAY(5, C, 600, .left_s = -500)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .ended = 5,
     .stale = true},
    {"a bundle newer than the freshness note",
     {SAY(5, A, 60)},
     .active = 5,
     .fresh_s = 120,
     .fresh_generation = 5,
     .fresh_other = true},
    {"clocks differ a little", {SAY(5, A, -100)}, .active = 5, .stale = true},
    {"just expired, within the tolerance",
     {SAY(5, A, 600, .left_s = -100)},
     .active = 5,
     .stale = true},
    {"fresh too long ago",
     {SAY(5, A, 9000)},
     .active = 5,
     .fresh_s = 901,
     .fresh_generation = 5,
     .stale = true},
    {"another counterpart's peer of the same numbers",
     {SAY(5, A, 600)},
     {PEER(6, CUSTODY_PEER_MOVED, 10, .host = "gamma")},
     .active = 5,
     .stale = true},

    // What is refused, and changes nothing.
    {"another host's",
     {SAY(5, A, 600), SAY(6, P, 60, .host = "gamma")},
     .active = 5,
     .kinds = {REFUSAL_MISPLACED},
     .stale = true},
    {"at another generation's path",
     {SAY(5, A, 600), SAY(6, P, 60, .path = 7)},
     .active = 5,
     .kinds = {REFUSAL_MISPLACED},
     .stale = true},
    {"not yet valid",
     {SAY(5, A, 600), SAY(6, P, -121)},
     .active = 5,
     .kinds = {REFUSAL_NOT_YET},
     .stale = true},
    {"expired", {SAY(5, A, 600, .left_s = -121)}, .kinds = {REFUSAL_EXPIRED}, .stale = true},
    {"older than what was moved to",
     {SAY(4, A, 900)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .kinds = {REFUSAL_OLDER},
     .stale = true},
    {"a retired generation again",
     {SAY(5, A, 600), SAY(6, P, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 600), PEER(6, CUSTODY_PEER_RETIRED, 0)},
     .active = 5,
     .kinds = {REFUSAL_RETIRED},
     .stale = true},
    {"a revoked one again",
     {SAY(5, A, 600)},
     {PEER(5, CUSTODY_PEER_RETIRED, 600)},
     .kinds = {REFUSAL_RETIRED},
     .stale = true},
    {"one from before the revoked",
     {SAY(4, A, 900)},
     {PEER(5, CUSTODY_PEER_RETIRED, 600)},
     .kinds = {REFUSAL_OLDER},
     .stale = true},
    {"the withdrawn one again, not yet retired",
     {SAY(5, A, 600), SAY(6, P, 60)},
     {PEER(5, CUSTODY_PEER_MOVED, 10), PEER(6, CUSTODY_PEER_MOVED, 30)},
     .active = 5,
     .kinds = {REFUSAL_OLDER},
     .stale = true},
    {"another public key for the generation",
     {SAY(5, A, 600, .public_key = 99)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .kinds = {REFUSAL_KEY_CHANGED},
     .stale = true},
    {"another counterpart's public key",
     {SAY(5, A, 600), SAY(6, P, 60, .public_key = 77)},
     {PEER(3, CUSTODY_PEER_MOVED, 600, .host = "gamma", .public_key = 77)},
     .active = 5,
     .kinds = {REFUSAL_KEY_REUSED},
     .stale = true},
    {"our own public key",
     {SAY(5, A, 600), SAY(6, P, 60, .public_key = 200)},
     .active = 5,
     .kinds = {REFUSAL_KEY_REUSED},
     .stale = true},
    {"the key before under a new number",
     {SAY(6, P, 60, .public_key = 5)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .kinds = {REFUSAL_KEY_REUSED},
     .stale = true},
    {"two follow the same",
     {SAY(5, A, 600, .previous = "x"), SAY(6, P, 60, .previous = "x")},
     .active = 5,
     .kinds = {REFUSAL_CHAIN},
     .stale = true},
    {"a first one after others",
     {SAY(5, A, 600), SAY(6, P, 60, .previous = "")},
     .active = 5,
     .kinds = {REFUSAL_CHAIN},
     .stale = true},
    {"older than what it follows",
     {SAY(5, A, 60), SAY(6, P, 600, .previous = "5")},
     .active = 5,
     .kinds = {REFUSAL_CHAIN},
     .stale = true},
    {"an old bundle of the generation",
     {SAY(5, A, 600), SAY(6, P, 200)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .active = 5,
     .fresh_s = 60,
     .fresh_generation = 6,
     .fresh_other = true,
     .kinds = {REFUSAL_WITHHELD},
     .withheld = true},
    {"the latest is not shown",
     {SAY(5, A, 600)},
     {PEER(5, CUSTODY_PEER_MOVED, 600)},
     .active = 5,
     .fresh_s = 60,
     .fresh_generation = 6,
     .fresh_other = true,
     .kinds = {REFUSAL_WITHHELD},
     .withheld = true},
    {"freshness from a time to come",
     {SAY(5, A, 600)},
     .active = 5,
     .fresh_s = -121,
     .fresh_generation = 5,
     .kinds = {REFUSAL_NOT_YET},
     .stale = true},
    {"freshness played back",
     {SAY(5, A, 600)},
     .active = 5,
     .fresh_s = 400,
     .fresh_generation = 5,
     .seen_s = 100,
     .kinds = {REFUSAL_OLDER}},
};

static void public_key_of(uint8_t key[RECORD_KEY_SIZE], uint8_t seed)
{
    memset(key, seed, RECORD_KEY_SIZE);
}

static void digest_bundle(const struct bundle *bundle, char sha256[65])
{
    char text[BUNDLE_TEXT_MAX];
    uint8_t digest[32];
    int length = bundle_format(bundle, text);
    CU_ASSERT_TRUE_FATAL(length > 0);
    crypto_hash_sha256(digest, (const uint8_t *)text, (size_t)length);
    sodium_bin2hex(sha256, 65, digest, sizeof(digest));
}

static void make_bundle(struct bundle *bundle, const struct say *say)
{
    memset(bundle, 0, sizeof(*bundle));
    snprintf(bundle->host, sizeof(bundle->host), "%s", say->host != NULL ? say->host : "beta");
    snprintf(bundle->key, sizeof(bundle->key), "wg0");
    bundle->generation = say->generation;
    bundle->state = say->state;
    public_key_of(bundle->public_key,
                  say->public_key != 0 ? say->public_key : (uint8_t)say->generation);
    bundle->not_before_us = NOW - say->age_s * SECOND;
    bundle->not_after_us = NOW + (say->left_s != 0 ? say->left_s * SECOND : DAY);
    const char *previous = say->previous;
    if (previous == NULL)
        snprintf(bundle->previous, sizeof(bundle->previous), "%064d",
                 1000000 + (int)say->generation * 1000 + say->age_s);
    else if (previous[0] == 'x')
        snprintf(bundle->previous, sizeof(bundle->previous), "%064d", 7);
}

static size_t make_bundles(const struct row *row, struct counterpart_bundle bundles[4])
{
    size_t count = 0;
    for (; count < 4 && row->says[count].generation != 0; count++) {
        const struct say *say = &row->says[count];
        struct counterpart_bundle *note = &bundles[count];
        memset(note, 0, sizeof(*note));
        make_bundle(&note->bundle, say);
        if (say->previous != NULL && say->previous[0] == '5')
            memcpy(note->bundle.previous, bundles[0].text_sha256, 65);
        note->path_generation = say->path != 0 ? say->path : say->generation;
        registry_bundle_path(note->path, "beta", "wg0", note->path_generation);
        note->digest[0] = (uint8_t)count;
        digest_bundle(&note->bundle, note->text_sha256);
    }
    return count;
}

static size_t make_peers(const struct row *row, struct custody_peer peers[4])
{
    size_t count = 0;
    for (; count < 4 && row->peers[count].generation != 0; count++) {
        const struct peer *from = &row->peers[count];
        struct custody_peer *peer = &peers[count];
        memset(peer, 0, sizeof(*peer));
        snprintf(peer->host, sizeof(peer->host), "%s", from->host != NULL ? from->host : "beta");
        snprintf(peer->key, sizeof(peer->key), "wg0");
        peer->generation = from->generation;
        peer->state = from->state;
        public_key_of(peer->public_key,
                      from->public_key != 0 ? from->public_key : (uint8_t)from->generation);
        peer->moved_us = from->moved_s != 0 ? NOW - from->moved_s * SECOND : 0;
        peer->retired_us = from->state == CUSTODY_PEER_RETIRED ? NOW - SECOND : 0;
    }
    return count;
}

static void make_fresh(const struct row *row, const struct counterpart_bundle *bundles,
                       size_t count, struct counterpart_fresh *fresh)
{
    struct freshness *freshness = &fresh->freshness;
    memset(fresh, 0, sizeof(*fresh));
    snprintf(freshness->host, sizeof(freshness->host), "beta");
    snprintf(freshness->key, sizeof(freshness->key), "wg0");
    freshness->generation = row->fresh_generation;
    freshness->time_us = NOW - row->fresh_s * SECOND;
    snprintf(freshness->bundle_sha256, sizeof(freshness->bundle_sha256), "%064d", 1);
    for (size_t i = 0; i < count; i++)
        if (bundles[i].bundle.generation == row->fresh_generation && !row->fresh_other)
            memcpy(freshness->bundle_sha256, bundles[i].text_sha256, 65);
    registry_fresh_path(fresh->path, "beta", "wg0");
}

static bool kinds_are(const struct refusals *refusals, const int kinds[3])
{
    size_t count = 0;
    while (count < 3 && kinds[count] != 0)
        count++;
    if (refusals->count != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if ((int)refusals->items[i].kind != kinds[i] || refusals->items[i].told)
            return false;
    return true;
}

static bool is_right(const struct row *row, const struct counterpart_says *says,
                     const struct refusals *refusals)
{
    return says->has_active == (row->active != 0) && says->active.generation == row->active &&
           says->has_pre_active == (row->pre_active != 0) &&
           says->pre_active.generation == row->pre_active &&
           says->ended_count == (row->ended != 0) &&
           (row->ended == 0 || says->ended[0].generation == row->ended) &&
           says->stale == row->stale && says->withheld == row->withheld &&
           kinds_are(refusals, row->kinds);
}

static void judge_row(const struct row *row)
{
    struct counterpart_bundle bundles[4];
    struct custody_peer peers[4];
    struct custody_key own = {.generation = 1};
    struct counterpart_fresh fresh;
    struct freshness seen = {.generation = 5, .time_us = NOW - row->seen_s * SECOND};
    struct counterpart_says says;
    struct refusals refusals = {.count = 0};
    public_key_of(own.public_key, 200);
    struct custody_view view = {
        .generations = &own,
        .generation_count = 1,
        .peers = peers,
        .peer_count = make_peers(row, peers),
    };
    size_t count = make_bundles(row, bundles);
    make_fresh(row, bundles, count, &fresh);
    memcpy(seen.bundle_sha256, fresh.freshness.bundle_sha256, 65);
    struct counterpart_evidence evidence = {
        .host = "beta",
        .key = "wg0",
        .view = &view,
        .bundles = bundles,
        .bundle_count = count,
        .fresh = row->fresh_s != 0 ? &fresh : NULL,
        .seen = row->seen_s != 0 ? &seen : NULL,
        .times = times,
    };
    counterpart_judge(&evidence, &says, &refusals);
    bool right = is_right(row, &says, &refusals);
    if (!right)
        printf("# %s: active %d, pre-active %d, ended %zu, stale %d, withheld %d\n", row->name,
               (int)says.active.generation, (int)says.pre_active.generation, says.ended_count,
               says.stale, says.withheld);
    for (size_t i = 0; i < refusals.count && !right; i++)
        printf("#   %s: %s\n", refusal_kind_name(refusals.items[i].kind),
               refusals.items[i].message);
    CU_ASSERT_TRUE(right);
    refusals_free(&refusals);
}

static void test_table(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        judge_row(&rows[i]);
}

// ---- in a folder ----

static char base[] = "/tmp/custody-counterpart-XXXXXX";
static char root[64], trust_path[64];
static struct signer beta, mallory;
static struct custody_view no_view;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

// An empty registry, and trust in beta alone.
static struct registry *fresh_registry(struct trust **trust)
{
    char url[80], vkey[NOTE_VKEY_MAX];
    struct error err = {.message = ""};
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    CU_ASSERT_EQUAL_FATAL(mkdir(root, 0755), 0);
    signer_make(&beta, "beta/custody/host", 2);
    signer_make(&mallory, "beta/custody/host", 3);
    note_key_format(&beta.key, vkey);
    FILE *file = fopen(trust_path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fprintf(file, "beta %s\n", vkey);
    CU_ASSERT_EQUAL(fclose(file), 0);
    *trust = trust_read(trust_path, true, &err);
    if (*trust == NULL)
        printf("# %s\n", err.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(*trust);
    snprintf(url, sizeof(url), "dir:%s", root);
    struct registry *registry = registry_open(url, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(registry);
    return registry;
}

static void put_text(struct registry *registry, const char *path, const struct signer *signer,
                     const char *text)
{
    char note[NOTE_MAX];
    struct error err = {.message = ""};
    size_t length = signer_sign(signer, text, note);
    CU_ASSERT_EQUAL(registry_put(registry, path, note, length, &err), 0);
}

static void put_bundle(struct registry *registry, const struct signer *signer,
                       const struct say *say, char sha256[65])
{
    struct bundle bundle;
    char text[BUNDLE_TEXT_MAX], path[REGISTRY_PATH_MAX + 1];
    make_bundle(&bundle, say);
    bundle_format(&bundle, text);
    digest_bundle(&bundle, sha256);
    registry_bundle_path(path, "beta", "wg0", say->generation);
    put_text(registry, path, signer, text);
}

static void put_fresh(struct registry *registry, uint64_t generation, const char *sha256, int age_s)
{
    struct freshness freshness = {.host = "beta", .key = "wg0", .generation = generation};
    char text[FRESHNESS_TEXT_MAX];
    memcpy(freshness.bundle_sha256, sha256, 65);
    freshness.time_us = NOW - age_s * SECOND;
    CU_ASSERT_TRUE(freshness_format(&freshness, text) > 0);
    put_text(registry, "beta/wg0/fresh", &beta, text);
}

static struct counterpart_says look(struct counterpart *counterpart, struct registry *registry,
                                    const struct trust *trust)
{
    struct counterpart_says says;
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(counterpart_look(counterpart, registry, trust, &no_view, &times, &says, &err),
                    0);
    return says;
}

// The only refusal of the last look; 0 where there is none or another number.
static int refused(const struct counterpart *counterpart, bool *told)
{
    const struct refusals *refusals = counterpart_refusals(counterpart);
    if (refusals->count != 1)
        return 0;
    *told = refusals->items[0].told;
    return (int)refusals->items[0].kind;
}

static void test_look(void)
{
    struct trust *trust;
    struct registry *registry = fresh_registry(&trust);
    struct counterpart *counterpart = counterpart_new("beta", "wg0");
    char sha256[65];
    bool told;
    struct counterpart_says says = look(counterpart, registry, trust);
    CU_ASSERT_FALSE(says.has_active);
    CU_ASSERT_TRUE(says.stale);

    put_bundle(registry, &beta, &(struct say)SAY(5, A, 600), sha256);
    put_bundle(registry, &beta, &(struct say)SAY(6, P, 60), sha256);
    put_fresh(registry, 6, sha256, 30);
    says = look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(says.active.generation, 5);
    CU_ASSERT_EQUAL(says.pre_active.generation, 6);
    CU_ASSERT_FALSE(says.stale);
    CU_ASSERT_EQUAL(says.fresh.time_us, NOW - 30 * SECOND);
    CU_ASSERT_EQUAL(counterpart_refusals(counterpart)->count, 0);
    // What did not change is not verified again.
    CU_ASSERT_EQUAL(counterpart_signatures(counterpart), 3);
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(counterpart_signatures(counterpart), 3);

    // A forged note is verified once and told once, and changes nothing.
    put_bundle(registry, &mallory, &(struct say)SAY(7, P, 10), sha256);
    says = look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_FORGED);
    CU_ASSERT_FALSE(told);
    CU_ASSERT_EQUAL(says.pre_active.generation, 6);
    says = look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_FORGED);
    CU_ASSERT_TRUE(told);
    CU_ASSERT_EQUAL(counterpart_signatures(counterpart), 4);
    CU_ASSERT_EQUAL(counterpart_refusals(counterpart)->total, 1);

    // The freshness note played back is known for it.
    put_fresh(registry, 5, sha256, 500);
    CU_ASSERT_EQUAL(registry_remove(registry, "beta/wg0/bundle-7", NULL), 0);
    says = look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_OLDER);
    CU_ASSERT_EQUAL(says.fresh.time_us, NOW - 30 * SECOND);
    counterpart_free(counterpart);
    counterpart_free(NULL);
    registry_close(registry);
    trust_free(trust);
}

static void test_unreadable(void)
{
    struct trust *trust;
    struct registry *registry = fresh_registry(&trust);
    struct counterpart *counterpart = counterpart_new("beta", "wg0"),
                       *stranger = counterpart_new("gamma", "wg0");
    char sha256[65], note[NOTE_MAX], path[128];
    size_t length;
    bool told;
    put_bundle(registry, &beta, &(struct say)SAY(5, A, 600), sha256);
    CU_ASSERT_EQUAL(registry_get(registry, "beta/wg0/bundle-5", note, &length, NULL), 0);
    // Cut at each place, it is refused: as unreadable, or for its signature.
    for (size_t cut = 1; cut < length; cut += 7) {
        CU_ASSERT_EQUAL(registry_put(registry, "beta/wg0/bundle-5", note, cut, NULL), 0);
        struct counterpart_says says = look(counterpart, registry, trust);
        CU_ASSERT_FALSE(says.has_active);
        int kind = refused(counterpart, &told);
        CU_ASSERT_TRUE(kind == REFUSAL_UNREADABLE || kind == REFUSAL_FORGED);
    }
    // Signed, but no bundle.
    put_text(registry, "beta/wg0/bundle-5", &beta, "custody bundle v1\n");
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_UNREADABLE);
    put_text(registry, "beta/wg0/bundle-5", &beta, "custody freshness v1\n");
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_UNREADABLE);
    // Larger than a note, and then a link.
    snprintf(path, sizeof(path), "%s/beta/wg0/bundle-5", root);
    CU_ASSERT_EQUAL(truncate(path, 100000), 0);
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_UNREADABLE);
    CU_ASSERT_FALSE(told);
    CU_ASSERT_TRUE(unlink(path) == 0 && symlink("/etc/passwd", path) == 0);
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_UNREADABLE);
    // Nobody pinned gamma's key.
    put_text(registry, "gamma/wg0/fresh", &beta, "x\n");
    look(stranger, registry, trust);
    CU_ASSERT_EQUAL(refused(stranger, &told), REFUSAL_UNTRUSTED);
    counterpart_free(counterpart);
    counterpart_free(stranger);
    registry_close(registry);
    trust_free(trust);
}

// A pin that changed is asked anew, whatever was verified under the old one.
static void test_new_pin(void)
{
    struct trust *trust, *other;
    char sha256[65], vkey[NOTE_VKEY_MAX];
    bool told;
    struct error err = {.message = ""};
    struct registry *registry = fresh_registry(&trust);
    struct counterpart *counterpart = counterpart_new("beta", "wg0");
    put_bundle(registry, &beta, &(struct say)SAY(5, A, 600), sha256);
    CU_ASSERT_TRUE(look(counterpart, registry, trust).has_active);
    note_key_format(&mallory.key, vkey);
    CU_ASSERT_EQUAL(trust_remove(trust_path, "beta", &err), 0);
    CU_ASSERT_EQUAL(trust_add(trust_path, "beta", vkey, &err), 0);
    other = trust_read(trust_path, true, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    CU_ASSERT_FALSE(look(counterpart, registry, other).has_active);
    CU_ASSERT_EQUAL(refused(counterpart, &told), REFUSAL_FORGED);
    counterpart_free(counterpart);
    registry_close(registry);
    trust_free(trust);
    trust_free(other);
}

static void test_flood(void)
{
    struct trust *trust;
    struct registry *registry = fresh_registry(&trust);
    struct counterpart *counterpart = counterpart_new("beta", "wg0");
    char sha256[65];
    put_bundle(registry, &beta, &(struct say)SAY(5, A, 600), sha256);
    put_fresh(registry, 5, sha256, 30);
    for (uint64_t i = 6; i < 6 + 2 * COUNTERPART_NOTES_MAX; i++) {
        char other[65];
        put_bundle(registry, &mallory, &(struct say)SAY(i, P, 10), other);
    }
    struct counterpart_says says = look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(says.active.generation, 5);
    CU_ASSERT_FALSE(says.has_pre_active);
    bool many = false;
    const struct refusals *refusals = counterpart_refusals(counterpart);
    for (size_t i = 0; i < refusals->count; i++)
        many |= refusals->items[i].kind == REFUSAL_TOO_MANY;
    CU_ASSERT_TRUE(many);
    CU_ASSERT_TRUE(counterpart_signatures(counterpart) <= COUNTERPART_NOTES_MAX + 1);
    uint64_t before = counterpart_signatures(counterpart);
    look(counterpart, registry, trust);
    CU_ASSERT_EQUAL(counterpart_signatures(counterpart), before);
    counterpart_free(counterpart);
    registry_close(registry);
    trust_free(trust);
}

static void test_gone(void)
{
    struct trust *trust;
    struct registry *registry = fresh_registry(&trust);
    struct counterpart *counterpart = counterpart_new("beta", "wg0");
    struct counterpart_says says;
    struct error err;
    struct counterpart_times later = times;
    char sha256[65];
    put_bundle(registry, &beta, &(struct say)SAY(5, A, 600), sha256);
    put_fresh(registry, 5, sha256, 30);
    look(counterpart, registry, trust);
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    CU_ASSERT_EQUAL(counterpart_look(counterpart, registry, trust, &no_view, &times, &says, &err),
                    -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    CU_ASSERT_FALSE(says.has_active);
    CU_ASSERT_FALSE(says.stale);
    later.now_us += 3600 * SECOND;
    CU_ASSERT_EQUAL(counterpart_look(counterpart, registry, trust, &no_view, &later, &says, &err),
                    -1);
    CU_ASSERT_TRUE(says.stale);
    counterpart_free(counterpart);
    registry_close(registry);
    trust_free(trust);
}

// ---- acknowledgements ----

static struct acknowledgement sound_ack(void)
{
    struct acknowledgement ack = {
        .host = "beta", .key = "wg0", .peer = "alpha", .peer_key = "wg0", .generation = 3};
    public_key_of(ack.public_key, 3);
    ack.state = PEER_STAGED;
    snprintf(ack.move_sha256, sizeof(ack.move_sha256), "%064d", 5);
    ack.time_us = NOW - 10 * SECOND;
    return ack;
}

static void put_ack(struct registry *registry, const struct signer *signer,
                    const struct acknowledgement *ack)
{
    char text[ACKNOWLEDGEMENT_TEXT_MAX], path[REGISTRY_PATH_MAX + 1];
    CU_ASSERT_TRUE(acknowledgement_format(ack, text) > 0);
    registry_ack_path(path, "alpha", "wg0", 3, "beta", "wg0");
    put_text(registry, path, signer, text);
}

// Looks; returns the kind of the only refusal, or 0.
static int look_ack(struct acknowledgements *acknowledgements, struct registry *registry,
                    const struct trust *trust, struct acknowledgement *ack)
{
    uint8_t public_key[RECORD_KEY_SIZE];
    public_key_of(public_key, 3);
    const struct acknowledgements_own own = {"alpha", "wg0", 3, public_key, NOW, 120 * SECOND};
    CU_ASSERT_EQUAL(acknowledgements_look(acknowledgements, registry, trust, &own, ack, NULL), 0);
    const struct refusals *refusals = acknowledgements_refusals(acknowledgements);
    return refusals->count == 1 ? (int)refusals->items[0].kind : 0;
}

static void test_acknowledgements(void)
{
    struct trust *trust;
    struct registry *registry = fresh_registry(&trust);
    struct acknowledgements *acknowledgements = acknowledgements_new("beta", "wg0");
    struct acknowledgement ack, good = sound_ack(), bad;
#define REFUSES(change, kind)                                                                      \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        put_ack(registry, &beta, &bad);                                                            \
        CU_ASSERT_EQUAL(look_ack(acknowledgements, registry, trust, &ack), kind);                  \
    } while (0)
    CU_ASSERT_EQUAL(look_ack(acknowledgements, registry, trust, &ack), 0);
    CU_ASSERT_EQUAL(ack.state, PEER_NONE);
    REFUSES(strcpy(bad.host, "gamma"), REFUSAL_MISPLACED);
    REFUSES(strcpy(bad.key, "wg1"), REFUSAL_MISPLACED);
    REFUSES(strcpy(bad.peer, "gamma"), REFUSAL_MISPLACED);
    REFUSES(strcpy(bad.peer_key, "wg1"), REFUSAL_MISPLACED);
    REFUSES(bad.generation = 2, REFUSAL_MISPLACED);
    REFUSES(bad.public_key[0] ^= 1, REFUSAL_KEY_CHANGED);
    REFUSES(bad.time_us = NOW + 121 * SECOND, REFUSAL_NOT_YET);
    put_ack(registry, &mallory, &good);
    CU_ASSERT_EQUAL(look_ack(acknowledgements, registry, trust, &ack), REFUSAL_FORGED);
    CU_ASSERT_EQUAL(ack.state, PEER_NONE);
    put_ack(registry, &beta, &good);
    CU_ASSERT_EQUAL(look_ack(acknowledgements, registry, trust, &ack), 0);
    CU_ASSERT_EQUAL(ack.state, PEER_STAGED);
    CU_ASSERT_STRING_EQUAL(ack.move_sha256, good.move_sha256);
    // The older one again does not count, whatever it says.
    REFUSES(bad.time_us -= SECOND, REFUSAL_OLDER);
    CU_ASSERT_EQUAL(ack.time_us, good.time_us);
    good.state = PEER_RETIRED;
    good.move_sha256[0] = '\0';
    good.time_us += SECOND;
    put_ack(registry, &beta, &good);
    CU_ASSERT_EQUAL(look_ack(acknowledgements, registry, trust, &ack), 0);
    CU_ASSERT_EQUAL(ack.state, PEER_RETIRED);
    // It stays known when the registry loses it.
    CU_ASSERT_EQUAL(registry_remove(registry, "alpha/wg0/ack-3-wg0@beta", NULL), 0);
    look_ack(acknowledgements, registry, trust, &ack);
    CU_ASSERT_EQUAL(ack.state, PEER_RETIRED);
    acknowledgements_free(acknowledgements);
    registry_close(registry);
    trust_free(trust);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the table of judgements", test_table},        {"notes in a folder", test_look},
        {"notes that cannot be read", test_unreadable}, {"another pin", test_new_pin},
        {"a flood of forged bundles", test_flood},      {"a registry that is gone", test_gone},
        {"acknowledgements", test_acknowledgements},    CU_TEST_INFO_NULL,
    };
    if (sodium_init() < 0 || mkdtemp(base) == NULL)
        return EXIT_FAILURE;
    snprintf(root, sizeof(root), "%s/registry", base);
    snprintf(trust_path, sizeof(trust_path), "%s/trust", base);
    int result = tap_run("counterpart", tests);
    nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return result;
}
