// SPDX-License-Identifier: Apache-2.0
// The steps of opening, one a keeper's answer: list the blobs, read the log, open it at the keeper,
// sign the tail, put right what a crash left between token and log.
#include "opening.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "daemon.h"
#include "keys.h"
#include "requests.h"
#include "say.h"

#define RETRY_FIRST_S 1
#define RETRY_LAST_S  10

struct opening {
    struct daemon *daemon;
    struct event *retry;
    unsigned retry_s;
    struct keeper_blob *blobs; // in the token
    size_t blob_count;
    struct log_aside aside;
    struct log_aside refused; // records of the tail that are not carried on
    size_t resubmitted;       // tail records that are being signed
    bool under_way;
    opening_done_fn *done; // of opening_empty_log
    void *done_context;
    struct keeper_request request; // scratch, too large for the stack
};

// Tells whoever asked for opening_empty_log; nobody did where `done` is NULL.
static void tell(struct opening *opening, const struct error *why)
{
    opening_done_fn *done = opening->done;
    opening->done = NULL;
    if (done != NULL)
        done(opening->done_context, why);
}

void opening_retry(struct opening *opening)
{
    struct timeval time = {.tv_sec = opening->retry_s};
    opening->under_way = false;
    event_add(opening->retry, &time);
    opening->retry_s = opening->retry_s * 2 > RETRY_LAST_S ? RETRY_LAST_S : opening->retry_s * 2;
}

static void fail(struct opening *opening, const struct error *why)
{
    if (why->code == ERROR_DATA_LOSS) {
        opening->under_way = false;
        loss_enter(opening->daemon->loss, why);
        if (opening->daemon->phase != DAEMON_SEALED)
            return; // it goes on from there
    } else {
        say(LOG_ERR, "the log is not served: %s", why->message);
        daemon_set_phase(opening->daemon, DAEMON_CLOSED, why->message);
    }
    opening_retry(opening);
    tell(opening, why);
}

// ---- 5. ready ----

static void record_aside(struct daemon *daemon, struct log_aside *aside, const char *what)
{
    if (!aside->any)
        return;
    struct record recovered = {
        .event = RECORD_LOG_RECOVERED, .offset = aside->offset, .length = aside->length};
    memcpy(recovered.sha256, aside->sha256, sizeof(recovered.sha256));
    snprintf(recovered.detail, sizeof(recovered.detail), "%s", what);
    daemon_record(daemon, &recovered);
    aside->any = false;
}

static void record_opened(struct opening *opening)
{
    struct daemon *daemon = opening->daemon;
    struct record record = {.event = daemon->started_recorded ? RECORD_TOKEN_OPENED
                                                              : RECORD_DAEMON_STARTED};
    if (!daemon->started_recorded)
        snprintf(record.version, sizeof(record.version), "%s", PACKAGE_VERSION);
    daemon_record(daemon, &record);
    if (!daemon->started_recorded) {
        struct record policy = {.event = RECORD_POLICY_LOADED};
        memcpy(policy.policy_sha256, daemon->config->sha256, sizeof(policy.policy_sha256));
        daemon_record(daemon, &policy);
    }
    daemon->started_recorded = true;
    record_aside(daemon, &opening->aside, "bytes that are no records were set aside");
    record_aside(daemon, &opening->refused,
                 "records that nobody signed, with approvals that do not hold, were set aside");
}

static bool is_in_token(const struct opening *opening, const struct state_key *key)
{
    for (size_t i = 0; i < opening->blob_count; i++)
        if (opening->blobs[i].generation == key->generation &&
            strcmp(opening->blobs[i].key, key->name) == 0)
            return true;
    return false;
}

// A destruction that a crash interrupted is carried on: the blob is destroyed when it is still
// there, and key.destroyed says so when it is not.
static void finish_destructions(struct opening *opening)
{
    struct daemon *daemon = opening->daemon;
    for (size_t i = 0; i < state_keys(daemon->state); i++) {
        const struct state_key *key = state_key_at(daemon->state, i);
        if (key->state == KEY_DESTROYING)
            keys_finish_destroying(daemon, key, is_in_token(opening, key));
    }
}

static void finish(struct opening *opening)
{
    struct daemon *daemon = opening->daemon;
    opening->under_way = false;
    opening->retry_s = RETRY_FIRST_S;
    daemon_set_phase(daemon, DAEMON_READY, "");
    record_opened(opening);
    finish_destructions(opening);
    leases_watch(daemon->leases);
}

// ---- 4. the tail ----

static void resubmit_some(struct opening *opening);

static void on_resubmitted(void *context, const struct commit_result *result)
{
    struct opening *opening = context;
    // A failure is commit's to report: it closes, and opening begins again.
    if (--opening->resubmitted == 0 && result->recorded && opening->under_way)
        resubmit_some(opening);
}

static enum keeper_action action_again(const struct record *record)
{
    switch (record->event) {
    case RECORD_TOKEN_INITIALISED:
        return KEEPER_ACTION_INIT;
    case RECORD_KEY_GENERATED:
        return KEEPER_ACTION_ADOPT;
    case RECORD_KEY_DESTROYING:
        return KEEPER_ACTION_DESTROY;
    default:
        // A key that was to be released went to nobody: its lease will expire.
        return KEEPER_ACTION_NONE;
    }
}

// What somebody wrote into the file while the daemon was down approves nothing.
static void refuse_tail(struct opening *opening, const struct record *record,
                        const struct error *why)
{
    struct error err;
    say(LOG_ERR, "record %" PRIu64 ", which nobody signed, and what follows it is set aside: %s",
        record->seq, why->message);
    if (log_set_aside_from_last(opening->daemon->log, &opening->refused, &err) == 0) {
        opening_begin(opening);
        return;
    }
    commit_close(opening->daemon->commit, &err);
    fail(opening, &err);
}

// Has the next records signed that stand in the log and are not; opening is finished when there are
// none.
static void resubmit_some(struct opening *opening)
{
    struct daemon *daemon = opening->daemon;
    struct record record;
    struct merkle_hash leaf;
    struct error err;
    int more = 1;
    while (opening->resubmitted < KEEPER_BATCH_MAX) {
        more = log_next_unsigned(daemon->log, &record, &leaf, &err);
        if (more == 1 && requests_check_again(daemon, &record, &err) != 0) {
            refuse_tail(opening, &record, &err);
            return;
        }
        if (more == 1 && commit_resubmit(daemon->commit, &record, action_again(&record),
                                         on_resubmitted, opening, &err) != 0)
            more = -1;
        if (more != 1)
            break;
        opening->resubmitted++;
    }
    if (more < 0) {
        commit_close(daemon->commit, &err);
        fail(opening, &err);
    } else if (opening->resubmitted == 0) {
        finish(opening);
    }
}

// ---- 3. the keeper's view of the log ----

static void on_log_opened(void *context, const struct keeper_reply *reply)
{
    struct opening *opening = context;
    struct daemon *daemon = opening->daemon;
    struct error why;
    if (reply == NULL || !opening->under_way)
        return; // opening_cancel has told, or will
    if (reply->error.code != ERROR_OK) {
        fail(opening, &reply->error);
        return;
    }
    if (reply->body.log_opened.size != log_size(daemon->log)) {
        error_set(&why, ERROR_INTERNAL,
                  "the keeper sees %" PRIu64 " signed records, custodyd %" PRIu64,
                  reply->body.log_opened.size, log_size(daemon->log));
        fail(opening, &why);
        return;
    }
    commit_open(daemon->commit, daemon->state);
    if (opening->done != NULL) {
        opening->under_way = false;
        tell(opening, NULL);
        return;
    }
    resubmit_some(opening);
}

// Asks the keeper to open the log at the head `note` ("" when nothing is signed). `old_size` is the
// token's head.
static int ask_log_open(struct opening *opening, const char *note, uint64_t old_size,
                        struct error *err)
{
    struct daemon *daemon = opening->daemon;
    struct keeper_log_open *open = &opening->request.body.log_open;
    struct merkle_edge edge;
    size_t proof_length = 0;
    memset(&opening->request, 0, sizeof(opening->request));
    open->first = log_segment_first(daemon->log);
    snprintf(open->checkpoint, sizeof(open->checkpoint), "%s", note);
    if (log_edge(daemon->log, open->first, &edge, err) != 0)
        return -1;
    open->edge_length = merkle_edge_length(open->first);
    memcpy(open->edge, edge.hashes, open->edge_length * sizeof(edge.hashes[0]));
    if (old_size > 0 && log_prove_consistency(daemon->log, old_size, log_size(daemon->log),
                                              open->proof, &proof_length, err) != 0)
        return -1;
    open->proof_length = (uint32_t)proof_length;
    return keeper_link_ask(daemon->link, &opening->request, KEEPER_LOG_OPEN, on_log_opened, opening,
                           err);
}

// ---- 2. reading ----

// The newest head that was signed: the token's or the checkpoint file's, whichever is larger.
// Returns 1 with `head` and `note`, 0 when there is none, -1 with `err`. `*token_size` is the size
// of the token's; 0 = none.
static int find_head(struct daemon *daemon, struct checkpoint *head, char *note,
                     uint64_t *token_size, struct error *err)
{
    struct note_key key;
    struct checkpoint in_token;
    *token_size = 0;
    if (!daemon->keeper.initialised)
        return 0;
    if (note_key_parse(&key, daemon->keeper.log_vkey, err) != 0)
        return error_prefix(err, "the log key that the keeper names");
    int found = log_read_checkpoint(daemon->log, &key, head, note, err);
    if (found < 0)
        return -1;
    if (!daemon->keeper.has_head)
        return found;
    const char *token_note = daemon->keeper.head;
    if (checkpoint_open(&in_token, token_note, strlen(token_note), &key, err) != 0)
        return error_prefix(err, "the head in the token");
    *token_size = in_token.size;
    if (found == 0 || in_token.size > head->size) {
        *head = in_token;
        snprintf(note, NOTE_MAX, "%s", token_note);
    }
    return 1;
}

static int check_token(const struct daemon *daemon, struct error *err)
{
    if (!daemon->keeper.initialised)
        return error_set(
            err, ERROR_FAILED_PRECONDITION,
            "%s holds records, but token '%s' has no keys of custody: is it the right token?",
            daemon->config->audit_dir, daemon->keeper.token.label);
    if (state_initialised(daemon->state) &&
        strcmp(state_log_vkey(daemon->state), daemon->keeper.log_vkey) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the log was signed with key %.128s, but token '%s' has another log key: "
                         "is it the right token?",
                         state_log_vkey(daemon->state), daemon->keeper.token.label);
    return 0;
}

static int read_log(struct opening *opening, struct error *err)
{
    struct daemon *daemon = opening->daemon;
    struct checkpoint head;
    char note[NOTE_MAX];
    uint64_t token_size;
    struct state *state = state_new();
    if (state == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    state_free(daemon->state);
    daemon->state = state;
    if (log_find_folders(daemon->log, err) != 0) {
        if (err->code == ERROR_NOT_FOUND && daemon->keeper.has_head)
            err->code = ERROR_DATA_LOSS;
        return -1;
    }
    int found = find_head(daemon, &head, note, &token_size, err);
    if (found < 0)
        return -1;
    if (found == 0 && log_is_empty(daemon->log, err)) {
        opening->under_way = false;
        daemon_set_phase(daemon, DAEMON_UNINITIALISED,
                         "this token was not initialised: run custodyctl token init");
        return 0;
    }
    if (log_read(daemon->log, found == 1 ? &head : NULL, daemon->state, &opening->aside, err) !=
            0 ||
        check_token(daemon, err) != 0)
        return -1;
    return ask_log_open(opening, found == 1 ? note : "",
                        token_size < log_size(daemon->log) ? token_size : 0, err);
}

void opening_empty_log(struct opening *opening, opening_done_fn *done, void *context)
{
    struct daemon *daemon = opening->daemon;
    struct error err;
    opening->under_way = true;
    opening->done = done;
    opening->done_context = context;
    if (log_read(daemon->log, NULL, daemon->state, &opening->aside, &err) == 0 &&
        ask_log_open(opening, "", 0, &err) == 0)
        return;
    fail(opening, &err);
}

// The token's head as it is now: the last status may be seconds old.
static void on_fresh_status(void *context, const struct keeper_reply *reply)
{
    struct opening *opening = context;
    struct error err;
    if (reply == NULL || !opening->under_way)
        return;
    if (reply->error.code != ERROR_OK) {
        fail(opening, &reply->error);
        return;
    }
    opening->daemon->keeper = reply->body.status;
    if (read_log(opening, &err) != 0)
        fail(opening, &err);
}

static int ask_status(struct opening *opening, struct error *err)
{
    memset(&opening->request, 0, sizeof(opening->request));
    return keeper_link_ask(opening->daemon->link, &opening->request, KEEPER_STATUS, on_fresh_status,
                           opening, err);
}

// ---- 1. the blobs ----

static int ask_list(struct opening *opening, struct error *err);

static void on_list(void *context, const struct keeper_reply *reply)
{
    struct opening *opening = context;
    struct error err;
    if (reply == NULL || !opening->under_way)
        return;
    if (reply->error.code != ERROR_OK) {
        fail(opening, &reply->error);
        return;
    }
    const struct keeper_list *list = &reply->body.list;
    size_t count = opening->blob_count + list->count;
    struct keeper_blob *grown = realloc(opening->blobs, (count + 1) * sizeof(*grown));
    if (grown == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu blobs", count);
        fail(opening, &err);
        return;
    }
    opening->blobs = grown;
    memcpy(opening->blobs + opening->blob_count, list->blobs, list->count * sizeof(*grown));
    opening->blob_count = count;
    bool more = list->count > 0 && count < list->total;
    if ((more ? ask_list(opening, &err) : ask_status(opening, &err)) != 0)
        fail(opening, &err);
}

static int ask_list(struct opening *opening, struct error *err)
{
    memset(&opening->request, 0, sizeof(opening->request));
    opening->request.body.list.first = (uint32_t)opening->blob_count;
    return keeper_link_ask(opening->daemon->link, &opening->request, KEEPER_LIST, on_list, opening,
                           err);
}

void opening_begin(struct opening *opening)
{
    struct error err, why;
    opening_cancel(opening);
    error_set(&why, ERROR_UNAVAILABLE, "the log is being read");
    commit_close(opening->daemon->commit, &why);
    opening->under_way = true;
    opening->blob_count = 0;
    opening->resubmitted = 0;
    if (opening->daemon->phase != DAEMON_SEALED) // that lasts until the log is found in order
        daemon_set_phase(opening->daemon, DAEMON_CLOSED, why.message);
    if (ask_list(opening, &err) != 0)
        fail(opening, &err);
}

void opening_cancel(struct opening *opening)
{
    struct error why;
    opening->under_way = false;
    event_del(opening->retry);
    error_set(&why, ERROR_UNAVAILABLE, "the keeper was lost while the log was opened");
    tell(opening, &why);
}

uint64_t opening_highest_blob(const struct opening *opening, const char *key)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < opening->blob_count; i++)
        if (opening->blobs[i].generation > highest && strcmp(opening->blobs[i].key, key) == 0)
            highest = opening->blobs[i].generation;
    return highest;
}

void opening_note_blob(struct opening *opening, const char *key, uint64_t generation)
{
    struct keeper_blob *grown = realloc(opening->blobs, (opening->blob_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return; // the keeper refuses a generation that is taken
    opening->blobs = grown;
    struct keeper_blob *blob = &grown[opening->blob_count++];
    memset(blob, 0, sizeof(*blob));
    snprintf(blob->key, sizeof(blob->key), "%s", key);
    blob->generation = generation;
}

// ---- life ----

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct opening *opening = context;
    (void)fd;
    (void)what;
    if (keeper_link_ready(opening->daemon->link))
        opening_begin(opening);
}

struct opening *opening_new(struct daemon *daemon, struct error *err)
{
    struct opening *opening = calloc(1, sizeof(*opening));
    if (opening != NULL) {
        opening->daemon = daemon;
        opening->retry_s = RETRY_FIRST_S;
        opening->retry = evtimer_new(daemon->base, on_retry, opening);
        if (opening->retry != NULL)
            return opening;
    }
    free(opening);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for opening the log");
    return NULL;
}

void opening_free(struct opening *opening)
{
    if (opening == NULL)
        return;
    event_free(opening->retry);
    free(opening->blobs);
    free(opening);
}
