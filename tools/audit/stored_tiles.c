// SPDX-License-Identifier: Apache-2.0
// Finding and reading tiles.
#include "stored_tiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Reads `size` bytes; short files fail with ERROR_DATA_LOSS.
static int read_exactly(int fd, void *bytes, size_t size, struct error *err)
{
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, (char *)bytes + used, size - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
        if (n == 0)
            return error_set(err, ERROR_UNAVAILABLE, "it became shorter while it was read");
        used += (size_t)n;
    }
    return 0;
}

// Reads the file at tile->path, which should hold `width` hashes.
static int read_tile(int dirfd, unsigned width, struct stored_tile *tile, struct error *err)
{
    int fd = openat(dirfd, tile->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s: %s", tile->path, strerror(errno));
    int result = 0;
    struct stat status;
    size_t size = width * sizeof(tile->hashes[0]);
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)size) {
        tile->damaged = true;
        goto cleanup;
    }
    result = read_exactly(fd, tile->hashes, size, err);
    if (result != 0)
        error_prefix(err, "%s", tile->path);
    else
        tile->width = width;
cleanup:
    close(fd);
    return result;
}

// The width that a partial tile's file name says; 0 for a name that says none.
static unsigned parse_width(const char *name)
{
    unsigned width = 0;
    for (const char *s = name; *s != '\0'; s++) {
        if (*s < '0' || *s > '9' || (s == name && *s == '0') || width > TILE_WIDTH)
            return 0;
        width = 10 * width + (unsigned)(*s - '0');
    }
    return width < TILE_WIDTH ? width : 0;
}

// The widest partial tile in the folder `path`; 0 for none.
static unsigned widest_partial(int dirfd, const char *path)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    unsigned widest = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        unsigned width = parse_width(entry->d_name);
        if (width > widest)
            widest = width;
    }
    closedir(dir);
    return widest;
}

int stored_tile_read(int dirfd, unsigned level, uint64_t index, struct stored_tile *tile,
                     struct error *err)
{
    tile->width = 0;
    tile->damaged = false;
    tile_path(level, index, TILE_WIDTH, tile->path);
    if (read_tile(dirfd, TILE_WIDTH, tile, err) != 0)
        return -1;
    if (tile->width > 0 || tile->damaged)
        return 0;
    char folder[TILE_PATH_MAX + 2];
    snprintf(folder, sizeof(folder), "%s.p", tile->path);
    unsigned width = widest_partial(dirfd, folder);
    if (width == 0)
        return 0;
    tile_path(level, index, width, tile->path);
    return read_tile(dirfd, width, tile, err);
}
