// SPDX-License-Identifier: Apache-2.0
// Walking through the segments of a log.
#include "log_reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct log_reader {
    int dirfd; // of DIR
    int logfd; // of DIR/log
    uint64_t *firsts;
    size_t count;
    size_t next; // segment to open next
    int fd;      // of the segment that is open, or -1
    struct segment_reader *lines;
    struct log_place place;
};

int log_reader_open(const char *dir, struct log_reader **out, struct error *err)
{
    struct log_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    reader->fd = -1;
    reader->logfd = -1;
    reader->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (reader->dirfd < 0) {
        error_set(err, ERROR_NOT_FOUND, "%s: %s", dir, strerror(errno));
        goto fail;
    }
    reader->logfd = openat(reader->dirfd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (reader->logfd < 0) {
        error_set(err, ERROR_NOT_FOUND, "%s/log: %s; DIR must be an audit-dir", dir,
                  strerror(errno));
        goto fail;
    }
    if (segment_list(reader->logfd, &reader->firsts, &reader->count, err) != 0)
        goto fail;
    *out = reader;
    return 0;
fail:
    log_reader_close(reader);
    return -1;
}

static void close_segment(struct log_reader *reader)
{
    segment_reader_free(reader->lines);
    reader->lines = NULL;
    if (reader->fd >= 0)
        close(reader->fd);
    reader->fd = -1;
}

void log_reader_close(struct log_reader *reader)
{
    if (reader == NULL)
        return;
    close_segment(reader);
    free(reader->firsts);
    if (reader->logfd >= 0)
        close(reader->logfd);
    if (reader->dirfd >= 0)
        close(reader->dirfd);
    free(reader);
}

int log_reader_dirfd(const struct log_reader *reader)
{
    return reader->dirfd;
}

// The number of segments that begin at or before `index`.
static size_t segments_up_to(const struct log_reader *reader, uint64_t index)
{
    size_t low = 0, high = reader->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (reader->firsts[middle] <= index)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool log_reader_has(const struct log_reader *reader, uint64_t first)
{
    size_t count = segments_up_to(reader, first);
    return count > 0 && reader->firsts[count - 1] == first;
}

uint64_t log_reader_first(const struct log_reader *reader, uint64_t index)
{
    size_t count = segments_up_to(reader, index);
    return count > 0 ? reader->firsts[count - 1] : 0;
}

void log_reader_seek(struct log_reader *reader, uint64_t index)
{
    close_segment(reader);
    size_t count = segments_up_to(reader, index);
    reader->next = count > 0 ? count - 1 : 0;
}

void log_reader_place(const struct log_reader *reader, uint64_t index, struct log_place *place)
{
    memset(place, 0, sizeof(*place));
    size_t count = segments_up_to(reader, index);
    if (count == 0)
        return;
    segment_name(reader->firsts[count - 1], place->segment);
    place->line = index - reader->firsts[count - 1] + 1;
}

// Opens the next segment. A pipe or a device in its place must neither block nor be read.
static int open_segment(struct log_reader *reader, struct log_item *item, struct error *err)
{
    struct stat status;
    reader->place.line = 0;
    item->first = reader->firsts[reader->next++];
    item->last = reader->next == reader->count;
    segment_name(item->first, reader->place.segment);
    item->place = reader->place;
    item->kind = LOG_UNREADABLE;
    reader->fd =
        openat(reader->logfd, reader->place.segment, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (reader->fd < 0) {
        error_set(&item->why, ERROR_UNAVAILABLE, "it cannot be opened: %s", strerror(errno));
        return 1;
    }
    if (fstat(reader->fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        error_set(&item->why, ERROR_INVALID_ARGUMENT, "it is not a regular file");
        close_segment(reader);
        return 1;
    }
    reader->lines = segment_reader_new(reader->fd, 0);
    if (reader->lines == NULL) {
        close_segment(reader);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    }
    item->kind = LOG_SEGMENT;
    return 1;
}

int log_reader_next(struct log_reader *reader, struct log_item *item, struct error *err)
{
    if (reader->lines != NULL) {
        int got = segment_reader_next(reader->lines, &item->line, err);
        if (got < 0)
            return error_prefix(err, "log/%s", reader->place.segment);
        if (got > 0) {
            reader->place.line++;
            item->kind = LOG_LINE;
            item->place = reader->place;
            item->first = reader->firsts[reader->next - 1];
            item->last = reader->next == reader->count;
            return 1;
        }
        close_segment(reader);
    }
    return reader->next == reader->count ? 0 : open_segment(reader, item, err);
}

// Reads the last `length` of the `size` bytes of a segment.
static int read_tail(int fd, uint64_t size, char *bytes, size_t length, struct error *err)
{
    size_t used = 0;
    while (used < length) {
        ssize_t n = pread(fd, bytes + used, length - used, (off_t)(size - length + used));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_UNAVAILABLE, "it cannot be read: %s",
                             n < 0 ? strerror(errno) : "it became shorter");
        used += (size_t)n;
    }
    return 0;
}

int log_reader_line_before(const struct log_reader *reader, uint64_t first, char line[LOG_TAIL_MAX],
                           size_t *start, size_t *length, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct stat status;
    size_t count = segments_up_to(reader, first);
    if (count < 2)
        return error_set(err, ERROR_NOT_FOUND, "no segment is before that one");
    segment_name(reader->firsts[count - 2], name);
    int fd = openat(reader->logfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, ERROR_NOT_FOUND, "log/%s: %s", name, strerror(errno));
    int result = -1;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
        error_set(err, ERROR_NOT_FOUND, "log/%s holds no line", name);
        goto cleanup;
    }
    size_t room = status.st_size < LOG_TAIL_MAX ? (size_t)status.st_size : LOG_TAIL_MAX;
    result = read_tail(fd, (uint64_t)status.st_size, line, room, err);
    if (result != 0)
        goto cleanup;
    const char *newline = memrchr(line, '\n', room - 1);
    *start = newline != NULL ? (size_t)(newline - line) + 1 : 0;
    *length = room - 1 - *start;
    if (line[room - 1] != '\n')
        result = error_set(err, ERROR_NOT_FOUND, "the last line of log/%s has no end", name);
cleanup:
    close(fd);
    return result;
}

int log_reader_strays(const struct log_reader *reader,
                      void (*found)(void *context, const char *name), void *context,
                      struct error *err)
{
    int fd = openat(reader->logfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        error_set(err, ERROR_UNAVAILABLE, "the folder log cannot be read: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        uint64_t first;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !segment_name_parse(entry->d_name, &first))
            found(context, entry->d_name);
    }
    closedir(dir);
    return 0;
}
