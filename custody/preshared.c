// SPDX-License-Identifier: Apache-2.0
// The requests about preshared keys, and what follows from them by itself.
#include "preshared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "say.h"

const struct state_key *preshared_receive_key(const struct state *state)
{
    return state_key_current(state, NAME_RECEIVE_KEY);
}

bool preshared_lacks_receive_key(const struct daemon *daemon)
{
    for (size_t i = 0; i < daemon->config->key_count; i++)
        if (daemon->config->keys[i].psk_lifetime_s != 0 &&
            state_key_active(daemon->state, daemon->config->keys[i].name) != NULL)
            return preshared_receive_key(daemon->state) == NULL;
    return false;
}

int64_t preshared_due_us(const struct config_key *config, const struct psk *psk)
{
    if (config->psk_lifetime_s == 0 || psk->made == 0)
        return 0;
    return psk->made_us + config->psk_lifetime_s * INT64_C(1000000);
}

// ---- what a request names ----

const struct config_key *preshared_take_link(struct call *call, const char *key, const char *peer,
                                             const char *peer_key, uint64_t epoch,
                                             struct error *err)
{
    struct record *record = &call->record;
    const struct config_key *config = call_take_key(call, key, err);
    if (config == NULL || call_check_rotates(call, config, 0, err) != 0)
        return NULL;
    if (!name_is_host(peer) || !name_is_key(peer_key)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "peer '%.80s' with key '%.80s' is no counterpart",
                  peer, peer_key);
        return NULL;
    }
    snprintf(record->peer, sizeof(record->peer), "%s", peer);
    snprintf(record->peer_key, sizeof(record->peer_key), "%s", peer_key);
    record->epoch = epoch;
    return config;
}

static const struct psk *find(const struct call *call)
{
    return psks_find(state_psks(call->daemon->state), call->record.key, call->record.peer,
                     call->record.peer_key);
}

static void answer(struct call *call, const struct commit_result *result)
{
    Custody__V1__PskRecorded recorded = CUSTODY__V1__PSK_RECORDED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    recorded.seq = result->record->seq;
    recorded.note = (char *)result->note;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_PSK_RECORDED;
    response.psk_recorded = &recorded;
    call_answer(call, &response);
}

static void on_recorded(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded || result->error.code != ERROR_OK)
        call_fail(call, &result->error);
    else
        answer(call, result);
}

// ---- making ----

static int check_due(const struct call *call, const struct config_key *config, struct error *err)
{
    const struct psk *psk = find(call);
    char due[RECORD_TIME_SIZE] = "?";
    if (config->psk_lifetime_s == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has no psk-lifetime: its preshared keys are not rotated",
                         config->name);
    if (psk == NULL || call->record.epoch == psk->made ||
        preshared_due_us(config, psk) <= commit_now_us())
        return 0;
    record_time_format(preshared_due_us(config, psk), due);
    return error_set(err, ERROR_FAILED_PRECONDITION, "the next preshared key is due at %s", due);
}

void preshared_make(struct call *call, const Custody__V1__MakePsk *request)
{
    struct record *record = &call->record;
    struct error err;
    const struct config_key *config = preshared_take_link(call, request->key, request->peer,
                                                          request->peer_key, request->epoch, &err);
    if (config == NULL || check_due(call, config, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    record->event = RECORD_PSK_GENERATED;
    if (request->receive_key.len != sizeof(record->receive_key)) {
        error_set(&err, ERROR_INVALID_ARGUMENT, "receive_key must be 32 bytes");
        call_fail(call, &err);
        return;
    }
    memcpy(record->receive_key, request->receive_key.data, sizeof(record->receive_key));
    if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_PSK_MAKE, on_recorded, call,
                      &err) != 0)
        call_fail(call, &err);
}

// ---- taking ----

static void on_destroyed(void *context, const struct commit_result *result)
{
    struct daemon *daemon = context;
    if (!result->recorded || result->error.code != ERROR_OK)
        say(LOG_WARNING,
            "epoch %" PRIu64 " of the preshared key with host '%s' could not be destroyed: %s",
            result->record->epoch, result->record->peer, result->error.message);
    else
        daemon->keeper.blobs--;
}

// What neither the next epoch nor a way back needs any more.
static void destroy_older(struct daemon *daemon, const struct psk *psk)
{
    struct error err;
    for (uint64_t epoch = psk->destroyed + 1; epoch + 1 < psk->received && epoch < psk->set;
         epoch++) {
        struct record record = {.event = RECORD_PSK_DESTROYED, .epoch = epoch};
        memcpy(record.key, psk->key, sizeof(record.key));
        memcpy(record.peer, psk->host, sizeof(record.peer));
        memcpy(record.peer_key, psk->peer_key, sizeof(record.peer_key));
        if (commit_submit(daemon->commit, &record, KEEPER_ACTION_PSK_DESTROY, on_destroyed, daemon,
                          &err) != 0)
            return; // with the next epoch, then
    }
}

static void on_taken(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    const struct psk *psk = find(call);
    call->daemon->keeper.blobs++; // until the keeper says so itself
    if (psk != NULL)
        destroy_older(call->daemon, psk);
    answer(call, result);
}

static void on_received(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    struct error err;
    if (reply == NULL)
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it took the preshared key");
    else
        err = reply->error;
    if (err.code == ERROR_OK && commit_submit(call->daemon->commit, &call->record,
                                              KEEPER_ACTION_PSK_TAKE, on_taken, call, &err) == 0)
        return;
    call_fail(call, &err);
}

static int ask_keeper(struct call *call, const Custody__V1__TakePsk *request, struct error *err)
{
    const struct state_key *own = preshared_receive_key(call->daemon->state);
    if (own == NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION, "this host has no receive key yet");
    struct keeper_request *ask = calloc(1, sizeof(*ask));
    if (ask == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "out of memory for a request to the keeper");
    struct keeper_receive *receive = &ask->body.receive;
    memcpy(receive->key, call->record.key, sizeof(receive->key));
    memcpy(receive->peer, call->record.peer, sizeof(receive->peer));
    memcpy(receive->peer_key, call->record.peer_key, sizeof(receive->peer_key));
    receive->epoch = call->record.epoch;
    receive->receive_generation = own->generation;
    memcpy(receive->box, request->box.data, sizeof(receive->box));
    int done = keeper_link_ask(call->daemon->link, ask, KEEPER_RECEIVE, on_received, call, err);
    free(ask);
    return done;
}

static bool has_received(const struct call *call)
{
    const struct psk *psk = find(call);
    return psk != NULL && psk->received == call->record.epoch;
}

void preshared_take(struct call *call, const Custody__V1__TakePsk *request)
{
    struct record *record = &call->record;
    struct error err;
    if (preshared_take_link(call, request->key, request->peer, request->peer_key, request->epoch,
                            &err) == NULL) {
        call_refuse(call, &err);
        return;
    }
    record->event = RECORD_PSK_RECEIVED;
    if (request->box.len != PSK_BOX_SIZE)
        error_set(&err, ERROR_INVALID_ARGUMENT, "box must be %d bytes", PSK_BOX_SIZE);
    // Before the keeper makes anything of it: a replay ends here. One that is in the token is
    // acknowledged once more.
    else if (psks_check(state_psks(call->daemon->state), record, &err) == 0 &&
             (has_received(call) ? commit_submit(call->daemon->commit, record,
                                                 KEEPER_ACTION_PSK_TAKE, on_recorded, call, &err)
                                 : ask_keeper(call, request, &err)) == 0)
        return;
    call_fail(call, &err);
}

// ---- on the interface ----

void preshared_set(struct call *call, const Custody__V1__SetPsk *request)
{
    struct record *record = &call->record;
    struct error err;
    if (preshared_take_link(call, request->key, request->peer, request->peer_key, request->epoch,
                            &err) == NULL) {
        call_refuse(call, &err);
        return;
    }
    record->event = RECORD_PSK_SET;
    if (call_copy_text(record->detail, sizeof(record->detail), request->detail, "detail", &err) !=
            0 ||
        commit_submit(call->daemon->commit, record, KEEPER_ACTION_PSK_SET, on_recorded, call,
                      &err) != 0)
        call_fail(call, &err);
}
