// SPDX-License-Identifier: Apache-2.0
// Findings and notes on standard output.
#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>
#include <sodium.h>

#include "name.h"

#define TEXT_MAX 1024

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

static void print_json(json_t *object)
{
    if (object == NULL) {
        printf("{\"finding\":\"out of memory\"}\n");
        return;
    }
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static void set_number(json_t *object, const char *name, uint64_t value)
{
    if (value <= INT64_MAX)
        json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void say(struct report *report, const char *kind, const char *file,
                const struct log_place *place, uint64_t index, char *text)
{
    make_printable(text);
    if (report->json) {
        json_t *object = json_pack("{s:s}", kind, text);
        if (object != NULL && file != NULL)
            json_object_set_new(object, "file", json_string(file));
        if (object != NULL && place != NULL && place->line > 0)
            set_number(object, "line", place->line);
        if (object != NULL && index != REPORT_NO_INDEX)
            set_number(object, "record", index);
        print_json(object);
        return;
    }
    if (strcmp(kind, "note") == 0)
        printf("note: ");
    if (file != NULL)
        printf("%s:", file);
    if (place != NULL && place->line > 0)
        printf("%" PRIu64 ":", place->line);
    if (index != REPORT_NO_INDEX)
        printf(" record %" PRIu64 ":", index);
    printf("%s%s\n", file != NULL ? " " : "", text);
}

void report_line(struct report *report, const struct log_place *place, uint64_t index,
                 const char *format, ...)
{
    char text[TEXT_MAX], file[SEGMENT_NAME_SIZE + 8];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(file, sizeof(file), "log%s%s", place->segment[0] != '\0' ? "/" : "", place->segment);
    report->findings++;
    say(report, "finding", file, place, index, text);
}

void report_file(struct report *report, const char *file, const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    report->findings++;
    say(report, "finding", file, NULL, REPORT_NO_INDEX, text);
}

void report_note(struct report *report, const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say(report, "note", NULL, NULL, REPORT_NO_INDEX, text);
}

void report_verdict(const struct report *report, uint64_t records, uint64_t signed_size,
                    const struct merkle_hash *root)
{
    char base64[sodium_base64_ENCODED_LEN(MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL)] = "";
    if (root != NULL)
        sodium_bin2base64(base64, sizeof(base64), root->bytes, sizeof(root->bytes),
                          sodium_base64_VARIANT_ORIGINAL);
    if (report->json) {
        json_t *object = json_pack("{s:b}", "sound", report->findings == 0);
        set_number(object, "findings", report->findings);
        set_number(object, "records", records);
        if (root != NULL) {
            set_number(object, "signed", signed_size);
            json_object_set_new(object, "root", json_string(base64));
        }
        print_json(object);
    } else if (report->findings > 0) {
        printf("NOT SOUND: %" PRIu64 " finding%s\n", report->findings,
               report->findings == 1 ? "" : "s");
    } else {
        printf("sound: %" PRIu64 " records, signed head %" PRIu64 ", root %s\n", records,
               signed_size, base64);
    }
}
