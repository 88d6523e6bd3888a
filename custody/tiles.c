// SPDX-License-Identifier: Apache-2.0
// Writing, reading and sweeping tile files.
#include "tiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

static int make_folders(int dir, char *path, struct error *err)
{
    for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdirat(dir, path, 0750);
        int error = errno;
        *slash = '/';
        if (made != 0 && error != EEXIST)
            return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", path, strerror(error));
    }
    return 0;
}

int tiles_write(int dir, unsigned level, uint64_t index, unsigned width,
                const struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, width, path);
    if (make_folders(dir, path, err) != 0)
        return -1;
    return file_replace(dir, path, hashes, width * sizeof(*hashes), false, err);
}

static int read_file(int dir, const char *path, unsigned width, struct merkle_hash *hashes,
                     struct error *err)
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE,
                         "audit log: %s: %s", path, strerror(errno));
    int result = file_read_at(fd, hashes, width * sizeof(*hashes), 0);
    int error = errno;
    close(fd);
    if (result == 0)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "audit log: %s: %s", path,
                     error != 0 ? strerror(error) : "too short");
}

// Opens the folder of a tile's partial ones. NULL when there is none.
static DIR *open_partial(int dir, unsigned level, uint64_t index, char path[TILE_PATH_MAX])
{
    tile_path(level, index, 1, path);
    *strrchr(path, '/') = '\0';
    int fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder == NULL && fd >= 0)
        close(fd);
    return folder;
}

// A partial tile's width from its name; 0 for a name that is none's.
static unsigned partial_width(const char *name)
{
    unsigned width = 0;
    if (strlen(name) > 3 || strspn(name, "0123456789") != strlen(name))
        return 0;
    for (; *name != '\0'; name++)
        width = 10 * width + (unsigned)(*name - '0');
    return width < TILE_WIDTH ? width : 0;
}

int tiles_read(int dir, unsigned level, uint64_t index, unsigned width, struct merkle_hash *hashes,
               struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, TILE_WIDTH, path);
    if (read_file(dir, path, width, hashes, err) == 0)
        return 0;
    unsigned widest = 0;
    DIR *folder = open_partial(dir, level, index, path);
    if (folder == NULL)
        return -1;
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        unsigned found = partial_width(entry->d_name);
        widest = found > widest ? found : widest;
    }
    closedir(folder);
    if (widest < width)
        return -1;
    tile_path(level, index, widest, path);
    return read_file(dir, path, width, hashes, err);
}

bool tiles_stand(int dir, unsigned level, uint64_t index, const struct merkle_hash *hashes)
{
    char path[TILE_PATH_MAX];
    struct merkle_hash there[TILE_WIDTH];
    tile_path(level, index, TILE_WIDTH, path);
    return read_file(dir, path, TILE_WIDTH, there, NULL) == 0 &&
           memcmp(there, hashes, sizeof(there)) == 0;
}

// Removes the partial tiles of other widths than `keep` (0: all) beside tile `index`.
static void sweep(int dir, unsigned level, uint64_t index, unsigned keep)
{
    char path[TILE_PATH_MAX], kept[16];
    DIR *folder = open_partial(dir, level, index, path);
    if (folder == NULL)
        return;
    snprintf(kept, sizeof(kept), "%u", keep);
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder))
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, kept) != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    if (keep == 0)
        unlinkat(dir, path, AT_REMOVEDIR);
}

int tiles_publish(int dir, const struct tile_edge *edge, struct tiles_published *published,
                  struct error *err)
{
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        uint64_t index;
        unsigned width = tile_edge_width(edge, level, &index);
        unsigned *old_width = &published->width[level];
        uint64_t *old_index = &published->index[level];
        if (width == *old_width && index == *old_index)
            continue;
        if (width > 0 && tiles_write(dir, level, index, width, edge->hashes[level], err) != 0)
            return -1;
        if (index != *old_index)
            sweep(dir, level, *old_index, 0);
        sweep(dir, level, index, width);
        *old_width = width;
        *old_index = index;
    }
    return 0;
}
