// SPDX-License-Identifier: Apache-2.0
// Reading the pinned operators' keys.
#include "operators.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"
#include "lines.h"
#include "sshsig.h"

#define FILE_MAX 65536

struct operator_key {
    char name[RECORD_OPERATOR_MAX + 1];
    char key[RECORD_OPERATOR_KEY_MAX + 1];
};

struct operators {
    size_t count;
    struct operator_key *keys;
};

// Cuts the next word off the line into `word` (room for `size` bytes with the NUL).
static bool take_word(struct line *line, char *word, size_t size)
{
    while (line->length > 0 && (*line->text == ' ' || *line->text == '\t'))
        line->text++, line->length--;
    size_t length = 0;
    while (length < line->length && line->text[length] != ' ' && line->text[length] != '\t')
        length++;
    if (length == 0 || length >= size)
        return false;
    memcpy(word, line->text, length);
    word[length] = '\0';
    line->text += length;
    line->length -= length;
    return true;
}

static int parse_line(struct line line, struct operator_key *key, struct error *err)
{
    char type[64], base64[RECORD_OPERATOR_KEY_MAX + 1 - sizeof(type)];
    if (!take_word(&line, key->name, sizeof(key->name)) || !take_word(&line, type, sizeof(type)) ||
        !take_word(&line, base64, sizeof(base64)))
        return error_set(err, ERROR_INVALID_ARGUMENT, "it must say NAME TYPE BASE64");
    snprintf(key->key, sizeof(key->key), "%s %s", type, base64);
    return sshsig_check_key(key->key, err);
}

static int add(struct operators *operators, struct line line, struct error *err)
{
    if (line.length == 0 || line.text[0] == '#')
        return 0;
    struct operator_key *keys =
        realloc(operators->keys, (operators->count + 1) * sizeof(*operators->keys));
    if (keys == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    operators->keys = keys;
    return parse_line(line, &keys[operators->count++], err);
}

struct operators *operators_read(const char *path, struct error *err)
{
    struct operators *operators = calloc(1, sizeof(*operators));
    char *text = malloc(FILE_MAX + 1);
    size_t length, number = 0;
    if (operators == NULL || text == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto fail;
    }
    if (head_read_file(AT_FDCWD, path, text, FILE_MAX, &length, err) != 0)
        goto fail;
    if (length > 0 && text[length - 1] != '\n')
        text[length++] = '\n';
    struct lines lines = {.next = text, .left = length};
    struct line line;
    while (number++, lines_next(&lines, &line)) {
        if (add(operators, line, err) != 0) {
            error_prefix(err, "%s: line %zu", path, number);
            goto fail;
        }
    }
    free(text);
    return operators;
fail:
    free(text);
    operators_free(operators);
    return NULL;
}

void operators_free(struct operators *operators)
{
    if (operators == NULL)
        return;
    free(operators->keys);
    free(operators);
}

int operators_check(const struct operators *operators, const struct record *given,
                    struct error *err)
{
    bool named = false;
    if (given->operator_key[0] == '\0')
        return error_set(err, ERROR_DATA_LOSS,
                         "operator %s approved by uid %u alone, without a signature",
                         given->operator_name, given->actor.uid);
    for (size_t i = 0; i < operators->count; i++) {
        const struct operator_key *key = &operators->keys[i];
        if (strcmp(key->name, given->operator_name) != 0)
            continue;
        if (strcmp(key->key, given->operator_key) == 0)
            return 0;
        named = true;
    }
    if (named)
        return error_set(err, ERROR_DATA_LOSS,
                         "the approval is by another key than the one pinned for operator %s",
                         given->operator_name);
    return error_set(err, ERROR_DATA_LOSS, "no key is pinned for operator %s, who approved",
                     given->operator_name);
}
