// SPDX-License-Identifier: Apache-2.0
// A folder as registry: its root is opened anew for every call, so that one that went and came back
// is found, and nothing below it is reached through a link.
#include "registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#define NOTE_MODE       0644
#define FRESH_PREFIX    ".new-" // what a note is named until it is whole
#define FRESH_NAME_SIZE (sizeof(FRESH_PREFIX) + 16)

struct folder {
    char path[REGISTRY_PATH_MAX + 1]; // "HOST/KEY"
    int wd, parent_wd;                // -1: not watched
    bool changed;
};

struct dir {
    char *root;
    bool mounted; // a file system was mounted on the root once: without it the registry is gone
    int inotify;
    int root_wd; // -1: not watched
    struct folder *folders;
    size_t count;
    bool rearm; // a watch was lost, or a folder may have come
};

static void *dir_open(const char *where, struct error *err)
{
    if (where[0] != '/') {
        error_set(err, ERROR_INVALID_ARGUMENT,
                  "registry dir:%.200s: the folder's path must be absolute, dir:/PATH", where);
        return NULL;
    }
    struct dir *dir = calloc(1, sizeof(*dir));
    if (dir == NULL || (dir->root = strdup(where)) == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the registry");
        free(dir);
        return NULL;
    }
    dir->root_wd = -1;
    dir->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (dir->inotify < 0) {
        error_set(err, ERROR_UNAVAILABLE, "registry dir:%s: inotify: %s", where, strerror(errno));
        free(dir->root);
        free(dir);
        return NULL;
    }
    return dir;
}

static void dir_close(void *state)
{
    struct dir *dir = state;
    close(dir->inotify);
    free(dir->folders);
    free(dir->root);
    free(dir);
}

// ---- folders ----

// What an error below the root means: that note's or folder's own fault, or the registry's.
static int below_error(const struct dir *dir, const char *path, struct error *err)
{
    int error = errno;
    enum error_code code = error == ENOENT                         ? ERROR_NOT_FOUND
                           : error == EIO || error == ESTALE       ? ERROR_UNAVAILABLE
                           : error == ENOSPC || error == EDQUOT    ? ERROR_UNAVAILABLE
                           : error == EROFS                        ? ERROR_UNAVAILABLE
                           : error == ENOMEM || error == EMFILE    ? ERROR_UNAVAILABLE
                           : error == ENFILE || error == ETIMEDOUT ? ERROR_UNAVAILABLE
                                                                   : ERROR_DATA_LOSS;
    const char *why = error == ELOOP || error == ENOTDIR
                          ? "a link or a file stands where a note or a folder should"
                          : strerror(error);
    return error_set(err, code, "registry dir:%s: %.*s: %s", dir->root, REGISTRY_PATH_MAX, path,
                     why);
}

// The root, for the caller to close. A mount point that lost what was mounted on it is an empty
// folder that must not be taken for an empty registry.
static int open_root(struct dir *dir, struct error *err)
{
    struct statx st;
    int fd = open(dir->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "registry dir:%s is gone: %s", dir->root,
                         strerror(errno));
    bool known = statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 &&
                 (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0;
    bool mounted = known && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    if (dir->mounted && known && !mounted) {
        close(fd);
        return error_set(err, ERROR_UNAVAILABLE,
                         "registry dir:%s is gone: nothing is mounted there any more", dir->root);
    }
    dir->mounted |= mounted;
    return fd;
}

// Has the folder's entries on the disk; a file system that knows no such thing (EINVAL) writes them
// as it does. -1 with errno.
static int sync_folder(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL ? 0 : -1;
}

static int open_child(int parent, const char *name)
{
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

// Opens the folder `name`, made with its parent's permissions where it is not there. -1 with errno.
static int make_child(int parent, const char *name)
{
    struct stat st;
    int fd = open_child(parent, name);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (fstat(parent, &st) != 0)
        return -1;
    bool made = mkdirat(parent, name, 0700) == 0;
    if (!made && errno != EEXIST)
        return -1;
    fd = open_child(parent, name);
    if (fd < 0 || !made)
        return fd;
    if (fchmod(fd, st.st_mode & 03777) == 0 && sync_folder(parent) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

// Opens the folder of `path`, which is "HOST/KEY" or "HOST/KEY/NAME", in the root. -1 with `err`.
static int open_folder(struct dir *dir, const char *path, bool make, struct error *err)
{
    char host[HOST_MAX + 1], key[KEY_MAX + 1];
    const char *slash = strchr(path, '/');
    snprintf(host, sizeof(host), "%.*s", (int)(slash - path), path);
    snprintf(key, sizeof(key), "%.*s", (int)strcspn(slash + 1, "/"), slash + 1);
    int root = open_root(dir, err);
    if (root < 0)
        return -1;
    int fd = -1, parent = make ? make_child(root, host) : open_child(root, host);
    if (parent >= 0)
        fd = make ? make_child(parent, key) : open_child(parent, key);
    if (fd < 0)
        below_error(dir, path, err);
    if (parent >= 0)
        close(parent);
    close(root);
    return fd;
}

static const char *note_name(const char *path)
{
    return strrchr(path, '/') + 1;
}

// ---- put ----

static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        length -= (size_t)n;
    }
    return 0;
}

// Writes a file that is not there yet, and has it on the disk. -1 with errno.
static int write_fresh(int folder, const char *name, const char *note, size_t length)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, NOTE_MODE);
    if (fd < 0)
        return -1;
    int result =
        fchmod(fd, NOTE_MODE) != 0 || write_all(fd, note, length) != 0 || fsync(fd) != 0 ? -1 : 0;
    int error = errno;
    if (close(fd) != 0 && result == 0)
        return -1;
    errno = error;
    return result;
}

// Removes what writers left who were stopped in the midst of a put, an hour ago or more.
static void sweep(int folder)
{
    enum { HOUR = 3600, LOOKED_AT = 1024 };
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    const struct dirent *entry;
    for (int i = 0; i < LOOKED_AT && (entry = readdir(entries)) != NULL; i++) {
        struct stat st;
        if (strncmp(entry->d_name, FRESH_PREFIX, strlen(FRESH_PREFIX)) == 0 &&
            fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_mtime < time(NULL) - HOUR)
            unlinkat(folder, entry->d_name, 0);
    }
    closedir(entries);
}

static int dir_put(void *state, const char *path, const char *note, size_t length,
                   struct error *err)
{
    struct dir *dir = state;
    uint8_t random[8];
    char fresh[FRESH_NAME_SIZE] = FRESH_PREFIX;
    int folder = open_folder(dir, path, true, err);
    if (folder < 0) {
        if (err != NULL && err->code == ERROR_NOT_FOUND)
            err->code = ERROR_UNAVAILABLE; // taken away while it was made
        return -1;
    }
    sweep(folder);
    randombytes_buf(random, sizeof(random));
    sodium_bin2hex(fresh + strlen(fresh), sizeof(fresh) - strlen(fresh), random, sizeof(random));
    int result = 0;
    if (write_fresh(folder, fresh, note, length) != 0 ||
        renameat(folder, fresh, folder, note_name(path)) != 0 || sync_folder(folder) != 0) {
        int error = errno;
        unlinkat(folder, fresh, 0);
        errno = error == ENOENT ? ESTALE : error;
        result = below_error(dir, path, err);
    }
    close(folder);
    return result;
}

// ---- get, remove, list ----

// Reads all of a regular file, at most NOTE_MAX - 1 bytes. -1 with `err`.
static int read_note(struct dir *dir, const char *path, int fd, char note[NOTE_MAX], size_t *length,
                     struct error *err)
{
    struct stat st;
    size_t used = 0;
    if (fstat(fd, &st) != 0)
        return below_error(dir, path, err);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERROR_DATA_LOSS, "registry dir:%s: %s is no file", dir->root, path);
    while (used < NOTE_MAX) {
        ssize_t n = read(fd, note + used, NOTE_MAX - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return below_error(dir, path, err);
        if (n == 0)
            break;
        used += (size_t)n;
    }
    if (used == NOTE_MAX)
        return error_set(err, ERROR_DATA_LOSS, "registry dir:%s: %s is larger than a note can be",
                         dir->root, path);
    note[used] = '\0';
    *length = used;
    return 0;
}

static int dir_get(void *state, const char *path, char note[NOTE_MAX], size_t *length,
                   struct error *err)
{
    struct dir *dir = state;
    int folder = open_folder(dir, path, false, err);
    if (folder < 0)
        return -1;
    // O_NONBLOCK: a pipe put there must not make us wait.
    int fd = openat(folder, note_name(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int result =
        fd >= 0 ? read_note(dir, path, fd, note, length, err) : below_error(dir, path, err);
    if (fd >= 0)
        close(fd);
    close(folder);
    return result;
}

static int dir_remove(void *state, const char *path, struct error *err)
{
    struct dir *dir = state;
    struct error why = {.code = ERROR_OK};
    int folder = open_folder(dir, path, false, &why);
    if (folder < 0 && why.code == ERROR_NOT_FOUND)
        return 0;
    if (folder < 0)
        return error_set(err, why.code, "%s", why.message);
    int result = 0;
    if ((unlinkat(folder, note_name(path), 0) != 0 && errno != ENOENT) || sync_folder(folder) != 0)
        result = below_error(dir, path, err);
    close(folder);
    return result;
}

static int list_entries(struct dir *dir, const char *path, DIR *entries, const char *prefix,
                        struct registry_names *names, struct error *err)
{
    for (size_t looked_at = 0; looked_at < REGISTRY_SCAN_MAX; looked_at++) {
        errno = 0;
        const struct dirent *entry = readdir(entries);
        if (entry == NULL)
            return errno == 0 ? 0 : below_error(dir, path, err);
        if (entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            registry_names_add(names, entry->d_name, err) != 0)
            return -1;
    }
    names->unread = true;
    return 0;
}

static int dir_list(void *state, const char *folder, const char *prefix,
                    struct registry_names *names, struct error *err)
{
    struct dir *dir = state;
    struct error why = {.code = ERROR_OK};
    int fd = open_folder(dir, folder, false, &why);
    if (fd < 0 && why.code == ERROR_NOT_FOUND)
        return 0;
    if (fd < 0)
        return error_set(err, why.code, "%s", why.message);
    DIR *entries = fdopendir(fd);
    if (entries == NULL) {
        below_error(dir, folder, err);
        close(fd);
        return -1;
    }
    int result = list_entries(dir, folder, entries, prefix, names, err);
    closedir(entries);
    return result;
}

// ---- watches ----

#define FOLDER_EVENTS                                                                              \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF)
#define PARENT_EVENTS (IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)

// Watches what `fd` is: by path another could be meant. -1 with errno.
static int watch_fd(struct dir *dir, int fd, uint32_t events)
{
    char path[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return inotify_add_watch(dir->inotify, path, events | IN_ONLYDIR);
}

// Puts the watch `wd` (or -1) in the place of `*old`, which ends unless another still has it.
static void replace_watch(struct dir *dir, int *old, int wd)
{
    int before = *old;
    *old = wd;
    if (before < 0 || before == wd || before == dir->root_wd)
        return;
    for (size_t i = 0; i < dir->count; i++)
        if (dir->folders[i].wd == before || dir->folders[i].parent_wd == before)
            return;
    inotify_rm_watch(dir->inotify, before);
}

// Takes up the watches of one folder and its parent. -1 with errno where one is refused; what is
// not there is not.
static int arm_folder(struct dir *dir, int root, struct folder *folder)
{
    char host[HOST_MAX + 1];
    const char *slash = strchr(folder->path, '/');
    snprintf(host, sizeof(host), "%.*s", (int)(slash - folder->path), folder->path);
    int parent = open_child(root, host);
    int parent_wd = parent >= 0 ? watch_fd(dir, parent, PARENT_EVENTS) : -1;
    bool refused = parent >= 0 && parent_wd < 0;
    replace_watch(dir, &folder->parent_wd, parent_wd);
    int fd = parent >= 0 ? open_child(parent, slash + 1) : -1;
    int wd = fd >= 0 ? watch_fd(dir, fd, FOLDER_EVENTS) : -1;
    refused |= fd >= 0 && wd < 0;
    int error = errno;
    if (wd != folder->wd)
        folder->changed = true;
    replace_watch(dir, &folder->wd, wd);
    if (fd >= 0)
        close(fd);
    if (parent >= 0)
        close(parent);
    errno = error;
    return refused ? -1 : 0;
}

static void forget_watch(struct dir *dir, int *wd)
{
    if (*wd >= 0)
        inotify_rm_watch(dir->inotify, *wd); // shared: another may have taken it away already
    *wd = -1;
}

static void forget_watches(struct dir *dir)
{
    forget_watch(dir, &dir->root_wd);
    for (size_t i = 0; i < dir->count; i++) {
        struct folder *folder = &dir->folders[i];
        folder->changed |= folder->wd >= 0;
        forget_watch(dir, &folder->wd);
        forget_watch(dir, &folder->parent_wd);
    }
}

static int arm(struct dir *dir, struct error *err)
{
    int root = open_root(dir, err);
    if (root < 0) {
        forget_watches(dir);
        return -1;
    }
    dir->rearm = false;
    int wd = watch_fd(dir, root, PARENT_EVENTS);
    int error = errno;
    bool refused = wd < 0;
    replace_watch(dir, &dir->root_wd, wd);
    for (size_t i = 0; i < dir->count && !refused; i++) {
        refused = arm_folder(dir, root, &dir->folders[i]) != 0;
        error = errno;
    }
    close(root);
    if (!refused)
        return 0;
    dir->rearm = true;
    return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                     "registry dir:%s: changes are seen at rescans only: inotify: %s%s", dir->root,
                     strerror(error),
                     error == ENOSPC ? " (raise fs.inotify.max_user_watches)" : "");
}

static int dir_watch(void *state, const char *const *folders, size_t count, struct error *err)
{
    struct dir *dir = state;
    struct folder *fresh = calloc(count + 1, sizeof(*fresh));
    if (fresh == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the registry");
    for (size_t i = 0; i < count; i++) {
        snprintf(fresh[i].path, sizeof(fresh[i].path), "%s", folders[i]);
        fresh[i].wd = fresh[i].parent_wd = -1;
    }
    forget_watches(dir);
    free(dir->folders);
    dir->folders = fresh;
    dir->count = count;
    return arm(dir, err);
}

static int dir_fd(const void *state)
{
    return ((const struct dir *)state)->inotify;
}

// True where every folder may have changed.
static bool take_event(struct dir *dir, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW) {
        dir->rearm = true;
        return true;
    }
    bool moved = event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED);
    bool hidden = event->len > 0 && event->name[0] == '.';
    for (size_t i = 0; i < dir->count; i++) {
        struct folder *folder = &dir->folders[i];
        folder->changed |= folder->wd == event->wd && !hidden;
        dir->rearm |= folder->parent_wd == event->wd || (folder->wd == event->wd && moved);
    }
    dir->rearm |= event->wd == dir->root_wd;
    return false;
}

// Takes what was told, up to a limit: who floods the registry does not hold us here. `*took`: there
// was something.
static int take_events(struct dir *dir, bool *took, bool *all, struct error *err)
{
    _Alignas(struct inotify_event) char events[16384];
    for (int i = 0; i < 64; i++) {
        ssize_t length = read(dir->inotify, events, sizeof(events));
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN)
            return 0;
        if (length <= 0)
            return error_set(err, ERROR_UNAVAILABLE, "inotify: %s", strerror(errno));
        *took = true;
        for (const char *at = events; at < events + length;) {
            const struct inotify_event *event = (const void *)at;
            *all |= take_event(dir, event);
            at += sizeof(*event) + event->len;
        }
    }
    return 0;
}

static int dir_drain(void *state, registry_changed *changed, void *context, struct error *err)
{
    struct dir *dir = state;
    bool took = false, all = false;
    int result = take_events(dir, &took, &all, err);
    if (result == 0 && (dir->rearm || !took))
        result = arm(dir, err);
    if (all)
        changed(NULL, context);
    for (size_t i = 0; i < dir->count; i++) {
        if (dir->folders[i].changed && !all)
            changed(dir->folders[i].path, context);
        dir->folders[i].changed = false;
    }
    return result;
}

const struct registry_ops registry_dir = {
    .scheme = "dir",
    .open = dir_open,
    .close = dir_close,
    .put = dir_put,
    .get = dir_get,
    .remove = dir_remove,
    .list = dir_list,
    .watch = dir_watch,
    .fd = dir_fd,
    .drain = dir_drain,
};
