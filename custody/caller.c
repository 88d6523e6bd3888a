// SPDX-License-Identifier: Apache-2.0
// Attestation over /proc, fenced by a pidfd or by the process's start time.
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 // Linux 6.5, include/uapi/asm-generic/socket.h
#endif

// An executable larger than this is named but not digested: hashing it would hold up everybody
// else.
#define EXE_MAX (32 * 1024 * 1024)

// The last executable digested, known again by what changes when a file does.
struct exe_digest {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
    char sha256[65];
};

struct caller {
    struct ucred credentials;
    int pidfd;           // -1 where the kernel has none
    uint64_t start_time; // used then
    struct exe_digest exe;
};

// ---- pure parts ----

static bool is_unit(const char *element, size_t length)
{
    static const char *const suffixes[] = {".service", ".scope"};
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        size_t suffix = strlen(suffixes[i]);
        if (length > suffix && memcmp(element + length - suffix, suffixes[i], suffix) == 0)
            return true;
    }
    return false;
}

static bool is_slice(const char *element, size_t length)
{
    static const char suffix[] = ".slice";
    return length > sizeof(suffix) - 1 &&
           memcmp(element + length - (sizeof(suffix) - 1), suffix, sizeof(suffix) - 1) == 0;
}

// The unit in a cgroup path that ends at `end`.
static int parse_path(const char *path, const char *end, char unit[RECORD_UNIT_MAX + 1])
{
    unit[0] = '\0';
    while (path < end) {
        path++; // the slash
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = (size_t)((slash != NULL ? slash : end) - path);
        if (length == 2 && memcmp(path, "..", 2) == 0)
            return -1;
        if (!is_slice(path, length)) {
            if (!is_unit(path, length))
                return 0;
            if (length > RECORD_UNIT_MAX)
                return -1;
            memcpy(unit, path, length);
            unit[length] = '\0';
            return 0;
        }
        path += length;
    }
    return 0;
}

int caller_parse_unit(const char *cgroup, char unit[RECORD_UNIT_MAX + 1])
{
    char legacy[RECORD_UNIT_MAX + 1] = "";
    char unified[RECORD_UNIT_MAX + 1] = "";
    bool known = false;
    for (const char *line = cgroup; *line != '\0';) {
        const char *end = strchrnul(line, '\n');
        const char *first = memchr(line, ':', (size_t)(end - line));
        const char *second =
            first != NULL ? memchr(first + 1, ':', (size_t)(end - first - 1)) : NULL;
        if (second == NULL || second[1] != '/')
            return -1;
        const char *controllers = first + 1;
        if (second == controllers) {
            if (parse_path(second + 1, end, unified) != 0)
                return -1;
            known = true;
        } else if ((size_t)(second - controllers) == strlen("name=systemd") &&
                   memcmp(controllers, "name=systemd", strlen("name=systemd")) == 0) {
            if (parse_path(second + 1, end, legacy) != 0)
                return -1;
            known = true;
        }
        line = *end == '\n' ? end + 1 : end;
    }
    if (!known)
        return -1;
    memcpy(unit, unified[0] != '\0' ? unified : legacy, RECORD_UNIT_MAX + 1);
    return 0;
}

int caller_parse_start_time(const char *stat, uint64_t *ticks)
{
    const char *at = strrchr(stat, ')');
    if (at == NULL)
        return -1;
    // Field 3, the state, follows the name; the start time is field 22.
    for (int field = 3; field <= 22; field++) {
        at = strchr(at + 1, ' ');
        if (at == NULL)
            return -1;
    }
    char *end;
    errno = 0;
    *ticks = strtoull(at + 1, &end, 10);
    return errno == 0 && end != at + 1 && (*end == ' ' || *end == '\n' || *end == '\0') ? 0 : -1;
}

// ---- the process ----

// Reads a whole file of /proc as text. Returns 0, or -1 with errno.
static int read_proc(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t used = 0;
    ssize_t n = 1;
    while (n != 0 && used < size - 1) {
        n = read(fd, text + used, size - 1 - used);
        if (n < 0 && errno != EINTR) {
            int error = errno;
            close(fd);
            errno = error;
            return -1;
        }
        used += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    text[used] = '\0';
    if (used < size - 1)
        return 0;
    errno = EFBIG;
    return -1;
}

static int read_start_time(pid_t pid, uint64_t *ticks)
{
    char stat[1024];
    return read_proc(pid, "stat", stat, sizeof(stat)) == 0 ? caller_parse_start_time(stat, ticks)
                                                           : -1;
}

struct caller *caller_new(int socket, struct error *err)
{
    struct caller *caller = calloc(1, sizeof(*caller));
    if (caller == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a connection");
        return NULL;
    }
    caller->pidfd = -1;
    socklen_t length = sizeof(caller->credentials);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &caller->credentials, &length) != 0) {
        error_set(err, ERROR_UNAUTHENTICATED, "SO_PEERCRED: %s", strerror(errno));
        goto fail;
    }
    length = sizeof(caller->pidfd);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &caller->pidfd, &length) == 0)
        return caller;
    caller->pidfd = -1;
    if (errno != ENOPROTOOPT) {
        error_set(err, ERROR_UNAUTHENTICATED, "pid %d is gone already",
                  (int)caller->credentials.pid);
        goto fail;
    }
    if (read_start_time(caller->credentials.pid, &caller->start_time) == 0)
        return caller;
    error_set(err, ERROR_UNAUTHENTICATED, "pid %d is gone already", (int)caller->credentials.pid);
fail:
    caller_free(caller);
    return NULL;
}

void caller_free(struct caller *caller)
{
    if (caller == NULL)
        return;
    if (caller->pidfd >= 0)
        close(caller->pidfd);
    free(caller);
}

uid_t caller_uid(const struct caller *caller)
{
    return caller->credentials.uid;
}

bool caller_has_pidfd(const struct caller *caller)
{
    return caller->pidfd >= 0;
}

// Whether the process that connected is still there, so that what /proc said of its pid was said of
// it.
static bool is_alive(const struct caller *caller)
{
    if (caller->pidfd >= 0) {
        struct pollfd poll_fd = {.fd = caller->pidfd, .events = POLLIN};
        int n;
        do
            n = poll(&poll_fd, 1, 0);
        while (n < 0 && errno == EINTR);
        return n == 0;
    }
    uint64_t now;
    return read_start_time(caller->credentials.pid, &now) == 0 && now == caller->start_time;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static int digest_fd(int fd, char sha256[65])
{
    crypto_hash_sha256_state state;
    uint8_t buffer[65536], digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_init(&state);
    for (;;) {
        ssize_t n = read(fd, buffer, sizeof(buffer));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        crypto_hash_sha256_update(&state, buffer, (unsigned long long)n);
    }
    crypto_hash_sha256_final(&state, digest);
    sodium_bin2hex(sha256, 65, digest, sizeof(digest));
    return 0;
}

static bool is_known(const struct exe_digest *known, const struct stat *st)
{
    return known->sha256[0] != '\0' && known->device == st->st_dev && known->inode == st->st_ino &&
           known->size == st->st_size && same_time(&known->modified, &st->st_mtim) &&
           same_time(&known->changed, &st->st_ctim);
}

// Digests the executable behind `link`, unless it is the one that was digested last.
static int digest_exe(struct exe_digest *known, const char *link)
{
    struct stat st;
    if (stat(link, &st) == 0 && is_known(known, &st))
        return 0;
    known->sha256[0] = '\0';
    int fd = open(link, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= EXE_MAX)
        result = digest_fd(fd, known->sha256);
    close(fd);
    if (result != 0) {
        known->sha256[0] = '\0';
        return -1;
    }
    known->device = st.st_dev;
    known->inode = st.st_ino;
    known->size = st.st_size;
    known->modified = st.st_mtim;
    known->changed = st.st_ctim;
    return 0;
}

static void read_exe(struct caller *caller, struct record_actor *actor)
{
    char link[64];
    actor->exe_unavailable = true;
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)caller->credentials.pid);
    ssize_t length = readlink(link, actor->exe, sizeof(actor->exe));
    if (length <= 0 || (size_t)length >= sizeof(actor->exe) ||
        !name_is_utf8(actor->exe, (size_t)length)) {
        memset(actor->exe, 0, sizeof(actor->exe));
        return;
    }
    actor->exe[length] = '\0';
    if (digest_exe(&caller->exe, link) != 0)
        return;
    memcpy(actor->exe_sha256, caller->exe.sha256, sizeof(actor->exe_sha256));
    actor->exe_unavailable = false;
}

int caller_attest(struct caller *caller, struct record_actor *actor, struct error *err)
{
    char cgroup[8192];
    memset(actor, 0, sizeof(*actor));
    actor->present = true;
    actor->uid = caller->credentials.uid;
    actor->gid = caller->credentials.gid;
    actor->pid = (uint32_t)caller->credentials.pid;
    if (read_proc(caller->credentials.pid, "cgroup", cgroup, sizeof(cgroup)) != 0 ||
        caller_parse_unit(cgroup, actor->unit) != 0 ||
        !name_is_utf8(actor->unit, strlen(actor->unit))) {
        memset(actor->unit, 0, sizeof(actor->unit));
        return error_set(err, ERROR_UNAUTHENTICATED, "the systemd unit of pid %d cannot be told",
                         (int)caller->credentials.pid);
    }
    read_exe(caller, actor);
    if (is_alive(caller))
        return 0;
    memset(actor->unit, 0, sizeof(actor->unit));
    memset(actor->exe, 0, sizeof(actor->exe));
    memset(actor->exe_sha256, 0, sizeof(actor->exe_sha256));
    actor->exe_unavailable = true;
    return error_set(err, ERROR_UNAUTHENTICATED, "pid %d, which connected, is gone",
                     (int)caller->credentials.pid);
}
