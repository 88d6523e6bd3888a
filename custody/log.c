// SPDX-License-Identifier: Apache-2.0
// Writing and reading back the log's files.
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "proof.h"
#include "segment.h"
#include "tile.h"

// While heads are signed faster than this, not each is written to DIR/checkpoint: renaming a file
// for each release would cost as much as making its record durable.
#define CHECKPOINT_INTERVAL_NS (50 * INT64_C(1000000))

struct log {
    char *dir;
    int dir_fd;             // DIR, locked
    int log_fd;             // DIR/log
    int segment_fd;         // the last segment, read and append; -1 before log_read
    uint64_t first;         // its first record's index
    uint64_t end;           // its bytes, as far as we wrote or read them
    uint64_t last_unsigned; // byte offset of the line that log_next_unsigned gave last
    uint64_t next_unsigned; // byte offset that log_next_unsigned goes on from
    bool broken;            // an append failed
    struct tile_edge tree;  // signed leaves
    // Of the unfinished leaf tile, the hashes above its leaves, by level (from 1) and place: the
    // receipts of a batch all need them.
    struct merkle_hash inner[TILE_HEIGHT][TILE_WIDTH / 2];
    char checkpoint[NOTE_MAX];           // the latest
    bool checkpoint_waits;               // to be written
    int64_t checkpoint_ns;               // when it was written last, monotonic
    unsigned partial_width[TILE_LEVELS]; // of the partial tile last written, to remove it when it
                                         // is outgrown
    uint64_t partial_index[TILE_LEVELS];
};

// ---- small I/O ----

static int find_folder(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static int open_folder(int parent, const char *name)
{
    if (mkdirat(parent, name, 0750) != 0 && errno != EEXIST)
        return -1;
    return find_folder(parent, name);
}

static int write_all(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

// Writes a whole file under a name of its own, then renames it: a reader sees the old or the new
// one. Not made durable: tiles and the checkpoint can be had again from the segments and the token.
static int replace_file(int dir, const char *name, const void *data, size_t length,
                        struct error *err)
{
    char fresh[TILE_PATH_MAX + 8];
    snprintf(fresh, sizeof(fresh), "%s.new", name);
    int fd = openat(dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", fresh, strerror(errno));
    bool written = write_all(fd, data, length) == 0;
    int error = errno;
    if (close(fd) != 0 && written) {
        error = errno;
        written = false;
    }
    if (written && renameat(dir, fresh, dir, name) == 0)
        return 0;
    error = written ? errno : error;
    unlinkat(dir, fresh, 0);
    return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", name, strerror(error));
}

// ---- opening ----

struct log *log_new(const char *dir, struct error *err)
{
    struct log *log = calloc(1, sizeof(*log));
    if (log == NULL || (log->dir = strdup(dir)) == NULL) {
        free(log);
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log");
        return NULL;
    }
    log->log_fd = log->segment_fd = -1;
    log->dir_fd = open_folder(AT_FDCWD, dir);
    if (log->dir_fd < 0 || (log->log_fd = open_folder(log->dir_fd, "log")) < 0) {
        error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", dir, strerror(errno));
        goto fail;
    }
    if (flock(log->dir_fd, LOCK_EX | LOCK_NB) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", dir,
                  errno == EWOULDBLOCK ? "another custodyd writes it" : strerror(errno));
        goto fail;
    }
    return log;
fail:
    log_free(log);
    return NULL;
}

void log_free(struct log *log)
{
    if (log == NULL)
        return;
    if (log->segment_fd >= 0)
        close(log->segment_fd);
    if (log->log_fd >= 0)
        close(log->log_fd);
    if (log->dir_fd >= 0)
        close(log->dir_fd);
    free(log->dir);
    free(log);
}

static bool is_same_folder(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

int log_find_folders(struct log *log, struct error *err)
{
    // What is not there is not made: a copy may be on its way to that place.
    int dir = find_folder(AT_FDCWD, log->dir);
    int folder = dir >= 0 ? find_folder(dir, "log") : -1;
    if (folder < 0) {
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE, "audit log %s: %s",
                  log->dir, strerror(errno));
        goto fail;
    }
    if (is_same_folder(dir, log->dir_fd)) {
        close(dir);
    } else {
        if (flock(dir, LOCK_EX | LOCK_NB) != 0) {
            error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", log->dir,
                      errno == EWOULDBLOCK ? "another custodyd writes it" : strerror(errno));
            goto fail;
        }
        close(log->dir_fd);
        log->dir_fd = dir;
    }
    close(log->log_fd);
    log->log_fd = folder;
    return 0;
fail:
    if (folder >= 0)
        close(folder);
    if (dir >= 0)
        close(dir);
    return -1;
}

// ---- tiles ----

static int make_tile_folders(struct log *log, char *path, struct error *err)
{
    for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdirat(log->dir_fd, path, 0750);
        int error = errno;
        *slash = '/';
        if (made != 0 && error != EEXIST)
            return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", path, strerror(error));
    }
    return 0;
}

static int write_tile(struct log *log, unsigned level, uint64_t index, unsigned width,
                      const struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, width, path);
    if (make_tile_folders(log, path, err) != 0)
        return -1;
    return replace_file(log->dir_fd, path, hashes, width * sizeof(*hashes), err);
}

static int read_tile_file(struct log *log, unsigned level, uint64_t index, unsigned width,
                          struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, TILE_WIDTH, path);
    int fd = openat(log->dir_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", path, strerror(errno));
    ssize_t n;
    do
        n = pread(fd, hashes, width * sizeof(*hashes), 0);
    while (n < 0 && errno == EINTR);
    int error = errno;
    close(fd);
    if (n == (ssize_t)(width * sizeof(*hashes)))
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", path,
                     n < 0 ? strerror(error) : "too short");
}

// A tile_read_fn: what the right edge does not hold in memory is a full tile on disk.
static int read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                     struct merkle_hash *hashes, struct error *err)
{
    struct log *log = context;
    uint64_t edge_index;
    unsigned edge_width = tile_edge_width(&log->tree, level, &edge_index);
    if (index != edge_index)
        return read_tile_file(log, level, index, width, hashes, err);
    if (width > edge_width)
        return error_set(err, ERROR_INTERNAL, "audit log: tile %u/%" PRIu64 " has no %u hashes yet",
                         level, index, width);
    memcpy(hashes, log->tree.hashes[level], width * sizeof(*hashes));
    return 0;
}

static int write_full_tile(void *context, unsigned level, uint64_t index,
                           const struct merkle_hash *hashes, struct error *err)
{
    return write_tile(context, level, index, TILE_WIDTH, hashes, err);
}

// Adds a leaf to the tree; tiles that it fills go to `full`.
static int take_leaf(struct log *log, const struct merkle_hash *leaf, tile_full_fn *full,
                     struct error *err)
{
    unsigned place = (unsigned)(log->tree.size % TILE_WIDTH);
    struct merkle_hash hash = *leaf;
    for (unsigned level = 1; level < TILE_HEIGHT && (place & 1) != 0; level++) {
        const struct merkle_hash *below = level == 1 ? log->tree.hashes[0] : log->inner[level - 1];
        hash = merkle_node(&below[place - 1], &hash);
        place /= 2;
        log->inner[level][place] = hash;
    }
    return tile_edge_append(&log->tree, leaf, full, log, err);
}

// A merkle_read_fn: from what is at hand, else from the tiles.
static int read_hash(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                     struct error *err)
{
    struct log *log = context;
    struct tile_reader reader = {.read = read_tile, .context = log};
    bool at_hand = level >= 1 && level < TILE_HEIGHT && (index + 1) << level <= log->tree.size &&
                   index >> (TILE_HEIGHT - level) == log->tree.size / TILE_WIDTH;
    if (!at_hand)
        return tile_read_hash(&reader, level, index, hash, err);
    *hash = log->inner[level][index % (TILE_WIDTH >> level)];
    return 0;
}

// The same while the log is read back: a tile that stands there already, as it should, is left
// alone.
static int restore_full_tile(void *context, unsigned level, uint64_t index,
                             const struct merkle_hash *hashes, struct error *err)
{
    struct merkle_hash there[TILE_WIDTH];
    if (read_tile_file(context, level, index, TILE_WIDTH, there, NULL) == 0 &&
        memcmp(there, hashes, sizeof(there)) == 0)
        return 0;
    return write_tile(context, level, index, TILE_WIDTH, hashes, err);
}

// Removes the partial tiles of other widths than `keep` (0: all) beside tile `index`: they were
// outgrown, in this life of the daemon or an earlier one.
static void sweep_partial_tiles(struct log *log, unsigned level, uint64_t index, unsigned keep)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, 1, path);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    int fd = openat(log->dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    char kept[16];
    snprintf(kept, sizeof(kept), "%u", keep);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, kept) != 0)
            unlinkat(fd, entry->d_name, 0);
    closedir(folder);
    if (keep == 0)
        unlinkat(log->dir_fd, path, AT_REMOVEDIR);
}

static int write_partial_tiles(struct log *log, struct error *err)
{
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        uint64_t index;
        unsigned width = tile_edge_width(&log->tree, level, &index);
        unsigned *old_width = &log->partial_width[level];
        uint64_t *old_index = &log->partial_index[level];
        if (width == *old_width && index == *old_index)
            continue;
        if (width > 0 && write_tile(log, level, index, width, log->tree.hashes[level], err) != 0)
            return -1;
        if (index != *old_index)
            sweep_partial_tiles(log, level, *old_index, 0);
        sweep_partial_tiles(log, level, index, width);
        *old_width = width;
        *old_index = index;
    }
    return 0;
}

// ---- the checkpoint ----

int log_read_checkpoint(struct log *log, const struct note_key *key, struct checkpoint *head,
                        char *note, struct error *err)
{
    int fd = openat(log->dir_fd, "checkpoint", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        error_set(err, ERROR_NOT_FOUND, "%s/checkpoint is not there", log->dir);
        return 0;
    }
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/checkpoint: %s", log->dir, strerror(errno));
    ssize_t n;
    do
        n = read(fd, note, NOTE_MAX - 1);
    while (n < 0 && errno == EINTR);
    int error = errno;
    close(fd);
    if (n < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/checkpoint: %s", log->dir, strerror(error));
    note[n] = '\0';
    if (checkpoint_open(head, note, (size_t)n, key, err) == 0)
        return 1;
    error_prefix(err, "%s/checkpoint", log->dir);
    return 0;
}

static int write_checkpoint(struct log *log, struct error *err)
{
    struct timespec now;
    if (replace_file(log->dir_fd, "checkpoint", log->checkpoint, strlen(log->checkpoint), err) != 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    log->checkpoint_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    log->checkpoint_waits = false;
    return 0;
}

static bool checkpoint_is_due(const struct log *log)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec - log->checkpoint_ns >=
           CHECKPOINT_INTERVAL_NS;
}

int log_drop_checkpoint(struct log *log, struct error *err)
{
    log->checkpoint_waits = false;
    if (unlinkat(log->dir_fd, "checkpoint", 0) == 0 || errno == ENOENT)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "%s/checkpoint: %s", log->dir, strerror(errno));
}

int log_publish(struct log *log, struct error *err)
{
    if (log->checkpoint_waits && write_checkpoint(log, err) != 0)
        return -1;
    return write_partial_tiles(log, err);
}

// ---- reading back ----

// Where reading stands.
struct reading {
    struct log *log;
    const struct checkpoint *head;
    struct state *state;
    uint64_t segment; // its first index
    uint64_t line;    // number in the segment, from 1
    struct error *err;
};

static int lost(const struct reading *reading, const char *what)
{
    return error_set(
        reading->err, ERROR_DATA_LOSS,
        "%s/log/%012" PRIu64 ".jsonl:%" PRIu64 ": record %" PRIu64 " is not as it was signed: %s",
        reading->log->dir, reading->segment, reading->line, state_size(reading->state), what);
}

static uint64_t head_size(const struct reading *reading)
{
    return reading->head != NULL ? reading->head->size : 0;
}

static int check_head_root(const struct reading *reading)
{
    struct merkle_hash root = log_root(reading->log);
    if (sodium_memcmp(root.bytes, reading->head->root.bytes, sizeof(root.bytes)) == 0)
        return 0;
    return error_set(reading->err, ERROR_DATA_LOSS,
                     "%s: the first %" PRIu64
                     " records are not those that were signed: their root is another",
                     reading->log->dir, reading->head->size);
}

// Takes one line. Returns 1 when it is the next record, 0 when it is not one and nothing signed is
// lost by that, -1 with an error.
static int take_line(const struct reading *reading, const struct segment_line *line)
{
    struct record record;
    struct error what;
    struct log *log = reading->log;
    bool is_signed = state_size(reading->state) < head_size(reading);
    if (!line->complete)
        return is_signed ? lost(reading, "the line is not complete") : 0;
    if (record_parse(&record, line->text, line->length, &what) != 0 ||
        state_apply(reading->state, &record, &what) != 0)
        return is_signed ? lost(reading, what.message) : 0;
    log->end = line->offset + line->length + 1;
    if (!is_signed)
        return 1;
    struct merkle_hash leaf = merkle_leaf(line->text, line->length);
    if (take_leaf(log, &leaf, restore_full_tile, reading->err) != 0)
        return -1;
    log->next_unsigned = log->end;
    return log->tree.size == reading->head->size && check_head_root(reading) != 0 ? -1 : 1;
}

static int set_aside(struct log *log, uint64_t offset, uint64_t length, struct log_aside *aside,
                     struct error *err)
{
    char name[64], buffer[65536];
    crypto_hash_sha256_state hash;
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_init(&hash);
    snprintf(name, sizeof(name), "%012" PRIu64 ".torn-%" PRIu64, log->first, offset);
    int fd = openat(log->log_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", log->dir, name, strerror(errno));
    int result = -1;
    for (uint64_t done = 0; done < length;) {
        size_t want = length - done < sizeof(buffer) ? (size_t)(length - done) : sizeof(buffer);
        ssize_t n = pread(log->segment_fd, buffer, want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || write_all(fd, buffer, (size_t)n) != 0) {
            error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", log->dir, name,
                      n == 0 ? "cut off" : strerror(errno));
            goto cleanup;
        }
        crypto_hash_sha256_update(&hash, (const uint8_t *)buffer, (unsigned long long)n);
        done += (uint64_t)n;
    }
    // The copy must be safe before the original is cut.
    if (fsync(fd) != 0 || fsync(log->log_fd) != 0 ||
        ftruncate(log->segment_fd, (off_t)offset) != 0 || fdatasync(log->segment_fd) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", log->dir, name, strerror(errno));
        goto cleanup;
    }
    crypto_hash_sha256_final(&hash, digest);
    sodium_bin2hex(aside->sha256, sizeof(aside->sha256), digest, sizeof(digest));
    aside->any = true;
    aside->offset = offset;
    aside->length = length;
    result = 0;
cleanup:
    close(fd);
    return result;
}

// Opens the segment that begins with record `first`, as the one that is appended to.
static int open_segment(struct log *log, uint64_t first, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(first, name);
    if (log->segment_fd >= 0)
        close(log->segment_fd);
    log->segment_fd =
        openat(log->log_fd, name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->segment_fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", log->dir, name, strerror(errno));
    log->first = first;
    log->end = log->next_unsigned = 0;
    return 0;
}

// Reads the segment that is open. `*torn` says whether something else than records follows its last
// record.
static int read_segment(struct reading *reading, bool *torn)
{
    struct segment_line line;
    int more = -1;
    *torn = false;
    struct segment_reader *reader = segment_reader_new(reading->log->segment_fd, 0);
    if (reader == NULL)
        return error_set(reading->err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    for (reading->line = 1; (more = segment_reader_next(reader, &line, reading->err)) == 1;
         reading->line++) {
        int taken = take_line(reading, &line);
        if (taken == 1)
            continue;
        *torn = taken == 0;
        more = taken;
        break;
    }
    segment_reader_free(reader);
    return more;
}

static int set_rest_aside(struct log *log, struct log_aside *aside, struct error *err)
{
    struct stat st;
    if (fstat(log->segment_fd, &st) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", log->dir, strerror(errno));
    return set_aside(log, log->end, (uint64_t)st.st_size - log->end, aside, err);
}

static int read_segments(struct reading *reading, const uint64_t *firsts, size_t count,
                         struct log_aside *aside)
{
    struct log *log = reading->log;
    bool torn = false;
    for (size_t i = 0; i < count; i++) {
        if (firsts[i] != state_size(reading->state) || torn)
            return error_set(reading->err, ERROR_DATA_LOSS,
                             "%s/log/%012" PRIu64 ".jsonl: record %" PRIu64
                             " should come first in the next segment",
                             log->dir, firsts[i], state_size(reading->state));
        reading->segment = firsts[i];
        if (open_segment(log, firsts[i], reading->err) != 0 || read_segment(reading, &torn) != 0)
            return -1;
    }
    if (count == 0 && head_size(reading) == 0 && open_segment(log, 0, reading->err) != 0)
        return -1;
    if (state_size(reading->state) < head_size(reading))
        return error_set(reading->err, ERROR_DATA_LOSS,
                         "%s: the log ends after %" PRIu64 " records, but %" PRIu64 " were signed",
                         log->dir, state_size(reading->state), head_size(reading));
    return torn ? set_rest_aside(log, aside, reading->err) : 0;
}

int log_read(struct log *log, const struct checkpoint *head, struct state *state,
             struct log_aside *aside, struct error *err)
{
    uint64_t *firsts;
    size_t count;
    memset(&log->tree, 0, sizeof(log->tree));
    memset(aside, 0, sizeof(*aside));
    log->broken = true;
    if (segment_list(log->log_fd, &firsts, &count, err) != 0)
        return error_prefix(err, "%s/log", log->dir);
    struct reading reading = {.log = log, .head = head, .state = state, .err = err};
    int result = read_segments(&reading, firsts, count, aside);
    free(firsts);
    if (result != 0)
        return -1;
    log->broken = false;
    return 0;
}

bool log_is_empty(struct log *log, struct error *err)
{
    uint64_t *firsts;
    size_t count;
    if (segment_list(log->log_fd, &firsts, &count, err) != 0)
        return false;
    bool empty = true;
    for (size_t i = 0; i < count && empty; i++) {
        char name[SEGMENT_NAME_SIZE];
        struct stat st;
        segment_name(firsts[i], name);
        empty = fstatat(log->log_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size == 0;
    }
    free(firsts);
    return empty;
}

// ---- the tree ----

uint64_t log_size(const struct log *log)
{
    return log->tree.size;
}

int log_edge(struct log *log, uint64_t size, struct merkle_edge *edge, struct error *err)
{
    return merkle_edge_read(size, read_hash, log, edge, err);
}

struct merkle_hash log_root(const struct log *log)
{
    struct merkle_edge edge;
    // The right edge of a tree lies in its rightmost tiles alone, and those are in memory: this
    // cannot fail.
    struct error err;
    if (log_edge((struct log *)log, log->tree.size, &edge, &err) != 0)
        abort();
    return merkle_edge_root(&edge);
}

uint64_t log_segment_first(const struct log *log)
{
    return log->first;
}

int log_prove_consistency(struct log *log, uint64_t old_size, uint64_t new_size,
                          struct merkle_hash *proof, size_t *length, struct error *err)
{
    return merkle_prove_consistency(old_size, new_size, read_hash, log, proof, length, err);
}

int log_receipt(struct log *log, uint64_t index, const char *note, char *receipt, size_t size,
                size_t *length, struct error *err)
{
    struct proof proof = {.index = index};
    if (merkle_prove_inclusion(index, log->tree.size, read_hash, log, proof.path,
                               &proof.path_length, err) != 0)
        return -1;
    proof.checkpoint_length = strlen(note);
    memcpy(proof.checkpoint, note, proof.checkpoint_length + 1);
    return proof_format(&proof, receipt, size, length, err);
}

// ---- writing ----

int log_next_unsigned(struct log *log, struct record *record, struct merkle_hash *leaf,
                      struct error *err)
{
    struct segment_line line;
    if (log->next_unsigned >= log->end)
        return 0;
    struct segment_reader *reader = segment_reader_new(log->segment_fd, log->next_unsigned);
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    int more = segment_reader_next(reader, &line, err);
    if (more == 1 && (!line.complete || record_parse(record, line.text, line.length, err) != 0))
        more =
            error_set(err, ERROR_DATA_LOSS, "%s/log/%012" PRIu64 ".jsonl changed while it was read",
                      log->dir, log->first);
    if (more == 1) {
        *leaf = merkle_leaf(line.text, line.length);
        log->last_unsigned = line.offset;
        log->next_unsigned = line.offset + line.length + 1;
    }
    segment_reader_free(reader);
    return more;
}

int log_set_aside_from_last(struct log *log, struct log_aside *aside, struct error *err)
{
    log->broken = true;
    log->end = log->last_unsigned;
    return set_rest_aside(log, aside, err);
}

int log_append(struct log *log, const char *lines, size_t length, struct error *err)
{
    struct stat st;
    if (log->broken)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: an earlier write failed", log->dir);
    log->broken = true; // until the write succeeded
    if (fstat(log->segment_fd, &st) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", log->dir, strerror(errno));
    if (st.st_nlink == 0)
        return error_set(err, ERROR_UNAVAILABLE,
                         "audit log %s: its segment was deleted under the daemon", log->dir);
    if ((uint64_t)st.st_size != log->end)
        return error_set(err, ERROR_UNAVAILABLE,
                         "audit log %s: its segment was changed under the daemon", log->dir);
    if (write_all(log->segment_fd, lines, length) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: write: %s", log->dir,
                         strerror(errno));
    // The disk may begin while the keeper still reads and unseals: it waits for it (fdatasync) all
    // the same, and it is there that an error shows.
    sync_file_range(log->segment_fd, (off_t)log->end, (off_t)length, SYNC_FILE_RANGE_WRITE);
    log->end += length;
    log->broken = false;
    return 0;
}

int log_signed(struct log *log, const struct merkle_hash *leaves, size_t count, const char *origin,
               const char *note, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (take_leaf(log, &leaves[i], write_full_tile, err) != 0)
            return -1;
    struct checkpoint head = {.size = log->tree.size, .root = log_root(log)};
    char text[CHECKPOINT_TEXT_MAX];
    snprintf(head.origin, sizeof(head.origin), "%s", origin);
    size_t length = checkpoint_format(&head, text);
    if (strncmp(note, text, length) != 0)
        return error_set(err, ERROR_INTERNAL,
                         "the keeper signed another head than that of %" PRIu64 " records",
                         log->tree.size);
    snprintf(log->checkpoint, sizeof(log->checkpoint), "%s", note);
    log->checkpoint_waits = true;
    return checkpoint_is_due(log) ? write_checkpoint(log, err) : 0;
}
