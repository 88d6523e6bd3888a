// SPDX-License-Identifier: Apache-2.0
// The loop around the keeper: poll, receive, answer.
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#define SEND_TIMEOUT_MS 10000 // a client that reads nothing for so long is dropped
#define BACKLOG         8

enum turn { TURN_CLIENT, TURN_IDLE, TURN_END };

int serve_signals(struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int fd = -1;
    if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        error_set(err, ERROR_INTERNAL, "signalfd: %s", strerror(errno));
    return fd;
}

int serve_kind(int fd, bool *listening, struct error *err)
{
    int type = 0, accepts = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET)
        return error_set(err, ERROR_INVALID_ARGUMENT, "descriptor %d is no SOCK_SEQPACKET socket",
                         fd);
    length = sizeof(accepts);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &length) != 0)
        return error_set(err, ERROR_INTERNAL, "descriptor %d: %s", fd, strerror(errno));
    *listening = accepts != 0;
    return 0;
}

// Removes a socket that a keeper before left behind. One that somebody listens on stays.
static int remove_stale(const struct sockaddr_un *address, struct error *err)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0)
        return 0;
    if (!S_ISSOCK(info.st_mode))
        return error_set(err, ERROR_ALREADY_EXISTS, "%s exists and is no socket",
                         address->sun_path);
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return error_set(err, ERROR_INTERNAL, "socket: %s", strerror(errno));
    int connected = connect(probe, (const struct sockaddr *)address, sizeof(*address));
    int failure = errno;
    close(probe);
    if (connected == 0 || failure != ECONNREFUSED)
        return error_set(err, ERROR_ALREADY_EXISTS, "%s is another keeper's socket",
                         address->sun_path);
    if (unlink(address->sun_path) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED, "%s: %s", address->sun_path,
                         strerror(errno));
    return 0;
}

int serve_listen(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID_ARGUMENT, "socket path %s is too long", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (remove_stale(&address, err) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    // The umask of 077 makes the socket the owner's alone.
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fd, BACKLOG) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "socket %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

// How often systemd wants to hear that this process is alive, in milliseconds; -1 where it does not
// ask.
static int heartbeat_ms(void)
{
    uint64_t usec = 0;
    if (sd_watchdog_enabled(0, &usec) <= 0)
        return -1;
    uint64_t half_ms = usec / 2000;
    return half_ms > 60000 ? 60000 : (int)half_ms;
}

// Waits until the socket has something, the patience ends (milliseconds, -1 for ever), or a signal
// comes. A module that hangs keeps this from being called, and systemd from hearing.
static enum turn wait_turn(int fd, int signals, int patience)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    int ready, heartbeat = heartbeat_ms();
    if (heartbeat >= 0) {
        sd_notify(0, "WATCHDOG=1");
        if (patience < 0 || patience > heartbeat)
            patience = heartbeat;
    }
    do
        ready = poll(fds, 2, patience);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return TURN_IDLE;
    if (ready < 0 || fds[1].revents != 0)
        return TURN_END;
    return TURN_CLIENT;
}

static int send_reply(void *context, const struct keeper_reply *reply, struct error *err)
{
    int fd = *(const int *)context;
    for (;;) {
        int result = channel_send_reply(fd, reply, err);
        if (result <= 0)
            return result;
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        int ready = poll(&writable, 1, SEND_TIMEOUT_MS);
        if (ready == 0)
            return error_set(err, ERROR_DEADLINE_EXCEEDED, "the client has read nothing for %d s",
                             SEND_TIMEOUT_MS / 1000);
        if (ready < 0 && errno != EINTR)
            return error_set(err, ERROR_INTERNAL, "poll: %s", strerror(errno));
    }
}

// A packet that is no request is answered with what is wrong with it; the next one is read as if it
// had not come.
static int answer_malformed(int fd, const struct keeper_request *request, const struct error *cause,
                            struct error *err)
{
    struct keeper_reply *reply = calloc(1, sizeof(*reply));
    if (reply == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    reply->header = (struct keeper_header){KEEPER_MAGIC, KEEPER_VERSION, request->header.op,
                                           request->header.id};
    reply->error = *cause;
    int result = send_reply(&fd, reply, err);
    free(reply);
    return result;
}

// One request. KEEPER_CHANNEL_LOST with ERROR_UNAVAILABLE means that the client has left.
static enum keeper_outcome serve_request(struct keeper *keeper, struct keeper_request *request,
                                         int fd, struct error *err)
{
    struct error cause;
    int got = channel_receive_request(fd, request, &cause);
    if (got > 0)
        return KEEPER_GOES_ON;
    if (got < 0 && cause.code == ERROR_INVALID_ARGUMENT)
        return answer_malformed(fd, request, &cause, err) == 0 ? KEEPER_GOES_ON
                                                               : KEEPER_CHANNEL_LOST;
    if (got < 0) {
        *err = cause;
        return KEEPER_CHANNEL_LOST;
    }
    return keeper_answer(keeper, request, send_reply, &fd, err);
}

static int check_client(int fd, uid_t client_uid, struct error *err)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return error_set(err, ERROR_INTERNAL, "SO_PEERCRED: %s", strerror(errno));
    if (client_uid != SERVE_ANYBODY && peer.uid != client_uid)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "a client of uid %u was turned away: only uid %u may use this keeper",
                         (unsigned)peer.uid, (unsigned)client_uid);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return error_set(err, ERROR_INTERNAL, "fcntl: %s", strerror(errno));
    return 0;
}

// Serves one client until it leaves or `*ended` (a signal).
static enum keeper_outcome serve_one(struct keeper *keeper, int fd, int signals, uid_t client_uid,
                                     bool *ended, struct error *err)
{
    if (check_client(fd, client_uid, err) != 0)
        return KEEPER_CHANNEL_LOST;
    struct keeper_request *request = malloc(sizeof(*request));
    if (request == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return KEEPER_CHANNEL_LOST;
    }
    enum keeper_outcome outcome = KEEPER_GOES_ON;
    while (outcome == KEEPER_GOES_ON && !*ended) {
        switch (wait_turn(fd, signals, keeper_patience(keeper))) {
        case TURN_CLIENT:
            outcome = serve_request(keeper, request, fd, err);
            break;
        case TURN_IDLE:
            outcome = keeper_idle(keeper, err);
            break;
        case TURN_END:
            *ended = true;
            break;
        }
    }
    free(request);
    keeper_client_gone(keeper);
    return outcome;
}

enum keeper_outcome serve_client(struct keeper *keeper, int fd, int signals, uid_t client_uid,
                                 struct error *err)
{
    bool ended = false;
    enum keeper_outcome outcome = serve_one(keeper, fd, signals, client_uid, &ended, err);
    if (outcome == KEEPER_CHANNEL_LOST && err->code == ERROR_UNAVAILABLE)
        return KEEPER_GOES_ON; // the client left: the orderly end
    return outcome;
}

enum keeper_outcome serve_clients(struct keeper *keeper, int listener, int signals,
                                  uid_t client_uid, struct error *err)
{
    bool ended = false;
    int flags = fcntl(listener, F_GETFL);
    if (flags < 0 || fcntl(listener, F_SETFL, flags | O_NONBLOCK) != 0) {
        error_set(err, ERROR_INTERNAL, "fcntl: %s", strerror(errno));
        return KEEPER_CHANNEL_LOST;
    }
    while (!ended) {
        enum turn turn = wait_turn(listener, signals, keeper_patience(keeper));
        if (turn == TURN_END)
            break;
        enum keeper_outcome outcome = KEEPER_GOES_ON;
        if (turn == TURN_IDLE) {
            outcome = keeper_idle(keeper, err);
        } else {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd < 0)
                continue; // it left already, or there is no room: the next poll tells
            outcome = serve_one(keeper, fd, signals, client_uid, &ended, err);
            close(fd);
            if (outcome == KEEPER_CHANNEL_LOST && err->code != ERROR_UNAVAILABLE)
                fprintf(stderr, "custody-keeper: %s\n", err->message);
        }
        if (outcome == KEEPER_TOKEN_LOST)
            return outcome;
    }
    return KEEPER_GOES_ON;
}
