// SPDX-License-Identifier: Apache-2.0
// libcustody: the requests that carry no key: outcomes, status, lists, and what operators ask.
#include "client.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const char *custody_key_state_name(enum custody_key_state state)
{
    switch (state) {
    case CUSTODY_KEY_PRE_ACTIVE:
        return "pre-active";
    case CUSTODY_KEY_ACTIVE:
        return "active";
    case CUSTODY_KEY_DEACTIVATED:
        return "deactivated";
    case CUSTODY_KEY_COMPROMISED:
        return "compromised";
    case CUSTODY_KEY_DESTROYING:
        return "destroying";
    case CUSTODY_KEY_DESTROYED:
        return "destroyed";
    }
    return "unknown";
}

// What approval_text (approval.h) is made of.
#define TEXT_CHARACTERS                                                                            \
    "\n -./0123456789:=+_"                                                                         \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// ---- from the wire's messages to the caller's structs; false when a field does not fit ----

bool client_key(struct custody_key *out, const Custody__V1__Key *key)
{
    memset(out, 0, sizeof(*out));
    if (key->public_key.len != sizeof(out->public_key) ||
        !client_text(out->name, sizeof(out->name), key->name))
        return false;
    memcpy(out->public_key, key->public_key.data, sizeof(out->public_key));
    out->generation = key->generation;
    out->state = (enum custody_key_state)key->state;
    out->generated_us = key->generated_us;
    out->activated_us = key->activated_us;
    out->deactivated_us = key->deactivated_us;
    out->released_us = key->released_us;
    out->imported = key->imported;
    out->releases = key->releases;
    return true;
}

static bool take_token(struct custody_token_info *out, const Custody__V1__TokenInfo *token)
{
    memset(out, 0, sizeof(*out));
    if (token == NULL)
        return true;
    out->blobs = token->blobs;
    out->leftovers = token->leftovers;
    return client_text(out->label, sizeof(out->label), token->label) &&
           client_text(out->serial, sizeof(out->serial), token->serial) &&
           client_text(out->manufacturer, sizeof(out->manufacturer), token->manufacturer) &&
           client_text(out->model, sizeof(out->model), token->model) &&
           client_text(out->suite, sizeof(out->suite), token->suite);
}

// Explanations are cut where they are too long, and warnings beyond the last place left out: both
// are for people.
static void take_warnings(struct custody_status *out, const Custody__V1__Status *status)
{
    const size_t room = sizeof(out->warnings) / sizeof(out->warnings[0]);
    client_text(out->keeper_message, sizeof(out->keeper_message), status->keeper_message);
    client_text(out->log_message, sizeof(out->log_message), status->log_message);
    for (size_t i = 0; i < status->n_warnings && i < room; i++)
        client_text(out->warnings[out->warning_count++], sizeof(out->warnings[0]),
                    status->warnings[i]);
}

static bool take_status(struct custody_status *out, const Custody__V1__Status *status)
{
    memset(out, 0, sizeof(*out));
    out->initialised = status->initialised;
    out->keeper_ready = status->keeper_ready;
    out->log_ready = status->log_ready;
    out->log_size = status->log_size;
    out->head_size = status->head_size;
    out->leases = status->leases;
    out->connections = status->connections;
    out->keys = status->keys;
    out->started_us = status->started_us;
    out->sealed = status->sealed;
    out->head_lag = status->head_lag;
    out->head_interval_ms = status->head_interval_ms;
    out->restore_unnoticed = status->restore_unnoticed;
    take_warnings(out, status);
    return client_text(out->host, sizeof(out->host), status->host) &&
           client_text(out->version, sizeof(out->version), status->version) &&
           client_text(out->approvals, sizeof(out->approvals), status->approvals) &&
           client_text(out->log_root, sizeof(out->log_root), status->log_root) &&
           client_text(out->log_vkey, sizeof(out->log_vkey), status->log_vkey) &&
           client_text(out->host_vkey, sizeof(out->host_vkey), status->host_vkey) &&
           take_token(&out->token, status->token);
}

int client_note(char *out, size_t size, const char *note, struct error *err)
{
    size_t length = strlen(note);
    if (out == NULL)
        return 0;
    if (length >= size)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the signed note of %zu bytes does not fit the %zu given for it", length,
                         size);
    memcpy(out, note, length + 1);
    return 0;
}

int client_finish(struct custody *custody, Custody__V1__Response *answer, bool sound,
                  struct custody_error *err)
{
    struct error error;
    client_free(answer);
    if (sound)
        return 0;
    client_bad_answer(custody, "has a field that is missing, or longer than it may be", &error);
    return client_fail(&error, err);
}

// ---- requests ----

int custody_report_outcome(struct custody *custody, const char *lease, bool applied,
                           const char *detail, struct custody_error *err)
{
    struct error error;
    Custody__V1__ReportOutcome body = CUSTODY__V1__REPORT_OUTCOME__INIT;
    body.lease = client_string(lease);
    body.applied = applied;
    body.detail = client_string(detail);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_REPORT_OUTCOME;
    request.report_outcome = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_OUTCOME_RECORDED, &answer,
                    &error) < 0)
        return client_fail(&error, err);
    return client_finish(custody, answer, true, err);
}

int custody_status(struct custody *custody, struct custody_status *status,
                   struct custody_error *err)
{
    struct error error;
    Custody__V1__GetStatus body = CUSTODY__V1__GET_STATUS__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_GET_STATUS;
    request.get_status = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_STATUS, &answer, &error) < 0)
        return client_fail(&error, err);
    return client_finish(custody, answer, take_status(status, answer->status), err);
}

int custody_list_keys(struct custody *custody, const char *key, struct custody_key **keys,
                      size_t *count, struct custody_error *err)
{
    struct error error;
    *keys = NULL;
    *count = 0;
    Custody__V1__ListKeys body = CUSTODY__V1__LIST_KEYS__INIT;
    body.key = client_string(key);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_LIST_KEYS;
    request.list_keys = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_KEY_LIST, &answer, &error) < 0)
        return client_fail(&error, err);
    const Custody__V1__KeyList *list = answer->key_list;
    struct custody_key *array = calloc(list->n_keys + 1, sizeof(*array));
    if (array == NULL) {
        client_free(answer);
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for the list of keys");
        return client_fail(&error, err);
    }
    size_t n = 0;
    while (n < list->n_keys && client_key(&array[n], list->keys[n]))
        n++;
    if (client_finish(custody, answer, n == list->n_keys, err) < 0) {
        free(array);
        return -1;
    }
    *keys = array;
    *count = n;
    return 0;
}

int custody_token_init(struct custody *custody, struct custody_token_initialised *out,
                       struct custody_error *err)
{
    struct error error;
    Custody__V1__InitToken body = CUSTODY__V1__INIT_TOKEN__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_INIT_TOKEN;
    request.init_token = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_TOKEN_INITIALISED, &answer,
                    &error) < 0)
        return client_fail(&error, err);
    const Custody__V1__TokenInitialised *told = answer->token_initialised;
    memset(out, 0, sizeof(*out));
    out->already = told->already;
    bool sound = take_token(&out->token, told->token) &&
                 client_text(out->log_vkey, sizeof(out->log_vkey), told->log_vkey) &&
                 client_text(out->host_vkey, sizeof(out->host_vkey), told->host_vkey);
    return client_finish(custody, answer, sound, err);
}

int custody_token_probe(struct custody *custody, struct custody_probe_check **checks, size_t *count,
                        struct custody_error *err)
{
    struct error error;
    *checks = NULL;
    *count = 0;
    Custody__V1__ProbeToken body = CUSTODY__V1__PROBE_TOKEN__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_PROBE_TOKEN;
    request.probe_token = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_TOKEN_PROBE, &answer, &error) <
        0)
        return client_fail(&error, err);
    const Custody__V1__TokenProbe *probe = answer->token_probe;
    struct custody_probe_check *array = calloc(probe->n_checks + 1, sizeof(*array));
    if (array == NULL) {
        client_free(answer);
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for the probe's checks");
        return client_fail(&error, err);
    }
    for (size_t i = 0; i < probe->n_checks; i++) {
        client_text(array[i].name, sizeof(array[i].name), probe->checks[i]->name);
        client_text(array[i].detail, sizeof(array[i].detail), probe->checks[i]->detail);
        array[i].passed = probe->checks[i]->passed;
        array[i].required = probe->checks[i]->required;
    }
    *checks = array;
    *count = probe->n_checks;
    return client_finish(custody, answer, true, err);
}

int custody_key_generate(struct custody *custody, const char *key, const char *ticket,
                         struct custody_key *out, struct custody_error *err)
{
    struct error error;
    Custody__V1__GenerateKey body = CUSTODY__V1__GENERATE_KEY__INIT;
    body.key = client_string(key);
    body.ticket = client_string(ticket);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_GENERATE_KEY;
    request.generate_key = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_KEY, &answer, &error) < 0)
        return client_fail(&error, err);
    return client_finish(custody, answer, client_key(out, answer->key), err);
}

int custody_key_publish(struct custody *custody, const char *key, uint64_t generation,
                        const char *ticket, const char *address, uint16_t port, uint64_t peers,
                        char *bundle, size_t size, struct custody_error *err)
{
    struct error error;
    Custody__V1__PublishKey body = CUSTODY__V1__PUBLISH_KEY__INIT;
    body.key = client_string(key);
    body.generation = generation;
    body.ticket = client_string(ticket);
    body.address = client_string(address);
    body.port = port;
    body.peers = peers;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_PUBLISH_KEY;
    request.publish_key = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_PUBLISHED_KEY, &answer, &error) <
        0)
        return client_fail(&error, err);
    const char *note = answer->published_key->bundle;
    bool sound = note[0] != '\0';
    if (client_note(bundle, size, note, &error) < 0) {
        client_free(answer);
        return client_fail(&error, err);
    }
    return client_finish(custody, answer, sound, err);
}

static bool take_request(struct custody_request *out, const Custody__V1__ApprovalRequest *request)
{
    memset(out, 0, sizeof(*out));
    if (request == NULL || request->n_operators > sizeof(out->operators) / sizeof(*out->operators))
        return false;
    out->generation = request->generation;
    out->uid = request->uid;
    out->requested_us = request->requested_us;
    out->expires_us = request->expires_us;
    out->old_size = request->old_size;
    out->new_size = request->new_size;
    out->needed = request->needed;
    for (size_t i = 0; i < request->n_operators; i++)
        if (!client_text(out->operators[out->operator_count++], sizeof(out->operators[0]),
                         request->operators[i]))
            return false;
    // The text goes to a signer as it is: nothing in it is made harmless for a terminal, and it is
    // taken only when nothing has to be.
    size_t length = strlen(request->text);
    if (length >= sizeof(out->text) || strspn(request->text, TEXT_CHARACTERS) != length)
        return false;
    memcpy(out->text, request->text, length + 1);
    return client_text(out->id, sizeof(out->id), request->id) &&
           client_text(out->operation, sizeof(out->operation), request->operation) &&
           client_text(out->key, sizeof(out->key), request->key);
}

int custody_key_destroy(struct custody *custody, const char *key, uint64_t generation,
                        const char *ticket, const char *request_id, struct custody_key *out,
                        struct custody_request *request_out, struct custody_error *err)
{
    struct error error;
    Custody__V1__DestroyKey body = CUSTODY__V1__DESTROY_KEY__INIT;
    body.key = client_string(key);
    body.generation = generation;
    body.ticket = client_string(ticket);
    body.request_id = client_string(request_id);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_DESTROY_KEY;
    request.destroy_key = &body;
    Custody__V1__Response *answer = NULL;
    bool requested = false;
    if (client_call_either(custody, &request, CUSTODY__V1__RESPONSE__BODY_KEY,
                           CUSTODY__V1__RESPONSE__BODY_APPROVAL_REQUEST, &answer, &error) < 0)
        return client_fail(&error, err);
    requested = answer->body_case == CUSTODY__V1__RESPONSE__BODY_APPROVAL_REQUEST;
    bool sound = requested ? take_request(request_out, answer->approval_request)
                           : client_key(out, answer->key);
    return client_finish(custody, answer, sound, err) < 0 ? -1 : requested;
}

int custody_list_requests(struct custody *custody, const char *id,
                          struct custody_request **requests, size_t *count,
                          struct custody_error *err)
{
    struct error error;
    *requests = NULL;
    *count = 0;
    Custody__V1__ListRequests body = CUSTODY__V1__LIST_REQUESTS__INIT;
    body.id = client_string(id);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_LIST_REQUESTS;
    request.list_requests = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_REQUEST_LIST, &answer, &error) <
        0)
        return client_fail(&error, err);
    const Custody__V1__RequestList *list = answer->request_list;
    struct custody_request *array = calloc(list->n_requests + 1, sizeof(*array));
    if (array == NULL) {
        client_free(answer);
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for the list of requests");
        return client_fail(&error, err);
    }
    size_t n = 0;
    while (n < list->n_requests && take_request(&array[n], list->requests[n]))
        n++;
    if (client_finish(custody, answer, n == list->n_requests, err) < 0) {
        free(array);
        return -1;
    }
    *requests = array;
    *count = n;
    return 0;
}

int custody_approve(struct custody *custody, const char *id, const char *signature,
                    struct custody_request *request_out, char name[64], struct custody_error *err)
{
    struct error error;
    Custody__V1__Approve body = CUSTODY__V1__APPROVE__INIT;
    body.id = client_string(id);
    body.signature = client_string(signature);
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_APPROVE;
    request.approve = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_APPROVED, &answer, &error) < 0)
        return client_fail(&error, err);
    bool sound = take_request(request_out, answer->approved->request) &&
                 client_text(name, 64, answer->approved->operator_);
    return client_finish(custody, answer, sound, err);
}

int custody_accept_loss(struct custody *custody, struct custody_request *request_out,
                        struct custody_error *err)
{
    struct error error;
    Custody__V1__AcceptLoss body = CUSTODY__V1__ACCEPT_LOSS__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_ACCEPT_LOSS;
    request.accept_loss = &body;
    Custody__V1__Response *answer = NULL;
    if (client_call_either(custody, &request, CUSTODY__V1__RESPONSE__BODY_LOSS_ACCEPTED,
                           CUSTODY__V1__RESPONSE__BODY_APPROVAL_REQUEST, &answer, &error) < 0)
        return client_fail(&error, err);
    bool requested = answer->body_case == CUSTODY__V1__RESPONSE__BODY_APPROVAL_REQUEST;
    bool sound = true;
    memset(request_out, 0, sizeof(*request_out));
    if (requested) {
        sound = take_request(request_out, answer->approval_request);
    } else {
        request_out->old_size = answer->loss_accepted->old_size;
        request_out->new_size = answer->loss_accepted->new_size;
    }
    return client_finish(custody, answer, sound, err) < 0 ? -1 : requested;
}
