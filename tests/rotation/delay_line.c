// SPDX-License-Identifier: Apache-2.0
// A cable of a given length between two network interfaces: each frame that comes in at one leaves
// by the other DELAY microseconds later. For kernels without sch_netem.
//
// usage: delay_line INTERFACE INTERFACE DELAY_US
// Prints "ready" when it forwards; runs until killed. A frame that the outgoing interface refuses
// is dropped and counted; SIGTERM ends it with exit 0 and the number on standard output.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <sys/socket.h>

#define US       INT64_C(1000)
#define SECOND   INT64_C(1000000000)
#define FRAME    (sizeof(struct virtio_net_hdr) + 65536 + 64) // with offloads a frame is up to 64 KiB
#define BUFFER   (32 << 20)
#define DELAY_US 10000000

// Frames on their way, in order.
struct frame {
    struct frame *next;
    int64_t due; // ns
    size_t length;
    unsigned char bytes[];
};

struct direction {
    int from, to;
    struct frame *first, **end;
};

static volatile sig_atomic_t told_to_end;
static uint64_t dropped;

static void on_signal(int number)
{
    told_to_end = 1;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

// A raw socket on the interface, whose frames bear what offloads they still need; -1.
static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct packet_mreq everything = {.mr_type = PACKET_MR_PROMISC};
    int yes = 1, bytes = BUFFER, fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    address.sll_ifindex = everything.mr_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || address.sll_ifindex == 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &yes, sizeof(yes)) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof(yes)) != 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &everything, sizeof(everything)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        fprintf(stderr, "delay_line: %s: %s\n", name, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static bool take(struct direction *direction, int64_t delay)
{
    static unsigned char bytes[FRAME];
    ssize_t n;

    while ((n = recv(direction->from, bytes, sizeof(bytes), 0)) > 0) {
        struct frame *frame = malloc(sizeof(*frame) + (size_t)n);
        if (frame == NULL)
            return false;
        *frame = (struct frame){.due = now_ns() + delay, .length = (size_t)n};
        memcpy(frame->bytes, bytes, (size_t)n);
        *direction->end = frame;
        direction->end = &frame->next;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENETDOWN;
}

static void deliver(struct direction *direction)
{
    struct frame *frame;

    while ((frame = direction->first) != NULL && frame->due <= now_ns()) {
        if (send(direction->to, frame->bytes, frame->length, 0) < 0)
            dropped++;
        direction->first = frame->next;
        if (direction->first == NULL)
            direction->end = &direction->first;
        free(frame);
    }
}

// Until the next frame is due, a second at most.
static struct timespec until_due(const struct direction directions[2])
{
    int64_t left = SECOND - 1, now = now_ns();

    for (int i = 0; i < 2; i++) {
        const struct frame *first = directions[i].first;
        if (first != NULL && first->due - now < left)
            left = first->due > now ? first->due - now : 0;
    }
    return (struct timespec){.tv_nsec = (long)left};
}

static bool forward(struct direction directions[2], int64_t delay)
{
    struct pollfd fds[] = {{.fd = directions[0].from, .events = POLLIN},
                           {.fd = directions[1].from, .events = POLLIN}};
    sigset_t none;

    sigemptyset(&none);
    while (!told_to_end) {
        struct timespec timeout = until_due(directions);
        if (ppoll(fds, 2, &timeout, &none) < 0 && errno != EINTR)
            return false;
        for (int i = 0; i < 2; i++) {
            if (fds[i].revents != 0 && !take(&directions[i], delay))
                return false;
            deliver(&directions[i]);
        }
    }
    return true;
}

static void empty(struct direction *direction)
{
    while (direction->first != NULL) {
        struct frame *frame = direction->first;
        direction->first = frame->next;
        free(frame);
    }
}

static void catch_signal(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t term;

    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL); // it comes only while we wait
    sigaction(SIGTERM, &action, NULL);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long delay = argc == 4 ? strtol(argv[3], &end, 10) : -1;

    if (end == NULL || *end != '\0' || delay < 0 || delay > DELAY_US) {
        fprintf(stderr, "usage: delay_line INTERFACE INTERFACE DELAY_US (0 to %d)\n", DELAY_US);
        return 2;
    }
    catch_signal();
    int a = open_interface(argv[1]), b = open_interface(argv[2]);
    if (a < 0 || b < 0)
        return 1;
    struct direction directions[] = {{.from = a, .to = b}, {.from = b, .to = a}};
    for (int i = 0; i < 2; i++)
        directions[i].end = &directions[i].first;
    puts("ready");
    fflush(stdout);
    bool good = forward(directions, delay * US);
    if (!good)
        fprintf(stderr, "delay_line: %s\n", strerror(errno));
    for (int i = 0; i < 2; i++)
        empty(&directions[i]);
    close(a);
    close(b);
    printf("dropped %ju\n", (uintmax_t)dropped);
    return good ? 0 : 1;
}
