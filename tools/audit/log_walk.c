// SPDX-License-Identifier: Apache-2.0
// Walking over a whole log.
#include "log_walk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct walk {
    const char *command;
    log_walk_fn *found;
    void *context;
    struct log_walk_counts *counts;
    struct record record;
};

void log_walk_complain(const char *command, const struct log_place *place, const char *what)
{
    fprintf(stderr, "%s: log/%s", command, place->segment);
    if (place->line > 0)
        fprintf(stderr, ":%" PRIu64, place->line);
    fprintf(stderr, ": %s\n", what);
}

static int pass_over(struct walk *walk, const struct log_item *item, const char *what)
{
    walk->counts->damaged++;
    if (walk->command != NULL)
        log_walk_complain(walk->command, &item->place, what);
    return 0;
}

static int visit_line(struct walk *walk, const struct log_item *item, struct error *err)
{
    struct error why;
    const struct segment_line *line = &item->line;
    walk->counts->bytes += line->length;
    if (!line->complete)
        return pass_over(walk, item, "the line has no end, or is too long; passed over");
    walk->counts->bytes++; // the newline
    if (record_parse(&walk->record, line->text, line->length, &why) != 0)
        return pass_over(walk, item, why.message);
    return walk->found(walk->context, &walk->record, line, err);
}

static int visit(struct walk *walk, const struct log_item *item, struct error *err)
{
    if (item->kind == LOG_LINE)
        return visit_line(walk, item, err);
    walk->counts->segments++;
    return item->kind == LOG_UNREADABLE ? pass_over(walk, item, item->why.message) : 0;
}

int log_walk(const char *dir, uint64_t since, const char *command, log_walk_fn *found,
             void *context, struct log_walk_counts *counts, struct error *err)
{
    struct walk walk = {.command = command, .found = found, .context = context, .counts = counts};
    struct log_reader *reader;
    struct log_item item;
    int got;
    memset(counts, 0, sizeof(*counts));
    if (log_reader_open(dir, &reader, err) != 0)
        return -1;
    log_reader_seek(reader, since);
    while ((got = log_reader_next(reader, &item, err)) > 0) {
        got = visit(&walk, &item, err);
        if (got != 0)
            break;
    }
    log_reader_close(reader);
    return got;
}

int log_walk_lines(struct log_reader *reader, uint64_t size, log_line_fn *found, void *context,
                   struct error *err)
{
    struct log_item item;
    uint64_t lines = 0;
    int got = 0;
    while (lines < size && (got = log_reader_next(reader, &item, err)) > 0) {
        if (item.kind == LOG_UNREADABLE)
            return error_set(err, ERROR_DATA_LOSS, "log/%s: %s", item.place.segment,
                             item.why.message);
        if (item.kind != LOG_LINE || !item.line.complete)
            continue;
        if (found(context, &item.line, err) != 0)
            return -1;
        lines++;
    }
    if (got < 0)
        return -1;
    if (lines < size)
        return error_set(err, ERROR_DATA_LOSS,
                         "the signed head has %" PRIu64 " records, the log only %" PRIu64, size,
                         lines);
    return 0;
}
