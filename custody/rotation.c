// SPDX-License-Identifier: Apache-2.0
// What begins and what ends a rotation. Each step is a group of records of which all are in the log
// or, after a crash, the rest follows from those that are.
#include "rotation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generation.h"
#include "keys.h"
#include "policy.h"
#include "say.h"
#include "views.h"

#define SECOND_US INT64_C(1000000)

static const struct rotation *rotation_of(const struct daemon *daemon, const char *key)
{
    return rotations_find(state_rotations(daemon->state), key);
}

static bool is_open(const struct rotation *rotation)
{
    return rotation != NULL && rotation->generation != 0;
}

static bool is_suspended(const struct rotation *rotation)
{
    return rotation != NULL && rotation->suspended_us != 0;
}

// A record about a key that `from` names, by its actor and with its ticket.
static struct record about(enum record_event event, const struct record *from, uint64_t generation)
{
    struct record record = {.event = event, .generation = generation, .actor = from->actor};
    memcpy(record.key, from->key, sizeof(record.key));
    memcpy(record.ticket, from->ticket, sizeof(record.ticket));
    return record;
}

static struct record state_change(enum record_event event, const struct state_key *key)
{
    struct record record = {.event = event, .generation = key->generation};
    memcpy(record.key, key->name, sizeof(record.key));
    memcpy(record.public_key, key->public_key, sizeof(record.public_key));
    return record;
}

unsigned rotation_activate(const struct state *state, const struct state_key *key,
                           struct commit_entry entries[2])
{
    const struct state_key *active = state_key_active(state, key->name);
    unsigned count = 0;
    if (lifecycle_next(key->state, RECORD_KEY_ACTIVATED) < 0)
        return 0;
    if (active != NULL)
        entries[count++] =
            (struct commit_entry){.record = state_change(RECORD_KEY_DEACTIVATED, active)};
    entries[count++] = (struct commit_entry){.record = state_change(RECORD_KEY_ACTIVATED, key)};
    return count;
}

// The answer of a call whose last record this was.
static void on_done(void *context, const struct commit_result *result)
{
    struct call *call = context;
    if (result->recorded)
        views_answer(call);
    else
        call_fail(call, &result->error);
}

static void submit(struct call *call, const struct commit_entry *entries, unsigned count)
{
    struct error err;
    if (commit_submit_all(call->daemon->commit, entries, count, &err) != 0)
        call_fail(call, &err);
}

// ---- beginning ----

struct beginning {
    struct daemon *daemon;
    struct record started;
    rotation_begun_fn *done;
    void *context;
};

static void begun(struct beginning *beginning, const struct error *why)
{
    beginning->daemon->beginning--;
    beginning->done(beginning->context, why);
    free(beginning);
}

static void on_started(void *context, const struct commit_result *result)
{
    begun(context, result->recorded ? NULL : &result->error);
}

static void start(struct beginning *beginning, const struct state_key *key)
{
    struct error err;
    beginning->started.generation = key->generation;
    memcpy(beginning->started.public_key, key->public_key, sizeof(key->public_key));
    if (commit_submit(beginning->daemon->commit, &beginning->started, KEEPER_ACTION_NONE,
                      on_started, beginning, &err) != 0)
        begun(beginning, &err);
}

static void on_generated(void *context, const struct record *generated, const struct error *why)
{
    struct beginning *beginning = context;
    struct error err;
    const struct state_key *key =
        why == NULL
            ? state_key_find(beginning->daemon->state, generated->key, generated->generation)
            : NULL;
    if (key != NULL) {
        start(beginning, key);
        return;
    }
    error_set(&err, ERROR_INTERNAL, "the generation that was made is not known");
    begun(beginning, why != NULL ? why : &err);
}

static int check_begin(const struct daemon *daemon, const char *key, struct error *err)
{
    const struct rotation *rotation = rotation_of(daemon, key);
    char since[RECORD_TIME_SIZE];
    if (is_suspended(rotation)) {
        record_time_format(rotation->suspended_us, since);
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' is suspended by an operator since %s: custodyctl key resume %s",
                         key, since, key);
    }
    if (is_open(rotation))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a rotation of key '%s' to generation %" PRIu64
                         " is under way: custodyctl key history %s",
                         key, rotation->generation, key);
    if (state_key_highest(daemon->state, key) == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key '%s' has no generation yet: custodyctl key generate %s", key, key);
    return 0;
}

int rotation_begin(struct daemon *daemon, const struct record *wanted, rotation_begun_fn *done,
                   void *context, struct error *err)
{
    if (check_begin(daemon, wanted->key, err) != 0)
        return -1;
    struct beginning *beginning = calloc(1, sizeof(*beginning));
    if (beginning == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a rotation");
    *beginning =
        (struct beginning){.daemon = daemon, .started = *wanted, .done = done, .context = context};
    beginning->started.event = RECORD_ROTATION_STARTED;
    daemon->beginning++;
    const struct state_key *waiting = state_key_pre_active(daemon->state, wanted->key);
    if (waiting != NULL) {
        start(beginning, waiting);
        return 0;
    }
    if (generation_make(daemon, wanted, on_generated, beginning, err) == 0)
        return 0;
    daemon->beginning--;
    free(beginning);
    return -1;
}

static void on_begun(void *context, const struct error *why)
{
    struct call *call = context;
    if (why == NULL)
        views_answer(call);
    else
        call_fail(call, why);
}

void rotation_rotate(struct call *call, const Custody__V1__RotateKey *request)
{
    struct error err;
    call->record.reason = REASON_OPERATOR;
    if (call_take_key(call, request->key, &err) == NULL ||
        call_take_ticket(call, request->ticket, &err) != 0 ||
        call_copy_text(call->record.detail, sizeof(call->record.detail), request->reason, "reason",
                       &err) != 0 ||
        rotation_begin(call->daemon, &call->record, on_begun, call, &err) != 0)
        call_fail(call, &err);
}

// ---- ending ----

// Adds the records by which the open rotation is rolled back and its generation destroyed, unless
// that is `spared`. Returns how many they are: 0 where none is open.
static unsigned roll_back(struct daemon *daemon, const struct record *from, const char *detail,
                          uint64_t spared, struct commit_entry entries[2])
{
    const struct rotation *rotation = rotation_of(daemon, from->key);
    unsigned count = 0;
    if (!is_open(rotation))
        return 0;
    const struct state_key *key = state_key_find(daemon->state, from->key, rotation->generation);
    entries[count] = (struct commit_entry){
        .record = about(RECORD_ROTATION_ROLLED_BACK, from, rotation->generation)};
    snprintf(entries[count].record.detail, sizeof(entries[count].record.detail), "%s", detail);
    count++;
    if (key != NULL && key->state == KEY_PRE_ACTIVE && key->generation != spared)
        entries[count++] = keys_destroying(daemon, key, "its rotation was rolled back");
    return count;
}

// Whether that is how the rotation to this generation has ended already.
static bool has_ended(const struct daemon *daemon, const struct rotation *rotation,
                      const struct state_key *key, uint64_t generation, bool confirmed)
{
    if (rotation == NULL || rotation->ended_us == 0 || rotation->generation == generation)
        return false;
    if (confirmed)
        return rotation->confirmed == generation;
    return generation <= state_key_highest(daemon->state, rotation->key) &&
           rotation->confirmed != generation &&
           (key == NULL || key->state == KEY_DESTROYED || key->state == KEY_DESTROYING ||
            key->state == KEY_ACTIVE ||
            (key->state == KEY_PRE_ACTIVE && key->generated_us <= rotation->ended_us));
}

// What is still to be done for a rotation that has ended; 0 where that is nothing.
static unsigned unfinished(struct daemon *daemon, const struct state_key *key, bool confirmed,
                           struct commit_entry entries[2])
{
    if (key == NULL || key->state != KEY_PRE_ACTIVE)
        return 0;
    if (confirmed)
        return rotation_activate(daemon->state, key, entries);
    entries[0] = keys_destroying(daemon, key, "its rotation was rolled back");
    return 1;
}

static int check_open(const struct rotation *rotation, const struct record *record,
                      struct error *err)
{
    if (is_open(rotation) && rotation->generation == record->generation)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "no rotation of key '%s' to generation %" PRIu64 " is under way", record->key,
                     record->generation);
}

static void confirm(struct call *call, const struct state_key *key)
{
    struct commit_entry entries[3] = {{.record = call->record}};
    unsigned count = 1;
    if (key != NULL)
        count += rotation_activate(call->daemon->state, key, &entries[1]);
    entries[count - 1].done = on_done;
    entries[count - 1].context = call;
    submit(call, entries, count);
}

// A replacement that is active already stays: there is none to go back to.
static void give_up(struct call *call, const struct state_key *key)
{
    struct commit_entry entries[2] = {{.record = call->record, .done = on_done, .context = call}};
    unsigned count = 1;
    if (key != NULL && key->state == KEY_PRE_ACTIVE)
        entries[count++] = keys_destroying(call->daemon, key, "its rotation was rolled back");
    submit(call, entries, count);
}

static void end_again(struct call *call, const struct state_key *key, bool confirmed)
{
    struct commit_entry entries[2];
    unsigned count = unfinished(call->daemon, key, confirmed, entries);
    struct error err;
    if (count > 0 && commit_submit_all(call->daemon->commit, entries, count, &err) != 0)
        call_fail(call, &err);
    else
        views_answer(call);
}

void rotation_end(struct call *call, const Custody__V1__EndRotation *request)
{
    struct daemon *daemon = call->daemon;
    struct record *record = &call->record;
    struct error err;
    const struct config_key *config = call_take_key(call, request->key, &err);
    if (config == NULL || call_check_rotates(call, config, 0, &err) != 0) {
        call_refuse(call, &err);
        return;
    }
    record->event = request->confirmed ? RECORD_ROTATION_CONFIRMED : RECORD_ROTATION_ROLLED_BACK;
    record->generation = request->generation;
    const struct rotation *rotation = rotation_of(daemon, record->key);
    const struct state_key *key = state_key_find(daemon->state, record->key, request->generation);
    if (call_copy_text(record->method, sizeof(record->method), request->method, "method", &err) !=
            0 ||
        call_copy_text(record->detail, sizeof(record->detail), request->detail, "detail", &err) !=
            0)
        call_fail(call, &err);
    else if (has_ended(daemon, rotation, key, request->generation, request->confirmed))
        end_again(call, key, request->confirmed);
    else if (check_open(rotation, record, &err) != 0)
        call_fail(call, &err);
    else if (request->confirmed)
        confirm(call, key);
    else
        give_up(call, key);
}

// ---- an operator's hold ----

// The interface may have the new key by now, and a hold would keep the old one from it: such a
// rotation is let end by itself, as long as it may take.
static int check_may_hold(const struct daemon *daemon, const struct config_key *config,
                          const struct rotation *rotation, struct error *err)
{
    if (is_suspended(rotation))
        return error_set(err, ERROR_FAILED_PRECONDITION, "key '%s' is suspended already",
                         config->name);
    if (!is_open(rotation))
        return 0;
    const struct state_key *key = state_key_find(daemon->state, config->name, rotation->generation);
    if (key == NULL || key->releases == 0 ||
        commit_now_us() > key->released_us + config->window_s * SECOND_US)
        return 0;
    return error_set(err, ERROR_ABORTED,
                     "the rotation of key '%s' to generation %" PRIu64 " has released its key and "
                     "ends within %" PRIu32 " s: try again then",
                     config->name, rotation->generation, config->window_s);
}

void rotation_suspend(struct call *call, const Custody__V1__SuspendKey *request)
{
    struct daemon *daemon = call->daemon;
    struct commit_entry entries[3];
    struct error err;
    const struct config_key *config = call_take_key(call, request->key, &err);
    if (config == NULL || call_take_ticket(call, request->ticket, &err) != 0 ||
        check_may_hold(daemon, config, rotation_of(daemon, request->key), &err) != 0) {
        call_fail(call, &err);
        return;
    }
    unsigned count = roll_back(daemon, &call->record, "suspended by an operator", 0, entries);
    // The hold comes before the destruction, whose end it does not depend on.
    if (count == 2)
        entries[2] = entries[1];
    entries[count > 0 ? 1 : 0] = (struct commit_entry){
        .record = about(RECORD_KEY_SUSPENDED, &call->record, 0), .done = on_done, .context = call};
    submit(call, entries, count + 1);
}

void rotation_resume(struct call *call, const Custody__V1__ResumeKey *request)
{
    struct error err;
    if (call_take_key(call, request->key, &err) == NULL ||
        call_take_ticket(call, request->ticket, &err) != 0) {
        call_fail(call, &err);
        return;
    }
    if (!is_suspended(rotation_of(call->daemon, request->key))) {
        error_set(&err, ERROR_FAILED_PRECONDITION, "key '%s' is not suspended", request->key);
        call_fail(call, &err);
        return;
    }
    const struct commit_entry entry = {
        .record = about(RECORD_KEY_RESUMED, &call->record, 0), .done = on_done, .context = call};
    submit(call, &entry, 1);
}

// ---- revoking ----

bool rotation_lacks_replacement(const struct state *state, const char *key)
{
    const struct rotation *rotation = rotations_find(state_rotations(state), key);
    const struct state_key *waiting = state_key_pre_active(state, key);
    uint64_t before = waiting != NULL ? waiting->generation : state_key_highest(state, key) + 1;
    if (is_open(rotation) || is_suspended(rotation) || state_key_active(state, key) != NULL)
        return false;
    while (before > 1) {
        const struct state_key *revoked = state_key_find(state, key, --before);
        if (revoked != NULL && revoked->state != KEY_DESTROYED && revoked->state != KEY_DESTROYING)
            return revoked->state == KEY_COMPROMISED;
    }
    return false;
}

static void on_replaced(void *context, const struct error *why)
{
    struct call *call = context;
    struct error err;
    if (why == NULL) {
        views_answer(call);
        return;
    }
    error_set(&err, why->code,
              "the generation is revoked, but there is no replacement yet, which is tried again: "
              "%.300s",
              why->message);
    call_fail(call, &err);
}

// A key that has no active generation any more gets a replacement, to which it is rotated.
static void on_revoked(void *context, const struct commit_result *result)
{
    struct call *call = context;
    struct error err;
    if (!result->recorded) {
        call_fail(call, &result->error);
        return;
    }
    call->record.reason = REASON_OPERATOR;
    if (!rotation_lacks_replacement(call->daemon->state, call->record.key))
        views_answer(call);
    else if (rotation_begin(call->daemon, &call->record, on_replaced, call, &err) != 0)
        on_replaced(call, &err);
}

void rotation_revoke(struct call *call, const Custody__V1__RevokeKey *request)
{
    struct daemon *daemon = call->daemon;
    struct commit_entry entries[3];
    struct error err;
    if (call_take_key(call, request->key, &err) == NULL ||
        call_take_ticket(call, request->ticket, &err) != 0)
        goto fail;
    const struct state_key *key =
        request->generation == 0 ? state_key_active(daemon->state, request->key)
                                 : state_key_find(daemon->state, request->key, request->generation);
    if (key == NULL) {
        error_set(&err, ERROR_NOT_FOUND, "key '%s' has no %s generation", request->key,
                  request->generation == 0 ? "active" : "such");
        goto fail;
    }
    if (lifecycle_next(key->state, RECORD_KEY_REVOKED) < 0) {
        error_set(&err, ERROR_FAILED_PRECONDITION,
                  "generation %" PRIu64 " of key '%s' is %s: it cannot be revoked", key->generation,
                  key->name, lifecycle_state_name(key->state));
        goto fail;
    }
    unsigned count =
        roll_back(daemon, &call->record, "a generation was revoked", key->generation, entries);
    entries[count] =
        (struct commit_entry){.record = about(RECORD_KEY_REVOKED, &call->record, key->generation),
                              .done = on_revoked,
                              .context = call};
    memcpy(entries[count].record.public_key, key->public_key, sizeof(key->public_key));
    submit(call, entries, count + 1);
    return;
fail:
    call_fail(call, &err);
}

// ---- after a crash ----

static void finish(struct daemon *daemon, const struct rotation *rotation)
{
    const struct state_key *key = state_key_pre_active(daemon->state, rotation->key);
    struct commit_entry entries[2];
    struct error err;
    if (key == NULL || is_open(rotation) || rotation->ended_us == 0)
        return;
    bool confirmed = rotation->confirmed == key->generation;
    // A generation that was made since is for the next rotation.
    if (!confirmed && (rotation->failures == 0 || key->generated_us >= rotation->ended_us))
        return;
    unsigned count = unfinished(daemon, key, confirmed, entries);
    if (count > 0 && commit_submit_all(daemon->commit, entries, count, &err) != 0)
        say(LOG_WARNING, "the rotation of key '%s' could not be finished: %s", rotation->key,
            err.message);
}

void rotation_finish(struct daemon *daemon)
{
    const struct rotations *rotations = state_rotations(daemon->state);
    for (size_t i = 0; i < rotations->count; i++)
        finish(daemon, &rotations->items[i]);
}
