// SPDX-License-Identifier: Apache-2.0
// Names of segments and a line reader of constant memory over pread.
#include "segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX ".jsonl"
#define DIGITS 12

void segment_name(uint64_t first, char name[SEGMENT_NAME_SIZE])
{
    snprintf(name, SEGMENT_NAME_SIZE, "%0*" PRIu64 SUFFIX, DIGITS, first);
}

bool segment_name_parse(const char *name, uint64_t *first)
{
    char again[SEGMENT_NAME_SIZE];
    if (name[0] < '0' || name[0] > '9')
        return false;
    *first = strtoull(name, NULL, 10);
    segment_name(*first, again);
    return strcmp(name, again) == 0;
}

static int compare_firsts(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int add_first(uint64_t **firsts, size_t *count, size_t *room, uint64_t first,
                     struct error *err)
{
    if (*count == *room) {
        size_t more = *room == 0 ? 16 : 2 * *room;
        uint64_t *grown = realloc(*firsts, more * sizeof(**firsts));
        if (grown == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu segments", more);
        *firsts = grown;
        *room = more;
    }
    (*firsts)[(*count)++] = first;
    return 0;
}

int segment_list(int dirfd, uint64_t **firsts, size_t *count, struct error *err)
{
    *firsts = NULL;
    *count = 0;
    size_t room = 0;
    int result = -1;
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        error_set(err, ERROR_UNAVAILABLE, "the log's folder cannot be read: %s", strerror(errno));
        goto cleanup;
    }
    fd = -1; // closedir's from here on
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0) {
            error_set(err, ERROR_UNAVAILABLE, "the log's folder cannot be read: %s",
                      strerror(errno));
            goto cleanup;
        }
        uint64_t first;
        if (entry == NULL)
            break;
        if (segment_name_parse(entry->d_name, &first) &&
            add_first(firsts, count, &room, first, err) != 0)
            goto cleanup;
    }
    if (*count > 0)
        qsort(*firsts, *count, sizeof(**firsts), compare_firsts);
    result = 0;
cleanup:
    if (dir != NULL)
        closedir(dir);
    if (fd >= 0)
        close(fd);
    if (result != 0) {
        free(*firsts);
        *firsts = NULL;
        *count = 0;
    }
    return result;
}

// Room for the longest line and then some, so that most lines need no read of their own.
#define BUFFER_SIZE (4 * (size_t)(RECORD_LINE_MAX + 1))

struct segment_reader {
    int fd;
    uint64_t offset; // in the file, of buffer[0]
    size_t start;    // of the next line in the buffer
    size_t filled;
    bool ended; // the file has no more bytes
    char buffer[BUFFER_SIZE];
};

struct segment_reader *segment_reader_new(int fd, uint64_t offset)
{
    struct segment_reader *reader = malloc(sizeof(*reader));
    if (reader == NULL)
        return NULL;
    reader->fd = fd;
    reader->offset = offset;
    reader->start = 0;
    reader->filled = 0;
    reader->ended = false;
    return reader;
}

void segment_reader_free(struct segment_reader *reader)
{
    free(reader);
}

static int fill(struct segment_reader *reader, struct error *err)
{
    memmove(reader->buffer, reader->buffer + reader->start, reader->filled - reader->start);
    reader->offset += reader->start;
    reader->filled -= reader->start;
    reader->start = 0;
    while (reader->filled < BUFFER_SIZE && !reader->ended) {
        ssize_t n = pread(reader->fd, reader->buffer + reader->filled, BUFFER_SIZE - reader->filled,
                          (off_t)(reader->offset + reader->filled));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERROR_UNAVAILABLE, "a segment of the log cannot be read: %s",
                             strerror(errno));
        if (n == 0)
            reader->ended = true;
        reader->filled += (size_t)n;
    }
    return 0;
}

int segment_reader_next(struct segment_reader *reader, struct segment_line *line, struct error *err)
{
    char *text = reader->buffer + reader->start;
    size_t left = reader->filled - reader->start;
    char *newline = memchr(text, '\n', left);
    if (newline == NULL && !reader->ended) {
        if (fill(reader, err) != 0)
            return -1;
        text = reader->buffer;
        left = reader->filled;
        newline = memchr(text, '\n', left);
    }
    if (left == 0)
        return 0;
    line->text = text;
    line->offset = reader->offset + reader->start;
    line->length = newline != NULL ? (size_t)(newline - text) : left;
    line->complete = newline != NULL && line->length <= RECORD_LINE_MAX;
    if (line->complete) {
        reader->start += line->length + 1;
    } else {
        if (line->length > RECORD_LINE_MAX)
            line->length = RECORD_LINE_MAX;
        reader->start = reader->filled;
        reader->ended = true;
    }
    return 1;
}
