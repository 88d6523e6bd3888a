// SPDX-License-Identifier: Apache-2.0
// What the token and the log disagree about, the approvals of going on nevertheless (kept in
// memory, since nothing can be recorded yet), and going on.
#include "loss.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "requests.h"
#include "say.h"
#include "survey.h"

#define BATCH SURVEY_ATTEMPT

// Work on the log's files in the disk's thread: a survey, or making ready to go on.
struct work {
    struct loss *loss;
    struct log *log;
    char *dir;
    bool has_head;
    struct checkpoint head; // that the token remembers
    bool complete;          // the accepted records stand in the log already
    bool failed;
    struct error error;
    struct survey survey;
    struct log_view view;
    size_t count; // of the records that follow what is left
    struct record records[BATCH];
};

struct loss {
    struct daemon *daemon;
    const struct work *work; // that is waited for; another one comes too late
    struct survey survey;
    char hint[ERROR_MESSAGE_MAX]; // how to bring back what is missing; "" = not known
    struct record requested;      // what is to be approved
    struct request request;       // the same, with who has approved
    struct record given[APPROVALS_MAX];
    struct record_actor actor; // who carries it out
    struct call *call;         // that waits for it to be done; NULL: none does
    unsigned waiting;          // records on their way; 0: nothing is under way
    bool stands;               // the accepted records stand in the log already: these
    struct record again[BATCH];
    struct keeper_request keeper_request;
};

// ---- what is lost ----

// The head that the token remembers; NULL where it has none, or one that cannot be read.
static const struct checkpoint *remembered(const struct daemon *daemon, struct checkpoint *head)
{
    struct note_key key;
    const char *note = daemon->keeper.head;
    if (!daemon->keeper.has_head || note_key_parse(&key, daemon->keeper.log_vkey, NULL) != 0 ||
        checkpoint_open(head, note, strlen(note), &key, NULL) != 0)
        return NULL;
    return head;
}

// Makes the request that follows from the two heads. What was approved before stays when it is the
// same.
static void make_request(struct loss *loss, const struct checkpoint *head)
{
    struct record *requested = &loss->requested;
    struct merkle_hash old_root = head != NULL ? head->root : merkle_empty_root();
    char before[RECORD_REQUEST_MAX + 1];
    memcpy(before, loss->request.id, sizeof(before));
    memset(requested, 0, sizeof(*requested));
    requested->event = RECORD_APPROVAL_REQUESTED;
    requested->operation = OPERATION_ACCEPT_LOSS;
    snprintf(requested->host, sizeof(requested->host), "%s", loss->daemon->config->host);
    requested->old_size = head != NULL ? head->size : 0;
    memcpy(requested->old_root, old_root.bytes, sizeof(requested->old_root));
    requested->new_size = loss->survey.size;
    memcpy(requested->new_root, loss->survey.root.bytes, sizeof(requested->new_root));
    if (approval_loss_id(requested, requested->request_id) != 0)
        return; // its operation has a text
    if (strcmp(before, requested->request_id) == 0)
        return;
    memset(&loss->request, 0, sizeof(loss->request));
    memcpy(loss->request.id, requested->request_id, sizeof(loss->request.id));
    loss->request.operation = requested->operation;
    loss->request.old_size = requested->old_size;
    loss->request.new_size = requested->new_size;
    memcpy(loss->request.old_root, requested->old_root, sizeof(requested->old_root));
    memcpy(loss->request.new_root, requested->new_root, sizeof(requested->new_root));
}

static struct work *work_new(struct loss *loss, struct error *err)
{
    struct checkpoint head;
    const struct checkpoint *known = remembered(loss->daemon, &head);
    struct work *work = calloc(1, sizeof(*work));
    if (work == NULL || (work->dir = strdup(loss->daemon->config->audit_dir)) == NULL) {
        free(work);
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to look at the log");
        return NULL;
    }
    work->loss = loss;
    work->log = loss->daemon->log;
    work->has_head = known != NULL;
    if (known != NULL)
        work->head = *known;
    return work;
}

static void work_free(struct work *work)
{
    log_view_clear(&work->view);
    free(work->dir);
    free(work);
}

static int work_start(struct loss *loss, struct work *work, disk_fn *in_thread, disk_fn *done,
                      struct error *err)
{
    loss->work = work;
    if (disk_do(loss->daemon->disk, "looking at the log", in_thread, done, work, err) == 0)
        return 0;
    loss->work = NULL;
    work_free(work);
    return -1;
}

static void survey_in_thread(void *context)
{
    struct work *work = context;
    work->failed = survey_log(work->dir, work->has_head ? &work->head : NULL, &work->survey,
                              &work->error) != 0;
}

static int look(struct loss *loss, disk_fn *done, struct error *err)
{
    struct work *work = work_new(loss, err);
    return work != NULL ? work_start(loss, work, survey_in_thread, done, err) : -1;
}

static void take_survey(struct loss *loss, const struct work *work)
{
    loss->survey = work->survey;
    make_request(loss, work->has_head ? &work->head : NULL);
}

// Whether the records of an attempt that stand in the log, which nobody signed yet, are operators'
// own: anybody who can write the file may have made them. (A uid alone proves nothing of that.)
static bool attempt_holds(const struct loss *loss)
{
    const struct survey *survey = &loss->survey;
    const struct record *one = &survey->attempted[1], *other = &survey->attempted[2];
    const struct config *config = loss->daemon->config;
    struct error err;
    return survey->attempt == BATCH &&
           strcmp(survey->attempted[0].request_id, loss->request.id) == 0 &&
           strcmp(one->operator_name, other->operator_name) != 0 &&
           requests_check_signed(config, &loss->requested, one, &err) == 0 &&
           requests_check_signed(config, &loss->requested, other, &err) == 0;
}

static void carry_on(struct loss *loss);

static void say_sealed(const struct loss *loss)
{
    char message[ERROR_MESSAGE_MAX];
    snprintf(message, sizeof(message), "%.300s%.200s", loss->survey.what, loss->hint);
    daemon_set_phase(loss->daemon, DAEMON_SEALED, message);
}

static void on_surveyed(void *context)
{
    struct work *work = context;
    struct loss *loss = work->loss;
    struct daemon *daemon = loss->daemon;
    bool late = loss->work != work || daemon->phase != DAEMON_SEALED;
    if (loss->work == work)
        loss->work = NULL;
    if (!late && work->failed) {
        daemon_set_phase(daemon, DAEMON_SEALED, work->error.message);
    } else if (!late) {
        take_survey(loss, work);
        if (loss->survey.what[0] != '\0')
            say_sealed(loss);
        // The loss was accepted, and a crash came before the token remembered it: the records that
        // stand in the log bear the signatures.
        if (attempt_holds(loss))
            carry_on(loss);
    }
    work_free(work);
}

void loss_enter(struct loss *loss, const struct error *why)
{
    struct error err;
    // Only who has the file open knows that, and a survey has not.
    const char *hint = strstr(why->message, LOG_FILES_STILL_OPEN);
    snprintf(loss->hint, sizeof(loss->hint), "%s", hint != NULL ? hint : "");
    // While it stays sealed, what was found before is the better message until the next look ends.
    if (loss->daemon->phase != DAEMON_SEALED)
        daemon_set_phase(loss->daemon, DAEMON_SEALED, why->message);
    if (loss->waiting > 0 || loss->call != NULL)
        return;
    if (look(loss, on_surveyed, &err) != 0)
        say(LOG_WARNING, "%s", err.message);
}

void loss_look_again(struct loss *loss)
{
    if (loss->waiting == 0)
        opening_begin(loss->daemon->opening);
}

// ---- requests ----

static int check_something_is_left(const struct loss *loss, struct error *err)
{
    if (loss->survey.size > 0)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "no record is left that a log could go on from: put a copy of it back");
}

void loss_list(struct call *call, const char *id)
{
    const struct loss *loss = call->daemon->loss;
    struct error err;
    if (id[0] == '\0' || strcmp(id, loss->request.id) == 0) {
        requests_answer_one(call, &loss->request);
        return;
    }
    error_set(&err, ERROR_NOT_FOUND,
              "request '%.40s' cannot be looked at while the daemon is sealed", id);
    call_fail(call, &err);
}

static int check_different(const struct loss *loss, const struct record *given, struct error *err)
{
    for (size_t i = 0; i < loss->request.approval_count; i++) {
        const struct record *other = &loss->given[i];
        bool same_kind = (other->signature[0] == '\0') == (given->signature[0] == '\0');
        if (strcmp(other->operator_name, given->operator_name) == 0 ||
            (same_kind && given->signature[0] == '\0' && other->actor.uid == given->actor.uid))
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "operator %s has approved request %s already: it takes %d different "
                             "ones",
                             given->operator_name, loss->request.id, APPROVALS_NEEDED);
    }
    if (loss->request.approval_count == APPROVALS_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "request %s has %d approvals already",
                         loss->request.id, APPROVALS_MAX);
    return 0;
}

void loss_approve(struct call *call, const Custody__V1__Approve *approve)
{
    struct loss *loss = call->daemon->loss;
    struct record given;
    struct error err;
    if (strcmp(approve->id, loss->request.id) != 0) {
        error_set(&err, ERROR_NOT_FOUND,
                  "request '%.40s' is not open: while the daemon is sealed only %s is, and the log "
                  "or the token may have changed since",
                  approve->id, loss->request.id);
        call_fail(call, &err);
        return;
    }
    if (requests_identify(call->daemon->config, &loss->requested, &call->actor, approve->signature,
                          &given, &err) != 0) {
        call_deny(call, &err);
        return;
    }
    if (check_different(loss, &given, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    struct request_approval *approval = &loss->request.approvals[loss->request.approval_count];
    memcpy(approval->operator_name, given.operator_name, sizeof(approval->operator_name));
    approval->uid = given.actor.uid;
    loss->given[loss->request.approval_count++] = given;
    say(LOG_NOTICE, "operator %s approves request %s", given.operator_name, loss->request.id);
    requests_answer_approved(call, &loss->request, given.operator_name);
}

// ---- going on ----

// Ends what was under way. The log is opened again: in order, or sealed as before.
static void end(struct loss *loss, const struct error *why)
{
    struct daemon *daemon = loss->daemon;
    struct call *call = loss->call;
    loss->call = NULL;
    loss->waiting = 0;
    if (why == NULL) {
        say(LOG_WARNING,
            "a loss was accepted: the token remembered %" PRIu64
            " records, the log goes on after %" PRIu64,
            loss->requested.old_size, loss->requested.new_size);
        memset(&loss->request, 0, sizeof(loss->request));
    } else {
        say(LOG_ERR, "the loss could not be accepted: %s", why->message);
    }
    if (call != NULL && why != NULL)
        call_fail(call, why);
    if (call != NULL && why == NULL) {
        Custody__V1__LossAccepted accepted = CUSTODY__V1__LOSS_ACCEPTED__INIT;
        Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
        accepted.old_size = loss->requested.old_size;
        accepted.new_size = loss->requested.new_size;
        response.body_case = CUSTODY__V1__RESPONSE__BODY_LOSS_ACCEPTED;
        response.loss_accepted = &accepted;
        call_answer(call, &response);
    }
    if (why == NULL)
        opening_begin(daemon->opening);
    else
        opening_retry(daemon->opening);
}

static void on_recorded(void *context, const struct commit_result *result)
{
    struct loss *loss = context;
    struct daemon *daemon = loss->daemon;
    struct error err = result->error;
    if (loss->waiting == 0)
        return; // told already
    if (!result->recorded) {
        commit_close(daemon->commit, &err);
        end(loss, &err);
        return;
    }
    if (--loss->waiting > 0)
        return;
    // What is opened next finds this head, not one from before: the disk's jobs are done in order.
    log_publish(daemon->log);
    end(loss, NULL);
}

static void fill_batch(const struct loss *loss, struct record batch[BATCH])
{
    batch[0] = loss->requested;
    batch[0].actor = loss->actor;
    for (unsigned i = 0; i < APPROVALS_NEEDED; i++)
        batch[1 + i] = loss->given[i];
    struct record *accepted = &batch[BATCH - 1];
    *accepted = loss->requested;
    accepted->event = RECORD_LOG_LOSS_ACCEPTED;
    accepted->operation = OPERATION_NONE;
    accepted->actor = loss->actor;
}

static int submit_all(struct loss *loss, struct error *err)
{
    struct commit *commit = loss->daemon->commit;
    struct record batch[BATCH];
    fill_batch(loss, batch);
    for (unsigned i = 0; i < BATCH; i++) {
        if (commit_submit(commit, &batch[i], KEEPER_ACTION_NONE, on_recorded, loss, err) != 0)
            return -1;
        loss->waiting++;
    }
    return 0;
}

static int resubmit_all(struct loss *loss, struct error *err)
{
    for (unsigned i = 0; i < BATCH; i++) {
        if (commit_resubmit(loss->daemon->commit, &loss->again[i], KEEPER_ACTION_NONE, on_recorded,
                            loss, err) != 0)
            return -1;
        loss->waiting++;
    }
    return 0;
}

static void on_opened(void *context, const struct keeper_reply *reply)
{
    struct loss *loss = context;
    struct daemon *daemon = loss->daemon;
    struct error err;
    if (reply == NULL || reply->error.code != ERROR_OK) {
        error_set(&err, ERROR_UNAVAILABLE, "the keeper was lost while it opened the log");
        end(loss, reply != NULL ? &reply->error : &err);
        return;
    }
    // Each of them is counted once it is on its way.
    loss->waiting = 0;
    commit_open(daemon->commit, daemon->state);
    if ((loss->stands ? resubmit_all(loss, &err) : submit_all(loss, &err)) == 0)
        return;
    loss->waiting = 0;
    commit_close(daemon->commit, &err);
    end(loss, &err);
}

// Reads the log as it stands; what follows it is set aside, unless it is the whole of what was
// accepted before. In the disk's thread.
static int read_again(struct work *work, struct error *err)
{
    struct checkpoint head = {.size = work->survey.size, .root = work->survey.root};
    struct log_files *files = log_files(work->log);
    struct log_aside aside;
    if (log_files_open(files, err) != 0 || log_read(work->log, &head, 0, &work->view, err) != 0)
        return -1;
    if (work->complete)
        return log_files_next_unsigned(files, work->records, BATCH, &work->count, err);
    if (state_size(work->view.state) == head.size)
        return 0;
    log_view_clear(&work->view);
    if (log_files_cut(files, head.size, &aside, err) != 0 ||
        log_read(work->log, &head, 0, &work->view, err) != 0)
        return -1;
    if (state_size(work->view.state) == head.size)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "the log changed while it was read");
}

static void prepare_in_thread(void *context)
{
    struct work *work = context;
    struct error *err = &work->error;
    work->failed =
        read_again(work, err) != 0 || log_files_drop_checkpoint(log_files(work->log), err) != 0;
    if (!work->failed && work->complete && work->count != BATCH)
        work->failed = error_set(err, ERROR_UNAVAILABLE, "the log changed while it was read") != 0;
}

static int ask_open(struct loss *loss, const struct log_view *view, struct error *err)
{
    struct keeper_log_open *open = &loss->keeper_request.body.log_open;
    memset(&loss->keeper_request, 0, sizeof(loss->keeper_request));
    open->first = view->edge.size;
    open->accept_loss = 1;
    open->size = loss->survey.size;
    open->edge_length = merkle_edge_length(view->edge.size);
    memcpy(open->edge, view->edge.hashes, open->edge_length * sizeof(view->edge.hashes[0]));
    return keeper_link_ask(loss->daemon->link, &loss->keeper_request, KEEPER_LOG_OPEN, on_opened,
                           loss, err);
}

static int go_on_from(struct loss *loss, struct work *work, struct error *err)
{
    struct daemon *daemon = loss->daemon;
    state_free(daemon->state);
    daemon->state = work->view.state;
    work->view.state = NULL;
    log_take(daemon->log, &work->view);
    loss->stands = work->complete;
    memcpy(loss->again, work->records, sizeof(loss->again));
    return ask_open(loss, &work->view, err);
}

static void on_prepared(void *context)
{
    struct work *work = context;
    struct loss *loss = work->loss;
    if (loss->work == work) {
        loss->work = NULL;
        if (work->failed || go_on_from(loss, work, &work->error) != 0)
            end(loss, &work->error);
    }
    work_free(work);
}

static void carry_on(struct loss *loss)
{
    struct error err;
    loss->waiting = 1; // under way
    opening_cancel(loss->daemon->opening);
    struct work *work = work_new(loss, &err);
    if (work != NULL) {
        work->survey = loss->survey;
        work->complete = attempt_holds(loss);
        if (work_start(loss, work, prepare_in_thread, on_prepared, &err) == 0)
            return;
    }
    end(loss, &err);
}

// The log was looked at for an operator who wants to go on from it.
static void on_surveyed_to_accept(void *context)
{
    struct work *work = context;
    struct loss *loss = work->loss;
    struct call *call = loss->call;
    struct error err = work->error;
    bool late = loss->work != work;
    if (!late)
        loss->work = NULL;
    if (late || loss->daemon->phase != DAEMON_SEALED)
        error_set(&err, ERROR_ABORTED, "the log is looked at anew: ask again");
    else if (!work->failed)
        take_survey(loss, work);
    if (call == NULL)
        goto cleanup;
    if (late || work->failed || loss->daemon->phase != DAEMON_SEALED ||
        check_something_is_left(loss, &err) != 0) {
        loss->call = NULL;
        call_fail(call, &err);
    } else if (loss->request.approval_count < APPROVALS_NEEDED) {
        loss->call = NULL;
        requests_answer_needed(call, &loss->request);
    } else {
        loss->actor = call->actor;
        carry_on(loss);
    }
cleanup:
    work_free(work);
}

void loss_accept(struct call *call)
{
    struct loss *loss = call->daemon->loss;
    struct error err;
    if (call->daemon->phase != DAEMON_SEALED) {
        error_set(&err, ERROR_FAILED_PRECONDITION,
                  "token and log agree: there is no loss to accept");
        call_fail(call, &err);
        return;
    }
    if (loss->waiting > 0 || loss->call != NULL) {
        error_set(&err, ERROR_ABORTED, "the loss is being accepted already");
        call_fail(call, &err);
        return;
    }
    loss->call = call;
    if (look(loss, on_surveyed_to_accept, &err) == 0)
        return;
    loss->call = NULL;
    call_fail(call, &err);
}

// ---- life ----

struct loss *loss_new(struct daemon *daemon, struct error *err)
{
    struct loss *loss = calloc(1, sizeof(*loss));
    if (loss == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the sealed phase");
    else
        loss->daemon = daemon;
    return loss;
}

void loss_free(struct loss *loss)
{
    free(loss);
}
