// SPDX-License-Identifier: Apache-2.0
// Carries out the plan for each link's preshared key.
#include "psk.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "counterparts.h"

#define KEYS_MAX 8 // of one counterpart on the interface

// ---- what is known ----

static struct custody_link link_of(const struct tended *tended, const struct tended_peer *peer)
{
    return (struct custody_link){
        .key = tended->setup->key, .peer = peer->setup->host, .peer_key = peer->setup->key};
}

static struct custody_psk own_of(const struct tended *tended, const struct tended_peer *peer)
{
    const struct custody_psk none = {0};
    for (size_t i = 0; i < tended->view->psk_count; i++)
        if (strcmp(tended->view->psks[i].host, peer->setup->host) == 0 &&
            strcmp(tended->view->psks[i].key, peer->setup->key) == 0)
            return tended->view->psks[i];
    return none;
}

// The counterpart's keys that are on the interface: the one in use, staged ones, old ones in grace.
static size_t find_keys(const struct tended *tended, const struct tended_peer *peer,
                        const struct device_peer *keys[KEYS_MAX])
{
    size_t count = 0;
    struct known_peers known = known_peers(tended->view, peer->setup->host, peer->setup->key);
    for (size_t i = 0; i < known.count && count < KEYS_MAX; i++) {
        const struct custody_peer *each = &known.first[i];
        if (each->state == CUSTODY_PEER_RETIRED)
            continue;
        const struct device_peer *there = device_view_peer(tended->there, each->public_key);
        if (there != NULL)
            keys[count++] = there;
    }
    return count;
}

static int64_t handshake_us(const struct device_peer *const *keys, size_t count)
{
    int64_t latest = 0;
    for (size_t i = 0; i < count; i++) {
        const struct timespec *at = &keys[i]->latest_handshake;
        int64_t us = (int64_t)at->tv_sec * 1000000 + at->tv_nsec / 1000;
        if (us > latest)
            latest = us;
    }
    return latest;
}

static void fill_plan(const struct tended *tended, const struct tended_peer *peer,
                      struct psk_plan_in *in)
{
    const struct device_peer *keys[KEYS_MAX];
    size_t count = find_keys(tended, peer, keys);
    *in = (struct psk_plan_in){
        .setup = peer->setup,
        .own_host = tended->world->own_host,
        .own_peers = tended->setup->peer_count,
        .makes = tended->view->psk_lifetime_s != 0,
        .receive_key = tended->view->has_receive_key ? tended->view->receive_key : NULL,
        .key = &peer->says,
        .says = &peer->psk.says,
        .own = own_of(tended, peer),
        .rotating = tended->view->rotation_generation != 0 || peer->says.has_pre_active,
        .seen_before = peer->psk.seen,
        .handshake_us = handshake_us(keys, count),
        .repaired_us = peer->psk.repaired_us,
        .not_before_us = peer->psk.not_before_us,
        .now_us = tended_now_us(),
    };
    for (size_t i = 0; i < count; i++)
        *(keys[i]->has_preshared ? &in->present : &in->missing) = true;
}

bool psk_is_busy(const struct tended *tended, const struct tended_peer *peer)
{
    struct psk_plan_in in;
    struct psk_plan plan;
    fill_plan(tended, peer, &in);
    psk_plan(&in, &plan);
    return plan.busy || peer->psk.unrecorded;
}

// ---- our notes in the registry ----

static int put(struct tended *tended, const struct tended_peer *peer, enum psk_note_state state,
               const char *note, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1];
    registry_psk_path(path, tended->world->own_host, tended->setup->key, psk_note_state_name(state),
                      peer->setup->host, peer->setup->key);
    return registry_put(tended->world->registry, path, note, strlen(note), err);
}

// Keeps what was signed, to be put back where the registry loses it, and puts it there.
static int keep(struct tended *tended, struct tended_peer *peer, enum psk_note_state state,
                const char *note, struct error *err)
{
    snprintf(peer->psk.notes[state], NOTE_MAX, "%s", note);
    return put(tended, peer, state, note, err);
}

// Whether what is in the registry under our name is ours, and says what is so now.
static bool is_right(const struct tended *tended, const struct tended_peer *peer, const char *found,
                     enum psk_note_state state, uint64_t epoch)
{
    struct note_key key;
    struct psk_note note;
    size_t length;
    const uint8_t *receive_key = psk_plan_receive_key(&peer->says);
    return note_key_parse(&key, tended->world->own_host_vkey, NULL) == 0 &&
           note_verify(found, strlen(found), &key, 1, &length, NULL, NULL) == 0 &&
           psk_note_parse(&note, found, length, NULL) == 0 && note.state == state &&
           note.epoch == epoch && strcmp(note.peer, peer->setup->host) == 0 &&
           strcmp(note.peer_key, peer->setup->key) == 0 &&
           (state != PSK_NOTE_MADE || receive_key == NULL ||
            sodium_memcmp(note.receive_key, receive_key, RECORD_KEY_SIZE) == 0);
}

// ---- the steps ----

static int make(struct tended *tended, struct tended_peer *peer, uint64_t epoch, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_link link = link_of(tended, peer);
    char note[NOTE_MAX];
    const uint8_t *receive_key = psk_plan_receive_key(&peer->says);
    if (receive_key == NULL)
        return 0; // it takes none any more
    if (custody_psk_make(tended->world->custody, &link, epoch, receive_key, note, sizeof note,
                         &theirs) != 0)
        return tended_from_library(tended, &theirs, "making a preshared key", err);
    tended->dirty = true;
    tended_tell(tended, "%s: epoch %" PRIu64 " of the preshared key made", peer->setup->host,
                epoch);
    return keep(tended, peer, PSK_NOTE_MADE, note, err);
}

static int take(struct tended *tended, struct tended_peer *peer, uint64_t epoch, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_link link = link_of(tended, peer);
    char note[NOTE_MAX];
    if (custody_psk_take(tended->world->custody, &link, epoch, peer->psk.says.made.box, note,
                         sizeof note, &theirs) != 0)
        return tended_from_library(tended, &theirs, "having a preshared key sealed", err);
    tended->dirty = true;
    tended_tell(tended, "%s: epoch %" PRIu64 " of the preshared key received", peer->setup->host,
                epoch);
    return keep(tended, peer, PSK_NOTE_RECEIVED, note, err);
}

// Says which epoch is on the interface: to the log, and to the other end.
static int record_set(struct tended *tended, struct tended_peer *peer, uint64_t epoch,
                      const char *detail, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_link link = link_of(tended, peer);
    char note[NOTE_MAX];
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_psk_set(tended->world->custody, &link, epoch, detail, note, sizeof note, &theirs) !=
        0)
        return tended_from_library(tended, &theirs, "recording a preshared key", err);
    peer->psk.unrecorded = false;
    tended->dirty = true;
    return keep(tended, peer, PSK_NOTE_SET, note, err);
}

// Onto each of the counterpart's keys: the next one of a rotation has the same preshared key.
static int set_on_device(struct tended *tended, const struct tended_peer *peer, const uint8_t *key,
                         struct error *err)
{
    const struct device_peer *keys[KEYS_MAX];
    struct device_peer_change changes[KEYS_MAX] = {0};
    size_t count = find_keys(tended, peer, keys);
    for (size_t i = 0; i < count; i++) {
        memcpy(changes[i].public_key, keys[i]->public_key, DEVICE_KEY_SIZE);
        changes[i].update_only = true;
        changes[i].preshared = key;
    }
    if (count == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "%s is no peer yet", peer->setup->host);
    struct device_change change = {.peers = changes, .peer_count = count};
    return device_set(tended->device, &change, err);
}

static int set_none(struct tended *tended, const struct tended_peer *peer, struct error *err)
{
    uint8_t *none = sodium_malloc(DEVICE_KEY_SIZE);
    if (none == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory");
    sodium_memzero(none, DEVICE_KEY_SIZE);
    int rc = set_on_device(tended, peer, none, err);
    sodium_free(none);
    return rc;
}

static int release_and_set(struct tended *tended, const struct tended_peer *peer,
                           const struct psk_plan *plan, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_link link = link_of(tended, peer);
    struct custody_released *released = NULL;
    if (plan->epoch == 0)
        return set_none(tended, peer, err);
    if (custody_psk_release(tended->world->custody, &link, plan->epoch, plan->reason, &released,
                            &theirs) != 0)
        return tended_from_library(tended, &theirs, "release of a preshared key refused", err);
    int rc = set_on_device(tended, peer, custody_released_private_key(released), err);
    custody_released_wipe(released);
    tended_report(tended, released, rc == 0, rc == 0 ? "" : err->message);
    custody_released_free(released);
    return rc;
}

static int set(struct tended *tended, struct tended_peer *peer, const struct psk_plan_in *in,
               const struct psk_plan *plan, struct error *err)
{
    if (release_and_set(tended, peer, plan, err) != 0)
        return -1;
    if (plan->repair)
        peer->psk.repaired_us = in->handshake_us;
    if (plan->back)
        peer->psk.not_before_us = in->now_us + PSK_RETRY_US;
    peer->psk.unrecorded = true;
    peer->psk.unrecorded_epoch = plan->epoch;
    peer->psk.seen = true;
    tended_tell(tended, "%s: epoch %" PRIu64 " of the preshared key set: %s", peer->setup->host,
                plan->epoch, plan->detail);
    return record_set(tended, peer, plan->epoch, plan->detail, err);
}

// What the registry has lost of ours is put back; where this process did not sign it, and it is not
// there from before, it is signed anew.
static int tend_note(struct tended *tended, struct tended_peer *peer, enum psk_note_state state,
                     uint64_t epoch, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1], found[NOTE_MAX] = "";
    size_t length = 0;
    registry_psk_path(path, tended->world->own_host, tended->setup->key, psk_note_state_name(state),
                      peer->setup->host, peer->setup->key);
    int rc = registry_get(tended->world->registry, path, found, &length, err);
    if (rc != 0 && err->code != ERROR_NOT_FOUND && err->code != ERROR_DATA_LOSS)
        return -1;
    if (rc == 0 && is_right(tended, peer, found, state, epoch)) {
        snprintf(peer->psk.notes[state], NOTE_MAX, "%s", found);
        return 0;
    }
    if (is_right(tended, peer, peer->psk.notes[state], state, epoch))
        return put(tended, peer, state, peer->psk.notes[state], err);
    switch (state) {
    case PSK_NOTE_MADE:
        return make(tended, peer, epoch, err);
    case PSK_NOTE_RECEIVED: // with what the maker's note still brings
        return peer->psk.says.made.epoch == epoch ? take(tended, peer, epoch, err) : 0;
    default:
        return record_set(tended, peer, epoch, "said again", err);
    }
}

static int tend_notes(struct tended *tended, struct tended_peer *peer,
                      const struct custody_psk *own, enum psk_role role, struct error *err)
{
    if (role == PSK_ROLE_MAKE && own->made > 0 &&
        tend_note(tended, peer, PSK_NOTE_MADE, own->made, err) != 0)
        return -1;
    if (role == PSK_ROLE_TAKE && own->received > 0 &&
        tend_note(tended, peer, PSK_NOTE_RECEIVED, own->received, err) != 0)
        return -1;
    return own->set_us != 0 ? tend_note(tended, peer, PSK_NOTE_SET, own->set, err) : 0;
}

// ---- a pass ----

static int look(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    struct psk_notes_own own = {
        .host = tended->world->own_host,
        .key = tended->setup->key,
        .receive_key = tended->view->has_receive_key ? tended->view->receive_key : NULL,
        .received = own_of(tended, peer).received,
        .now_us = tended_now_us(),
        .tolerance_us = tended->world->setup->clock_tolerance_s * INT64_C(1000000)};
    int rc = psk_notes_look(peer->psk.reader, tended->world->registry, tended->world->trust, &own,
                            &peer->psk.says, err);
    counterparts_tell_refusals(tended, peer, psk_notes_refusals(peer->psk.reader));
    return rc;
}

static int carry_out(struct tended *tended, struct tended_peer *peer, const struct psk_plan_in *in,
                     const struct psk_plan *plan, struct error *err)
{
    switch (plan->step) {
    case PSK_MAKE:
        return make(tended, peer, plan->epoch, err);
    case PSK_TAKE:
        return take(tended, peer, plan->epoch, err);
    case PSK_SET:
        return set(tended, peer, in, plan, err);
    case PSK_NOTHING:
        break;
    }
    return plan->role != PSK_ROLE_NONE ? tend_notes(tended, peer, &in->own, plan->role, err) : 0;
}

static void look_again_at(struct tended *tended, const struct psk_plan_in *in, int64_t due_us)
{
    if (due_us == 0)
        return;
    int64_t due_ms = device_now_ms() + (due_us - in->now_us) / 1000 + 1;
    if (due_ms < tended->due_ms)
        tended->due_ms = due_ms;
}

static int tend(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    struct psk_plan_in in;
    struct psk_plan plan;
    if (peer->setup->psk == SETUP_PSK_NONE ||
        (tended->view->psk_lifetime_s == 0 && own_of(tended, peer).set_us == 0))
        return 0;
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (peer->psk.unrecorded)
        return record_set(tended, peer, peer->psk.unrecorded_epoch, "recorded late", err);
    int rc = look(tended, peer, err); // what the registry does not say, the handshakes may
    fill_plan(tended, peer, &in);
    psk_plan(&in, &plan);
    peer->psk.seen = peer->psk.seen || (in.own.set > 0 && !in.missing);
    look_again_at(tended, &in, plan.due_us);
    return carry_out(tended, peer, &in, &plan, err) != 0 ? -1 : rc;
}

int psk_tend(struct tended *tended, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct error one;
        if (tend(tended, &tended->peers[i], rc == 0 ? err : &one) != 0)
            rc = -1;
    }
    return rc;
}
