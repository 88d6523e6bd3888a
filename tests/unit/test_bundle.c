// SPDX-License-Identifier: Apache-2.0
// Bundles: the one text that a record makes, read back, and every other refused.
#include "bundle.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

// The public key is bytes 0 to 31; the times are 2026-11-22T10:11:12.123456Z and thirty days later.
#define HEAD   "custody bundle v1\n"
#define HOST   "host alpha\n"
#define KEY    "key wg0\n"
#define NUMBER "generation 7\n"
#define PUBLIC "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define BEFORE "not-before 2026-11-22T10:11:12.123456Z\n"
#define AFTER  "not-after 2026-12-22T10:11:12.123456Z\n"
#define TEXT   HEAD HOST KEY NUMBER PUBLIC BEFORE AFTER

static struct record published(void)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.event = RECORD_KEY_PUBLISHED;
    strcpy(record.host, "alpha");
    strcpy(record.key, "wg0");
    record.generation = 7;
    for (uint8_t i = 0; i < RECORD_KEY_SIZE; i++)
        record.public_key[i] = i;
    record_time_parse("2026-11-22T10:11:12.123456Z", 27, &record.not_before_us);
    record.not_after_us = record.not_before_us + INT64_C(30) * 86400 * 1000000;
    return record;
}

static void test_round_trip(void)
{
    struct record record = published();
    struct bundle bundle, again;
    char text[BUNDLE_TEXT_MAX];
    bundle_from_record(&bundle, &record);
    CU_ASSERT_EQUAL(bundle_format(&bundle, text), (int)strlen(TEXT));
    CU_ASSERT_STRING_EQUAL(text, TEXT);
    CU_ASSERT_EQUAL(bundle_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &bundle, sizeof(bundle)), 0);
}

static void test_longest(void)
{
    struct record record = published();
    struct bundle bundle, again;
    memset(record.host, 'h', HOST_MAX);
    memset(record.key, 'k', KEY_MAX);
    record.generation = UINT64_MAX;
    char text[BUNDLE_TEXT_MAX];
    bundle_from_record(&bundle, &record);
    int length = bundle_format(&bundle, text);
    CU_ASSERT(length > 0 && length < BUNDLE_TEXT_MAX);
    CU_ASSERT_EQUAL(bundle_parse(&again, text, (size_t)length, NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &bundle, sizeof(bundle)), 0);
}

static void test_times_out_of_range(void)
{
    struct record record = published();
    struct bundle bundle;
    char text[BUNDLE_TEXT_MAX];
    record.not_after_us = INT64_MAX;
    bundle_from_record(&bundle, &record);
    CU_ASSERT_EQUAL(bundle_format(&bundle, text), -1);
    bundle.not_after_us = bundle.not_before_us;
    bundle.not_before_us = -1;
    CU_ASSERT_EQUAL(bundle_format(&bundle, text), -1);
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        HEAD,
        "custody bundle v2\n" HOST KEY NUMBER PUBLIC BEFORE AFTER,
        "custody bundle v1 \n" HOST KEY NUMBER PUBLIC BEFORE AFTER,
        HOST KEY NUMBER PUBLIC BEFORE AFTER,
        HEAD KEY HOST NUMBER PUBLIC BEFORE AFTER,
        HEAD HOST NUMBER PUBLIC BEFORE AFTER,
        HEAD HOST KEY NUMBER PUBLIC BEFORE,
        HEAD HOST KEY NUMBER PUBLIC BEFORE AFTER "\n",
        HEAD HOST KEY NUMBER PUBLIC BEFORE AFTER "more x\n",
        HEAD HOST KEY NUMBER PUBLIC BEFORE AFTER AFTER,
        HEAD "host Alpha\n" KEY NUMBER PUBLIC BEFORE AFTER,
        HEAD "host \n" KEY NUMBER PUBLIC BEFORE AFTER,
        HEAD "host  alpha\n" KEY NUMBER PUBLIC BEFORE AFTER,
        HEAD HOST "key .wg0\n" NUMBER PUBLIC BEFORE AFTER,
        HEAD HOST "key wg0 \n" NUMBER PUBLIC BEFORE AFTER,
        HEAD HOST KEY "generation 0\n" PUBLIC BEFORE AFTER,
        HEAD HOST KEY "generation 07\n" PUBLIC BEFORE AFTER,
        HEAD HOST KEY NUMBER
        "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==\n" BEFORE AFTER,
        HEAD HOST KEY NUMBER
        "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n" BEFORE AFTER,
        HEAD HOST KEY NUMBER PUBLIC "not-before 2026-11-31T10:11:12.123456Z\n" AFTER,
        HEAD HOST KEY NUMBER PUBLIC "not-before 2026-11-22T10:11:12Z\n" AFTER,
        HEAD HOST KEY NUMBER PUBLIC "not-before 2026-12-23T10:11:12.123456Z\n" AFTER,
        HEAD HOST KEY NUMBER PUBLIC BEFORE "not-after 2026-12-22 10:11:12.123456Z\n",
    };
    struct bundle bundle;
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(bundle_parse(&bundle, bad[i], strlen(bad[i]), &err), -1);
    static const char text[] = TEXT;
    for (size_t length = 0; length < sizeof(text) - 1; length++)
        CU_ASSERT_EQUAL(bundle_parse(&bundle, text, length, NULL), -1);
    static const char with_nul[] = HEAD "host alpha\0\n" KEY NUMBER PUBLIC BEFORE AFTER;
    CU_ASSERT_EQUAL(bundle_parse(&bundle, with_nul, sizeof(with_nul) - 1, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"from a record to the text and back", test_round_trip},
        {"the longest", test_longest},
        {"times that have no text", test_times_out_of_range},
        {"every other text is refused", test_refused},
        CU_TEST_INFO_NULL,
    };
    return tap_run("bundle", tests);
}
