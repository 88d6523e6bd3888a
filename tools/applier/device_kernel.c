// SPDX-License-Identifier: Apache-2.0
// The kernel's WireGuard: generic netlink by libmnl.
#include "device.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netlink.h>

#include <sodium.h>

#include "device_backend.h"
#include "netlink.h"
#include "netlink_peers.h"
#include "netlink_talk.h"

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

static int resolve_family(struct netlink_talk *talk, uint16_t *family, struct error *err)
{
    struct netlink_answer answer;
    *family = 0;
    if (netlink_talk_ask(talk,
                         netlink_ask_family(netlink_talk_request(talk), netlink_talk_seq(talk)),
                         netlink_read_family, family, &answer, err) != 0)
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

static int open_generic(struct netlink_talk **talk, uint16_t *family, size_t request_size,
                        struct error *err)
{
    if (netlink_talk_open(talk, NETLINK_GENERIC, request_size, err) != 0)
        return -1;
    if (resolve_family(*talk, family, err) == 0)
        return 0;
    netlink_talk_close(*talk);
    *talk = NULL;
    return -1;
}

// What an answer to a change amounts to; `doing` says what was asked.
static int conclude(int rc, const struct netlink_answer *answer, const char *interface,
                    const char *doing, struct error *err)
{
    if (rc != 0)
        return -1;
    if (answer->interrupted)
        return error_set(err, ERROR_ABORTED,
                         "interface '%s': %s: the kernel's answers were lost, or it changes faster "
                         "than it can be read",
                         interface, doing);
    return answer->error == 0 ? 0 : refused(answer, interface, doing, err);
}

static int kernel_set_private_key(const char *interface, const uint8_t private_key[DEVICE_KEY_SIZE],
                                  struct error *err)
{
    struct netlink_talk *talk;
    struct netlink_answer answer;
    int64_t deadline = device_now_ms() + NETLINK_TALK_TIMEOUT_MS;
    uint16_t family;
    int rc;
    if (open_generic(&talk, &family, NETLINK_REQUEST_SIZE, err) != 0)
        return -1;
    // Where the acknowledgement is lost, setting the same key once more changes nothing: so ask
    // again.
    do
        rc = netlink_talk_ask(talk,
                              netlink_set_private_key(netlink_talk_request(talk), family,
                                                      netlink_talk_seq(talk), interface,
                                                      private_key),
                              NULL, NULL, &answer, err);
    while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    netlink_talk_close(talk);
    return conclude(rc, &answer, interface, "setting the private key", err);
}

// Reads what `device`, whose interface and place for a private key are set, has room for.
static int read_device(const char *interface, uint8_t *private_key, struct netlink_device *device,
                       struct error *err)
{
    struct netlink_talk *talk;
    struct netlink_answer answer;
    int64_t deadline = device_now_ms() + NETLINK_TALK_TIMEOUT_MS;
    uint16_t family;
    int rc;
    if (open_generic(&talk, &family, NETLINK_REQUEST_SIZE, err) != 0)
        return -1;
    // A dump that spans several messages may be overtaken by a change: then what it told is not one
    // state.
    do {
        *device = (struct netlink_device){.interface = interface, .private_key = private_key};
        rc = netlink_talk_ask(talk,
                              netlink_ask_device(netlink_talk_request(talk), family,
                                                 netlink_talk_seq(talk), interface),
                              netlink_read_device, device, &answer, err);
    } while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    netlink_talk_close(talk);
    if (conclude(rc, &answer, interface, "reading the device", err) != 0)
        return -1;
    if (!device->seen)
        return error_set(err, ERROR_DATA_LOSS, "netlink: no answer about interface '%s'",
                         interface);
    return 0;
}

static int kernel_get_public_key(const char *interface, uint8_t public_key[DEVICE_KEY_SIZE],
                                 struct error *err)
{
    struct netlink_device device;
    if (read_device(interface, NULL, &device, err) != 0)
        return -1;
    memcpy(public_key, device.public_key, DEVICE_KEY_SIZE);
    return 0;
}

static int kernel_get_private_key(const char *interface, uint8_t *private_key, struct error *err)
{
    struct netlink_device device;
    sodium_memzero(private_key, DEVICE_KEY_SIZE);
    return read_device(interface, private_key, &device, err);
}

static int kernel_list(device_found *found, void *context, struct error *err)
{
    struct netlink_talk *talk;
    struct netlink_answer answer;
    struct netlink_links links = {found, context};
    if (netlink_talk_open(&talk, NETLINK_ROUTE, NETLINK_REQUEST_SIZE, err) != 0)
        return -1;
    int rc = netlink_talk_ask(talk,
                              netlink_ask_links(netlink_talk_request(talk), netlink_talk_seq(talk)),
                              netlink_read_link, &links, &answer, err);
    if (rc == 0 && answer.error != 0)
        rc = error_set(err, ERROR_UNKNOWN, "netlink: listing links: %s", strerror(answer.error));
    netlink_talk_close(talk);
    return rc;
}

const struct device_ops device_kernel = {
    .name = "kernel",
    .find = kernel_find,
    .set_private_key = kernel_set_private_key,
    .get_public_key = kernel_get_public_key,
    .get_private_key = kernel_get_private_key,
    .list = kernel_list,
};

// ---- a device held open ----

struct device_session {
    char interface[DEVICE_NAME_MAX + 1]; // for messages: the index tells which it is
    uint32_t ifindex;
    uint16_t family;
    struct netlink_talk *talk;
};

static void session_close(struct device_session *session)
{
    if (session == NULL)
        return;
    netlink_talk_close(session->talk);
    free(session);
}

static int session_open(struct device_session **out, const char *interface,
                        const struct device_identity *identity, struct error *err)
{
    struct device_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "interface '%s': out of memory", interface);
    snprintf(session->interface, sizeof session->interface, "%s", interface);
    session->ifindex = (uint32_t)identity->number;
    if (open_generic(&session->talk, &session->family, NETLINK_CHANGE_SIZE, err) != 0) {
        session_close(session);
        return -1;
    }
    *out = session;
    return 0;
}

static int session_read(struct device_session *session, struct device_view *view,
                        struct preshared *wanted, struct error *err)
{
    struct netlink_talk *talk = session->talk;
    struct netlink_view into = {.ifindex = session->ifindex, .view = view, .wanted = wanted};
    struct netlink_answer answer = {.interrupted = false};
    int64_t deadline = device_now_ms() + NETLINK_TALK_TIMEOUT_MS;
    int rc;
    do {
        device_view_clear(view);
        if (wanted != NULL)
            preshared_forget(wanted);
        into.seen = false;
        rc = netlink_talk_ask(talk,
                              netlink_ask_view(netlink_talk_request(talk), session->family,
                                               netlink_talk_seq(talk), session->ifindex),
                              netlink_read_view, &into, &answer, err);
    } while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    if (conclude(rc, &answer, session->interface, "reading the device", err) != 0)
        return -1;
    if (!into.seen)
        return error_set(err, ERROR_DATA_LOSS, "netlink: no answer about interface '%s'",
                         session->interface);
    return 0;
}

// Sends the message of `change` that begins at `from`, again where its acknowledgement is lost: the
// same change once more changes nothing.
static int set_part(struct device_session *session, const struct device_change *change,
                    struct netlink_change_at *at, struct error *err)
{
    struct netlink_talk *talk = session->talk;
    const struct netlink_change_at from = *at;
    struct netlink_answer answer = {.interrupted = false};
    int64_t deadline = device_now_ms() + NETLINK_TALK_TIMEOUT_MS;
    int rc;
    do {
        *at = from;
        rc = netlink_talk_ask(talk,
                              netlink_put_change(netlink_talk_request(talk), session->family,
                                                 netlink_talk_seq(talk), session->ifindex, change,
                                                 at),
                              NULL, NULL, &answer, err);
    } while (rc == 0 && answer.interrupted && device_now_ms() < deadline);
    return conclude(rc, &answer, session->interface, "changing the device", err);
}

static int session_set(struct device_session *session, const struct device_change *change,
                       struct error *err)
{
    struct netlink_change_at at = {.done = false};
    while (!at.done)
        if (set_part(session, change, &at, err) != 0)
            return -1;
    return 0;
}

static struct device_messages session_messages(const struct device_session *session)
{
    return netlink_talk_messages(session->talk);
}

const struct device_backend_ops device_backend_kernel = {
    .device = &device_kernel,
    .open = session_open,
    .close = session_close,
    .read = session_read,
    .set = session_set,
    .messages = session_messages,
};
