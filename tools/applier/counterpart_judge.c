// SPDX-License-Identifier: Apache-2.0
// The judgement of what a counterpart's notes say: pure, from notes that were verified and this
// host's own view.
#include <inttypes.h>
#include <string.h>

#include "counterpart.h"
#include "known_peers.h"

// What this host's log knows of the counterpart's generations.
struct known {
    uint64_t current;   // has the allowed-ips: moved to last and not retired; 0 = none
    int64_t moved_us;   // when
    uint64_t floor;     // the highest that ever was moved to; 0 = none
    uint64_t reference; // whatever is below this is past
};

enum verdict { OPEN, REFUSED, PASSED_OVER, ENDED };

// One judgement under way.
struct court {
    const struct counterpart_evidence *evidence;
    struct counterpart_says *says;
    struct refusals *refusals;
    struct known known;
    bool shown;     // there is a bundle of the reference or a later one
    bool withdrawn; // the current one was: its rotation was rolled back
    enum verdict verdicts[COUNTERPART_NOTES_MAX];
};

struct time_text {
    char text[RECORD_TIME_SIZE];
};

static struct time_text time_text(int64_t time_us)
{
    struct time_text time;
    if (record_time_format(time_us, time.text) != 0)
        time = (struct time_text){"?"};
    return time;
}

static bool is_of(const struct custody_peer *peer, const struct counterpart_evidence *evidence)
{
    return strcmp(peer->host, evidence->host) == 0 && strcmp(peer->key, evidence->key) == 0;
}

static struct known_peers known_of(const struct counterpart_evidence *evidence)
{
    return known_peers(evidence->view, evidence->host, evidence->key);
}

static const struct custody_peer *find_peer(const struct counterpart_evidence *evidence,
                                            uint64_t generation)
{
    return known_peers_find(known_of(evidence), generation);
}

static void look_up_known(struct court *court)
{
    struct known *known = &court->known;
    const struct known_peers generations = known_of(court->evidence);
    for (size_t i = 0; i < generations.count; i++) {
        const struct custody_peer *peer = &generations.first[i];
        if (peer->moved_us == 0)
            continue;
        if (peer->generation > known->floor)
            known->floor = peer->generation;
        if (peer->state == CUSTODY_PEER_MOVED && peer->moved_us >= known->moved_us) {
            known->current = peer->generation;
            known->moved_us = peer->moved_us;
        }
    }
    known->reference = known->current != 0 ? known->current : known->floor;
}

static enum verdict refuse(struct court *court, enum refusal_kind kind,
                           const struct counterpart_bundle *note, const char *words)
{
    refusals_add(court->refusals, kind, note->path, note->digest, "%s", words);
    return REFUSED;
}

// ---- what is wrong with a bundle, whatever else there is ----

static bool is_misplaced(struct court *court, const struct counterpart_bundle *note)
{
    const struct bundle *bundle = &note->bundle;
    if (strcmp(bundle->host, court->evidence->host) == 0 &&
        strcmp(bundle->key, court->evidence->key) == 0 &&
        bundle->generation == note->path_generation)
        return false;
    refusals_add(court->refusals, REFUSAL_MISPLACED, note->path, note->digest,
                 "the bundle is %s's, of key %s, generation %" PRIu64 ": it belongs elsewhere",
                 bundle->host, bundle->key, bundle->generation);
    return true;
}

// Whose public key a bundle's is already: our own, another counterpart's, another generation's.
static const char *key_owner(const struct counterpart_evidence *evidence,
                             const struct bundle *bundle)
{
    const struct custody_view *view = evidence->view;
    for (size_t i = 0; i < view->generation_count; i++)
        if (memcmp(view->generations[i].public_key, bundle->public_key, RECORD_KEY_SIZE) == 0)
            return "this host itself";
    for (size_t i = 0; i < view->peer_count; i++) {
        const struct custody_peer *peer = &view->peers[i];
        if (memcmp(peer->public_key, bundle->public_key, RECORD_KEY_SIZE) == 0 &&
            !(is_of(peer, evidence) && peer->generation == bundle->generation))
            return peer->host;
    }
    return NULL;
}

static bool has_wrong_key(struct court *court, const struct counterpart_bundle *note)
{
    const struct bundle *bundle = &note->bundle;
    const struct custody_peer *peer = find_peer(court->evidence, bundle->generation);
    if (peer != NULL && memcmp(peer->public_key, bundle->public_key, RECORD_KEY_SIZE) != 0) {
        refusals_add(court->refusals, REFUSAL_KEY_CHANGED, note->path, note->digest,
                     "generation %" PRIu64 " had another public key before: a generation never "
                     "changes its key",
                     bundle->generation);
        return true;
    }
    if (peer != NULL)
        return false; // it was judged when it became known
    const char *owner = key_owner(court->evidence, bundle);
    if (owner == NULL)
        return false;
    refusals_add(court->refusals, REFUSAL_KEY_REUSED, note->path, note->digest,
                 "the public key of generation %" PRIu64 " is one that %s has or had already",
                 bundle->generation, owner);
    return true;
}

// An end is believed whenever it was said: it can only be final.
static void note_end(struct court *court, const struct bundle *bundle)
{
    struct counterpart_says *says = court->says;
    size_t at = says->ended_count++;
    for (; at > 0 && says->ended[at - 1].generation > bundle->generation; at--)
        says->ended[at] = says->ended[at - 1];
    says->ended[at] = (struct counterpart_ended){
        .generation = bundle->generation,
        .state = bundle->state,
    };
    memcpy(says->ended[at].public_key, bundle->public_key, RECORD_KEY_SIZE);
}

static enum verdict judge_alone(struct court *court, const struct counterpart_bundle *note)
{
    const struct bundle *bundle = &note->bundle;
    if (is_misplaced(court, note))
        return REFUSED;
    court->shown |= bundle->generation >= court->known.reference;
    if (has_wrong_key(court, note))
        return REFUSED;
    if (bundle->state != BUNDLE_COMPROMISED && bundle->state != BUNDLE_DESTROYED)
        return OPEN;
    note_end(court, bundle);
    court->withdrawn |=
        bundle->generation == court->known.current && bundle->state == BUNDLE_DESTROYED;
    return ENDED;
}

// ---- its generation, against what was moved to ----

static enum verdict refuse_past(struct court *court, const struct counterpart_bundle *note)
{
    const struct known *known = &court->known;
    uint64_t generation = note->bundle.generation;
    const struct custody_peer *peer = find_peer(court->evidence, generation);
    if (peer != NULL && peer->state == CUSTODY_PEER_RETIRED) {
        refusals_add(court->refusals, REFUSAL_RETIRED, note->path, note->digest,
                     "generation %" PRIu64 " was retired at %s and is shown again: a replay",
                     generation, time_text(peer->retired_us).text);
        return REFUSED;
    }
    refusals_add(court->refusals, REFUSAL_OLDER, note->path, note->digest,
                 "generation %" PRIu64 " is past: generation %" PRIu64 " was moved to%s%s",
                 generation, known->current != 0 ? known->current : known->floor,
                 known->current != 0 ? " at " : "",
                 known->current != 0 ? time_text(known->moved_us).text : "");
    return REFUSED;
}

static enum verdict judge_generation(struct court *court, const struct counterpart_bundle *note)
{
    const struct known *known = &court->known;
    uint64_t generation = note->bundle.generation;
    const struct custody_peer *peer = find_peer(court->evidence, generation);
    bool retired = peer != NULL && peer->state == CUSTODY_PEER_RETIRED;
    if (generation == known->current)
        return OPEN;
    if (generation > known->floor)
        return retired ? refuse_past(court, note) : OPEN;
    // After a rotation that was rolled back the one before is in use again.
    if (court->withdrawn && peer != NULL && !retired)
        return OPEN;
    // Old bundles lie where they were: that says nothing as long as the newer one is there too.
    if (generation < known->reference && court->shown)
        return PASSED_OVER;
    return refuse_past(court, note);
}

// ---- its times, and what else was published ----

static enum verdict judge_times(struct court *court, const struct counterpart_bundle *note)
{
    const struct bundle *bundle = &note->bundle;
    const struct counterpart_times *times = &court->evidence->times;
    if (bundle->not_before_us > times->now_us + times->tolerance_us) {
        refusals_add(court->refusals, REFUSAL_NOT_YET, note->path, note->digest,
                     "it holds from %s on: compare the clocks",
                     time_text(bundle->not_before_us).text);
        return REFUSED;
    }
    if (bundle->not_after_us >= times->now_us - times->tolerance_us)
        return OPEN;
    refusals_add(court->refusals, REFUSAL_EXPIRED, note->path, note->digest,
                 "it held until %s: its host must publish it again",
                 time_text(bundle->not_after_us).text);
    return REFUSED;
}

// What `later` claims to follow, against `earlier`, which was published before it. NULL: nothing
// is wrong between the two.
static const char *chain_breaks(const struct counterpart_bundle *earlier,
                                const struct counterpart_bundle *later)
{
    if (strcmp(earlier->text_sha256, later->text_sha256) == 0)
        return NULL;
    if (later->bundle.previous[0] == '\0')
        return "it says that it is the first of its key, and there is one from before";
    if (strcmp(earlier->bundle.previous, later->bundle.previous) == 0)
        return "it follows the same bundle as another does: two logs published for this key";
    return NULL;
}

static enum verdict judge_chain(struct court *court, const struct counterpart_bundle *note)
{
    for (size_t i = 0; i < court->evidence->bundle_count; i++) {
        const struct counterpart_bundle *other = &court->evidence->bundles[i];
        if (other == note || court->verdicts[i] == REFUSED)
            continue;
        if (strcmp(note->bundle.previous, other->text_sha256) == 0 &&
            note->bundle.not_before_us < other->bundle.not_before_us)
            return refuse(court, REFUSAL_CHAIN, note, "it is older than the bundle it follows");
        if (other->bundle.not_before_us > note->bundle.not_before_us)
            continue;
        const char *words = chain_breaks(other, note);
        if (words != NULL)
            return refuse(court, REFUSAL_CHAIN, note, words);
    }
    return OPEN;
}

static enum verdict judge_freshness(struct court *court, const struct counterpart_bundle *note)
{
    const struct freshness *fresh = &court->says->fresh;
    if (fresh->time_us == 0 || fresh->generation != note->bundle.generation ||
        fresh->time_us <= note->bundle.not_before_us ||
        strcmp(fresh->bundle_sha256, note->text_sha256) == 0)
        return OPEN;
    refusals_add(court->refusals, REFUSAL_WITHHELD, note->path, note->digest,
                 "the freshness note of %s names a later bundle of generation %" PRIu64
                 ": the registry shows an old one",
                 time_text(fresh->time_us).text, fresh->generation);
    return REFUSED;
}

// ---- freshness ----

static bool is_fresh_believed(struct court *court, const struct counterpart_fresh *note)
{
    const struct counterpart_evidence *evidence = court->evidence;
    const struct freshness *fresh = &note->freshness;
    if (strcmp(fresh->host, evidence->host) != 0 || strcmp(fresh->key, evidence->key) != 0) {
        refusals_add(court->refusals, REFUSAL_MISPLACED, note->path, note->digest,
                     "the freshness note is %s's, of key %s: it belongs elsewhere", fresh->host,
                     fresh->key);
        return false;
    }
    if (fresh->time_us > evidence->times.now_us + evidence->times.tolerance_us) {
        refusals_add(court->refusals, REFUSAL_NOT_YET, note->path, note->digest,
                     "the freshness note is of a time to come, %s: compare the clocks",
                     time_text(fresh->time_us).text);
        return false;
    }
    if (evidence->seen == NULL || fresh->time_us >= evidence->seen->time_us)
        return true;
    refusals_add(court->refusals, REFUSAL_OLDER, note->path, note->digest,
                 "the freshness note is of %s, and one of %s was here before: a replay",
                 time_text(fresh->time_us).text, time_text(evidence->seen->time_us).text);
    return false;
}

static void judge_fresh(struct court *court)
{
    const struct counterpart_evidence *evidence = court->evidence;
    struct freshness *believed = &court->says->fresh;
    if (evidence->seen != NULL)
        *believed = *evidence->seen;
    if (evidence->fresh != NULL && is_fresh_believed(court, evidence->fresh))
        *believed = evidence->fresh->freshness;
    court->says->stale = believed->time_us == 0 ||
                         evidence->times.now_us - believed->time_us > evidence->times.max_stale_us;
}

// Whether the bundle that is the latest, by the freshness note, is kept from us.
static void judge_withheld(struct court *court)
{
    const struct counterpart_evidence *evidence = court->evidence;
    const struct freshness *fresh = &court->says->fresh;
    bool other = false; // one of the same generation is there
    if (fresh->time_us == 0)
        return;
    for (size_t i = 0; i < evidence->bundle_count; i++) {
        const struct counterpart_bundle *note = &evidence->bundles[i];
        if (strcmp(note->text_sha256, fresh->bundle_sha256) == 0 ||
            (court->verdicts[i] != REFUSED && note->bundle.not_before_us >= fresh->time_us))
            return;
        other |= note->path_generation == fresh->generation;
    }
    court->says->withheld = true;
    if (other)
        return;
    char path[REGISTRY_PATH_MAX + 1];
    registry_bundle_path(path, evidence->host, evidence->key, fresh->generation);
    refusals_add(court->refusals, REFUSAL_WITHHELD, path, NULL,
                 "the freshness note of %s names a bundle of generation %" PRIu64
                 ", and the registry does not show it",
                 time_text(fresh->time_us).text, fresh->generation);
}

// ---- the choice ----

static bool was_compromised_above(const struct counterpart_says *says, uint64_t generation)
{
    for (size_t i = 0; i < says->ended_count; i++)
        if (says->ended[i].state == BUNDLE_COMPROMISED && says->ended[i].generation > generation)
            return true;
    return false;
}

static void choose(struct court *court)
{
    struct counterpart_says *says = court->says;
    for (size_t i = 0; i < court->evidence->bundle_count; i++) {
        const struct bundle *bundle = &court->evidence->bundles[i].bundle;
        if (court->verdicts[i] != OPEN)
            continue;
        bool active = bundle->state == BUNDLE_ACTIVE;
        // A key that was in use after this one was revoked: this one had been replaced.
        if (active && was_compromised_above(says, bundle->generation))
            continue;
        bool *has = active ? &says->has_active : &says->has_pre_active;
        struct bundle *best = active ? &says->active : &says->pre_active;
        if (!*has || bundle->generation > best->generation)
            *best = *bundle;
        *has = true;
    }
    if (says->has_active && says->has_pre_active &&
        says->pre_active.generation < says->active.generation) {
        says->has_pre_active = false;
        memset(&says->pre_active, 0, sizeof(says->pre_active));
    }
}

void counterpart_judge(const struct counterpart_evidence *evidence, struct counterpart_says *says,
                       struct refusals *refusals)
{
    struct counterpart_evidence bounded = *evidence;
    struct court court = {.evidence = &bounded, .says = says, .refusals = refusals};
    static enum verdict (*const steps[])(struct court *, const struct counterpart_bundle *) = {
        judge_alone, judge_generation, judge_times, judge_chain, judge_freshness,
    };
    if (bounded.bundle_count > COUNTERPART_NOTES_MAX)
        bounded.bundle_count = COUNTERPART_NOTES_MAX;
    memset(says, 0, sizeof(*says));
    look_up_known(&court);
    judge_fresh(&court);
    // One step over all bundles before the next: later ones need what the earlier found.
    for (size_t step = 0; step < sizeof(steps) / sizeof(steps[0]); step++)
        for (size_t i = 0; i < bounded.bundle_count; i++)
            if (court.verdicts[i] == OPEN)
                court.verdicts[i] = steps[step](&court, &bounded.bundles[i]);
    judge_withheld(&court);
    choose(&court);
}
