// SPDX-License-Identifier: Apache-2.0
// Reading a signed head and other small files.
#include "head.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Reads to the end; more than `size` bytes are an error.
static int read_all(int fd, char *text, size_t size, size_t *length, struct error *err)
{
    size_t used = 0;
    for (;;) {
        char over;
        ssize_t n = used < size ? read(fd, text + used, size - used) : read(fd, &over, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
        if (n == 0)
            break;
        if (used == size)
            return error_set(err, ERROR_INVALID_ARGUMENT, "larger than %zu bytes", size);
        used += (size_t)n;
    }
    *length = used;
    return 0;
}

int head_read_file(int dirfd, const char *path, char *text, size_t size, size_t *length,
                   struct error *err)
{
    if (strcmp(path, "-") == 0) {
        if (read_all(STDIN_FILENO, text, size, length, err) != 0)
            return error_prefix(err, "standard input");
        return 0;
    }
    struct stat status;
    int result = -1;
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE, "%s: %s", path,
                         strerror(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: not a regular file", path);
        goto cleanup;
    }
    result = read_all(fd, text, size, length, err);
    if (result != 0)
        error_prefix(err, "%s", path);
cleanup:
    close(fd);
    return result;
}

int head_read(int dirfd, const char *path, struct head *head, struct error *err)
{
    if (head_read_file(dirfd, path, head->note, sizeof(head->note) - 1, &head->length, err) != 0)
        return -1;
    head->note[head->length] = '\0';
    return 0;
}

int head_peek(const struct head *head, struct checkpoint *checkpoint, struct error *err)
{
    // The text ends at the last empty line (c2sp.org/signed-note).
    for (size_t i = head->length; i >= 2; i--)
        if (head->note[i - 1] == '\n' && head->note[i - 2] == '\n')
            return checkpoint_parse(checkpoint, head->note, i - 1, err);
    return error_set(err, ERROR_INVALID_ARGUMENT, "the checkpoint is no signed note");
}
