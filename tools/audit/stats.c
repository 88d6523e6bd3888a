// SPDX-License-Identifier: Apache-2.0
// custody-audit stats: how much of what is in the log.
#include <argp.h>
#include <inttypes.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "audit.h"
#include "dir_argument.h"
#include "log_walk.h"
#include "record.h"

#define NAME_SIZE (RECORD_UNIT_MAX + 32)

struct count {
    char name[NAME_SIZE];
    uint64_t count;
};

struct stats {
    uint64_t records;
    struct log_walk_counts log;
    int64_t first_us, last_us;
    void *events, *keys, *actors; // tsearch's trees of struct count
};

static int compare_counts(const void *a, const void *b)
{
    const struct count *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int count_name(void **tree, const char *name, struct error *err)
{
    struct count *count = calloc(1, sizeof(*count));
    if (count == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for counts");
    snprintf(count->name, sizeof(count->name), "%s", name);
    void **found = tsearch(count, tree, compare_counts);
    if (found == NULL || *found != count)
        free(count);
    if (found == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for counts");
    (*(struct count **)found)->count++;
    return 0;
}

static int count_record(void *context, const struct record *record, const struct segment_line *line,
                        struct error *err)
{
    struct stats *stats = context;
    char actor[NAME_SIZE] = "custodyd";
    if (record->actor.present)
        snprintf(actor, sizeof(actor), "uid %u%s%s", record->actor.uid,
                 record->actor.unit[0] != '\0' ? " " : "", record->actor.unit);
    if (stats->records++ == 0)
        stats->first_us = record->time_us;
    stats->last_us = record->time_us;
    if (count_name(&stats->events, record_event_name(record->event), err) != 0 ||
        (record->key[0] != '\0' && count_name(&stats->keys, record->key, err) != 0))
        return -1;
    return count_name(&stats->actors, actor, err);
}

// ---- printing ----

static void print_count(const void *node, VISIT visit, void *context)
{
    const struct count *count = *(struct count *const *)node;
    if (visit == postorder || visit == leaf)
        printf("  %12" PRIu64 "  %.64s\n", count->count, count->name);
}

static void add_count(const void *node, VISIT visit, void *context)
{
    const struct count *count = *(struct count *const *)node;
    if (visit == postorder || visit == leaf)
        json_object_set_new(context, count->name, json_integer((json_int_t)count->count));
}

static void print_table(const struct stats *stats, const char *first, const char *last)
{
    printf("%" PRIu64 " records in %" PRIu64 " segments, %" PRIu64 " bytes\n", stats->records,
           stats->log.segments, stats->log.bytes);
    if (stats->records > 0)
        printf("from %s to %s\n", first, last);
    if (stats->log.damaged > 0)
        printf("%" PRIu64 " lines or segments are no records: see \"custody-audit verify\"\n",
               stats->log.damaged);
    printf("events\n");
    twalk_r(stats->events, print_count, NULL);
    printf("keys\n");
    twalk_r(stats->keys, print_count, NULL);
    printf("actors\n");
    twalk_r(stats->actors, print_count, NULL);
}

static void print_json(const struct stats *stats, const char *first, const char *last)
{
    json_t *events = json_object(), *keys = json_object(), *actors = json_object();
    twalk_r(stats->events, add_count, events);
    twalk_r(stats->keys, add_count, keys);
    twalk_r(stats->actors, add_count, actors);
    json_t *object =
        json_pack("{s:I, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:o}", "records",
                  (json_int_t)stats->records, "segments", (json_int_t)stats->log.segments, "bytes",
                  (json_int_t)stats->log.bytes, "damaged", (json_int_t)stats->log.damaged, "first",
                  first, "last", last, "events", events, "keys", keys, "actors", actors);
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

struct options {
    const char *dir;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'j':
        options->json = true;
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"json", 'j', NULL, 0, "print one JSON object", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_stats(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Counts the records of the log in DIR by event, key and actor.\v"
               "Exit status: 0 all was read, 1 some lines are no records, 2 it could not be read.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct stats stats = {.records = 0};
    char first[RECORD_TIME_SIZE] = "", last[RECORD_TIME_SIZE] = "";
    struct error err;
    int status = AUDIT_FAILED;
    // What is damaged is counted, not named.
    if (log_walk(options.dir, 0, NULL, count_record, &stats, &stats.log, &err) == 0) {
        record_time_format(stats.first_us, first);
        record_time_format(stats.last_us, last);
        if (options.json)
            print_json(&stats, first, last);
        else
            print_table(&stats, first, last);
        status = stats.log.damaged > 0 ? AUDIT_FINDINGS : AUDIT_SOUND;
    } else {
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
    }
    tdestroy(stats.events, free);
    tdestroy(stats.keys, free);
    tdestroy(stats.actors, free);
    return status;
}
