// SPDX-License-Identifier: Apache-2.0
// Sends netlink requests and receives their answers, before a deadline.
#include "netlink_talk.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <sodium.h>

#define TALK_ANSWER_SIZE 32768 // bytes: the largest datagram the kernel makes for a dump

struct netlink_talk {
    int bus;
    struct mnl_socket *socket; // NULL: to be opened anew
    size_t request_size;
    uint8_t *request; // guarded, request_size
    uint8_t *answer;  // guarded, TALK_ANSWER_SIZE
    uint32_t seq;
    int64_t deadline; // device_now_ms
    struct device_messages messages;
};

static void close_socket(struct netlink_talk *talk)
{
    if (talk->socket != NULL)
        mnl_socket_close(talk->socket);
    talk->socket = NULL;
}

static int open_socket(struct netlink_talk *talk, struct error *err)
{
    int yes = 1;
    talk->socket = mnl_socket_open2(talk->bus, SOCK_CLOEXEC);
    if (talk->socket == NULL || mnl_socket_bind(talk->socket, 0, MNL_SOCKET_AUTOPID) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "netlink socket: %s", strerror(errno));
        goto fail;
    }
    // A refusal must not send the request back: it may hold a key. Words for a refusal are welcome,
    // not needed.
    if (mnl_socket_setsockopt(talk->socket, NETLINK_CAP_ACK, &yes, sizeof yes) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "netlink socket: NETLINK_CAP_ACK: %s", strerror(errno));
        goto fail;
    }
    (void)mnl_socket_setsockopt(talk->socket, NETLINK_EXT_ACK, &yes, sizeof yes);
    return 0;
fail:
    close_socket(talk);
    return -1;
}

int netlink_talk_open(struct netlink_talk **out, int bus, size_t request_size, struct error *err)
{
    struct netlink_talk *talk = calloc(1, sizeof *talk);
    if (talk == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "netlink: out of memory");
    talk->bus = bus;
    talk->request_size = (request_size + 15) & ~(size_t)15; // sodium_malloc aligns the end only
    talk->request = sodium_malloc(talk->request_size);
    talk->answer = sodium_malloc(TALK_ANSWER_SIZE);
    if (talk->request == NULL || talk->answer == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for netlink messages: %s",
                  strerror(errno));
        goto fail;
    }
    if (open_socket(talk, err) != 0)
        goto fail;
    *out = talk;
    return 0;
fail:
    netlink_talk_close(talk);
    return -1;
}

void netlink_talk_close(struct netlink_talk *talk)
{
    if (talk == NULL)
        return;
    close_socket(talk);
    sodium_free(talk->request); // wipes
    sodium_free(talk->answer);
    free(talk);
}

void *netlink_talk_request(struct netlink_talk *talk)
{
    return talk->request;
}

uint32_t netlink_talk_seq(struct netlink_talk *talk)
{
    // 0 is what the kernel's own messages bear.
    if (++talk->seq == 0)
        talk->seq = 1;
    return talk->seq;
}

struct device_messages netlink_talk_messages(const struct netlink_talk *talk)
{
    return talk->messages;
}

// Receives one datagram of the kernel's into talk->answer. Returns its length, 0 when messages were
// lost, or -1.
static ssize_t receive(struct netlink_talk *talk, struct error *err)
{
    for (;;) {
        struct pollfd ready = {.fd = mnl_socket_get_fd(talk->socket), .events = POLLIN};
        int64_t left = talk->deadline - device_now_ms();
        if (left <= 0)
            return error_set(err, ERROR_DEADLINE_EXCEEDED,
                             "netlink: no answer from the kernel in %d s",
                             NETLINK_TALK_TIMEOUT_MS / 1000);
        int n = poll(&ready, 1, (int)left);
        if (n == 0 || (n < 0 && errno == EINTR))
            continue;

        struct sockaddr_nl from = {0};
        struct iovec room = {.iov_base = talk->answer, .iov_len = TALK_ANSWER_SIZE};
        struct msghdr header = {
            .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &room, .msg_iovlen = 1};
        ssize_t length = recvmsg(ready.fd, &header, MSG_DONTWAIT);
        if (length < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (length < 0 && errno == ENOBUFS)
            return 0;
        if (length < 0)
            return error_set(err, ERROR_UNAVAILABLE, "netlink: %s", strerror(errno));
        if (header.msg_flags & MSG_TRUNC)
            return error_set(err, ERROR_DATA_LOSS, "netlink: an answer of more than %d bytes",
                             TALK_ANSWER_SIZE);
        if (length > 0 && header.msg_namelen == sizeof from && from.nl_pid == 0)
            return length; // else: from another process, which has no say here
    }
}

static int send_request(struct netlink_talk *talk, const struct nlmsghdr *message,
                        struct error *err)
{
    size_t length = message->nlmsg_len;
    ssize_t sent;
    do
        sent = mnl_socket_sendto(talk->socket, message, length);
    while (sent < 0 && errno == EINTR && device_now_ms() < talk->deadline);
    if (sent < 0)
        return error_set(err, ERROR_UNAVAILABLE, "netlink: cannot send: %s", strerror(errno));
    talk->messages.sent++;
    return 0;
}

static int receive_all(struct netlink_talk *talk, netlink_reader *reader, void *context,
                       struct netlink_answer *answer, struct error *err)
{
    while (!answer->done) {
        ssize_t length = receive(talk, err);
        if (length < 0)
            return -1;
        if (length == 0) {
            answer->interrupted = answer->done = true;
            close_socket(talk);
            return 0;
        }
        talk->messages.received++;
        int rc = netlink_parse(talk->answer, (size_t)length, talk->seq,
                               mnl_socket_get_portid(talk->socket), reader, context, answer, err);
        sodium_memzero(talk->answer, (size_t)length);
        if (rc != 0)
            return -1;
    }
    return 0;
}

int netlink_talk_ask(struct netlink_talk *talk, const struct nlmsghdr *message,
                     netlink_reader *reader, void *context, struct netlink_answer *answer,
                     struct error *err)
{
    size_t length = message->nlmsg_len;
    memset(answer, 0, sizeof *answer);
    talk->deadline = device_now_ms() + NETLINK_TALK_TIMEOUT_MS;
    int rc = talk->socket == NULL ? open_socket(talk, err) : 0;
    if (rc == 0)
        rc = send_request(talk, message, err);
    sodium_memzero(talk->request, length);
    if (rc == 0)
        rc = receive_all(talk, reader, context, answer, err);
    if (rc != 0)
        close_socket(talk);
    return rc;
}
