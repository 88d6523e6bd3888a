// SPDX-License-Identifier: Apache-2.0
// Decides the next steps for a counterpart's key and for our own.
#include "plan.h"

#include <string.h>

#include <sodium.h>

// ---- looking things up ----

const struct custody_peer *plan_current(const struct custody_view *view, const char *host,
                                        const char *key)
{
    return known_peers_current(known_peers(view, host, key));
}

unsigned plan_leftovers(const struct custody_view *view, const struct counterpart_says *says,
                        const char *host, const char *key)
{
    struct known_peers known = known_peers(view, host, key);
    unsigned count = 0;
    for (size_t i = 0; i < known.count; i++) {
        const struct custody_peer *each = &known.first[i];
        bool announced = says->has_pre_active && says->pre_active.generation == each->generation;
        count += each->state == CUSTODY_PEER_STAGED && each->moved_us == 0 && !announced;
    }
    return count;
}

static const struct counterpart_ended *find_ended(const struct plan_counterpart *in,
                                                  uint64_t generation)
{
    for (size_t i = 0; i < in->says->ended_count; i++)
        if (in->says->ended[i].generation == generation)
            return &in->says->ended[i];
    return NULL;
}

bool plan_has_allowed_ips(const struct device_peer *peer, const struct setup_peer *setup)
{
    if (peer->allowed_count != setup->allowed_ip_count)
        return false;
    for (size_t i = 0; i < setup->allowed_ip_count; i++) {
        const struct setup_prefix *prefix = &setup->allowed_ips[i];
        bool found = false;
        for (size_t j = 0; j < peer->allowed_count && !found; j++) {
            const struct device_allowed_ip *allowed = &peer->allowed_ips[j];
            found = allowed->family == prefix->address.family && allowed->cidr == prefix->bits &&
                    memcmp(allowed->address, prefix->address.bytes,
                           allowed->family == AF_INET6 ? 16 : 4) == 0;
        }
        if (!found)
            return false;
    }
    return true;
}

// ---- a counterpart's key ----

static void add(struct plan *plan, enum plan_step_kind kind, uint64_t generation,
                const uint8_t *public_key, bool compromised, const char *detail)
{
    if (plan->count == PLAN_STEPS_MAX)
        return; // the next pass has the rest
    struct plan_step *step = &plan->steps[plan->count++];
    *step = (struct plan_step){
        .kind = kind, .generation = generation, .compromised = compromised, .detail = detail};
    memcpy(step->public_key, public_key, sizeof step->public_key);
}

static void due(struct plan *plan, int64_t when_us)
{
    if (plan->due_us == 0 || when_us < plan->due_us)
        plan->due_us = when_us;
}

// Which generation is to have the allowed-ips, where that is not the one that our log names.
// Returns the one that has them after the plan; 0: none.
static uint64_t plan_moves(const struct plan_counterpart *in, const struct custody_peer *current,
                           struct plan *plan)
{
    const struct counterpart_says *says = in->says;
    if (says->has_active && (current == NULL || says->active.generation > current->generation)) {
        add(plan, PLAN_MOVE, says->active.generation, says->active.public_key, false,
            current == NULL ? "the first key that is known of it"
                            : "its host says that it is active");
        return says->active.generation;
    }
    // Its rotation was rolled back after we had moved to it.
    if (says->has_active && current != NULL && says->active.generation < current->generation &&
        find_ended(in, current->generation) != NULL) {
        add(plan, PLAN_MOVE, says->active.generation, says->active.public_key, false,
            "the one moved to was withdrawn");
        return says->active.generation;
    }
    if (current == NULL)
        return 0;
    // It took over, and this process's predecessor could not have that recorded.
    const struct bundle *next = says->has_pre_active ? &says->pre_active : NULL;
    const struct device_peer *taken =
        next != NULL ? device_view_peer(in->device, next->public_key) : NULL;
    if (taken != NULL && next->generation > current->generation &&
        plan_has_allowed_ips(taken, in->setup)) {
        add(plan, PLAN_MOVE, next->generation, next->public_key, false, "it had taken over");
        return next->generation;
    }
    const struct device_peer *there = device_view_peer(in->device, current->public_key);
    if (find_ended(in, current->generation) == NULL &&
        (there == NULL || !plan_has_allowed_ips(there, in->setup)))
        add(plan, PLAN_REPAIR, current->generation, current->public_key, false, "");
    return current->generation;
}

static bool goes_first(const struct plan_counterpart *in)
{
    int order = strcmp(in->setup->host, in->own_host);
    return order < 0 || (order == 0 && strcmp(in->setup->key, in->own_key) < 0);
}

static void plan_staging(const struct plan_counterpart *in, struct known_peers known,
                         uint64_t current, struct plan *plan)
{
    const struct bundle *next = &in->says->pre_active;
    if (!in->says->has_pre_active || current == 0 || next->generation <= current)
        return;
    if (in->own_rotation) {
        plan->yield = goes_first(in);
        return;
    }
    const struct custody_peer *recorded = known_peers_find(known, next->generation);
    bool staged = recorded != NULL && recorded->state == CUSTODY_PEER_STAGED;
    if (!staged && (in->says->stale || in->says->withheld))
        return; // a registry that lags or hides something stages nothing new
    plan->watch = true;
    if (!staged || in->answered_generation != next->generation ||
        device_view_peer(in->device, next->public_key) == NULL)
        add(plan, PLAN_STAGE, next->generation, next->public_key, false, "");
}

// Why a generation that is not the current one must go now; NULL: it may stay.
static const char *reason_to_retire(const struct plan_counterpart *in, struct known_peers known,
                                    const struct custody_peer *peer, uint64_t current,
                                    struct plan *plan)
{
    const struct counterpart_ended *ended = find_ended(in, peer->generation);
    if (ended != NULL)
        return ended->state == BUNDLE_COMPROMISED ? "its host revoked it as compromised"
                                                  : "its host withdrew it";
    if (peer->moved_us == 0) {
        bool wanted =
            in->says->has_pre_active && in->says->pre_active.generation == peer->generation;
        int64_t until = peer->staged_us + in->grace_us;
        if (peer->generation < current)
            return "a later one took over";
        if (wanted || in->now_us < until) {
            if (!wanted)
                due(plan, until);
            return NULL;
        }
        return "nothing came of it within the grace period";
    }
    // Moved to and away from again: its rotation was rolled back.
    if (peer->generation > current) {
        int64_t last = peer->moved_us + in->grace_us;
        if (in->says->has_pre_active && in->says->pre_active.generation == peer->generation)
            return NULL;
        if (in->now_us < last)
            due(plan, last);
        return in->now_us < last ? NULL : "nothing came of it within the grace period";
    }
    // Replaced: only once its host says that the one after it is active.
    const struct custody_peer *now = known_peers_find(known, current);
    if (!in->says->has_active || in->says->active.generation < current || now == NULL ||
        now->moved_us == 0)
        return NULL;
    // This very plan moves to it: its grace begins then.
    if (now->state != CUSTODY_PEER_MOVED)
        return NULL;
    int64_t until = now->moved_us + in->grace_us;
    if (in->now_us >= until)
        return "replaced; the grace period is over";
    due(plan, until);
    return NULL;
}

void plan_for_counterpart(const struct plan_counterpart *in, struct plan *plan)
{
    struct known_peers known = known_peers(in->view, in->setup->host, in->setup->key);
    memset(plan, 0, sizeof *plan);
    uint64_t generation = plan_moves(in, known_peers_current(known), plan);
    plan_staging(in, known, generation, plan);
    for (size_t i = 0; i < known.count; i++) {
        const struct custody_peer *peer = &known.first[i];
        if (peer->state == CUSTODY_PEER_RETIRED)
            continue;
        const struct counterpart_ended *ended = find_ended(in, peer->generation);
        bool compromised = ended != NULL && ended->state == BUNDLE_COMPROMISED;
        // What is compromised goes even when nothing takes its place.
        if (peer->generation == generation && !compromised)
            continue;
        const char *why = reason_to_retire(in, known, peer, generation, plan);
        if (why != NULL)
            add(plan, PLAN_RETIRE, peer->generation, peer->public_key, compromised, why);
    }
    if (known_peers_find(known, generation) != NULL && in->says->has_pre_active &&
        in->says->pre_active.generation == generation)
        plan->watch = true; // it may still be rolled back
}

// ---- our own key ----

const struct custody_key *plan_generation(const struct custody_view *view, uint64_t generation)
{
    for (size_t i = 0; i < view->generation_count; i++)
        if (view->generations[i].generation == generation)
            return &view->generations[i];
    return NULL;
}

const struct custody_key *plan_in_state(const struct custody_view *view,
                                        enum custody_key_state state)
{
    for (size_t i = 0; i < view->generation_count; i++)
        if (view->generations[i].state == state)
            return &view->generations[i];
    return NULL;
}

static bool is_key(const struct custody_key *key, const uint8_t public_key[DEVICE_KEY_SIZE])
{
    return key != NULL && sodium_memcmp(key->public_key, public_key, DEVICE_KEY_SIZE) == 0;
}

struct plan_own plan_for_own(const struct custody_view *view,
                             const uint8_t device_key[DEVICE_KEY_SIZE], bool seen_before,
                             const uint8_t *ours)
{
    const struct custody_key *active = plan_in_state(view, CUSTODY_KEY_ACTIVE);
    const struct custody_key *next = plan_in_state(view, CUSTODY_KEY_PRE_ACTIVE);
    struct plan_own own = {PLAN_NOTHING, 0, CUSTODY_REASON_BOOT};
    bool rotating = view->rotation_generation != 0 && next != NULL &&
                    next->generation == view->rotation_generation;
    if (view->suspended)
        return own;
    if (active == NULL) {
        // The first key; or, after a revocation, its replacement, which waits for nobody, but for
        // its rotation to be open.
        bool replaces = plan_in_state(view, CUSTODY_KEY_COMPROMISED) != NULL;
        if (next == NULL || (is_key(next, device_key) && !rotating) || (replaces && !rotating))
            return own;
        own = (struct plan_own){PLAN_SET_KEY, next->generation,
                                rotating ? CUSTODY_REASON_ROTATION : CUSTODY_REASON_BOOT};
        return own;
    }
    own.generation = active->generation;
    if (view->rotation_generation == active->generation && is_key(active, device_key)) {
        own.kind = PLAN_REPLACED;
        return own;
    }
    if (rotating && is_key(next, device_key)) {
        own.kind = PLAN_TAKE_OVER;
        own.generation = next->generation;
        return own;
    }
    if (is_key(active, device_key)) {
        if (rotating)
            own = (struct plan_own){PLAN_ROTATE, next->generation, CUSTODY_REASON_ROTATION};
        return own;
    }
    // A key that nobody set but us, and that is none to be any more: what was rolled back.
    bool left_over = ours != NULL && sodium_memcmp(ours, device_key, DEVICE_KEY_SIZE) == 0;
    own.kind = PLAN_SET_KEY;
    own.reason = left_over     ? CUSTODY_REASON_ROLLBACK
                 : seen_before ? CUSTODY_REASON_RESTORE
                               : CUSTODY_REASON_BOOT;
    return own;
}

enum record_bundle_state plan_bundle_state(const struct custody_view *view, uint64_t generation)
{
    const struct custody_key *key = plan_generation(view, generation);
    const struct custody_key *active = plan_in_state(view, CUSTODY_KEY_ACTIVE);
    if (key == NULL)
        return active != NULL && generation > active->generation ? BUNDLE_DESTROYED : BUNDLE_NONE;
    switch (key->state) {
    case CUSTODY_KEY_ACTIVE:
        return BUNDLE_ACTIVE;
    case CUSTODY_KEY_PRE_ACTIVE:
        return generation == view->rotation_generation ? BUNDLE_PRE_ACTIVE : BUNDLE_NONE;
    case CUSTODY_KEY_COMPROMISED:
        return BUNDLE_COMPROMISED;
    default:
        return active != NULL && generation > active->generation ? BUNDLE_DESTROYED : BUNDLE_NONE;
    }
}
