// SPDX-License-Identifier: Apache-2.0
// custody-audit show: the records as a table that fits a terminal of 100 columns, or their lines.
#include <argp.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "dir_argument.h"
#include "lines.h"
#include "log_walk.h"
#include "record.h"

#define COLUMNS 100

struct options {
    const char *dir;
    const char *key;
    const char *event;
    uint64_t since;
    bool json;
};

// Appends `text` to the row as a column of `width` characters; what is not printable ASCII becomes
// '?', what is too long is cut, and said to be by a '~'.
static void put_column(char *row, size_t *used, size_t width, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < width && *used < COLUMNS; i++) {
        char c = i < length ? text[i] : ' ';
        if (c < 0x20 || c > 0x7e)
            c = '?';
        row[(*used)++] = i == width - 1 && length > width ? '~' : c;
    }
    if (*used < COLUMNS)
        row[(*used)++] = ' ';
}

static void print_row(const char *index, const char *time, const char *event, const char *key,
                      const char *actor, const char *reason, const char *outcome)
{
    char row[COLUMNS + 1];
    size_t used = 0;
    // An index of more digits takes its room from the last column.
    put_column(row, &used, strlen(index), index);
    put_column(row, &used, 20, time);
    put_column(row, &used, 17, event);
    put_column(row, &used, 13, key);
    put_column(row, &used, 11, actor);
    put_column(row, &used, 8, reason);
    put_column(row, &used, 19, outcome);
    while (used > 0 && row[used - 1] == ' ')
        used--;
    printf("%.*s\n", (int)used, row);
}

// What became of it: how a lease stands, why something was refused.
static void format_outcome(const struct record *record, char *text, size_t size)
{
    const char *what = "";
    switch (record->event) {
    case RECORD_RELEASE_GRANTED:
        what = "lease ";
        break;
    case RECORD_RELEASE_APPLIED:
        what = "applied ";
        break;
    case RECORD_RELEASE_FAILED:
        what = "failed ";
        break;
    case RECORD_LEASE_EXPIRED:
        what = "expired ";
        break;
    default:
        break;
    }
    if (record->lease[0] != '\0')
        snprintf(text, size, "%s%.8s", what, record->lease);
    else if (record->code != ERROR_OK)
        snprintf(text, size, "%s", error_code_name(record->code));
    else
        snprintf(text, size, "%s%s", record->version[0] != '\0' ? "version " : "", record->version);
}

static void print_record(const struct record *record)
{
    char index[24], time[RECORD_TIME_SIZE] = "", key[KEY_MAX + 32] = "", actor[32] = "";
    char outcome[64];
    const char *reason = record_reason_name(record->reason);
    snprintf(index, sizeof(index), "%6" PRIu64, record->seq);
    record_time_format(record->time_us, time);
    memcpy(time + 19, "Z", 2); // the table has no room for microseconds
    if (record->generation != 0)
        snprintf(key, sizeof(key), "%s/%" PRIu64, record->key, record->generation);
    else
        snprintf(key, sizeof(key), "%s", record->key);
    if (record->actor.present)
        snprintf(actor, sizeof(actor), "uid %u", record->actor.uid);
    format_outcome(record, outcome, sizeof(outcome));
    print_row(index, time, record_event_name(record->event), key, actor,
              reason != NULL ? reason : "", outcome);
}

static bool is_wanted(const struct options *options, const struct record *record)
{
    return record->seq >= options->since &&
           (options->key == NULL || strcmp(options->key, record->key) == 0) &&
           (options->event == NULL ||
            strcmp(options->event, record_event_name(record->event)) == 0);
}

static int show(void *context, const struct record *record, const struct segment_line *line,
                struct error *err)
{
    const struct options *options = context;
    if (!is_wanted(options, record))
        return 0;
    if (options->json)
        printf("%.*s\n", (int)line->length, line->text);
    else
        print_record(record);
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    struct line number = {.text = arg, .length = arg != NULL ? strlen(arg) : 0};
    switch (key) {
    case 'k':
        options->key = arg;
        return 0;
    case 'e':
        if (record_event_from_name(arg) == RECORD_NONE)
            argp_error(state, "there is no event '%s'", arg);
        options->event = arg;
        return 0;
    case 's':
        if (!line_decimal(&number, &options->since))
            argp_error(state, "--since-index: '%s' is no record's index", arg);
        return 0;
    case 'j':
        options->json = true;
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"key", 'k', "NAME", 0, "only records about this key", 0},
    {"event", 'e', "EVENT", 0, "only records of this event, e.g. release.granted", 0},
    {"since-index", 's', "INDEX", 0, "only records from this index on", 0},
    {"json", 'j', NULL, 0, "print the records' own lines", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_show(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Prints the records of the log in DIR. It checks nothing: verify does.\v"
               "Exit status: 0 all was read, 1 some lines are no records, 2 it could not be read.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct log_walk_counts counts;
    struct error err;
    if (!options.json)
        print_row(" INDEX", "TIME (UTC)", "EVENT", "KEY/GEN", "ACTOR", "REASON", "OUTCOME");
    if (log_walk(options.dir, options.since, "custody-audit show", show, &options, &counts, &err) !=
        0) {
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
        return AUDIT_FAILED;
    }
    return counts.damaged > 0 ? AUDIT_FINDINGS : AUDIT_SOUND;
}
