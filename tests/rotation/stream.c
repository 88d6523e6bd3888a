// SPDX-License-Identifier: Apache-2.0
// A TCP stream one way, steady or as fast as it goes: what TCP itself says it sent again, and how
// long the receiver waited for more.
#include "flow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "account.h"

#define MS          INT64_C(1000000)
#define WINDOWS_MAX ACCOUNT_WINDOWS_MAX
#define CHUNK       16384 // bytes at once

// What happened in one window of time.
struct window {
    uint64_t bytes;
    uint32_t retransmits; // the sender's
    int64_t longest_gap;  // ns between two readings, the receiver's
};

struct flow {
    int listener, fd; // the listener is the receiver's until its one connection has come
    bool sender;
    struct flow_options options;
    int64_t due, deadline, last;
    bool stopping, ended;    // ended: the other side has sent its end of stream
    uint64_t total, skipped; // skipped: sends for which there was no room
    uint32_t retransmits;    // until the window began
    uint32_t window;
    struct window windows[WINDOWS_MAX];
};

static void stream_close(struct flow *flow)
{
    if (flow == NULL)
        return;
    if (flow->fd >= 0)
        close(flow->fd);
    if (flow->listener >= 0)
        close(flow->listener);
    free(flow);
}

static struct flow *fail(struct flow *flow, const char *what)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    stream_close(flow);
    return NULL;
}

static bool parse(const char *text, uint16_t port, struct sockaddr_in *address)
{
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    errno = EINVAL;
    return inet_pton(AF_INET, text, &address->sin_addr) == 1;
}

static struct flow *make(const struct flow_options *options, bool sender)
{
    struct flow *flow = calloc(1, sizeof(*flow));

    if (flow == NULL)
        return fail(NULL, "memory");
    flow->options = *options;
    flow->sender = sender;
    flow->due = NEVER;
    flow->fd = flow->listener = -1;
    return flow;
}

static struct flow *receiver_open(const struct flow_options *options)
{
    struct flow *flow = make(options, false);
    struct sockaddr_in local;
    int yes = 1;

    if (flow == NULL)
        return NULL;
    flow->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (flow->listener < 0 || !parse(options->local, options->port, &local) ||
        setsockopt(flow->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) != 0 ||
        bind(flow->listener, (struct sockaddr *)&local, sizeof(local)) != 0 ||
        listen(flow->listener, 1) != 0)
        return fail(flow, "listen");
    return flow;
}

// Connects, waiting for it: the receiver must listen already.
static struct flow *sender_open(const struct flow_options *options)
{
    struct flow *flow = make(options, true);
    struct sockaddr_in local, peer;

    if (flow == NULL)
        return NULL;
    flow->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (flow->fd < 0 || !parse(options->local, 0, &local) ||
        !parse(options->peer, options->port, &peer) ||
        bind(flow->fd, (struct sockaddr *)&local, sizeof(local)) != 0 ||
        connect(flow->fd, (struct sockaddr *)&peer, sizeof(peer)) != 0)
        return fail(flow, "connect");
    return flow;
}

static int stream_fd(const struct flow *flow)
{
    return flow->fd >= 0 ? flow->fd : flow->listener;
}

// The sender looks for the receiver's end of stream only once it waits for it: a peer that is
// gone earlier shows in its sends.
static short stream_events(const struct flow *flow)
{
    if (!flow->sender)
        return flow->ended ? 0 : POLLIN;
    if (flow->stopping)
        return flow->ended ? 0 : POLLIN;
    return flow->options.interval == 0 && flow->due != NEVER ? POLLOUT : 0;
}

static int64_t stream_due(const struct flow *flow)
{
    return flow->options.interval == 0 ? NEVER : flow->due;
}

static uint32_t retransmits(const struct flow *flow)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof(info);

    if (flow->fd < 0 || getsockopt(flow->fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return 0;
    return info.tcpi_total_retrans;
}

static bool send_some(struct flow *flow, size_t count)
{
    static const unsigned char zeros[CHUNK];
    ssize_t n = send(flow->fd, zeros, count, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        fprintf(stderr, "probe: stream: send: %s\n", strerror(errno));
        return false;
    }
    if (n <= 0) {
        flow->skipped++;
        return true;
    }
    flow->total += (uint64_t)n;
    flow->windows[flow->window].bytes += (uint64_t)n;
    return true;
}

static bool sender_tick(struct flow *flow, int64_t now)
{
    flow->due += flow->options.interval;
    if (flow->due < now)
        flow->due = now; // a stream has no schedule to keep
    return send_some(flow, flow->options.size);
}

static void arrived(struct flow *flow, size_t count, int64_t now)
{
    struct window *window = &flow->windows[flow->window];

    if (flow->last != 0 && now - flow->last > window->longest_gap)
        window->longest_gap = now - flow->last;
    flow->last = now;
    flow->total += count;
    window->bytes += count;
}

static bool receiver_tick(struct flow *flow, int64_t now)
{
    return true;
}

// The one connection has come: no other is taken.
static bool accept_one(struct flow *flow)
{
    flow->fd = accept4(flow->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (flow->fd < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
    close(flow->listener);
    flow->listener = -1;
    return true;
}

static bool read_some(struct flow *flow, int64_t now)
{
    static unsigned char bytes[CHUNK];
    ssize_t n = recv(flow->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return true;
    if (n < 0) {
        fprintf(stderr, "probe: stream: receive: %s\n", strerror(errno));
        return false;
    }
    if (n > 0) {
        arrived(flow, (size_t)n, now);
        return true;
    }
    flow->ended = true;
    if (!flow->sender)
        shutdown(flow->fd, SHUT_WR); // tells the sender that all has arrived
    return true;
}

static bool stream_ready(struct flow *flow, int64_t now)
{
    if (flow->fd < 0)
        return accept_one(flow);
    if (flow->sender && !flow->stopping)
        return send_some(flow, CHUNK);
    return read_some(flow, now);
}

static void stream_start(struct flow *flow, int64_t now)
{
    flow->due = flow->sender ? now : NEVER;
}

static void end_window(struct flow *flow)
{
    uint32_t now = retransmits(flow);

    flow->windows[flow->window].retransmits = now - flow->retransmits;
    flow->retransmits = now;
}

static bool stream_mark(struct flow *flow)
{
    if (flow->window + 1 >= WINDOWS_MAX)
        return false;
    end_window(flow);
    flow->window++;
    return true;
}

static void stream_stop(struct flow *flow, int64_t now)
{
    flow->stopping = true;
    flow->due = NEVER;
    flow->deadline = now + flow->options.patience;
    if (flow->sender)
        shutdown(flow->fd, SHUT_WR);
}

static bool stream_finished(const struct flow *flow, int64_t now)
{
    return flow->stopping && (flow->ended || now > flow->deadline);
}

static void stream_report(const struct flow *flow, char *const *names, uint32_t windows, FILE *to)
{
    uint32_t all = retransmits(flow);

    fprintf(to, "\"mode\":\"tcp\",\"role\":\"%s\",\"drained\":%s,\"bytes\":%ju",
            flow->sender ? "sender" : "receiver", flow->ended ? "true" : "false",
            (uintmax_t)flow->total);
    if (flow->sender)
        fprintf(to, ",\"retransmits\":%u,\"skipped\":%ju", all, (uintmax_t)flow->skipped);
    fputs(",\"windows\":[", to);
    for (uint32_t i = 0; i < windows; i++) {
        const struct window *window = &flow->windows[i];
        uint32_t again = i == flow->window ? all - flow->retransmits : window->retransmits;
        fprintf(to, "%s{\"name\":\"%s\",\"bytes\":%ju,", i == 0 ? "" : ",", names[i],
                (uintmax_t)window->bytes);
        if (flow->sender)
            fprintf(to, "\"retransmits\":%u}", again);
        else
            fprintf(to, "\"gap_ms\":%.1f}", (double)window->longest_gap / MS);
    }
    fputs("]", to);
}

const struct flow_kind stream_sender_kind = {
    .open = sender_open,
    .close = stream_close,
    .fd = stream_fd,
    .events = stream_events,
    .due = stream_due,
    .tick = sender_tick,
    .ready = stream_ready,
    .start = stream_start,
    .mark = stream_mark,
    .stop = stream_stop,
    .finished = stream_finished,
    .report = stream_report,
};

const struct flow_kind stream_receiver_kind = {
    .open = receiver_open,
    .close = stream_close,
    .fd = stream_fd,
    .events = stream_events,
    .due = stream_due,
    .tick = receiver_tick,
    .ready = stream_ready,
    .start = stream_start,
    .mark = stream_mark,
    .stop = stream_stop,
    .finished = stream_finished,
    .report = stream_report,
};
