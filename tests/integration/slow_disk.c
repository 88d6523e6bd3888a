// SPDX-License-Identifier: Apache-2.0
// A disk that fails or hangs, for a program that loads this with LD_PRELOAD: fdatasync waits while
// the file $SLOW_DISK.hold exists, and fails with EIO while $SLOW_DISK.fail does.
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STEP_MS 5

static bool is_told(const char *what)
{
    char path[4096];
    const char *base = getenv("SLOW_DISK");
    if (base == NULL || snprintf(path, sizeof(path), "%s.%s", base, what) >= (int)sizeof(path))
        return false;
    return access(path, F_OK) == 0;
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    while (is_told("hold"))
        poll(NULL, 0, STEP_MS);
    if (is_told("fail")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
