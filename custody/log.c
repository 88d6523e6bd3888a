// SPDX-License-Identifier: Apache-2.0
// The tree in memory, and the jobs that bring the files after it.
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proof.h"
#include "say.h"

// While heads are signed faster than this, not each is written to DIR/checkpoint: renaming a file
// for each release would cost as much as making its record durable.
#define CHECKPOINT_INTERVAL_NS (50 * INT64_C(1000000))

struct log {
    struct disk *disk;
    struct log_files *files; // the disk's thread's
    struct log_limits limits;
    struct tree *tree;
    uint64_t first;            // of the segment that is appended to
    uint64_t bytes;            // in it
    int64_t began_us;          // its first record's time; 0 = it has none
    bool sealed;               // it is complete, the next was not made yet
    uint64_t readings;         // how often it was read
    bool publishing;           // a job is under way
    bool looking;              // the same
    bool warned;               // that it fails
    int64_t published_ns;      // when it began last, monotonic
    struct full_tiles tiles;   // to be written
    char checkpoint[NOTE_MAX]; // to be written; "" = none
};

// ---- life ----

struct log *log_new(const char *dir, struct disk *disk, const struct log_limits *limits,
                    struct error *err)
{
    struct log *log = calloc(1, sizeof(*log));
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log");
    if (log == NULL)
        return NULL;
    log->disk = disk;
    log->limits = *limits;
    STAILQ_INIT(&log->tiles);
    log->tree = tree_new();
    log->files = log->tree != NULL ? log_files_new(dir, err) : NULL;
    if (log->files != NULL)
        return log;
    log_free(log);
    return NULL;
}

static void free_tiles(struct full_tiles *tiles)
{
    while (!STAILQ_EMPTY(tiles)) {
        struct full_tile *tile = STAILQ_FIRST(tiles);
        STAILQ_REMOVE_HEAD(tiles, link);
        free(tile);
    }
}

void log_free(struct log *log)
{
    if (log == NULL)
        return;
    free_tiles(&log->tiles);
    tree_free(log->tree);
    log_files_free(log->files);
    free(log);
}

void log_set_limits(struct log *log, const struct log_limits *limits)
{
    log->limits = *limits;
}

struct log_files *log_files(struct log *log)
{
    return log->files;
}

// ---- opening ----

// What the keeper asks for, out of the tiles where it is not on the tree's edge.
static int read_proofs(struct log *log, uint64_t token_size, struct log_view *view,
                       struct error *err)
{
    struct tree_reader reader = {
        .tree = view->replay.tree, .older = log_files_read_tile, .context = log->files};
    if (merkle_edge_read(view->replay.head_in, tree_read_hash, &reader, &view->edge, err) != 0)
        return -1;
    view->proof_length = 0;
    if (token_size == 0)
        return 0;
    return merkle_prove_consistency(token_size, tree_size(view->replay.tree), tree_read_hash,
                                    &reader, view->proof, &view->proof_length, err);
}

int log_read(struct log *log, const struct checkpoint *head, uint64_t token_size,
             struct log_view *view, struct error *err)
{
    for (int from_start = 0; from_start <= 1; from_start++) {
        if (log_files_replay(log->files, head, from_start, &view->replay, &view->aside, err) != 0)
            return -1;
        view->state = view->replay.state;
        view->replay.state = NULL;
        view->full = log_files_are_full(log->files);
        // Reading everything makes the tiles again that are missing.
        if (read_proofs(log, token_size, view, err) == 0)
            return 0;
        log_view_clear(view);
    }
    return -1;
}

void log_view_clear(struct log_view *view)
{
    state_free(view->state);
    view->state = NULL;
    replay_clear(&view->replay);
}

void log_take(struct log *log, struct log_view *view)
{
    tree_free(log->tree);
    log->tree = view->replay.tree;
    view->replay.tree = NULL;
    log->readings++;
    log->first = view->replay.last;
    log->bytes = view->replay.end;
    log->began_us = view->replay.began_us;
    log->sealed = view->replay.sealed;
    // What was to be published stands there by now, or is made again.
    free_tiles(&log->tiles);
    log->checkpoint[0] = '\0';
    if (view->replay.unrepaired.code != ERROR_OK)
        say(LOG_WARNING, "could not be made again: %s", view->replay.unrepaired.message);
}

// ---- the tree ----

uint64_t log_segment_bytes(const struct log *log)
{
    return log->bytes;
}

uint64_t log_size(const struct log *log)
{
    return tree_size(log->tree);
}

struct merkle_hash log_root(const struct log *log)
{
    return tree_root(log->tree);
}

struct merkle_edge log_edge(const struct log *log)
{
    struct tree_reader reader = {.tree = log->tree};
    struct merkle_edge edge;
    struct error err;
    // It lies in the unfinished tiles alone: this cannot fail.
    if (merkle_edge_read(tree_size(log->tree), tree_read_hash, &reader, &edge, &err) != 0)
        abort();
    return edge;
}

int log_receipt(struct log *log, uint64_t index, const char *note, char *receipt, size_t size,
                size_t *length, struct error *err)
{
    struct proof proof = {.index = index};
    struct tree_reader reader = {.tree = log->tree};
    if (merkle_prove_inclusion(index, tree_size(log->tree), tree_read_hash, &reader, proof.path,
                               &proof.path_length, err) != 0)
        return -1;
    proof.checkpoint_length = strlen(note);
    memcpy(proof.checkpoint, note, proof.checkpoint_length + 1);
    return proof_format(&proof, receipt, size, length, err);
}

// ---- jobs ----

struct job {
    struct log *log;
    log_done_fn *done;
    void *context;
    bool failed;
    struct error error;
    // Of an append:
    const char *lines;
    size_t length;
    // Of a rotation:
    uint64_t next;
    char *snapshot;
};

static struct job *job_new(struct log *log, log_done_fn *done, void *context, struct error *err)
{
    struct job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log's disk");
        return NULL;
    }
    job->log = log;
    job->done = done;
    job->context = context;
    return job;
}

static void job_free(struct job *job)
{
    free(job->snapshot);
    free(job);
}

static int start_job(struct job *job, const char *what, disk_fn *work, disk_fn *done,
                     struct error *err)
{
    if (disk_do(job->log->disk, what, work, done, job, err) == 0)
        return 0;
    job_free(job);
    return -1;
}

static void on_job_done(void *context)
{
    struct job *job = context;
    job->done(job->context, job->failed ? &job->error : NULL);
    job_free(job);
}

static void append(void *context)
{
    struct job *job = context;
    job->failed = log_files_append(job->log->files, job->lines, job->length, &job->error) != 0;
}

int log_append(struct log *log, const char *lines, size_t length, int64_t time_us,
               log_done_fn *done, void *context, struct error *err)
{
    struct job *job = job_new(log, done, context, err);
    if (job == NULL)
        return -1;
    job->lines = lines;
    job->length = length;
    log->bytes += length;
    if (log->began_us == 0)
        log->began_us = time_us;
    return start_job(job, "writing to the log", append, on_job_done, err);
}

static void look(void *context)
{
    struct job *job = context;
    job->failed = log_files_look(job->log->files, &job->error) != 0;
}

static void on_looked(void *context)
{
    struct job *job = context;
    job->log->looking = false;
    on_job_done(job);
}

void log_look(struct log *log, log_done_fn *done, void *context)
{
    struct error err;
    if (log->looking)
        return;
    // Without memory it is looked at the next time.
    struct job *job = job_new(log, done, context, &err);
    log->looking = job != NULL && start_job(job, "looking at the log", look, on_looked, &err) == 0;
}

static void make_room(void *context)
{
    struct job *job = context;
    job->failed = log_files_make_room(job->log->files, &job->error) != 0;
}

int log_make_room(struct log *log, log_done_fn *done, void *context, struct error *err)
{
    struct job *job = job_new(log, done, context, err);
    if (job == NULL)
        return -1;
    return start_job(job, "looking for room", make_room, on_job_done, err);
}

// ---- segments ----

bool log_is_due(const struct log *log, size_t more, int64_t now_us)
{
    uint64_t bytes = log->bytes + more;
    if (bytes == 0 || log->sealed)
        return false;
    return bytes >= log->limits.segment_size ||
           (log->began_us > 0 &&
            (now_us - log->began_us) / 1000000 >= (int64_t)log->limits.segment_age);
}

static void rotate(void *context)
{
    struct job *job = context;
    job->failed =
        log_files_rotate(job->log->files, job->next, job->snapshot, job->length, &job->error) != 0;
}

static void on_rotated(void *context)
{
    struct job *job = context;
    struct log *log = job->log;
    if (!job->failed && job->next > log->first) {
        log->first = job->next;
        log->bytes = 0;
        log->began_us = 0;
        log->sealed = false;
    }
    on_job_done(job);
}

int log_rotate(struct log *log, char *snapshot, size_t length, log_done_fn *done, void *context,
               struct error *err)
{
    struct job *job = job_new(log, done, context, err);
    if (job == NULL) {
        free(snapshot);
        return -1;
    }
    job->next = tree_size(log->tree);
    job->snapshot = snapshot;
    job->length = length;
    log_publish(log);
    return start_job(job, "beginning a segment", rotate, on_rotated, err);
}

// ---- publishing ----

struct publishing {
    struct log *log;
    uint64_t readings;
    struct publication what;
    bool failed;
    struct error error;
};

static void publish(void *context)
{
    struct publishing *publishing = context;
    publishing->failed =
        log_files_publish(publishing->log->files, &publishing->what, &publishing->error) != 0;
}

// What could not be written is so later, unless the log was read again since.
static void on_published(void *context)
{
    struct publishing *publishing = context;
    struct log *log = publishing->log;
    log->publishing = false;
    if (publishing->failed && !log->warned)
        say(LOG_WARNING, "not published: %s", publishing->error.message);
    if (publishing->failed && publishing->readings == log->readings) {
        STAILQ_CONCAT(&publishing->what.tiles, &log->tiles);
        STAILQ_CONCAT(&log->tiles, &publishing->what.tiles);
        if (log->checkpoint[0] == '\0')
            memcpy(log->checkpoint, publishing->what.checkpoint, sizeof(log->checkpoint));
    }
    log->warned = publishing->failed;
    free_tiles(&publishing->what.tiles);
    free(publishing);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void start_publishing(struct log *log, bool edge)
{
    struct error err;
    struct publishing *publishing = calloc(1, sizeof(*publishing));
    if (publishing == NULL)
        return; // the next time
    publishing->log = log;
    publishing->readings = log->readings;
    STAILQ_INIT(&publishing->what.tiles);
    STAILQ_CONCAT(&publishing->what.tiles, &log->tiles);
    memcpy(publishing->what.checkpoint, log->checkpoint, sizeof(log->checkpoint));
    publishing->what.has_edge = edge;
    if (edge)
        publishing->what.edge = *tree_tiles(log->tree);
    if (disk_do(log->disk, "publishing tiles", publish, on_published, publishing, &err) != 0) {
        STAILQ_CONCAT(&log->tiles, &publishing->what.tiles);
        free(publishing);
        return;
    }
    log->checkpoint[0] = '\0';
    log->publishing = true;
    log->published_ns = now_ns();
}

void log_publish(struct log *log)
{
    start_publishing(log, true);
}

// A tile_full_fn. Without memory for it the tile is missing to those who read from outside, until
// the log is read again.
static int keep_full_tile(void *context, unsigned level, uint64_t index,
                          const struct merkle_hash *hashes, struct error *err)
{
    struct log *log = context;
    struct full_tile *tile = malloc(sizeof(*tile));
    (void)err;
    if (tile == NULL)
        return 0;
    tile->level = level;
    tile->index = index;
    memcpy(tile->hashes, hashes, sizeof(tile->hashes));
    STAILQ_INSERT_TAIL(&log->tiles, tile, link);
    return 0;
}

int log_signed(struct log *log, const struct merkle_hash *leaves, size_t count, const char *origin,
               const char *note, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (tree_append(log->tree, &leaves[i], keep_full_tile, log, err) != 0)
            return -1;
    struct checkpoint head = {.size = tree_size(log->tree), .root = tree_root(log->tree)};
    char text[CHECKPOINT_TEXT_MAX];
    snprintf(head.origin, sizeof(head.origin), "%s", origin);
    size_t length = checkpoint_format(&head, text);
    if (strncmp(note, text, length) != 0)
        return error_set(err, ERROR_INTERNAL,
                         "the keeper signed another head than that of %" PRIu64 " records",
                         tree_size(log->tree));
    snprintf(log->checkpoint, sizeof(log->checkpoint), "%s", note);
    if (!log->publishing && now_ns() - log->published_ns >= CHECKPOINT_INTERVAL_NS)
        start_publishing(log, false);
    return 0;
}
