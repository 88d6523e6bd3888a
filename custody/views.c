// SPDX-License-Identifier: Apache-2.0
// Views: generations, rotation, counterparts, policy and steps of a key.
#include "views.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "keys.h"
#include "policy.h"
#include "preshared.h"
#include "schedule.h"
#include "steps.h"

#define ENVELOPE        64 // bytes of a response around the view, at most
#define PEER_LEAST      40 // bytes of a counterpart's generation, at least
#define PEERS_MAX       (FRAME_MAX / PEER_LEAST)
#define DEACTIVATED_MAX 128 // generations of a key, in a view

static Custody__V1__PeerState peer_state(uint32_t state)
{
    static const Custody__V1__PeerState states[PEER_STATES] = {
        [PEER_STAGED] = CUSTODY__V1__PEER_STATE__PEER_STAGED,
        [PEER_MOVED] = CUSTODY__V1__PEER_STATE__PEER_MOVED,
        [PEER_RETIRED] = CUSTODY__V1__PEER_STATE__PEER_RETIRED,
    };
    return state < PEER_STATES ? states[state] : CUSTODY__V1__PEER_STATE__PEER_STATE_UNSPECIFIED;
}

static Custody__V1__BundleState bundle_state(uint32_t state)
{
    static const Custody__V1__BundleState states[BUNDLE_STATES] = {
        [BUNDLE_PRE_ACTIVE] = CUSTODY__V1__BUNDLE_STATE__BUNDLE_PRE_ACTIVE,
        [BUNDLE_ACTIVE] = CUSTODY__V1__BUNDLE_STATE__BUNDLE_ACTIVE,
        [BUNDLE_COMPROMISED] = CUSTODY__V1__BUNDLE_STATE__BUNDLE_COMPROMISED,
        [BUNDLE_DESTROYED] = CUSTODY__V1__BUNDLE_STATE__BUNDLE_DESTROYED,
    };
    return state < BUNDLE_STATES ? states[state]
                                 : CUSTODY__V1__BUNDLE_STATE__BUNDLE_STATE_UNSPECIFIED;
}

static void fill_rotation(Custody__V1__Rotation *out, const struct rotation *rotation)
{
    custody__v1__rotation__init(out);
    if (rotation == NULL)
        return;
    out->generation = rotation->generation;
    out->reason = (Custody__V1__Reason)rotation->reason;
    out->ticket = (char *)rotation->ticket;
    out->started_us = rotation->started_us;
    out->failures = rotation->failures;
    out->ended_us = rotation->ended_us;
    out->suspended = rotation->suspended_us != 0;
    out->bundle_generation = rotation->bundle_generation;
    out->bundle_state = bundle_state(rotation->bundle_state);
    out->bundle_sha256 = (char *)rotation->bundle_sha256;
}

static void fill_policy(Custody__V1__RotationPolicy *out, const struct config_key *config)
{
    custody__v1__rotation_policy__init(out);
    out->lifetime_s = config->lifetime_s;
    out->grace_s = config->grace_s;
    out->window_s = config->window_s;
    out->jitter_s = config->jitter_s;
    out->psk_lifetime_s = config->psk_lifetime_s;
    out->not_after_s = config->not_after_s;
}

static void fill_peer(Custody__V1__Peer *out, const struct peer *peer)
{
    custody__v1__peer__init(out);
    out->host = (char *)peer->host;
    out->key = (char *)peer->peer_key;
    out->generation = peer->generation;
    out->state = peer_state(peer->state);
    out->public_key = (ProtobufCBinaryData){sizeof(peer->public_key), (uint8_t *)peer->public_key};
    out->staged_us = peer->staged_us;
    out->moved_us = peer->moved_us;
    out->retired_us = peer->retired_us;
}

static void fill_psk(Custody__V1__Psk *out, const struct psk *psk, const struct config_key *config)
{
    custody__v1__psk__init(out);
    out->host = (char *)psk->host;
    out->key = (char *)psk->peer_key;
    out->made = psk->made;
    out->received = psk->received;
    out->set = psk->set;
    out->made_us = psk->made_us;
    out->received_us = psk->received_us;
    out->set_us = psk->set_us;
    out->due_us = config != NULL ? preshared_due_us(config, psk) : 0;
}

static void fill_step(Custody__V1__Step *out, const struct step *step)
{
    custody__v1__step__init(out);
    out->seq = step->seq;
    out->time_us = step->time_us;
    out->event = (char *)record_event_name(step->event);
    out->generation = step->generation;
    out->peer = (char *)step->peer;
    out->peer_key = (char *)step->peer_key;
    out->peer_state = peer_state(step->peer_state);
    out->detail = (char *)step->detail;
}

// A view's lists, and room for all that they point to.
struct room {
    Custody__V1__Key *keys;
    Custody__V1__Key **key_pointers;
    Custody__V1__Peer peers[PEERS_MAX];
    Custody__V1__Peer *peer_pointers[PEERS_MAX];
    Custody__V1__Psk *psks;
    Custody__V1__Psk **psk_pointers;
    Custody__V1__Step steps[STEPS_MAX];
    Custody__V1__Step *step_pointers[STEPS_MAX];
};

static void room_free(struct room *room)
{
    if (room == NULL)
        return;
    free(room->keys);
    free(room->key_pointers);
    free(room->psks);
    free(room->psk_pointers);
    free(room);
}

static struct room *room_new(const struct daemon *daemon)
{
    size_t keys = state_keys(daemon->state) + 1, psks = state_psks(daemon->state)->count + 1;
    struct room *room = malloc(sizeof(*room));
    if (room == NULL)
        return NULL;
    room->keys = calloc(keys, sizeof(*room->keys));
    room->key_pointers = calloc(keys, sizeof(*room->key_pointers));
    room->psks = calloc(psks, sizeof(*room->psks));
    room->psk_pointers = calloc(psks, sizeof(*room->psk_pointers));
    if (room->keys != NULL && room->key_pointers != NULL && room->psks != NULL &&
        room->psk_pointers != NULL)
        return room;
    room_free(room);
    return NULL;
}

static bool is_listed(const Custody__V1__KeyView *view, const struct state_key *key)
{
    return strcmp(key->name, view->key) == 0 && key->state != KEY_DESTROYED;
}

// Of the generations that only wait for the end of their grace the latest: a long grace and
// frequent rotations make more of them than fit into a frame.
static void list_generations(Custody__V1__KeyView *view, struct room *room,
                             const struct daemon *daemon)
{
    size_t waiting = 0;
    for (size_t i = 0; i < state_keys(daemon->state); i++) {
        const struct state_key *key = state_key_at(daemon->state, i);
        waiting += is_listed(view, key) && key->state == KEY_DEACTIVATED;
    }
    for (size_t i = 0; i < state_keys(daemon->state); i++) {
        const struct state_key *key = state_key_at(daemon->state, i);
        if (!is_listed(view, key) || (key->state == KEY_DEACTIVATED && waiting-- > DEACTIVATED_MAX))
            continue;
        keys_fill(&room->keys[view->n_generations], key);
        room->key_pointers[view->n_generations] = &room->keys[view->n_generations];
        view->n_generations++;
    }
    view->generations = room->key_pointers;
}

// Bytes that a message of that size takes up in a view.
static size_t item_size(size_t size)
{
    return size + (size < 128 ? 2 : 3);
}

// Bytes of an answer with the view as it is, if it says that there is more.
static size_t size_with_more(const Custody__V1__KeyView *view)
{
    Custody__V1__KeyView more = *view;
    more.more_peers = true;
    return custody__v1__key_view__get_packed_size(&more) + ENVELOPE;
}

// As many as fit beside what the view has already, from the one that has that place among the
// key's.
static void list_peers(Custody__V1__KeyView *view, struct room *room, const struct daemon *daemon,
                       uint64_t from)
{
    const struct peers *peers = state_peers(daemon->state);
    size_t size = size_with_more(view);
    struct peer_span span = peers_of(peers, view->key);
    view->peers = room->peer_pointers;
    for (uint64_t i = from; i < span.count; i++) {
        Custody__V1__Peer *peer = &room->peers[view->n_peers];
        if (view->n_peers < PEERS_MAX) {
            fill_peer(peer, &span.first[i]);
            size += item_size(custody__v1__peer__get_packed_size(peer));
        }
        if (view->n_peers == PEERS_MAX || size > FRAME_MAX) {
            view->more_peers = true;
            return;
        }
        room->peer_pointers[view->n_peers++] = peer;
    }
}

// The same of the links' preshared keys, whose places follow the counterparts'.
static void list_psks(Custody__V1__KeyView *view, struct room *room, const struct daemon *daemon,
                      uint64_t from)
{
    const struct psks *psks = state_psks(daemon->state);
    const struct config_key *config = config_find_key(daemon->config, view->key);
    size_t size = size_with_more(view);
    uint64_t place = peers_of(state_peers(daemon->state), view->key).count;
    view->psks = room->psk_pointers;
    for (size_t i = 0; i < psks->count && !view->more_peers; i++) {
        if (strcmp(psks->items[i].key, view->key) != 0 || place++ < from)
            continue;
        Custody__V1__Psk *psk = &room->psks[view->n_psks];
        fill_psk(psk, &psks->items[i], config);
        size += item_size(custody__v1__psk__get_packed_size(psk));
        view->more_peers = size > FRAME_MAX;
        if (!view->more_peers)
            room->psk_pointers[view->n_psks++] = psk;
    }
}

static void list_steps(Custody__V1__KeyView *view, struct room *room, const struct daemon *daemon)
{
    size_t count = steps_count(daemon->steps, view->key);
    for (size_t i = 0; i < count; i++) {
        fill_step(&room->steps[i], steps_at(daemon->steps, view->key, i));
        room->step_pointers[i] = &room->steps[i];
    }
    view->steps = room->step_pointers;
    view->n_steps = count;
}

static void answer(struct call *call, Custody__V1__KeyView *view)
{
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    struct error err;
    size_t size = custody__v1__key_view__get_packed_size(view);
    if (size > FRAME_MAX - ENVELOPE || (view->more_peers && view->n_peers + view->n_psks == 0)) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED,
                  "the view of key '%s' is %zu bytes long and does not fit into an answer: it has "
                  "too many generations",
                  view->key, size);
        call_fail(call, &err);
        return;
    }
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY_VIEW;
    response.key_view = view;
    call_answer(call, &response);
}

// All but the counterparts.
struct parts {
    Custody__V1__Rotation rotation;
    Custody__V1__RotationPolicy policy;
};

static void fill_parts(Custody__V1__KeyView *view, struct parts *parts, struct room *room,
                       const struct daemon *daemon)
{
    const struct config_key *config = config_find_key(daemon->config, view->key);
    const struct rotation *state = rotations_find(state_rotations(daemon->state), view->key);
    const struct state_key *receives = preshared_receive_key(daemon->state);
    custody__v1__rotation_policy__init(&parts->policy);
    list_generations(view, room, daemon);
    list_steps(view, room, daemon);
    fill_rotation(&parts->rotation, state);
    view->rotation = &parts->rotation;
    // The key may have left the configuration while something was recorded about it.
    if (config != NULL) {
        fill_policy(&parts->policy, config);
        if (config->psk_lifetime_s != 0 && receives != NULL)
            view->receive_key = (ProtobufCBinaryData){sizeof(receives->public_key),
                                                      (uint8_t *)receives->public_key};
        view->next_rotation_us = schedule_rotation_us(config, daemon->config->host, state,
                                                      state_key_active(daemon->state, view->key));
    }
    view->policy = &parts->policy;
}

// A view whose counterparts begin at the one with that place; 0: from the first, with all else.
static void answer_from(struct call *call, uint64_t from)
{
    const struct daemon *daemon = call->daemon;
    Custody__V1__KeyView view = CUSTODY__V1__KEY_VIEW__INIT;
    struct parts parts;
    struct error err;
    struct room *room = room_new(daemon);
    if (room == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the view of key '%s'",
                  call->record.key);
        call_fail(call, &err);
        return;
    }
    view.key = call->record.key;
    view.as_of = state_size(daemon->state);
    // The state may be ahead of what is signed; whoever watches is told once that is, too.
    view.seq = log_size(daemon->log);
    if (from == 0)
        fill_parts(&view, &parts, room, daemon);
    list_peers(&view, room, daemon, from);
    list_psks(&view, room, daemon, from);
    answer(call, &view);
    room_free(room);
}

void views_answer(struct call *call)
{
    answer_from(call, 0);
}

static void answer_page(struct call *call, const Custody__V1__GetView *request)
{
    struct error err;
    if (request->peers_from == 0 || request->as_of == state_size(call->daemon->state)) {
        answer_from(call, request->peers_from);
        return;
    }
    error_set(&err, ERROR_ABORTED,
              "the state has changed since the first part of the view of key "
              "'%s' was answered: ask for it from the beginning",
              call->record.key);
    call_fail(call, &err);
}

void views_get(struct call *call, const Custody__V1__GetView *request)
{
    struct error err;
    const struct config_key *config = call_take_key(call, request->key, &err);
    if (config != NULL && ((call->roles & (POLICY_OPERATOR | POLICY_AUDITOR)) ||
                           policy_may_see(config, &call->actor))) {
        answer_page(call, request);
        return;
    }
    if (config != NULL)
        error_set(&err, ERROR_PERMISSION_DENIED,
                  "no grant lets uid %u in unit '%s' see key '%s': see key \"%s\" in the "
                  "configuration",
                  call->actor.uid, call->actor.unit, config->name, config->name);
    call_refuse(call, &err);
}
