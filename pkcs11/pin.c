// SPDX-License-Identifier: Apache-2.0
// The PIN, straight from the file into guarded memory: no buffer of stdio's in between.
#include "pin.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

static int pin_path(const char *source, char *path, size_t size, struct error *err)
{
    int length;
    if (source != NULL) {
        const char *plain = strncmp(source, "file:", 5) == 0 ? source + 5 : source;
        if (strncmp(plain, "///", 3) == 0)
            plain += 2;
        if (plain[0] != '/')
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "pin-source '%s' is not an absolute path; write "
                             "pin-source=file:/path/of/the/pin",
                             source);
        length = snprintf(path, size, "%s", plain);
    } else {
        const char *folder = getenv("CREDENTIALS_DIRECTORY");
        if (folder == NULL)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "no PIN: put pin-source=file:/path into the token's URI, or "
                             "LoadCredential=token-pin:/path into the unit");
        length = snprintf(path, size, "%s/token-pin", folder);
    }
    if (length < 0 || (size_t)length >= size)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the path of the PIN is too long");
    return 0;
}

static int open_private(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_PERMISSION_DENIED,
                         "PIN file %s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0)
        error_set(err, ERROR_UNAVAILABLE, "PIN file %s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        error_set(err, ERROR_INVALID_ARGUMENT, "PIN file %s is not a regular file", path);
    else if (info.st_mode & S_IRWXO)
        error_set(
            err, ERROR_PERMISSION_DENIED,
            "PIN file %s is open to every user (mode %04o): chmod 0600 it, and change the PIN "
            "if others had access",
            path, (unsigned)(info.st_mode & 07777));
    else
        return fd;
    close(fd);
    return -1;
}

int pin_read(const char *source, unsigned char **pin, size_t *length, struct error *err)
{
    char path[PATH_MAX];
    if (pin_path(source, path, sizeof(path), err) != 0)
        return -1;
    int fd = open_private(path, err);
    if (fd < 0)
        return -1;
    int result = -1;
    size_t got = 0;
    // One byte more than a PIN may have, to see that a file is too long.
    unsigned char *buffer = sodium_malloc(PIN_MAX + 1);
    if (buffer == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for the PIN");
        goto cleanup;
    }
    while (got < PIN_MAX + 1) {
        ssize_t step = read(fd, buffer + got, PIN_MAX + 1 - got);
        if (step < 0 && errno == EINTR)
            continue;
        if (step < 0) {
            error_set(err, ERROR_UNAVAILABLE, "PIN file %s: %s", path, strerror(errno));
            goto cleanup;
        }
        if (step == 0)
            break;
        got += (size_t)step;
    }
    if (got > 0 && buffer[got - 1] == '\n')
        got--;
    if (got == 0 || got > PIN_MAX) {
        error_set(err, ERROR_INVALID_ARGUMENT, "PIN file %s %s", path,
                  got == 0 ? "is empty" : "is longer than a PIN can be");
        goto cleanup;
    }
    *pin = buffer;
    *length = got;
    buffer = NULL;
    result = 0;
cleanup:
    sodium_free(buffer);
    close(fd);
    return result;
}
