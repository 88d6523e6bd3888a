// SPDX-License-Identifier: Apache-2.0
// custody-audit follow: the log's last records, and each that is added, from segment to segment.
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit.h"
#include "dir_argument.h"
#include "log_walk.h"
#include "record.h"
#include "record_print.h"
#include "segment.h"

#define BEFORE 10 // records that are shown of what is there already

struct follow {
    enum print_form form;
    int logfd;
    int watch;
    int fd; // of the segment, or -1 while there is none
    uint64_t first;
    uint64_t offset; // of what was not read yet
    uint64_t next;   // record that must come
    bool sealed;     // the segment's last line was read
    uint64_t skip;   // records that are not shown
    struct record record;
};

static void show_line(struct follow *follow, const struct segment_line *line)
{
    struct error err;
    uint64_t at = follow->next++;
    if (record_parse(&follow->record, line->text, line->length, &err) != 0) {
        struct log_place place = {.line = at - follow->first + 1};
        segment_name(follow->first, place.segment);
        log_walk_complain("custody-audit follow", &place, err.message);
        return;
    }
    follow->sealed = follow->record.event == RECORD_LOG_SEALED;
    if (follow->skip > 0)
        follow->skip--;
    else
        record_print(follow->form, &follow->record, line->text, line->length);
}

// Reads what is complete in the segment; `show` as it goes, else only `*count` lines.
static int read_lines(struct follow *follow, bool show, uint64_t *count, struct error *err)
{
    struct segment_line line;
    struct segment_reader *reader = segment_reader_new(follow->fd, follow->offset);
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    int got;
    while ((got = segment_reader_next(reader, &line, err)) > 0 && line.complete) {
        (*count)++;
        if (!show)
            continue;
        show_line(follow, &line);
        follow->offset = line.offset + line.length + 1;
    }
    segment_reader_free(reader);
    return got < 0 ? -1 : 0;
}

// Opens the segment that begins with record `first`. Returns 1 when it is there, 0 when not yet.
static int open_segment(struct follow *follow, uint64_t first, struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct stat status;
    segment_name(first, name);
    int fd = openat(follow->logfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "log/%s: %s", name, strerror(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(fd);
        return error_set(err, ERROR_UNAVAILABLE, "log/%s is no regular file", name);
    }
    if (follow->fd >= 0)
        close(follow->fd);
    follow->fd = fd;
    follow->first = follow->next = first;
    follow->offset = 0;
    follow->sealed = false;
    return 1;
}

static int check_length(const struct follow *follow, struct error *err)
{
    struct stat status;
    if (fstat(follow->fd, &status) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "the segment cannot be read: %s", strerror(errno));
    if ((uint64_t)status.st_size < follow->offset || status.st_nlink == 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the segment that begins with record %" PRIu64
                         " became shorter or was removed: \"custody-audit verify\" tells more",
                         follow->first);
    return 0;
}

// Shows all that is there by now.
static int catch_up(struct follow *follow, struct error *err)
{
    uint64_t count = 0;
    int got = 1;
    while (got > 0) {
        if (follow->fd >= 0 &&
            (check_length(follow, err) != 0 || read_lines(follow, true, &count, err) != 0))
            return -1;
        got = follow->fd < 0 || follow->sealed ? open_segment(follow, follow->next, err) : 0;
    }
    if (fflush(stdout) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "standard output: %s", strerror(errno));
    return got;
}

// Waits until something happens in the folder. A reader of ours that goes away ends the program.
static int wait_for_change(const struct follow *follow, struct error *err)
{
    char events[4096];
    struct pollfd fds[2] = {{.fd = follow->watch, .events = POLLIN},
                            {.fd = STDOUT_FILENO, .events = 0}};
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
        return error_set(err, ERROR_UNAVAILABLE, "poll: %s", strerror(errno));
    if ((fds[1].revents & (POLLERR | POLLNVAL)) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "standard output was closed");
    while (read(follow->watch, events, sizeof(events)) > 0)
        ; // what it was is looked for in the files
    return 0;
}

// Goes to the last segment and finds out how much of it is not shown.
static int begin(struct follow *follow, struct error *err)
{
    uint64_t *firsts, count = 0;
    size_t segments;
    if (segment_list(follow->logfd, &firsts, &segments, err) != 0)
        return -1;
    int got = segments > 0 ? open_segment(follow, firsts[segments - 1], err) : 0;
    free(firsts);
    if (got <= 0)
        return got;
    if (read_lines(follow, false, &count, err) != 0)
        return -1;
    follow->skip = count > BEFORE ? count - BEFORE : 0;
    return 0;
}

static int run(struct follow *follow, const char *dir, struct error *err)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/log", dir);
    follow->logfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (follow->logfd < 0)
        return error_set(err, ERROR_NOT_FOUND, "%s: %s; DIR must be an audit-dir", path,
                         strerror(errno));
    // Watched before it is read, so that nothing comes in between.
    follow->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (follow->watch < 0 ||
        inotify_add_watch(follow->watch, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE) < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s cannot be watched: %s", path, strerror(errno));
    if (begin(follow, err) != 0)
        return -1;
    record_print_head(follow->form);
    for (;;)
        if (catch_up(follow, err) != 0 || wait_for_change(follow, err) != 0)
            return -1;
}

struct options {
    const char *dir;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'j':
        options->json = true;
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"json", 'j', NULL, 0, "print the records' own lines", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_follow(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Prints the last records of the log in DIR, and each that is added to it, until it "
               "is stopped. It checks nothing: verify does.\v"
               "Exit status: 1 the log became shorter, 2 it could not be read.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    static struct follow follow = {.logfd = -1, .watch = -1, .fd = -1};
    struct error err;
    follow.form = options.json ? PRINT_JSON : PRINT_TABLE;
    run(&follow, options.dir, &err);
    fprintf(stderr, "%s: %s\n", argv[0], err.message);
    if (follow.fd >= 0)
        close(follow.fd);
    if (follow.watch >= 0)
        close(follow.watch);
    if (follow.logfd >= 0)
        close(follow.logfd);
    return err.code == ERROR_DATA_LOSS ? AUDIT_FINDINGS : AUDIT_FAILED;
}
