// SPDX-License-Identifier: Apache-2.0
// The reserve: a file of allocated bytes that nobody reads.
#include "reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int reserve_make(int dir, struct error *err)
{
    int failure;
    int fd =
        openat(dir, RESERVE_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", RESERVE_NAME,
                         strerror(errno));
    do
        failure = posix_fallocate(fd, 0, RESERVE_SIZE);
    while (failure == EINTR);
    close(fd);
    if (failure == 0)
        return 0;
    // What could be had of it is better free.
    reserve_release(dir);
    return error_set(err, ERROR_UNAVAILABLE, "audit log: no room for %d bytes of reserve: %s",
                     RESERVE_SIZE, strerror(failure));
}

void reserve_release(int dir)
{
    unlinkat(dir, RESERVE_NAME, 0);
}
