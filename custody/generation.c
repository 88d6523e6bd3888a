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
    generation_done_fn *done;
    void *context;
};

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
        opening_note_blob(making->daemon->opening, record->key, record->generation);
        memcpy(record->public_key, reply->body.generated.public_key, sizeof(record->public_key));
        if (commit_submit(making->daemon->commit, record, KEEPER_ACTION_ADOPT, on_adopted, making,
                          &err) == 0)
            return;
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

// Above whatever a crash has left in the token without a record.
static uint64_t next_generation(const struct daemon *daemon, const char *key)
{
    uint64_t recorded = state_key_highest(daemon->state, key);
    uint64_t stored = opening_highest_blob(daemon->opening, key);
    return (recorded > stored ? recorded : stored) + 1;
}

int generation_make(struct daemon *daemon, const struct record *wanted, generation_done_fn *done,
                    void *context, struct error *err)
{
    if (check(daemon, wanted->key, err) != 0)
        return -1;
    struct keeper_request *ask = calloc(1, sizeof(*ask));
    struct making *making = calloc(1, sizeof(*making));
    if (ask == NULL || making == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a request to the keeper");
        goto fail;
    }
    *making =
        (struct making){.daemon = daemon, .record = *wanted, .done = done, .context = context};
    making->record.event = RECORD_KEY_GENERATED;
    making->record.generation = next_generation(daemon, wanted->key);
    making->record.purpose =
        strcmp(wanted->key, NAME_RECEIVE_KEY) == 0 ? PURPOSE_RECEIVE : PURPOSE_WIREGUARD;
    memcpy(ask->body.generate.key, wanted->key, sizeof(ask->body.generate.key));
    ask->body.generate.generation = making->record.generation;
    ask->body.generate.purpose = making->record.purpose;
    if (keeper_link_ask(daemon->link, ask, KEEPER_GENERATE, on_generated, making, err) != 0)
        goto fail;
    daemon->generating = true;
    free(ask);
    return 0;
fail:
    free(making);
    free(ask);
    return -1;
}
