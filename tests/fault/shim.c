// SPDX-License-Identifier: Apache-2.0
// For a program that loads this with LD_PRELOAD: its $FAULT_NTH-th write to a file below one of
// $FAULT_FOLDERS (separated by colons) takes only half of the bytes. Says in $FAULT_SEEN, a line
// each, which writes there were, and which was struck. Only the program $FAULT_PROGRAM is meant.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_ulong count;

// The path of `fd` when it lies in one of the folders.
static bool is_watched(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    const char *folder = getenv("FAULT_FOLDERS");
    while (folder != NULL && *folder != '\0') {
        size_t until = strcspn(folder, ":");
        if (strncmp(path, folder, until) == 0 && path[until] == '/')
            return true;
        folder += until + (folder[until] == ':');
    }
    return false;
}

static void tell(const char *call, const char *path, unsigned long nth, bool struck)
{
    char line[4300];
    const char *seen = getenv("FAULT_SEEN");
    int length =
        snprintf(line, sizeof(line), "%lu\t%s\t%s\t%s\n", nth, call, path, struck ? "struck" : "");
    int fd = seen == NULL ? -1
                          : (int)syscall(SYS_openat, AT_FDCWD, seen,
                                         O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    syscall(SYS_write, fd, line, (size_t)length);
    close(fd);
}

// Whether this call is the one to be cut short.
static bool is_struck(const char *call, int fd, size_t length)
{
    char path[4096];
    int before = errno;
    const char *program = getenv("FAULT_PROGRAM"), *nth = getenv("FAULT_NTH"),
               *once = getenv("FAULT_ONCE");
    bool struck = false;
    if (program != NULL && once != NULL && strcmp(program, program_invocation_short_name) == 0 &&
        length > 1 && is_watched(fd, path, sizeof(path))) {
        unsigned long this = atomic_fetch_add(&count, 1) + 1;
        if (nth != NULL && strtoul(nth, NULL, 10) == this) {
            // A program that is started again is not struck again.
            int first = (int)syscall(SYS_openat, AT_FDCWD, once,
                                     O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            struck = first >= 0;
            if (struck)
                close(first);
        }
        tell(call, path, this, struck);
    }
    errno = before;
    return struck;
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED ssize_t write(int fd, const void *data, size_t length)
{
    return syscall(SYS_write, fd, data, is_struck("write", fd, length) ? length / 2 : length);
}

EXPORTED ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return syscall(SYS_pwrite64, fd, data, is_struck("pwrite64", fd, length) ? length / 2 : length,
                   offset);
}

EXPORTED ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset)
{
    return pwrite(fd, data, length, offset);
}

EXPORTED ssize_t writev(int fd, const struct iovec *parts, int parts_count)
{
    if (parts_count > 0 && is_struck("writev", fd, parts[0].iov_len))
        return syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2);
    return syscall(SYS_writev, fd, parts, parts_count);
}
