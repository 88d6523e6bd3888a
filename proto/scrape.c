// SPDX-License-Identifier: Apache-2.0
// One epoll descriptor over a listening socket, its clients and the timer that bounds them.
#include "scrape.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 4096 // bytes of a request

struct client {
    int fd; // -1: the place is free
    time_t until;
    char head[HEAD_MAX + 1];
    size_t head_length;
    char *answer; // NULL: the request is still read
    size_t length, sent;
};

struct scrape {
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    scrape_render *render;
    void *context;
    int epoll, listening, timer;
    bool accepts; // the listening socket is waited for
    bool ours;    // the socket at `path`
    unsigned count;
    struct client clients[SCRAPE_CLIENTS_MAX];
};

static time_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

// ---- a request ----

// Whether `line`, of `length` bytes, is the header `name`; then `*value` is what follows its colon.
static bool is_header(const char *line, size_t length, const char *name, const char **value)
{
    size_t size = strlen(name);
    if (length <= size || line[size] != ':' || strncasecmp(line, name, size) != 0)
        return false;
    *value = line + size + 1;
    return true;
}

static bool contains(const char *text, size_t length, const char *word)
{
    size_t size = strlen(word);
    for (size_t i = 0; i + size <= length; i++)
        if (strncasecmp(text + i, word, size) == 0)
            return true;
    return false;
}

int scrape_parse(const char *head, enum openmetrics_format *format)
{
    const char *target = strchr(head, ' '), *line = strchr(head, '\n');
    *format = OPENMETRICS_PROMETHEUS;
    if (target == NULL || line == NULL || target > line)
        return 400;
    size_t path = strcspn(++target, " ?\r\n");
    const char *version = target + strcspn(target, " \r\n");
    if (strncmp(version, " HTTP/1.", 8) != 0)
        return 400;
    if (strncmp(head, "GET ", 4) != 0)
        return 405;
    if (path != strlen("/metrics") || strncmp(target, "/metrics", path) != 0)
        return 404;
    for (line++; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        const char *value;
        size_t length = strcspn(line, "\n");
        if (is_header(line, length, "Accept", &value) &&
            contains(value, (size_t)(line + length - value), "application/openmetrics-text"))
            *format = OPENMETRICS_TEXT;
    }
    return 200;
}

static const char *status_name(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 404:
        return "Not Found: ask for /metrics";
    case 405:
        return "Method Not Allowed";
    case 503:
        return "Out of memory";
    default:
        return "Bad Request";
    }
}

// Makes the answer to what stands in the client's head.
static int make_answer(const struct scrape *scrape, struct client *client)
{
    enum openmetrics_format format = OPENMETRICS_PROMETHEUS;
    char head[256];
    size_t length = 0;
    int status = scrape_parse(client->head, &format);
    char *body = status == 200 ? scrape->render(scrape->context, format, &length) : NULL;
    if (status == 200 && body == NULL)
        status = 503;
    int size = snprintf(head, sizeof(head),
                        "HTTP/1.0 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n",
                        status, status_name(status),
                        status == 200 ? openmetrics_content_type(format) : "text/plain", length);
    client->answer = malloc((size_t)size + length);
    if (client->answer != NULL) {
        memcpy(client->answer, head, (size_t)size);
        if (length > 0)
            memcpy(client->answer + size, body, length);
        client->length = (size_t)size + length;
    }
    free(body);
    return client->answer != NULL ? 0 : -1;
}

// ---- clients ----

static void watch_listening(struct scrape *scrape)
{
    bool accepts = scrape->count < SCRAPE_CLIENTS_MAX;
    struct epoll_event event = {.events = accepts ? EPOLLIN : 0, .data.u32 = SCRAPE_CLIENTS_MAX};
    if (accepts != scrape->accepts)
        epoll_ctl(scrape->epoll, EPOLL_CTL_MOD, scrape->listening, &event);
    scrape->accepts = accepts;
}

// The timer ticks each second while somebody is there.
static void set_timer(const struct scrape *scrape)
{
    time_t period = scrape->count > 0 ? 1 : 0;
    struct itimerspec time = {.it_interval.tv_sec = period, .it_value.tv_sec = period};
    timerfd_settime(scrape->timer, 0, &time, NULL);
}

static void drop(struct scrape *scrape, struct client *client)
{
    close(client->fd);
    free(client->answer);
    *client = (struct client){.fd = -1};
    scrape->count--;
    set_timer(scrape);
    watch_listening(scrape);
}

static void take_client(struct scrape *scrape)
{
    unsigned i = 0;
    while (i < SCRAPE_CLIENTS_MAX && scrape->clients[i].fd >= 0)
        i++;
    if (i == SCRAPE_CLIENTS_MAX)
        return;
    struct client *client = &scrape->clients[i];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    int fd = accept4(scrape->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (epoll_ctl(scrape->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        return;
    }
    client->fd = fd;
    client->until = now_s() + SCRAPE_PATIENCE_S;
    scrape->count++;
    set_timer(scrape);
    watch_listening(scrape);
}

// Reads what is there. 1 when the request is whole, 0 when not yet, -1 when the client is to go.
static int read_head(struct client *client)
{
    ssize_t n = recv(client->fd, client->head + client->head_length, HEAD_MAX - client->head_length,
                     MSG_DONTWAIT);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -1;
    client->head_length += (size_t)n;
    client->head[client->head_length] = '\0';
    if (strlen(client->head) != client->head_length)
        return -1; // a NUL byte
    if (strstr(client->head, "\r\n\r\n") != NULL || strstr(client->head, "\n\n") != NULL)
        return 1;
    return n == 0 || client->head_length == HEAD_MAX ? -1 : 0;
}

static void serve(struct scrape *scrape, unsigned i)
{
    struct client *client = &scrape->clients[i];
    if (client->fd < 0)
        return;
    if (client->answer == NULL) {
        int whole = read_head(client);
        struct epoll_event event = {.events = EPOLLOUT, .data.u32 = i};
        if (whole < 0 || (whole > 0 && make_answer(scrape, client) != 0))
            drop(scrape, client);
        if (whole <= 0 || client->fd < 0)
            return;
        epoll_ctl(scrape->epoll, EPOLL_CTL_MOD, client->fd, &event);
    }
    ssize_t n = send(client->fd, client->answer + client->sent, client->length - client->sent,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0)
        client->sent += (size_t)n;
    if (n < 0 || client->sent == client->length)
        drop(scrape, client);
}

static void look_at_times(struct scrape *scrape)
{
    uint64_t ticks;
    time_t now = now_s();
    ssize_t n = read(scrape->timer, &ticks, sizeof(ticks));
    (void)n;
    for (unsigned i = 0; i < SCRAPE_CLIENTS_MAX; i++)
        if (scrape->clients[i].fd >= 0 && now > scrape->clients[i].until)
            drop(scrape, &scrape->clients[i]);
}

void scrape_work(struct scrape *scrape)
{
    struct epoll_event events[SCRAPE_CLIENTS_MAX + 2];
    int count = epoll_wait(scrape->epoll, events, SCRAPE_CLIENTS_MAX + 2, 0);
    for (int i = 0; i < count; i++) {
        uint32_t who = events[i].data.u32;
        if (who == SCRAPE_CLIENTS_MAX)
            take_client(scrape);
        else if (who > SCRAPE_CLIENTS_MAX)
            look_at_times(scrape);
        else
            serve(scrape, who);
    }
}

int scrape_fd(const struct scrape *scrape)
{
    return scrape->epoll;
}

// ---- life ----

// A socket that was left behind, and that nobody listens on, goes.
static int remove_stale(const struct sockaddr_un *address, struct error *err)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "metrics socket %s: what is there is no socket: move it away",
                         address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool answers =
        fd >= 0 &&
        (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    if (answers)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "metrics socket %s: another process listens on it", address->sun_path);
    if (unlink(address->sun_path) == 0 || errno == ENOENT)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "metrics socket %s: %s", address->sun_path,
                     strerror(errno));
}

static int listen_at(struct scrape *scrape, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, scrape->path, sizeof(address.sun_path));
    if (remove_stale(&address, err) != 0)
        return -1;
    scrape->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (scrape->listening >= 0 &&
        bind(scrape->listening, (const struct sockaddr *)&address, sizeof(address)) == 0) {
        scrape->ours = true;
        if (chmod(scrape->path, 0666) == 0 && listen(scrape->listening, SCRAPE_CLIENTS_MAX) == 0)
            return 0;
    }
    return error_set(err, ERROR_UNAVAILABLE, "metrics socket %s: %s", scrape->path,
                     strerror(errno));
}

static int watch(struct scrape *scrape, struct error *err)
{
    struct epoll_event listening = {.events = EPOLLIN, .data.u32 = SCRAPE_CLIENTS_MAX},
                       timer = {.events = EPOLLIN, .data.u32 = SCRAPE_CLIENTS_MAX + 1};
    scrape->epoll = epoll_create1(EPOLL_CLOEXEC);
    scrape->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    scrape->accepts = true;
    if (scrape->epoll >= 0 && scrape->timer >= 0 &&
        epoll_ctl(scrape->epoll, EPOLL_CTL_ADD, scrape->listening, &listening) == 0 &&
        epoll_ctl(scrape->epoll, EPOLL_CTL_ADD, scrape->timer, &timer) == 0)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "metrics socket %s: %s", scrape->path,
                     strerror(errno));
}

struct scrape *scrape_open(const char *path, scrape_render *render, void *context,
                           struct error *err)
{
    struct scrape *scrape = calloc(1, sizeof(*scrape));
    if (scrape == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the metrics' socket");
        return NULL;
    }
    scrape->render = render;
    scrape->context = context;
    scrape->epoll = scrape->listening = scrape->timer = -1;
    for (unsigned i = 0; i < SCRAPE_CLIENTS_MAX; i++)
        scrape->clients[i].fd = -1;
    int length = snprintf(scrape->path, sizeof(scrape->path), "%s", path);
    if (length < 0 || (size_t)length >= sizeof(scrape->path))
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: too long for a socket's path", path);
    else if (listen_at(scrape, err) == 0 && watch(scrape, err) == 0)
        return scrape;
    scrape_close(scrape);
    return NULL;
}

void scrape_close(struct scrape *scrape)
{
    if (scrape == NULL)
        return;
    for (unsigned i = 0; i < SCRAPE_CLIENTS_MAX; i++)
        if (scrape->clients[i].fd >= 0)
            drop(scrape, &scrape->clients[i]);
    if (scrape->ours)
        unlink(scrape->path);
    if (scrape->epoll >= 0)
        close(scrape->epoll);
    if (scrape->timer >= 0)
        close(scrape->timer);
    if (scrape->listening >= 0)
        close(scrape->listening);
    free(scrape);
}

// ---- the file ----

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        text += n;
        length -= (size_t)n;
    }
    return 0;
}

int scrape_write_file(const char *path, const char *text, size_t length, struct error *err)
{
    char fresh[4096];
    // Not NAME.prom: the collector must not read it.
    int size = snprintf(fresh, sizeof(fresh), "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof(fresh))
        return error_set(err, ERROR_INVALID_ARGUMENT, "metrics file %s: its path is too long",
                         path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "metrics file %s: %s", fresh, strerror(errno));
    int rc = write_all(fd, text, length);
    if (rc == 0)
        rc = fchmod(fd, 0644); // whatever the umask
    int error = errno;
    if (close(fd) != 0 && rc == 0) {
        rc = -1;
        error = errno;
    }
    if (rc == 0 && rename(fresh, path) == 0)
        return 0;
    if (rc == 0)
        error = errno;
    unlink(fresh);
    return error_set(err, ERROR_UNAVAILABLE, "metrics file %s: %s", path, strerror(error));
}
