// SPDX-License-Identifier: Apache-2.0
// Filling and naming error values.
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    if (err == NULL)
        return -1;
    // Formatted aside first, so that an argument may point into err->message.
    char text[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err->code = code;
    memcpy(err->message, text, sizeof(text));
    return -1;
}

int error_prefix(struct error *err, const char *format, ...)
{
    if (err == NULL)
        return -1;
    char where[ERROR_MESSAGE_MAX / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof(where), format, args);
    va_end(args);
    char rest[ERROR_MESSAGE_MAX];
    memcpy(rest, err->message, sizeof(rest));
    size_t used = (size_t)snprintf(err->message, sizeof(err->message), "%s: ", where);
    size_t room = sizeof(err->message) - used - 1;
    size_t length = strnlen(rest, sizeof(rest) - 1);
    if (length > room)
        length = room;
    memcpy(err->message + used, rest, length);
    err->message[used + length] = '\0';
    return -1;
}

const char *error_code_name(enum error_code code)
{
    switch (code) {
    case ERROR_OK:
        return "OK";
    case ERROR_UNKNOWN:
        return "UNKNOWN";
    case ERROR_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case ERROR_DEADLINE_EXCEEDED:
        return "DEADLINE_EXCEEDED";
    case ERROR_NOT_FOUND:
        return "NOT_FOUND";
    case ERROR_ALREADY_EXISTS:
        return "ALREADY_EXISTS";
    case ERROR_PERMISSION_DENIED:
        return "PERMISSION_DENIED";
    case ERROR_RESOURCE_EXHAUSTED:
        return "RESOURCE_EXHAUSTED";
    case ERROR_FAILED_PRECONDITION:
        return "FAILED_PRECONDITION";
    case ERROR_ABORTED:
        return "ABORTED";
    case ERROR_INTERNAL:
        return "INTERNAL";
    case ERROR_UNAVAILABLE:
        return "UNAVAILABLE";
    case ERROR_DATA_LOSS:
        return "DATA_LOSS";
    case ERROR_UNAUTHENTICATED:
        return "UNAUTHENTICATED";
    }
    return "UNKNOWN";
}
