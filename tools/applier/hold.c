// SPDX-License-Identifier: Apache-2.0
// Holds packets in a plug or tbf qdisc.
//
// A tbf holds by a rate of 1 byte a second and an overhead that makes each packet cost hours: it
// begins with tokens for one packet, so one of ours is sent, and one more, which must be seen to
// wait. Back at full rate it does not look at its queue until it is given another packet.
#include "hold.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <linux/pkt_sched.h>

#include "device.h"
#include "link_counts.h"
#include "netlink_talk.h"
#include "qdisc.h"

#define TBF_FREE_RATE   100000000000u       // bytes a second: 800 Gbit/s
#define TBF_FREE_BURST  (16u * 1024 * 1024) // bytes
#define TBF_HELD_RATE   1u                  // bytes a second
#define TBF_OVERHEAD    60000u              // bytes a packet, while held: at that rate, 16 hours
#define TBF_BURST_MIN   1600u               // bytes; or the MTU and a link layer's header
#define TBF_LINK_HEADER 128u
#define TBF_DUMMIES_MAX 4 // to burn the burst with; two do

// Letting go: each packet costs its own bytes and as many more, so that many small ones are held
// back, too: 7,500 large ones a second, 13,600 small ones. wireguard-go was seen to take 300 at
// once, and fewer on a busy machine.
#define TBF_PACED_RATE     21750000u // bytes a second
#define TBF_PACED_OVERHEAD 1500u     // bytes a packet
#define TBF_PACED_BURST    96000u    // bytes: 33 large packets, 60 small ones
#define PACED_LEAST        64        // packets: fewer need no pace
#define PACED_MS           250       // then all at once
#define RING_LEAST         2048      // packets: more than a cutover lets wait

// Draining.
#define LOOKS   6 // before holding, for what is under way at the least
#define LOOK_MS 1
#define LEFT_MS 5 // from WireGuard's taking the last packet until it has sent it

// Where our own packets go: of the local network control block, which is never forwarded, the
// address set apart for experiments (RFC 4727). Port: discard.
#define DUMMY_ADDRESS "224.0.0.254"
#define DUMMY_PORT    9

struct hold {
    char interface[DEVICE_NAME_MAX + 1];
    uint32_t ifindex;
    enum hold_kind kind; // plug or tbf once open
    uint32_t limit;
    bool attached_now, held;
    bool is_counted;   // it is a TUN: what its daemon has not read yet can be told,
    uint32_t underway; // as packets passed - packets read, at the least that was seen
    struct netlink_talk *talk;
    int dummies; // the UDP socket they are sent by; -1 for plug
};

static const char *const kinds[] = {[HOLD_AUTO] = "auto", [HOLD_PLUG] = "plug", [HOLD_TBF] = "tbf"};

int hold_kind_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i], name) == 0)
            return (int)i;
    return -1;
}

const char *hold_kind_name(enum hold_kind kind)
{
    return kinds[kind];
}

enum hold_kind hold_kind(const struct hold *hold)
{
    return hold->kind;
}

bool hold_attached_now(const struct hold *hold)
{
    return hold->attached_now;
}

// ---- asking the kernel ----

static enum error_code code_of(int error)
{
    switch (error) {
    case ENODEV:
        return ERROR_NOT_FOUND;
    case EPERM:
    case EACCES:
        return ERROR_PERMISSION_DENIED;
    case EEXIST:
    case ENOENT:
        return ERROR_FAILED_PRECONDITION;
    default:
        return ERROR_UNKNOWN;
    }
}

// What an answer amounts to; `doing` says what was asked.
static int conclude(const struct hold *hold, const struct netlink_answer *answer, const char *doing,
                    struct error *err)
{
    if (answer->interrupted)
        return error_set(err, ERROR_ABORTED, "interface '%s': %s: the kernel's answer was lost",
                         hold->interface, doing);
    if (answer->error == 0)
        return 0;
    enum error_code code = code_of(answer->error);
    return error_set(err, code, "interface '%s': %s%s: %s%s%s", hold->interface, doing,
                     code == ERROR_PERMISSION_DENIED ? " needs CAP_NET_ADMIN" : "",
                     strerror(answer->error), answer->text[0] == '\0' ? "" : ": ", answer->text);
}

// Reads the root qdisc. One that the kernel does not show is a default of its own.
static int read_root(struct hold *hold, struct qdisc_state *state, struct error *err)
{
    struct netlink_answer answer;
    *state = (struct qdisc_state){.ifindex = hold->ifindex};
    if (netlink_talk_ask(hold->talk,
                         qdisc_ask_root(netlink_talk_request(hold->talk),
                                        netlink_talk_seq(hold->talk), hold->ifindex),
                         qdisc_read_root, state, &answer, err) != 0)
        return -1;
    if (answer.error == ENOENT || answer.error == EINVAL)
        answer.error = 0;
    return conclude(hold, &answer, "reading its root qdisc", err);
}

static int mtu_of(const struct hold *hold)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, hold->interface, sizeof hold->interface);
    return ioctl(hold->dummies, SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : 0;
}

enum pace { PACE_FREE, PACE_PACED, PACE_HELD };

static struct nlmsghdr *build_tbf(struct hold *hold, bool attach, enum pace pace)
{
    struct qdisc_tbf tbf = {
        .rate = TBF_FREE_RATE, .burst = TBF_FREE_BURST, .limit = hold->limit, .overhead = 0};
    uint32_t largest = (uint32_t)mtu_of(hold) + TBF_LINK_HEADER;
    if (pace == PACE_HELD) {
        tbf.rate = TBF_HELD_RATE;
        tbf.overhead = TBF_OVERHEAD;
        tbf.burst = largest > TBF_BURST_MIN ? largest : TBF_BURST_MIN;
    } else if (pace == PACE_PACED) {
        tbf.rate = TBF_PACED_RATE;
        tbf.overhead = TBF_PACED_OVERHEAD;
        tbf.burst = largest > TBF_PACED_BURST ? largest : TBF_PACED_BURST;
    }
    return qdisc_set_tbf(netlink_talk_request(hold->talk), netlink_talk_seq(hold->talk),
                         hold->ifindex, attach, &tbf);
}

static struct nlmsghdr *build_plug(struct hold *hold, bool attach, int action)
{
    return qdisc_set_plug(netlink_talk_request(hold->talk), netlink_talk_seq(hold->talk),
                          hold->ifindex, attach, action, hold->limit);
}

// Sends a request for a qdisc, which was just built.
static int send_qdisc(struct hold *hold, const struct nlmsghdr *message, const char *doing,
                      struct error *err)
{
    struct netlink_answer answer;
    if (netlink_talk_ask(hold->talk, message, NULL, NULL, &answer, err) != 0)
        return -1;
    return conclude(hold, &answer, doing, err);
}

// ---- packets of our own ----

static int open_dummies(struct hold *hold, struct error *err)
{
    const struct ip_mreqn out = {.imr_ifindex = (int)hold->ifindex};
    const int off = 0, nearest = 1;
    hold->dummies = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (hold->dummies < 0 ||
        setsockopt(hold->dummies, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof out) != 0 ||
        setsockopt(hold->dummies, IPPROTO_IP, IP_MULTICAST_LOOP, &off, sizeof off) != 0 ||
        setsockopt(hold->dummies, IPPROTO_IP, IP_MULTICAST_TTL, &nearest, sizeof nearest) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "interface '%s': a UDP socket for tbf: %s",
                         hold->interface, strerror(errno));
    return 0;
}

static int send_dummy(const struct hold *hold, struct error *err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DUMMY_PORT)};
    inet_pton(AF_INET, DUMMY_ADDRESS, &to.sin_addr);
    ssize_t n;
    do
        n = sendto(hold->dummies, "", 0, MSG_NOSIGNAL, (const struct sockaddr *)&to, sizeof to);
    while (n < 0 && errno == EINTR);
    // ENOBUFS: the queue is full, so there is something in it.
    if (n >= 0 || errno == ENOBUFS)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "interface '%s': tbf needs a packet sent to " DUMMY_ADDRESS
                     " (is it up? does a firewall forbid it?): %s",
                     hold->interface, strerror(errno));
}

// ---- each kind ----

static int begin_plug(struct hold *hold, struct error *err)
{
    return send_qdisc(hold, build_plug(hold, false, TCQ_PLUG_BUFFER), "holding its packets", err);
}

static int end_plug(struct hold *hold, struct error *err)
{
    return send_qdisc(hold, build_plug(hold, false, TCQ_PLUG_RELEASE_INDEFINITE),
                      "releasing its packets", err);
}

static void sleep_ms(int ms)
{
    (void)poll(NULL, 0, ms); // too short a wait is as good
}

// Lets go as fast as all arrives, until nothing waits. What fails here, or takes too long, is for
// the free rate after it.
static void pace_tbf(struct hold *hold)
{
    struct qdisc_state state;
    int64_t deadline = device_now_ms() + PACED_MS;
    if (read_root(hold, &state, NULL) != 0 || state.packets < PACED_LEAST ||
        send_qdisc(hold, build_tbf(hold, false, PACE_PACED), "releasing its packets", NULL) != 0 ||
        send_dummy(hold, NULL) != 0)
        return;
    while (read_root(hold, &state, NULL) == 0 && state.packets > 0 && device_now_ms() < deadline)
        sleep_ms(LOOK_MS);
}

// Turns the rate up, and wakes what still waits.
static int end_tbf(struct hold *hold, struct error *err)
{
    struct qdisc_state state;
    struct error unsent;
    pace_tbf(hold);
    if (send_qdisc(hold, build_tbf(hold, false, PACE_FREE), "releasing its packets", err) != 0 ||
        read_root(hold, &state, err) != 0)
        return -1;
    if (state.packets == 0 || send_dummy(hold, &unsent) == 0)
        return 0;
    // Where none can be sent, another's packet may have woken it, or an interface gone down have
    // emptied it.
    if (read_root(hold, &state, err) != 0)
        return -1;
    if (state.packets == 0)
        return 0;
    return error_set(err, unsent.code, "%s; %u packets wait until the next one is sent",
                     unsent.message, state.packets);
}

static int burn_burst(struct hold *hold, struct error *err)
{
    struct qdisc_state state;
    for (int sent = 0; sent < TBF_DUMMIES_MAX; sent += 2) {
        if (send_dummy(hold, err) != 0 || send_dummy(hold, err) != 0 ||
            read_root(hold, &state, err) != 0)
            return -1;
        if (state.packets > 0)
            return 0;
    }
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "interface '%s': tbf does not hold packets back (is the interface up?)",
                     hold->interface);
}

static int begin_tbf(struct hold *hold, struct error *err)
{
    struct error ignored;
    if (send_qdisc(hold, build_tbf(hold, false, PACE_HELD), "holding its packets", err) != 0)
        return -1;
    if (burn_burst(hold, err) == 0)
        return 0;
    (void)end_tbf(hold, &ignored);
    return -1;
}

// ---- draining ----

struct underway {
    bool is_tun;   // else it cannot be told
    bool is_exact; // none passed while it was looked at
    uint32_t
        packets; // passed and not taken, beside what the kernel took before the qdisc was there
};

static int look_underway(struct hold *hold, struct underway *underway, struct error *err)
{
    struct netlink_answer answer;
    struct qdisc_state before, after;
    struct link_counts counts = {.ifindex = hold->ifindex};
    if (read_root(hold, &before, err) != 0 ||
        netlink_talk_ask(hold->talk,
                         link_counts_ask(netlink_talk_request(hold->talk),
                                         netlink_talk_seq(hold->talk), hold->ifindex),
                         link_counts_read, &counts, &answer, err) != 0 ||
        conclude(hold, &answer, "reading its counts", err) != 0 ||
        read_root(hold, &after, err) != 0)
        return -1;
    underway->is_tun = counts.seen && counts.is_tun && after.seen;
    underway->is_exact = before.passed == after.passed;
    underway->packets = after.passed - (uint32_t)counts.taken;
    return 0;
}

// Both counters begin anywhere, and wrap.
static bool is_less(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

// What is let go passes through the TUN's ring, txqueuelen packets, 500 by default. All that may
// wait finds room there, also when the daemon has no processor just then; where that cannot be had,
// a release may lose some, as before.
static void widen_ring(const struct hold *hold)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    memcpy(request.ifr_name, hold->interface, sizeof hold->interface);
    if (ioctl(fd, SIOCGIFTXQLEN, &request) == 0 && request.ifr_qlen < RING_LEAST) {
        request.ifr_qlen = RING_LEAST;
        (void)ioctl(fd, SIOCSIFTXQLEN, &request);
    }
    close(fd);
}

// Only of a TUN it can be told. The least that was under way since the qdisc was opened, in a few
// looks each time, is taken for nothing: a daemon that keeps up empties its queue now and then.
void hold_prepare(struct hold *hold)
{
    struct underway now;
    for (int look = 0; look < LOOKS && !hold->held; look++) {
        if (look_underway(hold, &now, NULL) != 0 || !now.is_tun)
            return;
        if (now.is_exact && (!hold->is_counted || is_less(now.packets, hold->underway))) {
            hold->underway = now.packets;
            hold->is_counted = true;
        }
        sleep_ms(LOOK_MS);
    }
    widen_ring(hold);
}

// Waits until no more is under way than there was at the least.
static int await_taken(struct hold *hold, int64_t deadline, struct error *err)
{
    struct underway now;
    for (;;) {
        if (look_underway(hold, &now, err) != 0)
            return -1;
        if (!is_less(hold->underway, now.packets))
            return 0;
        if (device_now_ms() >= deadline)
            break;
        sleep_ms(LOOK_MS);
    }
    error_set(err, ERROR_DEADLINE_EXCEEDED,
              "interface '%s': %u packets are not taken yet by its daemon", hold->interface,
              now.packets - hold->underway);
    // Where the two count differently (segments that the daemon reads as one), begin anew.
    hold->underway = now.packets;
    return -1;
}

int hold_drain(struct hold *hold, int timeout_ms, struct error *err)
{
    if (!hold->held)
        return 0;
    int rc = hold->is_counted ? await_taken(hold, device_now_ms() + timeout_ms, err) : 0;
    sleep_ms(LEFT_MS);
    return rc;
}

// ---- attaching ----

static bool is_ours(const struct qdisc_state *state)
{
    return state->seen && state->handle == QDISC_HANDLE &&
           (strcmp(state->kind, kinds[HOLD_PLUG]) == 0 ||
            strcmp(state->kind, kinds[HOLD_TBF]) == 0);
}

// Makes the qdisc of `kind` the root. Returns 0, or -1 with ERROR_FAILED_PRECONDITION where the
// kernel has not that kind, or one was attached meanwhile.
static int attach(struct hold *hold, enum hold_kind kind, struct error *err)
{
    char doing[64];
    struct qdisc_state state;
    struct error why;
    snprintf(doing, sizeof doing, "attaching a %s qdisc (kernel module sch_%s)", kinds[kind],
             kinds[kind]);
    hold->kind = kind;
    if (send_qdisc(hold,
                   kind == HOLD_PLUG ? build_plug(hold, true, TCQ_PLUG_BUFFER)
                                     : build_tbf(hold, true, PACE_FREE),
                   doing, &why) == 0 ||
        (why.code == ERROR_ABORTED && read_root(hold, &state, NULL) == 0 && is_ours(&state))) {
        hold->attached_now = true;
        return 0;
    }
    return error_set(err, why.code, "%s", why.message);
}

// Uses the one of ours that is there.
static int adopt(struct hold *hold, enum hold_kind kind, const struct qdisc_state *state,
                 struct error *err)
{
    hold->kind = strcmp(state->kind, kinds[HOLD_PLUG]) == 0 ? HOLD_PLUG : HOLD_TBF;
    if (kind == HOLD_AUTO || kind == hold->kind)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "interface '%s' has our %s qdisc, not %s: use that, or delete it "
                     "('tc qdisc del dev %s root', which may lose a few packets)",
                     hold->interface, kinds[hold->kind], kinds[kind], hold->interface);
}

static int attach_or_adopt(struct hold *hold, enum hold_kind kind, struct error *err)
{
    struct qdisc_state state;
    struct error why;
    if (read_root(hold, &state, err) != 0)
        return -1;
    if (is_ours(&state))
        return adopt(hold, kind, &state, err);
    if (state.seen && state.handle != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "interface '%s' has a root qdisc of someone else's, %s %x:, which is left "
                         "alone: packets cannot be held",
                         hold->interface, state.kind, state.handle >> 16);
    if (kind != HOLD_AUTO)
        return attach(hold, kind, err);
    if (attach(hold, HOLD_PLUG, &why) == 0 || attach(hold, HOLD_TBF, err) == 0)
        return 0;
    return why.code == ERROR_FAILED_PRECONDITION ? error_prefix(err, "%s; then", why.message) : -1;
}

// ---- life ----

static void hold_free(struct hold *hold)
{
    netlink_talk_close(hold->talk);
    if (hold->dummies >= 0)
        close(hold->dummies);
    free(hold);
}

// A hold that does not know its qdisc yet. NULL with `err` filled.
static struct hold *hold_new(const char *interface, uint32_t limit, struct error *err)
{
    if (!device_name_is_valid(interface)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "'%s' cannot be an interface's name", interface);
        return NULL;
    }
    struct hold *hold = calloc(1, sizeof *hold);
    if (hold == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
        return NULL;
    }
    snprintf(hold->interface, sizeof hold->interface, "%s", interface);
    hold->limit = limit;
    hold->dummies = -1;
    hold->ifindex = if_nametoindex(interface);
    if (hold->ifindex == 0)
        error_set(err, ERROR_NOT_FOUND, "there is no interface '%s' in this network namespace",
                  interface);
    else if (netlink_talk_open(&hold->talk, NETLINK_ROUTE, QDISC_REQUEST_SIZE, err) == 0)
        return hold;
    hold_free(hold);
    return NULL;
}

static int end_whatever(struct hold *hold, struct error *err)
{
    return hold->kind == HOLD_PLUG ? end_plug(hold, err) : end_tbf(hold, err);
}

int hold_open(struct hold **out, const char *interface, enum hold_kind kind, uint32_t limit,
              struct error *err)
{
    struct hold *hold = hold_new(interface, limit, err);
    if (hold == NULL)
        return -1;
    if (attach_or_adopt(hold, kind, err) != 0 ||
        (hold->kind == HOLD_TBF && open_dummies(hold, err) != 0) || end_whatever(hold, err) != 0)
        goto fail;
    // A tbf is given its limit with each change, a plug once.
    if (hold->kind == HOLD_PLUG && send_qdisc(hold, build_plug(hold, false, TCQ_PLUG_LIMIT),
                                              "limiting what it may hold", err) != 0)
        goto fail;
    hold_prepare(hold);
    *out = hold;
    return 0;
fail:
    // Whatever of ours is there must not stay blocking.
    if (hold->kind != HOLD_AUTO)
        (void)end_whatever(hold, NULL);
    hold_free(hold);
    return -1;
}

int hold_begin(struct hold *hold, struct error *err)
{
    if (hold->held)
        return 0;
    if ((hold->kind == HOLD_PLUG ? begin_plug(hold, err) : begin_tbf(hold, err)) != 0)
        return -1;
    hold->held = true;
    return 0;
}

int hold_end(struct hold *hold, struct error *err)
{
    if (!hold->held)
        return 0;
    if (end_whatever(hold, err) != 0)
        return -1;
    hold->held = false;
    return 0;
}

int hold_pending(struct hold *hold, struct hold_pending *pending, struct error *err)
{
    struct qdisc_state state;
    if (read_root(hold, &state, err) != 0)
        return -1;
    if (!is_ours(&state))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "interface '%s': our %s qdisc is no longer its root", hold->interface,
                         kinds[hold->kind]);
    *pending = (struct hold_pending){
        .packets = state.packets, .bytes = state.bytes, .dropped = state.dropped};
    return 0;
}

int hold_close(struct hold *hold, struct error *err)
{
    if (hold == NULL)
        return 0;
    int rc = hold_end(hold, err);
    hold_free(hold);
    return rc;
}

int hold_release_leftover(const char *interface, struct error *err)
{
    struct qdisc_state state;
    struct hold *hold = hold_new(interface, HOLD_LIMIT_DEFAULT, err);
    if (hold == NULL)
        return -1;
    int rc = read_root(hold, &state, err);
    if (rc == 0 && is_ours(&state)) {
        rc = adopt(hold, HOLD_AUTO, &state, err);
        if (rc == 0 && hold->kind == HOLD_TBF)
            rc = open_dummies(hold, err);
        if (rc == 0)
            rc = end_whatever(hold, err);
    }
    hold_free(hold);
    return rc;
}
