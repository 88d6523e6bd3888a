// SPDX-License-Identifier: Apache-2.0
// Numbered datagrams both ways at a steady rate. At the end each side tells the other how many it
// sent and goes on until that has been acknowledged, so that nothing in flight counts as lost.
#include "flow.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "account.h"

#define MAGIC       0x63707262
#define MS          INT64_C(1000000)
#define LATE        (5 * MS)   // a packet sent so much after its time counts as behind
#define SLIP        (100 * MS) // so late, the schedule moves on rather than bursting
#define AGAIN       (20 * MS)  // between two END
#define QUIET       (500 * MS) // without a new packet after END: the rest is lost
#define BUFFER      (8 << 20) // bytes of each socket buffer: held packets count against the sender's
#define BATCH       64        // packets taken before it looks at the clock again
#define WINDOWS_MAX ACCOUNT_WINDOWS_MAX

enum kind { KIND_DATA = 1, KIND_END, KIND_DONE };

// On the wire; all big endian. The rest of a packet is zeros.
struct packet {
    uint32_t magic, kind;
    uint64_t run;
    uint64_t number; // DATA: of this packet, from 0; END: how many were sent
    uint64_t sent;   // DATA: when
    uint32_t window;
    uint32_t zero;
};
_Static_assert(sizeof(struct packet) <= SEND_MIN, "a packet fits the smallest size");

struct flow {
    int fd;
    struct flow_options options;
    struct account *account;
    int64_t due;
    bool stopping, acknowledged; // acknowledged: the peer knows how many we sent
    int64_t deadline;
    uint64_t sent[WINDOWS_MAX];
    uint32_t window;
    uint64_t total, refused, behind, foreign;
    int last_refusal;
    int64_t behind_most;
    bool ended; // the peer has said how many it sent
    uint64_t peer_sent;
    int64_t ended_at;
    bool inexact; // the account could not take something down
};

static void *complain(const char *what)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    return NULL;
}

static bool bind_and_connect(int fd, const struct flow_options *options)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    struct sockaddr_in peer = local;
    int bytes = BUFFER;

    if (inet_pton(AF_INET, options->local, &local.sin_addr) != 1 ||
        inet_pton(AF_INET, options->peer, &peer.sin_addr) != 1) {
        errno = EINVAL;
        return false;
    }
    return setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0 &&
           bind(fd, (struct sockaddr *)&local, sizeof(local)) == 0 &&
           connect(fd, (struct sockaddr *)&peer, sizeof(peer)) == 0;
}

static void datagrams_close(struct flow *flow)
{
    if (flow == NULL)
        return;
    if (flow->fd >= 0)
        close(flow->fd);
    account_free(flow->account);
    free(flow);
}

static struct flow *datagrams_open(const struct flow_options *options)
{
    struct flow *flow = calloc(1, sizeof(*flow));

    if (flow == NULL)
        return complain("memory");
    flow->options = *options;
    flow->due = NEVER;
    flow->account = account_new();
    flow->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (flow->account == NULL || flow->fd < 0 || !bind_and_connect(flow->fd, options)) {
        complain("socket");
        datagrams_close(flow);
        return NULL;
    }
    return flow;
}

static int datagrams_fd(const struct flow *flow)
{
    return flow->fd;
}

static short datagrams_events(const struct flow *flow)
{
    return POLLIN;
}

static int64_t datagrams_due(const struct flow *flow)
{
    return flow->due;
}

// False when the socket refused it, errno saying why.
static bool send_packet(struct flow *flow, enum kind kind, uint64_t number, int64_t now)
{
    unsigned char bytes[SEND_MAX] = {0};
    struct packet packet = {
        .magic = htobe32(MAGIC),
        .kind = htobe32(kind),
        .run = htobe64(flow->options.run),
        .number = htobe64(number),
        .sent = htobe64((uint64_t)now),
        .window = htobe32(flow->window),
    };
    ssize_t n;

    memcpy(bytes, &packet, sizeof(packet));
    do {
        n = send(flow->fd, bytes, flow->options.size, MSG_NOSIGNAL);
        // A connected socket first hands out what ICMP said of an earlier packet: this one is
        // unsent.
    } while (n < 0 && (errno == EINTR || errno == ECONNREFUSED));
    return n >= 0;
}

// What the socket refuses is lost to whoever sends it: it is counted as sent.
static void send_data(struct flow *flow, int64_t now)
{
    if (now - flow->due > LATE)
        flow->behind++;
    if (now - flow->due > flow->behind_most)
        flow->behind_most = now - flow->due;
    if (!send_packet(flow, KIND_DATA, flow->total, now)) {
        flow->refused++;
        flow->last_refusal = errno;
    }
    flow->total++;
    flow->sent[flow->window]++;
}

static bool datagrams_tick(struct flow *flow, int64_t now)
{
    if (flow->stopping) {
        send_packet(flow, KIND_END, flow->total, now);
        flow->due = flow->acknowledged ? NEVER : now + AGAIN;
        return true;
    }
    send_data(flow, now);
    flow->due += flow->options.interval;
    if (now - flow->due > SLIP)
        flow->due = now;
    return true;
}

static void take(struct flow *flow, const struct packet *packet, int64_t now)
{
    uint64_t number = be64toh(packet->number);

    switch (be32toh(packet->kind)) {
    case KIND_DATA:
        if (!account_take(flow->account, number, be32toh(packet->window),
                          (int64_t)be64toh(packet->sent), now))
            flow->inexact = true;
        break;
    case KIND_END:
        if (!flow->ended) {
            flow->ended_at = now;
            account_end(flow->account, be32toh(packet->window), now);
        }
        flow->ended = true;
        flow->peer_sent = number;
        send_packet(flow, KIND_DONE, 0, now);
        break;
    case KIND_DONE:
        flow->acknowledged = true;
        flow->due = flow->stopping ? NEVER : flow->due;
        break;
    default:
        flow->foreign++;
    }
}

static bool datagrams_ready(struct flow *flow, int64_t now)
{
    unsigned char bytes[SEND_MAX];
    struct packet packet;

    for (int i = 0; i < BATCH; i++) {
        ssize_t n = recv(flow->fd, bytes, sizeof(bytes), 0);
        if (n < 0)
            break; // none is left, or what ICMP said of a packet we sent; poll comes again
        memcpy(&packet, bytes, sizeof(packet));
        if ((size_t)n < sizeof(packet) || be32toh(packet.magic) != MAGIC ||
            be64toh(packet.run) != flow->options.run)
            flow->foreign++;
        else
            take(flow, &packet, now);
    }
    return true;
}

static void datagrams_start(struct flow *flow, int64_t now)
{
    flow->due = now;
}

static bool datagrams_mark(struct flow *flow)
{
    if (flow->window + 1 >= WINDOWS_MAX)
        return false;
    flow->window++;
    return true;
}

static void datagrams_stop(struct flow *flow, int64_t now)
{
    flow->stopping = true;
    flow->due = now;
    flow->deadline = now + flow->options.patience;
}

static bool all_arrived(const struct flow *flow, int64_t now)
{
    int64_t last = account_last(flow->account);

    if (!flow->ended || !flow->acknowledged)
        return false;
    if (account_received(flow->account) >= flow->peer_sent)
        return true;
    return now - (last > flow->ended_at ? last : flow->ended_at) > QUIET;
}

static bool datagrams_finished(const struct flow *flow, int64_t now)
{
    return flow->stopping && (now > flow->deadline || all_arrived(flow, now));
}

// Packets that this end's kernel dropped for want of room in the socket: the probe's own fault.
static uint32_t overflowed(const struct flow *flow)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof(info);

    if (getsockopt(flow->fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0)
        return 0;
    return info[SK_MEMINFO_DROPS];
}

static void datagrams_report(const struct flow *flow, char *const *names, uint32_t windows,
                             FILE *to)
{
    const struct account *account = flow->account;

    fprintf(to, "\"mode\":\"udp\",\"drained\":%s,\"exact\":%s,\"sent\":%ju,\"refused\":%ju",
            flow->ended && flow->acknowledged ? "true" : "false",
            flow->inexact || overflowed(flow) ? "false" : "true", (uintmax_t)flow->total,
            (uintmax_t)flow->refused);
    if (flow->refused > 0)
        fprintf(to, ",\"last_refusal\":\"%s\"", strerror(flow->last_refusal));
    fprintf(to, ",\"behind\":%ju,\"behind_ms\":%.1f,\"received\":%ju", (uintmax_t)flow->behind,
            (double)flow->behind_most / MS, (uintmax_t)account_received(account));
    if (flow->ended)
        fprintf(to, ",\"peer_sent\":%ju,\"lost\":%jd", (uintmax_t)flow->peer_sent,
                (intmax_t)(flow->peer_sent - account_received(account)));
    fprintf(to, ",\"duplicated\":%ju,\"reordered\":%ju,\"foreign\":%ju,\"overflowed\":%u",
            (uintmax_t)account_duplicated(account), (uintmax_t)account_reordered(account),
            (uintmax_t)flow->foreign, overflowed(flow));
    fputs(",\"windows\":[", to);
    for (uint32_t i = 0; i < windows; i++) {
        struct account_window window = account_window(account, i);
        fprintf(to, "%s{\"name\":\"%s\",\"sent\":%ju,\"received\":%ju,", i == 0 ? "" : ",",
                names[i], (uintmax_t)flow->sent[i], (uintmax_t)window.received);
        fprintf(to, "\"gap_ms\":%.1f,\"delay_ms\":%.1f}", (double)window.longest_gap / MS,
                (double)window.longest_delay / MS);
    }
    fputs("]", to);
}

const struct flow_kind datagrams_kind = {
    .open = datagrams_open,
    .close = datagrams_close,
    .fd = datagrams_fd,
    .events = datagrams_events,
    .due = datagrams_due,
    .tick = datagrams_tick,
    .ready = datagrams_ready,
    .start = datagrams_start,
    .mark = datagrams_mark,
    .stop = datagrams_stop,
    .finished = datagrams_finished,
    .report = datagrams_report,
};
