// SPDX-License-Identifier: Apache-2.0
// custody-audit check: a receipt against a record, or a consistency proof against an older head,
// and what it proves in words.
#include <argp.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "checkpoint.h"
#include "growth.h"
#include "head.h"
#include "merkle.h"
#include "proof.h"
#include "record.h"

struct options {
    const char *proof;
    const char *vkey;
    const char *record;
    const char *since;
};

// What the command has read.
struct inputs {
    struct note_key key;
    char receipt[PROOF_MAX];
    size_t receipt_length;
    char line[RECORD_LINE_MAX + 1];
    size_t line_length;
    struct head older;
};

static int read_inputs(const struct options *options, struct inputs *in, struct error *err)
{
    if (note_key_read(&in->key, options->vkey, err) != 0 ||
        head_read_file(AT_FDCWD, options->proof, in->receipt, sizeof(in->receipt),
                       &in->receipt_length, err) != 0)
        return -1;
    if (options->since != NULL)
        return head_read(AT_FDCWD, options->since, &in->older, err);
    if (head_read_file(AT_FDCWD, options->record, in->line, sizeof(in->line), &in->line_length,
                       err) != 0)
        return -1;
    // The newline that ends a line of the log is no part of the record.
    if (in->line_length > 0 && in->line[in->line_length - 1] == '\n')
        in->line_length--;
    return 0;
}

// Whether the receipt proves the line to be a record of the log at the place that it names itself.
static int check(const struct inputs *in, struct record *record, struct checkpoint *checkpoint,
                 struct error *err)
{
    struct proof proof;
    struct merkle_hash leaf = merkle_leaf(in->line, in->line_length);
    if (proof_parse(&proof, in->receipt, in->receipt_length, err) != 0 ||
        proof_verify(&proof, &leaf, &in->key, err) != 0 ||
        checkpoint_open(checkpoint, proof.checkpoint, proof.checkpoint_length, &in->key, err) != 0)
        return -1;
    if (record_parse(record, in->line, in->line_length, err) != 0)
        return error_prefix(err, "the line is in the log, but it is no record");
    if (record->seq != proof.index)
        return error_set(err, ERROR_DATA_LOSS,
                         "the line stands at index %" PRIu64
                         ", but says that it is record %" PRIu64,
                         proof.index, record->seq);
    return 0;
}

// Whether the log of the older head grew into that of the proof's, and what it says.
static int check_growth(const struct inputs *in, struct error *err)
{
    struct growth growth;
    struct checkpoint old, now;
    if (checkpoint_open(&old, in->older.note, in->older.length, &in->key, err) != 0)
        return error_prefix(err, "the older head");
    if (growth_parse(&growth, in->receipt, in->receipt_length, err) != 0 ||
        growth_verify(&growth, &old, &in->key, &now, err) != 0)
        return -1;
    printf("proven: the log %s of %" PRIu64 " records grew into the one of %" PRIu64
           ": nothing of it was altered or removed\n",
           now.origin, old.size, now.size);
    return 0;
}

static void tell(const struct record *record, const struct checkpoint *checkpoint)
{
    char time[RECORD_TIME_SIZE] = "?";
    record_time_format(record->time_us, time);
    printf("proven: record %" PRIu64 " of the log %s, in its signed head of %" PRIu64 " records\n",
           record->seq, checkpoint->origin, checkpoint->size);
    printf("at %s: %s", time, record_event_name(record->event));
    if (record->key[0] != '\0')
        printf(", key %s generation %" PRIu64, record->key, record->generation);
    if (record->actor.present)
        printf(", by uid %u gid %u pid %u%s%s", record->actor.uid, record->actor.gid,
               record->actor.pid, record->actor.unit[0] != '\0' ? " in " : "", record->actor.unit);
    if (record->reason != REASON_NONE)
        printf(", reason %s", record_reason_name(record->reason));
    if (record->lease[0] != '\0')
        printf(", lease %s", record->lease);
    putchar('\n');
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'k':
        options->vkey = arg;
        return 0;
    case 'r':
        options->record = arg;
        return 0;
    case 's':
        options->since = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "only one PROOF can be checked at a time");
        options->proof = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->proof == NULL || options->vkey == NULL ||
            (options->record == NULL) == (options->since == NULL))
            argp_error(state, "PROOF, --vkey, and --record or --since are all needed");
        if (strcmp(options->proof, "-") == 0 && options->record != NULL &&
            strcmp(options->record, "-") == 0)
            argp_error(state, "PROOF and --record cannot both be standard input");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"vkey", 'k', "FILE", 0, "the log's verifier key, as it was pinned", 0},
    {"record", 'r', "FILE", 0, "the record's line; - for standard input", 0},
    {"since", 's', "FILE", 0, "for a consistency proof: the older signed head", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_check(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "PROOF",
        .doc = "Checks that PROOF, a receipt (tlog-proof), puts the record into the log whose key "
               "is given, or that PROOF, a consistency proof, leads on from the older head; and "
               "says what that proves.\v"
               "Exit status: 0 proven, 1 not proven, 2 it could not be checked.",
    };
    struct options options = {.proof = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    static struct inputs in;
    struct record record;
    struct checkpoint checkpoint;
    struct error err;
    if (read_inputs(&options, &in, &err) != 0) {
        fprintf(stderr, "%s: not checked: %s\n", argv[0], err.message);
        return AUDIT_FAILED;
    }
    if (options.since != NULL ? check_growth(&in, &err) != 0
                              : check(&in, &record, &checkpoint, &err) != 0) {
        printf("NOT PROVEN: %s\n", err.message);
        return AUDIT_FINDINGS;
    }
    if (options.since == NULL)
        tell(&record, &checkpoint);
    return AUDIT_SOUND;
}
