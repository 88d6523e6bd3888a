// SPDX-License-Identifier: Apache-2.0
// Checks of one record after the other.
#include "record_checks.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "approval.h"
#include "key_chain.h"
#include "record.h"
#include "snapshot_file.h"

// How far the last record may be past a lease's end before its record of expiry is missed.
#define LEASE_SLACK_US (INT64_C(60) * 1000000)
// Outcomes of which it is remembered which lease they closed, to tell a second from a stray one.
#define CLOSED_MAX 1024
// Losses that a log may have accepted; more are not compared with the tree.
#define LOSSES_MAX 64
// A loss is four records: requested, approved twice, accepted.
#define LOSS_RECORDS 4

struct closed_lease {
    char lease[RECORD_LEASE_MAX + 1];
    uint64_t index;
};

// A root that the operators were shown.
struct loss {
    struct log_root root;
    struct log_place place;
    uint64_t index;
};

struct record_checks {
    struct record_checks_options options;
    struct state *state;
    bool state_holds; // every record so far could be applied

    // Where the next record should stand. `expected` believes the records' own numbers, `place`
    // counts lines since numbers last agreed: after a gap the first is right, after a damaged
    // number the second.
    uint64_t expected;
    uint64_t place_expected;
    int64_t time_us;
    uint64_t lines;
    struct log_place last; // the last line read

    uint32_t last_event;  // of the line before; RECORD_NONE when it is no record
    struct record sealed; // the last log.sealed
    struct record record; // the one being checked
    size_t record_used;   // of it, for record_parse_next

    struct closed_lease closed[CLOSED_MAX];
    size_t closed_count;
    struct loss losses[LOSSES_MAX];
    size_t loss_count;
    bool accepted;
    uint64_t accepted_index, accepted_old, accepted_new;
};

struct record_checks *record_checks_new(const struct record_checks_options *options)
{
    struct record_checks *checks = calloc(1, sizeof(*checks));
    struct state *state = state_new();
    if (checks == NULL || state == NULL) {
        free(checks);
        state_free(state);
        return NULL;
    }
    checks->options = *options;
    checks->state = state;
    checks->state_holds = true;
    return checks;
}

void record_checks_free(struct record_checks *checks)
{
    if (checks == NULL)
        return;
    state_free(checks->state);
    free(checks);
}

void record_checks_begin(struct record_checks *checks, struct state *state)
{
    state_free(checks->state);
    checks->state = state;
    checks->expected = checks->place_expected = checks->lines = state_size(state);
    checks->time_us = state_time_us(state);
    checks->last_event = RECORD_LOG_SEALED;
    checks->sealed.seq = state_size(state) - 1;
}

// ---- the state ----

// What has to be said only once, because no record after it can be checked against those before.
static void stop_state(struct record_checks *checks, const struct log_place *place)
{
    if (!checks->state_holds)
        return;
    checks->state_holds = false;
    report_note(checks->options.report,
                "after log/%s:%" PRIu64
                " keys, leases and log keys are not followed until the next snapshot that "
                "log.sealed vouches for: what led to them is not certain",
                place->segment, place->line);
}

// Takes the state up again at a segment's beginning.
static void resume_state(struct record_checks *checks, const struct log_item *item)
{
    struct error ignored;
    if (checks->state_holds || checks->last_event != RECORD_LOG_SEALED ||
        checks->sealed.seq + 1 != item->first)
        return;
    struct state *state =
        snapshot_file_state(log_reader_dirfd(checks->options.reader), &checks->sealed, &ignored);
    if (state == NULL)
        return;
    state_free(checks->state);
    checks->state = state;
    checks->state_holds = true;
    report_note(checks->options.report,
                "from log/%s on keys, leases and log keys are followed again, from the snapshot "
                "that its log.sealed vouches for",
                item->place.segment);
}

// A second outcome is another matter than one without a release.
static void explain_outcome(struct record_checks *checks, const struct record *record,
                            struct error *err)
{
    if (record->event != RECORD_RELEASE_APPLIED && record->event != RECORD_RELEASE_FAILED &&
        record->event != RECORD_LEASE_EXPIRED)
        return;
    if (state_lease_find(checks->state, record->lease) != NULL)
        return;
    size_t count = checks->closed_count < CLOSED_MAX ? checks->closed_count : CLOSED_MAX;
    for (size_t i = 0; i < count; i++)
        if (strcmp(checks->closed[i].lease, record->lease) == 0) {
            error_set(err, ERROR_FAILED_PRECONDITION,
                      "a second outcome of lease %s, which record %" PRIu64 " closed",
                      record->lease, checks->closed[i].index);
            return;
        }
}

static void remember_outcome(struct record_checks *checks, const struct record *record)
{
    if (record->event != RECORD_RELEASE_APPLIED && record->event != RECORD_RELEASE_FAILED &&
        record->event != RECORD_LEASE_EXPIRED)
        return;
    struct closed_lease *closed = &checks->closed[checks->closed_count++ % CLOSED_MAX];
    memcpy(closed->lease, record->lease, sizeof(closed->lease));
    closed->index = record->seq;
}

static enum report_kind state_kind(const struct record_checks *checks, const struct record *record)
{
    if (record->time_us < state_time_us(checks->state))
        return REPORT_TIME;
    switch (record->event) {
    case RECORD_LOG_SEALED:
    case RECORD_DAEMON_STOPPED:
        return REPORT_SNAPSHOT;
    case RECORD_APPROVAL_REQUESTED:
    case RECORD_APPROVAL_GIVEN:
        return REPORT_APPROVAL;
    case RECORD_LOG_LOSS_ACCEPTED:
        return REPORT_LOSS;
    default:
        return REPORT_STATE;
    }
}

static void check_state(struct record_checks *checks, const struct log_item *item,
                        const struct record *record)
{
    struct error err;
    if (!checks->state_holds) {
        if (record->time_us < checks->time_us)
            report_line(checks->options.report, REPORT_TIME, &item->place, record->seq,
                        "time runs back");
    } else if (state_apply(checks->state, record, &err) != 0) {
        explain_outcome(checks, record, &err);
        report_line(checks->options.report, state_kind(checks, record), &item->place, record->seq,
                    "%s", err.message);
        stop_state(checks, &item->place);
    } else {
        remember_outcome(checks, record);
    }
    if (record->time_us > checks->time_us)
        checks->time_us = record->time_us;
}

// ---- order ----

static void report_sequence(struct record_checks *checks, const struct log_item *item, uint64_t seq)
{
    uint64_t expected = checks->expected;
    if (seq > expected)
        report_line(checks->options.report, REPORT_SEQUENCE, &item->place, seq,
                    "record %" PRIu64 " must stand here: %" PRIu64 " record%s missing before this",
                    expected, seq - expected, seq - expected == 1 ? " is" : "s are");
    else
        report_line(checks->options.report, REPORT_SEQUENCE, &item->place, seq,
                    "record %" PRIu64 " must stand here: this one is out of order or a duplicate",
                    expected);
}

// Finds the record's place in the sequence and says when it is not the one it should have.
static void check_sequence(struct record_checks *checks, const struct log_item *item, uint64_t seq)
{
    if (seq == checks->expected || seq == checks->place_expected) {
        checks->expected = checks->place_expected = seq + 1;
        return;
    }
    report_sequence(checks, item, seq);
    stop_state(checks, &item->place);
    checks->place_expected++;
    if (seq > checks->expected)
        checks->expected = seq + 1;
}

// A segment ends with log.sealed and only so.
static void check_sealed(struct record_checks *checks, const struct log_item *item)
{
    if (checks->last_event == RECORD_LOG_SEALED && item->place.line > 1)
        report_line(checks->options.report, REPORT_SEGMENT, &item->place, checks->expected,
                    "the segment goes on after log.sealed, which ends it");
}

void record_checks_segment(struct record_checks *checks, const struct log_item *item)
{
    report_at(checks->options.report, checks->lines);
    if (checks->lines == 0)
        checks->last = item->place;
    if (item->first == checks->expected && checks->lines > 0 &&
        checks->last_event != RECORD_LOG_SEALED && checks->last_event != RECORD_NONE)
        report_line(checks->options.report, REPORT_SEGMENT, &checks->last, checks->expected - 1,
                    "the segment ends without log.sealed, but log/%s follows", item->place.segment);
    if (item->first != checks->expected) {
        if (item->first > checks->expected)
            report_line(checks->options.report, REPORT_SEGMENT, &item->place, REPORT_NO_INDEX,
                        "records %" PRIu64 " to %" PRIu64 " are missing before this segment",
                        checks->expected, item->first - 1);
        else
            report_line(checks->options.report, REPORT_SEGMENT, &item->place, REPORT_NO_INDEX,
                        "by its name this segment begins with record %" PRIu64
                        ", but record %" PRIu64 " must follow",
                        item->first, checks->expected);
        stop_state(checks, &item->place);
        checks->expected = item->first;
    }
    if (item->kind == LOG_UNREADABLE) {
        report_line(checks->options.report, REPORT_SEGMENT, &item->place, REPORT_NO_INDEX, "%s",
                    item->why.message);
        stop_state(checks, &item->place);
    } else {
        resume_state(checks, item);
    }
    if (item->first == 0)
        checks->last_event = RECORD_NONE;
}

// ---- signatures ----

static void check_key_change(struct record_checks *checks, const struct log_item *item,
                             const struct record *record)
{
    struct note_key next;
    struct error err;
    if (checks->state_holds &&
        key_chain_check(record, state_log_vkey(checks->state), &next, &err) != 0)
        report_line(checks->options.report, REPORT_LOG_KEY, &item->place, record->seq, "%s",
                    err.message);
}

// An approval by a key that signs something else, or that is not the operator's.
static void check_given(struct record_checks *checks, const struct log_item *item,
                        const struct record *record)
{
    struct record requested;
    struct error err;
    const struct request *request =
        checks->state_holds ? request_list_find(state_requests(checks->state), record->request_id)
                            : NULL;
    if (request != NULL && record->signature[0] != '\0') {
        request_as_record(request, state_host(checks->state), &requested);
        if (approval_verify(&requested, record, &err) != 0)
            report_line(checks->options.report, REPORT_APPROVAL, &item->place, record->seq,
                        "the approval by operator %s is not signed by the key that it names: %s",
                        record->operator_name, err.message);
    }
    if (checks->options.operators != NULL &&
        operators_check(checks->options.operators, record, &err) != 0)
        report_line(checks->options.report, REPORT_APPROVAL, &item->place, record->seq, "%s",
                    err.message);
}

// The head that a loss leaves is this log's own: looked at when the tree gets there.
static void expect_loss(struct record_checks *checks, const struct log_item *item,
                        const struct record *record)
{
    if (record->operation != OPERATION_ACCEPT_LOSS || record->new_size != checks->lines ||
        checks->loss_count == LOSSES_MAX)
        return;
    struct loss *loss = &checks->losses[checks->loss_count++];
    loss->place = item->place;
    loss->index = record->seq;
    loss->root.size = record->new_size;
    memcpy(loss->root.root.bytes, record->new_root, sizeof(record->new_root));
    log_tree_expect(checks->options.tree, &loss->root);
}

static void check_loss(struct record_checks *checks, const struct log_item *item,
                       const struct record *record)
{
    if (record->seq != record->new_size + LOSS_RECORDS - 1)
        report_line(checks->options.report, REPORT_LOSS, &item->place, record->seq,
                    "a loss is accepted by %d records at once from record %" PRIu64
                    " on; others stand between",
                    LOSS_RECORDS, record->new_size);
    checks->accepted = true;
    checks->accepted_index = record->seq;
    checks->accepted_old = record->old_size;
    checks->accepted_new = record->new_size;
}

static void check_signatures(struct record_checks *checks, const struct log_item *item,
                             const struct record *record)
{
    switch (record->event) {
    case RECORD_LOG_KEY_CHANGED:
        check_key_change(checks, item, record);
        break;
    case RECORD_APPROVAL_REQUESTED:
        expect_loss(checks, item, record);
        break;
    case RECORD_APPROVAL_GIVEN:
        check_given(checks, item, record);
        break;
    case RECORD_LOG_LOSS_ACCEPTED:
        check_loss(checks, item, record);
        break;
    default:
        break;
    }
}

// ---- lines ----

static void check_snapshot(struct record_checks *checks, const struct record *record)
{
    struct error err;
    checks->sealed = *record;
    if (snapshot_file_check(log_reader_dirfd(checks->options.reader), record->seq + 1,
                            record->sha256, &err) == 0)
        return;
    char file[SNAPSHOT_FILE_PATH];
    snapshot_file_path(record->seq + 1, file);
    if (err.code == ERROR_NOT_FOUND)
        report_note(checks->options.report, "%s is not there: a start without it takes longer",
                    file);
    else
        report_file(checks->options.report, REPORT_SNAPSHOT, file, "%s", err.message);
}

static void check_record(struct record_checks *checks, const struct log_item *item)
{
    const struct record *record = &checks->record;
    check_sequence(checks, item, record->seq);
    check_sealed(checks, item);
    check_signatures(checks, item, record);
    check_state(checks, item, record);
    checks->last_event = record->event;
    if (record->event == RECORD_LOG_SEALED)
        check_snapshot(checks, record);
}

// A line without an end: what a crash leaves beyond the signed head, damage anywhere before.
static void check_incomplete(struct record_checks *checks, const struct log_item *item)
{
    struct report *report = checks->options.report;
    checks->last_event = RECORD_NONE;
    if (item->line.length >= RECORD_LINE_MAX)
        report_line(report, REPORT_NOT_A_RECORD, &item->place, checks->expected,
                    "the line is longer than %d bytes; nothing after it in this file was read",
                    RECORD_LINE_MAX);
    else if (item->last && checks->lines >= checks->options.signed_size)
        report_note(report,
                    "log/%s:%" PRIu64 ": the last line has no end: it is being written, or a "
                    "crash left it; it is not signed, and custodyd sets it aside when it starts",
                    item->place.segment, item->place.line);
    else
        report_line(report, REPORT_NOT_A_RECORD, &item->place, checks->expected,
                    "the line has no end");
}

bool record_checks_line(struct record_checks *checks, const struct log_item *item,
                        struct leaf_line *leaf)
{
    struct error why;
    report_at(checks->options.report, checks->lines);
    checks->last = item->place;
    if (!item->line.complete) {
        check_incomplete(checks, item);
        return false;
    }
    leaf->length = (uint32_t)item->line.length;
    leaf->segment = item->first;
    leaf->line = item->place.line;
    leaf->index = checks->expected;
    leaf->parsed = record_parse_next(&checks->record, &checks->record_used, item->line.text,
                                     item->line.length, &why) == 0;
    if (leaf->parsed) {
        check_record(checks, item);
        leaf->index = checks->record.seq;
    } else {
        report_line(checks->options.report, REPORT_NOT_A_RECORD, &item->place, leaf->index,
                    "this is no record: %s", why.message);
        stop_state(checks, &item->place);
        checks->last_event = RECORD_NONE;
        checks->expected++;
        checks->place_expected++;
    }
    checks->lines++;
    return true;
}

// ---- the end ----

// Each release must have been closed: applied, failed or expired.
static void conclude_leases(struct record_checks *checks)
{
    const struct state_lease *lease = state_lease_first(checks->state);
    for (; lease != NULL && checks->state_holds; lease = state_lease_next(lease)) {
        struct log_place place;
        log_reader_place(checks->options.reader, lease->seq, &place);
        if (checks->time_us > lease->expires_us + LEASE_SLACK_US)
            report_line(checks->options.report, REPORT_LEASE, &place, lease->seq,
                        "the release of %s generation %" PRIu64
                        " has no outcome: lease %s is long over and no record closes it",
                        lease->key, lease->generation, lease->lease);
        else
            report_note(checks->options.report,
                        "log/%s:%" PRIu64 ": lease %s of %s generation %" PRIu64
                        " is still open at the log's end",
                        place.segment, place.line, lease->lease, lease->key, lease->generation);
    }
}

static void conclude_rotations(struct record_checks *checks)
{
    const struct rotations *rotations = state_rotations(checks->state);
    for (size_t i = 0; i < rotations->count && checks->state_holds; i++) {
        const struct rotation *rotation = &rotations->items[i];
        if (rotation->generation != 0)
            report_note(checks->options.report,
                        "the rotation of %s to generation %" PRIu64
                        " is still open at the log's end",
                        rotation->key, rotation->generation);
        else if (rotation->suspended_us != 0)
            report_note(checks->options.report, "%s is suspended at the log's end", rotation->key);
    }
}

static void conclude_losses(struct record_checks *checks)
{
    for (size_t i = 0; i < checks->loss_count; i++) {
        const struct loss *loss = &checks->losses[i];
        report_at(checks->options.report, loss->index);
        if (!loss->root.reached || !loss->root.matches)
            report_line(checks->options.report, REPORT_LOSS, &loss->place, loss->index,
                        "the loss was accepted for another log: new_root is not the root of its "
                        "first %" PRIu64 " records",
                        loss->root.size);
    }
    report_at(checks->options.report, REPORT_AT_END);
}

static void conclude_key(struct record_checks *checks, const char *vkey)
{
    if (checks->state_holds && checks->lines > 0 &&
        strcmp(state_log_vkey(checks->state), vkey) != 0)
        report_line(checks->options.report, REPORT_LOG_KEY, &checks->last, REPORT_NO_INDEX,
                    "by its records the log's key is %s, not %s", state_log_vkey(checks->state),
                    vkey);
}

static void on_stray(void *context, const char *name)
{
    struct record_checks *checks = context;
    uint64_t next;
    if (!snapshot_file_parse(name, &next))
        report_note(checks->options.report, "log/%s is no segment; it was not read", name);
    else if (next != checks->lines && !log_reader_has(checks->options.reader, next))
        report_note(checks->options.report,
                    "log/%s belongs to no segment that follows it: a start does not use it", name);
}

int record_checks_conclude(struct record_checks *checks, const char *vkey, struct error *err)
{
    report_at(checks->options.report, REPORT_AT_END);
    conclude_losses(checks);
    conclude_leases(checks);
    conclude_rotations(checks);
    conclude_key(checks, vkey);
    return log_reader_strays(checks->options.reader, on_stray, checks, err);
}

uint64_t record_checks_lines(const struct record_checks *checks)
{
    return checks->lines;
}

const struct log_place *record_checks_last(const struct record_checks *checks)
{
    return &checks->last;
}

bool record_checks_loss(const struct record_checks *checks, uint64_t *index, uint64_t *old_size,
                        uint64_t *new_size)
{
    *index = checks->accepted_index;
    *old_size = checks->accepted_old;
    *new_size = checks->accepted_new;
    return checks->accepted;
}
