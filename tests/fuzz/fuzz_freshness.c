// SPDX-License-Identifier: Apache-2.0
// Fuzzes a freshness note's text: it has one form, and a record's reads back as what the record
// says.
#include <string.h>

#include "freshness.h"
#include "fuzz.h"

static void fuzz_text(const char *data, size_t size)
{
    struct freshness freshness;
    struct error err = {.code = ERROR_OK};
    char text[FRESHNESS_TEXT_MAX];
    if (freshness_parse(&freshness, data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    int length = freshness_format(&freshness, text);
    REQUIRE(length >= 0 && (size_t)length == size && memcmp(text, data, size) == 0);
}

static void fuzz_record(const char *line, size_t length)
{
    struct record record;
    struct freshness made, read;
    char text[FRESHNESS_TEXT_MAX];
    if (record_parse(&record, line, length, NULL) != 0)
        return;
    freshness_from_record(&made, &record);
    int used = freshness_format(&made, text);
    REQUIRE(used >= 0 && used < FRESHNESS_TEXT_MAX && strlen(text) == (size_t)used);
    bool taken = freshness_parse(&read, text, (size_t)used, NULL) == 0;
    REQUIRE((freshness_check(&made, NULL) == 0) == taken);
    if (!taken)
        return;
    REQUIRE(strcmp(read.host, record.host) == 0 && strcmp(read.key, record.key) == 0);
    REQUIRE(strcmp(read.bundle_sha256, record.sha256) == 0);
    REQUIRE(read.generation == record.generation && read.time_us == record.time_us);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_text((const char *)data, size);
    fuzz_record((const char *)data, size);
    return 0;
}
