// SPDX-License-Identifier: Apache-2.0
// Writing the log's files.
#include "log_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "file.h"
#include "reserve.h"
#include "segment.h"
#include "snapshot.h"
#include "tiles.h"

struct log_files {
    char *dir;
    int dir_fd; // DIR, locked; -1 until it is open
    int log_fd; // DIR/log
    bool was_open;
    int fd; // the last segment, read and append; -1 until the log was read
    uint64_t first;
    uint64_t end; // its bytes, as far as we wrote or read them
    bool broken;  // nothing may be appended
    bool full;
    // Where log_files_next_unsigned goes on.
    uint64_t tail_in, tail_offset, tail_index;
    struct tiles_published published;
};

// ---- opening ----

static int open_folder(int parent, const char *name, bool make)
{
    if (make && mkdirat(parent, name, 0750) != 0 && errno != EEXIST)
        return -1;
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

struct log_files *log_files_new(const char *dir, struct error *err)
{
    struct log_files *files = calloc(1, sizeof(*files));
    if (files == NULL || (files->dir = strdup(dir)) == NULL) {
        free(files);
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log");
        return NULL;
    }
    files->dir_fd = files->log_fd = files->fd = -1;
    files->broken = true;
    return files;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void log_files_free(struct log_files *files)
{
    if (files == NULL)
        return;
    close_fd(&files->fd);
    close_fd(&files->log_fd);
    close_fd(&files->dir_fd);
    free(files->dir);
    free(files);
}

static int lock_folder(struct log_files *files, struct error *err)
{
    // Made at the daemon's start alone: one that is missing later was moved, or is not mounted.
    bool make = !files->was_open;
    files->dir_fd = open_folder(AT_FDCWD, files->dir, make);
    if (files->dir_fd < 0 || (files->log_fd = open_folder(files->dir_fd, "log", make)) < 0)
        return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE,
                         "audit log %s: %s", files->dir, strerror(errno));
    if (flock(files->dir_fd, LOCK_EX | LOCK_NB) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: %s", files->dir,
                         errno == EWOULDBLOCK ? "another custodyd writes it" : strerror(errno));
    files->was_open = true;
    return 0;
}

static bool leads_to(int parent, const char *name, int fd)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && fstatat(parent, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

// Whether the folders that are open are those that readers find under their names.
static bool are_in_place(const struct log_files *files)
{
    return leads_to(AT_FDCWD, files->dir, files->dir_fd) &&
           leads_to(files->dir_fd, "log", files->log_fd);
}

int log_files_open(struct log_files *files, struct error *err)
{
    if (files->log_fd >= 0 && are_in_place(files))
        return 0;
    close_fd(&files->log_fd);
    close_fd(&files->dir_fd);
    if (lock_folder(files, err) == 0)
        return 0;
    close_fd(&files->log_fd);
    close_fd(&files->dir_fd);
    return -1;
}

// ---- reading ----

int log_files_read_checkpoint(struct log_files *files, const struct note_key *key,
                              struct checkpoint *head, char *note, struct error *err)
{
    size_t length;
    char *text = file_read(files->dir_fd, "checkpoint", NOTE_MAX - 1, &length, err);
    if (text == NULL)
        return err->code == ERROR_RESOURCE_EXHAUSTED ? -1 : 0;
    memcpy(note, text, length + 1);
    free(text);
    if (checkpoint_open(head, note, length, key, err) == 0)
        return 1;
    error_prefix(err, "%s/checkpoint", files->dir);
    return 0;
}

bool log_files_is_empty(struct log_files *files, struct error *err)
{
    uint64_t *firsts;
    size_t count;
    if (segment_list(files->log_fd, &firsts, &count, err) != 0)
        return false;
    bool empty = true;
    for (size_t i = 0; i < count && empty; i++) {
        char name[SEGMENT_NAME_SIZE];
        struct stat st;
        segment_name(firsts[i], name);
        empty = fstatat(files->log_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size == 0;
    }
    free(firsts);
    return empty;
}

int log_files_read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                        struct merkle_hash *hashes, struct error *err)
{
    const struct log_files *files = context;
    return tiles_read(files->dir_fd, level, index, width, hashes, err);
}

// Copies what follows `offset` into the side file `to`, and digests it.
static int copy_aside(int from, int to, uint64_t offset, struct log_aside *aside)
{
    char buffer[65536];
    crypto_hash_sha256_state hash;
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_init(&hash);
    for (;;) {
        ssize_t n = pread(from, buffer, sizeof(buffer), (off_t)(offset + aside->length));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (n > 0 && file_write_all(to, buffer, (size_t)n) != 0))
            return -1;
        if (n == 0)
            break;
        crypto_hash_sha256_update(&hash, (const uint8_t *)buffer, (unsigned long long)n);
        aside->length += (uint64_t)n;
    }
    crypto_hash_sha256_final(&hash, digest);
    sodium_bin2hex(aside->sha256, sizeof(aside->sha256), digest, sizeof(digest));
    return 0;
}

static int set_aside(struct log_files *files, int from, uint64_t first, uint64_t offset,
                     struct log_aside *aside, struct error *err)
{
    char name[64];
    snprintf(name, sizeof(name), "%012" PRIu64 ".torn-%" PRIu64, first, offset);
    int fd =
        openat(files->log_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", files->dir, name,
                         strerror(errno));
    // The copy must be safe before the original is cut.
    aside->offset = offset;
    aside->any = copy_aside(from, fd, offset, aside) == 0 && fsync(fd) == 0 &&
                 fsync(files->log_fd) == 0 && ftruncate(from, (off_t)offset) == 0 &&
                 fdatasync(from) == 0;
    int error = errno;
    close(fd);
    if (aside->any)
        return 0;
    files->full = files->full || error == ENOSPC || error == EDQUOT;
    return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", files->dir, name, strerror(error));
}

// Opens a segment to append to, and makes it when it is not there.
static int open_segment(struct log_files *files, uint64_t first, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(first, name);
    int flags = O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = openat(files->log_fd, name, flags);
    if (fd < 0 && errno == ENOENT) {
        fd = openat(files->log_fd, name, flags | O_CREAT | O_EXCL, 0640);
        if (fd >= 0 && fsync(files->log_fd) != 0) {
            int error = errno;
            close(fd);
            errno = error;
            fd = -1;
        }
    }
    if (fd < 0) {
        files->full = files->full || errno == ENOSPC || errno == EDQUOT;
        error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", files->dir, name, strerror(errno));
    }
    return fd;
}

static void use_segment(struct log_files *files, int fd, uint64_t first, uint64_t end)
{
    close_fd(&files->fd);
    files->fd = fd;
    files->first = first;
    files->end = end;
}

// The file that was appended to may still be there, though no name leads to it.
static void say_where_it_is(const struct log_files *files, struct error *err)
{
    struct stat st;
    char message[ERROR_MESSAGE_MAX];
    if (err->code != ERROR_DATA_LOSS || files->fd < 0 || fstat(files->fd, &st) != 0 ||
        st.st_nlink > 0)
        return;
    snprintf(message, sizeof(message), "%s", err->message);
    error_set(err, ERROR_DATA_LOSS,
              "%.250s" LOG_FILES_STILL_OPEN ": cp /proc/%d/fd/%d "
              "%.100s/log/%012" PRIu64 ".jsonl brings it back while this custodyd runs",
              message, (int)getpid(), files->fd, files->dir, files->first);
}

static int take_last_segment(struct log_files *files, const struct replay *replay,
                             struct log_aside *aside, struct error *err)
{
    int fd = open_segment(files, replay->last, err);
    if (fd < 0)
        return -1;
    if (replay->torn && set_aside(files, fd, replay->last, replay->end, aside, err) != 0) {
        close(fd);
        return -1;
    }
    use_segment(files, fd, replay->last, replay->end);
    return 0;
}

// Where the disk is full, what is read and recorded now needs the reserve's room.
static void look_for_room(struct log_files *files)
{
    struct error why;
    if (!files->full && reserve_make(files->dir_fd, false, &why) != 0)
        files->full = why.code == ERROR_RESOURCE_EXHAUSTED;
    if (files->full)
        reserve_release(files->dir_fd);
}

int log_files_replay(struct log_files *files, const struct checkpoint *head, bool from_start,
                     struct replay *replay, struct log_aside *aside, struct error *err)
{
    memset(replay, 0, sizeof(*replay));
    memset(aside, 0, sizeof(*aside));
    replay->dir = files->dir;
    replay->dir_fd = files->dir_fd;
    replay->log_fd = files->log_fd;
    replay->head = head;
    replay->from_start = from_start;
    files->broken = true;
    look_for_room(files);
    if (replay_run(replay, err) != 0) {
        say_where_it_is(files, err);
        return -1;
    }
    if (take_last_segment(files, replay, aside, err) != 0) {
        replay_clear(replay);
        return -1;
    }
    memset(&files->published, 0, sizeof(files->published));
    files->tail_in = replay->head_in;
    files->tail_offset = replay->tail;
    files->tail_index = tree_size(replay->tree);
    files->broken = false;
    return 0;
}

// ---- the tail ----

static int changed(const struct log_files *files, struct error *err)
{
    return error_set(err, ERROR_DATA_LOSS, "%s/log/%012" PRIu64 ".jsonl changed while it was read",
                     files->dir, files->tail_in);
}

// Reads on in one segment. `*count` grows.
static int read_tail(struct log_files *files, struct record *records, size_t room, size_t *count,
                     struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct segment_line line;
    int more = 0;
    segment_name(files->tail_in, name);
    int fd = openat(files->log_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", files->dir, name,
                         strerror(errno));
    struct segment_reader *reader = segment_reader_new(fd, files->tail_offset);
    if (reader == NULL)
        more = error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    while (reader != NULL && *count < room &&
           (more = segment_reader_next(reader, &line, err)) == 1) {
        struct record *record = &records[*count];
        if (!line.complete || record_parse(record, line.text, line.length, err) != 0 ||
            record->seq != files->tail_index) {
            more = changed(files, err);
            break;
        }
        files->tail_index++;
        files->tail_offset = line.offset + line.length + 1;
        ++*count;
    }
    segment_reader_free(reader);
    close(fd);
    return more < 0 ? -1 : 0;
}

int log_files_next_unsigned(struct log_files *files, struct record *records, size_t room,
                            size_t *count, struct error *err)
{
    *count = 0;
    for (;;) {
        if (read_tail(files, records, room, count, err) != 0)
            return -1;
        if (*count == room || files->tail_in == files->first)
            return 0;
        if (files->tail_index == files->tail_in)
            return changed(files, err);
        files->tail_in = files->tail_index;
        files->tail_offset = 0;
    }
}

// ---- cutting ----

// Where the line of record `index` begins in the segment open at `fd`.
static int find_line(int fd, uint64_t first, uint64_t index, uint64_t *offset, struct error *err)
{
    struct segment_line line;
    int more = 1;
    struct segment_reader *reader = segment_reader_new(fd, 0);
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    *offset = 0;
    for (uint64_t at = first; at < index; at++) {
        more = segment_reader_next(reader, &line, err);
        if (more == 1 && !line.complete)
            more = 0;
        if (more != 1)
            break;
        *offset = line.offset + line.length + 1;
    }
    segment_reader_free(reader);
    if (more == 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "segment %012" PRIu64 ".jsonl has no record %" PRIu64, first, index);
    return more < 0 ? -1 : 0;
}

static int cut_segment(struct log_files *files, uint64_t first, uint64_t index,
                       struct log_aside *aside, struct error *err)
{
    uint64_t offset = 0;
    int fd = open_segment(files, first, err);
    if (fd < 0)
        return -1;
    int result = find_line(fd, first, index, &offset, err);
    if (result == 0)
        result = set_aside(files, fd, first, offset, aside, err);
    close(fd);
    return result;
}

// A whole segment that is no part of the log keeps its bytes under another name.
static int rename_aside(struct log_files *files, uint64_t first, struct error *err)
{
    char name[SEGMENT_NAME_SIZE], aside[64];
    segment_name(first, name);
    snprintf(aside, sizeof(aside), "%012" PRIu64 ".torn-0", first);
    if (renameat(files->log_fd, name, files->log_fd, aside) == 0)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s: %s", files->dir, name, strerror(errno));
}

int log_files_cut(struct log_files *files, uint64_t index, struct log_aside *aside,
                  struct error *err)
{
    uint64_t *firsts;
    size_t count;
    int result = 0;
    files->broken = true;
    memset(aside, 0, sizeof(*aside));
    if (segment_list(files->log_fd, &firsts, &count, err) != 0)
        return -1;
    for (size_t i = count; i-- > 0 && result == 0;) {
        if (firsts[i] > index) {
            result = rename_aside(files, firsts[i], err);
            continue;
        }
        result = cut_segment(files, firsts[i], index, aside, err);
        break;
    }
    free(firsts);
    return result;
}

int log_files_drop_checkpoint(struct log_files *files, struct error *err)
{
    if (unlinkat(files->dir_fd, "checkpoint", 0) == 0 || errno == ENOENT)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "%s/checkpoint: %s", files->dir, strerror(errno));
}

// ---- writing ----

static int fail_append(struct log_files *files, const char *what, int error, struct error *err)
{
    files->full = error == ENOSPC || error == EDQUOT;
    if (!files->full)
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%012" PRIu64 ".jsonl: %s: %s", files->dir,
                         files->first, what, strerror(error));
    reserve_release(files->dir_fd);
    return error_set(err, ERROR_UNAVAILABLE,
                     "the log's disk is full (%s/log: %s): make room there, and records and "
                     "releases go on by themselves",
                     files->dir, strerror(error));
}

// Whether the segment is still the file that we wrote, under its name.
static int check_segment(struct log_files *files, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct stat held, named;
    if (!are_in_place(files))
        return error_set(err, ERROR_UNAVAILABLE,
                         "audit log %s was moved away or replaced under the daemon", files->dir);
    segment_name(files->first, name);
    if (fstat(files->fd, &held) != 0)
        return fail_append(files, "fstat", errno, err);
    if (fstatat(files->log_fd, name, &named, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT)
            return fail_append(files, "stat", errno, err);
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%s was deleted under the daemon",
                         files->dir, name);
    }
    if (named.st_dev != held.st_dev || named.st_ino != held.st_ino)
        return error_set(err, ERROR_UNAVAILABLE,
                         "%s/log/%s was replaced under the daemon by another file", files->dir,
                         name);
    if (held.st_nlink != 1)
        return error_set(err, ERROR_UNAVAILABLE,
                         "%s/log/%s has %lu names: remove all but this one, and releases go on",
                         files->dir, name, (unsigned long)held.st_nlink);
    if ((uint64_t)held.st_size != files->end)
        return error_set(err, ERROR_UNAVAILABLE,
                         "%s/log/%s was changed under the daemon: it has %lld bytes, not %" PRIu64,
                         files->dir, name, (long long)held.st_size, files->end);
    return 0;
}

int log_files_append(struct log_files *files, const char *lines, size_t length, struct error *err)
{
    if (files->broken)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: an earlier write failed",
                         files->dir);
    files->broken = true; // until the write succeeded
    if (check_segment(files, err) != 0)
        return -1;
    if (file_write_all(files->fd, lines, length) != 0) {
        int error = errno;
        // What was written of it is nobody's. Should this fail, it is set aside when the log is
        // read.
        if (ftruncate(files->fd, (off_t)files->end) != 0)
            error = error != 0 ? error : errno;
        return fail_append(files, "write", error, err);
    }
    // The disk may begin while the keeper still reads and unseals: it waits for it (fdatasync) all
    // the same, and it is there that an error shows.
    sync_file_range(files->fd, (off_t)files->end, (off_t)length, SYNC_FILE_RANGE_WRITE);
    files->end += length;
    files->broken = false;
    return 0;
}

int log_files_look(struct log_files *files, struct error *err)
{
    if (files->broken || check_segment(files, err) == 0)
        return 0;
    files->broken = true;
    return -1;
}

bool log_files_are_full(const struct log_files *files)
{
    return files->full;
}

int log_files_make_room(struct log_files *files, struct error *err)
{
    if (reserve_make(files->dir_fd, true, err) != 0)
        return -1;
    files->full = false;
    return 0;
}

int log_files_publish(struct log_files *files, struct publication *publication, struct error *err)
{
    while (!STAILQ_EMPTY(&publication->tiles)) {
        struct full_tile *tile = STAILQ_FIRST(&publication->tiles);
        if (tiles_write(files->dir_fd, tile->level, tile->index, TILE_WIDTH, tile->hashes, err) !=
            0)
            return -1;
        STAILQ_REMOVE_HEAD(&publication->tiles, link);
        free(tile);
    }
    if (publication->checkpoint[0] != '\0' &&
        file_replace(files->dir_fd, "checkpoint", publication->checkpoint,
                     strlen(publication->checkpoint), false, err) != 0)
        return -1;
    if (!publication->has_edge)
        return 0;
    return tiles_publish(files->dir_fd, &publication->edge, &files->published, err);
}

int log_files_rotate(struct log_files *files, uint64_t next, const char *text, size_t length,
                     struct error *err)
{
    char name[SNAPSHOT_NAME_SIZE];
    struct stat st;
    snapshot_name(next, name);
    if (text != NULL && file_replace(files->log_fd, name, text, length, true, err) != 0)
        return -1;
    // The tiles as well: a start reads them from here on.
    if (syncfs(files->dir_fd) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log %s: syncfs: %s", files->dir,
                         strerror(errno));
    if (next <= files->first)
        return 0;
    int fd = open_segment(files, next, err);
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 || st.st_size != 0) {
        close(fd);
        return error_set(err, ERROR_UNAVAILABLE, "%s/log/%012" PRIu64 ".jsonl is not empty",
                         files->dir, next);
    }
    use_segment(files, fd, next, 0);
    return 0;
}
