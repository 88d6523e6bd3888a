// SPDX-License-Identifier: Apache-2.0
// The reserve: a file of allocated bytes that nobody reads.
#include "reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int fail(int failure, struct error *err)
{
    bool full = failure == ENOSPC || failure == EDQUOT;
    return error_set(err, full ? ERROR_RESOURCE_EXHAUSTED : ERROR_UNAVAILABLE,
                     "audit log: no room for %d bytes of reserve: %s", RESERVE_SIZE,
                     strerror(failure));
}

int reserve_make(int dir, bool spare, struct error *err)
{
    int failure;
    off_t size = spare ? 2 * RESERVE_SIZE : RESERVE_SIZE;
    int fd =
        openat(dir, RESERVE_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
    if (fd < 0)
        return fail(errno, err);
    do
        failure = posix_fallocate(fd, 0, size);
    while (failure == EINTR);
    if (failure == 0 && ftruncate(fd, RESERVE_SIZE) != 0)
        failure = errno;
    close(fd);
    if (failure == 0)
        return 0;
    // What could be had of it is better free.
    reserve_release(dir);
    return fail(failure, err);
}

void reserve_release(int dir)
{
    unlinkat(dir, RESERVE_NAME, 0);
}
