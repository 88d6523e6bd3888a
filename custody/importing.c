// SPDX-License-Identifier: Apache-2.0
// Offer, import, record, activate: each step can be asked for again after a crash.
#include "importing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "keys.h"
#include "policy.h"
#include "rotation.h"

// ---- answers ----

static void answer_key(struct call *call)
{
    const struct state_key *key =
        state_key_find(call->daemon->state, call->record.key, call->record.generation);
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    Custody__V1__Key out;
    struct error err;
    if (key == NULL) {
        error_set(&err, ERROR_INTERNAL,
                  "key '%s' generation %" PRIu64 " was imported, but is not known",
                  call->record.key, call->record.generation);
        call_fail(call, &err);
        return;
    }
    keys_fill(&out, key);
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY;
    response.key = &out;
    call_answer(call, &response);
}

static int lost(const struct keeper_reply *reply, struct error *err)
{
    if (reply == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "the keeper was lost while it imported the key");
    *err = reply->error;
    return err->code == ERROR_OK ? 0 : -1;
}

// ---- activating ----

static void on_activated(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (result->recorded)
        answer_key(call);
    else
        call_fail(call, &result->error);
}

static void activate(struct call *call)
{
    const struct state *state = call->daemon->state;
    const struct state_key *key = state_key_find(state, call->record.key, call->record.generation);
    struct commit_entry entries[2];
    struct error err;
    unsigned count = key != NULL ? rotation_activate(state, key, entries) : 0;
    if (count == 0) {
        answer_key(call);
        return;
    }
    entries[count - 1].done = on_activated;
    entries[count - 1].context = call;
    if (commit_submit_all(call->daemon->commit, entries, count, &err) != 0)
        call_fail(call, &err);
}

// ---- importing ----

static void on_imported(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (!result->recorded || result->error.code != ERROR_OK) {
        call_fail(call, &result->error);
        return;
    }
    call->daemon->keeper.blobs++; // until the keeper says so itself
    activate(call);
}

static void on_sealed(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    struct record *record = &call->record;
    struct error err;
    call->daemon->generating = false;
    if (lost(reply, &err) == 0) {
        opening_note_blob(call->daemon->opening, record->key, record->generation);
        record->event = RECORD_KEY_IMPORTED;
        record->purpose = PURPOSE_IMPORTED;
        if (commit_submit(call->daemon->commit, record, KEEPER_ACTION_ADOPT, on_imported, call,
                          &err) == 0)
            return;
    }
    call_fail(call, &err);
}

static void on_offered(void *context, const struct keeper_reply *reply)
{
    struct call *call = context;
    Custody__V1__ImportOffer offer = CUSTODY__V1__IMPORT_OFFER__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    struct error err;
    if (lost(reply, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    offer.generation = call->record.generation;
    offer.note = (char *)reply->body.offered.note;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_IMPORT_OFFER;
    response.import_offer = &offer;
    call_answer(call, &response);
}

// Above all that the log or the token know of.
static uint64_t next_generation(const struct daemon *daemon, const char *key)
{
    uint64_t recorded = state_key_highest(daemon->state, key);
    uint64_t stored = opening_highest_blob(daemon->opening, key);
    return (recorded > stored ? recorded : stored) + 1;
}

static int ask_keeper(struct call *call, const Custody__V1__ImportKey *request, struct error *err)
{
    struct daemon *daemon = call->daemon;
    bool boxed = request->box.len != 0;
    uint64_t generation = next_generation(daemon, call->record.key);
    if (boxed && request->generation != generation)
        return error_set(err, ERROR_ABORTED,
                         "key '%s' has come to generation %" PRIu64 " since the offer: ask for "
                         "another",
                         call->record.key, generation - 1);
    struct keeper_request *ask = calloc(1, sizeof(*ask));
    if (ask == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "out of memory for a request to the keeper");
    struct keeper_import *import = &ask->body.import;
    call->record.generation = import->generation = generation;
    memcpy(import->key, call->record.key, sizeof(import->key));
    memcpy(import->public_key, call->record.public_key, sizeof(import->public_key));
    if (boxed)
        memcpy(import->box, request->box.data, sizeof(import->box));
    int rc = keeper_link_ask(daemon->link, ask, boxed ? KEEPER_IMPORT : KEEPER_OFFER,
                             boxed ? on_sealed : on_offered, call, err);
    if (rc == 0 && boxed)
        daemon->generating = true;
    free(ask);
    return rc;
}

// ---- what may be imported ----

static int take_request(struct call *call, const Custody__V1__ImportKey *request, struct error *err)
{
    if (request->public_key.len != RECORD_KEY_SIZE)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "public_key must be an X25519 public key of %d bytes", RECORD_KEY_SIZE);
    if (request->box.len != 0 && request->box.len != KEEPER_BOX_SIZE)
        return error_set(err, ERROR_INVALID_ARGUMENT, "a box has %d bytes", KEEPER_BOX_SIZE);
    memcpy(call->record.public_key, request->public_key.data, RECORD_KEY_SIZE);
    return call_take_ticket(call, request->ticket, err);
}

// 0: it may be; 1: it was, and `call->record.generation` is it; -1 with `err`.
static int check_state(struct call *call, struct error *err)
{
    const struct daemon *daemon = call->daemon;
    const struct state_key *current = state_key_current(daemon->state, call->record.key);
    const struct rotation *rotation =
        rotations_find(state_rotations(daemon->state), call->record.key);
    if (current != NULL && current->purpose == PURPOSE_IMPORTED &&
        memcmp(current->public_key, call->record.public_key, RECORD_KEY_SIZE) == 0) {
        call->record.generation = current->generation;
        return 1;
    }
    if (current != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has %s generation %" PRIu64 " already: what an interface had "
                         "before is imported into a key that has none%s",
                         current->name, lifecycle_state_name(current->state), current->generation,
                         current->state == KEY_PRE_ACTIVE ? " (custodyctl key destroy)" : "");
    if (rotation != NULL && rotation->suspended_us != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' is suspended by an operator: custodyctl key resume %s",
                         call->record.key, call->record.key);
    // A public key that the log has seen is custody's own, or was revoked: it does not come back.
    for (size_t i = 0; i < state_keys(daemon->state); i++)
        if (memcmp(state_key_at(daemon->state, i)->public_key, call->record.public_key,
                   RECORD_KEY_SIZE) == 0)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "that private key is key '%s' generation %" PRIu64 "'s",
                             state_key_at(daemon->state, i)->name,
                             state_key_at(daemon->state, i)->generation);
    return daemon->generating
               ? error_set(err, ERROR_ABORTED, "another key is being generated: try again")
               : 0;
}

void importing_import(struct call *call, const Custody__V1__ImportKey *request)
{
    struct error err;
    const struct config_key *config = call_take_key(call, request->key, &err);
    if (config == NULL || call_check_rotates(call, config, 0, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    int rc = take_request(call, request, &err);
    if (rc == 0)
        rc = check_state(call, &err);
    if (rc > 0)
        activate(call);
    else if (rc < 0 || ask_keeper(call, request, &err) != 0)
        call_fail(call, &err);
}
