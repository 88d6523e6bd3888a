// SPDX-License-Identifier: Apache-2.0
// The text of a key bundle: written from a record, and read strictly.
#include "bundle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

void bundle_from_record(struct bundle *bundle, const struct record *record)
{
    memset(bundle, 0, sizeof(*bundle));
    memcpy(bundle->host, record->host, sizeof(bundle->host));
    memcpy(bundle->key, record->key, sizeof(bundle->key));
    bundle->generation = record->generation;
    memcpy(bundle->public_key, record->public_key, sizeof(bundle->public_key));
    bundle->not_before_us = record->not_before_us;
    bundle->not_after_us = record->not_after_us;
}

int bundle_format(const struct bundle *bundle, char text[BUNDLE_TEXT_MAX])
{
    char public_key[sodium_base64_ENCODED_LEN(RECORD_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)];
    char not_before[RECORD_TIME_SIZE];
    char not_after[RECORD_TIME_SIZE];
    if (record_time_format(bundle->not_before_us, not_before) != 0 ||
        record_time_format(bundle->not_after_us, not_after) != 0)
        return -1;
    sodium_bin2base64(public_key, sizeof(public_key), bundle->public_key, RECORD_KEY_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    return snprintf(text, BUNDLE_TEXT_MAX,
                    "custody bundle v1\n"
                    "host %s\n"
                    "key %s\n"
                    "generation %" PRIu64 "\n"
                    "public-key %s\n"
                    "not-before %s\n"
                    "not-after %s\n",
                    bundle->host, bundle->key, bundle->generation, public_key, not_before,
                    not_after);
}

// Takes the next line, which must begin with `name`; the value is what is left of it.
static bool take(struct lines *lines, const char *name, struct line *value)
{
    return lines_next(lines, value) && line_skip(value, name);
}

static bool take_string(struct lines *lines, const char *name, char *text, size_t size)
{
    struct line value;
    if (!take(lines, name, &value) || value.length >= size ||
        memchr(value.text, '\0', value.length) != NULL)
        return false;
    memcpy(text, value.text, value.length);
    text[value.length] = '\0';
    return true;
}

static bool take_time(struct lines *lines, const char *name, int64_t *time_us)
{
    struct line value;
    return take(lines, name, &value) && record_time_parse(value.text, value.length, time_us) == 0;
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct bundle *bundle, struct lines *lines)
{
    struct line value;
    if (!take(lines, "custody bundle v1", &value) || value.length != 0)
        return "custody bundle v1";
    if (!take_string(lines, "host ", bundle->host, sizeof(bundle->host)) ||
        !name_is_host(bundle->host))
        return "host";
    if (!take_string(lines, "key ", bundle->key, sizeof(bundle->key)) || !name_is_key(bundle->key))
        return "key";
    if (!take(lines, "generation ", &value) || !line_decimal(&value, &bundle->generation) ||
        bundle->generation == 0)
        return "generation";
    if (!take(lines, "public-key ", &value) ||
        !line_base64(&value, bundle->public_key, sizeof(bundle->public_key)))
        return "public-key";
    if (!take_time(lines, "not-before ", &bundle->not_before_us))
        return "not-before";
    if (!take_time(lines, "not-after ", &bundle->not_after_us) ||
        bundle->not_after_us < bundle->not_before_us)
        return "not-after";
    return NULL;
}

int bundle_parse(struct bundle *bundle, const char *text, size_t length, struct error *err)
{
    memset(bundle, 0, sizeof(*bundle));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(bundle, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the bundle's line \"%s\" is missing, out of place or wrong", wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the bundle has more lines than it should");
    return 0;
}
