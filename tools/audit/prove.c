// SPDX-License-Identifier: Apache-2.0
// custody-audit prove: the receipt of one record under the current head, made from the records
// alone.
//
// The hashes that a proof consists of are those of complete subtrees side by side. So the proof is
// asked for twice: first only to learn which subtrees it reads, then, after one pass over the log
// has computed them, to be made. That needs no tiles and little memory.
#include <argp.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "head.h"
#include "lines.h"
#include "log_reader.h"
#include "merkle.h"
#include "proof.h"

#define WANTED_MAX (2 * MERKLE_LEVELS) // an edge of left siblings, and the right ones

// A complete subtree whose hash the proof needs: the leaves [start, end).
struct subtree {
    uint64_t start;
    uint64_t end;
    struct merkle_edge edge; // of the leaves that were read so far
};

struct wanted {
    struct subtree subtrees[WANTED_MAX];
    size_t count;
};

static int note_subtree(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                        struct error *err)
{
    struct wanted *wanted = context;
    if (wanted->count == WANTED_MAX)
        return error_set(err, ERROR_INTERNAL, "the proof reads too many hashes");
    struct subtree *subtree = &wanted->subtrees[wanted->count++];
    subtree->start = index << level;
    subtree->end = (index + 1) << level;
    subtree->edge.size = 0;
    memset(hash, 0, sizeof(*hash));
    return 0;
}

static int give_subtree(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                        struct error *err)
{
    const struct wanted *wanted = context;
    for (size_t i = 0; i < wanted->count; i++) {
        const struct subtree *subtree = &wanted->subtrees[i];
        if (subtree->start != index << level || subtree->end != (index + 1) << level)
            continue;
        *hash = merkle_edge_root(&subtree->edge);
        return 0;
    }
    return error_set(err, ERROR_INTERNAL, "the proof reads a hash that was not computed");
}

// Reads the first `size` records into the subtrees and the whole tree.
static int read_log(struct log_reader *reader, uint64_t size, struct wanted *wanted,
                    struct merkle_edge *edge, struct error *err)
{
    struct log_item item;
    int got = 0;
    edge->size = 0;
    while (edge->size < size && (got = log_reader_next(reader, &item, err)) > 0) {
        if (item.kind == LOG_UNREADABLE)
            return error_set(err, ERROR_DATA_LOSS, "log/%s: %s", item.place.segment,
                             item.why.message);
        if (item.kind != LOG_LINE || !item.line.complete)
            continue;
        struct merkle_hash leaf = merkle_leaf(item.line.text, item.line.length);
        for (size_t i = 0; i < wanted->count; i++) {
            struct subtree *subtree = &wanted->subtrees[i];
            if (edge->size >= subtree->start && edge->size < subtree->end)
                merkle_edge_append(&subtree->edge, &leaf);
        }
        merkle_edge_append(edge, &leaf);
    }
    if (got < 0)
        return -1;
    if (edge->size < size)
        return error_set(err, ERROR_DATA_LOSS,
                         "the signed head has %" PRIu64 " records, the log only %" PRIu64, size,
                         edge->size);
    return 0;
}

// Fills `proof`; `wanted` is room to work in. Sets err->code to ERROR_DATA_LOSS when the log is not
// what was signed.
static int prove(struct log_reader *reader, uint64_t index, struct wanted *wanted,
                 struct proof *proof, struct error *err)
{
    struct head head;
    struct checkpoint checkpoint;
    struct merkle_edge edge;
    if (head_read(log_reader_dirfd(reader), "checkpoint", &head, err) != 0 ||
        head_peek(&head, &checkpoint, err) != 0)
        return -1;
    if (merkle_prove_inclusion(index, checkpoint.size, note_subtree, wanted, proof->path,
                               &proof->path_length, err) != 0)
        return error_prefix(err, "the signed head of %s", checkpoint.origin);
    if (read_log(reader, checkpoint.size, wanted, &edge, err) != 0)
        return -1;
    struct merkle_hash root = merkle_edge_root(&edge);
    if (memcmp(&root, &checkpoint.root, sizeof(root)) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the records are not those that were signed, so nothing can be proven; "
                         "\"custody-audit verify\" tells where");
    proof->index = index;
    memcpy(proof->checkpoint, head.note, head.length + 1);
    proof->checkpoint_length = head.length;
    return merkle_prove_inclusion(index, checkpoint.size, give_subtree, wanted, proof->path,
                                  &proof->path_length, err);
}

static int run(const char *dir, uint64_t index, char receipt[PROOF_MAX], struct error *err)
{
    struct log_reader *reader = NULL;
    struct proof proof = {.index = 0};
    size_t length;
    int result = -1;
    struct wanted *wanted = calloc(1, sizeof(*wanted));
    if (wanted == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto cleanup;
    }
    if (log_reader_open(dir, &reader, err) == 0 && prove(reader, index, wanted, &proof, err) == 0)
        result = proof_format(&proof, receipt, PROOF_MAX, &length, err);
cleanup:
    log_reader_close(reader);
    free(wanted);
    return result;
}

struct options {
    const char *dir;
    bool has_index;
    uint64_t index;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    struct line number = {.text = arg, .length = arg != NULL ? strlen(arg) : 0};
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "only one record can be proven at a time");
        if (state->arg_num == 0) {
            options->dir = arg;
            return 0;
        }
        if (!line_decimal(&number, &options->index))
            argp_error(state, "'%s' is no record's index", arg);
        options->has_index = true;
        return 0;
    case ARGP_KEY_END:
        if (!options->has_index)
            argp_error(state, "DIR and INDEX are both needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int audit_prove(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "DIR INDEX",
        .doc = "Prints the receipt (tlog-proof) that record INDEX is in the log under its current "
               "signed head; \"custody-audit check\" checks it, with nothing else of DIR.\v"
               "Exit status: 0 printed, 1 the log is not what was signed, 2 it could not be made.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    char receipt[PROOF_MAX];
    struct error err;
    if (run(options.dir, options.index, receipt, &err) != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
        return err.code == ERROR_DATA_LOSS ? AUDIT_FINDINGS : AUDIT_FAILED;
    }
    fputs(receipt, stdout);
    return AUDIT_SOUND;
}
