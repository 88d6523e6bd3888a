// SPDX-License-Identifier: Apache-2.0
// One interface under care: opened when it appears, looked at in passes.
#include "tended.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "counterparts.h"
#include "drifts.h"
#include "own_notes.h"
#include "pace.h"
#include "paired.h"
#include "psk.h"
#include "retry.h"
#include "rotation.h"

#define LOOK_MS       60000 // a pass at least that often, whatever was told
#define GRACE_LEAST_S 300
#define HOLD_BYTES    HOLD_LIMIT_DEFAULT

int64_t tended_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void tended_tell(const struct tended *tended, const char *format, ...)
{
    char text[ERROR_MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s\n", tended->setup->name, text);
}

void tended_say(struct tended *tended, const struct error *err)
{
    if (strcmp(err->message, tended->last.message) == 0)
        return;
    tended->last = *err;
    tended_tell(tended, "%s", err->message);
}

int tended_from_library(const struct tended *tended, const struct custody_error *theirs,
                        const char *doing, struct error *err)
{
    return error_set(err, (enum error_code)theirs->code, "key '%s': %s: %s: %s", tended->setup->key,
                     doing, custody_code_name(theirs->code), theirs->message);
}

void tended_report(struct tended *tended, const struct custody_released *released, bool applied,
                   const char *detail)
{
    struct custody_error theirs = {0};
    struct error err;
    if (custody_report_outcome(tended->world->custody, custody_released_lease(released), applied,
                               detail, &theirs) == 0)
        return;
    (void)tended_from_library(tended, &theirs, "the outcome could not be reported", &err);
    tended_say(tended, &err);
}

int64_t tended_grace_us(const struct tended *tended)
{
    int64_t seconds = 2 * tended->interval_s;
    if (seconds < GRACE_LEAST_S)
        seconds = GRACE_LEAST_S;
    if (tended->setup->grace_s != 0)
        seconds = tended->setup->grace_s;
    return seconds * 1000000;
}

// ---- making one ----

static int make_peer(struct tended_peer *peer, const struct setup_peer *setup, struct error *err)
{
    peer->setup = setup;
    peer->look = true;
    snprintf(peer->folder, sizeof peer->folder, "%s/%s", setup->host, setup->key);
    peer->counterpart = counterpart_new(setup->host, setup->key);
    peer->acknowledgements = acknowledgements_new(setup->host, setup->key);
    peer->psk.reader = psk_notes_new(setup->host, setup->key);
    if (peer->counterpart == NULL || peer->acknowledgements == NULL || peer->psk.reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for counterpart '%s'",
                         setup->host);
    return 0;
}

static int compare_peers(const void *a, const void *b)
{
    return strcmp((*(struct tended_peer *const *)a)->folder,
                  (*(struct tended_peer *const *)b)->folder);
}

struct tended *tended_new(struct tended_world *world, const struct setup_interface *setup,
                          struct error *err)
{
    struct tended *tended = calloc(1, sizeof *tended);
    struct tended_peer *peers = calloc(setup->peer_count + 1, sizeof *peers);
    struct tended_peer **by_folder = calloc(setup->peer_count + 1, sizeof(struct tended_peer *));
    if (tended == NULL || peers == NULL || by_folder == NULL) {
        free(tended);
        free(peers);
        free(by_folder);
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for interface '%s'", setup->name);
        return NULL;
    }
    tended->world = world;
    tended->setup = setup;
    tended->peers = peers;
    tended->by_folder = by_folder;
    tended->follow_ms = INT64_MAX;
    tended->dirty = true;
    for (size_t i = 0; i < setup->peer_count; i++) {
        tended->peer_count++;
        if (make_peer(&peers[i], &setup->peers[i], err) != 0) {
            tended_free(tended);
            return NULL;
        }
        by_folder[i] = &peers[i];
    }
    qsort(by_folder, tended->peer_count, sizeof(struct tended_peer *), compare_peers);
    return tended;
}

static void close_interface(struct tended *tended)
{
    struct error err;
    paired_close(tended);
    moves_close(tended->moves);
    hold_guard_stop(tended->guard);
    if (hold_close(tended->hold, &err) != 0 && err.code != ERROR_NOT_FOUND)
        tended_say(tended, &err);
    device_view_free(tended->there);
    device_close(tended->device);
    tended->moves = NULL;
    tended->hold = NULL;
    tended->guard = NULL;
    tended->there = NULL;
    tended->device = NULL;
    tended->present = false;
    tended->follow_ms = INT64_MAX;
}

void tended_free(struct tended *tended)
{
    if (tended == NULL)
        return;
    close_interface(tended);
    for (size_t i = 0; i < tended->peer_count; i++) {
        counterpart_free(tended->peers[i].counterpart);
        acknowledgements_free(tended->peers[i].acknowledgements);
        psk_notes_free(tended->peers[i].psk.reader);
        sodium_memzero(tended->peers[i].secret, sizeof tended->peers[i].secret);
    }
    custody_view_free(tended->view);
    free(tended->by_folder);
    free(tended->peers);
    free(tended);
}

// ---- the interface ----

// Where neither plug nor tbf can be had the rotation is done without holding, which may lose a few
// packets: that is said, and recorded with the rotation.
static void open_hold(struct tended *tended)
{
    static const enum hold_kind kinds[] = {
        [SETUP_HOLD_AUTO] = HOLD_AUTO, [SETUP_HOLD_PLUG] = HOLD_PLUG, [SETUP_HOLD_TBF] = HOLD_TBF};
    struct error err;
    if (tended->world->registry == NULL || tended->setup->method == SETUP_METHOD_POLL ||
        tended->setup->method == SETUP_METHOD_PAIR)
        return;
    if (hold_open(&tended->hold, tended->setup->name, kinds[tended->setup->hold], HOLD_BYTES,
                  &err) != 0) {
        tended->hold = NULL;
        error_prefix(&err, "packets cannot be held: a rotation may lose a few");
        tended_say(tended, &err);
        return;
    }
    if (hold_attached_now(tended->hold)) {
        tended_tell(tended,
                    "qdisc %s attached to hold packets with (custody-applier up, before there is "
                    "traffic, loses none)",
                    hold_kind_name(hold_kind(tended->hold)));
    }
    if (hold_guard_start(&tended->guard, tended->setup->name, &err) != 0) {
        tended->guard = NULL;
        tended_say(tended, &err);
    }
}

bool tended_move_address(const struct tended *tended, union device_endpoint *address)
{
    const struct setup_address *own = &tended->setup->move_address;
    *address = setup_socket_address(own, tended->setup->move_port);
    return own->family != 0;
}

static void open_moves(struct tended *tended)
{
    union device_endpoint address;
    struct error err;
    if (!tended_move_address(tended, &address))
        return;
    if (moves_open(&tended->moves, tended->setup->name, &address, &err) != 0) {
        tended->moves = NULL;
        tended_say(tended, &err);
    }
}

void tended_find(struct tended *tended)
{
    const struct device_ops *ops =
        device_select(tended->world->settings->backend, tended->setup->name);
    struct device_identity identity;
    struct error err;
    bool found = ops->find(tended->setup->name, &identity, &err) == 0;
    if (tended->present && found && device_identity_equal(&identity, &tended->identity)) {
        if (tended->pair == NULL && paired_is_wanted(tended))
            tended->dirty = true; // it may be the pair that has come
        return;
    }
    if (tended->present)
        tended_tell(tended, "the interface is gone");
    close_interface(tended);
    if (!found || device_open(&tended->device, tended->setup->name,
                              tended->world->settings->backend, &err) != 0) {
        tended->device = NULL;
        return;
    }
    tended->identity = identity;
    tended->present = true;
    tended->keyed = false; // what a new interface lacks is not lost but not there yet
    tended->inherited = false;
    for (size_t i = 0; i < tended->peer_count; i++)
        tended->peers[i].whole = false;
    tended->dirty = true;
    open_hold(tended);
    open_moves(tended);
}

int tended_read(struct tended *tended, struct error *err)
{
    struct device_view *view = NULL;
    if (device_read(tended->device, &view, err) != 0)
        return -1;
    device_view_free(tended->there);
    tended->there = view;
    tended->read_ms = device_now_ms();
    tended->read_sent = device_messages(tended->device).sent;
    return 0;
}

int tended_read_again(struct tended *tended, struct error *err)
{
    bool same = tended->there != NULL && device_messages(tended->device).sent == tended->read_sent;
    return same ? 0 : tended_read(tended, err);
}

int tended_ask(struct tended *tended, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_view *view = NULL;
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_get_view(tended->world->custody, tended->setup->key, &view, &theirs) != 0)
        return tended_from_library(tended, &theirs, "asking for its state", err);
    custody_view_free(tended->view);
    tended->view = view;
    tended->view_old = false;
    return 0;
}

// ---- a pass ----

static struct plan_own plan_own_key(const struct tended *tended)
{
    return plan_for_own(tended->view, tended->there->public_key, tended->seen_before,
                        tended->has_ours ? tended->ours : NULL);
}

// Somebody else has set another key on an interface that had ours. (None at all is as after a
// restart: set.)
static bool is_foreign(const struct tended *tended, const struct plan_own *own)
{
    return own->kind == PLAN_SET_KEY && own->reason == CUSTODY_REASON_RESTORE && tended->keyed &&
           !sodium_is_zero(tended->there->public_key, DEVICE_KEY_SIZE);
}

// Its key was taken off an interface that had one, as `wg setconf` does with a file without one.
static bool has_lost_key(const struct tended *tended)
{
    return tended->keyed && sodium_is_zero(tended->there->public_key, DEVICE_KEY_SIZE);
}

// A key that no generation of the log has, on an interface that is under custody already.
static bool has_unknown_key(const struct tended *tended)
{
    const struct custody_view *view = tended->view;
    const uint8_t *there = tended->there->public_key;
    if (plan_in_state(view, CUSTODY_KEY_ACTIVE) == NULL)
        return false;
    for (size_t i = 0; i < view->generation_count; i++)
        if (sodium_memcmp(view->generations[i].public_key, there, DEVICE_KEY_SIZE) == 0)
            return false;
    return !sodium_is_zero(there, DEVICE_KEY_SIZE);
}

// What an interface without a key lacks besides is not somebody's change of it: it is put there, as
// on a new one. What the log does not explain is recorded before it is gone.
static int set_own_key(struct tended *tended, const struct plan_own *own, struct error *err)
{
    bool lost = has_lost_key(tended);
    if ((lost || has_unknown_key(tended)) && drifts_tell(tended, err) != 0)
        return -1;
    for (size_t i = 0; lost && i < tended->peer_count; i++)
        tended->peers[i].whole = false;
    if (lost)
        tended->inherited = false;
    return rotation_set_key(tended, own, err);
}

// The registry tells where the counterparts are reached inside the tunnel; without it there is
// another way.
static int take_over(struct tended *tended, struct error *err)
{
    struct error unimportant;
    if (tended->world->registry != NULL)
        (void)counterparts_read(tended, &unimportant);
    tended_changed(tended, NULL); // the next pass does something about what it says
    return rotation_take_over(tended, err);
}

static int tend_own_key(struct tended *tended, struct error *err)
{
    struct plan_own own = plan_own_key(tended);
    paired_find(tended);
    if (is_foreign(tended, &own))
        return 0; // drift
    if (own.kind == PLAN_SET_KEY)
        return set_own_key(tended, &own, err);
    if (own.kind == PLAN_TAKE_OVER)
        return take_over(tended, err);
    if (own.kind == PLAN_NOTHING && own.generation != 0)
        tended->seen_before = true;
    if (own.generation != 0) {
        tended->inherited |= !tended->keyed && !tended->has_ours;
        tended->keyed = true;
    }
    paired_tend_key(tended, &own);
    return 0;
}

static int tend_rotation(struct tended *tended, const char *yield, struct error *err)
{
    struct plan_own own = plan_own_key(tended);
    if (rotation_take_drops(tended, err) != 0)
        return -1;
    if (is_foreign(tended, &own) && tended->view->rotation_generation != 0)
        return rotation_give_up(tended, "the interface has a key that is not ours", err);
    if (own.kind == PLAN_REPLACED)
        return rotation_replaced(tended, err);
    return own.kind == PLAN_ROTATE ? rotation_go_on(tended, yield, err) : 0;
}

// The second devices of pairs, and preshared keys.
static int tend_links(struct tended *tended, struct error *err)
{
    paired_tend_peers(tended);
    return psk_tend(tended, err);
}

// The steps of one pass, each with what the one before has left: a failure ends it, but what needs
// no registry is done before what needs one, and a rotation that is open ends with its window
// whatever else fails.
static int pass(struct tended *tended, struct error *err)
{
    const char *yield = NULL;
    struct error notes = {.code = ERROR_OK}, preshared = {.code = ERROR_OK};
    if ((tended->view_old || tended->view == NULL) && tended_ask(tended, err) != 0 &&
        tended->view == NULL)
        return -1;
    if (tended_read(tended, err) != 0 || tend_own_key(tended, err) != 0)
        return -1;
    if (tended->world->registry == NULL || tended->dirty)
        return 0;
    int published = own_notes_tend(tended, &notes);
    if (tended_read_again(tended, err) != 0)
        return -1;
    int others = counterparts_tend(tended, &yield, err);
    if (tended->dirty)
        return others; // look again first
    // A rotation goes on without these, unless the link's ends may differ.
    int links = others == 0 ? tend_links(tended, &preshared) : 0;
    bool cut_off = others != 0 || published != 0;
    if (others == 0 && published != 0)
        *err = notes;
    if (!tended->dirty) {
        if (cut_off && tended->view->rotation_generation == 0)
            return -1;
        if (tend_rotation(tended, yield, err) != 0 || cut_off || rotation_settle(tended, err) != 0)
            return -1;
    }
    if (links != 0)
        *err = preshared;
    return links;
}

static struct pace pace_of(const struct tended *tended)
{
    return (struct pace){.asked_ms = tended->asked_ms,
                         .hot_until_ms = tended->hot_until_ms,
                         .follow_ms = tended->peer_count > 0 ? tended->follow_ms : INT64_MAX,
                         .due_ms = tended->due_ms,
                         .dirty = tended->dirty,
                         .heard = tended->heard};
}

int64_t tended_pass_due(const struct tended *tended)
{
    struct pace pace = pace_of(tended);
    return pace_pass(&pace, device_now_ms());
}

void tended_pass(struct tended *tended)
{
    struct error err = {.code = ERROR_OK};
    tended->heard = false;
    tended->due_ms = device_now_ms() + LOOK_MS;
    tended->view_old |= tended->dirty;
    tended->dirty = false;
    if (!tended->present)
        return;
    int rc = pass(tended, &err);
    if (!tended->dirty && drifts_tend(tended, rc == 0 ? &err : NULL) != 0)
        rc = -1;
    if (rc == 0) {
        tended->failures = 0;
        tended->last.message[0] = '\0';
    } else {
        tended->view_old = true;
        tended_say(tended, &err);
        int64_t due =
            device_now_ms() + retry_wait_ms(false, ++tended->failures, randombytes_random());
        if (due < tended->due_ms)
            tended->due_ms = due;
        if (err.code == ERROR_NOT_FOUND)
            tended_find(tended);
    }
    tended->passed_ms = device_now_ms();
    if (tended->settle_ms != 0 && tended->settle_ms < tended->due_ms)
        tended->due_ms = tended->settle_ms;
    for (size_t i = 0; i < tended->peer_count && tended->present; i++)
        if (tended->peers[i].watch && tended->follow_ms == INT64_MAX)
            tended->follow_ms = 0;
}

// ---- following ----

static bool watches(const struct tended *tended)
{
    for (size_t i = 0; i < tended->peer_count; i++)
        if (tended->peers[i].watch)
            return true;
    return false;
}

void tended_follow(struct tended *tended)
{
    struct error err;
    int64_t begun = device_now_ms();
    if (!tended->present || tended->view == NULL || !watches(tended)) {
        tended->follow_ms = counterparts_repeat(tended);
        return;
    }
    if (tended_read(tended, &err) != 0 || counterparts_follow(tended, &err) != 0)
        tended_say(tended, &err);
    struct pace pace = pace_of(tended);
    int64_t now = device_now_ms(), wait = pace_follow(&pace, now, now - begun);
    int64_t repeat = counterparts_repeat(tended);
    tended->follow_ms = now + wait < repeat ? now + wait : repeat;
}

void tended_datagrams(struct tended *tended)
{
    struct move move;
    union device_endpoint from;
    while (tended->moves != NULL && moves_take(tended->moves, &move, &from) == 1)
        counterparts_datagram(tended, tended->moves, &move, &from);
    while (tended->pair != NULL && moves_take(pair_moves(tended->pair), &move, &from) == 1)
        counterparts_datagram(tended, pair_moves(tended->pair), &move, &from);
}

static int compare_folder(const void *folder, const void *peer)
{
    return strcmp(folder, (*(struct tended_peer *const *)peer)->folder);
}

void tended_changed(struct tended *tended, const char *folder)
{
    tended->due_ms = 0; // our own notes may be what changed
    for (size_t i = 0; folder == NULL && i < tended->peer_count; i++)
        tended->peers[i].look = true;
    struct tended_peer **peer = folder == NULL
                                    ? NULL
                                    : bsearch(folder, tended->by_folder, tended->peer_count,
                                              sizeof(struct tended_peer *), compare_folder);
    if (peer == NULL)
        return;
    (*peer)->look = true;
    // Whether its rotation is confirmed is what is waited for once we have moved.
    if ((*peer)->moved.generation != 0 && (*peer)->moved.generation == (*peer)->answered_generation)
        tended->heard = true;
}

// ---- for metrics ----

void tended_set_drift(struct tended *tended, unsigned differences)
{
    tended->counts.knows_drift = true;
    tended->counts.drift = differences;
}
