// SPDX-License-Identifier: Apache-2.0
// Records of steps with counterparts' keys, freshness notes, findings.
#include "counterparts.h"

#include <stdio.h>
#include <string.h>

#include "policy.h"

// The key, which the caller must carry the rotations of.
static int take_key(struct call *call, const char *key, struct error *err)
{
    const struct config_key *config = call_take_key(call, key, err);
    return config != NULL ? call_check_rotates(call, config, 0, err) : -1;
}

static int take_peer(struct record *record, const char *host, const char *key, struct error *err)
{
    if (!name_is_host(host))
        return error_set(err, ERROR_INVALID_ARGUMENT, "peer '%.80s' is no host id", host);
    if (!name_is_key(key))
        return error_set(err, ERROR_INVALID_ARGUMENT, "peer_key '%.80s' is no key's name", key);
    snprintf(record->peer, sizeof(record->peer), "%s", host);
    snprintf(record->peer_key, sizeof(record->peer_key), "%s", key);
    return 0;
}

// ---- a counterpart's key ----

static const struct {
    enum record_event event;
    enum record_peer_state state; // that it leads to
    enum keeper_action action;
} steps[] = {
    [CUSTODY__V1__PEER_STATE__PEER_STAGED] = {RECORD_PEER_STAGED, PEER_STAGED,
                                              KEEPER_ACTION_ACKNOWLEDGE},
    [CUSTODY__V1__PEER_STATE__PEER_MOVED] = {RECORD_PEER_MOVED, PEER_MOVED, KEEPER_ACTION_NONE},
    [CUSTODY__V1__PEER_STATE__PEER_RETIRED] = {RECORD_PEER_RETIRED, PEER_RETIRED,
                                               KEEPER_ACTION_ACKNOWLEDGE},
    [CUSTODY__V1__PEER_STATE__PEER_LATE] = {RECORD_PEER_LATE, PEER_NONE, KEEPER_ACTION_NONE},
    [CUSTODY__V1__PEER_STATE__PEER_ACKNOWLEDGED] = {RECORD_PEER_ACKNOWLEDGED, PEER_NONE,
                                                    KEEPER_ACTION_NONE},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

static int take_move(struct record *record, const char *sha256, struct error *err)
{
    if (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdef") != 64)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "move_sha256 must be 64 lower-case hex digits");
    memcpy(record->move_sha256, sha256, 65);
    return 0;
}

// What only some steps have.
static int take_rest(struct record *record, const Custody__V1__RecordPeer *request,
                     struct error *err)
{
    if (record->event == RECORD_PEER_ACKNOWLEDGED) {
        unsigned state = (unsigned)request->acknowledged;
        record->peer_state = state < STEPS ? steps[state].state : PEER_NONE;
        if (record->peer_state == PEER_NONE)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "acknowledged must be PEER_STAGED, PEER_MOVED or PEER_RETIRED");
    }
    if (record->event == RECORD_PEER_ACKNOWLEDGED || record->event == RECORD_PEER_LATE)
        return 0;
    if (request->public_key.len != sizeof(record->peer_public_key))
        return error_set(err, ERROR_INVALID_ARGUMENT, "public_key must be 32 bytes");
    memcpy(record->peer_public_key, request->public_key.data, sizeof(record->peer_public_key));
    return record->event == RECORD_PEER_STAGED ? take_move(record, request->move_sha256, err) : 0;
}

static int take_step(struct record *record, const Custody__V1__RecordPeer *request,
                     struct error *err)
{
    unsigned state = (unsigned)request->state;
    if (state >= STEPS || steps[state].event == RECORD_NONE)
        return error_set(err, ERROR_INVALID_ARGUMENT, "state must say which step it was");
    record->event = steps[state].event;
    if (take_peer(record, request->peer, request->peer_key, err) != 0)
        return -1;
    if (request->generation == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "generation must be 1 or more");
    record->peer_generation = request->generation;
    if (call_copy_text(record->detail, sizeof(record->detail), request->detail, "detail", err) != 0)
        return -1;
    return take_rest(record, request, err);
}

static void on_peer(void *context, const struct commit_result *result)
{
    struct call *call = context;
    Custody__V1__PeerRecorded recorded = CUSTODY__V1__PEER_RECORDED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    recorded.seq = result->record->seq;
    recorded.note = (char *)result->note;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_PEER_RECORDED;
    response.peer_recorded = &recorded;
    call_answer(call, &response);
}

void counterparts_record_peer(struct call *call, const Custody__V1__RecordPeer *request)
{
    struct record *record = &call->record;
    struct error err;
    if (take_key(call, request->key, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    if (take_step(record, request, &err) != 0 ||
        commit_submit(call->daemon->commit, record, steps[request->state].action, on_peer, call,
                      &err) != 0)
        call_fail(call, &err);
}

// ---- freshness ----

static void on_refreshed(void *context, const struct commit_result *result)
{
    struct call *call = context;
    Custody__V1__Freshness freshness = CUSTODY__V1__FRESHNESS__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    freshness.note = (char *)result->note;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_FRESHNESS;
    response.freshness = &freshness;
    call_answer(call, &response);
}

void counterparts_refresh(struct call *call, const Custody__V1__RefreshKey *request)
{
    struct record *record = &call->record;
    struct error err;
    if (take_key(call, request->key, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    const struct rotation *rotation =
        rotations_find(state_rotations(call->daemon->state), record->key);
    record->event = RECORD_KEY_REFRESHED; // commit fills in which bundle is the latest
    if (rotation == NULL || rotation->bundle_generation == 0)
        error_set(&err, ERROR_FAILED_PRECONDITION,
                  "no bundle of key '%s' was published yet: there is nothing to be fresh",
                  record->key);
    else if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_REFRESH, on_refreshed, call,
                           &err) == 0)
        return;
    call_fail(call, &err);
}

// ---- findings ----

static int take_finding(struct record *record, const Custody__V1__RecordFinding *request,
                        struct error *err)
{
    static const enum record_event events[] = {
        [CUSTODY__V1__FINDING__NOTE_REJECTED] = RECORD_NOTE_REJECTED,
        [CUSTODY__V1__FINDING__REGISTRY_STALE] = RECORD_REGISTRY_STALE,
        [CUSTODY__V1__FINDING__REGISTRY_FRESH] = RECORD_REGISTRY_FRESH,
        [CUSTODY__V1__FINDING__DRIFT_FOUND] = RECORD_DRIFT_FOUND,
        [CUSTODY__V1__FINDING__DRIFT_CLEARED] = RECORD_DRIFT_CLEARED,
    };
    unsigned finding = (unsigned)request->finding;
    if (finding >= sizeof(events) / sizeof(events[0]) || events[finding] == RECORD_NONE)
        return error_set(err, ERROR_INVALID_ARGUMENT, "finding must say what was found");
    record->event = events[finding];
    if (request->peer[0] == '\0' && request->peer_key[0] != '\0')
        return error_set(err, ERROR_INVALID_ARGUMENT, "peer_key is given without its host, peer");
    if (request->peer[0] != '\0' && !name_is_host(request->peer))
        return error_set(err, ERROR_INVALID_ARGUMENT, "peer '%.80s' is no host id", request->peer);
    if (request->peer_key[0] != '\0' && !name_is_key(request->peer_key))
        return error_set(err, ERROR_INVALID_ARGUMENT, "peer_key '%.80s' is no key's name",
                         request->peer_key);
    snprintf(record->peer, sizeof(record->peer), "%s", request->peer);
    snprintf(record->peer_key, sizeof(record->peer_key), "%s", request->peer_key);
    return call_copy_text(record->detail, sizeof(record->detail), request->detail, "detail", err);
}

void counterparts_record_finding(struct call *call, const Custody__V1__RecordFinding *request)
{
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    struct error err;
    if (take_key(call, request->key, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    if (take_finding(&call->record, request, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    denials_note(call->daemon->denials, &call->record);
    call_answer(call, &response);
}
