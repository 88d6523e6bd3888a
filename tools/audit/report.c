// SPDX-License-Identifier: Apache-2.0
// Gathers findings and notes, and prints them on standard output.
#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "name.h"

#define TEXT_MAX 1024

struct item {
    bool finding;
    enum report_kind kind;
    uint64_t order;
    size_t number; // keeps the sort stable
    uint64_t line; // 0: the file as a whole
    uint64_t index;
    char *file; // NULL: the log
    char *text;
};

struct report {
    uint64_t order;
    uint64_t findings;
    uint64_t dropped; // findings and notes that were too many
    struct item *items;
    size_t count, room;
};

static const struct {
    const char *name;
    const char *means;
} kinds[REPORT_KINDS] = {
    [REPORT_NOT_A_RECORD] = {"not-a-record", "custodyd never writes such a line: it was damaged or "
                                             "put there by somebody else"},
    [REPORT_SEQUENCE] = {"sequence", "records were removed, repeated or put in another order"},
    [REPORT_SEGMENT] = {"segment", "a file of the log was removed, renamed, cut or put there by "
                                   "somebody else"},
    [REPORT_STATE] = {"state", "the daemon lets no such thing happen: the log was not written by "
                               "it alone"},
    [REPORT_TIME] = {"time", "the record was written later than its place in the log says, or its "
                             "time was altered"},
    [REPORT_LEASE] = {"lease", "a key left the HSM, and what became of it is not recorded"},
    [REPORT_ALTERED] = {"altered", "the record or the tree's hash of it was altered"},
    [REPORT_TILE] = {"tile", "proofs made from this file would not hold; custodyd rebuilds it from "
                             "the records"},
    [REPORT_SNAPSHOT] = {"snapshot", "a daemon that starts from this file would start from a state "
                                     "that the log does not say"},
    [REPORT_HEAD] = {"head", "nothing vouches for the records until a head signed by the log's key "
                             "is there"},
    [REPORT_TRUNCATED] = {"truncated", "signed records are gone: what they said is not in this log "
                                       "any more"},
    [REPORT_KEPT_HEAD] = {"kept-head", "the log that was seen then is not the log that is shown "
                                       "now"},
    [REPORT_LOG_KEY] = {"log-key", "whoever made this record did not hold both keys: what follows "
                                   "is not to be believed"},
    [REPORT_APPROVAL] = {"approval", "the operation was not approved by whom the record names"},
    [REPORT_LOSS] = {"loss", "the operators approved the loss of another log than this one"},
};

struct report *report_new(void)
{
    return calloc(1, sizeof(struct report));
}

void report_free(struct report *report)
{
    if (report == NULL)
        return;
    for (size_t i = 0; i < report->count; i++) {
        free(report->items[i].file);
        free(report->items[i].text);
    }
    free(report->items);
    free(report);
}

void report_at(struct report *report, uint64_t order)
{
    report->order = order;
}

uint64_t report_findings(const struct report *report)
{
    return report->findings;
}

// ---- gathering ----

// What the files hold reaches a terminal and JSON only as printable UTF-8.
static void make_printable(char *text)
{
    bool utf8 = name_is_utf8(text, strlen(text));
    for (unsigned char *s = (unsigned char *)text; *s != '\0'; s++) {
        // C2 80 to C2 9F are control characters as well.
        bool control = *s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0);
        if (control && *s == 0xc2)
            *s++ = '?';
        if (control || (!utf8 && *s >= 0x80))
            *s = '?';
    }
}

static struct item *add(struct report *report)
{
    if (report->count == REPORT_FINDINGS_MAX)
        return NULL;
    if (report->count == report->room) {
        size_t room = report->room == 0 ? 16 : 2 * report->room;
        struct item *items = realloc(report->items, room * sizeof(*items));
        if (items == NULL)
            return NULL;
        report->items = items;
        report->room = room;
    }
    struct item *item = &report->items[report->count];
    memset(item, 0, sizeof(*item));
    item->number = report->count++;
    item->order = report->order;
    item->index = REPORT_NO_INDEX;
    return item;
}

__attribute__((format(printf, 4, 0))) static void say(struct report *report,
                                                      const struct item *what, const char *file,
                                                      const char *format, va_list args)
{
    char text[TEXT_MAX];
    vsnprintf(text, sizeof(text), format, args);
    make_printable(text);
    if (what->finding)
        report->findings++;
    struct item *item = add(report);
    if (item == NULL) {
        report->dropped++;
        return;
    }
    item->finding = what->finding;
    item->kind = what->kind;
    item->line = what->line;
    item->index = what->index;
    item->file = file != NULL ? strdup(file) : NULL;
    item->text = strdup(text);
}

void report_line(struct report *report, enum report_kind kind, const struct log_place *place,
                 uint64_t index, const char *format, ...)
{
    char file[SEGMENT_NAME_SIZE + 8];
    struct item item = {.finding = true, .kind = kind, .line = place->line, .index = index};
    snprintf(file, sizeof(file), "log%s%s", place->segment[0] != '\0' ? "/" : "", place->segment);
    va_list args;
    va_start(args, format);
    say(report, &item, file, format, args);
    va_end(args);
}

void report_file(struct report *report, enum report_kind kind, const char *file, const char *format,
                 ...)
{
    struct item item = {.finding = true, .kind = kind, .index = REPORT_NO_INDEX};
    va_list args;
    va_start(args, format);
    say(report, &item, file, format, args);
    va_end(args);
}

void report_note(struct report *report, const char *format, ...)
{
    struct item item = {.index = REPORT_NO_INDEX};
    va_list args;
    va_start(args, format);
    say(report, &item, NULL, format, args);
    va_end(args);
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

// ---- printing ----

static const char *text_of(const struct item *item)
{
    return item->text != NULL ? item->text : "out of memory";
}

static void print_text(const struct item *item)
{
    if (!item->finding)
        printf("note: ");
    if (item->file != NULL)
        printf("%s:", item->file);
    if (item->line > 0)
        printf("%" PRIu64 ":", item->line);
    if (item->index != REPORT_NO_INDEX)
        printf(" record %" PRIu64 ":", item->index);
    printf("%s%s\n", item->file != NULL ? " " : "", text_of(item));
    if (item->finding)
        printf("    = %s\n", kinds[item->kind].means);
}

static void set_number(json_t *object, const char *name, uint64_t value)
{
    if (value <= INT64_MAX)
        json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *item_json(const struct item *item)
{
    if (!item->finding)
        return json_string(text_of(item));
    json_t *object = json_pack("{s:s, s:s, s:s}", "kind", kinds[item->kind].name, "finding",
                               text_of(item), "means", kinds[item->kind].means);
    if (item->file != NULL)
        json_object_set_new(object, "file", json_string(item->file));
    if (item->line > 0)
        set_number(object, "line", item->line);
    if (item->index != REPORT_NO_INDEX)
        set_number(object, "record", item->index);
    return object;
}

static void print_json(const struct report *report, const struct report_log *log, const char *root)
{
    json_t *findings = json_array(), *notes = json_array();
    for (size_t i = 0; i < report->count; i++)
        json_array_append_new(report->items[i].finding ? findings : notes,
                              item_json(&report->items[i]));
    json_t *object = json_pack("{s:b, s:o, s:o}", "sound", report->findings == 0, "findings",
                               findings, "notes", notes);
    set_number(object, "found", report->findings);
    set_number(object, "first", log->first);
    set_number(object, "records", log->records);
    if (log->root != NULL) {
        set_number(object, "signed", log->signed_size);
        json_object_set_new(object, "root", json_string(root));
    }
    if (object == NULL || json_dumpf(object, stdout, JSON_COMPACT) != 0)
        printf("{\"sound\":false}");
    putchar('\n');
    json_decref(object);
}

void report_print(struct report *report, const struct report_log *log, bool json)
{
    char root[sodium_base64_ENCODED_LEN(MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL)] = "";
    if (log->root != NULL)
        sodium_bin2base64(root, sizeof(root), log->root->bytes, sizeof(log->root->bytes),
                          sodium_base64_VARIANT_ORIGINAL);
    if (report->count > 0)
        qsort(report->items, report->count, sizeof(*report->items), compare_items);
    if (json) {
        print_json(report, log, root);
        return;
    }
    for (size_t i = 0; i < report->count; i++)
        print_text(&report->items[i]);
    if (report->dropped > 0)
        printf("note: %" PRIu64 " more findings and notes are not shown\n", report->dropped);
    if (log->first > 0)
        printf("note: read from record %" PRIu64
               " on; those before were authenticated by the head that was kept\n",
               log->first);
    if (report->findings > 0)
        printf("NOT SOUND: %" PRIu64 " finding%s\n", report->findings,
               report->findings == 1 ? "" : "s");
    else
        printf("sound: %" PRIu64 " records, signed head %" PRIu64 ", root %s\n", log->records,
               log->signed_size, root);
}
