// SPDX-License-Identifier: Apache-2.0
// Printing records on standard output.
#include "record_print.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define COLUMNS 80

// ---- the table ----

struct row {
    char text[COLUMNS + 1];
    size_t used;
};

// Appends `text` as a column of `width` characters; what is not printable ASCII becomes '?', what
// is too long is cut, and said to be by a '~'.
static void put_column(struct row *row, size_t width, const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < width && row->used < COLUMNS; i++) {
        char c = i < length ? text[i] : ' ';
        if (c < 0x20 || c > 0x7e)
            c = '?';
        row->text[row->used++] = i == width - 1 && length > width ? '~' : c;
    }
    if (row->used < COLUMNS)
        row->text[row->used++] = ' ';
}

// 8 + 20 + 17 + 11 + 8 and what is left, with the blanks between.
static void print_row(const char *index, const char *time, const char *event, const char *key,
                      const char *actor, const char *rest)
{
    struct row row = {.used = 0};
    put_column(&row, strlen(index), index);
    put_column(&row, 20, time);
    put_column(&row, 17, event);
    put_column(&row, 10, key);
    put_column(&row, 7, actor);
    if (row.used < COLUMNS)
        put_column(&row, COLUMNS - row.used, rest);
    while (row.used > 0 && row.text[row.used - 1] == ' ')
        row.used--;
    printf("%.*s\n", (int)row.used, row.text);
}

// The counterpart's key, how far it is or which preshared key it is about, and what was said of it.
static void format_peer(const struct record *record, char *text, size_t size)
{
    const char *state = record_peer_state_name(record->peer_state);
    char generation[32] = "";
    if (record->peer_generation != 0)
        snprintf(generation, sizeof(generation), "/%" PRIu64, record->peer_generation);
    else if (record->epoch != 0)
        snprintf(generation, sizeof(generation), " epoch %" PRIu64, record->epoch);
    snprintf(text, size, "%s:%s%s %s%s%s", record->peer, record->peer_key, generation,
             state != NULL ? state : "", state != NULL ? " " : "", record->detail);
}

// What is worth the last column: why it was asked for, how it ended.
static void format_rest(const struct record *record, char *text, size_t size)
{
    if (record->code != ERROR_OK)
        snprintf(text, size, "%s", error_code_name(record->code));
    else if (record->peer[0] != '\0')
        format_peer(record, text, size);
    else if (record->bundle_state != BUNDLE_NONE)
        snprintf(text, size, "%s", record_bundle_state_name(record->bundle_state));
    else if (record->event == RECORD_RELEASE_GRANTED || record->event == RECORD_ROTATION_STARTED)
        snprintf(text, size, "%s %s", record_reason_name(record->reason), record->ticket);
    else if (record->lease[0] != '\0')
        snprintf(text, size, "%s", record->lease);
    else if (record->operator_name[0] != '\0')
        snprintf(text, size, "%s", record->operator_name);
    else
        snprintf(text, size, "%s%s%s%s", record->version, record->method,
                 record->method[0] != '\0' ? " " : "", record->detail);
}

static void print_table_row(const struct record *record)
{
    char index[24], time[RECORD_TIME_SIZE] = "", key[KEY_MAX + 32] = "", actor[32] = "";
    char rest[DETAIL_MAX + HOST_MAX + KEY_MAX + 64];
    snprintf(index, sizeof(index), "%6" PRIu64, record->seq);
    record_time_format(record->time_us, time);
    memcpy(time + 19, "Z", 2); // the table has no room for microseconds
    if (record->generation != 0)
        snprintf(key, sizeof(key), "%s/%" PRIu64, record->key, record->generation);
    else
        snprintf(key, sizeof(key), "%s", record->key);
    if (record->actor.present)
        snprintf(actor, sizeof(actor), "%u", record->actor.uid);
    format_rest(record, rest, sizeof(rest));
    print_row(index, time, record_event_name(record->event), key, actor, rest);
}

// ---- CSV ----

// Quoted always: a field may hold commas and quotes, and a spreadsheet must not take it for a
// formula.
static void put_field(const char *text, bool first)
{
    if (!first)
        putchar(',');
    putchar('"');
    if (strchr("=+-@", text[0]) != NULL && text[0] != '\0')
        putchar('\'');
    for (const char *s = text; *s != '\0'; s++) {
        if (*s == '"')
            putchar('"');
        putchar((unsigned char)*s < 0x20 ? ' ' : *s);
    }
    putchar('"');
}

static void put_number(uint64_t value, bool present)
{
    putchar(',');
    if (present)
        printf("%" PRIu64, value);
}

static void put_name(const char *name)
{
    put_field(name != NULL ? name : "", false);
}

static void print_csv(const struct record *record)
{
    char time[RECORD_TIME_SIZE] = "", expires[RECORD_TIME_SIZE] = "";
    const struct record_actor *actor = &record->actor;
    record_time_format(record->time_us, time);
    if (record->expires_us != 0)
        record_time_format(record->expires_us, expires);
    printf("%" PRIu64, record->seq);
    put_field(time, false);
    put_name(record_event_name(record->event));
    put_field(record->key, false);
    put_number(record->generation, record->generation != 0);
    put_number(actor->uid, actor->present);
    put_number(actor->gid, actor->present);
    put_number(actor->pid, actor->present);
    put_field(actor->unit, false);
    put_field(actor->exe, false);
    put_name(record_reason_name(record->reason));
    put_field(record->ticket, false);
    put_field(record->lease, false);
    put_field(expires, false);
    put_field(record->request, false);
    put_field(record->code != ERROR_OK ? error_code_name(record->code) : "", false);
    put_field(record->operator_name, false);
    put_field(record->detail, false);
    put_field(record->peer, false);
    put_field(record->peer_key, false);
    put_number(record->peer_generation, record->peer_generation != 0);
    put_name(record_peer_state_name(record->peer_state));
    put_name(record_bundle_state_name(record->bundle_state));
    put_field(record->method, false);
    printf("\r\n");
}

// ---- either ----

void record_print_head(enum print_form form)
{
    if (form == PRINT_TABLE)
        print_row(" INDEX", "TIME (UTC)", "EVENT", "KEY/GEN", "UID", "WHY OR HOW");
    else if (form == PRINT_CSV)
        printf("index,time,event,key,generation,uid,gid,pid,unit,exe,reason,ticket,lease,expires,"
               "request,code,operator,detail,peer,peer_key,peer_generation,peer_state,bundle_state,"
               "method\r\n");
}

void record_print(enum print_form form, const struct record *record, const char *line,
                  size_t length)
{
    if (form == PRINT_TABLE)
        print_table_row(record);
    else if (form == PRINT_CSV)
        print_csv(record);
    else
        printf("%.*s\n", (int)length, line);
}
