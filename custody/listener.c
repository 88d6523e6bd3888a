// SPDX-License-Identifier: Apache-2.0
// Connections over libevent's bufferevents.
#include "listener.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <systemd/sd-daemon.h>

#include "frame.h"
#include "say.h"

#define PROTOCOL_VERSION 1
// Answers that a client does not fetch: beyond this it is not reading, and is closed.
#define OUTPUT_MAX (1024 * 1024)
#define BACKLOG    128

struct connection {
    LIST_ENTRY(connection) link;
    struct listener *listener;
    struct bufferevent *events; // NULL once closed
    struct caller *caller;
    unsigned in_flight;
    bool held; // by on_readable, over a call that may close it
    bool greeted;
    bool closing; // as soon as the last bytes are out
};

struct listener {
    struct event_base *base;
    struct evconnlistener *accepting;
    struct listener_handlers handlers;
    char *path; // of a socket of our own; NULL when systemd's
    uint32_t connections_per_uid, connections_max, requests_in_flight, idle_s;
    unsigned connections, in_flight;
    bool draining;
    LIST_HEAD(, connection) list;
};

// ---- closing ----

static void free_if_done(struct connection *connection)
{
    if (connection->events != NULL || connection->in_flight > 0 || connection->held)
        return;
    caller_free(connection->caller);
    free(connection);
}

// The peer is gone for us; what is in flight still has the struct to answer to.
static void close_connection(struct connection *connection)
{
    if (connection->events != NULL) {
        bufferevent_free(connection->events);
        connection->events = NULL;
        connection->listener->connections--;
        LIST_REMOVE(connection, link);
    }
    free_if_done(connection);
}

// While draining, whoever drains is told each time that something more is out or gone.
static void note_drained(struct listener *listener)
{
    if (listener->draining && listener->handlers.drained != NULL)
        listener->handlers.drained(listener->handlers.context);
}

// ---- sending ----

static void send_response(struct connection *connection, const Custody__V1__Response *response)
{
    uint8_t header[FRAME_HEADER_SIZE];
    struct error err;
    if (connection->events == NULL || connection->closing)
        return;
    size_t length = custody__v1__response__get_packed_size(response);
    struct evbuffer *out = bufferevent_get_output(connection->events);
    struct evbuffer_iovec space;
    if (frame_header(length, header, &err) != 0) {
        say(LOG_ERR, "an answer could not be sent: %s", err.message);
        return;
    }
    if (evbuffer_add(out, header, sizeof(header)) != 0 ||
        evbuffer_reserve_space(out, (ev_ssize_t)length, &space, 1) != 1) {
        say(LOG_ERR, "out of memory for an answer");
        connection->closing = true;
        return;
    }
    custody__v1__response__pack(response, space.iov_base);
    space.iov_len = length;
    evbuffer_commit_space(out, &space, 1);
}

static void refuse(struct connection *connection, uint64_t id, enum error_code code,
                   const char *message)
{
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.id = id;
    response.code = (Custody__V1__Code)code;
    response.message = (char *)message;
    send_response(connection, &response);
}

// Refuses, and closes once that was sent: nothing after it on this connection can be trusted to be
// a frame.
static void refuse_and_close(struct connection *connection, uint64_t id, const char *message)
{
    refuse(connection, id, ERROR_INVALID_ARGUMENT, message);
    connection->closing = true;
    bufferevent_disable(connection->events, EV_READ);
}

void connection_answer(struct connection *connection, const Custody__V1__Response *response)
{
    struct listener *listener = connection->listener;
    connection->in_flight--;
    listener->in_flight--;
    send_response(connection, response);
    if (connection->events == NULL)
        free_if_done(connection);
    else if (evbuffer_get_length(bufferevent_get_output(connection->events)) > OUTPUT_MAX)
        close_connection(connection);
    note_drained(listener);
}

bool connection_is_open(const struct connection *connection)
{
    return connection->events != NULL;
}

struct caller *connection_caller(struct connection *connection)
{
    return connection->caller;
}

// ---- receiving ----

static void greet(struct connection *connection, const Custody__V1__Request *request)
{
    Custody__V1__HelloAnswer hello = CUSTODY__V1__HELLO_ANSWER__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    if (request->body_case != CUSTODY__V1__REQUEST__BODY_HELLO) {
        refuse_and_close(connection, request->id,
                         "the first request on a connection must be Hello");
        return;
    }
    if (request->hello->version != PROTOCOL_VERSION) {
        refuse_and_close(connection, request->id,
                         "this daemon speaks version 1 of the protocol only");
        return;
    }
    connection->greeted = true;
    hello.version = PROTOCOL_VERSION;
    connection->listener->handlers.hello(connection->listener->handlers.context, &hello);
    response.id = request->id;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_HELLO;
    response.hello = &hello;
    send_response(connection, &response);
}

static void take_request(struct connection *connection, const Custody__V1__Request *request)
{
    struct listener *listener = connection->listener;
    if (request->id == 0) {
        refuse_and_close(connection, 0, "a request's id must not be 0");
    } else if (!connection->greeted) {
        greet(connection, request);
    } else if (request->body_case == CUSTODY__V1__REQUEST__BODY_HELLO) {
        refuse_and_close(connection, request->id, "Hello was said already");
    } else if (request->body_case == CUSTODY__V1__REQUEST__BODY__NOT_SET) {
        refuse(connection, request->id, ERROR_INVALID_ARGUMENT,
               "the request asks for nothing that this daemon knows");
    } else if (connection->in_flight >= listener->requests_in_flight) {
        refuse(connection, request->id, ERROR_RESOURCE_EXHAUSTED,
               "too many requests are in flight on this connection: wait for an answer");
    } else {
        connection->in_flight++;
        listener->in_flight++;
        listener->handlers.request(listener->handlers.context, connection, request);
    }
}

static void on_readable(struct bufferevent *events, void *context)
{
    struct connection *connection = context;
    struct evbuffer *in = bufferevent_get_input(events);
    struct error err;
    while (!connection->closing && connection->events != NULL && !connection->listener->draining) {
        size_t length, have = evbuffer_get_length(in);
        uint8_t header[FRAME_HEADER_SIZE];
        if (have < sizeof(header))
            return;
        evbuffer_copyout(in, header, sizeof(header));
        if (frame_length(header, &length, &err) != 0) {
            refuse_and_close(connection, 0, err.message);
            return;
        }
        size_t frame = FRAME_HEADER_SIZE + length;
        if (have < frame)
            return;
        const uint8_t *bytes = evbuffer_pullup(in, (ev_ssize_t)frame);
        Custody__V1__Request *request = NULL;
        if (bytes != NULL)
            request = custody__v1__request__unpack(NULL, length, bytes + FRAME_HEADER_SIZE);
        evbuffer_drain(in, frame);
        if (request == NULL) {
            refuse_and_close(connection, 0, "the frame holds no protobuf Request");
            return;
        }
        connection->held = true;
        take_request(connection, request);
        connection->held = false;
        custody__v1__request__free_unpacked(request, NULL);
        if (connection->events == NULL) {
            free_if_done(connection);
            return;
        }
    }
}

static void on_written(struct bufferevent *events, void *context)
{
    struct connection *connection = context;
    struct listener *listener = connection->listener;
    if (connection->closing && evbuffer_get_length(bufferevent_get_output(events)) == 0)
        close_connection(connection);
    note_drained(listener);
}

static void on_event(struct bufferevent *events, short what, void *context)
{
    struct connection *connection = context;
    struct listener *listener = connection->listener;
    (void)events;
    // Silence is only held against a client that waits for nothing.
    if ((what & BEV_EVENT_TIMEOUT) && (what & BEV_EVENT_READING) && connection->in_flight > 0) {
        bufferevent_enable(connection->events, EV_READ);
        return;
    }
    close_connection(connection);
    note_drained(listener);
}

// ---- accepting ----

static unsigned connections_of(const struct listener *listener, uid_t uid)
{
    const struct connection *connection;
    unsigned count = 0;
    LIST_FOREACH(connection, &listener->list, link)
    count += caller_uid(connection->caller) == uid;
    return count;
}

static void set_timeouts(struct connection *connection)
{
    struct timeval idle = {.tv_sec = connection->listener->idle_s};
    bufferevent_set_timeouts(connection->events, &idle, &idle);
}

static const char *check_place(const struct listener *listener, const struct caller *caller)
{
    if (listener->connections >= listener->connections_max)
        return "too many connections are open: try again later";
    if (connections_of(listener, caller_uid(caller)) >= listener->connections_per_uid)
        return "this user has too many connections open";
    return NULL;
}

// Turned away with a reason, as far as the socket takes it at once.
static void turn_away(evutil_socket_t fd, enum error_code code, const char *message)
{
    uint8_t frame[FRAME_HEADER_SIZE + 1024];
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.code = (Custody__V1__Code)code;
    response.message = (char *)message;
    size_t length = custody__v1__response__get_packed_size(&response);
    if (length <= sizeof(frame) - FRAME_HEADER_SIZE && frame_header(length, frame, NULL) == 0) {
        custody__v1__response__pack(&response, frame + FRAME_HEADER_SIZE);
        ssize_t n = send(fd, frame, FRAME_HEADER_SIZE + length, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n;
    }
    close(fd);
}

static void on_accept(struct evconnlistener *accepting, evutil_socket_t fd,
                      struct sockaddr *address, int size, void *context)
{
    struct listener *listener = context;
    struct error err;
    (void)accepting;
    (void)address;
    (void)size;
    struct caller *caller = caller_new(fd, &err);
    if (caller == NULL) {
        turn_away(fd, err.code, err.message);
        return;
    }
    const char *full = check_place(listener, caller);
    struct connection *connection = full == NULL ? calloc(1, sizeof(*connection)) : NULL;
    if (connection != NULL)
        connection->events = bufferevent_socket_new(listener->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (connection == NULL || connection->events == NULL) {
        turn_away(fd, ERROR_RESOURCE_EXHAUSTED, full != NULL ? full : "out of memory");
        caller_free(caller);
        free(connection);
        return;
    }
    connection->listener = listener;
    connection->caller = caller;
    LIST_INSERT_HEAD(&listener->list, connection, link);
    listener->connections++;
    // No more than one whole frame is ever buffered for reading.
    bufferevent_setwatermark(connection->events, EV_READ, 0, FRAME_HEADER_SIZE + FRAME_MAX);
    bufferevent_setcb(connection->events, on_readable, on_written, on_event, connection);
    set_timeouts(connection);
    bufferevent_enable(connection->events, EV_READ | EV_WRITE);
}

static void on_accept_error(struct evconnlistener *accepting, void *context)
{
    (void)accepting;
    (void)context;
    say(LOG_WARNING, "accept: %s", strerror(errno));
}

static int set_group(const char *path, const char *name, struct error *err)
{
    errno = 0;
    const struct group *group = getgrnam(name);
    if (group == NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "socket group '%s' is not known on this host",
                         name);
    if (chown(path, (uid_t)-1, group->gr_gid) == 0)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "%s: group '%s': %s", path, name, strerror(errno));
}

// Whether somebody answers on the socket at `address`; if not, what stands there was left by a
// daemon that died.
static bool is_served(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool served = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    if (fd >= 0)
        close(fd);
    return served;
}

static int bind_socket(const struct config *config, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = config->socket.path;
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s: too long for a socket's path", path);
    strcpy(address.sun_path, path);
    if (is_served(&address))
        return error_set(err, ERROR_UNAVAILABLE, "%s: another daemon listens there", path);
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "socket: %s", strerror(errno));
    // Closed to all while it has neither its group nor its mode.
    mode_t mask = umask(0777);
    int bound = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    int error = errno;
    umask(mask);
    if (bound != 0) {
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(error));
    } else if (config->socket.group != NULL && set_group(path, config->socket.group, err) != 0) {
        unlink(path);
    } else if (listen(fd, BACKLOG) != 0 || chmod(path, config->socket.mode) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
        unlink(path);
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

static int open_socket(struct listener *listener, const struct config *config, struct error *err)
{
    int passed = sd_listen_fds(1);
    if (passed > 1 ||
        (passed == 1 && sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_STREAM, 1, NULL, 0) <= 0))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "systemd must pass one listening Unix stream socket");
    if (passed == 1)
        return SD_LISTEN_FDS_START;
    int fd = bind_socket(config, err);
    if (fd >= 0)
        listener->path = strdup(config->socket.path);
    return fd;
}

struct listener *listener_new(struct event_base *base, const struct config *config,
                              const struct listener_handlers *handlers, struct error *err)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the socket");
        return NULL;
    }
    listener->base = base;
    listener->handlers = *handlers;
    LIST_INIT(&listener->list);
    listener_configure(listener, config);
    int fd = open_socket(listener, config, err);
    if (fd < 0) {
        listener_free(listener);
        return NULL;
    }
    evutil_make_socket_nonblocking(fd);
    listener->accepting = evconnlistener_new(base, on_accept, listener,
                                             LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (listener->accepting == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the socket");
        close(fd);
        listener_free(listener);
        return NULL;
    }
    evconnlistener_set_error_cb(listener->accepting, on_accept_error);
    return listener;
}

void listener_configure(struct listener *listener, const struct config *config)
{
    listener->connections_per_uid = config->limits.connections_per_uid;
    listener->connections_max = config->limits.connections;
    listener->requests_in_flight = config->limits.requests_in_flight;
    listener->idle_s = config->limits.idle_s;
}

void listener_drain(struct listener *listener)
{
    struct connection *connection;
    listener->draining = true;
    if (listener->accepting != NULL)
        evconnlistener_free(listener->accepting);
    listener->accepting = NULL;
    if (listener->path != NULL)
        unlink(listener->path);
    LIST_FOREACH(connection, &listener->list, link)
    bufferevent_disable(connection->events, EV_READ);
}

void listener_free(struct listener *listener)
{
    if (listener == NULL)
        return;
    listener_drain(listener);
    while (!LIST_EMPTY(&listener->list))
        close_connection(LIST_FIRST(&listener->list));
    free(listener->path);
    free(listener);
}

unsigned listener_connections(const struct listener *listener)
{
    return listener->connections;
}

unsigned listener_in_flight(const struct listener *listener)
{
    return listener->in_flight;
}

bool listener_is_drained(const struct listener *listener)
{
    const struct connection *connection;
    if (listener->in_flight > 0)
        return false;
    LIST_FOREACH(connection, &listener->list, link)
    if (evbuffer_get_length(bufferevent_get_output(connection->events)) > 0)
        return false;
    return true;
}
