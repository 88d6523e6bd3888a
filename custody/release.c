// SPDX-License-Identifier: Apache-2.0
// A release: policy, then its record, then the key. An outcome: the lease closed, the generation's
// state moved on.
#include "release.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "policy.h"
#include "preshared.h"
#include "proof.h"
#include "rotation.h"
#include "say.h"

#define LEASE_BYTES 16

static int64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// ---- releasing ----

// The key did not leave the keeper: the record that says it was granted is closed by one that says
// so.
static void record_failure(struct daemon *daemon, const struct commit_result *result)
{
    struct record record = {
        .event = RECORD_RELEASE_FAILED,
        .generation = result->record->generation,
        .purpose = result->record->purpose == PURPOSE_PRESHARED ? PURPOSE_PRESHARED : PURPOSE_NONE,
        .code = result->error.code};
    memcpy(record.key, result->record->key, sizeof(record.key));
    memcpy(record.lease, result->record->lease, sizeof(record.lease));
    snprintf(record.detail, sizeof(record.detail), "the keeper let nothing out: %.400s",
             result->error.message);
    daemon_record(daemon, &record);
}

static void on_granted(void *context, const struct commit_result *result)
{
    struct call *call = context;
    struct daemon *daemon = call->daemon;
    char receipt[PROOF_MAX];
    size_t receipt_length;
    struct error err = result->error;
    if (!result->recorded) {
        call_fail(call, &err);
        return;
    }
    leases_watch(daemon->leases);
    if (err.code != ERROR_OK) {
        record_failure(daemon, result);
        call_fail(call, &err);
        return;
    }
    const struct record *record = result->record;
    if (log_receipt(daemon->log, record->seq, result->checkpoint, receipt, sizeof(receipt),
                    &receipt_length, &err) != 0) {
        // The applier can prove nothing with this key and must not have it; its lease will expire.
        say(LOG_ERR, "no receipt for record %" PRIu64 ": %s", record->seq, err.message);
        call_fail(call, &err);
        return;
    }
    Custody__V1__ReleasedKey released = CUSTODY__V1__RELEASED_KEY__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    released.lease = (char *)record->lease;
    released.expires_us = record->expires_us;
    released.generation = record->generation;
    if (record->purpose != PURPOSE_PRESHARED)
        released.public_key =
            (ProtobufCBinaryData){sizeof(record->public_key), (uint8_t *)record->public_key};
    released.box = (ProtobufCBinaryData){KEEPER_BOX_SIZE, (uint8_t *)result->box};
    released.record = (ProtobufCBinaryData){result->line_length, (uint8_t *)result->line};
    released.receipt = (ProtobufCBinaryData){receipt_length, (uint8_t *)receipt};
    response.body_case = CUSTODY__V1__RESPONSE__BODY_RELEASED_KEY;
    response.released_key = &released;
    call_answer(call, &response);
}

static int take_recipient(struct record *record, Custody__V1__Reason reason,
                          const ProtobufCBinaryData *public_key, struct error *err)
{
    if (record_reason_name((enum record_reason)reason) == NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "a release needs a reason");
    record->reason = (uint32_t)reason;
    if (public_key->len != RECORD_KEY_SIZE || sodium_is_zero(public_key->data, RECORD_KEY_SIZE))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "applier_public_key must be an X25519 public key of 32 bytes");
    memcpy(record->applier_public_key, public_key->data, RECORD_KEY_SIZE);
    return 0;
}

// Fills the call's record with what the client asks for.
static int take_request(struct call *call, const Custody__V1__ReleaseKey *request,
                        struct error *err)
{
    struct record *record = &call->record;
    record->event = RECORD_RELEASE_GRANTED;
    record->actor = call->actor;
    if (!name_is_key(request->key))
        return error_set(err, ERROR_INVALID_ARGUMENT, "'%.80s' is no key's name", request->key);
    snprintf(record->key, sizeof(record->key), "%s", request->key);
    if (take_recipient(record, request->reason, &request->applier_public_key, err) != 0)
        return -1;
    if (!name_is_ticket(request->ticket))
        return error_set(err, ERROR_INVALID_ARGUMENT, "a ticket is at most %d bytes of text",
                         TICKET_MAX);
    snprintf(record->ticket, sizeof(record->ticket), "%s", request->ticket);
    record->generation = request->generation;
    return 0;
}

static int check_hold(const struct state *state, const char *key, struct error *err)
{
    const struct rotation *rotation = rotations_find(state_rotations(state), key);
    char since[RECORD_TIME_SIZE];
    if (rotation == NULL || rotation->suspended_us == 0)
        return 0;
    record_time_format(rotation->suspended_us, since);
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "key '%s' is suspended by an operator since %s: it is not released until "
                     "custodyctl key resume %s",
                     key, since, key);
}

// Which generation it is about, and whether that one may be released.
static int choose_generation(struct call *call, struct error *err)
{
    struct record *record = &call->record;
    const struct state *state = call->daemon->state;
    const struct config_key *config = config_find_key(call->daemon->config, record->key);
    const struct state_key *key = record->generation == 0
                                      ? state_key_current(state, record->key)
                                      : state_key_find(state, record->key, record->generation);
    if (key == NULL && record->generation == 0)
        return error_set(err, ERROR_NOT_FOUND,
                         "key '%s' has no generation to release: custodyctl key generate %s",
                         record->key, record->key);
    if (key == NULL)
        return error_set(err, ERROR_NOT_FOUND, "key '%s' has no generation %" PRIu64, record->key,
                         record->generation);
    if (check_hold(state, record->key, err) != 0)
        return -1;
    if (!lifecycle_may_release(key->state, record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "generation %" PRIu64 " of key '%s' is %s: not released for %s",
                         key->generation, key->name, lifecycle_state_name(key->state),
                         record_reason_name(record->reason));
    if (key->purpose == PURPOSE_IMPORTED && !lifecycle_may_release_imported(record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "generation %" PRIu64
                         " of key '%s' was imported: it is released for BOOT, "
                         "RESTORE and ROLLBACK alone",
                         key->generation, key->name);
    if (key->state == KEY_DEACTIVATED &&
        commit_now_us() > key->deactivated_us + config->grace_s * INT64_C(1000000))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the grace period of generation %" PRIu64 " of key '%s' is over",
                         key->generation, key->name);
    record->generation = key->generation;
    memcpy(record->public_key, key->public_key, sizeof(record->public_key));
    return 0;
}

// Gives the record its lease, and has it committed with its release.
static void grant(struct call *call)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct error err;
    uint8_t lease[LEASE_BYTES];
    randombytes_buf(lease, sizeof(lease));
    sodium_bin2hex(record->lease, sizeof(record->lease), lease, sizeof(lease));
    record->expires_us = commit_now_us() + daemon->config->lease_s * INT64_C(1000000);
    if (commit_submit(daemon->commit, record, KEEPER_ACTION_RELEASE, on_granted, call, &err) != 0)
        call_fail(call, &err);
}

void release_key(struct call *call, const Custody__V1__ReleaseKey *request)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct error err;
    if (take_request(call, request, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    if (policy_release(daemon->config, daemon->rates, &call->actor, record->key, record->reason,
                       monotonic_us(), &err) != 0 ||
        choose_generation(call, &err) != 0) {
        call_deny(call, &err);
        return;
    }
    grant(call);
}

// ---- releasing a preshared key ----

static int choose_epoch(struct call *call, struct error *err)
{
    struct record *record = &call->record;
    const struct state *state = call->daemon->state;
    const struct psk *psk =
        psks_find(state_psks(state), record->key, record->peer, record->peer_key);
    if (record->reason == REASON_OPERATOR)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a preshared key is released for BOOT, RESTORE, ROTATION or ROLLBACK");
    if (!psks_has(psk, record->epoch))
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no epoch %" PRIu64 " of the preshared key with key '%s' of host "
                         "'%s'",
                         record->epoch, record->peer_key, record->peer);
    snprintf(record->method, sizeof(record->method), "%s", psks_method(psk));
    return check_hold(state, record->key, err);
}

// Who may rotate may go back, too: an end that could not would be cut off.
void release_preshared(struct call *call, const Custody__V1__ReleasePsk *request)
{
    struct record *record = &call->record;
    struct error err;
    record->event = RECORD_RELEASE_GRANTED;
    record->actor = call->actor;
    record->purpose = PURPOSE_PRESHARED;
    record->epoch = request->epoch;
    if (!name_is_key(request->key) || !name_is_host(request->peer) ||
        !name_is_key(request->peer_key)) {
        error_set(&err, ERROR_INVALID_ARGUMENT, "key, peer or peer_key is no name");
        call_fail(call, &err);
        return;
    }
    snprintf(record->key, sizeof(record->key), "%s", request->key);
    snprintf(record->peer, sizeof(record->peer), "%s", request->peer);
    snprintf(record->peer_key, sizeof(record->peer_key), "%s", request->peer_key);
    if (take_recipient(record, request->reason, &request->applier_public_key, &err) != 0)
        call_fail(call, &err);
    else if (policy_release(call->daemon->config, call->daemon->rates, &call->actor, record->key,
                            record->reason == REASON_ROLLBACK ? REASON_ROTATION : record->reason,
                            monotonic_us(), &err) != 0 ||
             choose_epoch(call, &err) != 0)
        call_deny(call, &err);
    else
        grant(call);
}

// ---- outcomes ----

static void answer_outcome(struct call *call)
{
    Custody__V1__OutcomeRecorded recorded = CUSTODY__V1__OUTCOME_RECORDED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    recorded.seq = call->record.seq;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_OUTCOME_RECORDED;
    response.outcome_recorded = &recorded;
    call_answer(call, &response);
}

static void on_activated(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded)
        say(LOG_WARNING, "key '%s' generation %" PRIu64 " was applied, but not activated: %s",
            call->record.key, call->record.generation, result->error.message);
    answer_outcome(call);
}

// Whether an open rotation decides when this generation becomes active: once its handshakes are
// confirmed. A key without an active generation has nothing to lose, and its first one, or the
// replacement of one that was revoked, is active as soon as it is set.
static bool waits_for_rotation(const struct state *state, const struct state_key *key)
{
    const struct rotation *open = rotations_open(state_rotations(state), key->name);
    return open != NULL && open->generation == key->generation &&
           state_key_active(state, key->name) != NULL;
}

// A generation that was set on its interface becomes the active one, and who reported that is told
// afterwards. Returns false when there is nothing to change.
static bool activate(struct call *call)
{
    const struct state *state = call->daemon->state;
    const struct state_key *key = state_key_find(state, call->record.key, call->record.generation);
    struct commit_entry entries[2];
    struct error err;
    if (key == NULL || waits_for_rotation(state, key))
        return false;
    unsigned count = rotation_activate(state, key, entries);
    if (count == 0)
        return false;
    entries[count - 1].done = on_activated;
    entries[count - 1].context = call;
    return commit_submit_all(call->daemon->commit, entries, count, &err) == 0;
}

static void on_outcome(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded) {
        call_fail(call, &result->error);
        return;
    }
    call->record.seq = result->record->seq;
    if (result->record->event != RECORD_RELEASE_APPLIED ||
        result->record->purpose == PURPOSE_PRESHARED || !activate(call))
        answer_outcome(call);
}

void release_outcome(struct call *call, const Custody__V1__ReportOutcome *request)
{
    struct record *record = &call->record;
    struct error err;
    const struct state_lease *lease = state_lease_find(call->daemon->state, request->lease);
    if (lease == NULL) {
        error_set(&err, ERROR_NOT_FOUND,
                  "lease '%.40s' is not open: it was reported, or has expired", request->lease);
        call_fail(call, &err);
        return;
    }
    snprintf(record->key, sizeof(record->key), "%s", lease->key);
    record->generation = lease->generation;
    if (lease->generation == 0)
        record->purpose = PURPOSE_PRESHARED;
    if (lease->uid != call->actor.uid) {
        error_set(&err, ERROR_PERMISSION_DENIED, "lease '%s' is another user's", lease->lease);
        call_deny(call, &err);
        return;
    }
    if (call_copy_text(record->detail, sizeof(record->detail), request->detail, "detail", &err) !=
        0) {
        call_fail(call, &err);
        return;
    }
    record->event = request->applied ? RECORD_RELEASE_APPLIED : RECORD_RELEASE_FAILED;
    record->actor = call->actor;
    snprintf(record->lease, sizeof(record->lease), "%s", lease->lease);
    if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_NONE, on_outcome, call, &err) !=
        0)
        call_fail(call, &err);
}
