// SPDX-License-Identifier: Apache-2.0
// Notes about preshared keys: the one text that a record makes, read back, and every other refused.
#include "psk_note.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

// The receive key is bytes 0 to 31, the box bytes of 1.
#define HEAD    "custody psk v1\n"
#define HOST    "host alpha\n"
#define KEY     "key wg0\n"
#define PEER    "peer beta\n"
#define THEIRS  "peer-key wg1\n"
#define EPOCH   "epoch 7\n"
#define MADE    "state made\n"
#define RECEIVE "receive-key AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
#define BOX                                                                                        \
    "box AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"                   \
    "EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n"
#define TIME   "time 2026-11-22T10:11:12.123456Z\n"
#define LINK   HEAD HOST KEY PEER THEIRS
#define TEXT   LINK EPOCH MADE RECEIVE BOX TIME
#define DASHES "receive-key -\nbox -\n"

static struct record step(enum record_event event, uint64_t epoch)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.event = event;
    strcpy(record.host, "alpha");
    strcpy(record.key, "wg0");
    strcpy(record.peer, "beta");
    strcpy(record.peer_key, "wg1");
    record.epoch = epoch;
    if (event == RECORD_PSK_GENERATED)
        for (uint8_t i = 0; i < RECORD_KEY_SIZE; i++)
            record.receive_key[i] = i;
    record_time_parse("2026-11-22T10:11:12.123456Z", 27, &record.time_us);
    return record;
}

static void must_be(const struct record *record, const char *wanted)
{
    struct psk_note note, again;
    char text[PSK_NOTE_TEXT_MAX];
    psk_note_from_record(&note, record);
    if (note.state == PSK_NOTE_MADE)
        memset(note.box, 1, sizeof(note.box));
    CU_ASSERT_EQUAL(psk_note_format(&note, text), (int)strlen(wanted));
    CU_ASSERT_STRING_EQUAL(text, wanted);
    CU_ASSERT_EQUAL(psk_note_check(&note, NULL), 0);
    CU_ASSERT_EQUAL(psk_note_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &note, sizeof(note)), 0);
}

static void test_each_state(void)
{
    struct record made = step(RECORD_PSK_GENERATED, 7), taken = step(RECORD_PSK_RECEIVED, 7);
    struct record set = step(RECORD_PSK_SET, 7), none = step(RECORD_PSK_SET, 0);
    must_be(&made, TEXT);
    must_be(&taken, LINK EPOCH "state received\n" DASHES TIME);
    must_be(&set, LINK EPOCH "state set\n" DASHES TIME);
    must_be(&none, LINK "epoch 0\nstate set\n" DASHES TIME);
}

static void test_longest(void)
{
    struct record record = step(RECORD_PSK_GENERATED, INT64_MAX);
    struct psk_note note, again;
    char text[PSK_NOTE_TEXT_MAX];
    memset(record.host, 'h', HOST_MAX);
    memset(record.peer, 'p', HOST_MAX);
    memset(record.key, 'k', KEY_MAX);
    memset(record.peer_key, 'l', KEY_MAX);
    psk_note_from_record(&note, &record);
    memset(note.box, 0xff, sizeof(note.box));
    int length = psk_note_format(&note, text);
    CU_ASSERT(length > 0 && length < PSK_NOTE_TEXT_MAX);
    CU_ASSERT_EQUAL(psk_note_parse(&again, text, (size_t)length, NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &note, sizeof(note)), 0);
}

static void test_other_records_make_none(void)
{
    struct record record = step(RECORD_PSK_DESTROYED, 7);
    struct psk_note note;
    psk_note_from_record(&note, &record);
    CU_ASSERT_EQUAL(note.state, PSK_NOTE_NONE);
    CU_ASSERT_EQUAL(psk_note_check(&note, NULL), -1);
}

static void test_refused(void)
{
    static const char *const texts[] = {
        "",
        LINK EPOCH MADE RECEIVE BOX,                                    // cut short
        TEXT "\n",                                                      // more lines
        LINK EPOCH MADE RECEIVE BOX "time 2026-11-22T10:11:12.123456Z", // no newline
        "custody psk v2\n" HOST KEY PEER THEIRS EPOCH MADE RECEIVE BOX TIME,
        HEAD KEY HOST PEER THEIRS EPOCH MADE RECEIVE BOX TIME, // out of order
        HEAD "host Alpha\n" KEY PEER THEIRS EPOCH MADE RECEIVE BOX TIME,
        HEAD HOST "key .wg0\n" PEER THEIRS EPOCH MADE RECEIVE BOX TIME,
        HEAD HOST KEY "peer \n" THEIRS EPOCH MADE RECEIVE BOX TIME,
        LINK "epoch 0\n" MADE RECEIVE BOX TIME,
        LINK "epoch 07\n" MADE RECEIVE BOX TIME,
        LINK "epoch -1\n" MADE RECEIVE BOX TIME,
        LINK "epoch 9223372036854775808\n" MADE RECEIVE BOX TIME,
        LINK EPOCH "state lost\n" RECEIVE BOX TIME,
        LINK EPOCH "state received\n" RECEIVE BOX TIME, // what only the maker says
        LINK EPOCH MADE DASHES TIME,
        LINK EPOCH MADE RECEIVE "box -\n" TIME,
        LINK EPOCH MADE RECEIVE RECEIVE TIME,
        LINK "epoch 0\nstate received\n" DASHES TIME,
        LINK EPOCH MADE RECEIVE BOX "time 2026-11-22T10:11:12Z\n",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct psk_note note;
        struct error err = {.code = ERROR_OK};
        int done = psk_note_parse(&note, texts[i], strlen(texts[i]), &err);
        CU_ASSERT_EQUAL(done, -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
        if (done == 0)
            printf("# taken: %zu\n", i);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"each state has one text", test_each_state},
                           {"the longest fits", test_longest},
                           {"other records make no note", test_other_records_make_none},
                           {"every other text is refused", test_refused},
                           CU_TEST_INFO_NULL};
    return tap_run("psk_note", tests);
}
