// SPDX-License-Identifier: Apache-2.0
// Dispatch of the channel's operations.
#include "keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commit.h"
#include "import.h"
#include "preshared.h"
#include "probe.h"
#include "vault.h"

#define HEAD_RETRY_MS 1000 // after custody-head could not be written

struct keeper {
    struct vault vault;
    struct commit *commit;
    struct import *import;
    uint32_t head_interval_ms;
    struct keeper_reply reply; // the one being made
    bool head_failed; // the last attempt to write custody-head failed: nothing is committed until
                      // one works
};

int keeper_open(const struct keeper_options *options, struct keeper **out, struct error *err)
{
    struct keeper *keeper = calloc(1, sizeof(*keeper));
    if (keeper == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (vault_open(&keeper->vault, options->host, options->token, err) != 0) {
        free(keeper);
        return -1;
    }
    keeper->head_interval_ms = options->head_interval_ms;
    if (commit_open(&keeper->vault, options, &keeper->commit, err) != 0 ||
        import_open(&keeper->import, err) != 0) {
        keeper_close(keeper);
        return -1;
    }
    *out = keeper;
    return 0;
}

void keeper_close(struct keeper *keeper)
{
    if (keeper == NULL)
        return;
    struct error err;
    if (keeper->commit != NULL && commit_head_write(keeper->commit, &err) != 0)
        fprintf(stderr, "custody-keeper: at the end: %s\n", err.message);
    commit_close(keeper->commit);
    import_close(keeper->import);
    vault_close(&keeper->vault);
    free(keeper);
}

void keeper_describe(const struct keeper *keeper, struct keeper_status *status)
{
    vault_status(&keeper->vault, status);
    status->head_interval_ms = keeper->head_interval_ms;
}

void keeper_client_gone(struct keeper *keeper)
{
    commit_log_close(keeper->commit);
    import_forget(keeper->import);
}

int keeper_patience(const struct keeper *keeper)
{
    int due = commit_head_due(keeper->commit);
    return due >= 0 && keeper->head_failed ? HEAD_RETRY_MS : due;
}

// Whether the token still works after what failed; else fills `err`.
static enum keeper_outcome judge_token(struct keeper *keeper, struct error *err)
{
    if (vault_works(&keeper->vault, err))
        return KEEPER_GOES_ON;
    error_prefix(err, "the token no longer works");
    if (err != NULL)
        err->code = ERROR_UNAVAILABLE;
    return KEEPER_TOKEN_LOST;
}

enum keeper_outcome keeper_idle(struct keeper *keeper, struct error *err)
{
    struct error cause;
    bool failed = commit_head_write(keeper->commit, &cause) != 0;
    if (failed && !keeper->head_failed)
        fprintf(stderr, "custody-keeper: %s; nothing is committed until it is written\n",
                cause.message);
    keeper->head_failed = failed;
    return judge_token(keeper, err);
}

// Starts the answer to a request.
static struct keeper_reply *begin(struct keeper *keeper, uint64_t id, enum keeper_op op)
{
    memset(&keeper->reply, 0, sizeof(keeper->reply));
    keeper->reply.header = (struct keeper_header){KEEPER_MAGIC, KEEPER_VERSION, (uint16_t)op, id};
    return &keeper->reply;
}

static int run_commit(struct keeper *keeper, const struct keeper_request *request,
                      struct keeper_reply *reply)
{
    if (keeper->head_failed) {
        if (commit_head_write(keeper->commit, &reply->error) != 0) {
            commit_log_close(keeper->commit);
            return -1;
        }
        keeper->head_failed = false;
    }
    return commit_run(keeper->commit, request->body.commit.count, &reply->body.committed,
                      &reply->error);
}

// Does what a request asks and fills `reply`. Returns 0, or -1 with the reply's error filled.
static int perform(struct keeper *keeper, const struct keeper_request *request,
                   struct keeper_reply *reply)
{
    struct vault *vault = &keeper->vault;
    switch ((enum keeper_op)request->header.op) {
    case KEEPER_STATUS:
        keeper_describe(keeper, &reply->body.status);
        return 0;
    case KEEPER_PROBE:
        probe_run(vault->token, vault->initialised ? &vault->keys : NULL, &reply->body.probe);
        return 0;
    case KEEPER_INIT:
        if (vault_init(vault, &reply->error) != 0)
            return -1;
        keeper_describe(keeper, &reply->body.status);
        return 0;
    case KEEPER_LIST:
        if (commit_head_write(keeper->commit, &reply->error) != 0)
            return -1;
        vault_list(vault, request->body.list.first, &reply->body.list);
        return 0;
    case KEEPER_GENERATE:
        return vault_generate(vault, &request->body.generate, reply->body.generated.public_key,
                              &reply->error);
    case KEEPER_RECEIVE:
        return preshared_receive(vault, &request->body.receive, &reply->error);
    case KEEPER_OFFER:
        return import_offer(keeper->import, vault, &request->body.import, &reply->body.offered,
                            &reply->error);
    case KEEPER_IMPORT:
        return import_take(keeper->import, vault, &request->body.import, &reply->body.generated,
                           &reply->error);
    case KEEPER_LOG_OPEN:
        return commit_log_open(keeper->commit, &request->body.log_open, &reply->body.log_opened,
                               &reply->error);
    case KEEPER_COMMIT:
        return run_commit(keeper, request, reply);
    case KEEPER_ENTRY:
        break; // has no answer
    }
    return error_set(&reply->error, ERROR_INVALID_ARGUMENT, "operation %u is unknown",
                     (unsigned)request->header.op);
}

// The entries' answers go before the commit's own.
static int send_results(struct keeper *keeper, keeper_send_fn *send, void *context,
                        struct error *err)
{
    struct keeper_reply *reply = malloc(sizeof(*reply));
    if (reply == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    int result = 0;
    for (uint32_t i = 0; i < commit_results(keeper->commit) && result == 0; i++) {
        memset(reply, 0, sizeof(*reply));
        if (commit_result(keeper->commit, i, reply))
            result = send(context, reply, err);
    }
    free(reply);
    return result;
}

enum keeper_outcome keeper_answer(struct keeper *keeper, const struct keeper_request *request,
                                  keeper_send_fn *send, void *context, struct error *err)
{
    if (request->header.op == KEEPER_ENTRY) {
        commit_add(keeper->commit, request->header.id, &request->body.entry);
        return KEEPER_GOES_ON;
    }
    struct keeper_reply *reply = begin(keeper, request->header.id, request->header.op);
    int result = perform(keeper, request, reply);
    enum keeper_outcome outcome = judge_token(keeper, err);
    // A token that is lost is said to the client too, in the answer to what it asked.
    if (result != 0 && outcome == KEEPER_TOKEN_LOST)
        reply->error = *err;
    struct error channel;
    if ((result == 0 && request->header.op == KEEPER_COMMIT &&
         send_results(keeper, send, context, &channel) != 0) ||
        send(context, reply, &channel) != 0) {
        if (outcome == KEEPER_TOKEN_LOST)
            return outcome;
        *err = channel;
        return KEEPER_CHANNEL_LOST;
    }
    // Off the path of the answer, which has just left.
    if (outcome == KEEPER_GOES_ON && commit_head_due(keeper->commit) == 0)
        return keeper_idle(keeper, err);
    return outcome;
}
