// SPDX-License-Identifier: Apache-2.0
// Freshness notes: the one text that a record makes, read back, and every other refused.
#include "freshness.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

#define SHA    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD   "custody freshness v1\n"
#define HOST   "host alpha\n"
#define KEY    "key wg0\n"
#define NUMBER "generation 7\n"
#define BUNDLE "bundle " SHA "\n"
#define TIME   "time 2026-11-22T10:11:12.123456Z\n"
#define TEXT   HEAD HOST KEY NUMBER BUNDLE TIME

static struct record refreshed(void)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.event = RECORD_KEY_REFRESHED;
    record_time_parse("2026-11-22T10:11:12.123456Z", 27, &record.time_us);
    strcpy(record.host, "alpha");
    strcpy(record.key, "wg0");
    record.generation = 7;
    strcpy(record.sha256, SHA);
    return record;
}

static void test_round_trip(void)
{
    struct record record = refreshed();
    struct freshness freshness, again;
    char text[FRESHNESS_TEXT_MAX];
    freshness_from_record(&freshness, &record);
    CU_ASSERT_EQUAL(freshness_format(&freshness, text), (int)strlen(TEXT));
    CU_ASSERT_STRING_EQUAL(text, TEXT);
    CU_ASSERT_EQUAL(freshness_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &freshness, sizeof(freshness)), 0);
    memset(record.host, 'h', HOST_MAX);
    memset(record.key, 'k', KEY_MAX);
    record.generation = UINT64_MAX;
    freshness_from_record(&freshness, &record);
    CU_ASSERT_EQUAL(freshness_check(&freshness, NULL), 0);
    CU_ASSERT(freshness_format(&freshness, text) < FRESHNESS_TEXT_MAX);
}

static void test_check(void)
{
    struct record record = refreshed();
    struct freshness good, bad;
    struct error err;
    freshness_from_record(&good, &record);
    bad = good;
    bad.bundle_sha256[0] = '\0';
    CU_ASSERT_EQUAL(freshness_check(&bad, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    bad = good;
    bad.time_us = -1;
    CU_ASSERT_EQUAL(freshness_check(&bad, NULL), -1);
    bad = good;
    bad.generation = 0;
    CU_ASSERT_EQUAL(freshness_check(&bad, NULL), -1);
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        "custody freshness v2\n" HOST KEY NUMBER BUNDLE TIME,
        HEAD KEY HOST NUMBER BUNDLE TIME,
        HEAD HOST NUMBER BUNDLE TIME,
        HEAD "host Alpha\n" KEY NUMBER BUNDLE TIME,
        HEAD HOST "key -\n" NUMBER BUNDLE TIME,
        HEAD HOST KEY "generation 0\n" BUNDLE TIME,
        HEAD HOST KEY NUMBER "bundle -\n" TIME,
        HEAD HOST KEY NUMBER "bundle " SHA "0\n" TIME,
        HEAD HOST KEY NUMBER BUNDLE,
        HEAD HOST KEY NUMBER BUNDLE "time 2026-11-22T10:11:12Z\n",
        TEXT "\n",
        TEXT TIME,
    };
    struct freshness freshness;
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(freshness_parse(&freshness, bad[i], strlen(bad[i]), &err), -1);
    static const char text[] = TEXT;
    for (size_t length = 0; length < sizeof(text) - 1; length++)
        CU_ASSERT_EQUAL(freshness_parse(&freshness, text, length, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"from a record to the text and back", test_round_trip},
        {"what has no text", test_check},
        {"every other text is refused", test_refused},
        CU_TEST_INFO_NULL,
    };
    return tap_run("freshness", tests);
}
