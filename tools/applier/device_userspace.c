// SPDX-License-Identifier: Apache-2.0
// A userspace WireGuard (wireguard-go): its UAPI socket. Whatever may hold the private key is
// guarded memory, and wiped.
#include "device.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "device_backend.h"
#include "uapi.h"
#include "uapi_peers.h"

#define USERSPACE_FOLDER     "/var/run/wireguard"
#define USERSPACE_SUFFIX     ".sock"
#define USERSPACE_TIMEOUT_MS 5000               // setting 10,000 peers takes two seconds
#define USERSPACE_PIECE      4096               // bytes read at a time
#define USERSPACE_ANSWER_MAX (64 * 1024 * 1024) // bytes of an answer: some 100,000 peers

static void socket_address(const char *interface, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path, sizeof address->sun_path, USERSPACE_FOLDER "/%s" USERSPACE_SUFFIX,
             interface);
}

static int userspace_find(const char *interface, struct device_identity *identity,
                          struct error *err)
{
    struct sockaddr_un address;
    struct stat status;
    socket_address(interface, &address);
    int rc = stat(address.sun_path, &status);
    if (rc != 0 && errno != ENOENT && errno != ENOTDIR)
        return error_set(err, ERROR_PERMISSION_DENIED, "%s: %s", address.sun_path, strerror(errno));
    if (rc != 0 || !S_ISSOCK(status.st_mode))
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no userspace WireGuard '%s' (no socket %s)", interface,
                         address.sun_path);
    *identity = (struct device_identity){.number = status.st_ino, .made = status.st_ctim};
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
                interface, USERSPACE_TIMEOUT_MS / 1000);
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

// Connects. Returns the descriptor, or -1.
static int userspace_connect(const char *interface, int64_t deadline, struct error *err)
{
    struct sockaddr_un address;
    socket_address(interface, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "socket: %s", strerror(errno));
    while (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
        // EAGAIN: its queue of connections is full, and nothing tells when it is not.
        if ((errno == EAGAIN || errno == EINTR) && device_now_ms() < deadline) {
            nanosleep(&pause, NULL);
            continue;
        }
        connect_failed(interface, address.sun_path, errno, err);
        goto fail;
    }
    if (check_peer(fd, interface, err) != 0)
        goto fail;
    return fd;
fail:
    close(fd);
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

// Reads until the answer's end, through `piece` (USERSPACE_PIECE bytes of guarded memory).
static int read_answer(int fd, char *piece, struct uapi_answer *answer, int64_t deadline,
                       const char *interface, struct error *err)
{
    size_t total = 0;
    for (;;) {
        if (await(fd, POLLIN, deadline, interface, err) != 0)
            return -1;
        ssize_t n = read(fd, piece, USERSPACE_PIECE);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return error_set(err, ERROR_UNAVAILABLE,
                             "interface '%s': its WireGuard daemon hung up: %s", interface,
                             n < 0 ? strerror(errno) : "an answer that is cut short");
        int rc = uapi_answer_take(answer, piece, (size_t)n, err);
        sodium_memzero(piece, (size_t)n);
        if (rc < 0)
            return error_prefix(err, "interface '%s'", interface);
        if (rc > 0)
            return 0;
        total += (size_t)n;
        if (total > USERSPACE_ANSWER_MAX)
            return error_set(err, ERROR_DATA_LOSS,
                             "interface '%s': an answer of more than %d bytes", interface,
                             USERSPACE_ANSWER_MAX);
    }
}

// Sends `request`, reads the answer and checks its errno; `doing` says what was asked.
static int converse(const char *interface, const char *request, size_t length,
                    struct uapi_answer *answer, const char *doing, struct error *err)
{
    int rc = -1;
    int64_t deadline = device_now_ms() + USERSPACE_TIMEOUT_MS;
    char *piece = sodium_malloc(USERSPACE_PIECE);
    int fd = userspace_connect(interface, deadline, err);
    if (fd < 0)
        goto cleanup;
    if (piece == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for an answer: %s",
                  strerror(errno));
        goto cleanup;
    }
    if (send_all(fd, request, length, deadline, interface, err) != 0 ||
        read_answer(fd, piece, answer, deadline, interface, err) != 0)
        goto cleanup;
    if (uapi_answer_errno(answer) != 0) {
        error_set(err, ERROR_UNKNOWN,
                  "interface '%s': %s: its WireGuard daemon answered errno %d (%s)", interface,
                  doing, uapi_answer_errno(answer), strerror(uapi_answer_errno(answer)));
        goto cleanup;
    }
    rc = 0;
cleanup:
    sodium_free(piece); // wipes
    if (fd >= 0)
        close(fd);
    return rc;
}

// ---- the operations ----

static int userspace_set_private_key(const char *interface,
                                     const uint8_t private_key[DEVICE_KEY_SIZE], struct error *err)
{
    int rc = -1;
    char *request = sodium_malloc(UAPI_SET_SIZE);
    struct uapi_answer *answer = uapi_answer_new();
    if (request == NULL || answer == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a request: %s",
                  strerror(errno));
    else
        rc = converse(interface, request, uapi_set_private_key(request, private_key), answer,
                      "setting the private key", err);
    sodium_free(request); // wipes
    uapi_answer_free(answer);
    return rc;
}

// Reads the device; the answer has its private key. NULL with `err`.
static struct uapi_answer *ask_device(const char *interface, struct error *err)
{
    static const char request[] = "get=1\n\n";
    struct uapi_answer *answer = uapi_answer_new();
    if (answer == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for an answer: %s",
                  strerror(errno));
        return NULL;
    }
    if (converse(interface, request, sizeof request - 1, answer, "reading the device", err) == 0)
        return answer;
    uapi_answer_free(answer);
    return NULL;
}

static int userspace_get_public_key(const char *interface, uint8_t public_key[DEVICE_KEY_SIZE],
                                    struct error *err)
{
    struct uapi_answer *answer = ask_device(interface, err);
    if (answer == NULL)
        return -1;
    int rc = uapi_answer_public_key(answer, public_key, err);
    uapi_answer_free(answer);
    return rc;
}

static int userspace_get_private_key(const char *interface, uint8_t *private_key, struct error *err)
{
    struct uapi_answer *answer = ask_device(interface, err);
    if (answer == NULL)
        return -1;
    uapi_answer_private_key(answer, private_key);
    uapi_answer_free(answer);
    return 0;
}

static int userspace_list(device_found *found, void *context, struct error *err)
{
    DIR *folder = opendir(USERSPACE_FOLDER);
    if (folder == NULL && errno == ENOENT)
        return 0;
    if (folder == NULL)
        return error_set(err, ERROR_PERMISSION_DENIED, USERSPACE_FOLDER ": %s", strerror(errno));
    for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char interface[DEVICE_NAME_MAX + 1];
        size_t length = strlen(entry->d_name), suffix = strlen(USERSPACE_SUFFIX);
        if (length <= suffix || length - suffix > DEVICE_NAME_MAX ||
            strcmp(entry->d_name + length - suffix, USERSPACE_SUFFIX) != 0)
            continue;
        snprintf(interface, sizeof interface, "%.*s", (int)(length - suffix), entry->d_name);
        found(interface, context);
    }
    closedir(folder);
    return 0;
}

const struct device_ops device_userspace = {
    .name = "userspace",
    .find = userspace_find,
    .set_private_key = userspace_set_private_key,
    .get_public_key = userspace_get_public_key,
    .get_private_key = userspace_get_private_key,
    .list = userspace_list,
};

// ---- a device held open ----

struct device_session {
    char interface[DEVICE_NAME_MAX + 1];
    struct device_identity identity; // of the socket
    struct device_messages messages;
};

static int session_open(struct device_session **out, const char *interface,
                        const struct device_identity *identity, struct error *err)
{
    struct device_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
    snprintf(session->interface, sizeof session->interface, "%s", interface);
    session->identity = *identity;
    *out = session;
    return 0;
}

static void session_close(struct device_session *session)
{
    free(session);
}

// One request and its answer, if the socket is still the one it was.
static int session_ask(struct device_session *session, const char *request, size_t length,
                       struct uapi_answer *answer, const char *doing, struct error *err)
{
    struct device_identity now;
    if (userspace_find(session->interface, &now, err) != 0)
        return -1;
    if (!device_identity_equal(&now, &session->identity))
        return error_set(err, ERROR_NOT_FOUND,
                         "interface '%s' is not the one it was: it was made anew meanwhile",
                         session->interface);
    session->messages.sent++;
    if (converse(session->interface, request, length, answer, doing, err) != 0)
        return -1;
    session->messages.received++;
    return 0;
}

static int session_read(struct device_session *session, struct device_view *view,
                        struct preshared *wanted, struct error *err)
{
    static const char request[] = "get=1\n\n";
    int rc = -1;
    struct uapi_view into = {.view = view, .wanted = wanted};
    struct uapi_answer *answer = uapi_answer_new();
    into.key = sodium_malloc(DEVICE_KEY_SIZE);
    if (answer == NULL || into.key == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for an answer: %s",
                  strerror(errno));
        goto cleanup;
    }
    uapi_answer_tell(answer, uapi_read_view, &into);
    if (session_ask(session, request, sizeof request - 1, answer, "reading the device", err) == 0)
        rc = uapi_answer_public_key(answer, view->public_key, err);
cleanup:
    sodium_free(into.key); // wipes
    uapi_answer_free(answer);
    return rc;
}

static int session_set(struct device_session *session, const struct device_change *change,
                       struct error *err)
{
    int rc = -1;
    size_t size = uapi_change_size(change);
    char *request = sodium_malloc(size);
    struct uapi_answer *answer = uapi_answer_new();
    if (request == NULL || answer == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a request: %s",
                  strerror(errno));
    else
        rc = session_ask(session, request, uapi_put_change(request, size, change), answer,
                         "changing the device", err);
    sodium_free(request); // wipes
    uapi_answer_free(answer);
    return rc;
}

static struct device_messages session_messages(const struct device_session *session)
{
    return session->messages;
}

const struct device_backend_ops device_backend_userspace = {
    .device = &device_userspace,
    .open = session_open,
    .close = session_close,
    .read = session_read,
    .set = session_set,
    .messages = session_messages,
};
