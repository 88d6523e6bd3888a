// SPDX-License-Identifier: Apache-2.0
// Formatting of what custodyctl shows.
#include "print.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "record.h"

#define WIDTH 80

void print_field(const char *name, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printf("%-*s", PRINT_COLUMN, name);
    const char *rest = text;
    while (strlen(rest) > WIDTH - PRINT_COLUMN) {
        int length = WIDTH - PRINT_COLUMN;
        while (length > 0 && rest[length] != ' ')
            length--;
        if (length == 0)
            break;
        printf("%.*s\n%*s", length, rest, PRINT_COLUMN, "");
        rest += length + 1;
    }
    printf("%s\n", rest);
}

void print_long(const char *name, const char *value)
{
    printf("%s\n  %s\n", name, value[0] != '\0' ? value : "none yet");
}

void print_ready(const char *name, bool ready, const char *why_not)
{
    if (ready)
        print_field(name, "ready");
    else
        print_field(name, "NOT READY: %s",
                    why_not[0] != '\0' ? why_not : "custodyd gave no reason");
}

const char *print_time(int64_t time_us, char text[PRINT_TIME_SIZE])
{
    char rfc3339[RECORD_TIME_SIZE];
    if (time_us == 0)
        snprintf(text, PRINT_TIME_SIZE, "never");
    else if (record_time_format(time_us, rfc3339) != 0)
        snprintf(text, PRINT_TIME_SIZE, "unknown");
    else
        snprintf(text, PRINT_TIME_SIZE, "%.10s %.8s UTC", rfc3339, rfc3339 + 11);
    return text;
}

const char *print_key(const uint8_t key[CUSTODY_KEY_SIZE], char text[PRINT_BASE64_SIZE])
{
    return sodium_bin2base64(text, PRINT_BASE64_SIZE, key, CUSTODY_KEY_SIZE,
                             sodium_base64_VARIANT_ORIGINAL);
}

json_t *print_json_text(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_string("(not UTF-8)");
}

json_t *print_json_time(int64_t time_us)
{
    char text[RECORD_TIME_SIZE];
    if (time_us == 0 || record_time_format(time_us, text) != 0)
        return json_null();
    return json_string(text);
}

json_t *print_json_token(const struct custody_token_info *token)
{
    return json_pack("{so so so so so si si}", "label", print_json_text(token->label), "serial",
                     print_json_text(token->serial), "manufacturer",
                     print_json_text(token->manufacturer), "model", print_json_text(token->model),
                     "suite", print_json_text(token->suite), "blobs", (int)token->blobs,
                     "leftovers", (int)token->leftovers);
}

json_t *print_json_key(const struct custody_key *key)
{
    char base64[PRINT_BASE64_SIZE];
    return json_pack(
        "{so sI ss ss so so so sI so}", "name", print_json_text(key->name), "generation",
        (json_int_t)key->generation, "state", custody_key_state_name(key->state), "public_key",
        print_key(key->public_key, base64), "generated", print_json_time(key->generated_us),
        "activated", print_json_time(key->activated_us), "deactivated",
        print_json_time(key->deactivated_us), "releases", (json_int_t)key->releases, "released",
        print_json_time(key->released_us));
}

int print_json(json_t *value)
{
    int result = -1;
    if (value != NULL && json_dumpf(value, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF)
        result = 0;
    json_decref(value);
    return result;
}
