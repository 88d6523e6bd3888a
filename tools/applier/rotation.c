// SPDX-License-Identifier: Apache-2.0
// Carries a rotation of our own key from its start to one of its two ends.
#include "rotation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "counterparts.h"
#include "cutover.h"
#include "paired.h"
#include "psk.h"

#define ALIVE_S              180  // a peer without a handshake for longer has no session
#define READY_MS             1000 // for answers inside the tunnel
#define AGAIN_MS             1000
#define SETTLE_MS            200  // after a cutover, until keepalives are what is configured
#define POLL_MS              8000 // nothing waits: a handshake that is lost is tried again after 5 s
#define TAKE_OVER_MS         6000
#define TICKET_OR_NULL(view) ((view)->rotation_ticket[0] != '\0' ? (view)->rotation_ticket : NULL)

const char *rotation_method(const struct tended *tended)
{
    return tended->by_pair ? "pair" : tended->hold != NULL ? "hold" : "poll";
}

// ---- what custodyd is told ----

static int end_rotation(struct tended *tended, uint64_t generation, bool confirmed,
                        const char *detail, struct error *err)
{
    struct custody_error theirs = {0};
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_end_rotation(tended->world->custody, tended->setup->key, generation, confirmed,
                             rotation_method(tended), detail, &theirs) != 0)
        return tended_from_library(tended, &theirs, "ending the rotation", err);
    tended_tell(tended, "rotation to generation %" PRIu64 " %s%s%s", generation,
                confirmed ? "confirmed" : "rolled back", detail[0] != '\0' ? ": " : "", detail);
    confirmed ? tended->counts.confirmed++ : tended->counts.rolled_back++;
    tended->rotation = 0;
    tended->dirty = true;
    return 0;
}

// A counterpart's step with our key. What cannot be recorded stops nothing.
static void record_theirs(struct tended *tended, const struct tended_peer *peer,
                          uint64_t generation, enum custody_peer_state state,
                          enum custody_peer_state acknowledged, const char *detail)
{
    struct custody_error theirs = {0};
    struct error err;
    struct custody_peer_step step = {.key = tended->setup->key,
                                     .state = state,
                                     .peer = peer->setup->host,
                                     .peer_key = peer->setup->key,
                                     .generation = generation,
                                     .acknowledged = acknowledged,
                                     .detail = detail};
    if (tended->world->custody == NULL ||
        custody_record_peer(tended->world->custody, &step, NULL, 0, &theirs) == 0)
        return;
    (void)tended_from_library(tended, &theirs, "recording a counterpart's step", &err);
    tended_say(tended, &err);
}

// ---- setting the key without a rotation ----

int rotation_set_key(struct tended *tended, const struct plan_own *own, struct error *err)
{
    struct apply_task task = {.interface = tended->setup->name,
                              .key = tended->setup->key,
                              .generation = own->generation,
                              .reason = own->reason};
    struct apply_report report;
    enum apply_outcome outcome = apply_once(tended->world->settings, &task, &report, err);
    if (outcome != APPLY_CONFIRMED && outcome != APPLY_CURRENT && outcome != APPLY_UNRECORDED)
        return -1;
    const struct custody_key *key = plan_generation(tended->view, own->generation);
    if (key != NULL) {
        memcpy(tended->ours, key->public_key, sizeof tended->ours);
        tended->has_ours = true;
    }
    tended_tell(tended, "key '%s' generation %" PRIu64 " set", tended->setup->key, own->generation);
    tended->seen_before = true;
    tended->dirty = true;
    return outcome == APPLY_UNRECORDED ? -1 : 0;
}

// ---- waiting for acknowledgements ----

static int64_t window_us(const struct tended *tended)
{
    uint32_t seconds =
        tended->setup->window_s != 0 ? tended->setup->window_s : tended->view->window_s;
    return (seconds != 0 ? seconds : 60) * INT64_C(1000000);
}

static bool is_alive(const struct tended *tended, const struct tended_peer *peer)
{
    const uint8_t *key = counterparts_key(tended, peer);
    const struct device_peer *there = key != NULL ? device_view_peer(tended->there, key) : NULL;
    return there != NULL && there->latest_handshake.tv_sec != 0 &&
           tended_now_us() / 1000000 - there->latest_handshake.tv_sec < ALIVE_S;
}

// Who is waited for is settled once, when the rotation is seen first.
static void settle_required(struct tended *tended)
{
    if (tended->rotation == tended->view->rotation_generation)
        return;
    tended->rotation = tended->view->rotation_generation;
    tended->by_pair = false;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        peer->required = peer->setup->required == SETUP_REQUIRED_YES ||
                         (peer->setup->required == SETUP_REQUIRED_AUTO && is_alive(tended, peer));
        peer->acknowledged = peer->late = false;
    }
}

// What the counterpart has signed about a generation of ours; its state is PEER_NONE where it has
// not.
static int look_for(struct tended *tended, struct tended_peer *peer, const struct custody_key *key,
                    struct acknowledgement *ack, struct error *err)
{
    struct acknowledgements_own own = {.host = tended->world->own_host,
                                       .key = tended->setup->key,
                                       .generation = key->generation,
                                       .public_key = key->public_key,
                                       .now_us = tended_now_us(),
                                       .tolerance_us = tended->world->setup->clock_tolerance_s *
                                                       INT64_C(1000000)};
    memset(ack, 0, sizeof *ack);
    return acknowledgements_look(peer->acknowledgements, tended->world->registry,
                                 tended->world->trust, &own, ack, err);
}

static int take_acknowledgement(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    const struct custody_key *next =
        plan_generation(tended->view, tended->view->rotation_generation);
    struct acknowledgement ack;
    int rc = look_for(tended, peer, next, &ack, err);
    size_t length = 0;
    if (ack.state != PEER_STAGED ||
        sodium_hex2bin(peer->move_sha256, sizeof peer->move_sha256, ack.move_sha256,
                       strlen(ack.move_sha256), NULL, &length, NULL) != 0 ||
        length != sizeof peer->move_sha256)
        return rc;
    if (!peer->acknowledged) {
        tended_tell(tended, "%s has staged generation %" PRIu64, peer->setup->host,
                    next->generation);
        record_theirs(tended, peer, next->generation, CUSTODY_PEER_ACKNOWLEDGED,
                      CUSTODY_PEER_STAGED, NULL);
    }
    peer->acknowledged = true;
    return rc;
}

// Whether all that are required have acknowledged: 0; 1 with `missing` naming one that has not; -1
// on failure.
static int all_acknowledged(struct tended *tended, const char **missing, struct error *err)
{
    int rc = 0;
    *missing = NULL;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        if (!peer->acknowledged && take_acknowledgement(tended, peer, err) != 0)
            rc = -1;
        if (peer->required && !peer->acknowledged)
            *missing = peer->setup->host;
    }
    if (*missing != NULL || rc != 0)
        return rc != 0 ? -1 : 1;
    // One that was started again since has another secret, and has acknowledged anew.
    for (size_t i = 0; i < tended->peer_count; i++)
        if (tended->peers[i].required && take_acknowledgement(tended, &tended->peers[i], err) != 0)
            return -1;
    return 0;
}

// ---- cutting over ----

struct attempt {
    struct tended *tended;
    struct cutover cutover;
    struct tended_peer **of; // of each of cutover's peers
    struct custody_released *released;
};

static void attempt_free(struct attempt *attempt)
{
    custody_released_free(attempt->released);
    free(attempt->cutover.peers);
    free(attempt->of);
}

static int attempt_make(struct attempt *attempt, struct tended *tended, struct error *err)
{
    struct cutover *cutover = &attempt->cutover;
    *attempt = (struct attempt){.tended = tended};
    cutover->peers = calloc(tended->peer_count + 1, sizeof *cutover->peers);
    attempt->of = calloc(tended->peer_count + 1, sizeof(struct tended_peer *));
    if (cutover->peers == NULL || attempt->of == NULL) {
        attempt_free(attempt);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a cutover");
    }
    cutover->device = tended->device;
    cutover->hold = tended->hold;
    cutover->guard = tended->guard;
    cutover->moves = tended->moves;
    cutover->own_host = tended->world->own_host;
    cutover->own_key = tended->setup->key;
    cutover->generation = tended->view->rotation_generation;
    cutover->deadline_ms = tended->hold != NULL ? (int)tended->setup->hold_limit_ms : POLL_MS;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        const uint8_t *key = counterparts_key(tended, peer);
        if (!peer->required || key == NULL)
            continue;
        struct cutover_peer *one = &cutover->peers[cutover->peer_count];
        attempt->of[cutover->peer_count++] = peer;
        memcpy(one->public_key, key, sizeof one->public_key);
        snprintf(one->host, sizeof one->host, "%s", peer->setup->host);
        memcpy(one->move_sha256, peer->move_sha256, sizeof one->move_sha256);
        one->has_move_address =
            tended->moves != NULL && counterparts_move_address(peer, &one->move_address);
    }
    return 0;
}

static int release(struct tended *tended, uint64_t generation, enum custody_reason reason,
                   struct custody_released **released, struct error *err)
{
    struct custody_error theirs = {0};
    *released = NULL;
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_release(tended->world->custody, tended->setup->key, generation, reason,
                        TICKET_OR_NULL(tended->view), released, &theirs) != 0)
        return tended_from_library(tended, &theirs, "release refused", err);
    return 0;
}

static void note_ours(struct tended *tended, const struct custody_released *released)
{
    memcpy(tended->ours, custody_released_public_key(released), sizeof tended->ours);
    tended->has_ours = true;
}

static int confirm(struct attempt *attempt, struct error *err)
{
    struct tended *tended = attempt->tended;
    tended_report(tended, attempt->released, true, "");
    for (size_t i = 0; i < attempt->cutover.peer_count; i++)
        if (attempt->cutover.peers[i].moved)
            record_theirs(tended, attempt->of[i], attempt->cutover.generation,
                          CUSTODY_PEER_ACKNOWLEDGED, CUSTODY_PEER_MOVED, NULL);
    for (size_t i = 0; i < tended->peer_count; i++)
        if (!tended->peers[i].required && !tended->peers[i].late) {
            tended->peers[i].late = true;
            record_theirs(tended, &tended->peers[i], attempt->cutover.generation, CUSTODY_PEER_LATE,
                          0, "no handshake lately: it converges from the registry");
        }
    if (attempt->cutover.hold != NULL) {
        tended->counts.has_held = true;
        tended->counts.held_ms = attempt->cutover.held_ms;
        tended_tell(tended, "outgoing packets waited for %d ms", attempt->cutover.held_ms);
    }
    return end_rotation(tended, attempt->cutover.generation, true, "", err);
}

// The key before comes back, released again; while it does, the packets are held.
static int roll_back(struct attempt *attempt, const struct error *why, struct error *err)
{
    struct tended *tended = attempt->tended;
    const struct custody_key *active = plan_in_state(tended->view, CUSTODY_KEY_ACTIVE);
    struct custody_released *old = NULL;
    int rc = -1;
    if (active == NULL)
        error_set(err, ERROR_FAILED_PRECONDITION, "there is no key to go back to");
    else
        rc = release(tended, active->generation, CUSTODY_REASON_ROLLBACK, &old, err);
    if (rc != 0) {
        cutover_let_go(&attempt->cutover);
        error_prefix(err, "%s; and the key before could not be set again", why->message);
        return -1; // the next pass finds the new key on the interface, and goes on from there
    }
    rc = cutover_back(&attempt->cutover, custody_released_private_key(old), err);
    custody_released_wipe(old);
    if (rc == 0) {
        note_ours(tended, old);
        paired_return_later(tended);
    }
    if (attempt->released != NULL)
        tended_report(tended, attempt->released, false, why->message);
    tended_report(tended, old, rc == 0, rc == 0 ? "" : err->message);
    custody_released_free(old);
    return rc == 0 ? end_rotation(tended, attempt->cutover.generation, false, why->message, err)
                   : -1;
}

// A counterpart that was started again while it was asked has another secret, which it acknowledged
// before it answered.
static int take_secrets_again(struct attempt *attempt, struct error *err)
{
    for (size_t i = 0; i < attempt->cutover.peer_count; i++) {
        struct tended_peer *peer = attempt->of[i];
        if (take_acknowledgement(attempt->tended, peer, err) != 0)
            return -1;
        memcpy(attempt->cutover.peers[i].move_sha256, peer->move_sha256, sizeof peer->move_sha256);
    }
    return 0;
}

// Has packets go by the second device, where there is one.
static int take_pair(struct attempt *attempt, struct error *err)
{
    struct tended *tended = attempt->tended;
    struct error why;
    tended->by_pair = false;
    if (!paired_is_wanted(tended))
        return 0;
    if (paired_take(tended, &attempt->cutover, &why) == 0) {
        tended->by_pair = true;
        attempt->cutover.hold = NULL;
        attempt->cutover.guard = NULL;
        attempt->cutover.deadline_ms = POLL_MS;
        return 0;
    }
    if (tended->setup->method == SETUP_METHOD_PAIR) {
        *err = why;
        return -1;
    }
    tended_tell(tended, "this time by '%s', not by the pair: %s", rotation_method(tended),
                why.message);
    return 0;
}

static int cut_over(struct attempt *attempt, struct error *err)
{
    struct tended *tended = attempt->tended;
    struct error why;
    if (take_pair(attempt, err) != 0)
        return -1;
    // Last: they look closely for a moment only.
    if (cutover_ask_ready(&attempt->cutover, READY_MS, err) != 0 ||
        cutover_check_deadline(&attempt->cutover, err) != 0 ||
        take_secrets_again(attempt, err) != 0 ||
        release(tended, attempt->cutover.generation, CUSTODY_REASON_ROTATION, &attempt->released,
                err) != 0) {
        paired_return(tended);
        return -1;
    }
    enum cutover_outcome outcome =
        cutover_run(&attempt->cutover, custody_released_private_key(attempt->released), &why);
    custody_released_wipe(attempt->released);
    tended->settle_ms = device_now_ms() + SETTLE_MS;
    switch (outcome) {
    case CUTOVER_CONFIRMED:
        note_ours(tended, attempt->released);
        paired_return(tended);
        return confirm(attempt, err);
    case CUTOVER_NOT_BEGUN:
        paired_return(tended);
        tended_report(tended, attempt->released, false, why.message);
        *err = why;
        return -1;
    case CUTOVER_NOT_CONFIRMED:
        return roll_back(attempt, &why, err);
    }
    return -1;
}

static bool is_over(const struct tended *tended)
{
    return tended_now_us() > tended->view->rotation_started_us + window_us(tended);
}

// Not this time. Until the window is over it is tried again.
static int again_or_end(struct tended *tended, const struct error *why, struct error *err)
{
    if (is_over(tended))
        return end_rotation(tended, tended->view->rotation_generation, false, why->message, err);
    int64_t due = device_now_ms() + AGAIN_MS;
    if (due < tended->due_ms)
        tended->due_ms = due;
    *err = *why;
    return why->code == ERROR_OK ? 0 : -1;
}

// A counterpart with which a handshake might fail now; NULL: none.
static const char *find_busy(const struct tended *tended)
{
    for (size_t i = 0; i < tended->peer_count; i++)
        if (tended->peers[i].required && psk_is_busy(tended, &tended->peers[i]))
            return tended->peers[i].setup->host;
    return NULL;
}

int rotation_give_up(struct tended *tended, const char *why, struct error *err)
{
    return end_rotation(tended, tended->view->rotation_generation, false, why, err);
}

int rotation_go_on(struct tended *tended, const char *yield, struct error *err)
{
    struct attempt attempt;
    const char *missing;
    settle_required(tended);
    if (yield != NULL) {
        char detail[128];
        snprintf(detail, sizeof detail, "gives way to %s, which rotates, too", yield);
        return end_rotation(tended, tended->view->rotation_generation, false, detail, err);
    }
    struct error why = {.code = ERROR_OK};
    int rc = all_acknowledged(tended, &missing, &why);
    if (rc > 0) {
        snprintf(why.message, sizeof why.message, "%s has not acknowledged the new key", missing);
        return again_or_end(tended, &why, err);
    }
    if (rc < 0)
        return again_or_end(tended, &why, err);
    if ((missing = find_busy(tended)) != NULL) {
        snprintf(why.message, sizeof why.message,
                 "the preshared key with %s is being replaced: that comes first", missing);
        return again_or_end(tended, &why, err);
    }
    if (attempt_make(&attempt, tended, err) != 0)
        return -1;
    rc = cut_over(&attempt, &why);
    attempt_free(&attempt);
    if (rc == 0 || tended->rotation == 0) // ended, one way or the other
        return 0;
    return again_or_end(tended, &why, err);
}

// Whether the counterparts are reached under the key that is set. Whoever answers inside the tunnel
// (not by the pair) has moved: what we send has the new session, and is dropped before that. Of
// others a handshake is waited for, which comes only where there is no session yet.
static int prove(const struct tended *tended, struct cutover *cutover, struct error *err)
{
    bool all = !tended->by_pair;
    for (size_t i = 0; i < cutover->peer_count; i++)
        all = all && cutover->peers[i].has_move_address;
    if (all && cutover_ask_ready(cutover, READY_MS, err) == 0)
        return 0;
    return cutover_probe(cutover, TAKE_OVER_MS, err);
}

int rotation_take_over(struct tended *tended, struct error *err)
{
    struct attempt attempt;
    const char *missing;
    struct error why;
    settle_required(tended);
    // Where the registry cannot tell who has acknowledged, those with a session must confirm it.
    (void)all_acknowledged(tended, &missing, &why);
    for (size_t i = 0; i < tended->peer_count; i++)
        tended->peers[i].required |= tended->peers[i].acknowledged;
    if (attempt_make(&attempt, tended, err) != 0)
        return -1;
    attempt.cutover.hold = NULL; // nothing is held: the traffic flows as it can
    attempt.cutover.guard = NULL;
    tended->by_pair = tended->pair != NULL && pair_is_away(tended->pair);
    int rc = prove(tended, &attempt.cutover, &why);
    tended->settle_ms = device_now_ms() + SETTLE_MS;
    if (rc == 0)
        paired_return(tended);
    if (rc == 0)
        rc = end_rotation(tended, attempt.cutover.generation, true,
                          "confirmed after the applier was started again", err);
    else if (is_over(tended))
        rc = roll_back(&attempt, &why, err);
    else
        rc = again_or_end(tended, &why, err);
    attempt_free(&attempt);
    return rc;
}

int rotation_replaced(struct tended *tended, struct error *err)
{
    struct attempt attempt;
    struct error why = {.code = ERROR_OK};
    settle_required(tended);
    if (attempt_make(&attempt, tended, err) != 0)
        return -1;
    attempt.cutover.hold = NULL;
    attempt.cutover.guard = NULL;
    int rc = cutover_probe(&attempt.cutover, READY_MS, &why);
    tended->settle_ms = device_now_ms() + SETTLE_MS;
    // It is in use either way: there is nothing to go back to.
    if (rc == 0 || is_over(tended))
        rc =
            end_rotation(tended, attempt.cutover.generation, true, rc == 0 ? "" : why.message, err);
    else
        rc = again_or_end(tended, &why, err);
    attempt_free(&attempt);
    return rc;
}

int rotation_take_drops(struct tended *tended, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < tended->view->generation_count; i++) {
        const struct custody_key *key = &tended->view->generations[i];
        if (key->state != CUSTODY_KEY_COMPROMISED)
            continue;
        for (size_t j = 0; j < tended->peer_count; j++) {
            struct tended_peer *peer = &tended->peers[j];
            struct acknowledgement ack;
            if (peer->dropped_generation >= key->generation)
                continue;
            if (look_for(tended, peer, key, &ack, err) != 0)
                rc = -1;
            if (ack.state != PEER_RETIRED)
                continue;
            peer->dropped_generation = key->generation;
            tended_tell(tended, "%s has dropped generation %" PRIu64, peer->setup->host,
                        key->generation);
            record_theirs(tended, peer, key->generation, CUSTODY_PEER_ACKNOWLEDGED,
                          CUSTODY_PEER_RETIRED, NULL);
        }
    }
    return rc;
}

int rotation_settle(struct tended *tended, struct error *err)
{
    int rc = 0;
    if (tended->settle_ms == 0 || device_now_ms() < tended->settle_ms)
        return 0;
    if (tended_read(tended, err) != 0) // what was read before the cutover does not tell
        return -1;
    struct device_peer_change *changes = calloc(tended->peer_count + 1, sizeof *changes);
    if (changes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu peers",
                         tended->peer_count);
    size_t count = 0;
    for (size_t i = 0; i < tended->peer_count; i++) {
        const uint8_t *key = counterparts_key(tended, &tended->peers[i]);
        const struct device_peer *there = key != NULL ? device_view_peer(tended->there, key) : NULL;
        if (there == NULL || there->keepalive == tended->peers[i].setup->keepalive_s)
            continue;
        memcpy(changes[count].public_key, key, DEVICE_KEY_SIZE);
        changes[count].update_only = changes[count].set_keepalive = true;
        changes[count++].keepalive = (uint16_t)tended->peers[i].setup->keepalive_s;
    }
    struct device_change change = {.peers = changes, .peer_count = count};
    rc = count > 0 ? device_set(tended->device, &change, err) : 0;
    free(changes);
    if (rc == 0)
        tended->settle_ms = 0;
    return rc;
}
