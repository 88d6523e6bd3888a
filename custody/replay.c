// SPDX-License-Identifier: Apache-2.0
// From segments to state and tree.
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "file.h"
#include "segment.h"
#include "snapshot.h"
#include "tiles.h"

// Where reading stands.
struct reading {
    struct replay *replay;
    uint64_t line; // number in the segment, from 1
    struct error *err;
};

static int lost(const struct reading *reading, const char *what)
{
    const struct replay *replay = reading->replay;
    return error_set(reading->err, ERROR_DATA_LOSS,
                     "%s/log/%012" PRIu64 ".jsonl:%" PRIu64 ": record %" PRIu64
                     " is not as it was signed: %s",
                     replay->dir, replay->last, reading->line, state_size(replay->state), what);
}

static uint64_t head_size(const struct replay *replay)
{
    return replay->head != NULL ? replay->head->size : 0;
}

static int check_head_root(const struct replay *replay, struct error *err)
{
    struct merkle_hash root = tree_root(replay->tree);
    if (sodium_memcmp(root.bytes, replay->head->root.bytes, sizeof(root.bytes)) == 0)
        return 0;
    return error_set(err, ERROR_DATA_LOSS,
                     "%s: the first %" PRIu64
                     " records are not those that were signed: their root is another",
                     replay->dir, replay->head->size);
}

static int open_segment(const struct replay *replay, uint64_t first, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(first, name);
    int fd = openat(replay->log_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", replay->dir, name, strerror(errno));
    return fd;
}

// ---- making again what is missing ----

static void note_unrepaired(struct replay *replay, const struct error *why)
{
    if (replay->unrepaired.code == ERROR_OK)
        replay->unrepaired = *why;
}

// A tile that cannot be written is only missing for those who read from outside, and made later.
static int restore_tile(void *context, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, struct error *err)
{
    struct replay *replay = context;
    struct error why;
    (void)err;
    if (tiles_stand(replay->dir_fd, level, index, hashes))
        return 0;
    replay->lacking = true;
    if (replay->repairs && tiles_write(replay->dir_fd, level, index, TILE_WIDTH, hashes, &why) != 0)
        note_unrepaired(replay, &why);
    return 0;
}

// `text` is the snapshot that belongs before segment `next`.
static void restore_snapshot(struct replay *replay, uint64_t next, const char *text, size_t length)
{
    char name[SNAPSHOT_NAME_SIZE];
    size_t there_length;
    struct error why;
    snapshot_name(next, name);
    char *there = file_read(replay->log_fd, name, SNAPSHOT_TEXT_MAX, &there_length, NULL);
    bool same = there != NULL && there_length == length && memcmp(there, text, length) == 0;
    free(there);
    replay->lacking = replay->lacking || !same;
    if (!same && replay->repairs &&
        file_replace(replay->log_fd, name, text, length, true, &why) != 0)
        note_unrepaired(replay, &why);
}

// ---- lines ----

// Applies log.sealed; its snapshot is of the state before.
static int apply_sealed(struct replay *replay, const struct record *record, struct error *err)
{
    size_t length;
    char *text = snapshot_format(replay->state, &length, err);
    if (text == NULL)
        return -1;
    int result = state_apply(replay->state, record, err);
    if (result == 0)
        restore_snapshot(replay, record->seq + 1, text, length);
    free(text);
    return result;
}

static int apply_line(struct replay *replay, const struct segment_line *line, struct error *err)
{
    struct record record;
    if (replay->sealed)
        return error_set(err, ERROR_DATA_LOSS, "it follows log.sealed in the same segment");
    if (record_parse(&record, line->text, line->length, err) != 0)
        return -1;
    bool seals = record.event == RECORD_LOG_SEALED;
    if ((seals ? apply_sealed(replay, &record, err) : state_apply(replay->state, &record, err)) !=
        0)
        return -1;
    replay->sealed = seals;
    if (replay->began_us == 0)
        replay->began_us = record.time_us;
    return 0;
}

// Takes one line. Returns 1 when it is the next record, 0 when it is not one and nothing signed is
// lost by that, -1 with an error.
static int take_line(const struct reading *reading, const struct segment_line *line)
{
    struct replay *replay = reading->replay;
    struct error what;
    bool is_signed = state_size(replay->state) < head_size(replay);
    if (!line->complete)
        return is_signed ? lost(reading, "the line is not complete") : 0;
    if (apply_line(replay, line, &what) != 0)
        return is_signed ? lost(reading, what.message) : 0;
    replay->end = line->offset + line->length + 1;
    if (!is_signed)
        return 1;
    struct merkle_hash leaf = merkle_leaf(line->text, line->length);
    if (tree_append(replay->tree, &leaf, restore_tile, replay, reading->err) != 0)
        return -1;
    replay->tail = replay->end;
    return tree_size(replay->tree) == replay->head->size &&
                   check_head_root(replay, reading->err) != 0
               ? -1
               : 1;
}

static int read_lines(struct replay *replay, int fd, struct error *err)
{
    struct reading reading = {.replay = replay, .line = 1, .err = err};
    struct segment_line line;
    int more = 1, taken = 1;
    struct segment_reader *reader = segment_reader_new(fd, 0);
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    while (taken == 1 && (more = segment_reader_next(reader, &line, err)) == 1) {
        taken = take_line(&reading, &line);
        reading.line++;
    }
    segment_reader_free(reader);
    replay->torn = taken == 0;
    if (more < 0)
        return error_prefix(err, "%s/log/%012" PRIu64 ".jsonl", replay->dir, replay->last);
    return taken < 0 ? -1 : 0;
}

// ---- segments ----

static void begin_segment(struct replay *replay, uint64_t first)
{
    replay->last = first;
    replay->end = 0;
    replay->began_us = 0;
    replay->sealed = false;
    if (first <= head_size(replay)) {
        replay->head_in = first;
        replay->tail = 0;
    }
}

static int read_segment(struct replay *replay, uint64_t first, struct error *err)
{
    if (replay->torn || first != state_size(replay->state))
        return error_set(err, ERROR_DATA_LOSS,
                         "%s/log/%012" PRIu64 ".jsonl: record %" PRIu64
                         " should come first in the next segment",
                         replay->dir, first, state_size(replay->state));
    if (first > 0 && !replay->sealed)
        return error_set(err, ERROR_DATA_LOSS,
                         "%s/log/%012" PRIu64 ".jsonl: the segment before it does not end with "
                         "log.sealed",
                         replay->dir, first);
    int fd = open_segment(replay, first, err);
    if (fd < 0)
        return -1;
    begin_segment(replay, first);
    int result = read_lines(replay, fd, err);
    close(fd);
    return result;
}

static int read_segments(struct replay *replay, const uint64_t *firsts, size_t count,
                         struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (read_segment(replay, firsts[i], err) != 0)
            return -1;
    uint64_t size = state_size(replay->state);
    if (size < head_size(replay))
        return error_set(err, ERROR_DATA_LOSS,
                         "%s: the log ends after %" PRIu64 " records, but %" PRIu64
                         " were signed: records %" PRIu64 " to %" PRIu64 " are missing",
                         replay->dir, size, head_size(replay), size, head_size(replay) - 1);
    if (replay->sealed && !replay->torn && size == head_size(replay))
        begin_segment(replay, size);
    return 0;
}

// ---- from a snapshot ----

// Reads the last line of a segment into `text`. A whole line is the only thing that is taken.
static int read_last_line(const struct replay *replay, uint64_t first,
                          char text[RECORD_LINE_MAX + 2], size_t *length, struct error *err)
{
    struct stat st;
    int fd = open_segment(replay, first, err);
    if (fd < 0)
        return -1;
    bool seen = fstat(fd, &st) == 0 && st.st_size > 1;
    size_t want =
        seen && st.st_size < RECORD_LINE_MAX + 2 ? (size_t)st.st_size : RECORD_LINE_MAX + 2;
    seen = seen && file_read_at(fd, text, want, (uint64_t)st.st_size - want) == 0;
    close(fd);
    if (!seen || text[want - 1] != '\n')
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%012" PRIu64 ".jsonl: no last line",
                         replay->dir, first);
    const char *before = memrchr(text, '\n', want - 1);
    const char *line = before != NULL ? before + 1 : text;
    *length = want - 1 - (size_t)(line - text);
    memmove(text, line, *length);
    return 0;
}

static struct state *read_snapshot(const struct replay *replay, uint64_t next, struct error *err)
{
    char name[SNAPSHOT_NAME_SIZE];
    size_t length;
    snapshot_name(next, name);
    char *text = file_read(replay->log_fd, name, SNAPSHOT_TEXT_MAX, &length, err);
    struct state *state = text != NULL ? snapshot_parse(text, length, err) : NULL;
    free(text);
    return state;
}

static int read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                     struct merkle_hash *hashes, struct error *err)
{
    const struct replay *replay = context;
    return tiles_read(replay->dir_fd, level, index, width, hashes, err);
}

// Whether the tree ends with this leaf.
static int check_last_leaf(struct replay *replay, const struct merkle_hash *leaf, struct error *err)
{
    struct tree_reader reader = {.tree = replay->tree, .older = read_tile, .context = replay};
    struct merkle_hash proof[MERKLE_PROOF_MAX], root = tree_root(replay->tree);
    size_t length;
    uint64_t size = tree_size(replay->tree);
    if (merkle_prove_inclusion(size - 1, size, tree_read_hash, &reader, proof, &length, err) != 0)
        return -1;
    return merkle_verify_inclusion(size - 1, size, leaf, proof, length, &root, err);
}

// Begins with the snapshot before segment `next`: what it says is what the log.sealed before it
// vouches for, and that record is in the tree, whose root the lines that follow lead to the signed
// one.
static int begin_at_snapshot(struct replay *replay, uint64_t before, uint64_t next,
                             struct error *err)
{
    char text[RECORD_LINE_MAX + 2];
    size_t length = 0;
    struct record sealed;
    replay->state = read_snapshot(replay, next, err);
    if (replay->state == NULL || read_last_line(replay, before, text, &length, err) != 0 ||
        record_parse(&sealed, text, length, err) != 0)
        return -1;
    if (sealed.event != RECORD_LOG_SEALED || sealed.seq + 1 != next)
        return error_set(err, ERROR_DATA_LOSS, "segment %" PRIu64 " does not end with log.sealed",
                         before);
    if (state_apply(replay->state, &sealed, err) != 0)
        return -1;
    replay->tree = tree_load(next, read_tile, replay, err);
    struct merkle_hash leaf = merkle_leaf(text, length);
    if (replay->tree == NULL || check_last_leaf(replay, &leaf, err) != 0)
        return -1;
    replay->sealed = true;
    return replay->head->size == next ? check_head_root(replay, err) : 0;
}

static void start_over(struct replay *replay)
{
    replay_clear(replay);
    replay->torn = replay->sealed = replay->lacking = false;
    begin_segment(replay, 0);
}

// Reads on from the newest snapshot that holds. Returns 1, 0 when there is none or it leads to
// another root than the signed one.
static int try_snapshots(struct replay *replay, const uint64_t *firsts, size_t count)
{
    for (size_t i = count; i-- > 1;) {
        struct error why;
        if (firsts[i] > head_size(replay))
            continue;
        start_over(replay);
        if (begin_at_snapshot(replay, firsts[i - 1], firsts[i], &why) == 0)
            return read_segments(replay, firsts + i, count - i, &why) == 0;
    }
    return 0;
}

static int read_all(struct replay *replay, const uint64_t *firsts, size_t count, struct error *err)
{
    start_over(replay);
    replay->state = state_new();
    replay->tree = tree_new();
    if (replay->state == NULL || replay->tree == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    return read_segments(replay, firsts, count, err);
}

// Reads the log once, and when that went well and something was lacking, once more the same way.
static int read_twice(struct replay *replay, const uint64_t *firsts, size_t count,
                      struct error *err)
{
    bool whole = replay->from_start || try_snapshots(replay, firsts, count) == 0;
    if (whole && read_all(replay, firsts, count, err) != 0)
        return -1;
    if (!replay->lacking)
        return 0;
    replay->repairs = true;
    if (!whole && try_snapshots(replay, firsts, count) == 1)
        return 0;
    return read_all(replay, firsts, count, err);
}

int replay_run(struct replay *replay, struct error *err)
{
    uint64_t *firsts;
    size_t count;
    replay->state = NULL;
    replay->tree = NULL;
    replay->repairs = false;
    replay->unrepaired.code = ERROR_OK;
    if (segment_list(replay->log_fd, &firsts, &count, err) != 0)
        return error_prefix(err, "%s/log", replay->dir);
    int result = read_twice(replay, firsts, count, err);
    free(firsts);
    if (result != 0)
        replay_clear(replay);
    return result;
}

void replay_clear(struct replay *replay)
{
    state_free(replay->state);
    tree_free(replay->tree);
    replay->state = NULL;
    replay->tree = NULL;
}
