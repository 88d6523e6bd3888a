// SPDX-License-Identifier: Apache-2.0
// custody-audit verify: reads the log once from end to end and says all that is wrong with it.
#include <argp.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "checkpoint.h"
#include "head.h"
#include "key_chain.h"
#include "log_reader.h"
#include "merkle.h"
#include "record.h"
#include "report.h"
#include "state.h"
#include "stored_tiles.h"
#include "tile.h"

// How far the last record may be past a lease's end before its record of expiry is missed.
#define LEASE_SLACK_US (INT64_C(60) * 1000000)

// What there is to check the log against.
struct signed_head {
    bool holds; // read, and its signature is right
    struct checkpoint checkpoint;
    bool reached; // as many records were read
    bool matches; // and their root is the signed one
};

struct audit {
    const char *dir;
    struct report report;
    struct note_key pinned;
    struct note_key key; // that signed the head: the pinned one, or one that it handed over to
    struct log_reader *reader;
    struct state *state;
    bool state_holds; // every record so far could be applied

    // Where the next record should stand. `expected` believes the records' own numbers, `place`
    // counts lines since numbers last agreed: after a gap the first is right, after a damaged
    // number the second.
    uint64_t expected;
    uint64_t place_expected;
    bool in_step; // lines and numbers have agreed from the start
    int64_t time_us;
    uint64_t lines;
    struct log_place last; // the last line read

    struct signed_head head;
    struct signed_head older; // a head that the auditor kept
    struct merkle_edge edge;
    struct merkle_edge stored_edge; // the same with the stored tiles' hashes, where there are any
    bool stored_matches;            // its root is the signed one
    uint64_t altered;               // records that differ from their tile
    uint64_t uncovered;             // the first record that no tile covers
    struct tile_edge tiles;
    struct stored_tile tile;
    bool tile_loaded;
    uint64_t tile_index;
};

// ---- tiles ----

// Compares a tile as recomputed (`width` hashes) with the stored one of a level above the leaves;
// a difference in a leaf is found with its record.
static int compare_tile(struct audit *audit, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, unsigned width, struct error *err)
{
    struct stored_tile tile;
    if (stored_tile_read(log_reader_dirfd(audit->reader), level, index, &tile, err) != 0)
        return -1;
    if (tile.width < width)
        width = tile.width;
    if (tile.damaged)
        report_file(&audit->report, tile.path, "it is not a tile: its size is wrong");
    else if (audit->altered == 0 && memcmp(tile.hashes, hashes, width * sizeof(*hashes)) != 0)
        report_file(&audit->report, tile.path, "the tile is not that of the records");
    return 0;
}

static int on_full_tile(void *context, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, struct error *err)
{
    struct audit *audit = context;
    if (level == 0 || !audit->in_step)
        return 0;
    return compare_tile(audit, level, index, hashes, TILE_WIDTH, err);
}

static int compare_last_tiles(struct audit *audit, struct error *err)
{
    for (unsigned level = 1; level < TILE_LEVELS && audit->in_step; level++) {
        uint64_t index;
        unsigned width = tile_edge_width(&audit->tiles, level, &index);
        if (width > 0 &&
            compare_tile(audit, level, index, audit->tiles.hashes[level], width, err) != 0)
            return -1;
    }
    return 0;
}

// The stored hash of record `index`, or NULL where no tile has it.
static int stored_leaf(struct audit *audit, uint64_t index, const struct merkle_hash **leaf,
                       struct error *err)
{
    *leaf = NULL;
    if (!audit->tile_loaded || audit->tile_index != index / TILE_WIDTH) {
        if (stored_tile_read(log_reader_dirfd(audit->reader), 0, index / TILE_WIDTH, &audit->tile,
                             err) != 0)
            return -1;
        audit->tile_loaded = true;
        audit->tile_index = index / TILE_WIDTH;
        if (audit->tile.damaged)
            report_file(&audit->report, audit->tile.path, "it is not a tile: its size is wrong");
    }
    if (index % TILE_WIDTH < audit->tile.width)
        *leaf = &audit->tile.hashes[index % TILE_WIDTH];
    return 0;
}

// ---- the tree ----

static void compare_root(struct audit *audit, struct signed_head *head)
{
    if (!head->holds || head->checkpoint.size != audit->edge.size)
        return;
    struct merkle_hash root = merkle_edge_root(&audit->edge);
    head->reached = true;
    head->matches = memcmp(&root, &head->checkpoint.root, sizeof(root)) == 0;
    if (head != &audit->head)
        return;
    root = merkle_edge_root(&audit->stored_edge);
    audit->stored_matches = memcmp(&root, &head->checkpoint.root, sizeof(root)) == 0;
}

static void compare_roots(struct audit *audit)
{
    compare_root(audit, &audit->head);
    compare_root(audit, &audit->older);
}

// Adds a line to the tree. `index` is the record's by its own word.
static int add_leaf(struct audit *audit, const struct log_item *item, uint64_t index, bool parsed,
                    struct error *err)
{
    struct merkle_hash leaf = merkle_leaf(item->line.text, item->line.length);
    const struct merkle_hash *stored;
    if (stored_leaf(audit, index, &stored, err) != 0)
        return -1;
    if (stored != NULL && memcmp(stored, &leaf, sizeof(leaf)) != 0) {
        audit->altered++;
        // A line that is no record was named already.
        if (parsed)
            report_line(&audit->report, &item->place, index,
                        "the record and the tree's hash of it in %s differ", audit->tile.path);
    }
    if (stored != NULL && audit->uncovered == index)
        audit->uncovered++;
    merkle_edge_append(&audit->edge, &leaf);
    merkle_edge_append(&audit->stored_edge, stored != NULL && audit->in_step ? stored : &leaf);
    if (tile_edge_append(&audit->tiles, &leaf, on_full_tile, audit, err) != 0)
        return -1;
    compare_roots(audit);
    return 0;
}

// ---- records ----

// What has to be said only once, because no record after it can be checked against those before.
static void stop_state(struct audit *audit, const struct log_item *item)
{
    if (!audit->state_holds)
        return;
    audit->state_holds = false;
    report_note(&audit->report,
                "after log/%s:%" PRIu64
                " keys, leases and log keys are not followed any more: what led to them is not "
                "certain",
                item->place.segment, item->place.line);
}

static void report_sequence(struct audit *audit, const struct log_item *item, uint64_t seq)
{
    uint64_t expected = audit->expected;
    if (seq > expected)
        report_line(&audit->report, &item->place, seq,
                    "record %" PRIu64 " must stand here: %" PRIu64 " record%s missing before this",
                    expected, seq - expected, seq - expected == 1 ? " is" : "s are");
    else
        report_line(&audit->report, &item->place, seq,
                    "record %" PRIu64 " must stand here: this one is out of order or a duplicate",
                    expected);
}

// Finds the record's place in the sequence and says when it is not the one it should have.
static void check_sequence(struct audit *audit, const struct log_item *item, uint64_t seq)
{
    if (seq == audit->expected || seq == audit->place_expected) {
        audit->expected = audit->place_expected = seq + 1;
        return;
    }
    report_sequence(audit, item, seq);
    audit->in_step = false;
    stop_state(audit, item);
    audit->place_expected++;
    if (seq > audit->expected)
        audit->expected = seq + 1;
}

static void check_key_change(struct audit *audit, const struct log_item *item,
                             const struct record *record)
{
    struct note_key next;
    struct error err;
    if (record->event == RECORD_LOG_KEY_CHANGED && audit->state_holds &&
        key_chain_check(record, state_log_vkey(audit->state), &next, &err) != 0)
        report_line(&audit->report, &item->place, record->seq, "%s", err.message);
}

static void check_record(struct audit *audit, const struct log_item *item,
                         const struct record *record)
{
    struct error err;
    check_sequence(audit, item, record->seq);
    check_key_change(audit, item, record);
    if (audit->state_holds && state_apply(audit->state, record, &err) != 0) {
        report_line(&audit->report, &item->place, record->seq, "%s", err.message);
        stop_state(audit, item);
    } else if (!audit->state_holds && record->time_us < audit->time_us) {
        report_line(&audit->report, &item->place, record->seq, "time runs back");
    }
    if (record->time_us > audit->time_us)
        audit->time_us = record->time_us;
}

// A line without an end: what a crash leaves beyond the signed head, damage anywhere before.
static void check_incomplete(struct audit *audit, const struct log_item *item)
{
    uint64_t size = audit->head.holds ? audit->head.checkpoint.size : 0;
    if (item->line.length >= RECORD_LINE_MAX)
        report_line(&audit->report, &item->place, audit->expected,
                    "the line is longer than %d bytes; nothing after it in this file was read",
                    RECORD_LINE_MAX);
    else if (item->last && audit->lines >= size)
        report_note(&audit->report,
                    "log/%s:%" PRIu64 ": the last line has no end: it is being written, or a "
                    "crash left it; it is not signed, and custodyd sets it aside when it starts",
                    item->place.segment, item->place.line);
    else
        report_line(&audit->report, &item->place, audit->expected, "the line has no end");
}

static int check_line(struct audit *audit, const struct log_item *item, struct error *err)
{
    struct record record;
    struct error why;
    audit->last = item->place;
    if (!item->line.complete) {
        check_incomplete(audit, item);
        return 0;
    }
    bool parsed = record_parse(&record, item->line.text, item->line.length, &why) == 0;
    uint64_t index = audit->expected;
    if (parsed) {
        check_record(audit, item, &record);
        index = record.seq;
    } else {
        report_line(&audit->report, &item->place, index, "this is no record: %s", why.message);
        stop_state(audit, item);
        audit->expected++;
        audit->place_expected++;
    }
    audit->lines++;
    return add_leaf(audit, item, index, parsed, err);
}

static void check_segment(struct audit *audit, const struct log_item *item)
{
    if (audit->lines == 0)
        audit->last = item->place;
    if (item->first != audit->expected) {
        if (item->first > audit->expected)
            report_line(&audit->report, &item->place, REPORT_NO_INDEX,
                        "records %" PRIu64 " to %" PRIu64 " are missing before this segment",
                        audit->expected, item->first - 1);
        else
            report_line(&audit->report, &item->place, REPORT_NO_INDEX,
                        "by its name this segment begins with record %" PRIu64
                        ", but record %" PRIu64 " must follow",
                        item->first, audit->expected);
        audit->in_step = false;
        stop_state(audit, item);
        audit->expected = item->first;
    }
    if (item->kind == LOG_UNREADABLE) {
        report_line(&audit->report, &item->place, REPORT_NO_INDEX, "%s", item->why.message);
        audit->in_step = false;
        stop_state(audit, item);
    }
}

// ---- the head ----

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
    if (key_chain_follow(audit->dir, &audit->key, &later, &ignored) == 0 &&
        memcmp(&later, &audit->key, sizeof(later)) != 0 &&
        checkpoint_open(checkpoint, head->note, head->length, &later, &ignored) == 0) {
        report_note(&audit->report,
                    "the head is signed by the key id %08x, which the pinned key %08x handed over "
                    "to",
                    later.id, audit->key.id);
        audit->key = later;
        out->holds = true;
        return 0;
    }
    return -1;
}

// Reads DIR/checkpoint. What is wrong with it is a finding.
static void read_head(struct audit *audit)
{
    struct head head;
    struct error err;
    if (head_read(log_reader_dirfd(audit->reader), "checkpoint", &head, &err) != 0) {
        if (err.code == ERROR_NOT_FOUND)
            report_file(&audit->report, "checkpoint",
                        "there is none: nothing says which records belong to the log");
        else
            report_file(&audit->report, "checkpoint", "%s", err.message);
        return;
    }
    if (open_head(audit, &head, &audit->head, &err) != 0)
        report_file(&audit->report, "checkpoint", "%s", err.message);
}

static int read_older(struct audit *audit, const char *path, struct error *err)
{
    struct head head;
    if (path == NULL)
        return 0;
    if (head_read(AT_FDCWD, path, &head, err) != 0)
        return -1;
    struct checkpoint *checkpoint = &audit->older.checkpoint;
    if (checkpoint_open(checkpoint, head.note, head.length, &audit->key, NULL) != 0 &&
        checkpoint_open(checkpoint, head.note, head.length, &audit->pinned, err) != 0)
        return error_prefix(err, "%s", path);
    audit->older.holds = true;
    return 0;
}

// ---- the end ----

static void say_where_altered(struct audit *audit)
{
    uint64_t size = audit->head.checkpoint.size;
    struct log_place from, to;
    if (audit->altered > 0 && audit->stored_matches) {
        report_note(&audit->report,
                    "with the hashes in tile/ the root is the signed one: the records named above "
                    "were altered after they had been signed, and only those");
    } else if (!audit->in_step || audit->altered > 0) {
        report_note(&audit->report, "the lines named above are not what was signed");
    } else if (audit->uncovered < size) {
        log_reader_place(audit->reader, audit->uncovered, &from);
        log_reader_place(audit->reader, size - 1, &to);
        report_line(&audit->report, &from, audit->uncovered,
                    "a record from here to log/%s:%" PRIu64 " (record %" PRIu64
                    ") is not what was signed; no tile covers them to say which",
                    to.segment, to.line, size - 1);
    } else {
        report_note(&audit->report, "the tiles agree with the altered records, so they were "
                                    "altered too; only a copy of the log can tell which");
    }
}

static void conclude_head(struct audit *audit)
{
    const struct checkpoint *checkpoint = &audit->head.checkpoint;
    if (!audit->head.holds)
        return;
    if (!audit->head.reached) {
        report_line(&audit->report, &audit->last, REPORT_NO_INDEX,
                    "the log ends here after %" PRIu64 " records, but its signed head has %" PRIu64
                    ": the last %" PRIu64 " are missing",
                    audit->lines, checkpoint->size, checkpoint->size - audit->lines);
    } else if (!audit->head.matches) {
        report_file(&audit->report, "checkpoint",
                    "the root of the first %" PRIu64 " records is not the signed one",
                    checkpoint->size);
        say_where_altered(audit);
    } else {
        if (audit->altered > 0)
            report_note(&audit->report, "the records are those that were signed: what differs from "
                                        "them in tile/ is wrong, and custodyd rebuilds it");
        if (audit->lines > checkpoint->size)
            report_note(&audit->report,
                        "%" PRIu64 " record%s after the signed head: recorded, but not signed yet",
                        audit->lines - checkpoint->size,
                        audit->lines - checkpoint->size == 1 ? "" : "s");
    }
}

static void conclude_older(struct audit *audit, const char *path)
{
    if (!audit->older.holds)
        return;
    if (!audit->older.reached)
        report_file(&audit->report, "log",
                    "the log has %" PRIu64 " records, fewer than the %" PRIu64
                    " of the older head %s",
                    audit->lines, audit->older.checkpoint.size, path);
    else if (!audit->older.matches)
        report_file(&audit->report, "log",
                    "the first %" PRIu64 " records are not those of the older head %s: the log was "
                    "rewritten",
                    audit->older.checkpoint.size, path);
}

// Each release must have been closed: applied, failed or expired.
static void conclude_leases(struct audit *audit)
{
    const struct state_lease *lease = state_lease_first(audit->state);
    for (; lease != NULL && audit->state_holds; lease = state_lease_next(lease)) {
        struct log_place place;
        log_reader_place(audit->reader, lease->seq, &place);
        if (audit->time_us > lease->expires_us + LEASE_SLACK_US)
            report_line(&audit->report, &place, lease->seq,
                        "the release of %s generation %" PRIu64
                        " has no outcome: lease %s is long over and no record closes it",
                        lease->key, lease->generation, lease->lease);
        else
            report_note(&audit->report,
                        "log/%s:%" PRIu64 ": lease %s of %s generation %" PRIu64
                        " is still open at the log's end",
                        place.segment, place.line, lease->lease, lease->key, lease->generation);
    }
}

static void conclude_key(struct audit *audit)
{
    char vkey[NOTE_VKEY_MAX];
    note_key_format(&audit->key, vkey);
    if (audit->state_holds && audit->lines > 0 && strcmp(state_log_vkey(audit->state), vkey) != 0)
        report_line(&audit->report, &audit->last, REPORT_NO_INDEX,
                    "by its records the log's key is %s, not %s", state_log_vkey(audit->state),
                    vkey);
}

static void on_stray(void *context, const char *name)
{
    struct audit *audit = context;
    report_note(&audit->report, "log/%s is no segment; it was not read", name);
}

static int conclude(struct audit *audit, const char *older_path, struct error *err)
{
    if (compare_last_tiles(audit, err) != 0)
        return -1;
    conclude_head(audit);
    conclude_older(audit, older_path);
    conclude_leases(audit);
    conclude_key(audit);
    return log_reader_strays(audit->reader, on_stray, audit, err);
}

// ---- the command ----

static int run(struct audit *audit, const char *older_path, struct error *err)
{
    struct log_item item;
    if (log_reader_open(audit->dir, &audit->reader, err) != 0)
        return -1;
    // The head is read before the records: while custodyd runs, it may only be older than they.
    read_head(audit);
    if (read_older(audit, older_path, err) != 0)
        return -1;
    compare_roots(audit);
    int got;
    while ((got = log_reader_next(audit->reader, &item, err)) > 0) {
        if (item.kind != LOG_LINE)
            check_segment(audit, &item);
        else if (check_line(audit, &item, err) != 0)
            return -1;
    }
    return got < 0 ? -1 : conclude(audit, older_path, err);
}

struct options {
    const char *dir;
    const char *vkey;
    const char *older;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'k':
        options->vkey = arg;
        return 0;
    case 'o':
        options->older = arg;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "only one DIR can be verified at a time");
        options->dir = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->dir == NULL)
            argp_error(state, "DIR is missing");
        if (options->vkey == NULL)
            argp_error(state, "--vkey is missing: without the log's key nothing can be verified");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"vkey", 'k', "FILE", 0, "the log's verifier key, as it was pinned", 0},
    {"older", 'o', "FILE", 0, "a checkpoint kept from earlier, which the log must contain", 0},
    {"json", 'j', NULL, 0, "print findings, notes and the verdict as JSON, one object a line", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

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
    struct error err;
    int status = AUDIT_FAILED;
    struct audit *audit = calloc(1, sizeof(*audit));
    struct state *state = state_new();
    if (audit == NULL || state == NULL) {
        error_set(&err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto cleanup;
    }
    audit->dir = options.dir;
    audit->report.json = options.json;
    audit->state = state;
    audit->state_holds = true;
    audit->in_step = true;
    if (note_key_read(&audit->pinned, options.vkey, &err) != 0)
        goto cleanup;
    audit->key = audit->pinned;
    if (run(audit, options.older, &err) != 0)
        goto cleanup;
    report_verdict(&audit->report, audit->lines, audit->head.checkpoint.size,
                   audit->head.holds ? &audit->head.checkpoint.root : NULL);
    status = audit->report.findings == 0 ? AUDIT_SOUND : AUDIT_FINDINGS;
cleanup:
    if (status == AUDIT_FAILED)
        fprintf(stderr, "%s: not checked: %s\n", argv[0], err.message);
    if (audit != NULL)
        log_reader_close(audit->reader);
    state_free(state);
    free(audit);
    return status;
}
