// SPDX-License-Identifier: Apache-2.0
// A file system that hangs and fails when it is told to: passes everything through to a folder.
//
// usage: hanging_fs FOLDER MOUNTPOINT
//
// Commands come on standard input, a line each, and each is answered by a line on standard output:
//   hang OP...              from now on calls of these operations wait ("all": of every one)
//   fail ERROR COUNT OP...  the next COUNT calls of each of these operations fail with ERROR,
//                           first those that wait
//   release                 what waits goes on, and nothing waits or fails any more
//   waiting                 answers with the operations that wait, a word for each call
// "ready" is said once it is mounted. At the end of input it lets go of what waits, unmounts and
// exits: so whoever starts it cannot leave a process behind that nobody can kill.
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fuse.h>

enum op {
    OP_GETATTR,
    OP_READDIR,
    OP_OPEN,
    OP_CREATE,
    OP_READ,
    OP_WRITE,
    OP_FSYNC,
    OP_MKDIR,
    OP_UNLINK,
    OP_RENAME,
    OP_TRUNCATE,
    OP_FALLOCATE,
    OP_STATFS,
    OP_COUNT,
};

static const char *const OP_NAMES[OP_COUNT] = {
    "getattr", "readdir", "open",   "create",   "read",      "write",  "fsync",
    "mkdir",   "unlink",  "rename", "truncate", "fallocate", "statfs",
};

static const struct {
    const char *name;
    int number;
} ERRORS[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS}};

// What operations are to do, and what waits for that to change.
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct {
        bool hangs;
        unsigned failures; // so many more
        int error;
        unsigned waiting;
    } ops[OP_COUNT];
} rules = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int folder; // what is passed through to

// ---- the rules ----

// Waits as long as `op` is to hang. Returns 0, or the negative error that it is to fail with.
static int pass(enum op op)
{
    int result = 0;
    pthread_mutex_lock(&rules.lock);
    rules.ops[op].waiting++;
    while (rules.ops[op].hangs)
        pthread_cond_wait(&rules.changed, &rules.lock);
    rules.ops[op].waiting--;
    if (rules.ops[op].failures > 0) {
        rules.ops[op].failures--;
        result = -rules.ops[op].error;
    }
    pthread_mutex_unlock(&rules.lock);
    return result;
}

static void release_all(void)
{
    for (unsigned op = 0; op < OP_COUNT; op++) {
        rules.ops[op].hangs = false;
        rules.ops[op].failures = 0;
    }
    pthread_cond_broadcast(&rules.changed);
}

// The operations named by the rest of the line hang (error 0), or fail.
static bool set_rules(char **rest, int error, unsigned failures)
{
    const char *word;
    while ((word = strtok_r(NULL, " ", rest)) != NULL) {
        bool known = false;
        for (unsigned op = 0; op < OP_COUNT; op++) {
            if (strcmp(word, "all") != 0 && strcmp(word, OP_NAMES[op]) != 0)
                continue;
            known = true;
            rules.ops[op].hangs = error == 0;
            rules.ops[op].error = error;
            rules.ops[op].failures = failures;
        }
        if (!known)
            return false;
    }
    pthread_cond_broadcast(&rules.changed);
    return true;
}

static bool set_failures(char **rest)
{
    const char *name = strtok_r(NULL, " ", rest), *count = strtok_r(NULL, " ", rest);
    for (size_t i = 0; count != NULL && i < sizeof(ERRORS) / sizeof(ERRORS[0]); i++)
        if (strcmp(name, ERRORS[i].name) == 0)
            return set_rules(rest, ERRORS[i].number, (unsigned)strtoul(count, NULL, 10));
    return false;
}

static void list_waiting(void)
{
    for (unsigned op = 0; op < OP_COUNT; op++)
        for (unsigned i = 0; i < rules.ops[op].waiting; i++)
            printf("%s ", OP_NAMES[op]);
}

static void obey(char *line)
{
    char *rest;
    line[strcspn(line, "\n")] = '\0';
    const char *command = strtok_r(line, " ", &rest);
    bool known = true;
    pthread_mutex_lock(&rules.lock);
    if (command != NULL && strcmp(command, "hang") == 0)
        known = set_rules(&rest, 0, 0);
    else if (command != NULL && strcmp(command, "fail") == 0)
        known = set_failures(&rest);
    else if (command != NULL && strcmp(command, "release") == 0)
        release_all();
    else if (command != NULL && strcmp(command, "waiting") == 0)
        list_waiting();
    else
        known = false;
    pthread_mutex_unlock(&rules.lock);
    puts(known ? "ok" : "unknown");
    fflush(stdout);
}

// The thread that takes commands; its argument is the mount point.
static void *take_commands(void *mountpoint)
{
    char line[512];
    while (fgets(line, sizeof(line), stdin) != NULL)
        obey(line);
    pthread_mutex_lock(&rules.lock);
    release_all();
    pthread_mutex_unlock(&rules.lock);
    // Lazily, since files may be open; the kernel answers what is under way once we are gone.
    umount2(mountpoint, MNT_DETACH);
    _exit(0);
}

// ---- passing through ----

static const char *below(const char *path)
{
    return path[1] == '\0' ? "." : path + 1;
}

static int outcome(int result)
{
    return result < 0 ? -errno : 0;
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *info)
{
    int error = pass(OP_GETATTR);
    if (error != 0)
        return error;
    return outcome(info != NULL ? fstat((int)info->fh, st)
                                : fstatat(folder, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    (void)offset;
    (void)info;
    (void)flags;
    int error = pass(OP_READDIR);
    if (error != 0)
        return error;
    int fd = openat(folder, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        error = -errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        if (fill(buffer, entry->d_name, NULL, 0, 0) != 0)
            break;
    closedir(dir);
    return 0;
}

static int open_file(const char *path, int flags, mode_t mode, struct fuse_file_info *info)
{
    // The kernel says where to write, also to a file that was opened to append.
    int fd = openat(folder, below(path), (flags & ~O_APPEND) | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    info->fh = (uint64_t)fd;
    return 0;
}

static int do_open(const char *path, struct fuse_file_info *info)
{
    int error = pass(OP_OPEN);
    return error != 0 ? error : open_file(path, info->flags, 0, info);
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
    int error = pass(OP_CREATE);
    return error != 0 ? error : open_file(path, info->flags | O_CREAT, mode, info);
}

static int do_release(const char *path, struct fuse_file_info *info)
{
    (void)path;
    close((int)info->fh);
    return 0;
}

static int do_read(const char *path, char *buffer, size_t size, off_t offset,
                   struct fuse_file_info *info)
{
    (void)path;
    int error = pass(OP_READ);
    if (error != 0)
        return error;
    ssize_t n = pread((int)info->fh, buffer, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int do_write(const char *path, const char *data, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    (void)path;
    int error = pass(OP_WRITE);
    if (error != 0)
        return error;
    ssize_t n = pwrite((int)info->fh, data, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int do_fsync(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    (void)data_only;
    (void)info;
    return pass(OP_FSYNC); // nobody cuts this machine's power
}

static int do_mkdir(const char *path, mode_t mode)
{
    int error = pass(OP_MKDIR);
    return error != 0 ? error : outcome(mkdirat(folder, below(path), mode));
}

static int do_unlink(const char *path)
{
    int error = pass(OP_UNLINK);
    return error != 0 ? error : outcome(unlinkat(folder, below(path), 0));
}

static int do_rmdir(const char *path)
{
    int error = pass(OP_UNLINK);
    return error != 0 ? error : outcome(unlinkat(folder, below(path), AT_REMOVEDIR));
}

static int do_rename(const char *from, const char *to, unsigned flags)
{
    int error = pass(OP_RENAME);
    return error != 0 ? error : outcome(renameat2(folder, below(from), folder, below(to), flags));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
    int error = pass(OP_TRUNCATE);
    if (error != 0)
        return error;
    if (info != NULL)
        return outcome(ftruncate((int)info->fh, size));
    int fd = openat(folder, below(path), O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    error = outcome(ftruncate(fd, size));
    close(fd);
    return error;
}

static int do_fallocate(const char *path, int mode, off_t offset, off_t length,
                        struct fuse_file_info *info)
{
    (void)path;
    int error = pass(OP_FALLOCATE);
    return error != 0 ? error : outcome(fallocate((int)info->fh, mode, offset, length));
}

static int do_statfs(const char *path, struct statvfs *st)
{
    (void)path;
    int error = pass(OP_STATFS);
    return error != 0 ? error : outcome(fstatvfs(folder, st));
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
    (void)info;
    return outcome(fchmodat(folder, below(path), mode, 0));
}

static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
    (void)info;
    return outcome(utimensat(folder, below(path), times, AT_SYMLINK_NOFOLLOW));
}

// Nothing is remembered: what is changed behind the mount point is seen at once.
static void *do_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->use_ino = 1;
    config->hard_remove = 1;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    return NULL;
}

static const struct fuse_operations OPERATIONS = {
    .init = do_init,
    .getattr = do_getattr,
    .readdir = do_readdir,
    .open = do_open,
    .create = do_create,
    .release = do_release,
    .read = do_read,
    .write = do_write,
    .fsync = do_fsync,
    .fsyncdir = do_fsync,
    .mkdir = do_mkdir,
    .unlink = do_unlink,
    .rmdir = do_rmdir,
    .rename = do_rename,
    .truncate = do_truncate,
    .fallocate = do_fallocate,
    .statfs = do_statfs,
    .chmod = do_chmod,
    .utimens = do_utimens,
};

int main(int argc, char *argv[])
{
    pthread_t commands;
    if (argc != 3) {
        fputs("usage: hanging_fs FOLDER MOUNTPOINT\n", stderr);
        return 2;
    }
    folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        perror(argv[1]);
        return 1;
    }
    umask(0); // the caller's was applied already
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    if (fuse_opt_add_arg(&args, argv[0]) != 0 || fuse_opt_add_arg(&args, "-oallow_other") != 0)
        return 1;
    struct fuse *fuse = fuse_new(&args, &OPERATIONS, sizeof(OPERATIONS), NULL);
    if (fuse == NULL || fuse_mount(fuse, argv[2]) != 0)
        return 1;
    if (pthread_create(&commands, NULL, take_commands, argv[2]) != 0) {
        fuse_unmount(fuse);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    return fuse_loop_mt(fuse, 0) == 0 ? 0 : 1;
}
