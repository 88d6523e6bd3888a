// SPDX-License-Identifier: Apache-2.0
// Initialising and probing the token, and saying how things stand.
#include "token_service.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "say.h"

static void fill_token(Custody__V1__TokenInfo *out, const struct keeper_status *status)
{
    custody__v1__token_info__init(out);
    out->label = (char *)status->token.label;
    out->serial = (char *)status->token.serial;
    out->manufacturer = (char *)status->token.manufacturer;
    out->model = (char *)status->token.model;
    out->suite = (char *)status->suite;
    out->blobs = status->blobs;
    out->leftovers = status->leftovers;
}

// ---- token init ----

static void answer_initialised(struct call *call, bool already)
{
    Custody__V1__TokenInitialised initialised = CUSTODY__V1__TOKEN_INITIALISED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__TokenInfo token;
    fill_token(&token, &call->daemon->keeper);
    initialised.token = &token;
    initialised.log_vkey = (char *)state_log_vkey(call->daemon->state);
    initialised.host_vkey = (char *)state_host_vkey(call->daemon->state);
    initialised.already = already;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_TOKEN_INITIALISED;
    response.token_initialised = &initialised;
    call_answer(call, &response);
}

static void on_opened(void *context, const struct error *why)
{
    (void)why; // the token is initialised, whatever came after
    answer_initialised(context, false);
}

static void on_initialised(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    // Record 0 stands: the rest of an opening follows, and records what the daemon is.
    opening_begin(call->daemon->opening);
    opening_when_ended(call->daemon->opening, on_opened, call);
}

// The empty log is open: its record 0 can be committed.
static void on_log_open(void *context, const struct error *why)
{
    struct call *call = context;
    const struct keeper_status *keeper = &call->daemon->keeper;
    struct record *record = &call->record;
    struct error err;
    if (why != NULL) {
        call_fail(call, why);
        return;
    }
    record->event = RECORD_TOKEN_INITIALISED;
    record->actor = call->actor;
    record->token = keeper->token;
    memcpy(record->suite, keeper->suite, sizeof(record->suite));
    memcpy(record->log_vkey, keeper->log_vkey, sizeof(record->log_vkey));
    memcpy(record->host_vkey, keeper->host_vkey, sizeof(record->host_vkey));
    if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_INIT, on_initialised, call,
                      &err) != 0)
        call_fail(call, &err);
}

static void on_objects(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    struct error err;
    if (reply == NULL) {
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it made the token's keys");
        call_fail(call, &err);
    } else if (reply->error.code != ERROR_OK) {
        opening_begin(call->daemon->opening);
        call_fail(call, &reply->error);
    } else {
        call->daemon->keeper = reply->body.status;
        opening_empty_log(call->daemon->opening, on_log_open, call);
    }
}

void token_service_init(struct call *call)
{
    struct daemon *daemon = call->daemon;
    struct error err;
    if (daemon->phase == DAEMON_READY) {
        answer_initialised(call, true);
        return;
    }
    struct keeper_request *request = calloc(1, sizeof(*request));
    if (request == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a request to the keeper");
        call_fail(call, &err);
        return;
    }
    // Nobody else is to begin with the same token.
    daemon_set_phase(daemon, DAEMON_CLOSED, "the token is being initialised");
    if (keeper_link_ask(daemon->link, request, KEEPER_INIT, on_objects, call, &err) != 0) {
        daemon_set_phase(daemon, DAEMON_CLOSED, err.message);
        call_fail(call, &err);
    }
    free(request);
}

// ---- token probe ----

static void on_probe(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    struct error err;
    if (reply == NULL || reply->error.code != ERROR_OK) {
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it probed the token");
        call_fail(call, reply == NULL ? &err : &reply->error);
        return;
    }
    const struct keeper_probe *from = &reply->body.probe;
    Custody__V1__TokenProbe probe = CUSTODY__V1__TOKEN_PROBE__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__TokenProbe__Check checks[KEEPER_PROBE_MAX], *pointers[KEEPER_PROBE_MAX];
    for (uint32_t i = 0; i < from->count && i < KEEPER_PROBE_MAX; i++) {
        custody__v1__token_probe__check__init(&checks[i]);
        checks[i].name = (char *)from->checks[i].name;
        checks[i].passed = from->checks[i].passed;
        checks[i].required = from->checks[i].required;
        checks[i].detail = (char *)from->checks[i].detail;
        pointers[i] = &checks[i];
        probe.n_checks = i + 1;
    }
    probe.checks = pointers;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_TOKEN_PROBE;
    response.token_probe = &probe;
    call_answer(call, &response);
}

void token_service_probe(struct call *call)
{
    struct keeper_request *request = calloc(1, sizeof(*request));
    struct error err;
    if (request == NULL)
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a request to the keeper");
    if (request == NULL ||
        keeper_link_ask(call->daemon->link, request, KEEPER_PROBE, on_probe, call, &err) != 0)
        call_fail(call, &err);
    free(request);
}

// ---- status ----

#define WARNINGS_MAX 8

struct warnings {
    size_t count;
    char text[WARNINGS_MAX][256];
    char *pointers[WARNINGS_MAX];
};

static void warn(struct warnings *warnings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void warn(struct warnings *warnings, const char *format, ...)
{
    if (warnings->count == WARNINGS_MAX)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(warnings->text[warnings->count], sizeof(warnings->text[0]), format, args);
    va_end(args);
    warnings->pointers[warnings->count] = warnings->text[warnings->count];
    warnings->count++;
}

static void find_warnings(const struct daemon *daemon, struct warnings *warnings)
{
    char projection[PROJECTION_WARNING_SIZE];
    warnings->count = 0;
    if (daemon->keeper.leftovers > 0)
        warn(warnings, "the token holds %u sealed blob(s) that were never recorded as generated",
             daemon->keeper.leftovers);
    if (daemon->keeper.token.weak)
        warn(warnings, "the token gives away keys that it should keep");
    if (daemon->keeper.restore == KEEPER_RESTORE_UNNOTICED)
        warn(warnings, "this token keeps its objects in files: restoring an older copy of them "
                       "together with the log goes unnoticed");
    if (daemon->config->approvals_by_uid)
        warn(warnings, "operators approve by their uid alone: whoever is root is every operator");
    for (size_t i = 0; i < daemon->config->key_count; i++) {
        char text[CONFIG_WARNING_SIZE];
        if (config_key_warning(&daemon->config->keys[i], text))
            warn(warnings, "%s", text);
    }
    projection_warning(daemon->projection, projection);
    if (projection[0] != '\0')
        warn(warnings, "%s", projection);
}

static uint64_t head_size(const struct daemon *daemon)
{
    struct note_key key;
    struct checkpoint head;
    if (!daemon->keeper.has_head || note_key_parse(&key, daemon->keeper.log_vkey, NULL) != 0 ||
        checkpoint_open(&head, daemon->keeper.head, strlen(daemon->keeper.head), &key, NULL) != 0)
        return 0;
    return head.size;
}

uint64_t token_service_head_lag(const struct daemon *daemon)
{
    uint64_t size = log_size(daemon->log), head = head_size(daemon);
    return daemon->phase == DAEMON_READY && size > head ? size - head : 0;
}

static uint32_t live_keys(const struct state *state)
{
    uint32_t count = 0;
    for (size_t i = 0; i < state_keys(state); i++)
        count += state_key_at(state, i)->state != KEY_DESTROYED;
    return count;
}

void token_service_status(struct call *call)
{
    struct daemon *daemon = call->daemon;
    Custody__V1__Status status = CUSTODY__V1__STATUS__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__TokenInfo token;
    struct warnings warnings;
    char root[64];
    struct merkle_hash hash = log_root(daemon->log);
    fill_token(&token, &daemon->keeper);
    find_warnings(daemon, &warnings);
    sodium_bin2base64(root, sizeof(root), hash.bytes, sizeof(hash.bytes),
                      sodium_base64_VARIANT_ORIGINAL);
    status.host = daemon->config->host;
    status.version = (char *)PACKAGE_VERSION;
    // While the log is being read, the token's word stands.
    status.initialised = state_initialised(daemon->state) || daemon->keeper.has_head;
    status.keeper_ready = keeper_link_ready(daemon->link);
    status.keeper_message = (char *)keeper_link_message(daemon->link);
    status.log_ready = daemon->phase == DAEMON_READY;
    status.log_message = daemon->phase_message;
    status.log_size = log_size(daemon->log);
    status.log_root = root;
    status.log_vkey = (char *)state_log_vkey(daemon->state);
    status.host_vkey = (char *)state_host_vkey(daemon->state);
    status.token = &token;
    status.leases = (uint32_t)state_leases(daemon->state);
    status.connections = listener_connections(daemon->listener);
    status.keys = live_keys(daemon->state);
    status.started_us = daemon->started_us;
    status.head_size = head_size(daemon);
    status.head_lag = token_service_head_lag(daemon);
    status.head_interval_ms = daemon->keeper.head_interval_ms;
    status.restore_unnoticed = daemon->keeper.restore == KEEPER_RESTORE_UNNOTICED;
    status.sealed = daemon->phase == DAEMON_SEALED;
    status.approvals = (char *)(daemon->config->approvals_by_uid ? "uids" : "signatures");
    status.n_warnings = warnings.count;
    status.warnings = warnings.pointers;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_STATUS;
    response.status = &status;
    call_answer(call, &response);
}
