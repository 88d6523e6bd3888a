// SPDX-License-Identifier: Apache-2.0
// Bundles: the one text that a record makes, read back, and every other refused.
#include "bundle.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"

// The public key is bytes 0 to 31, the receive key 32 bytes of 1; the times are
// 2026-11-22T10:11:12.123456Z and thirty days later.
#define SHA     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD    "custody bundle v1\n"
#define HOST    "host alpha\n"
#define KEY     "key wg0\n"
#define NUMBER  "generation 7\n"
#define STATE   "state pre-active\n"
#define PUBLIC  "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define RECEIVE "receive-key AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n"
#define PLACE   "address fd00::1:2\nport 51821\npeers 3\n"
#define BEFORE  "not-before 2026-11-22T10:11:12.123456Z\n"
#define AFTER   "not-after 2026-12-22T10:11:12.123456Z\n"
#define LAST    "previous " SHA "\n"
#define NAMES   HEAD HOST KEY NUMBER
#define KEYS    PUBLIC RECEIVE
#define TIMES   BEFORE AFTER
#define TEXT    NAMES STATE KEYS PLACE TIMES LAST
#define SHORT                                                                                      \
    NAMES "state active\n" PUBLIC "receive-key -\naddress -\nport -\npeers 0\n" TIMES "previous "  \
          "-\n"

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
    record.bundle_state = BUNDLE_PRE_ACTIVE;
    memset(record.receive_key, 1, sizeof(record.receive_key));
    strcpy(record.address, "fd00::1:2");
    record.port = 51821;
    record.count = 3;
    strcpy(record.previous, SHA);
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

static void test_without_what_may_be_absent(void)
{
    struct record record = published();
    struct bundle bundle, again;
    char text[BUNDLE_TEXT_MAX];
    record.bundle_state = BUNDLE_ACTIVE;
    memset(record.receive_key, 0, sizeof(record.receive_key));
    record.address[0] = record.previous[0] = '\0';
    memset(record.address, 0, sizeof(record.address));
    memset(record.previous, 0, sizeof(record.previous));
    record.port = 0;
    record.count = 0;
    bundle_from_record(&bundle, &record);
    CU_ASSERT_EQUAL(bundle_format(&bundle, text), (int)strlen(SHORT));
    CU_ASSERT_STRING_EQUAL(text, SHORT);
    CU_ASSERT_EQUAL(bundle_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &bundle, sizeof(bundle)), 0);
}

static void test_digest(void)
{
    struct record record = published();
    struct bundle bundle;
    char sha256[65], expected[65];
    uint8_t digest[crypto_hash_sha256_BYTES];
    bundle_from_record(&bundle, &record);
    bundle_digest(&bundle, sha256);
    crypto_hash_sha256(digest, (const uint8_t *)TEXT, strlen(TEXT));
    sodium_bin2hex(expected, sizeof(expected), digest, sizeof(digest));
    CU_ASSERT_STRING_EQUAL(sha256, expected);
    bundle.not_before_us = -1;
    bundle_digest(&bundle, sha256);
    CU_ASSERT_STRING_EQUAL(sha256, "");
}

// A record whose bundle nobody would take.
static void test_check(void)
{
    struct record record = published();
    struct bundle good, bad;
    struct error err;
    bundle_from_record(&good, &record);
    CU_ASSERT_EQUAL(bundle_check(&good, NULL), 0);
    bad = good;
    bad.state = BUNDLE_NONE;
    CU_ASSERT_EQUAL(bundle_check(&bad, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    bad = good;
    bad.port = 65536;
    CU_ASSERT_EQUAL(bundle_check(&bad, NULL), -1);
    bad = good;
    bad.port = 0;
    CU_ASSERT_EQUAL(bundle_check(&bad, NULL), -1);
    bad = good;
    strcpy(bad.address, "10.0.0.01");
    CU_ASSERT_EQUAL(bundle_check(&bad, NULL), -1);
    bad = good;
    bad.not_after_us = INT64_MAX;
    CU_ASSERT_EQUAL(bundle_check(&bad, NULL), -1);
    bad = good;
    memset(bad.public_key, 0, sizeof(bad.public_key));
    CU_ASSERT_EQUAL(bundle_check(&bad, NULL), -1);
}

static void test_longest(void)
{
    struct record record = published();
    struct bundle bundle, again;
    memset(record.host, 'h', HOST_MAX);
    memset(record.key, 'k', KEY_MAX);
    record.generation = UINT64_MAX;
    record.bundle_state = BUNDLE_COMPROMISED;
    record.port = UINT16_MAX;
    strcpy(record.address, "1111:2222:3333:4444:5555:6666:7777:8888");
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
        "custody bundle v2\n" HOST KEY NUMBER STATE KEYS PLACE TIMES LAST,
        "custody bundle v1 \n" HOST KEY NUMBER STATE KEYS PLACE TIMES LAST,
        HOST KEY NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD KEY HOST NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD HOST NUMBER STATE KEYS PLACE TIMES LAST,
        NAMES KEYS PLACE TIMES LAST,
        NAMES STATE PUBLIC PLACE TIMES LAST,
        NAMES STATE KEYS TIMES LAST,
        NAMES STATE KEYS PLACE TIMES,
        TEXT "\n",
        TEXT "more x\n",
        TEXT LAST,
        HEAD "host Alpha\n" KEY NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD "host \n" KEY NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD "host  alpha\n" KEY NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD HOST "key .wg0\n" NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD HOST "key wg0 \n" NUMBER STATE KEYS PLACE TIMES LAST,
        HEAD HOST KEY "generation 0\n" STATE KEYS PLACE TIMES LAST,
        HEAD HOST KEY "generation 07\n" STATE KEYS PLACE TIMES LAST,
        NAMES "state -\n" KEYS PLACE TIMES LAST,
        NAMES "state Active\n" KEYS PLACE TIMES LAST,
        NAMES "state deactivated\n" KEYS PLACE TIMES LAST,
        NAMES STATE "public-key -\n" RECEIVE PLACE TIMES LAST,
        NAMES STATE
        "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==\n" RECEIVE PLACE TIMES LAST,
        NAMES STATE
        "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n" RECEIVE PLACE TIMES LAST,
        NAMES STATE
        "public-key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" RECEIVE PLACE TIMES LAST,
        NAMES STATE PUBLIC
        "receive-key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" PLACE TIMES LAST,
        NAMES STATE KEYS "address fd00::1:2\nport -\n" TIMES LAST,
        NAMES STATE KEYS "address -\nport 51821\n" TIMES LAST,
        NAMES STATE KEYS "address fd00::1:2\nport 0\n" TIMES LAST,
        NAMES STATE KEYS "address fd00::1:2\nport 65536\n" TIMES LAST,
        NAMES STATE KEYS "address fd00::1:2\nport 051821\n" TIMES LAST,
        NAMES STATE KEYS "address FD00::1:2\nport 51821\n" TIMES LAST,
        NAMES STATE KEYS "address fd00:0::1:2\nport 51821\n" TIMES LAST,
        NAMES STATE KEYS "address 10.0.0.256\nport 51821\n" TIMES LAST,
        NAMES STATE KEYS "address alpha.example\nport 51821\n" TIMES LAST,
        NAMES STATE KEYS "address 10.0.0.1 \nport 51821\n" TIMES LAST,
        NAMES STATE KEYS PLACE "not-before 2026-11-31T10:11:12.123456Z\n" AFTER LAST,
        NAMES STATE KEYS PLACE "not-before 2026-11-22T10:11:12Z\n" AFTER LAST,
        NAMES STATE KEYS PLACE "not-before 2026-12-23T10:11:12.123456Z\n" AFTER LAST,
        NAMES STATE KEYS PLACE "not-before 2026-12-22T10:11:12.123456Z\n" AFTER LAST,
        NAMES STATE KEYS PLACE BEFORE "not-after 2026-12-22 10:11:12.123456Z\n" LAST,
        NAMES STATE KEYS PLACE TIMES "previous \n",
        NAMES STATE KEYS PLACE TIMES "previous " SHA "0\n",
        NAMES STATE KEYS PLACE TIMES
        "previous 0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef\n",
    };
    struct bundle bundle;
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(bundle_parse(&bundle, bad[i], strlen(bad[i]), &err), -1);
    static const char text[] = TEXT;
    for (size_t length = 0; length < sizeof(text) - 1; length++)
        CU_ASSERT_EQUAL(bundle_parse(&bundle, text, length, NULL), -1);
    static const char with_nul[] = HEAD "host alpha\0\n" KEY NUMBER STATE KEYS PLACE TIMES LAST;
    CU_ASSERT_EQUAL(bundle_parse(&bundle, with_nul, sizeof(with_nul) - 1, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"from a record to the text and back", test_round_trip},
        {"without what may be absent", test_without_what_may_be_absent},
        {"its digest", test_digest},
        {"what has no text", test_check},
        {"the longest", test_longest},
        {"times that have no text", test_times_out_of_range},
        {"every other text is refused", test_refused},
        CU_TEST_INFO_NULL,
    };
    return tap_run("bundle", tests);
}
