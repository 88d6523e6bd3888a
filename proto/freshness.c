// SPDX-License-Identifier: Apache-2.0
// The text of a freshness note: written from a record, and read strictly.
#include "freshness.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lines.h"
#include "name.h"

void freshness_from_record(struct freshness *freshness, const struct record *record)
{
    memset(freshness, 0, sizeof(*freshness));
    memcpy(freshness->host, record->host, sizeof(freshness->host));
    memcpy(freshness->key, record->key, sizeof(freshness->key));
    freshness->generation = record->generation;
    memcpy(freshness->bundle_sha256, record->sha256, sizeof(freshness->bundle_sha256));
    freshness->time_us = record->time_us;
}

int freshness_format(const struct freshness *freshness, char text[FRESHNESS_TEXT_MAX])
{
    char time[RECORD_TIME_SIZE];
    if (record_time_format(freshness->time_us, time) != 0)
        return -1;
    return snprintf(text, FRESHNESS_TEXT_MAX,
                    "custody freshness v1\n"
                    "host %s\n"
                    "key %s\n"
                    "generation %" PRIu64 "\n"
                    "bundle %s\n"
                    "time %s\n",
                    freshness->host, freshness->key, freshness->generation,
                    freshness->bundle_sha256, time);
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct freshness *freshness, struct lines *lines)
{
    struct line value;
    if (!lines_take(lines, "custody freshness v1", &value) || value.length != 0)
        return "custody freshness v1";
    if (!lines_take_text(lines, "host ", freshness->host, sizeof(freshness->host)) ||
        !name_is_host(freshness->host))
        return "host";
    if (!lines_take_text(lines, "key ", freshness->key, sizeof(freshness->key)) ||
        !name_is_key(freshness->key))
        return "key";
    if (!lines_take(lines, "generation ", &value) ||
        !line_decimal(&value, &freshness->generation) || freshness->generation == 0)
        return "generation";
    if (!lines_take(lines, "bundle ", &value) || !line_hex(&value, freshness->bundle_sha256, 64))
        return "bundle";
    return lines_take(lines, "time ", &value) &&
                   record_time_parse(value.text, value.length, &freshness->time_us) == 0
               ? NULL
               : "time";
}

int freshness_parse(struct freshness *freshness, const char *text, size_t length, struct error *err)
{
    memset(freshness, 0, sizeof(*freshness));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(freshness, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the freshness note's line \"%s\" is missing, out of place or wrong",
                         wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the freshness note has more lines than it should");
    return 0;
}

int freshness_check(const struct freshness *freshness, struct error *err)
{
    char text[FRESHNESS_TEXT_MAX];
    struct freshness read;
    int length = freshness_format(freshness, text);
    if (length < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the freshness note's time is out of range");
    return freshness_parse(&read, text, (size_t)length, err);
}
