// SPDX-License-Identifier: Apache-2.0
// A path that loses move datagrams of one kind, for an applier that loads this with LD_PRELOAD:
// those whose kind is the number $LOST_MOVES are said to be sent, and are not.
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char magic[] = "custody-move1";
#define MAGIC_SIZE (sizeof(magic) - 1)

static int is_lost(const void *data, size_t length)
{
    const char *kind = getenv("LOST_MOVES");
    return kind != NULL && length > MAGIC_SIZE && memcmp(data, magic, MAGIC_SIZE) == 0 &&
           ((const unsigned char *)data)[MAGIC_SIZE] == atoi(kind);
}

__attribute__((visibility("default"))) ssize_t sendto(int fd, const void *data, size_t length,
                                                      int flags, const struct sockaddr *to,
                                                      socklen_t size)
{
    if (is_lost(data, length))
        return (ssize_t)length;
    return syscall(SYS_sendto, fd, data, length, flags, to, size);
}
