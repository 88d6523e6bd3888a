// SPDX-License-Identifier: Apache-2.0
// Generating: the keeper makes the key, the log records it, the keeper adopts what was recorded.
#include "generation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"

struct making {
    struct daemon *daemon;
    struct record record;
    bool fresh; // nothing left over was asked for
    generation_done_fn *done;
    void *context;
};

static int ask_keeper(struct making *making, bool fresh, struct error *err);

static void end(struct making *making, const struct record *generated, const struct error *why)
{
    making->daemon->generating = false;
    making->done(making->context, generated, why);
    free(making);
}

static void on_adopted(void *context, const struct commit_result *result)
{
    struct making *making = context;
    if (!result->recorded || result->error.code != ERROR_OK) {
        end(making, NULL, &result->error);
        return;
    }
    making->daemon->keeper.blobs++; // until the keeper says so itself
    end(making, result->record, NULL);
}

static void on_generated(void *context, const struct keeper_reply *reply)
{
    struct making *making = context;
    struct record *record = &making->record;
    struct error err;
    if (reply == NULL)
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it made the key");
    else
        err = reply->error;
    if (err.code == ERROR_OK) {
        if (making->fresh)
            opening_note_blob(making->daemon->opening, record->key, record->generation);
        memcpy(record->public_key, reply->body.generated.public_key, sizeof(record->public_key));
        if (commit_submit(making->daemon->commit, record, KEEPER_ACTION_ADOPT, on_adopted, making,
                          &err) == 0)
            return;
    } else if (!making->fresh && reply != NULL && ask_keeper(making, true, &err) == 0) {
        return; // what was left over cannot be used
    }
    end(making, NULL, &err);
}

static int check(const struct daemon *daemon, const char *key, struct error *err)
{
    const struct state_key *waiting = state_key_pre_active(daemon->state, key);
    if (daemon->generating)
        return error_set(err, ERROR_ABORTED, "another key is being generated: try again");
    if (waiting != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has a pre-active generation already, %" PRIu64
                         ": apply or destroy that first",
                         key, waiting->generation);
    return 0;
}

// What a crash has left in the token without a record is used up first (the keeper takes it for the
// key that is asked for): else leftovers gather until no more keys are made. `fresh`: but not that.
static uint64_t next_generation(const struct daemon *daemon, const char *key, bool fresh)
{
    uint64_t recorded = state_key_highest(daemon->state, key);
    uint64_t left = opening_lowest_blob(daemon->opening, key, recorded);
    if (left != 0 && !fresh)
        return left;
    uint64_t stored = opening_highest_blob(daemon->opening, key);
    return (recorded > stored ? recorded : stored) + 1;
}

static int ask_keeper(struct making *making, bool fresh, struct error *err)
{
    struct daemon *daemon = making->daemon;
    struct record *record = &making->record;
    struct keeper_request *ask = calloc(1, sizeof(*ask));
    if (ask == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "out of memory for a request to the keeper");
    record->generation = next_generation(daemon, record->key, fresh);
    making->fresh = record->generation > opening_highest_blob(daemon->opening, record->key);
    memcpy(ask->body.generate.key, record->key, sizeof(ask->body.generate.key));
    ask->body.generate.generation = record->generation;
    ask->body.generate.purpose = record->purpose;
    int rc = keeper_link_ask(daemon->link, ask, KEEPER_GENERATE, on_generated, making, err);
    free(ask);
    return rc;
}

int generation_make(struct daemon *daemon, const struct record *wanted, generation_done_fn *done,
                    void *context, struct error *err)
{
    if (check(daemon, wanted->key, err) != 0)
        return -1;
    struct making *making = calloc(1, sizeof(*making));
    if (making == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a new key");
    *making =
        (struct making){.daemon = daemon, .record = *wanted, .done = done, .context = context};
    making->record.event = RECORD_KEY_GENERATED;
    making->record.purpose =
        strcmp(wanted->key, NAME_RECEIVE_KEY) == 0 ? PURPOSE_RECEIVE : PURPOSE_WIREGUARD;
    if (ask_keeper(making, false, err) != 0) {
        free(making);
        return -1;
    }
    daemon->generating = true;
    return 0;
}
