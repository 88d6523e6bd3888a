// SPDX-License-Identifier: Apache-2.0
// Checks of names and text that come from outside.
#include "name.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

bool name_is_host(const char *text)
{
    size_t length = strnlen(text, HOST_MAX + 1);
    if (length == 0 || length > HOST_MAX)
        return false;
    if (!is_lower_alnum(text[0]) || !is_lower_alnum(text[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_lower_alnum(text[i]) && text[i] != '.' && text[i] != '-')
            return false;
    return true;
}

bool name_is_key(const char *text)
{
    size_t length = strnlen(text, KEY_MAX + 1);
    if (length == 0 || length > KEY_MAX || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_alnum(text[i]) && strchr("_.-", text[i]) == NULL)
            return false;
    return true;
}

bool name_is_reserved(const char *text)
{
    return text[0] == '_';
}

bool name_is_ticket(const char *text)
{
    size_t length = strnlen(text, TICKET_MAX + 1);
    if (length > TICKET_MAX || !name_is_utf8(text, length))
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}

// The length of the UTF-8 sequence at `s` (RFC 3629 section 4), 0 where there is none.
static size_t utf8_sequence(const uint8_t *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < length)
        return 0;
    // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return length;
}

bool name_is_utf8(const void *text, size_t length)
{
    const uint8_t *s = text;
    while (length > 0) {
        size_t n = utf8_sequence(s, length);
        if (n == 0)
            return false;
        s += n;
        length -= n;
    }
    return true;
}

void name_log_origin(const char *host, char *origin, size_t size)
{
    snprintf(origin, size, "%s/custody/log", host);
}

void name_host_key(const char *host, char *name, size_t size)
{
    snprintf(name, size, "%s/custody/host", host);
}
