// SPDX-License-Identifier: Apache-2.0
// Starting, watching and talking to the keeper without ever waiting for it.
#include "keeper_link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

#define CHILD_CHANNEL_FD 3
#define BACKOFF_FIRST_MS 200
#define BACKOFF_LAST_MS  10000
#define NO_LOGIN_STATUS  4 // custody-keeper(8): the PIN is refused or cannot be read

struct waiter {
    enum keeper_op op;
    keeper_reply_fn *answer;
    void *context;
    struct timespec asked; // of the monotonic clock
    STAILQ_ENTRY(waiter) link;
};

// A request that the socket had no room for.
struct unsent {
    STAILQ_ENTRY(unsent) link;
    struct keeper_request request;
};

struct keeper_link {
    struct event_base *base;
    const struct config *config;
    struct keeper_link_handlers handlers;
    int fd;      // -1 when there is no channel
    pid_t child; // 0 when we started none, or it was reaped
    bool ready;
    bool held; // the PIN was refused: nobody tries again until told, since tokens lock
    char message[ERROR_MESSAGE_MAX];
    unsigned backoff_ms;
    uint64_t next_id;
    struct event *read_event, *write_event, *deadline, *retry;
    STAILQ_HEAD(, waiter) waiters; // in the order of their questions, which is that of the answers
    STAILQ_HEAD(, unsent) unsent;
};

static void lose(struct keeper_link *link, const struct error *why);

// ---- deadlines ----

// How long the answer that comes next may take. One that waits for the log's disk has that time in
// addition: the keeper bounds it by itself, and knows better what to say.
static unsigned patience_s(const struct keeper_link *link)
{
    const struct waiter *waiter = STAILQ_FIRST(&link->waiters);
    bool disk = waiter != NULL && (waiter->op == KEEPER_COMMIT || waiter->op == KEEPER_LOG_OPEN);
    return link->config->keeper.timeout_s + (disk ? KEEPER_DISK_TIMEOUT_S : 0);
}

// The time runs for the question that is answered next. The first question of a connection has
// none: until the keeper has said that it has logged in it must not be killed (a SoftHSM token does
// not survive that).
static void run_deadline(struct keeper_link *link)
{
    struct timeval time = {.tv_sec = (time_t)patience_s(link)};
    if (STAILQ_EMPTY(&link->waiters) || !link->ready)
        event_del(link->deadline);
    else
        event_add(link->deadline, &time);
}

static void on_deadline(evutil_socket_t fd, short what, void *context)
{
    struct keeper_link *link = context;
    struct error why;
    (void)fd;
    (void)what;
    error_set(&why, ERROR_UNAVAILABLE, "the keeper did not answer within %u s", patience_s(link));
    lose(link, &why);
}

// ---- sending ----

// Sends, or keeps for later what the socket has no room for.
static int send_request(struct keeper_link *link, const struct keeper_request *request,
                        struct error *err)
{
    int sent = STAILQ_EMPTY(&link->unsent) ? channel_send_request(link->fd, request, err) : 1;
    if (sent <= 0)
        return sent;
    struct unsent *unsent = malloc(sizeof(*unsent));
    if (unsent == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "out of memory for a request to the keeper");
    unsent->request = *request;
    STAILQ_INSERT_TAIL(&link->unsent, unsent, link);
    event_add(link->write_event, NULL);
    return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    struct keeper_link *link = context;
    struct error why;
    (void)what;
    while (!STAILQ_EMPTY(&link->unsent)) {
        struct unsent *unsent = STAILQ_FIRST(&link->unsent);
        int sent = channel_send_request(fd, &unsent->request, &why);
        if (sent == 1)
            return;
        if (sent < 0) {
            lose(link, &why);
            return;
        }
        STAILQ_REMOVE_HEAD(&link->unsent, link);
        free(unsent);
    }
    event_del(link->write_event);
}

static void fill_header(struct keeper_request *request, enum keeper_op op, uint64_t id)
{
    request->header = (struct keeper_header){
        .magic = KEEPER_MAGIC, .version = KEEPER_VERSION, .op = op, .id = id};
}

static int ask(struct keeper_link *link, struct keeper_request *request, enum keeper_op op,
               keeper_reply_fn *answer, void *context, struct error *err)
{
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (waiter == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "out of memory for a request to the keeper");
    *waiter = (struct waiter){.op = op, .answer = answer, .context = context};
    clock_gettime(CLOCK_MONOTONIC, &waiter->asked);
    fill_header(request, op, ++link->next_id);
    if (send_request(link, request, err) != 0) {
        free(waiter);
        return -1;
    }
    bool first = STAILQ_EMPTY(&link->waiters);
    STAILQ_INSERT_TAIL(&link->waiters, waiter, link);
    if (first)
        run_deadline(link);
    return 0;
}

static int not_ready(const struct keeper_link *link, struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE, "the keeper is not ready: %s", link->message);
}

int keeper_link_ask(struct keeper_link *link, struct keeper_request *request, enum keeper_op op,
                    keeper_reply_fn *answer, void *context, struct error *err)
{
    return link->ready ? ask(link, request, op, answer, context, err) : not_ready(link, err);
}

int keeper_link_send_entry(struct keeper_link *link, struct keeper_request *request, uint64_t id,
                           struct error *err)
{
    if (!link->ready)
        return not_ready(link, err);
    fill_header(request, KEEPER_ENTRY, id);
    return send_request(link, request, err);
}

// ---- receiving ----

static void tell_answered(const struct keeper_link *link, const struct waiter *waiter, bool ok)
{
    struct timespec now;
    if (link->handlers.answered == NULL)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)(now.tv_sec - waiter->asked.tv_sec) +
                     (double)(now.tv_nsec - waiter->asked.tv_nsec) / 1e9;
    link->handlers.answered(link->handlers.context, waiter->op, seconds, ok);
}

static int deliver(struct keeper_link *link, const struct keeper_reply *reply, struct error *err)
{
    struct waiter *waiter = STAILQ_FIRST(&link->waiters);
    bool entry = reply->header.op == KEEPER_ENTRY;
    if (waiter == NULL ||
        (entry ? waiter->op != KEEPER_COMMIT : waiter->op != (enum keeper_op)reply->header.op))
        return error_set(err, ERROR_INTERNAL,
                         "the keeper answered what nobody asked (operation %u)", reply->header.op);
    keeper_reply_fn *answer = waiter->answer;
    void *context = waiter->context;
    if (!entry) {
        STAILQ_REMOVE_HEAD(&link->waiters, link);
        tell_answered(link, waiter, reply->error.code == ERROR_OK);
        free(waiter);
    }
    run_deadline(link);
    answer(context, reply);
    return 0;
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct keeper_link *link = context;
    struct keeper_reply reply;
    struct error why;
    (void)what;
    // An answer's handler may lose the link: then fd is no longer ours.
    while (link->fd == fd) {
        int received = channel_receive_reply(fd, &reply, &why);
        if (received == 1)
            return;
        if (received < 0 || deliver(link, &reply, &why) != 0) {
            lose(link, &why);
            return;
        }
    }
}

// ---- the keeper's life ----

static void retry_later(struct keeper_link *link)
{
    if (link->held)
        return;
    struct timeval time = {.tv_sec = link->backoff_ms / 1000,
                           .tv_usec = (link->backoff_ms % 1000) * 1000};
    event_add(link->retry, &time);
    link->backoff_ms =
        link->backoff_ms * 2 > BACKOFF_LAST_MS ? BACKOFF_LAST_MS : link->backoff_ms * 2;
}

static void close_channel(struct keeper_link *link)
{
    if (link->read_event != NULL)
        event_free(link->read_event);
    if (link->write_event != NULL)
        event_free(link->write_event);
    link->read_event = link->write_event = NULL;
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    while (!STAILQ_EMPTY(&link->unsent)) {
        struct unsent *unsent = STAILQ_FIRST(&link->unsent);
        STAILQ_REMOVE_HEAD(&link->unsent, link);
        free(unsent);
    }
    event_del(link->deadline);
}

static void fail_waiters(struct keeper_link *link)
{
    while (!STAILQ_EMPTY(&link->waiters)) {
        struct waiter *waiter = STAILQ_FIRST(&link->waiters);
        STAILQ_REMOVE_HEAD(&link->waiters, link);
        tell_answered(link, waiter, false);
        if (waiter->answer != NULL)
            waiter->answer(waiter->context, NULL);
        free(waiter);
    }
}

static void lose(struct keeper_link *link, const struct error *why)
{
    bool was_ready = link->ready;
    link->ready = false;
    if (!link->held) {
        snprintf(link->message, sizeof(link->message), "%s", why->message);
        say(LOG_ERR, "keeper lost: %s; trying again in %u ms", why->message, link->backoff_ms);
    }
    close_channel(link);
    // Closing the channel is what ends a keeper; one that hangs inside its module, after it logged
    // in, needs more.
    if (was_ready && link->child > 0)
        kill(link->child, SIGKILL);
    fail_waiters(link);
    if (was_ready)
        link->handlers.lost(link->handlers.context, why);
    retry_later(link);
}

static void on_first_status(void *context, const struct keeper_reply *reply)
{
    struct keeper_link *link = context;
    if (reply == NULL)
        return;
    if (reply->error.code != ERROR_OK) {
        lose(link, &reply->error);
        return;
    }
    link->ready = true;
    link->message[0] = '\0';
    link->backoff_ms = BACKOFF_FIRST_MS;
    link->handlers.ready(link->handlers.context, &reply->body.status);
}

// In the child, between fork and exec: only what is safe there.
static void run_keeper(char *const argv[], int channel)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        _exit(126);
    if (channel == CHILD_CHANNEL_FD ? fcntl(channel, F_SETFD, 0) != 0
                                    : dup2(channel, CHILD_CHANNEL_FD) < 0)
        _exit(126);
    execv(argv[0], argv);
    _exit(127);
}

static int start_keeper(struct keeper_link *link, struct error *err)
{
    const struct config *config = link->config;
    int pair[2];
    if (link->child > 0)
        return error_set(err, ERROR_UNAVAILABLE, "the last keeper (pid %d) has not ended yet",
                         (int)link->child);
    if (access(config->keeper.program, X_OK) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s: %s", config->keeper.program, strerror(errno));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "socketpair: %s", strerror(errno));
    char host[HOST_MAX + 16], audit_dir[4096 + 16], token[2048], fd[16], rate[48], interval[48],
        operators[4096 + 16];
    snprintf(host, sizeof(host), "--host=%s", config->host);
    snprintf(audit_dir, sizeof(audit_dir), "--audit-dir=%s", config->audit_dir);
    snprintf(token, sizeof(token), "--token=%s", config->keeper.token);
    snprintf(fd, sizeof(fd), "--fd=%d", CHILD_CHANNEL_FD);
    snprintf(rate, sizeof(rate), "--releases-per-second=%u", config->keeper.releases_per_second);
    snprintf(interval, sizeof(interval), "--head-interval=%u", config->keeper.head_interval_ms);
    // The operators' file, where there is one, and the weaker mode, where that is configured.
    char *argv[10] = {config->keeper.program, host, audit_dir, token, fd, rate, interval, NULL};
    int last = 7;
    if (config->operators_file != NULL) {
        snprintf(operators, sizeof(operators), "--operators=%s", config->operators_file);
        argv[last++] = operators;
    }
    if (config->approvals_by_uid)
        argv[last++] = (char *)"--approve-by-uid";
    pid_t pid = fork();
    if (pid == 0)
        run_keeper(argv, pair[1]);
    int error = errno;
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return error_set(err, ERROR_UNAVAILABLE, "fork: %s", strerror(error));
    }
    link->child = pid;
    link->fd = pair[0];
    return 0;
}

static int connect_keeper(struct keeper_link *link, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = link->config->keeper.socket;
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s: too long for a socket's path", path);
    strcpy(address.sun_path, path);
    link->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (link->fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "socket: %s", strerror(errno));
    if (connect(link->fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
}

static int open_channel(struct keeper_link *link, struct error *err)
{
    struct keeper_request request;
    int opened =
        link->config->keeper.socket != NULL ? connect_keeper(link, err) : start_keeper(link, err);
    if (opened != 0)
        return -1;
    // Room for a whole batch, so that it seldom has to wait for the socket.
    int room = 1 << 20;
    setsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    link->read_event = event_new(link->base, link->fd, EV_READ | EV_PERSIST, on_readable, link);
    link->write_event = event_new(link->base, link->fd, EV_WRITE | EV_PERSIST, on_writable, link);
    if (evutil_make_socket_nonblocking(link->fd) != 0 || link->read_event == NULL ||
        link->write_event == NULL || event_add(link->read_event, NULL) != 0)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the keeper's channel");
    snprintf(link->message, sizeof(link->message), "it is logging in to the token");
    memset(&request, 0, sizeof(request));
    return ask(link, &request, KEEPER_STATUS, on_first_status, link, err);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct keeper_link *link = context;
    struct error why;
    (void)fd;
    (void)what;
    if (open_channel(link, &why) != 0)
        lose(link, &why);
}

// What the keeper's exit status means, where its own message has told more.
static const char *explain_status(int status)
{
    switch (status) {
    case 3:
        return "it finds no module or no token: see its message in the daemon's log";
    case NO_LOGIN_STATUS:
        return "the PIN is refused or cannot be read: see the keeper's message in the daemon's "
               "log, "
               "mend that, then send custodyd SIGHUP (it does not try again by itself, since "
               "tokens lock)";
    case 5:
        return "the token went away";
    default:
        return NULL;
    }
}

// The channel may close before or after this: either way the reason stands in `message`.
static void note_status(struct keeper_link *link, int status)
{
    const char *why = WIFEXITED(status) ? explain_status(WEXITSTATUS(status)) : NULL;
    if (why == NULL || link->ready)
        return;
    snprintf(link->message, sizeof(link->message), "%s", why);
    if (WEXITSTATUS(status) == NO_LOGIN_STATUS) {
        link->held = true;
        event_del(link->retry);
        say(LOG_ERR, "keeper: %s", why);
    }
}

void keeper_link_resume(struct keeper_link *link)
{
    if (!link->held)
        return;
    link->held = false;
    link->backoff_ms = BACKOFF_FIRST_MS;
    retry_later(link);
}

bool keeper_link_reaped(struct keeper_link *link, pid_t pid, int status)
{
    if (link->child != pid)
        return false;
    link->child = 0;
    note_status(link, status);
    if (WIFSIGNALED(status))
        say(LOG_ERR, "keeper (pid %d) was ended by signal %d", (int)pid, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0)
        say(LOG_ERR, "keeper (pid %d) exited with status %d", (int)pid, WEXITSTATUS(status));
    return true;
}

struct keeper_link *keeper_link_new(struct event_base *base, const struct config *config,
                                    const struct keeper_link_handlers *handlers, struct error *err)
{
    struct keeper_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        goto fail;
    link->base = base;
    link->config = config;
    link->handlers = *handlers;
    link->fd = -1;
    link->backoff_ms = BACKOFF_FIRST_MS;
    snprintf(link->message, sizeof(link->message), "it was not started yet");
    STAILQ_INIT(&link->waiters);
    STAILQ_INIT(&link->unsent);
    link->deadline = evtimer_new(base, on_deadline, link);
    link->retry = evtimer_new(base, on_retry, link);
    if (link->deadline != NULL && link->retry != NULL)
        return link;
fail:
    keeper_link_free(link);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the keeper's channel");
    return NULL;
}

void keeper_link_start(struct keeper_link *link)
{
    on_retry(-1, 0, link);
}

void keeper_link_free(struct keeper_link *link)
{
    if (link == NULL)
        return;
    if (link->deadline != NULL)
        close_channel(link);
    while (!STAILQ_EMPTY(&link->waiters)) {
        struct waiter *waiter = STAILQ_FIRST(&link->waiters);
        STAILQ_REMOVE_HEAD(&link->waiters, link);
        free(waiter);
    }
    if (link->deadline != NULL)
        event_free(link->deadline);
    if (link->retry != NULL)
        event_free(link->retry);
    free(link);
}

bool keeper_link_ready(const struct keeper_link *link)
{
    return link->ready;
}

const char *keeper_link_message(const struct keeper_link *link)
{
    return link->message;
}
