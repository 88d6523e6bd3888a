// SPDX-License-Identifier: Apache-2.0
// Frames over a non-blocking Unix stream socket, each wait bounded by the caller's deadline.
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"

#define NS_PER_SECOND INT64_C(1000000000)
#define NS_PER_MS     INT64_C(1000000)

struct connection {
    int fd;
    size_t received; // bytes in `incoming`
    size_t consumed; // of those, the frame that connection_receive returned last
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1]; // for messages
    uint8_t outgoing[FRAME_HEADER_SIZE + FRAME_MAX];
    uint8_t incoming[FRAME_HEADER_SIZE + FRAME_MAX];
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

int64_t connection_deadline(int timeout_ms)
{
    return now_ns() + timeout_ms * NS_PER_MS;
}

static int deadline_exceeded(const char *path, const char *what, struct error *err)
{
    return error_set(err, ERROR_DEADLINE_EXCEEDED,
                     "%s: %s before the deadline: is custodyd stopped or overloaded?", path, what);
}

// Says which group would be let in, where that can be seen.
static int connect_forbidden(const char *path, struct error *err)
{
    struct stat status;
    struct group group, *found = NULL;
    char buffer[4096];
    if (stat(path, &status) < 0)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s: no permission to enter the socket's folder", path);
    if (getgrgid_r(status.st_gid, &group, buffer, sizeof(buffer), &found) != 0 || found == NULL)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s: no permission to connect: the socket is for uid %u and group id %u",
                         path, status.st_uid, status.st_gid);
    return error_set(err, ERROR_PERMISSION_DENIED,
                     "%s: no permission to connect: the socket is for uid %u and group '%s'", path,
                     status.st_uid, group.gr_name);
}

static int connect_failed(const char *path, int number, struct error *err)
{
    struct stat status;
    switch (number) {
    case ENOENT:
        return error_set(err, ERROR_UNAVAILABLE, "%s: no such socket: is custodyd running?", path);
    case ECONNREFUSED:
        if (stat(path, &status) == 0 && !S_ISSOCK(status.st_mode))
            return error_set(err, ERROR_INVALID_ARGUMENT, "%s: is not a socket", path);
        return error_set(err, ERROR_UNAVAILABLE,
                         "%s: nobody listens on this socket: is custodyd running?", path);
    case EACCES:
    case EPERM:
        return connect_forbidden(path, err);
    case ENOTSOCK:
    case EPROTOTYPE:
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s: is not custodyd's socket", path);
    default:
        return error_set(err, ERROR_UNAVAILABLE, "%s: cannot connect: %s", path, strerror(number));
    }
}

// Connects while the socket still blocks: for a Unix socket whose backlog is full, SO_SNDTIMEO is
// what bounds the wait (a non-blocking connect would fail at once with nothing to poll for). The
// socket does not block afterwards.
static int connect_until(int fd, const struct sockaddr_un *address, int64_t deadline,
                         struct error *err)
{
    for (;;) {
        int64_t left = deadline - now_ns();
        if (left < NS_PER_MS)
            return deadline_exceeded(address->sun_path, "the connection was not accepted", err);
        struct timeval timeout = {.tv_sec = left / NS_PER_SECOND,
                                  .tv_usec = left % NS_PER_SECOND / 1000};
        if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
            return connect_failed(address->sun_path, errno, err);
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            break;
        if (errno != EINTR && errno != EAGAIN)
            return connect_failed(address->sun_path, errno, err);
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return connect_failed(address->sun_path, errno, err);
    return 0;
}

int connection_open(const char *path, int64_t deadline, struct connection **out, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "socket path '%s': must be 1 to %zu bytes long", path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, length);
    struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    memcpy(connection->path, path, length);
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "cannot make a socket: %s", strerror(errno));
        goto cleanup;
    }
    if (connect_until(connection->fd, &address, deadline, err) < 0)
        goto cleanup;
    *out = connection;
    return 0;

cleanup:
    connection_close(connection);
    return -1;
}

void connection_close(struct connection *connection)
{
    if (connection == NULL)
        return;
    if (connection->fd >= 0)
        close(connection->fd);
    free(connection);
}

// Returns 0 when `events` (or an error, which the next call on the socket tells) are there.
static int wait_for(struct connection *connection, short events, int64_t deadline,
                    struct error *err)
{
    for (;;) {
        int64_t left = deadline - now_ns();
        if (left <= 0)
            return deadline_exceeded(connection->path,
                                     events == POLLIN ? "no answer" : "the request was not taken",
                                     err);
        struct timespec timeout = {.tv_sec = left / NS_PER_SECOND, .tv_nsec = left % NS_PER_SECOND};
        struct pollfd poll_fd = {.fd = connection->fd, .events = events};
        int ready = ppoll(&poll_fd, 1, &timeout, NULL);
        if (ready > 0)
            return 0;
        if (ready < 0 && errno != EINTR)
            return error_set(err, ERROR_INTERNAL, "%s: ppoll: %s", connection->path,
                             strerror(errno));
    }
}

uint8_t *connection_outgoing(struct connection *connection)
{
    return connection->outgoing + FRAME_HEADER_SIZE;
}

int connection_send(struct connection *connection, size_t length, int64_t deadline,
                    struct error *err)
{
    if (frame_header(length, connection->outgoing, err) < 0)
        return error_prefix(err, "%s: request", connection->path);
    size_t total = FRAME_HEADER_SIZE + length;
    for (size_t sent = 0; sent < total;) {
        ssize_t n = send(connection->fd, connection->outgoing + sent, total - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            if (wait_for(connection, POLLOUT, deadline, err) < 0)
                return -1;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return 0;
        } else if (errno != EINTR) {
            return error_set(err, ERROR_UNAVAILABLE, "%s: cannot send: %s", connection->path,
                             strerror(errno));
        }
    }
    return 0;
}

// Reads what is there. Returns 1, 0 when that is nothing, -1 on failure.
static int read_some(struct connection *connection, struct error *err)
{
    for (;;) {
        ssize_t n = recv(connection->fd, connection->incoming + connection->received,
                         sizeof(connection->incoming) - connection->received, 0);
        if (n > 0) {
            connection->received += (size_t)n;
            return 1;
        }
        if (n == 0 || errno == ECONNRESET)
            return error_set(err, ERROR_UNAVAILABLE, "%s: custodyd closed the connection%s",
                             connection->path,
                             connection->received > 0 ? " in the middle of an answer" : "");
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return error_set(err, ERROR_UNAVAILABLE, "%s: cannot receive: %s", connection->path,
                             strerror(errno));
    }
}

int connection_poll(struct connection *connection, const uint8_t **message, size_t *length,
                    struct error *err)
{
    connection->received -= connection->consumed;
    memmove(connection->incoming, connection->incoming + connection->consumed,
            connection->received);
    connection->consumed = 0;
    for (;;) {
        int found = frame_next(connection->incoming, connection->received, length, err);
        if (found < 0) {
            error_prefix(err, "%s: the peer does not speak custody's protocol", connection->path);
            if (err != NULL)
                err->code = ERROR_DATA_LOSS;
            return -1;
        }
        if (found > 0)
            break;
        int more = read_some(connection, err);
        if (more <= 0)
            return more;
    }
    *message = connection->incoming + FRAME_HEADER_SIZE;
    connection->consumed = FRAME_HEADER_SIZE + *length;
    return 1;
}

int connection_receive(struct connection *connection, int64_t deadline, const uint8_t **message,
                       size_t *length, struct error *err)
{
    for (;;) {
        int found = connection_poll(connection, message, length, err);
        if (found != 0)
            return found < 0 ? -1 : 0;
        if (wait_for(connection, POLLIN, deadline, err) < 0)
            return -1;
    }
}

int connection_fd(const struct connection *connection)
{
    return connection->fd;
}
