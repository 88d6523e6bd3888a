// SPDX-License-Identifier: Apache-2.0
// Hold, set, handshake, move, let go; and the way back.
#include "cutover.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "pace.h"

#define STEP_MS          2   // that datagrams are waited for
#define LAST_TIMES       2   // it is sent, one right after the other: one may be lost
#define FIXED_HOLD_MS    50  // after the handshake, where nobody tells of the move; 20 do on a LAN
#define FIXED_BACK_MS    100 // the same on the way back, where the other end may look every 25 ms
#define BACK_MS          400 // and 2 round trips: that a handshake under the key before is waited for
#define ASK_AGAIN_MS     100  // a datagram may be lost
#define DRAIN_MS         50   // for what passed just before it was held
#define HELD_MAX         800  // packets that may wait: WireGuard's own queue holds 1,024
#define HELD_BACK_MAX    1000 // the same on the way back, which needs its time
#define KEEPALIVE_FORCES 25
#define ENOUGH_TRIPS     4   // round trips, and
#define ENOUGH_MS        100 // that a hold-limit should have

// ---- what the device says ----

static bool is_newer(const struct timespec *now, const struct timespec *before)
{
    return now->tv_sec != before->tv_sec || now->tv_nsec != before->tv_nsec;
}

// Sets one keepalive for all counterparts, with the private key in the same request where there is
// one.
static int set_keepalives(struct cutover *cutover, const uint8_t *private_key, uint16_t keepalive,
                          struct error *err)
{
    struct device_peer_change *changes = calloc(cutover->peer_count + 1, sizeof *changes);
    if (changes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu peers",
                         cutover->peer_count);
    for (size_t i = 0; i < cutover->peer_count; i++) {
        memcpy(changes[i].public_key, cutover->peers[i].public_key, DEVICE_KEY_SIZE);
        changes[i].update_only = true;
        changes[i].set_keepalive = true;
        changes[i].keepalive = keepalive;
    }
    struct device_change change = {
        .private_key = private_key, .peers = changes, .peer_count = cutover->peer_count};
    int rc = device_set(cutover->device, &change, err);
    free(changes);
    return rc;
}

// Takes the handshakes as they are now for those of the key before.
static int note_handshakes(struct cutover *cutover, struct error *err)
{
    struct device_view *view = NULL;
    if (device_read(cutover->device, &view, err) != 0)
        return -1;
    for (size_t i = 0; i < cutover->peer_count; i++) {
        struct cutover_peer *peer = &cutover->peers[i];
        const struct device_peer *there = device_view_peer(view, peer->public_key);
        peer->handshaken = peer->moved = false;
        peer->before = there != NULL ? there->latest_handshake : (struct timespec){0};
    }
    device_view_free(view);
    return 0;
}

static int look_at_handshakes(struct cutover *cutover, struct error *err)
{
    struct device_view *view = NULL;
    if (device_read(cutover->device, &view, err) != 0)
        return -1;
    for (size_t i = 0; i < cutover->peer_count; i++) {
        struct cutover_peer *peer = &cutover->peers[i];
        const struct device_peer *there = device_view_peer(view, peer->public_key);
        if (peer->handshaken || there == NULL || !is_newer(&there->latest_handshake, &peer->before))
            continue;
        peer->handshaken = true;
        peer->handshaken_ms = device_now_ms();
    }
    device_view_free(view);
    return 0;
}

// ---- datagrams ----

static struct cutover_peer *find_sender(struct cutover *cutover, const struct move *move,
                                        const union device_endpoint *from)
{
    if (strcmp(move->host, cutover->own_host) != 0 || strcmp(move->key, cutover->own_key) != 0 ||
        move->generation != cutover->generation)
        return NULL;
    for (size_t i = 0; i < cutover->peer_count; i++)
        if (cutover->peers[i].has_move_address &&
            device_endpoint_equal(&cutover->peers[i].move_address, from))
            return &cutover->peers[i];
    return NULL;
}

// Takes the answer to one of our askings: its bytes are those of `nonce`, the last of which counts
// the askings.
static void take_ready(struct cutover *cutover, struct cutover_peer *peer, const struct move *move,
                       const uint8_t nonce[MOVES_SECRET_SIZE])
{
    unsigned asking = move->bytes[MOVES_SECRET_SIZE - 1];
    if (sodium_memcmp(move->bytes, nonce, MOVES_SECRET_SIZE - 1) != 0 || asking >= cutover->asks)
        return;
    int took_ms = (int)(device_now_ms() - cutover->asked_ms[asking]);
    if (!peer->ready && took_ms >= cutover->round_trip_ms) {
        cutover->round_trip_ms = took_ms;
        cutover->farthest = peer->host;
    }
    peer->ready = true;
}

static void take_datagrams(struct cutover *cutover, const uint8_t nonce[MOVES_SECRET_SIZE])
{
    struct move move;
    union device_endpoint from;
    while (cutover->moves != NULL && moves_take(cutover->moves, &move, &from) == 1) {
        uint8_t digest[crypto_hash_sha256_BYTES];
        struct cutover_peer *peer = find_sender(cutover, &move, &from);
        if (peer == NULL)
            continue;
        if (move.kind == MOVE_READY && nonce != NULL)
            take_ready(cutover, peer, &move, nonce);
        crypto_hash_sha256(digest, move.bytes, sizeof move.bytes);
        if (move.kind == MOVE_MOVED && sodium_memcmp(digest, peer->move_sha256, sizeof digest) == 0)
            peer->moved = true;
    }
}

static void wait_ms(struct cutover *cutover, int ms)
{
    struct pollfd fd = {.fd = cutover->moves != NULL ? moves_fd(cutover->moves) : -1,
                        .events = POLLIN};
    (void)poll(&fd, 1, ms); // too short a wait is as good
}

// Names those for whom `is_there` does not hold; 0 when there are none.
static int name_missing(const struct cutover *cutover,
                        bool (*is_there)(const struct cutover_peer *), const char *what,
                        struct error *err)
{
    char names[256] = "";
    size_t used = 0, missing = 0;
    for (size_t i = 0; i < cutover->peer_count; i++) {
        if (is_there(&cutover->peers[i]))
            continue;
        missing++;
        int n = snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "",
                         cutover->peers[i].host);
        if (n > 0 && (size_t)n < sizeof names - used)
            used += (size_t)n;
    }
    return missing == 0 ? 0 : error_set(err, ERROR_DEADLINE_EXCEEDED, "%s: %s", what, names);
}

static bool is_ready(const struct cutover_peer *peer)
{
    return peer->ready || !peer->has_move_address;
}

static bool is_handshaken(const struct cutover_peer *peer)
{
    return peer->handshaken;
}

static bool is_moved(const struct cutover_peer *peer)
{
    if (peer->has_move_address)
        return peer->handshaken && peer->moved;
    return peer->handshaken && device_now_ms() >= peer->handshaken_ms + FIXED_HOLD_MS;
}

// Nobody tells of the move back.
static bool is_back(const struct cutover_peer *peer)
{
    return peer->handshaken && device_now_ms() >= peer->handshaken_ms + FIXED_BACK_MS;
}

static void ask(struct cutover *cutover, struct move *ask)
{
    if (cutover->moves == NULL || cutover->asks == CUTOVER_ASKS_MAX)
        return;
    ask->bytes[MOVES_SECRET_SIZE - 1] = (uint8_t)cutover->asks;
    cutover->asked_ms[cutover->asks++] = device_now_ms();
    for (size_t i = 0; i < cutover->peer_count; i++)
        if (!is_ready(&cutover->peers[i]))
            moves_send(cutover->moves, ask, &cutover->peers[i].move_address);
}

// Says to each that what comes after this comes under the next key. It goes the way of all packets;
// the holding follows within microseconds.
static void tell_last(struct cutover *cutover)
{
    struct move last = {.kind = MOVE_LAST, .generation = cutover->generation};
    snprintf(last.host, sizeof last.host, "%s", cutover->own_host);
    snprintf(last.key, sizeof last.key, "%s", cutover->own_key);
    for (size_t i = 0; i < LAST_TIMES * cutover->peer_count; i++) {
        const struct cutover_peer *peer = &cutover->peers[i % cutover->peer_count];
        if (cutover->moves != NULL && peer->has_move_address)
            moves_send(cutover->moves, &last, &peer->move_address);
    }
}

int cutover_ask_ready(struct cutover *cutover, int timeout_ms, struct error *err)
{
    static const char what[] = "no applier answers inside the tunnel";
    struct move question = {.kind = MOVE_ASK, .generation = cutover->generation};
    int64_t now = device_now_ms(), deadline = now + timeout_ms, ask_ms = now;
    snprintf(question.host, sizeof question.host, "%s", cutover->own_host);
    snprintf(question.key, sizeof question.key, "%s", cutover->own_key);
    randombytes_buf(question.bytes, sizeof question.bytes);
    cutover->asks = 0;
    for (size_t i = 0; i < cutover->peer_count; i++)
        cutover->peers[i].ready = false;
    while (name_missing(cutover, is_ready, what, NULL) != 0 && now < deadline) {
        if (now >= ask_ms) {
            ask(cutover, &question);
            ask_ms = now + ASK_AGAIN_MS;
        }
        wait_ms(cutover, STEP_MS);
        take_datagrams(cutover, question.bytes);
        now = device_now_ms();
    }
    return name_missing(cutover, is_ready, what, err);
}

int cutover_check_deadline(const struct cutover *cutover, struct error *err)
{
    if (cutover->hold == NULL || cutover->farthest == NULL ||
        2 * cutover->round_trip_ms < cutover->deadline_ms)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "%s is %d ms away (there and back): packets would wait longer than the "
                     "hold-limit of %d ms; %d would do",
                     cutover->farthest, cutover->round_trip_ms, cutover->deadline_ms,
                     ENOUGH_TRIPS * cutover->round_trip_ms + ENOUGH_MS);
}

// ---- cutting over ----

// Whether so much waits that letting it go would lose some.
static bool is_full(struct cutover *cutover)
{
    struct hold_pending pending;
    return cutover->hold != NULL && hold_pending(cutover->hold, &pending, NULL) == 0 &&
           pending.packets >= cutover->held_max;
}

static bool have_all_told(const struct cutover *cutover)
{
    for (size_t i = 0; i < cutover->peer_count; i++)
        if (!cutover->peers[i].has_move_address || !cutover->peers[i].moved)
            return false;
    return true;
}

// Looks at the device, if a look is due (a datagram of each of many counterparts wakes us as
// often), or all have told.
static int look_when_due(struct cutover *cutover, int64_t *due_ms, struct error *err)
{
    int64_t begun = device_now_ms();
    if (begun < *due_ms && !have_all_told(cutover))
        return 0;
    if (look_at_handshakes(cutover, err) != 0)
        return -1;
    int64_t now = device_now_ms();
    *due_ms = now + pace_of_own(now - begun);
    return 0;
}

// Waits until `is_done` holds for all. -1 with `err` at the deadline.
static int await(struct cutover *cutover, bool (*is_done)(const struct cutover_peer *),
                 int64_t deadline, const char *what, struct error *err)
{
    int64_t look_ms = 0;
    for (;;) {
        take_datagrams(cutover, NULL);
        if (look_when_due(cutover, &look_ms, err) != 0)
            return -1;
        if (name_missing(cutover, is_done, what, NULL) == 0)
            return 0;
        if (device_now_ms() >= deadline)
            return name_missing(cutover, is_done, what, err);
        if (is_full(cutover))
            return error_set(err, ERROR_DEADLINE_EXCEEDED,
                             "%u packets wait already: more could not be let go without loss",
                             cutover->held_max);
        wait_ms(cutover, STEP_MS);
    }
}

// Tells the counterparts, and holds where that can be done: then nothing more goes under the key
// that is set. -1 with nothing held.
static int end_sending(struct cutover *cutover, struct error *err)
{
    hold_guard_tell(cutover->guard, true);
    tell_last(cutover);
    if (cutover->hold == NULL)
        return 0;
    if (hold_begin(cutover->hold, err) != 0) {
        hold_guard_tell(cutover->guard, false);
        return -1;
    }
    (void)hold_drain(cutover->hold, DRAIN_MS, NULL); // or else a few may be lost
    return 0;
}

enum cutover_outcome cutover_run(struct cutover *cutover, const uint8_t *private_key,
                                 struct error *err)
{
    // A keepalive forces a handshake only where it was off.
    if (set_keepalives(cutover, NULL, 0, err) != 0 || note_handshakes(cutover, err) != 0)
        return CUTOVER_NOT_BEGUN;
    if (cutover->hold != NULL)
        hold_prepare(cutover->hold);
    int64_t begun = device_now_ms();
    cutover->held_max = HELD_MAX;
    if (end_sending(cutover, err) != 0)
        return CUTOVER_NOT_BEGUN;
    if (set_keepalives(cutover, private_key, KEEPALIVE_FORCES, err) != 0) {
        // It may be set all the same: only setting the one before makes that sure.
        return CUTOVER_NOT_CONFIRMED;
    }
    int rc = await(cutover, is_moved, begun + cutover->deadline_ms,
                   "no handshake, or no word that the allowed-ips moved, within the deadline", err);
    if (rc != 0)
        return CUTOVER_NOT_CONFIRMED;
    cutover_let_go(cutover);
    cutover->held_ms = (int)(device_now_ms() - begun);
    return CUTOVER_CONFIRMED;
}

int cutover_back(struct cutover *cutover, const uint8_t *private_key, struct error *err)
{
    struct error unimportant;
    int rc = 0;
    cutover->held_max = HELD_BACK_MAX;
    if (set_keepalives(cutover, NULL, 0, err) != 0 || note_handshakes(cutover, err) != 0 ||
        set_keepalives(cutover, private_key, KEEPALIVE_FORCES, err) != 0)
        rc = -1;
    else
        (void)await(cutover, is_back, device_now_ms() + BACK_MS + 2 * cutover->round_trip_ms,
                    "no handshake", &unimportant); // the traffic must go on in any case
    cutover_let_go(cutover);
    return rc;
}

void cutover_let_go(struct cutover *cutover)
{
    struct error err;
    // A failure leaves the interface held: so it is tried until it works, or the interface is gone.
    for (int attempt = 0; cutover->hold != NULL && attempt < 100; attempt++) {
        if (hold_end(cutover->hold, &err) == 0 || err.code == ERROR_NOT_FOUND) {
            hold_guard_tell(cutover->guard, false);
            return;
        }
        wait_ms(cutover, 10);
    }
}

int cutover_probe(struct cutover *cutover, int timeout_ms, struct error *err)
{
    if (set_keepalives(cutover, NULL, 0, err) != 0 || note_handshakes(cutover, err) != 0 ||
        set_keepalives(cutover, NULL, KEEPALIVE_FORCES, err) != 0)
        return -1;
    return await(cutover, is_handshaken, device_now_ms() + timeout_ms,
                 "no handshake under the key that is set", err);
}
