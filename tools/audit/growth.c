// SPDX-License-Identifier: Apache-2.0
// Writing, reading and checking consistency proofs.
#include "growth.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"

#define OLD         "old "
#define BASE64_SIZE sodium_base64_ENCODED_LEN(MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL)

bool growth_is(const char *text, size_t length)
{
    return length >= strlen(OLD) && memcmp(text, OLD, strlen(OLD)) == 0;
}

int growth_format(const struct growth *growth, char text[GROWTH_MAX], struct error *err)
{
    size_t used = (size_t)snprintf(text, GROWTH_MAX, OLD "%" PRIu64 "\n", growth->old_size);
    for (size_t i = 0; i < growth->path_length; i++) {
        char base64[BASE64_SIZE];
        sodium_bin2base64(base64, sizeof(base64), growth->path[i].bytes, MERKLE_HASH_SIZE,
                          sodium_base64_VARIANT_ORIGINAL);
        used += (size_t)snprintf(text + used, GROWTH_MAX - used, "%s\n", base64);
    }
    used += (size_t)snprintf(text + used, GROWTH_MAX - used, "\n%s", growth->checkpoint);
    return used < GROWTH_MAX ? 0 : error_set(err, ERROR_INTERNAL, "the proof is too long");
}

static int malformed(struct error *err, const char *what)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "the consistency proof is malformed: %s", what);
}

int growth_parse(struct growth *growth, const char *text, size_t length, struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    struct line line;
    memset(growth, 0, sizeof(*growth));
    if (!lines_next(&lines, &line) || !line_skip(&line, OLD) ||
        !line_decimal(&line, &growth->old_size))
        return malformed(err, "its first line must say \"old\" and a number");
    for (;;) {
        if (!lines_next(&lines, &line))
            return malformed(err, "an empty line and the checkpoint must follow the hashes");
        if (line.length == 0)
            break;
        if (growth->path_length == MERKLE_PROOF_MAX)
            return malformed(err, "it has more hashes than any tree has levels");
        if (!line_base64(&line, growth->path[growth->path_length++].bytes, MERKLE_HASH_SIZE))
            return malformed(err, "a hash is not 32 bytes in base64");
    }
    if (lines.left == 0 || lines.left >= sizeof(growth->checkpoint))
        return malformed(err, "its checkpoint is missing or too long");
    memcpy(growth->checkpoint, lines.next, lines.left);
    growth->checkpoint_length = lines.left;
    return 0;
}

int growth_verify(const struct growth *growth, const struct checkpoint *old,
                  const struct note_key *key, struct checkpoint *now, struct error *err)
{
    if (checkpoint_open(now, growth->checkpoint, growth->checkpoint_length, key, err) != 0)
        return -1;
    if (growth->old_size != old->size)
        return error_set(err, ERROR_DATA_LOSS,
                         "the proof is about a log of %" PRIu64
                         " records, the older head has %" PRIu64,
                         growth->old_size, old->size);
    return merkle_verify_consistency(old->size, now->size, &old->root, &now->root, growth->path,
                                     growth->path_length, err);
}
