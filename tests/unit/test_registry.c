// SPDX-License-Identifier: Apache-2.0
// A folder as registry: whole notes under concurrent writers, nothing followed out of it, floods
// bounded, and a registry that goes and comes back.
#include "tools/applier/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "tap.h"

#define NOTE "alpha/wg0/bundle-1"

static char base[] = "/tmp/custody-registry-XXXXXX";
static char root[64], url[80];

static char *at(const char *path)
{
    static char whole[512];
    snprintf(whole, sizeof(whole), "%s/%s", root, path);
    return whole;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct registry *fresh_registry(void)
{
    struct error err = {.message = ""};
    remove_tree(root);
    CU_ASSERT_EQUAL_FATAL(mkdir(root, 0750), 0);
    struct registry *registry = registry_open(url, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(registry);
    return registry;
}

static void write_file(const char *path, size_t size)
{
    FILE *file = fopen(at(path), "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    for (size_t i = 0; i < size; i++)
        fputc('x', file);
    CU_ASSERT_EQUAL(fclose(file), 0);
}

static int get(struct registry *registry, const char *path, struct error *err)
{
    char note[NOTE_MAX];
    size_t length;
    err->code = ERROR_OK;
    err->message[0] = '\0';
    return registry_get(registry, path, note, &length, err);
}

static void put(struct registry *registry, const char *path, const char *text)
{
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL(registry_put(registry, path, text, strlen(text), &err), 0);
    if (err.message[0] != '\0')
        printf("# %s\n", err.message);
}

// ---- notes ----

static void test_notes(void)
{
    struct registry *registry = fresh_registry();
    struct error err;
    struct stat st;
    char note[NOTE_MAX], large[NOTE_MAX];
    size_t length;
    CU_ASSERT_STRING_EQUAL(registry_url(registry), url);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    CU_ASSERT_EQUAL(registry_remove(registry, NOTE, &err), 0);
    mode_t mask = umask(077);
    put(registry, NOTE, "one\n");
    umask(mask);
    put(registry, NOTE, "two\n");
    CU_ASSERT_EQUAL(registry_get(registry, NOTE, note, &length, &err), 0);
    CU_ASSERT_EQUAL(length, 4);
    CU_ASSERT_STRING_EQUAL(note, "two\n");
    CU_ASSERT_EQUAL(stat(at(NOTE), &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0644);
    CU_ASSERT_EQUAL(stat(at("alpha/wg0"), &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 07777, 0750);
    memset(large, 'x', sizeof(large));
    CU_ASSERT_EQUAL(registry_put(registry, NOTE, large, NOTE_MAX - 1, &err), 0);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), 0);
    CU_ASSERT_EQUAL(registry_put(registry, NOTE, large, NOTE_MAX, &err), -1);
    CU_ASSERT_EQUAL(registry_put(registry, NOTE, large, 0, &err), -1);
    CU_ASSERT_EQUAL(registry_remove(registry, NOTE, &err), 0);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    registry_close(registry);
    registry_close(NULL);
}

static void test_paths(void)
{
    static const char *const bad[] = {
        "",
        "alpha/wg0",
        "alpha/wg0/",
        "/alpha/wg0/fresh",
        "alpha/../fresh",
        "../wg0/fresh",
        "alpha/wg0/..",
        "alpha/wg0/.new-1",
        "alpha/wg0/a/b",
        "alpha//fresh",
        "Alpha/wg0/fresh",
        "alpha/wg0/a b",
    };
    static const char *const bad_urls[] = {"", "dir", "dir:", "dir:srv", "etcd:/x", "/srv"};
    struct registry *registry = fresh_registry();
    struct error err;
    struct registry_names names;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CU_ASSERT_EQUAL(get(registry, bad[i], &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
        CU_ASSERT_EQUAL(registry_put(registry, bad[i], "x", 1, &err), -1);
        CU_ASSERT_EQUAL(registry_remove(registry, bad[i], &err), -1);
    }
    CU_ASSERT_EQUAL(registry_list(registry, "alpha", "", &names, &err), -1);
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/..", "", &names, &err), -1);
    for (size_t i = 0; i < sizeof(bad_urls) / sizeof(bad_urls[0]); i++) {
        CU_ASSERT_PTR_NULL(registry_open(bad_urls[i], &err));
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    }
    registry_close(registry);
}

static void test_names(void)
{
    char path[REGISTRY_PATH_MAX + 1], host[HOST_MAX + 1], key[KEY_MAX + 1], host2[HOST_MAX + 1],
        key2[KEY_MAX + 1];
    uint64_t generation;
    registry_bundle_path(path, "al.p-ha", "w-g.0", 18446744073709551615u);
    CU_ASSERT_STRING_EQUAL(path, "al.p-ha/w-g.0/bundle-18446744073709551615");
    CU_ASSERT_TRUE(registry_bundle_name(strrchr(path, '/') + 1, &generation));
    CU_ASSERT_EQUAL(generation, 18446744073709551615u);
    registry_fresh_path(path, "alpha", "wg0");
    CU_ASSERT_STRING_EQUAL(path, "alpha/wg0/fresh");
    registry_ack_path(path, "alpha", "wg0", 3, "be-ta-4", "w-g-0");
    CU_ASSERT_STRING_EQUAL(path, "alpha/wg0/ack-3-w-g-0@be-ta-4");
    CU_ASSERT_TRUE(registry_ack_name(strrchr(path, '/') + 1, &generation, host, key));
    CU_ASSERT_EQUAL(generation, 3);
    CU_ASSERT_STRING_EQUAL(host, "be-ta-4");
    CU_ASSERT_STRING_EQUAL(key, "w-g-0");
    // The longest names there are make a path that has room, and one that is taken.
    memset(host, 'h', HOST_MAX);
    memset(key, 'k', KEY_MAX);
    host[HOST_MAX] = key[KEY_MAX] = '\0';
    registry_ack_path(path, host, key, 18446744073709551615u, host, key);
    CU_ASSERT_TRUE(registry_ack_name(strrchr(path, '/') + 1, &generation, host2, key2));
    CU_ASSERT_STRING_EQUAL(host2, host);
    struct registry *registry = fresh_registry();
    put(registry, path, "x\n");
    registry_close(registry);
    static const char *const bad_bundles[] = {
        "bundle-",   "bundle-0",  "bundle-01",
        "bundle-+1", "bundle-1 ", "bundle-18446744073709551616",
        "Bundle-1",  "fresh",     "",
    };
    static const char *const bad_acks[] = {
        "ack-3-wg0",      "ack-3-@beta", "ack-3-wg0@", "ack-03-wg0@beta",
        "ack--wg0@beta",  "ack-0-a@b",   "ack-3@b-a",  "ack-3-wg0@beta@b",
        "ack-3-wg0@Beta", "ack",         "",
    };
    for (size_t i = 0; i < sizeof(bad_bundles) / sizeof(bad_bundles[0]); i++)
        CU_ASSERT_FALSE(registry_bundle_name(bad_bundles[i], &generation));
    for (size_t i = 0; i < sizeof(bad_acks) / sizeof(bad_acks[0]); i++)
        CU_ASSERT_FALSE(registry_ack_name(bad_acks[i], &generation, host2, key2));
}

// ---- what others put there ----

static void test_hostile_files(void)
{
    struct registry *registry = fresh_registry();
    struct error err;
    put(registry, "alpha/wg0/fresh", "x\n");
    static const char *const links[] = {"/etc/passwd", "fresh", "nowhere"};
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        unlink(at(NOTE));
        CU_ASSERT_EQUAL(symlink(links[i], at(NOTE)), 0);
        CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    }
    put(registry, NOTE, "mine\n"); // in the link's place, not through it
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), 0);
    struct stat st;
    CU_ASSERT_TRUE(lstat(at(NOTE), &st) == 0 && S_ISREG(st.st_mode));

    CU_ASSERT_EQUAL(unlink(at(NOTE)), 0);
    CU_ASSERT_EQUAL(mkfifo(at(NOTE), 0644), 0); // nobody writes: must not wait
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    CU_ASSERT_EQUAL(unlink(at(NOTE)), 0);
    CU_ASSERT_EQUAL(mkdir(at(NOTE), 0755), 0);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    CU_ASSERT_EQUAL(registry_put(registry, NOTE, "x", 1, &err), -1);
    CU_ASSERT_EQUAL(registry_remove(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(rmdir(at(NOTE)), 0);
    write_file(NOTE, NOTE_MAX);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    CU_ASSERT_EQUAL(truncate(at(NOTE), (off_t)1 << 40), 0); // a tebibyte, sparse
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);

    // Folders that are links lead nowhere either.
    CU_ASSERT_EQUAL(symlink("wg0", at("alpha/wg1")), 0);
    CU_ASSERT_EQUAL(symlink("alpha", at("beta")), 0);
    static const char *const through[] = {"alpha/wg1/fresh", "beta/wg0/fresh"};
    for (size_t i = 0; i < sizeof(through) / sizeof(through[0]); i++) {
        CU_ASSERT_EQUAL(get(registry, through[i], &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
        CU_ASSERT_EQUAL(registry_put(registry, through[i], "x", 1, &err), -1);
    }
    registry_close(registry);
}

struct writer {
    pthread_t thread;
    struct registry *registry;
    char letter;
    int failures;
};

static void *write_often(void *context)
{
    struct writer *writer = context;
    char note[NOTE_MAX - 1];
    memset(note, writer->letter, sizeof(note));
    for (int i = 0; i < 100; i++)
        writer->failures +=
            registry_put(writer->registry, NOTE, note, sizeof(note) - (size_t)i, NULL) != 0;
    return NULL;
}

static bool is_whole(const char *note, size_t length)
{
    for (size_t i = 1; i < length; i++)
        if (note[i] != note[0])
            return false;
    return length > NOTE_MAX - 128;
}

static void test_concurrent_writers(void)
{
    struct registry *registry = fresh_registry();
    struct writer writers[4];
    struct registry_names names;
    char note[NOTE_MAX];
    size_t length;
    int torn = 0;
    put(registry, "alpha/wg0/fresh", "x\n");
    for (int i = 0; i < 4; i++) {
        writers[i] = (struct writer){.letter = (char)('a' + i)};
        writers[i].registry = registry_open(url, NULL);
        CU_ASSERT_EQUAL(pthread_create(&writers[i].thread, NULL, write_often, &writers[i]), 0);
    }
    for (int i = 0; i < 2000; i++)
        if (registry_get(registry, NOTE, note, &length, NULL) == 0)
            torn += !is_whole(note, length);
    for (int i = 0; i < 4; i++) {
        pthread_join(writers[i].thread, NULL);
        CU_ASSERT_EQUAL(writers[i].failures, 0);
        registry_close(writers[i].registry);
    }
    CU_ASSERT_EQUAL(torn, 0);
    CU_ASSERT_EQUAL(registry_get(registry, NOTE, note, &length, NULL), 0);
    CU_ASSERT_TRUE(is_whole(note, length));
    // Nothing else is left, hidden or not.
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/wg0", "", &names, NULL), 0);
    CU_ASSERT_EQUAL(names.count, 2);
    registry_names_free(&names);
    CU_ASSERT_EQUAL(unlink(at(NOTE)), 0);
    CU_ASSERT_EQUAL(unlink(at("alpha/wg0/fresh")), 0);
    CU_ASSERT_EQUAL(rmdir(at("alpha/wg0")), 0);
    registry_close(registry);
}

static void test_leftovers(void)
{
    struct registry *registry = fresh_registry();
    put(registry, NOTE, "x\n");
    write_file("alpha/wg0/.new-old", 1);
    write_file("alpha/wg0/.new-young", 1);
    const struct timespec old[2] = {{time(NULL) - 7200, 0}, {time(NULL) - 7200, 0}};
    CU_ASSERT_EQUAL(utimensat(AT_FDCWD, at("alpha/wg0/.new-old"), old, 0), 0);
    put(registry, NOTE, "y\n");
    CU_ASSERT_EQUAL(access(at("alpha/wg0/.new-old"), F_OK), -1);
    CU_ASSERT_EQUAL(access(at("alpha/wg0/.new-young"), F_OK), 0);
    struct registry_names names;
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/wg0", "", &names, NULL), 0);
    CU_ASSERT_EQUAL(names.count, 1);
    registry_names_free(&names);
    registry_close(registry);
}

static void test_flood(void)
{
    enum { FLOOD = 100000 };
    struct registry *registry = fresh_registry();
    struct registry_names names;
    struct error err;
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/wg0", "", &names, &err), 0);
    CU_ASSERT_EQUAL(names.count, 0);
    registry_names_free(&names);
    put(registry, "alpha/wg0/fresh", "x\n");
    int folder = open(at("alpha/wg0"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), made = 0;
    for (int i = 0; i < FLOOD; i++) {
        char name[32];
        snprintf(name, sizeof(name), "bundle-%d", i + 1);
        made += linkat(folder, "fresh", folder, name, 0) == 0 || // cheap, where links are many
                close(openat(folder, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)) == 0;
    }
    close(folder);
    CU_ASSERT_EQUAL(made, FLOOD);
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/wg0", "bundle-", &names, &err), 0);
    CU_ASSERT_EQUAL(names.count, REGISTRY_NAMES_MAX);
    CU_ASSERT_TRUE(names.unread);
    CU_ASSERT_TRUE(names.passed_over >= REGISTRY_SCAN_MAX - REGISTRY_NAMES_MAX - 3);
    CU_ASSERT_TRUE(names.passed_over < REGISTRY_SCAN_MAX);
    registry_names_free(&names);
    // What is asked for by name is not in the flood's way.
    CU_ASSERT_EQUAL(get(registry, "alpha/wg0/fresh", &err), 0);
    put(registry, "alpha/wg0/zzz", "x\n");
    CU_ASSERT_EQUAL(get(registry, "alpha/wg0/zzz", &err), 0);
    registry_close(registry);
}

// ---- going and coming back ----

static void test_gone(void)
{
    struct registry *registry = fresh_registry();
    struct registry_names names;
    struct error err;
    put(registry, NOTE, "x\n");
    remove_tree(root);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "is gone"));
    CU_ASSERT_EQUAL(registry_put(registry, NOTE, "x", 1, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    CU_ASSERT_EQUAL(registry_remove(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(registry_list(registry, "alpha/wg0", "", &names, &err), -1);
    CU_ASSERT_EQUAL(access(root, F_OK), -1);
    CU_ASSERT_EQUAL(mkdir(root, 0755), 0);
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    put(registry, NOTE, "y\n");
    CU_ASSERT_EQUAL(get(registry, NOTE, &err), 0);
    registry_close(registry);
}

// 0: as promised; 77: no mounts for us; else the step that failed.
static int unmounted_child(void)
{
    struct error err;
    struct registry *registry = registry_open(url, &err);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", root, "tmpfs", 0, NULL) != 0)
        return 77;
    if (registry_put(registry, NOTE, "x\n", 2, &err) != 0)
        return 1;
    if (umount(root) != 0)
        return 77;
    // The folder is there, and empty: it is not the registry.
    if (get(registry, NOTE, &err) == 0 || err.code != ERROR_UNAVAILABLE ||
        strstr(err.message, "mounted") == NULL)
        return 2;
    if (registry_put(registry, NOTE, "x\n", 2, &err) == 0 || access(at("alpha"), F_OK) == 0)
        return 3;
    if (mount("none", root, "tmpfs", 0, NULL) != 0 ||
        registry_put(registry, NOTE, "x\n", 2, &err) != 0)
        return 4;
    registry_close(registry);
    return 0;
}

static void test_unmounted(void)
{
    registry_close(fresh_registry());
    int status = 0;
    pid_t pid = fork();
    CU_ASSERT_TRUE_FATAL(pid >= 0);
    if (pid == 0)
        _exit(unmounted_child());
    CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
    int result = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (result == 77)
        printf("# not permitted to mount: not tested\n");
    else if (result != 0)
        printf("# step %d\n", result);
    CU_ASSERT_TRUE(result == 0 || result == 77);
}

// ---- watching ----

struct told {
    int count;
    char last[REGISTRY_PATH_MAX + 1];
    bool all;
};

static void on_changed(const char *folder, void *context)
{
    struct told *told = context;
    told->count++;
    told->all |= folder == NULL;
    snprintf(told->last, sizeof(told->last), "%s", folder != NULL ? folder : "");
}

// Waits until something is told, and takes it.
static struct told take(struct registry *registry)
{
    struct told told = {.count = 0};
    struct pollfd fd = {.fd = registry_fd(registry), .events = POLLIN};
    while (told.count == 0 && poll(&fd, 1, 20000) > 0)
        registry_drain(registry, on_changed, &told, NULL);
    return told;
}

// Takes what is there.
static struct told drain(struct registry *registry, int *result, struct error *err)
{
    struct told told = {.count = 0};
    struct pollfd fd = {.fd = registry_fd(registry), .events = POLLIN};
    do
        *result = registry_drain(registry, on_changed, &told, err);
    while (poll(&fd, 1, 0) > 0);
    return told;
}

static void test_watch(void)
{
    static const char *const folders[] = {"alpha/wg0", "beta/wg0"};
    struct registry *registry = fresh_registry(), *other = registry_open(url, NULL);
    struct error err = {.message = ""};
    struct told told;
    int result;
    put(registry, NOTE, "x\n");
    CU_ASSERT_EQUAL(registry_watch(registry, folders, 2, &err), 0);
    drain(registry, &result, &err);
    CU_ASSERT_EQUAL(result, 0);

    put(other, NOTE, "y\n");
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "alpha/wg0");
    // The first note of a host makes its folders, which are watched from then on.
    put(other, "beta/wg0/fresh", "x\n");
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "beta/wg0");
    drain(registry, &result, &err);
    put(other, "beta/wg0/fresh", "y\n");
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "beta/wg0");
    CU_ASSERT_EQUAL(registry_remove(other, "beta/wg0/fresh", NULL), 0);
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "beta/wg0");
    put(other, "gamma/wg0/fresh", "x\n"); // not watched
    told = drain(registry, &result, &err);
    CU_ASSERT_EQUAL(told.count, 0);

    // The whole registry goes, and comes back.
    remove_tree(root);
    told = drain(registry, &result, &err);
    CU_ASSERT_EQUAL(result, -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    CU_ASSERT_EQUAL(told.count, 2);
    CU_ASSERT_EQUAL(mkdir(root, 0755), 0);
    put(other, NOTE, "z\n");
    told = drain(registry, &result, &err); // a rescan
    CU_ASSERT_EQUAL(result, 0);
    CU_ASSERT_STRING_EQUAL(told.last, "alpha/wg0");
    put(other, NOTE, "zz\n");
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "alpha/wg0");
    registry_close(other);
    registry_close(registry);
}

static void test_watch_overflow(void)
{
    static const char *const folders[] = {"alpha/wg0"};
    struct registry *registry = fresh_registry();
    struct error err;
    int result, limit = 16384;
    FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
    if (file != NULL) {
        CU_ASSERT_EQUAL(fscanf(file, "%d", &limit), 1);
        fclose(file);
    }
    put(registry, NOTE, "x\n");
    CU_ASSERT_EQUAL(registry_watch(registry, folders, 1, &err), 0);
    drain(registry, &result, &err);
    int folder = open(at("alpha/wg0"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < limit / 4 + 100; i++) { // four events each
        CU_ASSERT_EQUAL_FATAL(renameat(folder, "bundle-1", folder, "other"), 0);
        CU_ASSERT_EQUAL_FATAL(renameat(folder, "other", folder, "bundle-1"), 0);
    }
    close(folder);
    struct told told = drain(registry, &result, &err);
    CU_ASSERT_TRUE(told.all);
    put(registry, NOTE, "x\n");
    told = take(registry);
    CU_ASSERT_STRING_EQUAL(told.last, "alpha/wg0");
    registry_close(registry);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"put, get, remove", test_notes},
        {"paths and URLs that are none", test_paths},
        {"names of notes", test_names},
        {"links, pipes, folders, huge files", test_hostile_files},
        {"concurrent writers", test_concurrent_writers},
        {"what a crash left", test_leftovers},
        {"a flood of 100,000 names", test_flood},
        {"deleted and made again", test_gone},
        {"unmounted", test_unmounted},
        {"changes are told", test_watch},
        {"more changes than the kernel queues", test_watch_overflow},
        CU_TEST_INFO_NULL,
    };
    if (sodium_init() < 0 || mkdtemp(base) == NULL)
        return EXIT_FAILURE;
    snprintf(root, sizeof(root), "%s/root", base);
    snprintf(url, sizeof(url), "dir:%s", root);
    int result = tap_run("registry", tests);
    remove_tree(base);
    return result;
}
