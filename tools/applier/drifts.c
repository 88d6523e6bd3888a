// SPDX-License-Identifier: Apache-2.0
// Tells the log of drift, and repairs it.
#include "drifts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counterparts.h"
#include "rotation.h"

#define REPAIRED_MS 1000 // until it is seen whether a repair has lasted: somebody may undo it

// An epoch that the log says is set is on the interface. Without one, a preshared key may be there
// that was set by hand: that is nobody's business.
static enum drift_preshared wanted_preshared(const struct custody_view *view,
                                             const struct setup_peer *peer)
{
    for (size_t i = 0; i < view->psk_count; i++)
        if (view->psks[i].set != 0 && strcmp(view->psks[i].host, peer->host) == 0 &&
            strcmp(view->psks[i].key, peer->key) == 0)
            return DRIFT_PRESHARED_ONE;
    return DRIFT_PRESHARED_ANY;
}

int drifts_look(const struct tended *tended, struct drift *drift, struct error *err)
{
    struct drift_peer *peers = calloc(tended->peer_count + 1, sizeof *peers);
    if (peers == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu peers",
                         tended->peer_count);
    for (size_t i = 0; i < tended->peer_count; i++) {
        bool looked = !tended->peers[i].look && tended->world->registry != NULL;
        peers[i].says = looked ? &tended->peers[i].says : NULL;
        peers[i].preshared = wanted_preshared(tended->view, tended->peers[i].setup);
    }
    struct drift_in in = {.setup = tended->setup,
                          .view = tended->view,
                          .device = tended->there,
                          .peers = peers,
                          .grace_us = tended_grace_us(tended),
                          .now_us = tended_now_us()};
    drift_compare(&in, drift);
    free(peers);
    return 0;
}

// ---- the log ----

int drifts_record(struct tended *tended, enum custody_finding what,
                  const struct drift_finding *finding, struct error *err)
{
    struct custody_error theirs = {0};
    char detail[DRIFT_WORDS_MAX + 32];
    snprintf(detail, sizeof detail, "%s: %s", drift_kind_name(finding->kind), finding->words);
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_record_finding(tended->world->custody, tended->setup->key, what, finding->host,
                               finding->peer_key, detail, &theirs) != 0)
        return tended_from_library(tended, &theirs, "recording drift", err);
    tended_tell(tended, "%s: %s", what == CUSTODY_DRIFT_FOUND ? "drift" : "drift is gone", detail);
    return 0;
}

static bool has(const struct drift *drift, const struct drift_finding *finding)
{
    for (size_t i = 0; i < drift->count; i++)
        if (drift->items[i].drift && drift_same(&drift->items[i], finding))
            return true;
    return false;
}

// What could not be recorded is tried again with the next pass.
static int tell(struct tended *tended, const struct drift *now, struct error *err)
{
    struct drift *told = &tended->told;
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < told->count; i++) {
        bool gone = !has(now, &told->items[i]) && !now->cut;
        if (gone && drifts_record(tended, CUSTODY_DRIFT_CLEARED, &told->items[i], err) == 0)
            continue;
        rc = gone ? -1 : rc;
        told->items[kept++] = told->items[i];
    }
    told->count = kept;
    for (size_t i = 0; i < now->count; i++) {
        const struct drift_finding *finding = &now->items[i];
        if (!finding->drift || has(told, finding) || told->count == DRIFT_MAX)
            continue;
        if (drifts_record(tended, CUSTODY_DRIFT_FOUND, finding, err) == 0)
            told->items[told->count++] = *finding;
        else
            rc = -1;
    }
    return rc;
}

int drifts_tell(struct tended *tended, struct error *err)
{
    struct drift *now = malloc(sizeof *now);
    if (now == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a comparison");
    int rc = drifts_look(tended, now, err) == 0 ? tell(tended, now, err) : -1;
    free(now);
    return rc;
}

// ---- repairing ----

static const struct tended_peer *find_peer(const struct tended *tended,
                                           const struct drift_finding *finding)
{
    for (size_t i = 0; finding->host != NULL && i < tended->peer_count; i++)
        if (strcmp(tended->peers[i].setup->host, finding->host) == 0 &&
            strcmp(tended->peers[i].setup->key, finding->peer_key) == 0)
            return &tended->peers[i];
    return NULL;
}

static int repair_key(struct tended *tended, const struct drift_finding *finding, struct error *err)
{
    if (tended->view->suspended)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' is suspended by an operator: it is not set until custodyctl "
                         "key resume %s",
                         tended->setup->key, tended->setup->key);
    const struct plan_own own = {PLAN_SET_KEY, finding->generation, CUSTODY_REASON_RESTORE};
    return rotation_set_key(tended, &own, err);
}

static int remove_peer(struct tended *tended, const uint8_t *public_key, struct error *err)
{
    struct device_peer_change gone = {.remove = true};
    struct device_change change = {.peers = &gone, .peer_count = 1};
    memcpy(gone.public_key, public_key, DEVICE_KEY_SIZE);
    return device_set(tended->device, &change, err);
}

// Allowed-ips that somebody took are taken back; who took them stays, without them.
static int repair_one(struct tended *tended, const struct drift_finding *finding, struct error *err)
{
    const struct tended_peer *peer = find_peer(tended, finding);
    const uint8_t *current = peer != NULL ? counterparts_key(tended, peer) : NULL;
    switch (finding->kind) {
    case DRIFT_NO_KEY:
    case DRIFT_OWN_KEY:
        return repair_key(tended, finding, err);
    case DRIFT_RETIRED:
        return remove_peer(tended, finding->public_key, err);
    default:
        return current != NULL ? counterparts_repair(tended, peer, current, err) : 0;
    }
}

int drifts_repair(struct tended *tended, const struct drift *drift, struct error *err)
{
    int rc = 0, repaired = 0;
    for (size_t i = 0; i < drift->count; i++) {
        struct error one;
        if (!drift->items[i].drift || !drift->items[i].repairable)
            continue;
        if (repair_one(tended, &drift->items[i], rc == 0 && err != NULL ? err : &one) != 0)
            rc = -1;
        else
            repaired++;
    }
    return rc != 0 ? -1 : repaired;
}

// ---- a pass ----

static bool is_quiet(const struct tended *tended)
{
    if (tended->view == NULL || tended->view->rotation_generation != 0 || tended->settle_ms != 0 ||
        device_now_ms() < tended->hot_until_ms ||
        plan_in_state(tended->view, CUSTODY_KEY_ACTIVE) == NULL) // not under custody (yet)
        return false;
    for (size_t i = 0; i < tended->peer_count; i++)
        if (tended->peers[i].unrecorded_generation != 0)
            return false;
    return true;
}

int drifts_tend(struct tended *tended, struct error *err)
{
    struct error ignored;
    struct error *why = err != NULL ? err : &ignored;
    if (!tended->present || tended->world->custody == NULL || !is_quiet(tended))
        return 0;
    struct drift *now = malloc(sizeof *now);
    if (now == NULL)
        return error_set(why, ERROR_RESOURCE_EXHAUSTED, "out of memory for a comparison");
    int rc = -1;
    if (tended_read_again(tended, why) == 0 && drifts_look(tended, now, why) == 0) {
        tended_set_drift(tended, (unsigned)drift_count(now));
        rc = tell(tended, now, why);
    }
    if (rc == 0 && tended->setup->repair) {
        rc = drifts_repair(tended, now, why);
        int64_t due = device_now_ms() + REPAIRED_MS;
        if (rc > 0 && due < tended->due_ms)
            tended->due_ms = due;
    }
    free(now);
    return rc < 0 ? -1 : 0;
}
