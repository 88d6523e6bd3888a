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

struct loss {
    struct daemon *daemon;
    struct survey survey;
    struct record requested; // what is to be approved
    struct request request;  // the same, with who has approved
    struct record given[APPROVALS_MAX];
    struct record_actor actor; // who carries it out
    struct call *call;         // that waits for it to be done; NULL: none does
    unsigned waiting;          // records on their way; 0: nothing is under way
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

static int look(struct loss *loss, struct error *err)
{
    struct checkpoint head;
    const struct checkpoint *known = remembered(loss->daemon, &head);
    if (survey_log(loss->daemon->config->audit_dir, known, &loss->survey, err) != 0)
        return -1;
    make_request(loss, known);
    return 0;
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

void loss_enter(struct loss *loss, const struct error *why)
{
    struct error err;
    if (look(loss, &err) != 0) {
        daemon_set_phase(loss->daemon, DAEMON_SEALED, err.message);
        return;
    }
    daemon_set_phase(loss->daemon, DAEMON_SEALED,
                     loss->survey.what[0] != '\0' ? loss->survey.what : why->message);
    // The loss was accepted, and a crash came before the token remembered it: the records that
    // stand in the log bear the signatures.
    if (attempt_holds(loss))
        carry_on(loss);
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
    // What is opened next must find this head, not one from before.
    if (log_publish(daemon->log, &err) != 0)
        say(LOG_WARNING, "%s", err.message);
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
    struct record record;
    struct merkle_hash leaf;
    int more = 1;
    while (loss->waiting < BATCH &&
           (more = log_next_unsigned(loss->daemon->log, &record, &leaf, err)) == 1) {
        if (commit_resubmit(loss->daemon->commit, &record, KEEPER_ACTION_NONE, on_recorded, loss,
                            err) != 0)
            return -1;
        loss->waiting++;
    }
    if (more == 0)
        return error_set(err, ERROR_UNAVAILABLE, "the log changed while it was read");
    return more < 0 ? -1 : 0;
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
    bool again = state_size(daemon->state) > loss->survey.size;
    if ((again ? resubmit_all(loss, &err) : submit_all(loss, &err)) == 0)
        return;
    loss->waiting = 0;
    commit_close(daemon->commit, &err);
    end(loss, &err);
}

// Reads the log as it stands; what follows it is set aside, unless it is the whole of what was
// accepted before.
static int read_again(struct loss *loss, struct error *err)
{
    struct daemon *daemon = loss->daemon;
    struct checkpoint head = {.size = loss->survey.size, .root = loss->survey.root};
    for (int pass = 0;; pass++) {
        struct log_aside aside;
        struct record record;
        struct merkle_hash leaf;
        struct state *state = state_new();
        if (state == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
        state_free(daemon->state);
        daemon->state = state;
        if (log_read(daemon->log, &head, state, &aside, err) != 0)
            return -1;
        if (attempt_holds(loss) || state_size(state) == head.size)
            return 0;
        if (pass > 0 || log_next_unsigned(daemon->log, &record, &leaf, err) != 1 ||
            log_set_aside_from_last(daemon->log, &aside, err) != 0)
            return error_set(err, ERROR_UNAVAILABLE, "the log changed while it was read");
    }
}

static int ask_open(struct loss *loss, struct error *err)
{
    struct daemon *daemon = loss->daemon;
    struct keeper_log_open *open = &loss->keeper_request.body.log_open;
    struct merkle_edge edge;
    memset(&loss->keeper_request, 0, sizeof(loss->keeper_request));
    open->first = log_segment_first(daemon->log);
    open->accept_loss = 1;
    open->size = loss->survey.size;
    if (log_edge(daemon->log, open->first, &edge, err) != 0)
        return -1;
    open->edge_length = merkle_edge_length(open->first);
    memcpy(open->edge, edge.hashes, open->edge_length * sizeof(edge.hashes[0]));
    return keeper_link_ask(daemon->link, &loss->keeper_request, KEEPER_LOG_OPEN, on_opened, loss,
                           err);
}

static void carry_on(struct loss *loss)
{
    struct daemon *daemon = loss->daemon;
    struct error err;
    loss->waiting = 1; // under way
    opening_cancel(daemon->opening);
    if (log_find_folders(daemon->log, &err) == 0 && read_again(loss, &err) == 0 &&
        log_drop_checkpoint(daemon->log, &err) == 0 && ask_open(loss, &err) == 0)
        return;
    end(loss, &err);
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
    if (loss->waiting > 0) {
        error_set(&err, ERROR_ABORTED, "the loss is being accepted already");
        call_fail(call, &err);
        return;
    }
    if (look(loss, &err) != 0 || check_something_is_left(loss, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    if (loss->request.approval_count < APPROVALS_NEEDED) {
        requests_answer_needed(call, &loss->request);
        return;
    }
    loss->actor = call->actor;
    loss->call = call;
    carry_on(loss);
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
