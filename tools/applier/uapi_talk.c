// SPDX-License-Identifier: Apache-2.0
// A connection to a WireGuard daemon's socket, and one request and answer at a time over it.
#include "uapi_talk.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#define UAPI_FOLDER     "/var/run/wireguard"
#define UAPI_SUFFIX     ".sock"
#define UAPI_PIECE      4096               // bytes read at a time
#define UAPI_ANSWER_MAX (64 * 1024 * 1024) // bytes of an answer: some 100,000 peers

struct uapi_talk {
    char interface[DEVICE_NAME_MAX + 1];
    int fd;                     // -1: not connected
    char *piece;                // guarded, UAPI_PIECE
    uint8_t *key;               // guarded, DEVICE_KEY_SIZE
    struct uapi_answer *answer; // guarded
    int64_t deadline;           // device_now_ms
};

void uapi_talk_path(char path[UAPI_TALK_PATH_MAX + 1], const char *interface)
{
    snprintf(path, UAPI_TALK_PATH_MAX + 1, UAPI_FOLDER "/%s" UAPI_SUFFIX, interface);
}

int uapi_talk_list(device_found *found, void *context, struct error *err)
{
    DIR *folder = opendir(UAPI_FOLDER);
    if (folder == NULL && errno == ENOENT)
        return 0;
    if (folder == NULL)
        return error_set(err, ERROR_PERMISSION_DENIED, UAPI_FOLDER ": %s", strerror(errno));
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char interface[DEVICE_NAME_MAX + 1];
        size_t length = strlen(entry->d_name), suffix = strlen(UAPI_SUFFIX);
        if (length <= suffix || length - suffix > DEVICE_NAME_MAX ||
            strcmp(entry->d_name + length - suffix, UAPI_SUFFIX) != 0)
            continue;
        snprintf(interface, sizeof interface, "%.*s", (int)(length - suffix), entry->d_name);
        found(interface, context);
    }
    closedir(folder);
    return 0;
}

// ---- the connection ----

// Waits until `fd` is ready for `events`. Returns 0, or -1 when the deadline has passed.
static int await(int fd, short events, int64_t deadline, const char *interface, struct error *err)
{
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = events};
        int64_t left = deadline - device_now_ms();
        if (left <= 0)
            return error_set(
                err, ERROR_DEADLINE_EXCEEDED,
                "interface '%s': its WireGuard daemon does not answer on its socket within %d s",
                interface, UAPI_TALK_TIMEOUT_MS / 1000);
        if (poll(&ready, 1, (int)left) > 0)
            return 0;
    }
}

// A key is handed only to a process of root's or of our own user: else whoever may write the folder
// would get it.
static int check_peer(int fd, const char *interface, struct error *err)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "interface '%s': SO_PEERCRED: %s", interface,
                         strerror(errno));
    if (peer.uid != 0 && peer.uid != geteuid())
        return error_set(
            err, ERROR_PERMISSION_DENIED,
            "interface '%s': its socket belongs to uid %u, neither root nor us: it gets no key",
            interface, (unsigned)peer.uid);
    return 0;
}

static int connect_failed(const char *interface, const char *path, int error, struct error *err)
{
    switch (error) {
    case ENOENT:
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no userspace WireGuard '%s' (no socket %s)", interface, path);
    case ECONNREFUSED:
        return error_set(err, ERROR_NOT_FOUND,
                         "interface '%s': nobody listens on %s: its WireGuard daemon has ended",
                         interface, path);
    case EACCES:
    case EPERM:
        return error_set(err, ERROR_PERMISSION_DENIED, "interface '%s': %s: %s", interface, path,
                         strerror(error));
    default:
        return error_set(err, ERROR_UNAVAILABLE, "interface '%s': %s: %s", interface, path,
                         strerror(error));
    }
}

static void hang_up(struct uapi_talk *talk)
{
    if (talk->fd >= 0)
        close(talk->fd);
    talk->fd = -1;
}

static int connect_anew(struct uapi_talk *talk, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uapi_talk_path(address.sun_path, talk->interface);
    hang_up(talk);
    talk->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (talk->fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "socket: %s", strerror(errno));
    while (connect(talk->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        // EAGAIN: its queue of connections is full, and nothing tells when it is not.
        if ((errno == EAGAIN || errno == EINTR) && device_now_ms() < talk->deadline) {
            nanosleep(&pause, NULL);
            continue;
        }
        connect_failed(talk->interface, address.sun_path, errno, err);
        goto fail;
    }
    if (check_peer(talk->fd, talk->interface, err) != 0)
        goto fail;
    return 0;
fail:
    hang_up(talk);
    return -1;
}

// Sends all. Returns 0 too when the daemon hung up first: what it answered before that says why.
static int send_all(int fd, const char *bytes, size_t length, int64_t deadline,
                    const char *interface, struct error *err)
{
    while (length > 0) {
        ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);
        if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            if (await(fd, POLLOUT, deadline, interface, err) != 0)
                return -1;
        } else if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            return 0;
        } else if (n == 0 || errno != EINTR) {
            return error_set(err, ERROR_UNAVAILABLE,
                             "interface '%s': its WireGuard daemon hung up: %s", interface,
                             strerror(errno));
        }
    }
    return 0;
}

// Reads until the answer's end. *closed: the daemon hung up before the first byte.
static int read_answer(struct uapi_talk *talk, bool *closed, struct error *err)
{
    size_t total = 0;
    for (;;) {
        if (await(talk->fd, POLLIN, talk->deadline, talk->interface, err) != 0)
            return -1;
        ssize_t n = read(talk->fd, talk->piece, UAPI_PIECE);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0) {
            *closed = total == 0;
            return error_set(err, ERROR_UNAVAILABLE,
                             "interface '%s': its WireGuard daemon hung up: %s", talk->interface,
                             n < 0 ? strerror(errno) : "an answer that is cut short");
        }
        int rc = uapi_answer_take(talk->answer, talk->piece, (size_t)n, err);
        sodium_memzero(talk->piece, (size_t)n);
        if (rc < 0)
            return error_prefix(err, "interface '%s'", talk->interface);
        if (rc > 0)
            return 0;
        total += (size_t)n;
        if (total > UAPI_ANSWER_MAX)
            return error_set(err, ERROR_DATA_LOSS,
                             "interface '%s': an answer of more than %d bytes", talk->interface,
                             UAPI_ANSWER_MAX);
    }
}

// ---- conversations ----

int uapi_talk_open(struct uapi_talk **out, const char *interface, struct error *err)
{
    struct uapi_talk *talk = calloc(1, sizeof *talk);
    if (talk == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
    snprintf(talk->interface, sizeof talk->interface, "%s", interface);
    talk->fd = -1;
    talk->piece = sodium_malloc(UAPI_PIECE);
    talk->key = sodium_malloc(DEVICE_KEY_SIZE);
    talk->answer = uapi_answer_new();
    if (talk->piece == NULL || talk->key == NULL || talk->answer == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED,
                  "interface '%s': no guarded memory for its answers: %s", interface,
                  strerror(errno));
        uapi_talk_close(talk);
        return -1;
    }
    *out = talk;
    return 0;
}

void uapi_talk_close(struct uapi_talk *talk)
{
    if (talk == NULL)
        return;
    hang_up(talk);
    sodium_free(talk->piece); // wipes
    sodium_free(talk->key);
    uapi_answer_free(talk->answer);
    free(talk);
}

uint8_t *uapi_talk_key(struct uapi_talk *talk)
{
    return talk->key;
}

void uapi_talk_forget(struct uapi_talk *talk)
{
    uapi_answer_clear(talk->answer);
    sodium_memzero(talk->key, DEVICE_KEY_SIZE);
}

// One try, over the connection there is.
static int converse(struct uapi_talk *talk, const char *request, size_t length, bool *closed,
                    struct error *err)
{
    *closed = false;
    if (send_all(talk->fd, request, length, talk->deadline, talk->interface, err) != 0)
        return -1;
    return read_answer(talk, closed, err);
}

int uapi_talk_ask(struct uapi_talk *talk, const char *request, size_t length, uapi_line *hook,
                  void *context, const char *doing, const struct uapi_answer **answer,
                  struct error *err)
{
    bool kept = talk->fd >= 0, closed;
    talk->deadline = device_now_ms() + UAPI_TALK_TIMEOUT_MS;
    uapi_talk_forget(talk);
    uapi_answer_tell(talk->answer, hook, context);
    if (!kept && connect_anew(talk, err) != 0)
        return -1;
    int rc = converse(talk, request, length, &closed, err);
    if (rc != 0 && kept && closed)
        rc = connect_anew(talk, err) != 0 ? -1 : converse(talk, request, length, &closed, err);
    if (rc != 0) {
        hang_up(talk); // what else it sends answers nothing that will be asked
        uapi_talk_forget(talk);
        return -1;
    }
    *answer = talk->answer;
    int refused = uapi_answer_errno(talk->answer);
    if (refused == 0)
        return 0;
    hang_up(talk); // the rest of a refused request would be taken for the next one
    uapi_talk_forget(talk);
    return error_set(err, ERROR_UNKNOWN,
                     "interface '%s': %s: its WireGuard daemon answered errno %d (%s)",
                     talk->interface, doing, refused, strerror(refused));
}
