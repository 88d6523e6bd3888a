// SPDX-License-Identifier: Apache-2.0
// The commit point: the only place from which a key, a bundle or a signed head leaves the keeper.
#include "commit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "action.h"
#include "durable.h"
#include "head_pace.h"
#include "logfile.h"
#include "loss.h"

struct result {
    uint64_t id; // of the entry's request
    struct error error;
    struct keeper_entry_result body;
};

struct commit {
    struct vault *vault;
    char *audit_dir;
    struct pace pace;
    struct durable *durable;
    struct logfile *log; // NULL until it is opened, and after a refusal
    bool accepts_loss;   // the log is not the one that the token remembers
    struct loss loss;
    uint32_t count;     // entries taken
    uint32_t answered;  // of the last commit
    struct error fault; // the first that was wrong with an entry when it came; ERROR_OK
    struct keeper_entry entries[KEEPER_BATCH_MAX];
    struct result results[KEEPER_BATCH_MAX];
    char *lines; // room for KEEPER_BATCH_MAX lines with their newlines
    size_t lines_length;
    struct head_pace head_pace;
    struct checkpoint head;
    char head_note[NOTE_MAX];
};

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int commit_open(struct vault *vault, const struct keeper_options *options, struct commit **out,
                struct error *err)
{
    struct commit *commit = calloc(1, sizeof(*commit));
    if (commit == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    commit->vault = vault;
    commit->audit_dir = strdup(options->audit_dir);
    commit->lines = malloc((size_t)KEEPER_BATCH_MAX * (RECORD_LINE_MAX + 1));
    commit->loss.operators = options->operators;
    commit->loss.by_uid = options->approve_by_uid;
    pace_setup(&commit->pace, options->releases_per_second, now_us());
    head_pace_setup(&commit->head_pace, options->head_interval_ms);
    if (commit->audit_dir == NULL || commit->lines == NULL) {
        commit_close(commit);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    }
    if (durable_start(&commit->durable, err) != 0) {
        commit_close(commit);
        return -1;
    }
    *out = commit;
    return 0;
}

void commit_close(struct commit *commit)
{
    if (commit == NULL)
        return;
    commit_log_close(commit);
    durable_stop(commit->durable);
    free(commit->lines);
    free(commit->audit_dir);
    free(commit);
}

void commit_log_close(struct commit *commit)
{
    logfile_close(commit->log);
    commit->log = NULL;
    commit->accepts_loss = false;
    commit->count = 0;
    commit->answered = 0;
    commit->fault.code = ERROR_OK;
}

// The log's signed head against the one that the token remembers.
static int check_remembered(const struct head *head, const struct checkpoint *checkpoint,
                            const struct keeper_log_open *request, struct error *err)
{
    if (!head->present) {
        if (checkpoint->size == 0)
            return 0;
        return error_set(err, ERROR_DATA_LOSS,
                         "the log's head has %" PRIu64
                         " records, but the token remembers none: its custody-head is missing",
                         checkpoint->size);
    }
    const struct checkpoint *known = &head->checkpoint;
    if (checkpoint->size < known->size)
        return error_set(err, ERROR_DATA_LOSS,
                         "the token remembers %" PRIu64 " records, the log's head has %" PRIu64
                         ": the log was cut or restored from an older copy; bring the newer one "
                         "back",
                         known->size, checkpoint->size);
    if (checkpoint->size == known->size) {
        if (memcmp(&known->root, &checkpoint->root, sizeof(known->root)) == 0)
            return 0;
        return error_set(err, ERROR_DATA_LOSS,
                         "the token remembers another log of %" PRIu64 " records", known->size);
    }
    if (merkle_verify_consistency(known->size, checkpoint->size, &known->root, &checkpoint->root,
                                  request->proof, request->proof_length, err) != 0) {
        if (err != NULL)
            err->code = ERROR_DATA_LOSS;
        return error_prefix(err,
                            "the log's head of %" PRIu64 " records does not continue the %" PRIu64
                            " that the token remembers",
                            checkpoint->size, known->size);
    }
    return 0;
}

// Reads the signed head of the request; "" is the head of an empty log.
static int read_checkpoint(const struct commit *commit, const struct keeper_log_open *request,
                           struct checkpoint *checkpoint, struct error *err)
{
    memset(checkpoint, 0, sizeof(*checkpoint));
    if (request->accept_loss) {
        checkpoint->size = request->size;
        if (request->size == 0 || request->checkpoint[0] != '\0')
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "a loss is accepted of a log that has record 0, and without a "
                             "checkpoint");
    } else if (request->checkpoint[0] == '\0') {
        checkpoint->root = merkle_empty_root();
    } else if (checkpoint_open(checkpoint, request->checkpoint, strlen(request->checkpoint),
                               &commit->vault->log.verifier, err) != 0) {
        return error_prefix(err, "the log's signed head");
    }
    if (request->first > checkpoint->size ||
        request->edge_length != merkle_edge_length(request->first))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the segment of record %" PRIu64 " does not belong to a head of %" PRIu64
                         " records, or its edge has not %u "
                         "hashes",
                         request->first, checkpoint->size, merkle_edge_length(request->first));
    return 0;
}

// What the approvals of a loss have to be about.
static void note_loss(struct commit *commit, const struct merkle_edge *edge)
{
    const struct head *head = &commit->vault->head;
    commit->accepts_loss = true;
    commit->loss.remembered.size = head->present ? head->checkpoint.size : 0;
    commit->loss.remembered.root = head->present ? head->checkpoint.root : merkle_empty_root();
    commit->loss.found.size = edge->size;
    commit->loss.found.root = merkle_edge_root(edge);
}

int commit_log_open(struct commit *commit, const struct keeper_log_open *request,
                    struct keeper_log_opened *opened, struct error *err)
{
    commit_log_close(commit);
    if (!commit->vault->initialised)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the token is not initialised: run custodyctl token init");
    if (commit_head_write(commit, err) != 0)
        return -1;
    struct checkpoint checkpoint;
    if (read_checkpoint(commit, request, &checkpoint, err) != 0 ||
        (!request->accept_loss &&
         check_remembered(&commit->vault->head, &checkpoint, request, err) != 0))
        return -1;
    struct merkle_edge edge = {.size = request->first};
    memcpy(edge.hashes, request->edge, request->edge_length * sizeof(edge.hashes[0]));
    struct logfile *log = NULL;
    if (logfile_open(commit->audit_dir, &edge, checkpoint.size, &log, err) != 0)
        return -1;
    struct merkle_hash root = merkle_edge_root(logfile_edge(log));
    if (request->accept_loss) {
        note_loss(commit, logfile_edge(log));
    } else if (memcmp(&root, &checkpoint.root, sizeof(root)) != 0) {
        logfile_close(log);
        return error_set(err, ERROR_DATA_LOSS,
                         "the log's lines do not give the root that its head of %" PRIu64
                         " records signs: a line was changed; custody-audit verify names it",
                         checkpoint.size);
    }
    commit->log = log;
    opened->size = checkpoint.size;
    opened->offset = logfile_offset(log);
    return 0;
}

void commit_add(struct commit *commit, uint64_t id, const struct keeper_entry *entry)
{
    if (commit->fault.code != ERROR_OK)
        return;
    if (commit->log == NULL) {
        error_set(&commit->fault, ERROR_FAILED_PRECONDITION,
                  "the log has to be opened before records are committed");
    } else if (commit->count == KEEPER_BATCH_MAX) {
        error_set(&commit->fault, ERROR_RESOURCE_EXHAUSTED, "a commit takes %d records and no more",
                  KEEPER_BATCH_MAX);
    } else {
        commit->entries[commit->count] = *entry;
        commit->results[commit->count].id = id;
        commit->count++;
    }
}

// Encodes one record, compares it with the file and takes its leaf into the tree.
static int take_record(struct commit *commit, const struct keeper_entry *entry,
                       struct merkle_edge *edge, struct error *err)
{
    const struct record *record = &entry->record;
    if (record->seq != edge->size)
        return error_set(err, ERROR_FAILED_PRECONDITION, "the next record is %" PRIu64, edge->size);
    if (strcmp(record->host, commit->vault->host) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED, "it is of host '%s', this keeper's is '%s'",
                         record->host, commit->vault->host);
    char *line = commit->lines + commit->lines_length;
    size_t length = 0;
    if (record_encode(record, line, RECORD_LINE_MAX, &length, err) != 0)
        return -1;
    line[length] = '\n';
    if (logfile_compare(commit->log, commit->lines_length, line, length + 1, err) != 0 ||
        action_check(commit->vault, entry, err) != 0)
        return -1;
    struct merkle_hash leaf = merkle_leaf(line, length);
    merkle_edge_append(edge, &leaf);
    commit->lines_length += length + 1;
    return 0;
}

static int take_records(struct commit *commit, struct merkle_edge *edge, struct error *err)
{
    commit->lines_length = 0;
    for (uint32_t i = 0; i < commit->count; i++)
        if (take_record(commit, &commit->entries[i], edge, err) != 0)
            return error_prefix(err, "record %" PRIu64, commit->entries[i].record.seq);
    return logfile_check(commit->log, err);
}

static void perform(struct commit *commit, uint32_t index)
{
    struct result *result = &commit->results[index];
    result->error.code = ERROR_OK;
    result->error.message[0] = '\0';
    memset(&result->body, 0, sizeof(result->body));
    result->body.index = index;
    if (action_perform(commit->vault, &commit->pace, now_us(), &commit->entries[index],
                       &result->body, &result->error) != 0)
        memset(&result->body, 0, sizeof(result->body)); // half a result is none
}

// The entries before the first that changes the token: they need not wait for the disk.
static uint32_t early_count(const struct commit *commit)
{
    uint32_t early = 0;
    while (early < commit->count && !action_changes(commit->entries[early].action))
        early++;
    return early;
}

// After the disk: it must still be the file of that name, and hold what was compared before.
static int check_durable(struct commit *commit, struct error *err)
{
    if (durable_wait(commit->durable, KEEPER_DISK_TIMEOUT_S * 1000, err) != 0 ||
        logfile_check(commit->log, err) != 0)
        return -1;
    return logfile_compare(commit->log, 0, commit->lines, commit->lines_length, err);
}

static int sign_head(struct commit *commit, const struct merkle_edge *edge, struct error *err)
{
    struct checkpoint head = {.size = edge->size, .root = merkle_edge_root(edge)};
    snprintf(head.origin, sizeof(head.origin), "%s", commit->vault->log.verifier.name);
    char text[CHECKPOINT_TEXT_MAX], note[NOTE_MAX];
    size_t length = 0;
    checkpoint_format(&head, text);
    if (sign_note(&commit->vault->log, commit->vault->token, text, note, &length, err) != 0)
        return -1;
    head_pace_signed(&commit->head_pace, now_us());
    commit->head = head;
    memcpy(commit->head_note, note, length + 1);
    return 0;
}

static bool has_adoption(const struct commit *commit)
{
    for (uint32_t i = 0; i < commit->count; i++)
        if (action_precedes(commit->entries[i].action))
            return true;
    return false;
}

// Adoptions come before the signature: if the token fails at one, its record is not signed, and
// whoever opens the log again has it committed again, with its key.
static int adopt_keys(struct commit *commit, uint32_t early, struct error *err)
{
    for (uint32_t i = early; i < commit->count; i++) {
        const struct error *result = &commit->results[i].error;
        if (!action_precedes(commit->entries[i].action))
            continue;
        perform(commit, i);
        if (result->code == ERROR_UNAVAILABLE)
            return error_set(err, result->code, "record %" PRIu64 ": %.400s",
                             commit->entries[i].record.seq, result->message);
    }
    return 0;
}

// The rest is done in order; what cannot be taken back waits for the head to be in the token.
static int perform_late(struct commit *commit, uint32_t early, struct error *err)
{
    bool needs_head = false;
    for (uint32_t i = 0; i < commit->count; i++)
        needs_head = needs_head || action_needs_head(commit->entries[i].record.event);
    if (needs_head && commit_head_write(commit, err) != 0)
        return -1;
    for (uint32_t i = early; i < commit->count; i++)
        if (!action_precedes(commit->entries[i].action))
            perform(commit, i);
    return 0;
}

// A loss is accepted only where the log was opened for it, and there nothing else is done.
static int check_loss(const struct commit *commit, struct error *err)
{
    if (commit->accepts_loss)
        return loss_check(&commit->loss, commit->entries, commit->count, err);
    for (uint32_t i = 0; i < commit->count; i++)
        if (commit->entries[i].record.event == RECORD_LOG_LOSS_ACCEPTED)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "record %" PRIu64 " accepts a loss, but token and log agree",
                             commit->entries[i].record.seq);
    return 0;
}

static int run(struct commit *commit, uint32_t count, struct error *err)
{
    if (commit->fault.code != ERROR_OK) {
        *err = commit->fault;
        return -1;
    }
    if (commit->log == NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the log has to be opened before records are committed");
    if (count != commit->count || count == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "a commit of %u records came with %u",
                         (unsigned)count, (unsigned)commit->count);
    struct merkle_edge edge = *logfile_edge(commit->log);
    if (check_loss(commit, err) != 0 || take_records(commit, &edge, err) != 0 ||
        durable_begin(commit->durable, logfile_descriptor(commit->log), err) != 0)
        return -1;
    uint32_t early = early_count(commit);
    for (uint32_t i = 0; i < early; i++)
        perform(commit, i);
    // An adoption needs the session for itself.
    if (!has_adoption(commit))
        sign_prepare(&commit->vault->log, commit->vault->token);
    if (check_durable(commit, err) != 0) {
        sign_cancel(&commit->vault->log, commit->vault->token);
        return -1;
    }
    if (adopt_keys(commit, early, err) != 0 || sign_head(commit, &edge, err) != 0 ||
        perform_late(commit, early, err) != 0)
        return -1;
    logfile_advance(commit->log, &edge, commit->lines_length);
    commit->accepts_loss = false;
    return 0;
}

int commit_run(struct commit *commit, uint32_t count, struct keeper_committed *committed,
               struct error *err)
{
    struct error cause = {.code = ERROR_OK};
    if (run(commit, count, &cause) != 0) {
        // Nothing of it may be asked for later: neither results nor entries stay.
        memset(commit->results, 0, sizeof(commit->results));
        commit_log_close(commit);
        return error_set(err, cause.code, "commit refused: %.400s", cause.message);
    }
    commit->answered = commit->count;
    commit->count = 0;
    committed->size = commit->head.size;
    memcpy(committed->checkpoint, commit->head_note, sizeof(committed->checkpoint));
    return 0;
}

uint32_t commit_results(const struct commit *commit)
{
    return commit->answered;
}

bool commit_result(const struct commit *commit, uint32_t index, struct keeper_reply *reply)
{
    if (index >= commit->answered || commit->entries[index].action == KEEPER_ACTION_NONE)
        return false;
    const struct result *result = &commit->results[index];
    reply->header = (struct keeper_header){KEEPER_MAGIC, KEEPER_VERSION, KEEPER_ENTRY, result->id};
    reply->error = result->error;
    reply->body.result = result->body;
    return true;
}

int commit_head_due(const struct commit *commit)
{
    int64_t due_us = head_pace_due(&commit->head_pace, now_us());
    return due_us < 0 ? -1 : (int)((due_us + 999) / 1000);
}

int commit_head_write(struct commit *commit, struct error *err)
{
    if (!commit->head_pace.waits)
        return 0;
    if (head_store(commit->vault->token, &commit->head, commit->head_note, &commit->vault->head,
                   err) != 0)
        return error_prefix(err, "writing custody-head");
    head_pace_written(&commit->head_pace);
    return 0;
}
