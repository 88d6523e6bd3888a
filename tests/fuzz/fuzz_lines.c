// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reading of lines, decimal numbers and base64: nothing is lost, and each value has one
// form.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "lines.h"

static void fuzz_decimal(const struct line *line)
{
    uint64_t value = 0;
    char again[24];
    if (!line_decimal(line, &value))
        return;
    int length = snprintf(again, sizeof(again), "%" PRIu64, value);
    REQUIRE((size_t)length == line->length && memcmp(again, line->text, line->length) == 0);
}

static void encode(const uint8_t *bytes, size_t size, char **text, size_t *length)
{
    size_t room = sodium_base64_ENCODED_LEN(size, sodium_base64_VARIANT_ORIGINAL);
    *text = malloc(room);
    if (*text == NULL)
        abort();
    sodium_bin2base64(*text, room, bytes, size, sodium_base64_VARIANT_ORIGINAL);
    *length = room - 1;
}

// What is decoded encodes to the same text.
static void fuzz_decode(const struct line *line)
{
    size_t size = 0, length = 0;
    uint8_t *bytes = malloc(line->length + 1);
    char *again;
    if (bytes == NULL)
        abort();
    if (line_base64_any(line, bytes, line->length, &size)) {
        encode(bytes, size, &again, &length);
        REQUIRE(length == line->length && memcmp(again, line->text, length) == 0);
        free(again);
        REQUIRE(line_base64(line, bytes, size));
        REQUIRE(!line_base64(line, bytes, size + 1));
        REQUIRE(size == 0 || !line_base64(line, bytes, size - 1));
    }
    free(bytes);
}

// And what is encoded is decoded, into exactly the room it needs.
static void fuzz_encode(const uint8_t *data, size_t size)
{
    size_t decoded = 0;
    struct line line;
    char *text;
    uint8_t *bytes = malloc(size + 1);
    if (bytes == NULL)
        abort();
    encode(data, size, &text, &line.length);
    line.text = text;
    REQUIRE(line_base64_any(&line, bytes, size, &decoded));
    REQUIRE(decoded == size && (size == 0 || memcmp(bytes, data, size) == 0));
    free(text);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lines lines = {.next = (const char *)data, .left = size};
    struct line line;
    size_t at = 0;
    while (lines_next(&lines, &line)) {
        REQUIRE(line.text == (const char *)data + at &&
                memchr(line.text, '\n', line.length) == NULL);
        REQUIRE(line.text[line.length] == '\n');
        at += line.length + 1;
        fuzz_decimal(&line);
        fuzz_decode(&line);
        struct line rest = line;
        if (line_skip(&rest, "index "))
            fuzz_decimal(&rest);
        else
            REQUIRE(rest.text == line.text && rest.length == line.length);
    }
    REQUIRE(lines.left == size - at && (size == 0 || memchr(lines.next, '\n', lines.left) == NULL));
    fuzz_encode(data, size);
    return 0;
}
