// SPDX-License-Identifier: Apache-2.0
// Reading one counterpart's notes out of the registry.
#include "counterpart.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "known_peers.h"
#include "verified.h"

struct counterpart {
    char host[HOST_MAX + 1], key[KEY_MAX + 1];
    struct verified *verified;
    struct refusals refusals;
    struct freshness seen; // the newest believed; time 0 = none
};

// The generations whose bundles are looked at.
struct wanted {
    uint64_t items[COUNTERPART_NOTES_MAX];
    size_t count;
    size_t left_out; // newer ones for which there was no room
};

struct counterpart *counterpart_new(const char *host, const char *key)
{
    struct counterpart *counterpart = calloc(1, sizeof(*counterpart));
    if (counterpart == NULL)
        return NULL;
    counterpart->verified = verified_new();
    if (counterpart->verified == NULL) {
        free(counterpart);
        return NULL;
    }
    snprintf(counterpart->host, sizeof(counterpart->host), "%s", host);
    snprintf(counterpart->key, sizeof(counterpart->key), "%s", key);
    return counterpart;
}

void counterpart_free(struct counterpart *counterpart)
{
    if (counterpart == NULL)
        return;
    verified_free(counterpart->verified);
    refusals_free(&counterpart->refusals);
    free(counterpart);
}

const struct refusals *counterpart_refusals(const struct counterpart *counterpart)
{
    return &counterpart->refusals;
}

uint64_t counterpart_signatures(const struct counterpart *counterpart)
{
    return verified_signatures(counterpart->verified);
}

// ---- which bundles ----

// False where there is no room.
static bool want(struct wanted *wanted, uint64_t generation)
{
    for (size_t i = 0; i < wanted->count; i++)
        if (wanted->items[i] == generation)
            return true;
    if (wanted->count == COUNTERPART_NOTES_MAX)
        return false;
    wanted->items[wanted->count++] = generation;
    return true;
}

// What is asked for by name, whatever floods the folder: the generations that are in use here, the
// one that the freshness note tells of, and the next. Returns the highest that is in use.
static uint64_t want_known(struct wanted *wanted, const struct counterpart *counterpart,
                           const struct custody_view *view, uint64_t fresh)
{
    uint64_t highest = 0;
    if (fresh != 0)
        want(wanted, fresh);
    if (counterpart->seen.time_us != 0)
        want(wanted, counterpart->seen.generation);
    struct known_peers known = known_peers(view, counterpart->host, counterpart->key);
    for (size_t i = known.count; i > 0; i--) {
        const struct custody_peer *peer = &known.first[i - 1];
        if (peer->generation > highest && peer->moved_us != 0)
            highest = peer->generation;
        if (wanted->count < COUNTERPART_NOTES_MAX / 2)
            want(wanted, peer->generation);
    }
    want(wanted, highest + 1);
    return highest;
}

static int compare_generations(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

// Of the generations listed (in order), those above `highest`: first from `anchor` down, as the
// newest known of is most likely in use, then from it up. Then a few below, to see whether the
// registry went back.
static void want_listed(struct wanted *wanted, const uint64_t *listed, size_t count,
                        uint64_t highest, uint64_t anchor)
{
    enum { PAST = 2 };
    for (size_t i = count; i > 0; i--)
        if (listed[i - 1] > highest && (anchor == 0 || listed[i - 1] <= anchor))
            wanted->left_out += !want(wanted, listed[i - 1]);
    for (size_t i = 0; i < count; i++)
        if (listed[i] > highest && anchor != 0 && listed[i] > anchor)
            wanted->left_out += !want(wanted, listed[i]);
    size_t past = 0;
    for (size_t i = count; i > 0 && past < PAST; i--)
        if (listed[i - 1] <= highest && want(wanted, listed[i - 1]))
            past++;
}

static int choose_bundles(struct counterpart *counterpart, struct registry *registry,
                          const struct custody_view *view, uint64_t fresh, struct wanted *wanted,
                          struct error *err)
{
    char folder[REGISTRY_PATH_MAX + 1];
    uint64_t listed[REGISTRY_NAMES_MAX];
    size_t count = 0;
    struct registry_names names;
    registry_folder(folder, counterpart->host, counterpart->key);
    int result = registry_list(registry, folder, "bundle-", &names, err);
    for (size_t i = 0; i < names.count && result == 0; i++)
        count += registry_bundle_name(names.items[i], &listed[count]);
    qsort(listed, count, sizeof(listed[0]), compare_generations);
    memset(wanted, 0, sizeof(*wanted));
    uint64_t highest = want_known(wanted, counterpart, view, fresh);
    want_listed(wanted, listed, count, highest, fresh != 0 ? fresh : highest);
    if (names.passed_over > 0 || names.unread || wanted->left_out > 0)
        refusals_add(&counterpart->refusals, REFUSAL_TOO_MANY, folder, NULL,
                     "too many bundles: %zu were passed over%s; remove what is not the host's",
                     names.passed_over + wanted->left_out,
                     names.unread ? ", and entries beyond those that are looked at" : "");
    registry_names_free(&names);
    return result;
}

// ---- reading ----

static void refuse_form(struct counterpart *counterpart, const char *path,
                        const struct verified_note *note, const struct error *why)
{
    refusals_add(&counterpart->refusals, REFUSAL_UNREADABLE, path, note->digest, "%s",
                 why->message);
}

// 1 with `*fresh` filled, 0 when there is none that can be read, -1 when the registry is gone.
static int read_fresh(struct counterpart *counterpart, struct registry *registry,
                      const struct trust *trust, struct counterpart_fresh *fresh, struct error *err)
{
    struct verified_note note;
    enum verified_outcome outcome;
    struct error why = {.code = ERROR_OK};
    registry_fresh_path(fresh->path, counterpart->host, counterpart->key);
    if (verified_read(counterpart->verified, registry, trust, counterpart->host, fresh->path, &note,
                      &outcome, &counterpart->refusals, err) != 0)
        return -1;
    if (outcome != VERIFIED_GOOD)
        return 0;
    memcpy(fresh->digest, note.digest, sizeof(fresh->digest));
    if (freshness_parse(&fresh->freshness, note.text, note.length, &why) == 0)
        return 1;
    refuse_form(counterpart, fresh->path, &note, &why);
    return 0;
}

// The same of a bundle.
static int read_bundle(struct counterpart *counterpart, struct registry *registry,
                       const struct trust *trust, uint64_t generation,
                       struct counterpart_bundle *bundle, struct error *err)
{
    struct verified_note note;
    enum verified_outcome outcome;
    struct error why = {.code = ERROR_OK};
    registry_bundle_path(bundle->path, counterpart->host, counterpart->key, generation);
    if (verified_read(counterpart->verified, registry, trust, counterpart->host, bundle->path,
                      &note, &outcome, &counterpart->refusals, err) != 0)
        return -1;
    if (outcome != VERIFIED_GOOD)
        return 0;
    bundle->path_generation = generation;
    memcpy(bundle->digest, note.digest, sizeof(bundle->digest));
    memcpy(bundle->text_sha256, note.text_sha256, sizeof(bundle->text_sha256));
    if (bundle_parse(&bundle->bundle, note.text, note.length, &why) == 0)
        return 1;
    refuse_form(counterpart, bundle->path, &note, &why);
    return 0;
}

// Reads the freshness note first: a bundle read after it is not older than what it names.
static int look(struct counterpart *counterpart, struct registry *registry,
                const struct trust *trust, struct counterpart_evidence *evidence,
                struct counterpart_fresh *fresh,
                struct counterpart_bundle bundles[COUNTERPART_NOTES_MAX], struct error *err)
{
    struct wanted wanted;
    int found = read_fresh(counterpart, registry, trust, fresh, err);
    if (found < 0)
        return -1;
    evidence->fresh = found > 0 ? fresh : NULL;
    if (choose_bundles(counterpart, registry, evidence->view,
                       found > 0 ? fresh->freshness.generation : counterpart->seen.generation,
                       &wanted, err) != 0)
        return -1;
    for (size_t i = 0; i < wanted.count; i++) {
        found = read_bundle(counterpart, registry, trust, wanted.items[i],
                            &bundles[evidence->bundle_count], err);
        if (found < 0)
            return -1;
        evidence->bundle_count += (size_t)found;
    }
    return 0;
}

int counterpart_look(struct counterpart *counterpart, struct registry *registry,
                     const struct trust *trust, const struct custody_view *view,
                     const struct counterpart_times *times, struct counterpart_says *says,
                     struct error *err)
{
    struct counterpart_fresh fresh;
    struct counterpart_bundle bundles[COUNTERPART_NOTES_MAX];
    struct counterpart_evidence evidence = {
        .host = counterpart->host,
        .key = counterpart->key,
        .view = view,
        .bundles = bundles,
        .seen = counterpart->seen.time_us != 0 ? &counterpart->seen : NULL,
        .times = *times,
    };
    refusals_begin(&counterpart->refusals);
    if (look(counterpart, registry, trust, &evidence, &fresh, bundles, err) != 0) {
        memset(says, 0, sizeof(*says));
        says->fresh = counterpart->seen;
        says->stale =
            says->fresh.time_us == 0 || times->now_us - says->fresh.time_us > times->max_stale_us;
        return -1;
    }
    verified_sweep(counterpart->verified);
    counterpart_judge(&evidence, says, &counterpart->refusals);
    counterpart->seen = says->fresh;
    return 0;
}
