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
#include "rotation.h"
#include "say.h"
#include "watches.h"

#define RETRY_FIRST_S 1
#define RETRY_LAST_S  10

// A reading of the log in the disk's thread.
struct reading {
    struct opening *opening;
    struct log *log;
    struct keeper_status keeper; // as it was when this began
    bool new_log;                // there is to be none yet
    // What came of it:
    bool failed;
    struct error error;
    bool empty; // there is neither a head nor a record
    int found;  // 1 = a head
    struct checkpoint head;
    char note[NOTE_MAX];
    uint64_t token_size; // of the token's head
    struct log_view view;
};

// The next records of the tail, read in the disk's thread.
struct tail {
    struct opening *opening;
    struct log *log;
    bool failed;
    struct error error;
    size_t count;
    struct record records[KEEPER_BATCH_MAX];
};

struct opening {
    struct daemon *daemon;
    struct event *retry;
    unsigned retry_s;
    struct keeper_blob *blobs; // in the token
    size_t blob_count;
    struct log_aside aside;
    struct log_aside refused; // records of the tail that are not carried on
    bool full;                // the log's disk
    const void *job;          // the reading or tail that is waited for; another one comes too late
    size_t resubmitted;       // tail records that are being signed
    bool under_way;
    opening_done_fn *done; // of opening_empty_log
    void *done_context;
    opening_done_fn *ended; // of opening_when_ended
    void *ended_context;
    struct keeper_request request; // scratch, too large for the stack
};

// Tells whoever asked for opening_empty_log or opening_when_ended; nobody did where it is NULL.
static void tell(struct opening *opening, const struct error *why)
{
    opening_done_fn *done = opening->done, *ended = opening->ended;
    opening->done = opening->ended = NULL;
    if (done != NULL)
        done(opening->done_context, why);
    if (ended != NULL)
        ended(opening->ended_context, why);
}

void opening_when_ended(struct opening *opening, opening_done_fn *done, void *context)
{
    opening->ended = done;
    opening->ended_context = context;
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
    stuck_begin(opening->daemon->stuck, why);
    if (why->code == ERROR_DATA_LOSS) {
        loss_enter(opening->daemon->loss, why);
    } else {
        say(LOG_ERR, "the log is not served: %s", why->message);
        daemon_close(opening->daemon, why);
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

void opening_go_on(struct opening *opening)
{
    struct daemon *daemon = opening->daemon;
    opening->retry_s = RETRY_FIRST_S;
    daemon_set_phase(daemon, DAEMON_READY, "");
    record_opened(opening);
    stuck_end(daemon->stuck);
    projection_begin(daemon->projection, daemon->state);
    finish_destructions(opening);
    rotation_finish(daemon);
    leases_watch(daemon->leases);
    watches_restart(daemon->watches);
    rotation_timer_look(daemon->rotation_timer);
}

static void finish(struct opening *opening)
{
    opening->under_way = false;
    if (opening->full)
        stuck_wait_for_room(opening->daemon->stuck);
    else
        opening_go_on(opening);
    tell(opening, NULL);
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
    case RECORD_KEY_IMPORTED:
        return KEEPER_ACTION_ADOPT;
    case RECORD_KEY_DESTROYING:
        return KEEPER_ACTION_DESTROY;
    case RECORD_PSK_RECEIVED:
        return KEEPER_ACTION_PSK_TAKE;
    case RECORD_PSK_DESTROYED:
        return KEEPER_ACTION_PSK_DESTROY;
    default:
        // A key that was to be released went to nobody: its lease will expire.
        return KEEPER_ACTION_NONE;
    }
}

static void read_tail(void *context)
{
    struct tail *tail = context;
    tail->failed = log_files_next_unsigned(log_files(tail->log), tail->records, KEEPER_BATCH_MAX,
                                           &tail->count, &tail->error) != 0;
}

// ---- 4a. what is not carried on ----

// A cut of the tail in the disk's thread.
struct cut {
    struct opening *opening;
    struct log *log;
    uint64_t index;
    bool failed;
    struct error error;
    struct log_aside aside;
};

static void cut_tail(void *context)
{
    struct cut *cut = context;
    cut->failed = log_files_cut(log_files(cut->log), cut->index, &cut->aside, &cut->error) != 0;
}

static void on_cut(void *context)
{
    struct cut *cut = context;
    struct opening *opening = cut->opening;
    if (opening->job == cut) {
        opening->job = NULL;
        opening->refused = cut->aside;
        if (cut->failed)
            fail(opening, &cut->error);
        else
            opening_begin(opening);
    }
    free(cut);
}

// What somebody wrote into the file while the daemon was down approves nothing: record `index` and
// what follows it is set aside, and the log read again.
static void refuse_tail(struct opening *opening, uint64_t index, const struct error *why)
{
    struct error err;
    struct cut *cut = calloc(1, sizeof(*cut));
    say(LOG_ERR, "record %" PRIu64 ", which nobody signed, and what follows it is set aside: %s",
        index, why->message);
    commit_close(opening->daemon->commit, why);
    error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory to set records aside");
    if (cut != NULL) {
        cut->opening = opening;
        cut->log = opening->daemon->log;
        cut->index = index;
        opening->job = cut;
        if (disk_do(opening->daemon->disk, "setting records aside", cut_tail, on_cut, cut, &err) ==
            0)
            return;
        free(cut);
    }
    opening->job = NULL;
    fail(opening, &err);
}

// The first record of the tail that may not be carried on: its place in `tail`, or the count.
static size_t first_refused(struct opening *opening, const struct tail *tail, struct error *why)
{
    size_t i = 0;
    while (i < tail->count && requests_check_again(opening->daemon, &tail->records[i], why) == 0)
        i++;
    return i;
}

static int resubmit(struct opening *opening, struct tail *tail, struct error *err)
{
    for (size_t i = 0; i < tail->count; i++) {
        const struct record *record = &tail->records[i];
        if (commit_resubmit(opening->daemon->commit, record, action_again(record), on_resubmitted,
                            opening, err) != 0)
            return -1;
        opening->resubmitted++;
    }
    return 0;
}

static void on_tail(void *context)
{
    struct tail *tail = context;
    struct opening *opening = tail->opening;
    if (opening->job == tail) {
        opening->job = NULL;
        struct error why;
        size_t good = tail->failed ? 0 : first_refused(opening, tail, &why);
        if (!tail->failed && good < tail->count) {
            refuse_tail(opening, tail->records[good].seq, &why);
        } else if (tail->failed || resubmit(opening, tail, &tail->error) != 0) {
            commit_close(opening->daemon->commit, &tail->error);
            fail(opening, &tail->error);
        } else if (tail->count == 0) {
            finish(opening);
        }
    }
    free(tail);
}

// Has the next records signed that stand in the log and are not; opening is finished when there are
// none.
static void resubmit_some(struct opening *opening)
{
    struct error err;
    struct tail *tail = calloc(1, sizeof(*tail));
    if (tail == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    } else {
        tail->opening = opening;
        tail->log = opening->daemon->log;
        opening->job = tail;
        if (disk_do(opening->daemon->disk, "reading the log", read_tail, on_tail, tail, &err) == 0)
            return;
        free(tail);
    }
    opening->job = NULL;
    commit_close(opening->daemon->commit, &err);
    fail(opening, &err);
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

// Asks the keeper to open the log at the head that was found.
static int ask_log_open(struct opening *opening, const struct reading *reading, struct error *err)
{
    struct keeper_log_open *open = &opening->request.body.log_open;
    const struct log_view *view = &reading->view;
    memset(&opening->request, 0, sizeof(opening->request));
    open->first = view->edge.size;
    if (reading->found == 1)
        snprintf(open->checkpoint, sizeof(open->checkpoint), "%s", reading->note);
    open->edge_length = merkle_edge_length(view->edge.size);
    memcpy(open->edge, view->edge.hashes, open->edge_length * sizeof(view->edge.hashes[0]));
    memcpy(open->proof, view->proof, view->proof_length * sizeof(view->proof[0]));
    open->proof_length = (uint32_t)view->proof_length;
    return keeper_link_ask(opening->daemon->link, &opening->request, KEEPER_LOG_OPEN, on_log_opened,
                           opening, err);
}

// ---- 2. reading ----

// The newest head that was signed: the token's or the checkpoint file's, whichever is larger.
// Returns 1 with `head` and `note`, 0 when there is none, -1 with `err`. `*token_size` is the size
// of the token's; 0 = none. In the disk's thread.
static int find_head(struct log_files *files, const struct keeper_status *keeper,
                     struct checkpoint *head, char *note, uint64_t *token_size, struct error *err)
{
    struct note_key key;
    struct checkpoint in_token;
    *token_size = 0;
    if (!keeper->initialised)
        return 0;
    if (note_key_parse(&key, keeper->log_vkey, err) != 0)
        return error_prefix(err, "the log key that the keeper names");
    int found = log_files_read_checkpoint(files, &key, head, note, err);
    if (found < 0)
        return -1;
    if (!keeper->has_head)
        return found;
    const char *token_note = keeper->head;
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

static int read_files(struct reading *reading, struct error *err)
{
    struct log_files *files = log_files(reading->log);
    if (log_files_open(files, err) != 0) {
        if (err->code == ERROR_NOT_FOUND && reading->keeper.has_head)
            err->code = ERROR_DATA_LOSS;
        return -1;
    }
    if (!reading->new_log)
        reading->found = find_head(files, &reading->keeper, &reading->head, reading->note,
                                   &reading->token_size, err);
    if (reading->found < 0)
        return -1;
    reading->empty = reading->found == 0 && !reading->new_log && log_files_is_empty(files, err);
    if (reading->empty)
        return 0;
    bool behind = reading->found == 1 && reading->token_size < reading->head.size;
    return log_read(reading->log, reading->found == 1 ? &reading->head : NULL,
                    behind ? reading->token_size : 0, &reading->view, err);
}

static void read_in_thread(void *context)
{
    struct reading *reading = context;
    reading->failed = read_files(reading, &reading->error) != 0;
}

static void wait_for_init(struct opening *opening)
{
    opening->under_way = false;
    daemon_set_phase(opening->daemon, DAEMON_UNINITIALISED,
                     "this token was not initialised: run custodyctl token init");
}

static int take_log(struct opening *opening, struct reading *reading, struct error *err)
{
    struct daemon *daemon = opening->daemon;
    if (reading->empty) {
        wait_for_init(opening);
        return 0;
    }
    state_free(daemon->state);
    daemon->state = reading->view.state;
    reading->view.state = NULL;
    log_take(daemon->log, &reading->view);
    opening->full = reading->view.full;
    if (reading->view.aside.any)
        opening->aside = reading->view.aside;
    // What there was of record 0 was cut off by a crash, and has been set aside.
    if (!reading->new_log && reading->found != 1 && state_size(daemon->state) == 0) {
        wait_for_init(opening);
        return 0;
    }
    if (!reading->new_log && check_token(daemon, err) != 0)
        return -1;
    return ask_log_open(opening, reading, err);
}

static void on_read(void *context)
{
    struct reading *reading = context;
    struct opening *opening = reading->opening;
    if (opening->job == reading) {
        opening->job = NULL;
        if (reading->failed || take_log(opening, reading, &reading->error) != 0)
            fail(opening, &reading->error);
    }
    log_view_clear(&reading->view);
    free(reading);
}

static int read_log(struct opening *opening, bool new_log, struct error *err)
{
    struct daemon *daemon = opening->daemon;
    struct reading *reading = calloc(1, sizeof(*reading));
    if (reading == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    reading->opening = opening;
    reading->log = daemon->log;
    reading->keeper = daemon->keeper;
    reading->new_log = new_log;
    opening->job = reading;
    if (disk_do(daemon->disk, "reading the log", read_in_thread, on_read, reading, err) == 0)
        return 0;
    opening->job = NULL;
    free(reading);
    return -1;
}

void opening_empty_log(struct opening *opening, opening_done_fn *done, void *context)
{
    struct error err;
    opening->under_way = true;
    opening->done = done;
    opening->done_context = context;
    if (read_log(opening, true, &err) != 0)
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
    if (read_log(opening, false, &err) != 0)
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
    if (disk_is_hanging(opening->daemon->disk, &why)) {
        daemon_close(opening->daemon, &why); // begins when it is back
        return;
    }
    error_set(&why, ERROR_UNAVAILABLE, "the log is being read");
    commit_close(opening->daemon->commit, &why);
    opening->under_way = true;
    opening->blob_count = 0;
    opening->resubmitted = 0;
    // Why it stopped stays to be seen until it goes on.
    if (!stuck_is_on(opening->daemon->stuck) && opening->daemon->phase != DAEMON_SEALED)
        daemon_close(opening->daemon, &why);
    if (ask_list(opening, &err) != 0)
        fail(opening, &err);
}

void opening_cancel(struct opening *opening)
{
    struct error why;
    opening->under_way = false;
    opening->job = NULL;
    event_del(opening->retry);
    stuck_stop_waiting(opening->daemon->stuck);
    error_set(&why, ERROR_UNAVAILABLE, "the opening of the log was given up: ask again");
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

uint64_t opening_lowest_blob(const struct opening *opening, const char *key, uint64_t above)
{
    uint64_t lowest = 0;
    for (size_t i = 0; i < opening->blob_count; i++) {
        uint64_t generation = opening->blobs[i].generation;
        if (generation > above && (lowest == 0 || generation < lowest) &&
            strcmp(opening->blobs[i].key, key) == 0)
            lowest = generation;
    }
    return lowest;
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
