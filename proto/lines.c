// SPDX-License-Identifier: Apache-2.0
// Reading the signed texts, strictly: what is accepted has one form only.
#include "lines.h"

#include <endian.h>
#include <string.h>

bool lines_next(struct lines *lines, struct line *line)
{
    const char *end = lines->left == 0 ? NULL : memchr(lines->next, '\n', lines->left);
    if (end == NULL)
        return false;
    line->text = lines->next;
    line->length = (size_t)(end - lines->next);
    lines->next = end + 1;
    lines->left -= line->length + 1;
    return true;
}

bool line_skip(struct line *line, const char *prefix)
{
    size_t length = strlen(prefix);
    if (line->length < length || memcmp(line->text, prefix, length) != 0)
        return false;
    line->text += length;
    line->length -= length;
    return true;
}

bool lines_take(struct lines *lines, const char *prefix, struct line *value)
{
    return lines_next(lines, value) && line_skip(value, prefix);
}

bool line_text(const struct line *line, char *text, size_t size)
{
    if (line->length >= size || memchr(line->text, '\0', line->length) != NULL)
        return false;
    memcpy(text, line->text, line->length);
    memset(text + line->length, 0, size - line->length);
    return true;
}

bool lines_take_text(struct lines *lines, const char *prefix, char *text, size_t size)
{
    struct line value;
    return lines_take(lines, prefix, &value) && line_text(&value, text, size);
}

bool line_is_dash(const struct line *line)
{
    return line->length == 1 && line->text[0] == '-';
}

bool line_hex(const struct line *line, char *text, size_t digits)
{
    if (line->length != digits || !line_text(line, text, digits + 1))
        return false;
    return strspn(text, "0123456789abcdef") == digits;
}

bool line_decimal(const struct line *line, uint64_t *value)
{
    if (line->length == 0 || (line->text[0] == '0' && line->length > 1))
        return false;
    uint64_t sum = 0;
    for (size_t i = 0; i < line->length; i++) {
        char c = line->text[i];
        if (c < '0' || c > '9')
            return false;
        uint64_t digit = (uint64_t)(c - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

// The value of a base64 character; above 63 for any other byte.
static inline uint32_t base64_value(char c)
{
    static const uint8_t values[256] = {
#define OTHERS 255, 255, 255, 255, 255, 255, 255, 255
        OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, 255,    255,    255,    62,     255,    255,
        255,    63,     52,     53,     54,     55,     56,     57,     58,     59,     60,
        61,     255,    255,    255,    255,    255,    255,    255,    0,      1,      2,
        3,      4,      5,      6,      7,      8,      9,      10,     11,     12,     13,
        14,     15,     16,     17,     18,     19,     20,     21,     22,     23,     24,
        25,     255,    255,    255,    255,    255,    255,    26,     27,     28,     29,
        30,     31,     32,     33,     34,     35,     36,     37,     38,     39,     40,
        41,     42,     43,     44,     45,     46,     47,     48,     49,     50,     51,
        255,    255,    255,    255,    255,    OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS,
        OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS, OTHERS,
#undef OTHERS
    };
    return values[(unsigned char)c];
}

// Of two or three characters at the end: their bytes, and that the bits nothing uses are zero.
static bool decode_last(const char *text, size_t count, uint8_t *bytes)
{
    uint32_t a = base64_value(text[0]), b = base64_value(text[1]);
    uint32_t c = count == 3 ? base64_value(text[2]) : 0;
    uint32_t unused = count == 3 ? c & 3 : b & 15;
    if (a > 63 || b > 63 || c > 63 || unused != 0)
        return false;
    bytes[0] = (uint8_t)(a << 2 | b >> 4);
    if (count == 3)
        bytes[1] = (uint8_t)(b << 4 | c >> 2);
    return true;
}

bool line_base64_any(const struct line *line, void *bytes, size_t room, size_t *size)
{
    const char *text = line->text;
    size_t length = line->length;
    if (length % 4 != 0)
        return false;
    size_t padding = length == 0 || text[length - 1] != '=' ? 0 : text[length - 2] != '=' ? 1 : 2;
    size_t decoded = length / 4 * 3 - padding, whole = (length - (padding > 0 ? 4 : 0)) / 4;
    uint8_t *out = bytes;
    if (decoded > room)
        return false;
    uint32_t all = 0;
    for (size_t i = 0; i < whole; i++, text += 4, out += 3) {
        uint32_t a = base64_value(text[0]), b = base64_value(text[1]);
        uint32_t c = base64_value(text[2]), d = base64_value(text[3]);
        all |= a | b | c | d;
        uint32_t bits = htobe32((a << 18 | b << 12 | c << 6 | d) << 8);
        memcpy(out, &bits, 3);
    }
    if (all > 63)
        return false;
    if (padding > 0 && !decode_last(text, 4 - padding, out))
        return false;
    *size = decoded;
    return true;
}

bool line_base64(const struct line *line, void *bytes, size_t size)
{
    size_t decoded = 0;
    return line_base64_any(line, bytes, size, &decoded) && decoded == size;
}
