// SPDX-License-Identifier: Apache-2.0
// Acknowledgements: the one text that a record makes, read back, and every other refused.
#include "acknowledgement.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

// The public key is bytes 0 to 31.
#define SHA     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEAD    "custody acknowledgement v1\n"
#define HOST    "host beta\n"
#define KEY     "key wg1\n"
#define PEER    "peer alpha\npeer-key wg0\n"
#define NUMBER  "generation 7\n"
#define PUBLIC  "public-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define MOVE    "state staged\nmove-sha256 " SHA "\n"
#define TIME    "time 2026-11-22T10:11:12.123456Z\n"
#define WHOM    HEAD HOST KEY PEER
#define WHAT    NUMBER PUBLIC
#define STAGED  WHOM WHAT MOVE TIME
#define RETIRED WHOM WHAT "state retired\nmove-sha256 -\n" TIME

static struct record stated(enum record_event event)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.event = event;
    record_time_parse("2026-11-22T10:11:12.123456Z", 27, &record.time_us);
    strcpy(record.host, "beta");
    strcpy(record.key, "wg1");
    strcpy(record.peer, "alpha");
    strcpy(record.peer_key, "wg0");
    record.peer_generation = 7;
    for (uint8_t i = 0; i < RECORD_KEY_SIZE; i++)
        record.peer_public_key[i] = i;
    if (event == RECORD_PEER_STAGED)
        strcpy(record.move_sha256, SHA);
    return record;
}

static void round_trip(const struct record *record, const char *expected)
{
    struct acknowledgement ack, again;
    char text[ACKNOWLEDGEMENT_TEXT_MAX];
    acknowledgement_from_record(&ack, record);
    CU_ASSERT_EQUAL(acknowledgement_format(&ack, text), (int)strlen(text));
    CU_ASSERT(expected == NULL || strcmp(text, expected) == 0);
    CU_ASSERT_EQUAL(acknowledgement_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &ack, sizeof(ack)), 0);
    CU_ASSERT_EQUAL(acknowledgement_check(&ack, NULL), 0);
}

static void test_round_trip(void)
{
    struct record staged = stated(RECORD_PEER_STAGED), retired = stated(RECORD_PEER_RETIRED);
    round_trip(&staged, STAGED);
    round_trip(&retired, RETIRED);
    memset(staged.host, 'h', HOST_MAX);
    memset(staged.peer, 'p', HOST_MAX);
    memset(staged.key, 'k', KEY_MAX);
    memset(staged.peer_key, 'K', KEY_MAX);
    staged.peer_generation = UINT64_MAX;
    round_trip(&staged, NULL);
}

// Of other records nothing is acknowledged.
static void test_check(void)
{
    for (unsigned event = 0; event < RECORD_EVENTS; event++) {
        struct record record = stated(event);
        struct acknowledgement ack;
        struct error err = {.code = ERROR_OK};
        acknowledgement_from_record(&ack, &record);
        bool fits = event == RECORD_PEER_STAGED || event == RECORD_PEER_RETIRED;
        CU_ASSERT_EQUAL(acknowledgement_check(&ack, &err), fits ? 0 : -1);
        CU_ASSERT_EQUAL(err.code, fits ? ERROR_OK : ERROR_INVALID_ARGUMENT);
        ack.time_us = -1;
        CU_ASSERT_EQUAL(acknowledgement_check(&ack, NULL), -1);
    }
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        "custody acknowledgement v2\n" HOST KEY PEER WHAT MOVE TIME,
        HEAD KEY HOST PEER WHAT MOVE TIME,
        HEAD HOST PEER WHAT MOVE TIME,
        HEAD HOST KEY "peer alpha\n" WHAT MOVE TIME,
        HEAD HOST KEY "peer Alpha\npeer-key wg0\n" WHAT MOVE TIME,
        HEAD HOST KEY "peer alpha\npeer-key .wg0\n" WHAT MOVE TIME,
        HEAD "host -\n" KEY PEER WHAT MOVE TIME,
        HEAD HOST "key -\n" PEER WHAT MOVE TIME,
        WHOM "generation 0\n" PUBLIC MOVE TIME,
        WHOM "generation 18446744073709551616\n" PUBLIC MOVE TIME,
        WHOM NUMBER "public-key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" MOVE TIME,
        WHOM NUMBER "public-key -\n" MOVE TIME,
        WHOM WHAT "state moved\nmove-sha256 -\n" TIME,
        WHOM WHAT "state -\nmove-sha256 -\n" TIME,
        WHOM WHAT "state staged\nmove-sha256 -\n" TIME,
        WHOM WHAT "state retired\nmove-sha256 " SHA "\n" TIME,
        WHOM WHAT "state staged\nmove-sha256 " SHA "0\n" TIME,
        WHOM WHAT MOVE,
        WHOM WHAT MOVE "time -\n",
        STAGED "\n",
        STAGED TIME,
    };
    struct acknowledgement ack;
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(acknowledgement_parse(&ack, bad[i], strlen(bad[i]), &err), -1);
    static const char text[] = STAGED;
    for (size_t length = 0; length < sizeof(text) - 1; length++)
        CU_ASSERT_EQUAL(acknowledgement_parse(&ack, text, length, NULL), -1);
    static const char with_nul[] = HEAD "host beta\0\n" KEY PEER WHAT MOVE TIME;
    CU_ASSERT_EQUAL(acknowledgement_parse(&ack, with_nul, sizeof(with_nul) - 1, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"from a record to the text and back", test_round_trip},
        {"which records have one", test_check},
        {"every other text is refused", test_refused},
        CU_TEST_INFO_NULL,
    };
    return tap_run("acknowledgement", tests);
}
