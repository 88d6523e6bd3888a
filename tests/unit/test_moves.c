// SPDX-License-Identifier: Apache-2.0
// Move datagrams: what is written reads back, and nothing else is taken for one.
#include "tools/applier/moves.h"

#include <string.h>

#include "tap.h"

static const struct move sound = {
    .kind = MOVE_MOVED,
    .host = "alpha.example",
    .key = "wg0",
    .generation = UINT64_C(0x0102030405060708),
    .bytes = {0xff, 0, 1, [31] = 0x80},
};

static void test_layout(void)
{
    uint8_t datagram[MOVES_DATAGRAM_MAX];
    static const uint8_t begin[] = "custody-move1\3\15alpha.example\3wg0\1\2\3\4\5\6\7\10";
    size_t length = move_format(&sound, datagram);
    CU_ASSERT_EQUAL(length, sizeof begin - 1 + MOVES_SECRET_SIZE);
    CU_ASSERT_EQUAL(memcmp(datagram, begin, sizeof begin - 1), 0);
    CU_ASSERT_EQUAL(memcmp(datagram + sizeof begin - 1, sound.bytes, MOVES_SECRET_SIZE), 0);
}

static void fill(char *text, size_t length, char with)
{
    memset(text, with, length);
    text[length] = '\0';
}

static void test_round_trip(void)
{
    static const enum move_kind kinds[] = {MOVE_ASK, MOVE_READY, MOVE_MOVED, MOVE_LAST};
    static const uint64_t generations[] = {0, 1, 2, UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        uint8_t datagram[MOVES_DATAGRAM_MAX];
        struct move move, read;
        memset(&move, 0, sizeof move);
        move.kind = kinds[i];
        move.generation = generations[i];
        memset(move.bytes, (int)(0x55 + i), sizeof move.bytes);
        // The shortest names, and the longest that there can be.
        fill(move.host, i == 0 ? 1 : HOST_MAX, 'h');
        fill(move.key, i == 0 ? 1 : KEY_MAX, 'k');
        size_t length = move_format(&move, datagram);
        CU_ASSERT_TRUE(length <= sizeof datagram);
        CU_ASSERT_EQUAL(move_parse(&read, datagram, length), 0);
        CU_ASSERT_EQUAL(memcmp(&read, &move, sizeof move), 0);
    }
}

static void test_lengths(void)
{
    uint8_t datagram[MOVES_DATAGRAM_MAX + 1] = {0};
    struct move read;
    size_t length = move_format(&sound, datagram);
    for (size_t cut = 0; cut < length; cut++)
        CU_ASSERT_EQUAL(move_parse(&read, datagram, cut), -1);
    CU_ASSERT_EQUAL(move_parse(&read, datagram, length), 0);
    for (size_t more = length + 1; more <= sizeof datagram; more++)
        CU_ASSERT_EQUAL(move_parse(&read, datagram, more), -1);
}

// A sound datagram with one byte changed.
static int parse_changed(size_t at, uint8_t byte)
{
    uint8_t datagram[MOVES_DATAGRAM_MAX];
    struct move read;
    size_t length = move_format(&sound, datagram);
    datagram[at] = byte;
    return move_parse(&read, datagram, length);
}

static void test_strangers(void)
{
    enum { KIND = 13, HOST_LENGTH = 14, HOST = 15, KEY_LENGTH = 28, KEY = 29, GENERATION = 32 };
    for (size_t i = 0; i < KIND; i++)
        CU_ASSERT_EQUAL(parse_changed(i, 'x'), -1);
    for (unsigned kind = 0; kind < 256; kind++)
        CU_ASSERT_EQUAL(parse_changed(KIND, (uint8_t)kind), kind >= 1 && kind <= 4 ? 0 : -1);
    for (unsigned length = 0; length < 256; length++) {
        CU_ASSERT_EQUAL(parse_changed(HOST_LENGTH, (uint8_t)length), length == 13 ? 0 : -1);
        CU_ASSERT_EQUAL(parse_changed(KEY_LENGTH, (uint8_t)length), length == 3 ? 0 : -1);
    }
    // Names that are none.
    static const char bad[] = {'\0', '/', ' ', '\n', 'A', '%', '\x7f', '\xff'};
    for (size_t i = 0; i < sizeof bad; i++) {
        CU_ASSERT_EQUAL(parse_changed(HOST, (uint8_t)bad[i]), -1);
        if (bad[i] != 'A')
            CU_ASSERT_EQUAL(parse_changed(KEY, (uint8_t)bad[i]), -1);
    }
    // Any generation and any bytes are fine.
    CU_ASSERT_EQUAL(parse_changed(GENERATION, 0xff), 0);
    CU_ASSERT_EQUAL(parse_changed(GENERATION + 8, 0), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the layout is what moves.h says", test_layout},
        {"what is written reads back", test_round_trip},
        {"neither more nor fewer bytes", test_lengths},
        {"what is no move datagram is refused", test_strangers},
        CU_TEST_INFO_NULL,
    };
    return tap_run("moves", tests);
}
