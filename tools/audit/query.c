// SPDX-License-Identifier: Apache-2.0
// custody-audit query: the records that a question is about.
#include <argp.h>
#include <inttypes.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "dir_argument.h"
#include "lines.h"
#include "log_walk.h"
#include "record.h"
#include "record_print.h"

enum { OPTION_SINCE = 256, OPTION_UNTIL, OPTION_OPEN, OPTION_CSV };

struct options {
    const char *dir;
    const char *key;
    const char *peer;
    const char *actor;
    bool actor_is_uid;
    uint64_t actor_uid;
    enum record_event event;
    enum record_reason reason;
    const char *ticket;
    int64_t since_us, until_us;
    bool open; // releases whose lease nothing has closed
    enum print_form form;
};

// ---- open leases ----

// A release; they are kept in tsearch's tree by their lease.
struct grant {
    char lease[RECORD_LEASE_MAX + 1];
    uint64_t seq;
};

struct query {
    const struct options *options;
    void *grants;
};

static int compare_grants(const void *a, const void *b)
{
    const struct grant *x = a, *y = b;
    return strcmp(x->lease, y->lease);
}

static struct grant *find_grant(const struct query *query, const struct record *record)
{
    struct grant wanted;
    memcpy(wanted.lease, record->lease, sizeof(wanted.lease));
    void *const *found = tfind(&wanted, &query->grants, compare_grants);
    return found != NULL ? *found : NULL;
}

static int add_grant(struct query *query, const struct record *record, struct error *err)
{
    struct grant *grant = find_grant(query, record);
    if (grant == NULL) {
        grant = malloc(sizeof(*grant));
        if (grant == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for open leases");
        memcpy(grant->lease, record->lease, sizeof(grant->lease));
        if (tsearch(grant, &query->grants, compare_grants) == NULL) {
            free(grant);
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for open leases");
        }
    }
    grant->seq = record->seq;
    return 0;
}

// Notes what the record opens or closes.
static int follow_lease(struct query *query, const struct record *record, struct error *err)
{
    struct grant *grant;
    switch (record->event) {
    case RECORD_RELEASE_GRANTED:
        return add_grant(query, record, err);
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        grant = find_grant(query, record);
        if (grant != NULL) {
            tdelete(grant, &query->grants, compare_grants);
            free(grant);
        }
        return 0;
    default:
        return 0;
    }
}

// ---- the question ----

static bool is_by(const struct options *options, const struct record_actor *actor)
{
    if (options->actor == NULL)
        return true;
    if (!actor->present)
        return false;
    return options->actor_is_uid ? actor->uid == options->actor_uid
                                 : strcmp(actor->unit, options->actor) == 0;
}

static bool is_open(const struct query *query, const struct record *record)
{
    if (!query->options->open)
        return true;
    const struct grant *grant =
        record->event == RECORD_RELEASE_GRANTED ? find_grant(query, record) : NULL;
    return grant != NULL && grant->seq == record->seq;
}

static bool is_wanted(const struct query *query, const struct record *record)
{
    const struct options *options = query->options;
    return (options->key == NULL || strcmp(options->key, record->key) == 0) &&
           (options->peer == NULL || strcmp(options->peer, record->peer) == 0) &&
           (options->event == RECORD_NONE || options->event == record->event) &&
           (options->reason == REASON_NONE || options->reason == record->reason) &&
           (options->ticket == NULL || strcmp(options->ticket, record->ticket) == 0) &&
           record->time_us >= options->since_us && record->time_us < options->until_us &&
           is_by(options, &record->actor) && is_open(query, record);
}

static int note_lease(void *context, const struct record *record, const struct segment_line *line,
                      struct error *err)
{
    return follow_lease(context, record, err);
}

static int print_wanted(void *context, const struct record *record, const struct segment_line *line,
                        struct error *err)
{
    const struct query *query = context;
    if (is_wanted(query, record))
        record_print(query->options->form, record, line->text, line->length);
    return 0;
}

static int answer(struct query *query, struct log_walk_counts *counts, struct error *err)
{
    const struct options *options = query->options;
    if (options->open && log_walk(options->dir, 0, NULL, note_lease, query, counts, err) != 0)
        return -1;
    record_print_head(options->form);
    return log_walk(options->dir, 0, "custody-audit query", print_wanted, query, counts, err);
}

// ---- the command ----

// A day, "2026-11-22", or a time, "2026-11-22T10:11:12Z" with or without a fraction.
static bool parse_time(const char *arg, int64_t *time_us)
{
    static const char rest[] = "T00:00:00.000000Z";
    char text[RECORD_TIME_SIZE];
    size_t length = strlen(arg);
    if (length == 10)
        snprintf(text, sizeof(text), "%s%s", arg, rest);
    else if (length == 20 && arg[19] == 'Z')
        snprintf(text, sizeof(text), "%.19s%s", arg, rest + 9);
    else if (length < sizeof(text))
        snprintf(text, sizeof(text), "%s", arg);
    else
        return false;
    return record_time_parse(text, strlen(text), time_us) == 0;
}

static void parse_actor(struct options *options, const char *arg)
{
    struct line number = {.text = arg, .length = strlen(arg)};
    options->actor = arg;
    options->actor_is_uid = line_decimal(&number, &options->actor_uid);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'k':
        options->key = arg;
        return 0;
    case 'p':
        options->peer = arg;
        return 0;
    case 'a':
        parse_actor(options, arg);
        return 0;
    case 'e':
        options->event = record_event_from_name(arg);
        if (options->event == RECORD_NONE)
            argp_error(state, "there is no event '%s'", arg);
        return 0;
    case 'r':
        options->reason = record_reason_from_name(arg);
        if (options->reason == REASON_NONE)
            argp_error(state, "there is no reason '%s'", arg);
        return 0;
    case 't':
        options->ticket = arg;
        return 0;
    case OPTION_SINCE:
    case OPTION_UNTIL:
        if (!parse_time(arg, key == OPTION_SINCE ? &options->since_us : &options->until_us))
            argp_error(state, "'%s' is no time: write 2026-11-22 or 2026-11-22T10:11:12Z", arg);
        return 0;
    case OPTION_OPEN:
        options->open = true;
        return 0;
    case 'j':
        options->form = PRINT_JSON;
        return 0;
    case OPTION_CSV:
        options->form = PRINT_CSV;
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"key", 'k', "NAME", 0, "about this key", 0},
    {"peer", 'p', "HOST", 0, "about this counterpart", 0},
    {"actor", 'a', "UID|UNIT", 0, "caused by this uid or systemd unit", 0},
    {"event", 'e', "EVENT", 0, "of this event, e.g. release.granted", 0},
    {"reason", 'r', "REASON", 0, "for this reason, e.g. ROTATION", 0},
    {"ticket", 't', "TEXT", 0, "with this ticket", 0},
    {"since", OPTION_SINCE, "TIME", 0, "at this time (UTC) or later", 0},
    {"until", OPTION_UNTIL, "TIME", 0, "before this time", 0},
    {"open", OPTION_OPEN, NULL, 0, "releases that nothing has closed", 0},
    {"json", 'j', NULL, 0, "print the records' own lines", 0},
    {"csv", OPTION_CSV, NULL, 0, "print comma separated values (RFC 4180)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_query(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Prints the records of the log in DIR to which all of the options apply. It checks "
               "nothing: verify does.\v"
               "Exit status: 0 all was read, 1 some lines are no records, 2 it could not be read.",
    };
    struct options options = {.until_us = INT64_MAX};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct query query = {.options = &options};
    struct log_walk_counts counts;
    struct error err;
    int result = answer(&query, &counts, &err);
    if (result != 0)
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
    tdestroy(query.grants, free);
    return result != 0 ? AUDIT_FAILED : counts.damaged > 0 ? AUDIT_FINDINGS : AUDIT_SOUND;
}
