// SPDX-License-Identifier: Apache-2.0
// Names and text from outside: what is taken, and each thing that is not.
#include "name.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

static const char *repeat(char c, size_t count)
{
    static char text[256];
    memset(text, c, count);
    text[count] = '\0';
    return text;
}

static void test_host(void)
{
    static const char *const good[] = {"a", "0", "alpha", "a-b.c", "a..b", "host-1.example.org"};
    static const char *const bad[] = {"",    "-a",  "a-",  ".a",  "a.",  "A",
                                      "a_b", "a b", "a/b", "a\n", "a+b", "\xc3\xbc"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        CU_ASSERT(name_is_host(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT(!name_is_host(bad[i]));
    CU_ASSERT(name_is_host(repeat('a', 63)));
    CU_ASSERT(!name_is_host(repeat('a', 64)));
}

static void test_key(void)
{
    static const char *const good[] = {"wg0", "W", "_", "a.b-c_d", "0", "a.", "a-"};
    static const char *const bad[] = {"",    ".",   "..",  ".a",  "-a",    "a/b",
                                      "a b", "a\n", "a:b", "a\"", "a\x7f", "\xc3\xbc"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        CU_ASSERT(name_is_key(good[i]));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT(!name_is_key(bad[i]));
    CU_ASSERT(name_is_key(repeat('a', 63)));
    CU_ASSERT(!name_is_key(repeat('a', 64)));
}

// A key's name is [A-Za-z0-9_.-], byte by byte, in every place but the first.
static void test_key_bytes(void)
{
    for (int c = 1; c < 256; c++) {
        char text[] = {'a', (char)c, '\0'};
        bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-';
        CU_ASSERT_EQUAL(name_is_key(text), allowed);
    }
}

static void test_ticket(void)
{
    CU_ASSERT(name_is_ticket(""));
    CU_ASSERT(name_is_ticket("OPS-1234: caf\xc3\xa9 \"x\" \\"));
    CU_ASSERT(name_is_ticket(repeat(' ', 127)));
    CU_ASSERT(!name_is_ticket(repeat(' ', 128)));
    CU_ASSERT(!name_is_ticket("a\nb"));
    CU_ASSERT(!name_is_ticket("a\x1f"));
    CU_ASSERT(!name_is_ticket("a\x7f"));
    CU_ASSERT(!name_is_ticket("\xff"));
    CU_ASSERT(!name_is_ticket("cut\xc3"));
}

// RFC 3629 section 3: a decoder written from the definition of the ranges of code points.
static bool expected_utf8(const unsigned char *s, size_t length)
{
    if (length == 1)
        return s[0] < 0x80;
    unsigned lead = length == 2 ? 0xc0 : length == 3 ? 0xe0 : 0xf0;
    unsigned lead_mask = length == 2 ? 0xe0 : length == 3 ? 0xf0 : 0xf8;
    if ((s[0] & lead_mask) != lead)
        return false;
    unsigned long code = s[0] & ~lead_mask & 0xff;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return false;
        code = code << 6 | (s[i] & 0x3f);
    }
    static const unsigned long least[] = {0, 0, 0x80, 0x800, 0x10000};
    return code >= least[length] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
}

static bool two_sequences(const unsigned char *s, size_t length)
{
    for (size_t i = 1; i < length; i++)
        if (expected_utf8(s, i) && (expected_utf8(s + i, length - i) ||
                                    (length - i > 1 && two_sequences(s + i, length - i))))
            return true;
    return false;
}

// Every string of one and two bytes; every one of three or four whose bytes lie at the ends of the
// ranges.
static void test_utf8(void)
{
    static const unsigned char ends[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                         0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed,
                                         0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    enum { ENDS = sizeof(ends) };
    for (unsigned i = 0; i < 0x10000; i++) {
        unsigned char s[2] = {(unsigned char)(i >> 8), (unsigned char)i};
        CU_ASSERT_EQUAL(name_is_utf8(s, 1), expected_utf8(s, 1));
        CU_ASSERT_EQUAL(name_is_utf8(s, 2), expected_utf8(s, 2) || two_sequences(s, 2));
    }
    for (unsigned i = 0; i < ENDS * ENDS * ENDS * ENDS; i++) {
        unsigned char s[4] = {ends[i / ENDS / ENDS / ENDS], ends[i / ENDS / ENDS % ENDS],
                              ends[i / ENDS % ENDS], ends[i % ENDS]};
        bool three = expected_utf8(s, 3) || two_sequences(s, 3);
        bool four = expected_utf8(s, 4) || two_sequences(s, 4);
        if (name_is_utf8(s, 3) != three || name_is_utf8(s, 4) != four)
            CU_FAIL("UTF-8 at the ends of the ranges");
    }
    CU_ASSERT(name_is_utf8("", 0));
    CU_ASSERT(name_is_utf8("a\0b", 3));
}

static void test_log_names(void)
{
    char text[64];
    name_log_origin("alpha", text, sizeof(text));
    CU_ASSERT_STRING_EQUAL(text, "alpha/custody/log");
    name_host_key("alpha", text, sizeof(text));
    CU_ASSERT_STRING_EQUAL(text, "alpha/custody/host");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"host ids", test_host},
        {"keys' names", test_key},
        {"each byte of a key's name", test_key_bytes},
        {"tickets", test_ticket},
        {"UTF-8", test_utf8},
        {"names that follow from a host's", test_log_names},
        CU_TEST_INFO_NULL,
    };
    return tap_run("name", tests);
}
