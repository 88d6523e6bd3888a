// SPDX-License-Identifier: Apache-2.0
// Requests that two operators approve.
#include "requests.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "loss.h"
#include "policy.h"
#include "sshsig.h"
#include "survey.h"

#define REQUEST_LIFE_US (INT64_C(86400) * 1000000) // until an approval comes too late

// ---- answers ----

// A request as the wire has it, and what that points to.
struct view {
    Custody__V1__ApprovalRequest message;
    char text[APPROVAL_TEXT_MAX];
    char *operators[APPROVALS_MAX];
};

static void look_at(struct view *view, const struct config *config, const struct request *request)
{
    struct record requested;
    request_as_record(request, config->host, &requested);
    if (approval_text(&requested, view->text) < 0)
        view->text[0] = '\0';
    Custody__V1__ApprovalRequest *out = &view->message;
    custody__v1__approval_request__init(out);
    out->id = (char *)request->id;
    out->operation = (char *)record_operation_name(request->operation);
    out->text = view->text;
    out->key = (char *)request->key;
    out->generation = request->generation;
    out->uid = request->uid;
    out->requested_us = request->requested_us;
    out->expires_us = request->expires_us;
    out->old_size = request->old_size;
    out->new_size = request->new_size;
    for (size_t i = 0; i < request->approval_count; i++)
        view->operators[i] = (char *)request->approvals[i].operator_name;
    out->operators = view->operators;
    out->n_operators = request->approval_count;
    out->needed = APPROVALS_NEEDED;
}

void requests_answer_needed(struct call *call, const struct request *request)
{
    struct view view;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    look_at(&view, call->daemon->config, request);
    response.body_case = CUSTODY__V1__RESPONSE__BODY_APPROVAL_REQUEST;
    response.approval_request = &view.message;
    call_answer(call, &response);
}

void requests_answer_approved(struct call *call, const struct request *request, const char *name)
{
    struct view view;
    Custody__V1__Approved approved = CUSTODY__V1__APPROVED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    look_at(&view, call->daemon->config, request);
    approved.request = &view.message;
    approved.operator_ = (char *)name;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_APPROVED;
    response.approved = &approved;
    call_answer(call, &response);
}

static void answer_list(struct call *call, const struct request *const *requests, size_t count)
{
    struct view views[REQUESTS_MAX];
    Custody__V1__ApprovalRequest *messages[REQUESTS_MAX];
    Custody__V1__RequestList list = CUSTODY__V1__REQUEST_LIST__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    for (size_t i = 0; i < count; i++) {
        look_at(&views[i], call->daemon->config, requests[i]);
        messages[i] = &views[i].message;
    }
    list.requests = messages;
    list.n_requests = count;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_REQUEST_LIST;
    response.request_list = &list;
    call_answer(call, &response);
}

void requests_answer_one(struct call *call, const struct request *request)
{
    answer_list(call, &request, 1);
}

// ---- looking ----

static bool has_expired(const struct request *request)
{
    return request->expires_us != 0 && request->expires_us < commit_now_us();
}

// The open request of that id; NULL with `err` where it is none.
static const struct request *find(const struct daemon *daemon, const char *id, struct error *err)
{
    const struct request *request = request_list_find(state_requests(daemon->state), id);
    if (request == NULL)
        error_set(err, ERROR_NOT_FOUND,
                  "request '%.40s' is not open: it was carried out already, or never made", id);
    else if (has_expired(request))
        error_set(err, ERROR_FAILED_PRECONDITION,
                  "request %s has expired: ask for the operation again", id);
    else
        return request;
    return NULL;
}

void requests_list(struct call *call, const Custody__V1__ListRequests *wanted)
{
    const struct daemon *daemon = call->daemon;
    const struct request_list *all = state_requests(daemon->state);
    const struct request *chosen[REQUESTS_MAX];
    struct error err;
    size_t count = 0;
    if (daemon->phase == DAEMON_SEALED) {
        loss_list(call, wanted->id);
        return;
    }
    if (wanted->id[0] != '\0') {
        const struct request *request = find(daemon, wanted->id, &err);
        if (request == NULL)
            call_fail(call, &err);
        else
            requests_answer_one(call, request);
        return;
    }
    for (size_t i = 0; i < all->count; i++)
        if (!has_expired(&all->items[i]))
            chosen[count++] = &all->items[i];
    answer_list(call, chosen, count);
}

// ---- requesting ----

static void on_requested(void *context, const struct commit_result *result)
{
    struct call *call = context;
    struct error err;
    const struct request *request =
        result->recorded ? find(call->daemon, result->record->request_id, &err) : NULL;
    if (request != NULL)
        requests_answer_needed(call, request);
    else
        call_fail(call, result->recorded ? &err : &result->error);
}

void requests_make(struct call *call)
{
    struct record *record = &call->record;
    uint8_t id[RECORD_REQUEST_MAX / 2];
    struct error err;
    randombytes_buf(id, sizeof(id));
    sodium_bin2hex(record->request_id, sizeof(record->request_id), id, sizeof(id));
    record->event = RECORD_APPROVAL_REQUESTED;
    record->operation = OPERATION_KEY_DESTROY;
    record->expires_us = commit_now_us() + REQUEST_LIFE_US;
    if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_NONE, on_requested, call, &err) !=
        0)
        call_fail(call, &err);
}

int requests_name(struct call *call, const char *id, struct error *err)
{
    if (id[0] == '\0')
        return 0;
    const struct request *request = find(call->daemon, id, err);
    if (request == NULL)
        return -1;
    memcpy(call->record.request_id, request->id, sizeof(request->id));
    return 0;
}

// ---- approving ----

static int identify_uid(const struct config *config, const struct record_actor *actor,
                        struct record *given, struct error *err)
{
    if (!config->approvals_by_uid)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "an approval is a signature here: custodyctl approve --key or "
                         "--signature");
    for (size_t i = 0; i < config->operator_count; i++) {
        if (!policy_matches(&config->operators[i], actor))
            continue;
        snprintf(given->operator_name, sizeof(given->operator_name), "%s",
                 config->operators[i].name);
        return 0;
    }
    return error_set(err, ERROR_PERMISSION_DENIED, "uid %u is no operator", actor->uid);
}

static int identify_key(const struct config *config, const struct record *requested,
                        const char *signature, struct record *given, struct error *err)
{
    if (strlen(signature) > RECORD_SIGNATURE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the signature is longer than %d bytes",
                         RECORD_SIGNATURE_MAX);
    if (sshsig_signer(signature, given->operator_key, sizeof(given->operator_key), err) != 0)
        return -1;
    const char *name = operators_name(config->pinned, given->operator_key);
    if (name == NULL)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "the signature is by no operator: its key is not in the file that "
                         "'operators' names");
    snprintf(given->operator_name, sizeof(given->operator_name), "%s", name);
    snprintf(given->signature, sizeof(given->signature), "%s", signature);
    return approval_verify(requested, given, err);
}

int requests_identify(const struct config *config, const struct record *requested,
                      const struct record_actor *actor, const char *signature, struct record *given,
                      struct error *err)
{
    memset(given, 0, sizeof(*given));
    given->event = RECORD_APPROVAL_GIVEN;
    given->actor = *actor;
    memcpy(given->request_id, requested->request_id, sizeof(given->request_id));
    if (signature[0] == '\0')
        return identify_uid(config, actor, given, err);
    return identify_key(config, requested, signature, given, err);
}

static void on_approved(void *context, const struct commit_result *result)
{
    struct call *call = context;
    struct error err;
    const struct request *request =
        result->recorded ? find(call->daemon, result->record->request_id, &err) : NULL;
    if (request != NULL)
        requests_answer_approved(call, request, result->record->operator_name);
    else
        call_fail(call, result->recorded ? &err : &result->error);
}

void requests_approve(struct call *call, const Custody__V1__Approve *approve)
{
    struct daemon *daemon = call->daemon;
    struct record requested;
    struct error err;
    if (daemon->phase == DAEMON_SEALED) {
        loss_approve(call, approve);
        return;
    }
    const struct request *request = find(daemon, approve->id, &err);
    if (request == NULL) {
        call_fail(call, &err);
        return;
    }
    request_as_record(request, daemon->config->host, &requested);
    if (requests_identify(daemon->config, &requested, &call->actor, approve->signature,
                          &call->record, &err) != 0) {
        call_deny(call, &err);
        return;
    }
    if (commit_submit(daemon->commit, &call->record, KEEPER_ACTION_NONE, on_approved, call, &err) !=
        0)
        call_fail(call, &err);
}

// ---- after a crash ----

int requests_check_signed(const struct config *config, const struct record *requested,
                          const struct record *given, struct error *err)
{
    if (given->signature[0] == '\0')
        return error_set(err, ERROR_DATA_LOSS,
                         "operator %s's approval bears no signature: a file that was written to "
                         "while the daemon was down proves nothing of it",
                         given->operator_name);
    const char *name = operators_name(config->pinned, given->operator_key);
    if (name == NULL || strcmp(name, given->operator_name) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "it bears an approval by a key that is not operator %s's",
                         given->operator_name);
    return approval_verify(requested, given, err);
}

static int check_given_again(struct daemon *daemon, const struct record *given, struct error *err)
{
    struct record requested;
    // What was carried out in the same tail is no longer open: it stands in the log.
    const struct request *open =
        request_list_find(state_requests(daemon->state), given->request_id);
    if (open != NULL)
        request_as_record(open, daemon->config->host, &requested);
    else if (survey_find_request(daemon->config->audit_dir, given->request_id, &requested, err) !=
             0)
        return -1;
    return requests_check_signed(daemon->config, &requested, given, err);
}

int requests_check_again(struct daemon *daemon, const struct record *record, struct error *err)
{
    switch (record->event) {
    case RECORD_APPROVAL_GIVEN:
        return check_given_again(daemon, record, err);
    case RECORD_LOG_LOSS_ACCEPTED:
        return error_set(err, ERROR_DATA_LOSS, "it accepts a loss, and nothing is lost");
    default:
        return 0;
    }
}
