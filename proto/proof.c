// SPDX-License-Identifier: Apache-2.0
// Receipts (c2sp.org/tlog-proof): writing, reading and checking them.
#include "proof.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "checkpoint.h"
#include "lines.h"

#define HEADER "c2sp.org/tlog-proof@v1"
#define EXTRA  "extra "
#define INDEX  "index "

int proof_format(const struct proof *proof, char *text, size_t size, size_t *length,
                 struct error *err)
{
    char hashes[MERKLE_PROOF_MAX * 45 + 1];
    size_t used = 0;
    for (size_t i = 0; i < proof->path_length && i < MERKLE_PROOF_MAX; i++) {
        sodium_bin2base64(hashes + used, sizeof(hashes) - used, proof->path[i].bytes,
                          MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL);
        used += strlen(hashes + used);
        hashes[used++] = '\n';
    }
    hashes[used] = '\0';
    int total = snprintf(text, size, HEADER "\n" INDEX "%" PRIu64 "\n%s\n%.*s", proof->index,
                         hashes, (int)proof->checkpoint_length, proof->checkpoint);
    if (proof->path_length > MERKLE_PROOF_MAX || total < 0 || (size_t)total >= size)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the receipt of %zu hashes does not fit in %zu bytes", proof->path_length,
                         size);
    *length = (size_t)total;
    return 0;
}

static int malformed(struct error *err, const char *what)
{
    return error_set(err, ERROR_INVALID_ARGUMENT, "the receipt is malformed: %s", what);
}

// Takes the lines before the hashes.
static int parse_head(struct proof *proof, struct lines *lines, struct error *err)
{
    struct line line;
    if (!lines_next(lines, &line) || !line_skip(&line, HEADER) || line.length != 0)
        return malformed(err, "its first line must be " HEADER);
    if (!lines_next(lines, &line))
        return malformed(err, "it ends after its first line");
    if (line_skip(&line, EXTRA)) {
        uint8_t ignored[PROOF_MAX];
        size_t size;
        if (!line_base64_any(&line, ignored, sizeof(ignored), &size))
            return malformed(err, "its extra line is not base64");
        if (!lines_next(lines, &line))
            return malformed(err, "it ends after its extra line");
    }
    if (!line_skip(&line, INDEX) || !line_decimal(&line, &proof->index))
        return malformed(err, "it must say \"index\" and a number");
    return 0;
}

int proof_parse(struct proof *proof, const char *text, size_t length, struct error *err)
{
    memset(proof, 0, sizeof(*proof));
    if (length >= PROOF_MAX)
        return malformed(err, "it is too long");
    struct lines lines = {.next = text, .left = length};
    if (parse_head(proof, &lines, err) != 0)
        return -1;
    struct line line;
    for (;;) {
        if (!lines_next(&lines, &line))
            return malformed(err, "an empty line and the checkpoint must follow the hashes");
        if (line.length == 0)
            break;
        if (proof->path_length == MERKLE_PROOF_MAX)
            return malformed(err, "it has more hashes than any tree has levels");
        if (!line_base64(&line, proof->path[proof->path_length].bytes, MERKLE_HASH_SIZE))
            return malformed(err, "a hash is not 32 bytes in base64");
        proof->path_length++;
    }
    if (lines.left == 0 || lines.left >= sizeof(proof->checkpoint))
        return malformed(err, "its checkpoint is missing or too long");
    memcpy(proof->checkpoint, lines.next, lines.left);
    proof->checkpoint_length = lines.left;
    return 0;
}

int proof_verify(const struct proof *proof, const struct merkle_hash *leaf,
                 const struct note_key *key, struct error *err)
{
    struct checkpoint checkpoint;
    if (checkpoint_open(&checkpoint, proof->checkpoint, proof->checkpoint_length, key, err) != 0)
        return -1;
    return merkle_verify_inclusion(proof->index, checkpoint.size, leaf, proof->path,
                                   proof->path_length, &checkpoint.root, err);
}
