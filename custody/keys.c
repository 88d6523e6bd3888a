// SPDX-License-Identifier: Apache-2.0
// Generating, publishing, destroying and listing keys.
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"
#include "requests.h"
#include "say.h"

// ---- answers ----

static void fill_key(Custody__V1__Key *out, const struct state_key *key)
{
    static const Custody__V1__KeyState states[KEY_STATES] = {
        [KEY_PRE_ACTIVE] = CUSTODY__V1__KEY_STATE__PRE_ACTIVE,
        [KEY_ACTIVE] = CUSTODY__V1__KEY_STATE__ACTIVE,
        [KEY_DEACTIVATED] = CUSTODY__V1__KEY_STATE__DEACTIVATED,
        [KEY_COMPROMISED] = CUSTODY__V1__KEY_STATE__COMPROMISED,
        [KEY_DESTROYING] = CUSTODY__V1__KEY_STATE__DESTROYING,
        [KEY_DESTROYED] = CUSTODY__V1__KEY_STATE__DESTROYED,
    };
    custody__v1__key__init(out);
    out->name = (char *)key->name;
    out->generation = key->generation;
    out->state = states[key->state];
    out->public_key = (ProtobufCBinaryData){sizeof(key->public_key), (uint8_t *)key->public_key};
    out->generated_us = key->generated_us;
    out->activated_us = key->activated_us;
    out->deactivated_us = key->deactivated_us;
    out->releases = key->releases;
    out->released_us = key->released_us;
}

static void answer_key(struct call *call, const struct state_key *key)
{
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__Key out;
    fill_key(&out, key);
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY;
    response.key = &out;
    call_answer(call, &response);
}

static void answer_with_key(struct call *call)
{
    const struct state_key *key =
        state_key_find(call->daemon->state, call->record.key, call->record.generation);
    struct error err;
    if (key == NULL) {
        error_set(&err, ERROR_INTERNAL,
                  "key '%s' generation %" PRIu64 " was recorded, but is not known",
                  call->record.key, call->record.generation);
        call_fail(call, &err);
        return;
    }
    answer_key(call, key);
}

// The key and ticket of an operator's request, into the record that it leads to.
static int take_request(struct call *call, enum record_event event, const char *key,
                        const char *ticket, struct error *err)
{
    struct record *record = &call->record;
    record->event = event;
    record->actor = call->actor;
    if (!name_is_key(key))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "'%.80s' is no key's name: 1 to %d of A-Z a-z 0-9 _ . -", key, KEY_MAX);
    snprintf(record->key, sizeof(record->key), "%s", key);
    if (!name_is_ticket(ticket))
        return error_set(err, ERROR_INVALID_ARGUMENT, "a ticket is at most %d bytes of text",
                         TICKET_MAX);
    snprintf(record->ticket, sizeof(record->ticket), "%s", ticket);
    return 0;
}

static int check_declared(const struct call *call, struct error *err)
{
    if (config_find_key(call->daemon->config, call->record.key) != NULL)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "key '%s' is not declared: add a section key \"%s\" to the configuration and "
                     "send custodyd SIGHUP",
                     call->record.key, call->record.key);
}

// ---- generating ----

static void on_adopted(void *context, const struct commit_result *result)
{
    struct call *call = context;
    call->daemon->generating = false;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    call->daemon->keeper.blobs++; // until the keeper says so itself
    answer_with_key(call);
}

static void on_generated(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    struct record *record = &call->record;
    struct error err;
    if (reply == NULL)
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it made the key");
    else
        err = reply->error;
    if (err.code == ERROR_OK) {
        opening_note_blob(call->daemon->opening, record->key, record->generation);
        memcpy(record->public_key, reply->body.generated.public_key, sizeof(record->public_key));
        if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_ADOPT, on_adopted, call,
                          &err) == 0)
            return;
    }
    call->daemon->generating = false;
    call_fail(call, &err);
}

static int check_may_generate(struct call *call, struct error *err)
{
    const struct state_key *waiting = state_key_pre_active(call->daemon->state, call->record.key);
    if (check_declared(call, err) != 0)
        return -1;
    if (call->daemon->generating)
        return error_set(err, ERROR_ABORTED, "another key is being generated: try again");
    if (waiting != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has a pre-active generation already, %" PRIu64
                         ": apply or destroy that first",
                         call->record.key, waiting->generation);
    return 0;
}

void keys_generate(struct call *call, const Custody__V1__GenerateKey *request)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct keeper_request *ask = calloc(1, sizeof(*ask));
    struct error err;
    if (ask == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a request to the keeper");
        goto fail;
    }
    if (take_request(call, RECORD_KEY_GENERATED, request->key, request->ticket, &err) != 0 ||
        check_may_generate(call, &err) != 0)
        goto fail;
    // Above whatever a crash has left in the token without a record.
    uint64_t recorded = state_key_highest(daemon->state, record->key);
    uint64_t stored = opening_highest_blob(daemon->opening, record->key);
    record->generation = (recorded > stored ? recorded : stored) + 1;
    record->purpose = PURPOSE_WIREGUARD;
    snprintf(ask->body.generate.key, sizeof(ask->body.generate.key), "%s", record->key);
    ask->body.generate.generation = record->generation;
    ask->body.generate.purpose = record->purpose;
    if (keeper_link_ask(daemon->link, ask, KEEPER_GENERATE, on_generated, call, &err) != 0)
        goto fail;
    daemon->generating = true;
    free(ask);
    return;
fail:
    free(ask);
    call_fail(call, &err);
}

// ---- publishing ----

static void on_published(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    const struct state_key *key =
        state_key_find(call->daemon->state, result->record->key, result->record->generation);
    Custody__V1__PublishedKey published = CUSTODY__V1__PUBLISHED_KEY__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__Key out;
    if (key != NULL) {
        fill_key(&out, key);
        published.key = &out;
    }
    published.bundle = (char *)result->bundle;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_PUBLISHED_KEY;
    response.published_key = &published;
    call_answer(call, &response);
}

void keys_publish(struct call *call, const Custody__V1__PublishKey *request)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct error err;
    if (take_request(call, RECORD_KEY_PUBLISHED, request->key, request->ticket, &err) != 0 ||
        check_declared(call, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    const struct state_key *key =
        request->generation == 0 ? state_key_current(daemon->state, record->key)
                                 : state_key_find(daemon->state, record->key, request->generation);
    if (key == NULL) {
        error_set(&err, ERROR_NOT_FOUND, "key '%s' has no such generation to publish", record->key);
        call_fail(call, &err);
        return;
    }
    record->generation = key->generation;
    memcpy(record->public_key, key->public_key, sizeof(record->public_key));
    record->bundle_state = lifecycle_bundle_state(key->state);
    const struct rotation *rotation = rotations_find(state_rotations(daemon->state), record->key);
    if (rotation != NULL)
        memcpy(record->previous, rotation->bundle_sha256, sizeof(record->previous));
    record->not_before_us = commit_now_us();
    record->not_after_us =
        record->not_before_us +
        config_find_key(daemon->config, record->key)->not_after_s * INT64_C(1000000);
    if (commit_submit(daemon->commit, record, KEEPER_ACTION_PUBLISH, on_published, call, &err) != 0)
        call_fail(call, &err);
}

// ---- destroying ----

static void on_destroyed(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded) {
        call_fail(call, &result->error);
        return;
    }
    call->destroyed.state = KEY_DESTROYED;
    answer_key(call, &call->destroyed);
}

static struct record destroyed_record(const struct record *destroying)
{
    struct record record = {.event = RECORD_KEY_DESTROYED, .generation = destroying->generation};
    memcpy(record.key, destroying->key, sizeof(record.key));
    return record;
}

static void on_destroying(void *context, const struct commit_result *result)
{
    struct call *call = context;
    struct error err = result->error;
    // A blob that is gone already was destroyed before a crash kept that from being recorded.
    if (result->recorded && (err.code == ERROR_OK || err.code == ERROR_NOT_FOUND)) {
        struct record record = destroyed_record(result->record);
        if (err.code == ERROR_OK)
            call->daemon->keeper.blobs--;
        if (commit_submit(call->daemon->commit, &record, KEEPER_ACTION_NONE, on_destroyed, call,
                          &err) == 0)
            return;
    }
    call_fail(call, &err);
}

void keys_destroy(struct call *call, const Custody__V1__DestroyKey *request)
{
    struct record *record = &call->record;
    struct error err;
    if (take_request(call, RECORD_KEY_DESTROYING, request->key, request->ticket, &err) != 0)
        goto fail;
    const struct state_key *key =
        state_key_find(call->daemon->state, record->key, request->generation);
    if (key == NULL) {
        error_set(&err, ERROR_NOT_FOUND, "key '%s' has no generation %" PRIu64, record->key,
                  request->generation);
        goto fail;
    }
    if (lifecycle_next(key->state, RECORD_KEY_DESTROYING) < 0) {
        error_set(&err, ERROR_FAILED_PRECONDITION,
                  "generation %" PRIu64 " of key '%s' is %s: it cannot be destroyed",
                  key->generation, key->name, lifecycle_state_name(key->state));
        goto fail;
    }
    record->generation = key->generation;
    if (lifecycle_needs_approval(key->state, RECORD_KEY_DESTROYING) &&
        request->request_id[0] == '\0') {
        requests_make(call);
        return;
    }
    if (requests_name(call, request->request_id, &err) != 0)
        goto fail;
    call->destroyed = *key;
    if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_DESTROY, on_destroying, call,
                      &err) == 0)
        return;
fail:
    call_fail(call, &err);
}

static void on_destroyed_again(void *context, const struct commit_result *result)
{
    struct daemon *daemon = context;
    if (!result->recorded ||
        (result->error.code != ERROR_OK && result->error.code != ERROR_NOT_FOUND)) {
        say(LOG_WARNING, "the destruction of key '%s' could not be finished: %s",
            result->record->key, result->error.message);
        return;
    }
    struct record record = destroyed_record(result->record);
    daemon_record(daemon, &record);
}

void keys_finish_destroying(struct daemon *daemon, const struct state_key *key, bool in_token)
{
    struct record record = {.event = RECORD_KEY_DESTROYING, .generation = key->generation};
    struct error err;
    memcpy(record.key, key->name, sizeof(record.key));
    if (in_token) {
        if (commit_submit(daemon->commit, &record, KEEPER_ACTION_DESTROY, on_destroyed_again,
                          daemon, &err) != 0)
            say(LOG_WARNING, "the destruction of key '%s' could not be finished: %s", key->name,
                err.message);
        return;
    }
    record = destroyed_record(&record);
    daemon_record(daemon, &record);
}

// ---- listing ----

static bool may_list(const struct call *call, const struct state_key *key, unsigned roles)
{
    if (roles & (POLICY_OPERATOR | POLICY_AUDITOR))
        return true;
    const struct config_key *config = config_find_key(call->daemon->config, key->name);
    return config != NULL && policy_may_see(config, &call->actor);
}

// More than this would not fit into one frame; the newest generations of each key are what is asked
// for in practice.
#define LIST_MAX 400

void keys_list(struct call *call, const Custody__V1__ListKeys *request, unsigned roles)
{
    const struct state *state = call->daemon->state;
    Custody__V1__KeyList list = CUSTODY__V1__KEY_LIST__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__Key *keys = calloc(LIST_MAX, sizeof(*keys));
    Custody__V1__Key **pointers = calloc(LIST_MAX, sizeof(Custody__V1__Key *));
    struct error err;
    if (keys == NULL || pointers == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the list");
        goto fail;
    }
    for (size_t i = 0; i < state_keys(state); i++) {
        const struct state_key *key = state_key_at(state, i);
        if ((request->key[0] != '\0' && strcmp(key->name, request->key) != 0) ||
            !may_list(call, key, roles))
            continue;
        if (list.n_keys == LIST_MAX) {
            error_set(&err, ERROR_RESOURCE_EXHAUSTED,
                      "more than %d generations: ask for one key by its name", LIST_MAX);
            goto fail;
        }
        fill_key(&keys[list.n_keys], key);
        pointers[list.n_keys] = &keys[list.n_keys];
        list.n_keys++;
    }
    list.keys = pointers;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY_LIST;
    response.key_list = &list;
    call_answer(call, &response);
    free(pointers);
    free(keys);
    return;
fail:
    free(pointers);
    free(keys);
    call_fail(call, &err);
}
