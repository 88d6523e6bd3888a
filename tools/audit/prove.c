// SPDX-License-Identifier: Apache-2.0
// custody-audit prove: the receipt of one record under the current head, or the proof that an older
// log grew into this one, made from the records alone.
//
// The hashes that a proof consists of are those of complete subtrees side by side. So the proof is
// asked for twice: first only to learn which subtrees it reads, then, after one pass over the log
// has computed them, to be made. That needs no tiles and little memory.
#include <argp.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "growth.h"
#include "head.h"
#include "lines.h"
#include "log_walk.h"
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
    struct merkle_edge whole; // of all leaves that were read so far
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

// Adds a line to the subtrees that it is in, and to the whole tree.
static int add_line(void *context, const struct segment_line *line, struct error *err)
{
    struct wanted *wanted = context;
    struct merkle_hash leaf = merkle_leaf(line->text, line->length);
    for (size_t i = 0; i < wanted->count; i++) {
        struct subtree *subtree = &wanted->subtrees[i];
        if (wanted->whole.size >= subtree->start && wanted->whole.size < subtree->end)
            merkle_edge_append(&subtree->edge, &leaf);
    }
    merkle_edge_append(&wanted->whole, &leaf);
    return 0;
}

struct options {
    const char *dir;
    bool consistency;
    size_t numbers;   // how many were given
    uint64_t index;   // or the older size
    const char *head; // the newer head's file; NULL: DIR/checkpoint
};

// What there is to work with.
struct work {
    const struct options *options;
    struct log_reader *reader;
    struct wanted wanted;
    struct head head;
    struct checkpoint checkpoint;
};

static int make(struct work *work, merkle_read_fn *read, struct merkle_hash *path, size_t *length,
                struct error *err)
{
    uint64_t number = work->options->index, size = work->checkpoint.size;
    return work->options->consistency
               ? merkle_prove_consistency(number, size, read, &work->wanted, path, length, err)
               : merkle_prove_inclusion(number, size, read, &work->wanted, path, length, err);
}

// Fills `path`. Sets err->code to ERROR_DATA_LOSS when the log is not what was signed.
static int prove(struct work *work, struct merkle_hash path[MERKLE_PROOF_MAX], size_t *length,
                 struct error *err)
{
    const char *file = work->options->head;
    int dirfd = file != NULL ? AT_FDCWD : log_reader_dirfd(work->reader);
    if (head_read(dirfd, file != NULL ? file : "checkpoint", &work->head, err) != 0 ||
        head_peek(&work->head, &work->checkpoint, err) != 0)
        return -1;
    if (make(work, note_subtree, path, length, err) != 0)
        return error_prefix(err, "the signed head of %s", work->checkpoint.origin);
    if (log_walk_lines(work->reader, work->checkpoint.size, add_line, &work->wanted, err) != 0)
        return -1;
    struct merkle_hash root = merkle_edge_root(&work->wanted.whole);
    if (memcmp(&root, &work->checkpoint.root, sizeof(root)) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the records are not those that were signed, so nothing can be proven; "
                         "\"custody-audit verify\" tells where");
    return make(work, give_subtree, path, length, err);
}

static int format_receipt(const struct work *work, const struct merkle_hash *path, size_t length,
                          char text[PROOF_MAX], struct error *err)
{
    struct proof proof = {.index = work->options->index, .path_length = length};
    memcpy(proof.path, path, length * sizeof(*path));
    memcpy(proof.checkpoint, work->head.note, work->head.length + 1);
    proof.checkpoint_length = work->head.length;
    return proof_format(&proof, text, PROOF_MAX, &length, err);
}

static int format_growth(const struct work *work, const struct merkle_hash *path, size_t length,
                         char text[GROWTH_MAX], struct error *err)
{
    struct growth growth = {.old_size = work->options->index, .path_length = length};
    memcpy(growth.path, path, length * sizeof(*path));
    memcpy(growth.checkpoint, work->head.note, work->head.length + 1);
    growth.checkpoint_length = work->head.length;
    return growth_format(&growth, text, err);
}

_Static_assert(PROOF_MAX == GROWTH_MAX, "either fits in one buffer");

static int run(const struct options *options, char text[PROOF_MAX], struct error *err)
{
    struct merkle_hash path[MERKLE_PROOF_MAX];
    size_t length;
    int result = -1;
    struct work *work = calloc(1, sizeof(*work));
    if (work == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    work->options = options;
    if (log_reader_open(options->dir, &work->reader, err) == 0 &&
        prove(work, path, &length, err) == 0)
        result = options->consistency ? format_growth(work, path, length, text, err)
                                      : format_receipt(work, path, length, text, err);
    log_reader_close(work->reader);
    free(work);
    return result;
}

static error_t parse_argument(struct options *options, const char *arg, struct argp_state *state)
{
    struct line number = {.text = arg, .length = strlen(arg)};
    if (state->arg_num == 0) {
        options->dir = arg;
    } else if (state->arg_num == 1) {
        if (!line_decimal(&number, &options->index))
            argp_error(state, "'%s' is no record's index, nor a number of records", arg);
        options->numbers++;
    } else if (state->arg_num == 2) {
        options->head = arg;
    } else {
        argp_error(state, "too many arguments");
    }
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'c':
        options->consistency = true;
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(options, arg, state);
    case ARGP_KEY_END:
        if (options->numbers == 0)
            argp_error(state, "DIR and INDEX (or --consistency and OLD) are needed");
        if (options->head != NULL && !options->consistency)
            argp_error(state, "only one record can be proven at a time");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"consistency", 'c', NULL, 0,
     "prove that a log of OLD records grew into the one whose signed head is in the file NEW "
     "(default: DIR/checkpoint)",
     0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_prove(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR INDEX\nDIR --consistency OLD [NEW]",
        .doc = "Prints the receipt (tlog-proof) that record INDEX is in the log under its current "
               "signed head; \"custody-audit check\" checks it, with nothing else of DIR.\v"
               "Exit status: 0 printed, 1 the log is not what was signed, 2 it could not be made.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    char receipt[PROOF_MAX];
    struct error err;
    if (run(&options, receipt, &err) != 0) {
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
        return err.code == ERROR_DATA_LOSS ? AUDIT_FINDINGS : AUDIT_FAILED;
    }
    fputs(receipt, stdout);
    return AUDIT_SOUND;
}
