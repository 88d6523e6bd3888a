// SPDX-License-Identifier: Apache-2.0
// The second device of an interface under care.
#include "paired.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "counterparts.h"
#include "pair.h"

#define READY_MS    2000 // for answers by the second device: a handshake may have to come first
#define TURN_MS     1000 // that a counterpart has to begin a handshake by the second device
#define LATER_MS    3000 // counterparts look at their handshakes once a second at the least
#define CHANGES_MAX 3    // to the second device's peers, of one counterpart
#define KEEPALIVE_S 25   // keeps its sessions, and its addresses behind NAT

static void say(struct tended *tended, const struct error *err)
{
    if (strcmp(err->message, tended->pair_last.message) == 0)
        return;
    tended->pair_last = *err;
    tended_tell(tended, "pair: %s", err->message);
}

bool paired_is_wanted(const struct tended *tended)
{
    return tended->setup->pair[0] != '\0' && tended->world->registry != NULL &&
           (tended->setup->method == SETUP_METHOD_PAIR ||
            tended->setup->method == SETUP_METHOD_AUTO);
}

// ---- opening and closing ----

void paired_close(struct tended *tended)
{
    struct error err;
    if (tended->pair != NULL && pair_is_away(tended->pair) &&
        pair_come_back(tended->pair, &err) != 0)
        say(tended, &err);
    pair_close(tended->pair);
    tended->pair = NULL;
}

void paired_find(struct tended *tended)
{
    struct error err;
    union device_endpoint own;
    if (tended->pair != NULL || !paired_is_wanted(tended))
        return;
    tended_move_address(tended, &own);
    if (pair_open(&tended->pair, tended->setup->name, tended->setup->pair,
                  tended->world->settings->backend, &own, &err) != 0) {
        tended->pair = NULL;
        say(tended, &err);
        return;
    }
    tended->pair_last.message[0] = '\0';
    tended_tell(tended, "'%s' is its pair: in a rotation packets go by it, and none waits",
                tended->setup->pair);
}

// What cannot be done now. A device that is gone is opened anew when it is back.
static void complain(struct tended *tended, const struct error *err)
{
    say(tended, err);
    if (err->code == ERROR_NOT_FOUND)
        paired_close(tended);
}

// ---- its key ----

static bool is_key(const uint8_t a[DEVICE_KEY_SIZE], const uint8_t b[DEVICE_KEY_SIZE])
{
    return sodium_memcmp(a, b, DEVICE_KEY_SIZE) == 0;
}

// Has the peers that can be reached shake hands now: a new key has no session. What makes WireGuard
// ask is a keepalive that is turned on: one that is on is turned off before, and one that is off,
// off again.
static int wake(struct tended *tended, const struct device_view *second, struct error *err)
{
    struct device_peer_change *changes = calloc(second->peer_count + 1, sizeof *changes);
    struct device_change change = {.peers = changes};
    int rc = 0;
    if (changes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for peers of '%s'",
                         tended->setup->pair);
    for (int step = 0; step < 2 && rc == 0; step++) {
        change.peer_count = 0;
        for (size_t i = 0; i < second->peer_count; i++) {
            const struct device_peer *peer = &second->peers[i];
            if (peer->keepalive == 0 && !peer->has_endpoint)
                continue;
            struct device_peer_change *one = &changes[change.peer_count++];
            memcpy(one->public_key, peer->public_key, DEVICE_KEY_SIZE);
            one->update_only = one->set_keepalive = true;
            one->keepalive = peer->keepalive;
            if (step == 0)
                one->keepalive = peer->keepalive == 0 ? KEEPALIVE_S : 0;
        }
        rc = device_set(pair_device(tended->pair), &change, err);
    }
    free(changes);
    return rc;
}

static int release_key(struct tended *tended, const struct custody_key *active, bool first,
                       struct error *err)
{
    struct apply_task task = {.interface = tended->setup->pair,
                              .key = tended->setup->key,
                              .generation = active->generation,
                              .reason = first ? CUSTODY_REASON_BOOT : CUSTODY_REASON_RESTORE};
    struct apply_report report;
    enum apply_outcome outcome = apply_once(tended->world->settings, &task, &report, err);
    if (outcome != APPLY_CONFIRMED && outcome != APPLY_CURRENT)
        return -1;
    tended_tell(tended, "pair: key '%s' generation %" PRIu64 " set on '%s'", tended->setup->key,
                active->generation, tended->setup->pair);
    return 0;
}

static int set_key(struct tended *tended, struct error *err)
{
    const struct custody_key *active = plan_in_state(tended->view, CUSTODY_KEY_ACTIVE);
    struct device_view *second = NULL;
    // The interface itself goes first.
    if (active == NULL || tended->view->suspended || tended->world->custody == NULL ||
        !is_key(active->public_key, tended->there->public_key))
        return 0;
    if (device_read(pair_device(tended->pair), &second, err) != 0)
        return -1;
    int rc = 0;
    if (!is_key(second->public_key, active->public_key)) {
        bool first = sodium_is_zero(second->public_key, DEVICE_KEY_SIZE);
        rc = release_key(tended, active, first, err);
        if (rc == 0)
            rc = wake(tended, second, err);
    }
    device_view_free(second);
    return rc;
}

static void return_when_due(struct tended *tended)
{
    int64_t now = device_now_ms();
    if (now >= tended->pair_back_ms)
        paired_return(tended);
    else if (tended->pair_back_ms < tended->due_ms)
        tended->due_ms = tended->pair_back_ms;
}

void paired_tend_key(struct tended *tended, const struct plan_own *own)
{
    struct error err;
    if (tended->pair == NULL)
        return;
    if (pair_is_away(tended->pair) && own->kind == PLAN_NOTHING)
        return_when_due(tended);
    if (!pair_is_away(tended->pair) && set_key(tended, &err) != 0)
        complain(tended, &err);
}

// ---- its peers ----

// The peer that has the first of these allowed-ips; NULL: none.
static const struct device_peer *find_holder(const struct device_view *view,
                                             const struct device_peer *like)
{
    for (size_t i = 0; i < view->peer_count; i++)
        for (size_t j = 0; j < view->peers[i].allowed_count; j++)
            if (device_allowed_ip_equal(&view->peers[i].allowed_ips[j], &like->allowed_ips[0]))
                return &view->peers[i];
    return NULL;
}

// `there`: the peer as it is on the second device, NULL where it is not; what it has not is the
// holder's, whose place it takes.
static void fill_peer(struct device_peer_change *change, const struct tended_peer *peer,
                      const uint8_t *public_key, const struct device_peer *there,
                      const struct device_peer *holder)
{
    const struct setup_endpoint *configured = &peer->setup->pair_endpoint;
    memcpy(change->public_key, public_key, DEVICE_KEY_SIZE);
    if (holder != NULL && (there == NULL || !there->has_endpoint)) {
        change->set_endpoint = holder->has_endpoint;
        change->endpoint = holder->endpoint;
    }
    if (holder != NULL && there == NULL)
        change->copy_preshared_from = holder->public_key;
    if (configured->address.family != 0) {
        change->set_endpoint = true;
        change->endpoint = counterparts_endpoint(configured);
    }
}

// Whether to have a keepalive on, which begins a handshake where there is no session. That is first
// the turn of the one whose key is new: of two initiations that cross, each end drops its own, and
// WireGuard begins again after 5 s only.
static bool is_our_turn(struct tended *tended, struct tended_peer *peer,
                        const struct device_peer *there)
{
    int64_t now = device_now_ms();
    if (there != NULL && there->latest_handshake.tv_sec != 0) {
        peer->pair_turn_ms = 0;
        return true;
    }
    if (peer->pair_turn_ms == 0)
        peer->pair_turn_ms = now + TURN_MS;
    if (now >= peer->pair_turn_ms)
        return true;
    if (peer->pair_turn_ms < tended->due_ms)
        tended->due_ms = peer->pair_turn_ms;
    return false;
}

// Adds what one counterpart's keys need; returns the number of changes, CHANGES_MAX at most.
static size_t mirror(struct tended *tended, struct tended_peer *peer,
                     const struct device_view *second, struct device_peer_change *changes)
{
    const struct counterpart_says *says = &peer->says;
    const struct device_peer *active =
        says->has_active ? device_view_peer(tended->there, says->active.public_key) : NULL;
    const struct device_peer *next =
        says->has_pre_active ? device_view_peer(tended->there, says->pre_active.public_key) : NULL;
    size_t count = 0;
    if (active == NULL || active->allowed_count == 0)
        return 0;
    const struct device_peer *holder = find_holder(second, active);
    const struct device_peer *there = device_view_peer(second, active->public_key);
    bool awake = peer->setup->pair_endpoint.address.family != 0 && is_our_turn(tended, peer, there);
    // It lacks the keepalive where a process ended while it woke its peers.
    if (there == NULL || !device_allowed_ips_equal(there, active) ||
        (awake && there->keepalive == 0)) {
        struct device_peer_change *change = &changes[count++];
        fill_peer(change, peer, active->public_key, there, holder);
        change->allowed_ips = active->allowed_ips;
        change->allowed_count = active->allowed_count;
        change->replace_allowed_ips =
            device_has_other_allowed_ips(there, active->allowed_ips, active->allowed_count);
        change->set_keepalive = awake;
        change->keepalive = KEEPALIVE_S;
        if (holder != NULL && holder != there) {
            memcpy(changes[count].public_key, holder->public_key, DEVICE_KEY_SIZE);
            changes[count].update_only = changes[count].set_keepalive = true;
            count++;
        }
    }
    if (next != NULL && device_view_peer(second, next->public_key) == NULL)
        fill_peer(&changes[count++], peer, next->public_key, NULL, holder);
    return count;
}

static int set_peers(struct tended *tended, const struct device_view *second, struct error *err)
{
    struct device_peer_change *changes =
        calloc(CHANGES_MAX * tended->peer_count + second->peer_count + 1, sizeof *changes);
    size_t count = 0;
    if (changes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for peers of '%s'",
                         tended->setup->pair);
    for (size_t i = 0; i < tended->peer_count; i++)
        count += mirror(tended, &tended->peers[i], second, &changes[count]);
    for (size_t i = 0; i < second->peer_count; i++) {
        if (device_view_peer(tended->there, second->peers[i].public_key) != NULL)
            continue;
        memcpy(changes[count].public_key, second->peers[i].public_key, DEVICE_KEY_SIZE);
        changes[count++].remove = true;
    }
    struct device_change change = {.peers = changes, .peer_count = count};
    int rc = count > 0 ? device_set(pair_device(tended->pair), &change, err) : 0;
    free(changes);
    return rc;
}

static bool same_preshared(const struct device_peer *a, const struct device_peer *b)
{
    return a->has_preshared == b->has_preshared &&
           sodium_memcmp(a->preshared_tag, b->preshared_tag, sizeof a->preshared_tag) == 0;
}

// What is sent by it must be no less protected.
static int mirror_preshared(struct tended *tended, const struct device_view *second,
                            struct error *err)
{
    uint8_t(*differ)[DEVICE_KEY_SIZE] = calloc(second->peer_count + 1, sizeof *differ);
    size_t count = 0;
    if (differ == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for peers of '%s'",
                         tended->setup->pair);
    for (size_t i = 0; i < second->peer_count; i++) {
        const struct device_peer *there = &second->peers[i];
        const struct device_peer *peer = device_view_peer(tended->there, there->public_key);
        if (peer != NULL && !same_preshared(there, peer))
            memcpy(differ[count++], there->public_key, DEVICE_KEY_SIZE);
    }
    int rc = device_copy_preshared(tended->device, pair_device(tended->pair),
                                   (const uint8_t(*)[DEVICE_KEY_SIZE])differ, count, err);
    free(differ);
    return rc;
}

void paired_tend_peers(struct tended *tended)
{
    struct error err;
    struct device_view *second = NULL;
    if (tended->pair == NULL)
        return;
    int rc = device_read(pair_device(tended->pair), &second, &err);
    if (rc == 0)
        rc = set_peers(tended, second, &err);
    if (rc == 0)
        rc = mirror_preshared(tended, second, &err);
    device_view_free(second);
    if (rc != 0)
        complain(tended, &err);
}

// ---- in a rotation ----

// Whether whatever is sent by the interface could go by the second device, and no less protected.
static int check_alike(const struct tended *tended, const struct device_view *second,
                       struct error *err)
{
    if (!is_key(second->public_key, tended->there->public_key))
        return error_set(err, ERROR_FAILED_PRECONDITION, "'%s' has another key",
                         tended->setup->pair);
    for (size_t i = 0; i < tended->there->peer_count; i++) {
        const struct device_peer *peer = &tended->there->peers[i];
        const struct device_peer *there = device_view_peer(second, peer->public_key);
        if (peer->allowed_count == 0)
            continue;
        if (there == NULL || !device_allowed_ips_equal(there, peer))
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "'%s' does not have each peer of '%s' with its allowed-ips",
                             tended->setup->pair, tended->setup->name);
        if (!same_preshared(there, peer))
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "a peer of '%s' has not the preshared key that it has on '%s'",
                             tended->setup->pair, tended->setup->name);
    }
    return 0;
}

static int check_second(struct tended *tended, struct error *err)
{
    struct device_view *second = NULL;
    if (device_read(pair_device(tended->pair), &second, err) != 0)
        return -1;
    int rc = check_alike(tended, second, err);
    device_view_free(second);
    return rc;
}

int paired_take(struct tended *tended, const struct cutover *cutover, struct error *err)
{
    struct cutover by_pair = *cutover;
    if (tended->pair == NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION, "the pair '%s' cannot be used: %s",
                         tended->setup->pair, tended->pair_last.message);
    if (check_second(tended, err) != 0)
        return -1;
    for (size_t i = 0; i < cutover->peer_count; i++)
        if (!cutover->peers[i].has_move_address)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "%s has no move-address: it cannot be asked by '%s'",
                             cutover->peers[i].host, tended->setup->pair);
    by_pair.moves = pair_moves(tended->pair);
    if (cutover_ask_ready(&by_pair, READY_MS, err) != 0)
        return error_prefix(err, "by '%s'", tended->setup->pair);
    return pair_go_away(tended->pair, err);
}

void paired_return(struct tended *tended)
{
    struct error err;
    if (tended->pair != NULL && pair_come_back(tended->pair, &err) != 0)
        say(tended, &err); // a pass tries again
}

void paired_return_later(struct tended *tended)
{
    tended->pair_back_ms = device_now_ms() + LATER_MS;
}
