// SPDX-License-Identifier: Apache-2.0
// Generating, publishing, destroying and listing keys.
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "generation.h"
#include "policy.h"
#include "preshared.h"
#include "requests.h"
#include "say.h"

// ---- answers ----

void keys_fill(Custody__V1__Key *out, const struct state_key *key)
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
    out->imported = key->purpose == PURPOSE_IMPORTED;
}

static void answer_key(struct call *call, const struct state_key *key)
{
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__Key out;
    keys_fill(&out, key);
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

// ---- generating ----

static void on_generated(void *context, const struct record *generated, const struct error *why)
{
    struct call *call = context;
    if (why != NULL) {
        call_fail(call, why);
        return;
    }
    call->record = *generated;
    answer_with_key(call);
}

void keys_generate(struct call *call, const Custody__V1__GenerateKey *request)
{
    struct error err;
    call->record.event = RECORD_KEY_GENERATED;
    if (call_take_key(call, request->key, &err) == NULL ||
        call_take_ticket(call, request->ticket, &err) != 0 ||
        generation_make(call->daemon, &call->record, on_generated, call, &err) != 0)
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
        keys_fill(&out, key);
        published.key = &out;
    }
    published.bundle = (char *)result->note;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_PUBLISHED_KEY;
    response.published_key = &published;
    call_answer(call, &response);
}

// Where move datagrams are taken, into the record: both address and port, or neither.
static int take_address(struct record *record, const Custody__V1__PublishKey *request,
                        struct error *err)
{
    uint8_t binary[16];
    if (request->address[0] == '\0' && request->port == 0)
        return 0;
    if (strlen(request->address) > RECORD_ADDRESS_MAX ||
        (inet_pton(AF_INET, request->address, binary) != 1 &&
         inet_pton(AF_INET6, request->address, binary) != 1))
        return error_set(err, ERROR_INVALID_ARGUMENT, "'%.80s' is no IPv4 or IPv6 address",
                         request->address);
    if (request->port == 0 || request->port > UINT16_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "port %u: with an address it must be 1 to %d",
                         request->port, UINT16_MAX);
    snprintf(record->address, sizeof(record->address), "%s", request->address);
    record->port = request->port;
    return 0;
}

void keys_publish(struct call *call, const Custody__V1__PublishKey *request)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct error err;
    const struct config_key *config = call_take_key(call, request->key, &err);
    if (config == NULL || call_check_rotates(call, config, POLICY_OPERATOR, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    record->event = RECORD_KEY_PUBLISHED;
    if (call_take_ticket(call, request->ticket, &err) != 0 ||
        take_address(record, request, &err) != 0) {
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
    record->count = request->peers;
    const struct state_key *receives = preshared_receive_key(daemon->state);
    if (receives != NULL && config->psk_lifetime_s != 0)
        memcpy(record->receive_key, receives->public_key, sizeof(record->receive_key));
    record->not_before_us = commit_now_us();
    record->not_after_us = record->not_before_us + config->not_after_s * INT64_C(1000000);
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
    record->event = RECORD_KEY_DESTROYING;
    // A key that is not declared any more is destroyed all the same.
    if (call_take_key(call, request->key, &err) == NULL && err.code == ERROR_INVALID_ARGUMENT)
        goto fail;
    if (call_take_ticket(call, request->ticket, &err) != 0)
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

static void on_destroyed_by_itself(void *context, const struct commit_result *result)
{
    struct daemon *daemon = context;
    if (!result->recorded ||
        (result->error.code != ERROR_OK && result->error.code != ERROR_NOT_FOUND)) {
        say(LOG_WARNING, "key '%s' generation %" PRIu64 " could not be destroyed: %s",
            result->record->key, result->record->generation, result->error.message);
        return;
    }
    if (result->error.code == ERROR_OK)
        daemon->keeper.blobs--;
    struct record record = destroyed_record(result->record);
    daemon_record(daemon, &record);
}

struct commit_entry keys_destroying(struct daemon *daemon, const struct state_key *key,
                                    const char *detail)
{
    struct commit_entry entry = {
        .record = {.event = RECORD_KEY_DESTROYING, .generation = key->generation},
        .action = KEEPER_ACTION_DESTROY,
        .done = on_destroyed_by_itself,
        .context = daemon,
    };
    memcpy(entry.record.key, key->name, sizeof(entry.record.key));
    snprintf(entry.record.detail, sizeof(entry.record.detail), "%s", detail);
    return entry;
}

// A destruction that somebody waits for.
struct destruction {
    struct daemon *daemon;
    keys_destroyed_fn *done;
    void *context;
};

static void on_destroyed_for(void *context, const struct commit_result *result)
{
    struct destruction *destruction = context;
    bool failed = !result->recorded ||
                  (result->error.code != ERROR_OK && result->error.code != ERROR_NOT_FOUND);
    if (!failed)
        on_destroyed_by_itself(destruction->daemon, result);
    destruction->done(destruction->context, failed ? &result->error : NULL);
    free(destruction);
}

int keys_destroy_by_itself(struct daemon *daemon, const struct state_key *key, const char *detail,
                           keys_destroyed_fn *done, void *context, struct error *err)
{
    struct commit_entry entry = keys_destroying(daemon, key, detail);
    struct destruction *destruction = calloc(1, sizeof(*destruction));
    if (destruction == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a destruction");
    *destruction = (struct destruction){.daemon = daemon, .done = done, .context = context};
    entry.done = on_destroyed_for;
    entry.context = destruction;
    if (commit_submit_all(daemon->commit, &entry, 1, err) == 0)
        return 0;
    free(destruction);
    return -1;
}

void keys_finish_destroying(struct daemon *daemon, const struct state_key *key, bool in_token)
{
    struct commit_entry entry = keys_destroying(daemon, key, "");
    struct error err;
    if (!in_token) {
        struct record record = destroyed_record(&entry.record);
        daemon_record(daemon, &record);
    } else if (commit_submit_all(daemon->commit, &entry, 1, &err) != 0) {
        say(LOG_WARNING, "the destruction of key '%s' could not be finished: %s", key->name,
            err.message);
    }
}

// ---- listing ----

static bool may_list(const struct call *call, const struct state_key *key)
{
    if (call->roles & (POLICY_OPERATOR | POLICY_AUDITOR))
        return true;
    const struct config_key *config = config_find_key(call->daemon->config, key->name);
    return config != NULL && policy_may_see(config, &call->actor);
}

// More than this would not fit into one frame; the newest generations of each key are what is asked
// for in practice.
#define LIST_MAX 400

void keys_list(struct call *call, const Custody__V1__ListKeys *request)
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
            !may_list(call, key))
            continue;
        if (list.n_keys == LIST_MAX) {
            error_set(&err, ERROR_RESOURCE_EXHAUSTED,
                      "more than %d generations: ask for one key by its name", LIST_MAX);
            goto fail;
        }
        keys_fill(&keys[list.n_keys], key);
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
