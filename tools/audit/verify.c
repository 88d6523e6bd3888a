// SPDX-License-Identifier: Apache-2.0
// custody-audit verify: reads the log once and says all that is wrong with it.
#include <argp.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit.h"
#include "checkpoint.h"
#include "dir_argument.h"
#include "head.h"
#include "kept_head.h"
#include "key_chain.h"
#include "leaf_hasher.h"
#include "lines.h"
#include "log_reader.h"
#include "log_tree.h"
#include "operators.h"
#include "progress.h"
#include "record_checks.h"
#include "report.h"

#define JOBS_MAX 256

struct options {
    const char *dir;
    const char *vkey;
    const char *older;
    const char *since;
    const char *operators;
    uint64_t jobs; // 0: as many as there are cores
    bool json;
};

// A signed head that the log is checked against.
struct signed_head {
    bool holds; // read, and its signature is right
    struct checkpoint checkpoint;
    struct log_root root;
};

struct audit {
    const struct options *options;
    struct note_key pinned;
    struct note_key key; // that signed the head: the pinned one, or one that it handed over to
    struct report *report;
    struct log_reader *reader;
    struct log_tree *tree;
    struct operators *operators;
    struct record_checks *checks;
    struct leaf_hasher *hasher;
    struct kept_start start;
    struct signed_head head;
    struct signed_head kept; // a head that the auditor kept
};

// ---- heads ----

// Opens a checkpoint with the pinned key, or with one that it handed over to.
static int open_head(struct audit *audit, const struct head *head, struct signed_head *out,
                     struct error *err)
{
    struct note_key later;
    struct error ignored;
    struct checkpoint *checkpoint = &out->checkpoint;
    out->holds = checkpoint_open(checkpoint, head->note, head->length, &audit->key, err) == 0;
    if (out->holds)
        return 0;
    if (key_chain_follow(audit->options->dir, &audit->key, &later, &ignored) == 0 &&
        memcmp(&later, &audit->key, sizeof(later)) != 0 &&
        checkpoint_open(checkpoint, head->note, head->length, &later, &ignored) == 0) {
        report_note(audit->report,
                    "the head is signed by the key id %08x, which the pinned key %08x handed over "
                    "to",
                    later.id, audit->key.id);
        audit->key = later;
        out->holds = true;
        return 0;
    }
    return -1;
}

static void expect_root(struct audit *audit, struct signed_head *head)
{
    if (!head->holds)
        return;
    head->root.size = head->checkpoint.size;
    head->root.root = head->checkpoint.root;
    log_tree_expect(audit->tree, &head->root);
}

// Reads DIR/checkpoint. What is wrong with it is a finding.
static void read_head(struct audit *audit)
{
    struct head head;
    struct error err;
    if (head_read(log_reader_dirfd(audit->reader), "checkpoint", &head, &err) != 0) {
        if (err.code == ERROR_NOT_FOUND)
            report_file(audit->report, REPORT_HEAD, "checkpoint",
                        "there is none: nothing says which records belong to the log");
        else
            report_file(audit->report, REPORT_HEAD, "checkpoint", "%s", err.message);
        return;
    }
    if (open_head(audit, &head, &audit->head, &err) != 0)
        report_file(audit->report, REPORT_HEAD, "checkpoint", "%s", err.message);
}

static const char *kept_path(const struct audit *audit)
{
    return audit->options->since != NULL ? audit->options->since : audit->options->older;
}

static int read_kept(struct audit *audit, struct error *err)
{
    struct head head;
    const char *path = kept_path(audit);
    if (path == NULL)
        return 0;
    if (head_read(AT_FDCWD, path, &head, err) != 0)
        return -1;
    struct checkpoint *checkpoint = &audit->kept.checkpoint;
    if (checkpoint_open(checkpoint, head.note, head.length, &audit->key, NULL) != 0 &&
        checkpoint_open(checkpoint, head.note, head.length, &audit->pinned, err) != 0)
        return error_prefix(err, "%s", path);
    audit->kept.holds = true;
    return 0;
}

// ---- the end ----

static void say_where_altered(struct audit *audit)
{
    uint64_t size = audit->head.checkpoint.size;
    uint64_t altered = log_tree_altered(audit->tree);
    uint64_t uncovered = log_tree_uncovered(audit->tree);
    struct log_place from, to;
    if (altered > 0 && log_tree_stored_matches(audit->tree, &audit->head.root)) {
        report_note(audit->report,
                    "with the hashes in tile/ the root is the signed one: the records named above "
                    "were altered after they had been signed, and only those");
    } else if (!log_tree_in_step(audit->tree) || altered > 0) {
        report_note(audit->report, "the lines named above are not what was signed");
    } else if (uncovered < size) {
        log_reader_place(audit->reader, uncovered, &from);
        log_reader_place(audit->reader, size - 1, &to);
        report_line(audit->report, REPORT_ALTERED, &from, uncovered,
                    "a record from here to log/%s:%" PRIu64 " (record %" PRIu64
                    ") is not what was signed; no tile covers them to say which",
                    to.segment, to.line, size - 1);
    } else {
        report_note(audit->report, "the tiles agree with the altered records, so they were "
                                   "altered too; only a copy of the log can tell which");
    }
}

static void conclude_head(struct audit *audit)
{
    const struct checkpoint *checkpoint = &audit->head.checkpoint;
    uint64_t lines = record_checks_lines(audit->checks);
    if (!audit->head.holds)
        return;
    if (checkpoint->size > lines) {
        report_line(audit->report, REPORT_TRUNCATED, record_checks_last(audit->checks),
                    REPORT_NO_INDEX,
                    "the log ends here after %" PRIu64 " records, but its signed head has %" PRIu64
                    ": the last %" PRIu64 " are missing",
                    lines, checkpoint->size, checkpoint->size - lines);
        return;
    }
    if (checkpoint->size < audit->start.first) {
        report_file(audit->report, REPORT_HEAD, "checkpoint",
                    "it is older than the head that was kept: it has only %" PRIu64 " records",
                    checkpoint->size);
    } else if (!audit->head.root.matches) {
        report_file(audit->report, REPORT_HEAD, "checkpoint",
                    "the root of the first %" PRIu64 " records is not the signed one",
                    checkpoint->size);
        say_where_altered(audit);
        return;
    } else if (log_tree_altered(audit->tree) > 0) {
        report_note(audit->report, "the records are those that were signed: what differs from "
                                   "them in tile/ is wrong, and custodyd rebuilds it");
    }
    if (lines > checkpoint->size)
        report_note(audit->report,
                    "%" PRIu64 " record%s after the signed head: recorded, but not signed yet",
                    lines - checkpoint->size, lines - checkpoint->size == 1 ? "" : "s");
}

// Whether two operators answered for the loss of what the kept head had.
static void say_accepted(struct audit *audit)
{
    uint64_t index, old_size, new_size, size = audit->kept.checkpoint.size;
    if (record_checks_loss(audit->checks, &index, &old_size, &new_size) && size > new_size &&
        size <= old_size)
        report_note(audit->report,
                    "records %" PRIu64 " to %" PRIu64 " of the kept head are lost: record %" PRIu64
                    " says that operators accepted this",
                    new_size, size - 1, index);
}

static void conclude_kept(struct audit *audit)
{
    uint64_t size = audit->kept.checkpoint.size, lines = record_checks_lines(audit->checks);
    if (!audit->kept.holds)
        return;
    if (size > lines)
        report_file(audit->report, REPORT_KEPT_HEAD, "log",
                    "the log has %" PRIu64 " records, fewer than the %" PRIu64
                    " of the older head %s: records %" PRIu64 " to %" PRIu64 " are lost",
                    lines, size, kept_path(audit), lines, size - 1);
    else if (!audit->kept.root.matches)
        report_file(audit->report, REPORT_KEPT_HEAD, "log",
                    "the first %" PRIu64 " records are not those of the older head %s: the log was "
                    "rewritten",
                    size, kept_path(audit));
    else
        return;
    say_accepted(audit);
}

static int conclude(struct audit *audit, struct error *err)
{
    char vkey[NOTE_VKEY_MAX];
    note_key_format(&audit->key, vkey);
    report_at(audit->report, REPORT_AT_END);
    if (log_tree_finish(audit->tree, err) != 0)
        return -1;
    conclude_head(audit);
    conclude_kept(audit);
    return record_checks_conclude(audit->checks, vkey, err);
}

// ---- reading ----

// Begins where the kept head ends, or, where that cannot be, with the first record.
static int begin(struct audit *audit, struct error *err)
{
    struct error why;
    audit->tree = log_tree_new(log_reader_dirfd(audit->reader), audit->report);
    if (audit->tree == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (audit->options->since == NULL || kept_head_start(audit->reader, &audit->kept.checkpoint,
                                                         audit->tree, &audit->start, &why) == 0)
        return 0;
    report_note(audit->report, "the whole log was read, not only what is new: %s", why.message);
    memset(&audit->start, 0, sizeof(audit->start));
    log_tree_free(audit->tree);
    audit->tree = log_tree_new(log_reader_dirfd(audit->reader), audit->report);
    return audit->tree != NULL ? 0 : error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
}

static int prepare(struct audit *audit, struct error *err)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t jobs = audit->options->jobs != 0 ? audit->options->jobs
                    : cores > 0               ? (uint64_t)cores
                                              : 1;
    if (audit->options->operators != NULL) {
        audit->operators = operators_read(audit->options->operators, err);
        if (audit->operators == NULL)
            return -1;
    }
    // The head is read before the records: while custodyd runs, it may only be older than they.
    read_head(audit);
    if (read_kept(audit, err) != 0 || begin(audit, err) != 0)
        return -1;
    expect_root(audit, &audit->head);
    expect_root(audit, &audit->kept);
    struct record_checks_options options = {
        .reader = audit->reader,
        .report = audit->report,
        .tree = audit->tree,
        .operators = audit->operators,
        .signed_size = audit->head.holds ? audit->head.checkpoint.size : 0};
    audit->checks = record_checks_new(&options);
    audit->hasher = leaf_hasher_new(jobs < JOBS_MAX ? (unsigned)jobs : JOBS_MAX, audit->start.first,
                                    log_tree_take, audit->tree, err);
    if (audit->checks == NULL || audit->hasher == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (audit->start.state != NULL)
        record_checks_begin(audit->checks, audit->start.state);
    audit->start.state = NULL;
    return 0;
}

static int read_records(struct audit *audit, struct error *err)
{
    struct progress progress;
    struct log_item item;
    struct leaf_line leaf;
    int got, result = -1;
    progress_begin(&progress, audit->start.first, audit->head.checkpoint.size);
    while ((got = log_reader_next(audit->reader, &item, err)) > 0) {
        if (item.kind != LOG_LINE)
            record_checks_segment(audit->checks, &item);
        else if (record_checks_line(audit->checks, &item, &leaf) &&
                 leaf_hasher_add(audit->hasher, item.line.text, &leaf, err) != 0)
            goto cleanup;
        progress_draw(&progress, record_checks_lines(audit->checks));
    }
    if (got == 0)
        result = leaf_hasher_finish(audit->hasher, err);
cleanup:
    progress_end(&progress);
    return result;
}

static int verify(struct audit *audit, struct error *err)
{
    if (log_reader_open(audit->options->dir, &audit->reader, err) != 0 ||
        prepare(audit, err) != 0 || read_records(audit, err) != 0 || conclude(audit, err) != 0)
        return -1;
    struct report_log log = {.first = audit->start.first,
                             .records = record_checks_lines(audit->checks),
                             .signed_size = audit->head.checkpoint.size,
                             .root = audit->head.holds ? &audit->head.checkpoint.root : NULL};
    report_print(audit->report, &log, audit->options->json);
    return 0;
}

// ---- the command ----

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    struct line number = {.text = arg, .length = arg != NULL ? strlen(arg) : 0};
    switch (key) {
    case 'k':
        options->vkey = arg;
        return 0;
    case 'o':
        options->older = arg;
        return 0;
    case 's':
        options->since = arg;
        return 0;
    case 'O':
        options->operators = arg;
        return 0;
    case 'J':
        if (!line_decimal(&number, &options->jobs) || options->jobs == 0)
            argp_error(state, "--jobs: '%s' is no number of jobs", arg);
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case ARGP_KEY_END:
        if (options->vkey == NULL)
            argp_error(state, "--vkey is missing: without the log's key nothing can be verified");
        if (options->older != NULL && options->since != NULL)
            argp_error(state, "--older and --since are about the same head: give one");
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"vkey", 'k', "FILE", 0, "the log's verifier key, as it was pinned", 0},
    {"since", 's', "FILE", 0, "a checkpoint kept from earlier: read only what came after it", 0},
    {"older", 'o', "FILE", 0, "the same, but read the whole log", 0},
    {"operators", 'O', "FILE", 0, "the operators' SSH keys, \"NAME TYPE BASE64\" a line", 0},
    {"jobs", 'J', "N", 0, "hash with N threads (default: one a core)", 0},
    {"json", 'j', NULL, 0, "print one JSON object: findings, notes and the verdict", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void free_audit(struct audit *audit)
{
    leaf_hasher_free(audit->hasher);
    record_checks_free(audit->checks);
    log_tree_free(audit->tree);
    state_free(audit->start.state);
    operators_free(audit->operators);
    log_reader_close(audit->reader);
    report_free(audit->report);
    free(audit);
}

int audit_verify(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Checks every record of the log in DIR, the tree over them and its signed head.\v"
               "Exit status: 0 sound, 1 something was found, 2 it could not be checked.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct error err = {.code = ERROR_OK};
    int status = AUDIT_FAILED;
    struct audit *audit = calloc(1, sizeof(*audit));
    if (audit != NULL)
        audit->report = report_new();
    if (audit == NULL || audit->report == NULL) {
        fprintf(stderr, "%s: not checked: out of memory\n", argv[0]);
        free(audit);
        return status;
    }
    audit->options = &options;
    if (note_key_read(&audit->pinned, options.vkey, &err) == 0) {
        audit->key = audit->pinned;
        if (verify(audit, &err) == 0)
            status = report_findings(audit->report) == 0 ? AUDIT_SOUND : AUDIT_FINDINGS;
    }
    if (status == AUDIT_FAILED)
        fprintf(stderr, "%s: not checked: %s\n", argv[0], err.message);
    free_audit(audit);
    return status;
}
