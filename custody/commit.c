// SPDX-License-Identifier: Apache-2.0
// The commit pipeline: queue, batch, append, keeper, answer.
#include "commit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include <sodium.h>

#include "say.h"
#include "snapshot.h"

// How far the wall clock may fall behind the last record before clock.stepped says so. Less is the
// ordinary slewing of a clock being set right.
#define CLOCK_STEP_US 1000000

struct pending {
    STAILQ_ENTRY(pending) link;
    struct record record;
    enum keeper_action action;
    bool in_file; // appended before, in an earlier life of the daemon
    bool follows; // one of its group comes before it: where that is not recorded, it is not either
    unsigned group; // how many of its group come after it
    commit_done_fn *done;
    void *context;
};
STAILQ_HEAD(queue, pending);

// An entry of the batch that is committing.
struct entry {
    struct pending *pending;
    size_t line_offset, line_length; // in the batch's lines
    struct merkle_hash leaf;
    struct error error;
    uint8_t box[KEEPER_BOX_SIZE];
    char note[NOTE_MAX];
};

struct batch {
    unsigned count; // 0: it is not under way
    struct entry entries[KEEPER_BATCH_MAX];
    size_t lines_length;
    // It ends early when its lines need more.
    char lines[KEEPER_BATCH_MAX * (RECORD_LINE_MAX / 8)];
};

struct commit {
    struct event *kick; // makes the next batch, from the event loop
    struct keeper_link *link;
    struct log *log;
    char host[HOST_MAX + 1];
    char origin[NOTE_NAME_MAX + 1];
    struct commit_handlers handlers;
    struct state *state;
    bool open;
    bool rotating;  // the segment is complete; the next is made, and opened at the keeper
    char *snapshot; // of the state before the batch's log.sealed
    size_t snapshot_length;
    char head[NOTE_MAX]; // the latest
    bool clock_stepped;  // said so already
    bool group_failed;   // the record taken last was not recorded, because of group_error
    struct error group_error;
    struct error closed_because;
    struct queue queue;
    struct batch batches[2];       // while one is answered, the other is committing already
    struct batch *batch;           // the one that is committing, or gathered next
    struct keeper_request request; // scratch, too large for the stack
};

int64_t commit_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// ---- answering ----

static void finish(struct pending *pending, const struct commit_result *result)
{
    if (pending->done != NULL)
        pending->done(pending->context, result);
    free(pending);
}

static void fail(struct pending *pending, const struct error *why)
{
    struct commit_result result = {.record = &pending->record, .error = *why};
    finish(pending, &result);
}

static void finish_batch(struct commit *commit, struct batch *batch, const char *checkpoint)
{
    unsigned count = batch->count;
    batch->count = 0;
    for (unsigned i = 0; i < count; i++)
        commit->handlers.committed(commit->handlers.context, &batch->entries[i].pending->record);
    for (unsigned i = 0; i < count; i++) {
        struct entry *entry = &batch->entries[i];
        struct commit_result result = {
            .recorded = true,
            .error = entry->error,
            .record = &entry->pending->record,
            .line = batch->lines + entry->line_offset,
            .line_length = entry->line_length,
            .box = entry->box,
            .note = entry->note,
            .checkpoint = checkpoint,
        };
        finish(entry->pending, &result);
        sodium_memzero(entry->box, sizeof(entry->box));
    }
}

void commit_close(struct commit *commit, const struct error *why)
{
    struct queue failed = STAILQ_HEAD_INITIALIZER(failed);
    commit->open = false;
    commit->closed_because = *why;
    commit->state = NULL;
    commit->rotating = false;
    commit->group_failed = false;
    free(commit->snapshot);
    commit->snapshot = NULL;
    for (unsigned i = 0; i < commit->batch->count; i++)
        STAILQ_INSERT_TAIL(&failed, commit->batch->entries[i].pending, link);
    commit->batch->count = 0;
    STAILQ_CONCAT(&failed, &commit->queue);
    while (!STAILQ_EMPTY(&failed)) {
        struct pending *pending = STAILQ_FIRST(&failed);
        STAILQ_REMOVE_HEAD(&failed, link);
        fail(pending, why);
    }
}

// Something went wrong on the way of a batch: what is in the file must be read again.
static void break_off(struct commit *commit, const struct error *why)
{
    say(LOG_ERR, "the log takes no more records: %s", why->message);
    commit_close(commit, why);
    commit->handlers.closed(commit->handlers.context, why);
}

// ---- making a batch ----

// log.sealed and daemon.stopped bear the digest of the state that they are written in; the state
// before log.sealed is kept for the snapshot.
static int stamp_digest(struct commit *commit, struct record *record, struct error *err)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    size_t length;
    char *text = snapshot_format(commit->state, &length, err);
    if (text == NULL)
        return -1;
    crypto_hash_sha256(digest, (const uint8_t *)text, length);
    sodium_bin2hex(record->sha256, sizeof(record->sha256), digest, sizeof(digest));
    free(commit->snapshot);
    commit->snapshot = text;
    commit->snapshot_length = length;
    return 0;
}

// A bundle and a freshness note follow from what the records before say, whatever was published
// while they waited.
static void stamp_note(const struct commit *commit, struct record *record)
{
    const struct rotation *rotation = rotations_find(state_rotations(commit->state), record->key);
    const struct state_key *key = state_key_find(commit->state, record->key, record->generation);
    if (record->event == RECORD_KEY_PUBLISHED) {
        record->bundle_state =
            key != NULL ? lifecycle_bundle_state(key->state) : (uint32_t)BUNDLE_NONE;
        if (rotation != NULL)
            memcpy(record->previous, rotation->bundle_sha256, sizeof(record->previous));
    } else if (rotation != NULL) {
        record->generation = rotation->bundle_generation;
        memcpy(record->sha256, rotation->bundle_sha256, sizeof(record->sha256));
    }
}

// Time never runs back: the later of now and the last record's. A clock that was set back is
// recorded, once.
static int stamp(struct commit *commit, struct record *record, struct error *err)
{
    int64_t now = commit_now_us(), last = state_time_us(commit->state);
    record->seq = state_size(commit->state);
    record->time_us = now > last ? now : last;
    memcpy(record->host, commit->host, sizeof(record->host));
    // A lease is counted from its record's time, whatever the clock did while the record waited.
    if (record->event == RECORD_RELEASE_GRANTED && record->expires_us < record->time_us)
        record->expires_us = record->time_us;
    if (record->event == RECORD_KEY_PUBLISHED || record->event == RECORD_KEY_REFRESHED)
        stamp_note(commit, record);
    if (record->event == RECORD_LOG_SEALED || record->event == RECORD_DAEMON_STOPPED)
        return stamp_digest(commit, record, err);
    return 0;
}

// Whether all that stands in the log, but for the batch, is signed: new records may follow.
static bool tail_is_signed(const struct commit *commit)
{
    return log_size(commit->log) + commit->batch->count == state_size(commit->state);
}

static void note_clock(struct commit *commit)
{
    if (!tail_is_signed(commit))
        return;
    int64_t behind = state_time_us(commit->state) - commit_now_us();
    if (behind < CLOCK_STEP_US) {
        commit->clock_stepped = false;
        return;
    }
    if (commit->clock_stepped)
        return;
    // The keeper takes the records of an accepted loss alone: the clock is mentioned after them.
    const struct pending *first = STAILQ_FIRST(&commit->queue);
    if (first != NULL && first->record.operation == OPERATION_ACCEPT_LOSS)
        return;
    commit->clock_stepped = true;
    struct pending *pending = calloc(1, sizeof(*pending));
    if (pending == NULL)
        return;
    pending->record.event = RECORD_CLOCK_STEPPED;
    snprintf(pending->record.detail, sizeof(pending->record.detail),
             "the clock is %" PRId64 ".%03" PRId64 " s behind", behind / 1000000,
             behind / 1000 % 1000);
    STAILQ_INSERT_HEAD(&commit->queue, pending, link);
}

// Encodes the entry's line behind those of the batch. Returns 1 when there is no room for it in
// this batch.
static int add_line(struct commit *commit, struct entry *entry, struct error *err)
{
    size_t room = sizeof(commit->batch->lines) - commit->batch->lines_length;
    if (room < RECORD_LINE_MAX + 1)
        return 1;
    entry->line_offset = commit->batch->lines_length;
    char *line = commit->batch->lines + commit->batch->lines_length;
    if (record_encode(&entry->pending->record, line, room - 1, &entry->line_length, err) != 0)
        return -1;
    line[entry->line_length] = '\n';
    entry->leaf = merkle_leaf(line, entry->line_length);
    commit->batch->lines_length += entry->line_length + 1;
    return 0;
}

// Takes the queue's first into the batch. Returns 1 when it has to wait for the next batch, -1 when
// it cannot be recorded.
static int add_entry(struct commit *commit, struct pending *pending, struct error *err)
{
    struct entry *entry = &commit->batch->entries[commit->batch->count];
    entry->pending = pending;
    entry->error.code = ERROR_OK;
    entry->error.message[0] = '\0';
    entry->note[0] = '\0';
    if (!pending->in_file && (stamp(commit, &pending->record, err) != 0 ||
                              state_check(commit->state, &pending->record, err) != 0))
        return -1;
    size_t before = commit->batch->lines_length;
    int added = add_line(commit, entry, err);
    if (added != 0)
        return added;
    if (!pending->in_file && state_apply(commit->state, &pending->record, err) != 0) {
        commit->batch->lines_length = before;
        return -1;
    }
    commit->batch->count++;
    return 0;
}

// Whether log.sealed comes next.
static bool seal_is_due(const struct commit *commit)
{
    const struct batch *batch = commit->batch;
    return tail_is_signed(commit) && (batch->count == 0 || !batch->entries[0].pending->in_file) &&
           log_is_due(commit->log, batch->lines_length, commit_now_us());
}

// Adds log.sealed. It is the last of its batch, and alone in it where there is no more room.
static void add_seal(struct commit *commit)
{
    struct error why;
    struct pending *pending = calloc(1, sizeof(*pending));
    if (pending == NULL)
        return; // with the next batch, then
    pending->record.event = RECORD_LOG_SEALED;
    int added = add_entry(commit, pending, &why);
    if (added == 0)
        return;
    if (added < 0)
        say(LOG_ERR, "the segment is not closed: %s", why.message);
    free(pending);
}

static bool is_sealed(const struct batch *batch)
{
    return batch->count > 0 &&
           batch->entries[batch->count - 1].pending->record.event == RECORD_LOG_SEALED;
}

// The records by which a loss is accepted make a batch of their own, with nothing else in it: the
// keeper takes no other.
static bool accepts_loss(const struct commit *commit)
{
    const struct pending *first = STAILQ_FIRST(&commit->queue);
    return first != NULL && first->record.operation == OPERATION_ACCEPT_LOSS;
}

// Records that are in the file already and such that are not do not share a batch: the file is in
// one order only.
static void gather(struct commit *commit)
{
    struct error why;
    struct batch *batch = commit->batch;
    bool alone = accepts_loss(commit);
    batch->lines_length = 0;
    if (!alone)
        note_clock(commit);
    while (batch->count < KEEPER_BATCH_MAX && !is_sealed(batch)) {
        struct pending *pending = STAILQ_FIRST(&commit->queue);
        bool within = pending != NULL && pending->follows;
        if (!alone && !within && seal_is_due(commit)) {
            add_seal(commit);
            return;
        }
        if (pending == NULL ||
            (batch->count > 0 && pending->in_file != batch->entries[0].pending->in_file) ||
            (batch->count > 0 && !within && batch->count + pending->group >= KEEPER_BATCH_MAX))
            return;
        int added = within && commit->group_failed ? -1 : add_entry(commit, pending, &why);
        if (added == 1)
            return;
        STAILQ_REMOVE_HEAD(&commit->queue, link);
        if (added < 0 && !(within && commit->group_failed))
            commit->group_error = why;
        commit->group_failed = added < 0;
        if (added < 0)
            fail(pending, &commit->group_error);
    }
}

static void on_reply(void *context, const struct keeper_reply *reply);

// The entries go ahead while the disk's thread appends their lines: the keeper looks at them when
// it is told to commit.
static int send_entries(struct commit *commit, struct error *err)
{
    struct keeper_request *request = &commit->request;
    for (unsigned i = 0; i < commit->batch->count; i++) {
        request->body.entry.action = commit->batch->entries[i].pending->action;
        request->body.entry.record = commit->batch->entries[i].pending->record;
        if (keeper_link_send_entry(commit->link, request, i, err) != 0)
            return -1;
    }
    return 0;
}

static int ask_commit(struct commit *commit, struct error *err)
{
    commit->request.body.commit.count = commit->batch->count;
    return keeper_link_ask(commit->link, &commit->request, KEEPER_COMMIT, on_reply, commit, err);
}

static void on_appended(void *context, const struct error *why)
{
    struct commit *commit = context;
    struct error err;
    if (commit->batch->count == 0)
        return; // closed since
    if (why == NULL) {
        if (ask_commit(commit, &err) == 0)
            return;
        why = &err;
    }
    break_off(commit, why);
}

static int hand_over(struct commit *commit, struct error *err)
{
    const struct batch *batch = commit->batch;
    const struct pending *first = batch->entries[0].pending;
    if (send_entries(commit, err) != 0)
        return -1;
    if (first->in_file)
        return ask_commit(commit, err);
    return log_append(commit->log, batch->lines, batch->lines_length, first->record.time_us,
                      on_appended, commit, err);
}

// Makes a batch of what has gathered. Returns whether one is under way.
static bool start_batch(struct commit *commit)
{
    struct error why;
    if (!commit->open)
        return false;
    if (commit->batch->count > 0 || commit->rotating)
        return true;
    gather(commit);
    if (commit->batch->count == 0)
        return false;
    if (hand_over(commit, &why) == 0)
        return true;
    break_off(commit, &why);
    return false;
}

static void go_on(struct commit *commit)
{
    if (!start_batch(commit) && commit->open && STAILQ_EMPTY(&commit->queue))
        commit->handlers.idle(commit->handlers.context);
}

static void on_kick(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    go_on(context);
}

void commit_look_at_age(struct commit *commit)
{
    if (commit->open && commit_is_idle(commit) && seal_is_due(commit))
        event_active(commit->kick, 0, 0);
}

// ---- a segment's end ----

static void on_reopened(void *context, const struct keeper_reply *reply)
{
    struct commit *commit = context;
    struct error why;
    if (!commit->rotating)
        return; // closed since
    if (reply == NULL)
        error_set(&why, ERROR_UNAVAILABLE, "the keeper was lost while it opened a segment");
    else if (reply->error.code != ERROR_OK)
        why = reply->error;
    if (reply == NULL || reply->error.code != ERROR_OK) {
        break_off(commit, &why);
        return;
    }
    commit->rotating = false;
    go_on(commit);
}

// The keeper goes on with the new segment.
static void on_rotated(void *context, const struct error *why)
{
    struct commit *commit = context;
    struct keeper_log_open *open = &commit->request.body.log_open;
    struct error err;
    if (!commit->rotating)
        return; // closed since
    if (why != NULL) {
        break_off(commit, why);
        return;
    }
    struct merkle_edge edge = log_edge(commit->log);
    memset(&commit->request, 0, sizeof(commit->request));
    open->first = edge.size;
    memcpy(open->checkpoint, commit->head, sizeof(open->checkpoint));
    open->edge_length = merkle_edge_length(edge.size);
    memcpy(open->edge, edge.hashes, open->edge_length * sizeof(edge.hashes[0]));
    if (keeper_link_ask(commit->link, &commit->request, KEEPER_LOG_OPEN, on_reopened, commit,
                        &err) != 0)
        break_off(commit, &err);
}

// log.sealed is signed: what follows waits until the next segment is there.
static void rotate(struct commit *commit, bool in_file)
{
    struct error why;
    char *snapshot = in_file ? NULL : commit->snapshot;
    if (!in_file)
        commit->snapshot = NULL;
    commit->rotating = true;
    if (log_rotate(commit->log, snapshot, commit->snapshot_length, on_rotated, commit, &why) != 0)
        break_off(commit, &why);
}

// ---- the keeper's answers ----

static void take_entry_reply(struct commit *commit, const struct keeper_reply *reply)
{
    if (reply->header.id >= commit->batch->count)
        return;
    struct entry *entry = &commit->batch->entries[reply->header.id];
    entry->error = reply->error;
    if (reply->error.code != ERROR_OK)
        return;
    memcpy(entry->box, reply->body.result.box, sizeof(entry->box));
    memcpy(entry->note, reply->body.result.note, sizeof(entry->note));
}

static void on_reply(void *context, const struct keeper_reply *reply)
{
    struct commit *commit = context;
    struct merkle_hash leaves[KEEPER_BATCH_MAX];
    struct error why;
    if (commit->batch->count == 0)
        return; // closed since
    if (reply == NULL) {
        error_set(&why, ERROR_UNAVAILABLE, "the keeper was lost before the record was signed");
        break_off(commit, &why);
        return;
    }
    if (reply->header.op == KEEPER_ENTRY) {
        take_entry_reply(commit, reply);
        return;
    }
    if (reply->error.code != ERROR_OK) {
        break_off(commit, &reply->error);
        return;
    }
    unsigned count = commit->batch->count;
    for (unsigned i = 0; i < count; i++)
        leaves[i] = commit->batch->entries[i].leaf;
    if (log_signed(commit->log, leaves, count, commit->origin, reply->body.committed.checkpoint,
                   &why) != 0) {
        break_off(commit, &why);
        return;
    }
    // The keeper gets what has gathered before those are answered whose keys it has just let go: it
    // works on the next batch meanwhile.
    struct batch *done = commit->batch;
    commit->batch = done == &commit->batches[0] ? &commit->batches[1] : &commit->batches[0];
    memcpy(commit->head, reply->body.committed.checkpoint, sizeof(commit->head));
    if (is_sealed(done))
        rotate(commit, done->entries[0].pending->in_file);
    else
        start_batch(commit);
    finish_batch(commit, done, reply->body.committed.checkpoint);
    go_on(commit);
}

// ---- the queue ----

static struct pending *new_pending(const struct commit_entry *entry, struct error *err)
{
    struct pending *pending = calloc(1, sizeof(*pending));
    if (pending == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a record");
        return NULL;
    }
    pending->record = entry->record;
    pending->action = entry->action;
    pending->done = entry->done;
    pending->context = entry->context;
    return pending;
}

static int check_open(const struct commit *commit, struct error *err)
{
    if (commit->open)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "nothing can be recorded: %s",
                     commit->closed_because.message);
}

static void enqueue(struct commit *commit, struct pending *pending)
{
    STAILQ_INSERT_TAIL(&commit->queue, pending, link);
    if (commit->batch->count == 0)
        event_active(commit->kick, 0, 0);
}

int commit_submit_all(struct commit *commit, const struct commit_entry *entries, unsigned count,
                      struct error *err)
{
    struct pending *pendings[COMMIT_GROUP_MAX];
    if (check_open(commit, err) != 0)
        return -1;
    for (unsigned i = 0; i < count; i++) {
        pendings[i] = new_pending(&entries[i], err);
        if (pendings[i] == NULL) {
            while (i > 0)
                free(pendings[--i]);
            return -1;
        }
        pendings[i]->follows = i > 0;
        pendings[i]->group = count - 1 - i;
    }
    for (unsigned i = 0; i < count; i++)
        enqueue(commit, pendings[i]);
    return 0;
}

static int submit(struct commit *commit, const struct record *record, enum keeper_action action,
                  bool in_file, commit_done_fn *done, void *context, struct error *err)
{
    const struct commit_entry entry = {
        .record = *record, .action = action, .done = done, .context = context};
    struct pending *pending = check_open(commit, err) == 0 ? new_pending(&entry, err) : NULL;
    if (pending == NULL)
        return -1;
    pending->in_file = in_file;
    enqueue(commit, pending);
    return 0;
}

int commit_submit(struct commit *commit, const struct record *record, enum keeper_action action,
                  commit_done_fn *done, void *context, struct error *err)
{
    return submit(commit, record, action, false, done, context, err);
}

int commit_resubmit(struct commit *commit, const struct record *record, enum keeper_action action,
                    commit_done_fn *done, void *context, struct error *err)
{
    return submit(commit, record, action, true, done, context, err);
}

// ---- life ----

struct commit *commit_new(struct event_base *base, struct keeper_link *link, struct log *log,
                          const char *host, const struct commit_handlers *handlers,
                          struct error *err)
{
    struct commit *commit = calloc(1, sizeof(*commit));
    if (commit == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the commit queue");
        return NULL;
    }
    commit->link = link;
    commit->log = log;
    snprintf(commit->host, sizeof(commit->host), "%s", host);
    name_log_origin(host, commit->origin, sizeof(commit->origin));
    commit->handlers = *handlers;
    commit->batch = &commit->batches[0];
    STAILQ_INIT(&commit->queue);
    error_set(&commit->closed_because, ERROR_UNAVAILABLE, "the log is not open yet");
    commit->kick = event_new(base, -1, 0, on_kick, commit);
    if (commit->kick != NULL)
        return commit;
    free(commit);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the commit queue");
    return NULL;
}

void commit_free(struct commit *commit)
{
    if (commit == NULL)
        return;
    struct error why;
    error_set(&why, ERROR_UNAVAILABLE, "the daemon stops");
    commit_close(commit, &why);
    event_free(commit->kick);
    free(commit);
}

void commit_open(struct commit *commit, struct state *state)
{
    commit->state = state;
    commit->open = true;
}

bool commit_is_open(const struct commit *commit)
{
    return commit->open;
}

bool commit_is_idle(const struct commit *commit)
{
    return commit->batch->count == 0 && !commit->rotating && STAILQ_EMPTY(&commit->queue);
}
