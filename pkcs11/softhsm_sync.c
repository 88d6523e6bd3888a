// SPDX-License-Identifier: Apache-2.0
// fsync of SoftHSM's changed files: what a file was like at the last time says whether it has
// changed.
#include "softhsm_sync.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "softhsm.h"

struct file_state {
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct file_list {
    struct file_state *states;
    size_t count;
    size_t room;
};

struct softhsm_sync {
    int folder; // of all tokens
    struct file_list known;
};

static int compare(const void *a, const void *b)
{
    const struct file_state *x = a, *y = b;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

struct softhsm_sync *softhsm_sync_open(void)
{
    int folder = softhsm_folder_open();
    if (folder < 0)
        return NULL;
    struct softhsm_sync *sync = calloc(1, sizeof(*sync));
    if (sync == NULL)
        close(folder);
    else
        sync->folder = folder;
    return sync;
}

void softhsm_sync_close(struct softhsm_sync *sync)
{
    if (sync == NULL)
        return;
    close(sync->folder);
    free(sync->known.states);
    free(sync);
}

static int append(struct file_list *list, const struct stat *info)
{
    if (list->count == list->room) {
        size_t room = list->room == 0 ? 64 : 2 * list->room;
        struct file_state *grown = realloc(list->states, room * sizeof(*grown));
        if (grown == NULL)
            return -1;
        list->states = grown;
        list->room = room;
    }
    list->states[list->count++] = (struct file_state){info->st_ino, info->st_size, info->st_ctim};
    return 0;
}

static bool is_known(const struct file_list *known, const struct stat *info)
{
    struct file_state key = {.inode = info->st_ino};
    const struct file_state *found =
        known->count == 0 ? NULL : bsearch(&key, known->states, known->count, sizeof(key), compare);
    return found != NULL && found->size == info->st_size &&
           found->changed.tv_sec == info->st_ctim.tv_sec &&
           found->changed.tv_nsec == info->st_ctim.tv_nsec;
}

static int sync_file(int folder, const char *name)
{
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    int result = fsync(fd);
    int failure = errno;
    close(fd);
    errno = failure;
    return result;
}

// Syncs the changed files of one token's folder and adds all of them to `now`; takes over `folder`.
static int sync_token(int folder, const struct file_list *known, struct file_list *now)
{
    DIR *list = fdopendir(folder);
    if (list == NULL) {
        close(folder);
        return -1;
    }
    int result = 0;
    const struct dirent *entry;
    while (result == 0 && (entry = readdir(list)) != NULL) {
        struct stat info;
        if (fstatat(dirfd(list), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        if (!is_known(known, &info))
            result = sync_file(dirfd(list), entry->d_name);
        if (result == 0)
            result = append(now, &info);
    }
    if (result == 0)
        result = fsync(dirfd(list));
    int failure = errno;
    closedir(list);
    errno = failure;
    return result;
}

static int sync_tokens(struct softhsm_sync *sync, struct file_list *now)
{
    int own = openat(sync->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = own < 0 ? NULL : fdopendir(own);
    if (list == NULL) {
        if (own >= 0)
            close(own);
        return -1;
    }
    int result = 0;
    const struct dirent *entry;
    while (result == 0 && (entry = readdir(list)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        int token = openat(own, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (token >= 0)
            result = sync_token(token, &sync->known, now);
    }
    int failure = errno;
    closedir(list);
    errno = failure;
    return result;
}

int softhsm_sync_changes(struct softhsm_sync *sync, struct error *err)
{
    if (sync == NULL)
        return 0;
    struct file_list now = {0};
    if (sync_tokens(sync, &now) != 0) {
        int failure = errno;
        free(now.states);
        return error_set(err, ERROR_UNAVAILABLE, "the token's folder cannot be made durable: %s",
                         strerror(failure));
    }
    qsort(now.states, now.count, sizeof(now.states[0]), compare);
    free(sync->known.states);
    sync->known = now;
    return 0;
}
