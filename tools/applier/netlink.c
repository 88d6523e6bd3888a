// SPDX-License-Identifier: Apache-2.0
// Builds and parses the netlink messages of the kernel's WireGuard.
#include "netlink.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/wireguard.h>

// ---- building ----

static struct nlmsghdr *ask_generic(void *buffer, uint16_t type, uint16_t flags, uint32_t seq,
                                    uint8_t command, uint8_t version)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    message->nlmsg_seq = seq;
    struct genlmsghdr *generic = mnl_nlmsg_put_extra_header(message, sizeof *generic);
    generic->cmd = command;
    generic->version = version;
    return message;
}

struct nlmsghdr *netlink_ask_family(void *buffer, uint32_t seq)
{
    struct nlmsghdr *message =
        ask_generic(buffer, GENL_ID_CTRL, NLM_F_ACK, seq, CTRL_CMD_GETFAMILY, 1);
    mnl_attr_put_strz(message, CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME);
    return message;
}

struct nlmsghdr *netlink_ask_device(void *buffer, uint16_t family, uint32_t seq,
                                    const char *interface)
{
    struct nlmsghdr *message = ask_generic(buffer, family, NLM_F_ACK | NLM_F_DUMP, seq,
                                           WG_CMD_GET_DEVICE, WG_GENL_VERSION);
    mnl_attr_put_strz(message, WGDEVICE_A_IFNAME, interface);
    return message;
}

struct nlmsghdr *netlink_set_private_key(void *buffer, uint16_t family, uint32_t seq,
                                         const char *interface,
                                         const uint8_t private_key[DEVICE_KEY_SIZE])
{
    struct nlmsghdr *message =
        ask_generic(buffer, family, NLM_F_ACK, seq, WG_CMD_SET_DEVICE, WG_GENL_VERSION);
    mnl_attr_put_strz(message, WGDEVICE_A_IFNAME, interface);
    mnl_attr_put(message, WGDEVICE_A_PRIVATE_KEY, WG_KEY_LEN, private_key);
    return message;
}

struct nlmsghdr *netlink_ask_links(void *buffer, uint32_t seq)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = RTM_GETLINK;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    message->nlmsg_seq = seq;
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(message, sizeof *link);
    link->ifi_family = AF_UNSPEC;
    return message;
}

// ---- parsing ----

// The kernel's words stand in an attribute that begins at `offset` of the message.
static void read_extended_ack(const struct nlmsghdr *message, size_t offset,
                              struct netlink_answer *answer)
{
    const struct nlattr *attr;
    if (!(message->nlmsg_flags & NLM_F_ACK_TLVS) ||
        mnl_nlmsg_get_payload_len(message) < MNL_ALIGN(offset))
        return;
    mnl_attr_for_each(attr, message, offset)
    {
        if (mnl_attr_get_type(attr) != NLMSGERR_ATTR_MSG || mnl_attr_get_payload_len(attr) == 0)
            continue;
        snprintf(answer->text, sizeof answer->text, "%.*s", (int)mnl_attr_get_payload_len(attr),
                 (const char *)mnl_attr_get_payload(attr));
    }
}

// The kernel's negated errno value as it is in errno.h.
static int as_errno(int error)
{
    return error >= 0 ? 0 : error >= -4095 ? -error : EPROTO;
}

static int read_error(const struct nlmsghdr *message, struct netlink_answer *answer,
                      struct error *err)
{
    const struct nlmsgerr *refusal = mnl_nlmsg_get_payload(message);
    if (mnl_nlmsg_get_payload_len(message) < sizeof *refusal)
        return error_set(err, ERROR_DATA_LOSS, "netlink: an acknowledgement that is cut short");
    answer->done = true;
    answer->error = as_errno(refusal->error);
    // A refusal repeats the request unless the kernel was asked not to (NETLINK_CAP_ACK).
    size_t offset = sizeof *refusal;
    if (!(message->nlmsg_flags & NLM_F_CAPPED) && refusal->msg.nlmsg_len >= sizeof refusal->msg)
        offset += refusal->msg.nlmsg_len - sizeof refusal->msg;
    read_extended_ack(message, offset, answer);
    return 0;
}

// The end of a dump carries the errno value that ended it, 0 when all was well.
static void read_done(const struct nlmsghdr *message, struct netlink_answer *answer)
{
    int error = 0;
    answer->done = true;
    if (mnl_nlmsg_get_payload_len(message) < sizeof error)
        return;
    memcpy(&error, mnl_nlmsg_get_payload(message), sizeof error);
    answer->error = as_errno(error);
    read_extended_ack(message, sizeof error, answer);
}

static int parse_message(const struct nlmsghdr *message, netlink_reader *reader, void *context,
                         struct netlink_answer *answer, struct error *err)
{
    if (message->nlmsg_flags & NLM_F_DUMP_INTR)
        answer->interrupted = true;
    switch (message->nlmsg_type) {
    case NLMSG_NOOP:
        return 0;
    case NLMSG_OVERRUN:
        answer->interrupted = true;
        return 0;
    case NLMSG_ERROR:
        return read_error(message, answer, err);
    case NLMSG_DONE:
        read_done(message, answer);
        return 0;
    default:
        if (reader == NULL || message->nlmsg_type < NLMSG_MIN_TYPE)
            return 0;
        return reader(message, context, err);
    }
}

bool netlink_fits(const struct nlmsghdr *message, int left)
{
    return left >= (int)sizeof *message && message->nlmsg_len >= sizeof *message &&
           message->nlmsg_len <= (unsigned)left;
}

int netlink_parse(const void *datagram, size_t length, uint32_t seq, uint32_t portid,
                  netlink_reader *reader, void *context, struct netlink_answer *answer,
                  struct error *err)
{
    const struct nlmsghdr *message = datagram;
    if (length > INT32_MAX)
        return error_set(err, ERROR_DATA_LOSS, "netlink: a datagram of %zu bytes", length);
    int left = (int)length;
    while (left > 0 && !answer->done) {
        if (!netlink_fits(message, left))
            return error_set(err, ERROR_DATA_LOSS,
                             "netlink: a message that is cut short (%d bytes left)", left);
        // Not mnl_nlmsg_seq_ok and its like: they let 0 pass for anything.
        if (message->nlmsg_seq == seq && message->nlmsg_pid == portid &&
            parse_message(message, reader, context, answer, err) != 0)
            return -1;
        message = mnl_nlmsg_next(message, &left);
    }
    return 0;
}

// ---- readers ----

// Where the attributes begin, and whether the message is long enough to have any.
static bool has_header(const struct nlmsghdr *message, size_t size)
{
    return mnl_nlmsg_get_payload_len(message) >= MNL_ALIGN(size);
}

int netlink_read_family(const struct nlmsghdr *message, void *family, struct error *err)
{
    const struct nlattr *attr;
    if (message->nlmsg_type != GENL_ID_CTRL || !has_header(message, sizeof(struct genlmsghdr)))
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for the family");
    mnl_attr_for_each(attr, message, sizeof(struct genlmsghdr))
    {
        if (mnl_attr_get_type(attr) != CTRL_ATTR_FAMILY_ID)
            continue;
        if (mnl_attr_validate(attr, MNL_TYPE_U16) < 0)
            return error_set(err, ERROR_DATA_LOSS, "netlink: a family id that is no 16-bit number");
        *(uint16_t *)family = mnl_attr_get_u16(attr);
    }
    return 0;
}

static int read_device_name(const struct nlattr *attr, struct netlink_device *device,
                            struct error *err)
{
    if (mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) < 0 ||
        strcmp(mnl_attr_get_str(attr), device->interface) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an answer about another interface than '%s'", device->interface);
    device->seen = true;
    return 0;
}

int netlink_read_device(const struct nlmsghdr *message, void *context, struct error *err)
{
    struct netlink_device *device = context;
    const struct nlattr *attr;
    if (!has_header(message, sizeof(struct genlmsghdr)))
        return error_set(err, ERROR_DATA_LOSS, "netlink: an answer without its header");
    mnl_attr_for_each(attr, message, sizeof(struct genlmsghdr))
    {
        switch (mnl_attr_get_type(attr)) {
        case WGDEVICE_A_IFNAME:
            if (read_device_name(attr, device, err) != 0)
                return -1;
            break;
        case WGDEVICE_A_PUBLIC_KEY:
            if (mnl_attr_get_payload_len(attr) != sizeof device->public_key)
                return error_set(err, ERROR_DATA_LOSS,
                                 "netlink: interface '%s': a public key of %u bytes",
                                 device->interface, (unsigned)mnl_attr_get_payload_len(attr));
            memcpy(device->public_key, mnl_attr_get_payload(attr), sizeof device->public_key);
            break;
        case WGDEVICE_A_PRIVATE_KEY:
            if (device->private_key != NULL && mnl_attr_get_payload_len(attr) == DEVICE_KEY_SIZE)
                memcpy(device->private_key, mnl_attr_get_payload(attr), DEVICE_KEY_SIZE);
            break;
        default: // peers
            break;
        }
    }
    return 0;
}

static bool is_wireguard(const struct nlattr *linkinfo)
{
    const struct nlattr *attr;
    mnl_attr_for_each_nested(attr, linkinfo)
    {
        if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
            return mnl_attr_get_payload_len(attr) >= strlen(WG_GENL_NAME) &&
                   strncmp(mnl_attr_get_payload(attr), WG_GENL_NAME,
                           mnl_attr_get_payload_len(attr)) == 0;
    }
    return false;
}

int netlink_read_link(const struct nlmsghdr *message, void *context, struct error *err)
{
    const struct netlink_links *links = context;
    const struct nlattr *attr;
    const char *name = NULL;
    bool wireguard = false;
    if (message->nlmsg_type != RTM_NEWLINK || !has_header(message, sizeof(struct ifinfomsg)))
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for links");
    mnl_attr_for_each(attr, message, sizeof(struct ifinfomsg))
    {
        if (mnl_attr_get_type(attr) == IFLA_IFNAME &&
            mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
            name = mnl_attr_get_str(attr);
        else if (mnl_attr_get_type(attr) == IFLA_LINKINFO)
            wireguard = is_wireguard(attr);
    }
    if (wireguard && name != NULL)
        links->found(name, links->context);
    return 0;
}
