// SPDX-License-Identifier: Apache-2.0
// From a request to the function that serves it, past attestation, phase and role.
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counterparts.h"
#include "importing.h"
#include "keys.h"
#include "policy.h"
#include "preshared.h"
#include "release.h"
#include "requests.h"
#include "rotation.h"
#include "say.h"
#include "token_service.h"
#include "views.h"
#include "watches.h"

// ---- answering ----

static void send_answer(struct call *call, Custody__V1__Response *response)
{
    response->id = call->id;
    connection_answer(call->connection, response);
    free(call);
}

void call_answer(struct call *call, Custody__V1__Response *response)
{
    response->code = CUSTODY__V1__CODE__OK;
    send_answer(call, response);
}

// A message may quote what the client sent, and may be cut anywhere: what is not UTF-8 any more
// could be neither a string of protobuf nor one of a record.
static void copy_message(char *out, size_t size, const char *message)
{
    size_t length = strnlen(message, size - 1);
    memcpy(out, message, length);
    out[length] = '\0';
    if (name_is_utf8(out, length))
        return;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)out[i] >= 0x80)
            out[i] = '?';
}

void call_fail(struct call *call, const struct error *why)
{
    char message[ERROR_MESSAGE_MAX];
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    copy_message(message, sizeof(message), why->message);
    response.code = (Custody__V1__Code)why->code;
    response.message = message;
    send_answer(call, &response);
}

void call_deny(struct call *call, const struct error *why)
{
    bool psk = strcmp(call->name, "ReleasePsk") == 0;
    bool release = psk || strcmp(call->name, "ReleaseKey") == 0;
    struct record record = {.event = release ? RECORD_RELEASE_DENIED : RECORD_ACCESS_DENIED,
                            .actor = call->actor,
                            .generation = call->record.generation,
                            .purpose = psk ? PURPOSE_PRESHARED : PURPOSE_NONE,
                            .reason = call->record.reason,
                            .code = why->code};
    memcpy(record.key, call->record.key, sizeof(record.key));
    memcpy(record.ticket, call->record.ticket, sizeof(record.ticket));
    snprintf(record.request, sizeof(record.request), "%s", call->name);
    copy_message(record.detail, sizeof(record.detail), why->message);
    if (call->daemon->phase == DAEMON_READY)
        denials_note(call->daemon->denials, &record);
    say(LOG_NOTICE, "denied %s to uid %u pid %u: %s", call->name, call->actor.uid, call->actor.pid,
        why->message);
    call_fail(call, why);
}

void call_refuse(struct call *call, const struct error *why)
{
    if (why->code == ERROR_PERMISSION_DENIED)
        call_deny(call, why);
    else
        call_fail(call, why);
}

int call_copy_text(char *field, size_t size, const char *text, const char *what, struct error *err)
{
    size_t length = strnlen(text, size);
    if (length == size)
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s is longer than %zu bytes", what,
                         size - 1);
    if (!name_is_utf8(text, length))
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s is not UTF-8", what);
    memcpy(field, text, length);
    memset(field + length, 0, size - length);
    return 0;
}

// ---- what many requests name ----

static int deny_key(const struct call *call, const char *key, struct error *err)
{
    return error_set(err, ERROR_PERMISSION_DENIED,
                     "no grant for ROTATION lets uid %u in unit '%s' ask %s of key '%s': see key "
                     "\"%s\" in the configuration",
                     call->actor.uid, call->actor.unit, call->name, key, key);
}

const struct config_key *call_take_key(struct call *call, const char *key, struct error *err)
{
    call->record.actor = call->actor;
    if (!name_is_key(key)) {
        error_set(err, ERROR_INVALID_ARGUMENT,
                  "'%.80s' is no key's name: 1 to %d of A-Z a-z 0-9 _ . -", key, KEY_MAX);
        return NULL;
    }
    snprintf(call->record.key, sizeof(call->record.key), "%s", key);
    const struct config_key *config = config_find_key(call->daemon->config, key);
    if (config == NULL && (call->roles & (POLICY_OPERATOR | POLICY_AUDITOR)))
        error_set(err, ERROR_FAILED_PRECONDITION,
                  "key '%s' is not declared: add a section key \"%s\" to the configuration and "
                  "send custodyd SIGHUP",
                  key, key);
    else if (config == NULL)
        deny_key(call, key, err);
    return config;
}

int call_check_rotates(struct call *call, const struct config_key *key, unsigned roles,
                       struct error *err)
{
    if ((call->roles & roles) || policy_may_rotate(key, &call->actor))
        return 0;
    return deny_key(call, key->name, err);
}

int call_take_ticket(struct call *call, const char *ticket, struct error *err)
{
    if (!name_is_ticket(ticket))
        return error_set(err, ERROR_INVALID_ARGUMENT, "a ticket is at most %d bytes of text",
                         TICKET_MAX);
    snprintf(call->record.ticket, sizeof(call->record.ticket), "%s", ticket);
    return 0;
}

// ---- dispatch ----

// What a request needs before its own function looks at it.
struct kind {
    const char *name;
    unsigned roles;     // one of these
    bool before_ready;  // served without keeper or log; ListKeys once the log was read
    bool before_tokens; // served before `token init`
    bool sealed;        // served while token and log disagree
};

static const struct kind kinds[] = {
    [CUSTODY__V1__REQUEST__BODY_RELEASE_KEY] = {"ReleaseKey", 0, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_REPORT_OUTCOME] = {"ReportOutcome", POLICY_APPLIER, false, false,
                                                   false},
    [CUSTODY__V1__REQUEST__BODY_GET_STATUS] = {"GetStatus",
                                               POLICY_OPERATOR | POLICY_AUDITOR | POLICY_APPLIER,
                                               true, true, true},
    [CUSTODY__V1__REQUEST__BODY_LIST_KEYS] = {"ListKeys",
                                              POLICY_OPERATOR | POLICY_AUDITOR | POLICY_APPLIER,
                                              true, false, false},
    [CUSTODY__V1__REQUEST__BODY_INIT_TOKEN] = {"InitToken", POLICY_OPERATOR, false, true, false},
    [CUSTODY__V1__REQUEST__BODY_PROBE_TOKEN] = {"ProbeToken", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_GENERATE_KEY] = {"GenerateKey", POLICY_OPERATOR, false, false,
                                                 false},
    [CUSTODY__V1__REQUEST__BODY_PUBLISH_KEY] = {"PublishKey", POLICY_OPERATOR | POLICY_APPLIER,
                                                false, false, false},
    [CUSTODY__V1__REQUEST__BODY_DESTROY_KEY] = {"DestroyKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_LIST_REQUESTS] = {"ListRequests", POLICY_OPERATOR | POLICY_AUDITOR,
                                                  false, false, true},
    [CUSTODY__V1__REQUEST__BODY_APPROVE] = {"Approve", POLICY_OPERATOR, false, false, true},
    [CUSTODY__V1__REQUEST__BODY_ACCEPT_LOSS] = {"AcceptLoss", POLICY_OPERATOR, false, false, true},
    [CUSTODY__V1__REQUEST__BODY_ROTATE_KEY] = {"RotateKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_SUSPEND_KEY] = {"SuspendKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_RESUME_KEY] = {"ResumeKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_REVOKE_KEY] = {"RevokeKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_GET_VIEW] = {"GetView",
                                             POLICY_OPERATOR | POLICY_AUDITOR | POLICY_APPLIER,
                                             false, false, false},
    [CUSTODY__V1__REQUEST__BODY_WATCH_KEYS] = {"WatchKeys",
                                               POLICY_OPERATOR | POLICY_AUDITOR | POLICY_APPLIER,
                                               false, false, false},
    [CUSTODY__V1__REQUEST__BODY_END_ROTATION] = {"EndRotation", POLICY_APPLIER, false, false,
                                                 false},
    [CUSTODY__V1__REQUEST__BODY_RECORD_PEER] = {"RecordPeer", POLICY_APPLIER, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_REFRESH_KEY] = {"RefreshKey", POLICY_APPLIER, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_RECORD_FINDING] = {"RecordFinding", POLICY_APPLIER, false, false,
                                                   false},
    [CUSTODY__V1__REQUEST__BODY_MAKE_PSK] = {"MakePsk", POLICY_APPLIER, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_TAKE_PSK] = {"TakePsk", POLICY_APPLIER, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_RELEASE_PSK] = {"ReleasePsk", 0, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_SET_PSK] = {"SetPsk", POLICY_APPLIER, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_IMPORT_KEY] = {"ImportKey", POLICY_APPLIER, false, false, false},
};

static const struct kind *kind_of(const Custody__V1__Request *request)
{
    unsigned body = (unsigned)request->body_case;
    return body < sizeof(kinds) / sizeof(kinds[0]) && kinds[body].name != NULL ? &kinds[body]
                                                                               : NULL;
}

static int check_phase(const struct daemon *daemon, const struct kind *kind, struct error *err)
{
    if (daemon->stopping)
        return error_set(err, ERROR_UNAVAILABLE, "the daemon is stopping");
    if (daemon->phase == DAEMON_SEALED)
        return kind->sealed ? 0
                            : error_set(err, ERROR_FAILED_PRECONDITION, "sealed: %.490s",
                                        daemon->phase_message);
    if (daemon->phase == DAEMON_READY ||
        (kind->before_ready && (kind->before_tokens || state_initialised(daemon->state))))
        return 0;
    if (daemon->phase == DAEMON_UNINITIALISED)
        return kind->before_tokens
                   ? 0
                   : error_set(err, ERROR_FAILED_PRECONDITION, "%s", daemon->phase_message);
    if (disk_is_hanging(daemon->disk, err))
        return -1;
    // Why the keeper is not there is known best by its link, which saw it end.
    if (!keeper_link_ready(daemon->link))
        return error_set(err, ERROR_UNAVAILABLE, "the keeper is not ready: %s",
                         keeper_link_message(daemon->link));
    return error_set(err, daemon->phase_code, "%s", daemon->phase_message);
}

static void dispatch_preshared(struct call *call, const Custody__V1__Request *request)
{
    switch (request->body_case) {
    case CUSTODY__V1__REQUEST__BODY_MAKE_PSK:
        preshared_make(call, request->make_psk);
        return;
    case CUSTODY__V1__REQUEST__BODY_TAKE_PSK:
        preshared_take(call, request->take_psk);
        return;
    case CUSTODY__V1__REQUEST__BODY_RELEASE_PSK:
        release_preshared(call, request->release_psk);
        return;
    default: // kind_of knows no other
        preshared_set(call, request->set_psk);
        return;
    }
}

static void dispatch_rotation(struct call *call, const Custody__V1__Request *request)
{
    switch (request->body_case) {
    case CUSTODY__V1__REQUEST__BODY_ROTATE_KEY:
        rotation_rotate(call, request->rotate_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_SUSPEND_KEY:
        rotation_suspend(call, request->suspend_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_RESUME_KEY:
        rotation_resume(call, request->resume_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_REVOKE_KEY:
        rotation_revoke(call, request->revoke_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_GET_VIEW:
        views_get(call, request->get_view);
        return;
    case CUSTODY__V1__REQUEST__BODY_WATCH_KEYS:
        watches_add(call, request->watch_keys);
        return;
    case CUSTODY__V1__REQUEST__BODY_END_ROTATION:
        rotation_end(call, request->end_rotation);
        return;
    case CUSTODY__V1__REQUEST__BODY_RECORD_PEER:
        counterparts_record_peer(call, request->record_peer);
        return;
    case CUSTODY__V1__REQUEST__BODY_REFRESH_KEY:
        counterparts_refresh(call, request->refresh_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_RECORD_FINDING:
        counterparts_record_finding(call, request->record_finding);
        return;
    default:
        dispatch_preshared(call, request);
        return;
    }
}

static void dispatch(struct call *call, const Custody__V1__Request *request)
{
    switch (request->body_case) {
    case CUSTODY__V1__REQUEST__BODY_RELEASE_KEY:
        release_key(call, request->release_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_REPORT_OUTCOME:
        release_outcome(call, request->report_outcome);
        return;
    case CUSTODY__V1__REQUEST__BODY_GET_STATUS:
        token_service_status(call);
        return;
    case CUSTODY__V1__REQUEST__BODY_LIST_KEYS:
        keys_list(call, request->list_keys);
        return;
    case CUSTODY__V1__REQUEST__BODY_INIT_TOKEN:
        token_service_init(call);
        return;
    case CUSTODY__V1__REQUEST__BODY_PROBE_TOKEN:
        token_service_probe(call);
        return;
    case CUSTODY__V1__REQUEST__BODY_GENERATE_KEY:
        keys_generate(call, request->generate_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_PUBLISH_KEY:
        keys_publish(call, request->publish_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_LIST_REQUESTS:
        requests_list(call, request->list_requests);
        return;
    case CUSTODY__V1__REQUEST__BODY_APPROVE:
        requests_approve(call, request->approve);
        return;
    case CUSTODY__V1__REQUEST__BODY_ACCEPT_LOSS:
        loss_accept(call);
        return;
    case CUSTODY__V1__REQUEST__BODY_IMPORT_KEY:
        importing_import(call, request->import_key);
        return;
    case CUSTODY__V1__REQUEST__BODY_DESTROY_KEY:
        keys_destroy(call, request->destroy_key);
        return;
    default:
        dispatch_rotation(call, request);
        return;
    }
}

void service_request(void *context, struct connection *connection,
                     const Custody__V1__Request *request)
{
    struct daemon *daemon = context;
    const struct kind *kind = kind_of(request);
    struct call *call = calloc(1, sizeof(*call));
    struct error err;
    if (call == NULL) {
        Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
        response.id = request->id;
        response.code = CUSTODY__V1__CODE__RESOURCE_EXHAUSTED;
        response.message = (char *)"out of memory";
        connection_answer(connection, &response);
        return;
    }
    *call = (struct call){
        .daemon = daemon, .connection = connection, .id = request->id, .name = "a request"};
    if (kind == NULL) {
        error_set(&err, ERROR_INVALID_ARGUMENT,
                  "the request asks for nothing that this daemon knows");
        call_fail(call, &err);
        return;
    }
    call->name = kind->name;
    if (caller_attest(connection_caller(connection), &call->actor, &err) != 0) {
        call_deny(call, &err);
        return;
    }
    call->roles = policy_roles(daemon->config, &call->actor);
    // A release is decided by the key's own grants, once it is known which key.
    if (kind->roles != 0 && (call->roles & kind->roles) == 0) {
        error_set(&err, ERROR_PERMISSION_DENIED,
                  "%s is not for uid %u in unit '%s': see the configuration's sections", kind->name,
                  call->actor.uid, call->actor.unit);
        call_deny(call, &err);
        return;
    }
    if (check_phase(daemon, kind, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    dispatch(call, request);
}

void service_hello(void *context, Custody__V1__HelloAnswer *answer)
{
    const struct daemon *daemon = context;
    answer->server = (char *)"custodyd " PACKAGE_VERSION;
    answer->host = daemon->config->host;
    answer->log_vkey = (char *)state_log_vkey(daemon->state);
}
