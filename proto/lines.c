// SPDX-License-Identifier: Apache-2.0
// Reading the signed texts, strictly: what is accepted has one form only.
#include "lines.h"

#include <string.h>

#include <sodium.h>

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

static bool is_base64(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
}

bool line_base64_any(const struct line *line, void *bytes, size_t room, size_t *size)
{
    for (size_t i = 0; i < line->length; i++)
        if (!is_base64(line->text[i]))
            return false;
    // The decoder refuses missing and superfluous padding, and set bits that nothing uses.
    return sodium_base642bin(bytes, room, line->text, line->length, NULL, size, NULL,
                             sodium_base64_VARIANT_ORIGINAL) == 0;
}

bool line_base64(const struct line *line, void *bytes, size_t size)
{
    size_t decoded = 0;
    return line_base64_any(line, bytes, size, &decoded) && decoded == size;
}
