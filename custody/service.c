// SPDX-License-Identifier: Apache-2.0
// From a request to the function that serves it, past attestation, phase and role.
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keys.h"
#include "policy.h"
#include "release.h"
#include "requests.h"
#include "say.h"
#include "token_service.h"

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
    bool release = strcmp(call->name, "ReleaseKey") == 0;
    struct record record = {.event = release ? RECORD_RELEASE_DENIED : RECORD_ACCESS_DENIED,
                            .actor = call->actor,
                            .generation = call->record.generation,
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
    [CUSTODY__V1__REQUEST__BODY_PUBLISH_KEY] = {"PublishKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_DESTROY_KEY] = {"DestroyKey", POLICY_OPERATOR, false, false, false},
    [CUSTODY__V1__REQUEST__BODY_LIST_REQUESTS] = {"ListRequests", POLICY_OPERATOR | POLICY_AUDITOR,
                                                  false, false, true},
    [CUSTODY__V1__REQUEST__BODY_APPROVE] = {"Approve", POLICY_OPERATOR, false, false, true},
    [CUSTODY__V1__REQUEST__BODY_ACCEPT_LOSS] = {"AcceptLoss", POLICY_OPERATOR, false, false, true},
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

static void dispatch(struct call *call, const Custody__V1__Request *request, unsigned roles)
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
        keys_list(call, request->list_keys, roles);
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
    default: // kind_of knows no other
        keys_destroy(call, request->destroy_key);
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
    unsigned roles = policy_roles(daemon->config, &call->actor);
    // A release is decided by the key's own grants, once it is known which key.
    if (kind->roles != 0 && (roles & kind->roles) == 0) {
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
    dispatch(call, request, roles);
}

void service_hello(void *context, Custody__V1__HelloAnswer *answer)
{
    const struct daemon *daemon = context;
    answer->server = (char *)"custodyd " PACKAGE_VERSION;
    answer->host = daemon->config->host;
    answer->log_vkey = (char *)state_log_vkey(daemon->state);
}
