// SPDX-License-Identifier: Apache-2.0
// Segments from the one that holds the next record on.
#include "catch_up.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segment.h"

static int apply_line(struct state *state, const struct segment_line *line, struct error *err)
{
    struct record record;
    if (!line->complete)
        return error_set(err, ERROR_NOT_FOUND, "record %" PRIu64 " is cut off", state_size(state));
    if (record_parse(&record, line->text, line->length, err) == 0 &&
        state_apply(state, &record, err) == 0)
        return 0;
    err->code = ERROR_DATA_LOSS;
    return error_prefix(err, "record %" PRIu64, state_size(state));
}

// Applies what the segment that begins with record `first` holds of what is wanted.
static int read_segment(int log_fd, uint64_t first, struct state *state, uint64_t until,
                        struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct segment_line line;
    segment_name(first, name);
    int fd = openat(log_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s: %s", name, strerror(errno));
    struct segment_reader *reader = segment_reader_new(fd, 0);
    int more = reader != NULL ? 1 : error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    for (uint64_t seq = first; more == 1 && state_size(state) < until; seq++) {
        more = segment_reader_next(reader, &line, err);
        if (more == 1 && seq >= state_size(state) && apply_line(state, &line, err) != 0)
            more = -1;
    }
    segment_reader_free(reader);
    close(fd);
    return more < 0 ? -1 : 0;
}

static int read_segments(int log_fd, struct state *state, uint64_t until, struct error *err)
{
    uint64_t *firsts;
    size_t count, i = 0;
    if (segment_list(log_fd, &firsts, &count, err) != 0)
        return -1;
    while (i + 1 < count && firsts[i + 1] <= state_size(state))
        i++;
    int result = 0;
    for (; result == 0 && i < count && state_size(state) < until; i++)
        if (firsts[i] <= state_size(state))
            result = read_segment(log_fd, firsts[i], state, until, err);
    free(firsts);
    if (result == 0 && state_size(state) < until)
        return error_set(err, ERROR_NOT_FOUND, "record %" PRIu64 " is not in the log",
                         state_size(state));
    return result;
}

int catch_up(const char *dir, struct state *state, uint64_t until, struct error *err)
{
    uint64_t size = state_size(state);
    if (until - size > CATCH_UP_MAX)
        return error_set(err, ERROR_NOT_FOUND, "%" PRIu64 " records are too many to catch up with",
                         until - size);
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int log_fd = dir_fd >= 0 ? openat(dir_fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int result = log_fd >= 0
                     ? read_segments(log_fd, state, until, err)
                     : error_set(err, ERROR_UNAVAILABLE, "%.300s/log: %s", dir, strerror(errno));
    if (dir_fd >= 0)
        close(dir_fd);
    if (log_fd >= 0)
        close(log_fd);
    return result;
}
