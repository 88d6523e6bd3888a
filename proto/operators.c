// SPDX-License-Identifier: Apache-2.0
// Reading the operators' file.
#include "operators.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lines.h"
#include "name.h"
#include "sshsig.h"

#define FILE_MAX 65536

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

// Cuts the next word off the line; empty at its end.
static struct line take_word(struct line *line)
{
    struct line word;
    while (line->length > 0 && is_blank(line->text[0])) {
        line->text++;
        line->length--;
    }
    word.text = line->text;
    word.length = 0;
    while (word.length < line->length && !is_blank(line->text[word.length]))
        word.length++;
    line->text += word.length;
    line->length -= word.length;
    return word;
}

static int add(struct operators *operators, struct line name, struct line type, struct line key,
               struct error *err)
{
    if (operators->count == OPERATORS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "more than %d keys", OPERATORS_MAX);
    char *to_name = operators->items[operators->count].name;
    char *to_key = operators->items[operators->count].key;
    if (key.length == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a name, a key's type and the key in base64 must stand in the line");
    snprintf(to_name, sizeof(operators->items[0].name), "%.*s", (int)name.length, name.text);
    if (name.length > RECORD_OPERATOR_MAX || !name_is_key(to_name))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "'%.80s' is no operator's name: 1 to %d of A-Z a-z 0-9 _ . -", to_name,
                         KEY_MAX);
    if (type.length + 1 + key.length > RECORD_OPERATOR_KEY_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the key is too long");
    snprintf(to_key, sizeof(operators->items[0].key), "%.*s %.*s", (int)type.length, type.text,
             (int)key.length, key.text);
    if (sshsig_check_key(to_key, err) != 0)
        return -1;
    const char *owner = operators_name(operators, to_key);
    if (owner != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the key of operator %s stands there already, as %s's", to_name, owner);
    operators->count++;
    return 0;
}

int operators_parse(const char *text, size_t length, struct operators *operators, struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    struct line line;
    unsigned number = 0;
    memset(operators, 0, sizeof(*operators));
    if (memchr(text, '\0', length) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "it holds a NUL byte");
    while (lines_next(&lines, &line)) {
        number++;
        struct line name = take_word(&line);
        if (name.length == 0 || name.text[0] == '#')
            continue;
        struct line type = take_word(&line), key = take_word(&line);
        if (add(operators, name, type, key, err) != 0)
            return error_prefix(err, "line %u", number);
    }
    if (lines.left > 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "its last line has no end");
    return 0;
}

int operators_read(const char *path, struct operators *operators, struct error *err)
{
    char *text = malloc(FILE_MAX + 1);
    FILE *file = fopen(path, "re");
    int result = -1;
    if (text == NULL || file == NULL) {
        error_set(err, text == NULL ? ERROR_RESOURCE_EXHAUSTED : ERROR_NOT_FOUND, "%s",
                  strerror(errno));
        goto cleanup;
    }
    size_t length = fread(text, 1, FILE_MAX + 1, file);
    if (ferror(file))
        error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    else if (length > FILE_MAX)
        error_set(err, ERROR_INVALID_ARGUMENT, "larger than %d bytes", FILE_MAX);
    else
        result = operators_parse(text, length, operators, err);
cleanup:
    if (file != NULL)
        fclose(file);
    free(text);
    return result == 0 ? 0 : error_prefix(err, "operators' file %s", path);
}

const char *operators_name(const struct operators *operators, const char *key)
{
    for (size_t i = 0; i < operators->count; i++)
        if (strcmp(operators->items[i].key, key) == 0)
            return operators->items[i].name;
    return NULL;
}
