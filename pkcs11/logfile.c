// SPDX-License-Identifier: Apache-2.0
// Reading the log's segment, and making sure that it stays the same file.
#include "logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"
#include "segment.h"

struct logfile {
    int folder; // AUDIT_DIR/log
    int fd;
    char name[SEGMENT_NAME_SIZE];
    dev_t device;
    ino_t inode;
    struct merkle_edge edge;
    uint64_t offset; // bytes of the segment that the edge has taken in
};

static enum error_code code_of(int failure)
{
    switch (failure) {
    case ENOENT:
        return ERROR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERROR_PERMISSION_DENIED;
    default:
        return ERROR_UNAVAILABLE;
    }
}

static int open_folder(const char *audit_dir, int *folder, struct error *err)
{
    int base = open(audit_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0)
        return error_set(err, code_of(errno), "audit folder %s: %s", audit_dir, strerror(errno));
    int result = 0;
    *folder = openat(base, "log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*folder < 0)
        result =
            error_set(err, code_of(errno), "audit folder %s/log: %s", audit_dir, strerror(errno));
    // The segment may be new: its entry in the folder, and the folder's, have to be durable as
    // well.
    else if (fsync(*folder) != 0 || fsync(base) != 0)
        result = error_set(err, ERROR_UNAVAILABLE, "audit folder %s: fsync: %s", audit_dir,
                           strerror(errno));
    close(base);
    return result;
}

static int open_segment(struct logfile *log, struct error *err)
{
    log->fd = openat(log->folder, log->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (log->fd < 0)
        return error_set(err, code_of(errno), "log segment %s: %s", log->name, strerror(errno));
    struct stat info;
    if (fstat(log->fd, &info) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "log segment %s: %s", log->name, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(err, ERROR_FAILED_PRECONDITION, "log segment %s is not a regular file",
                         log->name);
    log->device = info.st_dev;
    log->inode = info.st_ino;
    // After a failed write-back the kernel's cache holds, as clean, what the disk never got.
    // Without the cache the lines come from the disk; what is still to be written stays in it.
    int failure = posix_fadvise(log->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (failure != 0)
        return error_set(err, ERROR_UNAVAILABLE, "log segment %s: posix_fadvise: %s", log->name,
                         strerror(failure));
    return logfile_check(log, err);
}

static int check_line(const struct logfile *log, int more, const struct segment_line *line,
                      struct error *err)
{
    if (more < 0)
        return error_prefix(err, "log segment %s", log->name);
    if (more == 1 && line->complete)
        return 0;
    if (more == 1 && line->length >= RECORD_LINE_MAX)
        return error_set(err, ERROR_DATA_LOSS,
                         "log segment %s: the line of record %" PRIu64 " is longer than any",
                         log->name, log->edge.size);
    return error_set(err, ERROR_DATA_LOSS,
                     "log segment %s ends before record %" PRIu64
                     ", which the signed head counts: the log was cut",
                     log->name, log->edge.size);
}

// Takes in the lines of the segment until the tree has `size` leaves.
static int read_lines(struct logfile *log, uint64_t size, struct error *err)
{
    struct segment_line line;
    int result = 0;
    struct segment_reader *reader = segment_reader_new(log->fd, 0);
    if (reader == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "log segment %s: out of memory", log->name);
    while (result == 0 && log->edge.size < size) {
        int more = segment_reader_next(reader, &line, err);
        result = check_line(log, more, &line, err);
        if (result != 0)
            break;
        struct merkle_hash leaf = merkle_leaf(line.text, line.length);
        merkle_edge_append(&log->edge, &leaf);
        log->offset = line.offset + line.length + 1;
    }
    segment_reader_free(reader);
    return result;
}

int logfile_open(const char *audit_dir, const struct merkle_edge *edge, uint64_t size,
                 struct logfile **out, struct error *err)
{
    struct logfile *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    log->folder = log->fd = -1;
    log->edge = *edge;
    segment_name(edge->size, log->name);
    if (open_folder(audit_dir, &log->folder, err) != 0 || open_segment(log, err) != 0 ||
        read_lines(log, size, err) != 0) {
        logfile_close(log);
        return -1;
    }
    *out = log;
    return 0;
}

void logfile_close(struct logfile *log)
{
    if (log == NULL)
        return;
    if (log->fd >= 0)
        close(log->fd);
    if (log->folder >= 0)
        close(log->folder);
    free(log);
}

int logfile_descriptor(const struct logfile *log)
{
    return log->fd;
}

const struct merkle_edge *logfile_edge(const struct logfile *log)
{
    return &log->edge;
}

uint64_t logfile_offset(const struct logfile *log)
{
    return log->offset;
}

int logfile_check(const struct logfile *log, struct error *err)
{
    struct stat named, held;
    if (fstat(log->fd, &held) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "log segment %s: %s", log->name, strerror(errno));
    if (fstatat(log->folder, log->name, &named, AT_SYMLINK_NOFOLLOW) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "log segment %s is gone from its folder: %s", log->name, strerror(errno));
    if (named.st_dev != log->device || named.st_ino != log->inode)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "log segment %s was replaced by another file", log->name);
    if (held.st_nlink != 1)
        return error_set(err, ERROR_FAILED_PRECONDITION, "log segment %s has %lu names, not one",
                         log->name, (unsigned long)held.st_nlink);
    return 0;
}

int logfile_compare(const struct logfile *log, uint64_t ahead, const void *bytes, size_t length,
                    struct error *err)
{
    const unsigned char *expected = bytes;
    uint64_t at = log->offset + ahead;
    while (length > 0) {
        unsigned char part[16384];
        size_t want = length < sizeof(part) ? length : sizeof(part);
        ssize_t got = pread(log->fd, part, want, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, ERROR_UNAVAILABLE, "log segment %s: %s", log->name,
                             strerror(errno));
        if (got == 0)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "log segment %s ends at byte %" PRIu64 ", before the record does",
                             log->name, at);
        if (memcmp(part, expected, (size_t)got) != 0)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "log segment %s holds other bytes at byte %" PRIu64
                             " than the record's",
                             log->name, at);
        expected += got;
        at += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

void logfile_advance(struct logfile *log, const struct merkle_edge *edge, uint64_t length)
{
    log->edge = *edge;
    log->offset += length;
}
