// SPDX-License-Identifier: Apache-2.0
// The kernel's WireGuard: generic netlink by libmnl. Whatever may hold the private key is guarded
// memory, and wiped.
#include "device.h"

#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <sodium.h>

#include "netlink.h"

// Setting a key on a device of 10,000 peers takes seconds, a dump of them a fraction of one.
#define KERNEL_TIMEOUT_MS  10000
#define KERNEL_ANSWER_SIZE 32768 // bytes: the largest datagram the kernel makes for a dump

// One socket, with its deadline and the guarded memory that messages pass through.
struct conversation {
    struct mnl_socket *socket;
    uint8_t *request; // NETLINK_REQUEST_SIZE
    uint8_t *answer;  // KERNEL_ANSWER_SIZE
    uint32_t seq;
    int64_t deadline; // device_now_ms
};

static void conversation_close(struct conversation *talk)
{
    if (talk->socket != NULL)
        mnl_socket_close(talk->socket);
    sodium_free(talk->request); // wipes
    sodium_free(talk->answer);
    memset(talk, 0, sizeof *talk);
}

static int conversation_open(struct conversation *talk, int bus, struct error *err)
{
    int yes = 1;
    memset(talk, 0, sizeof *talk);
    talk->deadline = device_now_ms() + KERNEL_TIMEOUT_MS;
    talk->request = sodium_malloc(NETLINK_REQUEST_SIZE);
    talk->answer = sodium_malloc(KERNEL_ANSWER_SIZE);
    if (talk->request == NULL || talk->answer == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for netlink messages: %s",
                  strerror(errno));
        goto fail;
    }
    talk->socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
    if (talk->socket == NULL || mnl_socket_bind(talk->socket, 0, MNL_SOCKET_AUTOPID) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "netlink socket: %s", strerror(errno));
        goto fail;
    }
    // A refusal must not send the request back: it holds the key. Words for a refusal are welcome,
    // not needed.
    if (mnl_socket_setsockopt(talk->socket, NETLINK_CAP_ACK, &yes, sizeof yes) != 0) {
        error_set(err, ERROR_UNAVAILABLE, "netlink socket: NETLINK_CAP_ACK: %s", strerror(errno));
        goto fail;
    }
    (void)mnl_socket_setsockopt(talk->socket, NETLINK_EXT_ACK, &yes, sizeof yes);
    return 0;
fail:
    conversation_close(talk);
    return -1;
}

// Receives one datagram of the kernel's into talk->answer. Returns its length, 0 when messages were
// lost, or -1.
static ssize_t receive(struct conversation *talk, struct error *err)
{
    for (;;) {
        struct pollfd ready = {.fd = mnl_socket_get_fd(talk->socket), .events = POLLIN};
        int64_t left = talk->deadline - device_now_ms();
        if (left <= 0)
            return error_set(err, ERROR_DEADLINE_EXCEEDED,
                             "netlink: no answer from the kernel in %d s",
                             KERNEL_TIMEOUT_MS / 1000);
        int n = poll(&ready, 1, (int)left);
        if (n == 0 || (n < 0 && errno == EINTR))
            continue;

        struct sockaddr_nl from = {0};
        struct iovec room = {.iov_base = talk->answer, .iov_len = KERNEL_ANSWER_SIZE};
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
                             KERNEL_ANSWER_SIZE);
        if (length > 0 && header.msg_namelen == sizeof from && from.nl_pid == 0)
            return length; // else: from another process, which has no say here
    }
}

// Sends `message`, which lies in talk->request, wipes that, and hands what comes back to `reader`.
static int ask(struct conversation *talk, const struct nlmsghdr *message, netlink_reader *reader,
               void *context, struct netlink_answer *answer, struct error *err)
{
    int rc = 0;
    ssize_t sent;
    memset(answer, 0, sizeof *answer);
    do
        sent = mnl_socket_sendto(talk->socket, message, message->nlmsg_len);
    while (sent < 0 && errno == EINTR && device_now_ms() < talk->deadline);
    int send_errno = errno;
    sodium_memzero(talk->request, NETLINK_REQUEST_SIZE);
    if (sent < 0)
        return error_set(err, ERROR_UNAVAILABLE, "netlink: cannot send: %s", strerror(send_errno));

    while (rc == 0 && !answer->done) {
        ssize_t length = receive(talk, err);
        if (length > 0) {
            rc = netlink_parse(talk->answer, (size_t)length, talk->seq,
                               mnl_socket_get_portid(talk->socket), reader, context, answer, err);
            sodium_memzero(talk->answer, (size_t)length);
        } else if (length == 0) {
            answer->interrupted = answer->done = true;
        } else {
            rc = -1;
        }
    }
    return rc;
}

// The kernel's refusal in words; `doing` says what was asked.
static int refused(const struct netlink_answer *answer, const char *interface, const char *doing,
                   struct error *err)
{
    const char *gap = answer->text[0] == '\0' ? "" : ": ";
    switch (answer->error) {
    case ENODEV:
        return error_set(err, ERROR_NOT_FOUND, "there is no interface '%s' (%s)", interface, doing);
    case EOPNOTSUPP:
        return error_set(err, ERROR_NOT_FOUND, "interface '%s' is no WireGuard interface (%s)",
                         interface, doing);
    case EPERM:
    case EACCES:
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "interface '%s': the kernel does not let us: %s needs CAP_NET_ADMIN%s%s",
                         interface, doing, gap, answer->text);
    default:
        return error_set(err, ERROR_UNKNOWN, "interface '%s': %s: %s%s%s", interface, doing,
                         strerror(answer->error), gap, answer->text);
    }
}

static int resolve_family(struct conversation *talk, uint16_t *family, struct error *err)
{
    struct netlink_answer answer;
    *family = 0;
    if (ask(talk, netlink_ask_family(talk->request, ++talk->seq), netlink_read_family, family,
            &answer, err) != 0)
        return -1;
    if (answer.error == 0 && *family != 0)
        return 0;
    return error_set(
        err, ERROR_FAILED_PRECONDITION,
        "this kernel offers no WireGuard (generic netlink family: %s): load the module 'wireguard'",
        answer.error != 0 ? strerror(answer.error) : "no id told");
}

// ---- the operations ----

static int kernel_find(const char *interface, struct device_identity *identity, struct error *err)
{
    *identity = (struct device_identity){.number = if_nametoindex(interface)};
    if (identity->number == 0)
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no interface '%s' in this network namespace", interface);
    return 0;
}

// One request about a device, from a fresh socket on: what a lost or overtaken answer left behind
// dies with its socket.
static int set_once(const char *interface, const uint8_t private_key[DEVICE_KEY_SIZE],
                    struct netlink_answer *answer, struct error *err)
{
    struct conversation talk;
    uint16_t family;
    if (conversation_open(&talk, NETLINK_GENERIC, err) != 0)
        return -1;
    int rc = resolve_family(&talk, &family, err);
    if (rc == 0)
        rc = ask(&talk,
                 netlink_set_private_key(talk.request, family, ++talk.seq, interface, private_key),
                 NULL, NULL, answer, err);
    conversation_close(&talk);
    return rc;
}

static int get_once(struct netlink_device *device, struct netlink_answer *answer, struct error *err)
{
    struct conversation talk;
    uint16_t family;
    if (conversation_open(&talk, NETLINK_GENERIC, err) != 0)
        return -1;
    int rc = resolve_family(&talk, &family, err);
    if (rc == 0)
        rc = ask(&talk, netlink_ask_device(talk.request, family, ++talk.seq, device->interface),
                 netlink_read_device, device, answer, err);
    conversation_close(&talk);
    return rc;
}

static int kernel_set_private_key(const char *interface, const uint8_t private_key[DEVICE_KEY_SIZE],
                                  struct error *err)
{
    struct netlink_answer answer;
    int64_t deadline = device_now_ms() + KERNEL_TIMEOUT_MS;
    int rc;
    // Where the acknowledgement is lost, setting the same key once more changes nothing: so ask
    // again.
    do
        rc = set_once(interface, private_key, &answer, err);
    while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    if (rc != 0)
        return -1;
    if (answer.interrupted)
        return error_set(err, ERROR_ABORTED, "interface '%s': the kernel's answers were lost",
                         interface);
    if (answer.error != 0)
        return refused(&answer, interface, "setting the private key", err);
    return 0;
}

static int kernel_get_public_key(const char *interface, uint8_t public_key[DEVICE_KEY_SIZE],
                                 struct error *err)
{
    struct netlink_answer answer;
    struct netlink_device device;
    int64_t deadline = device_now_ms() + KERNEL_TIMEOUT_MS;
    int rc;
    // A dump that spans several messages may be overtaken by a change: then what it told is not one
    // state.
    do {
        device = (struct netlink_device){.interface = interface};
        rc = get_once(&device, &answer, err);
    } while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    if (rc != 0)
        return -1;
    if (answer.interrupted)
        return error_set(err, ERROR_ABORTED,
                         "interface '%s': it changes faster than it can be read", interface);
    if (answer.error != 0)
        return refused(&answer, interface, "reading the device", err);
    if (!device.seen)
        return error_set(err, ERROR_DATA_LOSS, "netlink: no answer about interface '%s'",
                         interface);
    memcpy(public_key, device.public_key, DEVICE_KEY_SIZE);
    return 0;
}

static int kernel_list(device_found *found, void *context, struct error *err)
{
    struct conversation talk;
    struct netlink_answer answer;
    struct netlink_links links = {found, context};
    if (conversation_open(&talk, NETLINK_ROUTE, err) != 0)
        return -1;
    int rc = ask(&talk, netlink_ask_links(talk.request, ++talk.seq), netlink_read_link, &links,
                 &answer, err);
    if (rc == 0 && answer.error != 0)
        rc = error_set(err, ERROR_UNKNOWN, "netlink: listing links: %s", strerror(answer.error));
    conversation_close(&talk);
    return rc;
}

const struct device_ops device_kernel = {
    .name = "kernel",
    .find = kernel_find,
    .set_private_key = kernel_set_private_key,
    .get_public_key = kernel_get_public_key,
    .list = kernel_list,
};
