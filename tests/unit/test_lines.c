// SPDX-License-Identifier: Apache-2.0
// Lines, decimal numbers and base64: one form is accepted, all others refused.
#include "lines.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

static struct line line_of(const char *text)
{
    return (struct line){.text = text, .length = strlen(text)};
}

static void test_lines(void)
{
    static const char text[] = "one\n\nthree\nno newline";
    struct lines lines = {.next = text, .left = sizeof(text) - 1};
    struct line line;
    CU_ASSERT(lines_next(&lines, &line) && line.length == 3 && memcmp(line.text, "one", 3) == 0);
    CU_ASSERT(lines_next(&lines, &line) && line.length == 0);
    CU_ASSERT(lines_next(&lines, &line) && line.length == 5);
    CU_ASSERT(!lines_next(&lines, &line));
    CU_ASSERT_EQUAL(lines.left, 10);
    lines = (struct lines){.next = NULL, .left = 0};
    CU_ASSERT(!lines_next(&lines, &line));
}

static void test_skip(void)
{
    struct line line = line_of("index 12");
    CU_ASSERT(!line_skip(&line, "index 123"));
    CU_ASSERT(!line_skip(&line, "extra "));
    CU_ASSERT_EQUAL(line.length, 8);
    CU_ASSERT(line_skip(&line, "index "));
    CU_ASSERT(line.length == 2 && memcmp(line.text, "12", 2) == 0);
}

static void test_decimal(void)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},
                {"7", 7},
                {"10", 10},
                {"9223372036854775808", UINT64_C(1) << 63},
                {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct line line = line_of(good[i].text);
        uint64_t value = 1;
        CU_ASSERT(line_decimal(&line, &value) && value == good[i].value);
    }
    static const char *const bad[] = {"",
                                      "00",
                                      "01",
                                      "+1",
                                      "-1",
                                      " 1",
                                      "1 ",
                                      "0x1",
                                      "1a",
                                      "1.0",
                                      "1\r",
                                      "18446744073709551616",
                                      "99999999999999999999",
                                      "184467440737095516150"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct line line = line_of(bad[i]);
        uint64_t value;
        CU_ASSERT(!line_decimal(&line, &value));
    }
}

static void test_base64(void)
{
    uint8_t bytes[4];
    struct line line = line_of("AAECAw==");
    CU_ASSERT(line_base64(&line, bytes, 4) && memcmp(bytes, "\0\1\2\3", 4) == 0);
    CU_ASSERT(!line_base64(&line, bytes, 3));
    // Not padded, other padding, an unused bit set, another alphabet, white space, a NUL.
    static const char *const bad[] = {
        "AAECAw",   "AAECAw=",  "AAECAw=A",  "AAECAx==",  "AAECA===", "AAEC-w==",
        "AAEC_w==", "AAECA ==", "\nAECAw==", "AAECAw=\n", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        line = line_of(bad[i]);
        CU_ASSERT(!line_base64(&line, bytes, 4));
    }
    line = (struct line){.text = "AAE\0Aw==", .length = 8};
    CU_ASSERT(!line_base64(&line, bytes, 4));
    size_t size = 0;
    line = line_of("AAEC");
    CU_ASSERT(line_base64_any(&line, bytes, sizeof(bytes), &size) && size == 3);
    line = line_of("AAECAwQF");
    CU_ASSERT(!line_base64_any(&line, bytes, sizeof(bytes), &size));
}

// Every byte that is not of the alphabet is refused, wherever it stands.
static void test_base64_alphabet(void)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t bytes[3];
    for (int c = 0; c < 256; c++)
        for (size_t at = 0; at < 4; at++) {
            char text[] = "AAAA";
            text[at] = (char)c;
            struct line line = {.text = text, .length = 4};
            bool good = c != '\0' && strchr(alphabet, c) != NULL;
            CU_ASSERT_EQUAL(line_base64(&line, bytes, 3), good);
        }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"lines", test_lines},
        {"prefixes", test_skip},
        {"decimal numbers", test_decimal},
        {"base64", test_base64},
        {"the alphabet of base64", test_base64_alphabet},
        CU_TEST_INFO_NULL,
    };
    return tap_run("lines", tests);
}
