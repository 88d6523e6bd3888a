// SPDX-License-Identifier: Apache-2.0
// Reading and replacing whole files.
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SIZE 256

int file_write_all(int fd, const void *data, size_t length)
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

int file_read_at(int fd, void *data, size_t length, unsigned long long offset)
{
    char *at = data;
    while (length > 0) {
        ssize_t n = pread(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = 0;
        if (n <= 0)
            return -1;
        at += n;
        length -= (size_t)n;
        offset += (unsigned long long)n;
    }
    return 0;
}

static int write_fresh(int fd, const void *data, size_t length, bool durable)
{
    int result = file_write_all(fd, data, length);
    if (result == 0 && durable)
        result = fsync(fd);
    int error = errno;
    if (close(fd) != 0 && result == 0)
        return -1;
    errno = error;
    return result;
}

int file_replace(int dir, const char *name, const void *data, size_t length, bool durable,
                 struct error *err)
{
    char fresh[NAME_SIZE];
    snprintf(fresh, sizeof(fresh), "%s.new", name);
    int fd = openat(dir, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", fresh, strerror(errno));
    if (write_fresh(fd, data, length, durable) == 0 && renameat(dir, fresh, dir, name) == 0 &&
        (!durable || fsync(dir) == 0))
        return 0;
    int error = errno;
    unlinkat(dir, fresh, 0);
    errno = error;
    return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", name, strerror(error));
}

char *file_read(int dir, const char *name, size_t limit, size_t *length, struct error *err)
{
    struct stat st;
    char *data = NULL;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE, "audit log: %s: %s",
                  name, strerror(errno));
        return NULL;
    }
    if (fstat(fd, &st) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", name, strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > limit) {
        error_set(err, ERROR_UNAVAILABLE, "audit log: %s: no file of at most %zu bytes", name,
                  limit);
    } else if ((data = malloc((size_t)st.st_size + 1)) == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read %s", name);
    } else if (file_read_at(fd, data, (size_t)st.st_size, 0) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", name,
                  errno != 0 ? strerror(errno) : "it became shorter while it was read");
        free(data);
        data = NULL;
    } else {
        *length = (size_t)st.st_size;
        data[*length] = '\0';
    }
    close(fd);
    return data;
}
