// SPDX-License-Identifier: Apache-2.0
// Reads and builds the netlink messages of a WireGuard device with its peers.
#include "netlink_peers.h"

#include <string.h>

#include <linux/genetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>

static struct nlmsghdr *begin(void *buffer, uint16_t family, uint16_t flags, uint32_t seq,
                              uint8_t command, uint32_t ifindex)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = family;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message->nlmsg_seq = seq;
    struct genlmsghdr *generic = mnl_nlmsg_put_extra_header(message, sizeof *generic);
    generic->cmd = command;
    generic->version = WG_GENL_VERSION;
    mnl_attr_put_u32(message, WGDEVICE_A_IFINDEX, ifindex);
    return message;
}

struct nlmsghdr *netlink_ask_view(void *buffer, uint16_t family, uint32_t seq, uint32_t ifindex)
{
    return begin(buffer, family, NLM_F_DUMP, seq, WG_CMD_GET_DEVICE, ifindex);
}

// ---- reading ----

static int odd(struct error *err, const char *what)
{
    return error_set(err, ERROR_DATA_LOSS, "netlink: %s that makes no sense", what);
}

static bool has_size(const struct nlattr *attr, size_t size)
{
    return mnl_attr_get_payload_len(attr) == size;
}

// Copies the payload if it has exactly `size` bytes.
static int take(const struct nlattr *attr, void *to, size_t size, const char *what,
                struct error *err)
{
    if (!has_size(attr, size))
        return odd(err, what);
    memcpy(to, mnl_attr_get_payload(attr), size);
    return 0;
}

static int take_endpoint(const struct nlattr *attr, struct device_peer *peer, struct error *err)
{
    union device_endpoint *endpoint = &peer->endpoint;
    size_t size = mnl_attr_get_payload_len(attr);
    memset(endpoint, 0, sizeof *endpoint);
    if (size != sizeof endpoint->v4 && size != sizeof endpoint->v6)
        return odd(err, "an endpoint");
    memcpy(endpoint, mnl_attr_get_payload(attr), size);
    if (endpoint->any.sa_family != (size == sizeof endpoint->v4 ? AF_INET : AF_INET6))
        return odd(err, "an endpoint");
    peer->has_endpoint = true;
    return 0;
}

static int take_handshake(const struct nlattr *attr, struct device_peer *peer, struct error *err)
{
    struct __kernel_timespec time;
    if (take(attr, &time, sizeof time, "a latest handshake", err) != 0)
        return -1;
    peer->latest_handshake = (struct timespec){.tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec};
    return 0;
}

static int take_allowed_ip(const struct nlattr *nest, struct device_peer *peer, struct error *err)
{
    struct device_allowed_ip allowed = {.family = AF_UNSPEC};
    const struct nlattr *attr, *address = NULL;
    uint16_t family = AF_UNSPEC;
    bool has_cidr = false;
    int rc = 0;
    mnl_attr_for_each_nested(attr, nest)
    {
        switch (mnl_attr_get_type(attr)) {
        case WGALLOWEDIP_A_FAMILY:
            rc |= take(attr, &family, sizeof family, "an allowed-ip's family", err);
            break;
        case WGALLOWEDIP_A_IPADDR:
            address = attr;
            break;
        case WGALLOWEDIP_A_CIDR_MASK:
            rc |= take(attr, &allowed.cidr, sizeof allowed.cidr, "an allowed-ip's length", err);
            has_cidr = true;
            break;
        default:
            break;
        }
    }
    size_t size = family == AF_INET ? 4 : 16;
    if (rc != 0 || address == NULL || !has_cidr || (family != AF_INET && family != AF_INET6) ||
        !has_size(address, size) || allowed.cidr > 8 * size)
        return odd(err, "an allowed-ip");
    allowed.family = family;
    memcpy(allowed.address, mnl_attr_get_payload(address), size);
    return device_peer_add_allowed_ip(peer, &allowed, err);
}

static int take_preshared(const struct nlattr *attr, struct device_peer *peer,
                          struct netlink_view *into, struct error *err)
{
    if (!has_size(attr, DEVICE_KEY_SIZE))
        return odd(err, "a preshared key");
    const uint8_t *key = mnl_attr_get_payload(attr); // in the answer's guarded memory
    if (into->wanted != NULL)
        preshared_found(into->wanted, peer->public_key, key);
    return device_peer_note_preshared(peer, key, err);
}

static int take_peer_attr(const struct nlattr *attr, struct device_peer *peer,
                          struct netlink_view *into, struct error *err)
{
    const struct nlattr *allowed;
    switch (mnl_attr_get_type(attr)) {
    case WGPEER_A_PRESHARED_KEY:
        return take_preshared(attr, peer, into, err);
    case WGPEER_A_ENDPOINT:
        return take_endpoint(attr, peer, err);
    case WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL:
        return take(attr, &peer->keepalive, sizeof peer->keepalive, "a keepalive", err);
    case WGPEER_A_LAST_HANDSHAKE_TIME:
        return take_handshake(attr, peer, err);
    case WGPEER_A_RX_BYTES:
        return take(attr, &peer->rx_bytes, sizeof peer->rx_bytes, "a count of bytes", err);
    case WGPEER_A_TX_BYTES:
        return take(attr, &peer->tx_bytes, sizeof peer->tx_bytes, "a count of bytes", err);
    case WGPEER_A_ALLOWEDIPS:
        mnl_attr_for_each_nested(allowed, attr)
        {
            if (take_allowed_ip(allowed, peer, err) != 0)
                return -1;
        }
        return 0;
    default:
        return 0;
    }
}

static int take_peer(const struct nlattr *nest, struct netlink_view *into, struct error *err)
{
    const struct nlattr *attr, *key = NULL;
    mnl_attr_for_each_nested(attr, nest)
    {
        if (mnl_attr_get_type(attr) == WGPEER_A_PUBLIC_KEY)
            key = attr;
    }
    if (key == NULL || !has_size(key, DEVICE_KEY_SIZE))
        return odd(err, "a peer");
    struct device_peer *peer = device_view_add_peer(into->view, mnl_attr_get_payload(key));
    if (peer == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a device's peers");
    mnl_attr_for_each_nested(attr, nest)
    {
        if (take_peer_attr(attr, peer, into, err) != 0)
            return -1;
    }
    return 0;
}

static int take_device_attr(const struct nlattr *attr, struct netlink_view *into, struct error *err)
{
    struct device_view *view = into->view;
    const struct nlattr *peer;
    uint32_t ifindex;
    switch (mnl_attr_get_type(attr)) {
    case WGDEVICE_A_IFINDEX:
        if (take(attr, &ifindex, sizeof ifindex, "an interface's index", err) != 0)
            return -1;
        into->seen = ifindex == into->ifindex;
        return into->seen ? 0 : odd(err, "an answer about another interface");
    case WGDEVICE_A_PUBLIC_KEY:
        return take(attr, view->public_key, sizeof view->public_key, "a public key", err);
    case WGDEVICE_A_LISTEN_PORT:
        return take(attr, &view->listen_port, sizeof view->listen_port, "a port", err);
    case WGDEVICE_A_FWMARK:
        return take(attr, &view->fwmark, sizeof view->fwmark, "a firewall mark", err);
    case WGDEVICE_A_PEERS:
        mnl_attr_for_each_nested(peer, attr)
        {
            if (take_peer(peer, into, err) != 0)
                return -1;
        }
        return 0;
    default: // the private key too, which is left where it is
        return 0;
    }
}

int netlink_read_view(const struct nlmsghdr *message, void *context, struct error *err)
{
    const struct nlattr *attr;
    if (mnl_nlmsg_get_payload_len(message) < sizeof(struct genlmsghdr))
        return odd(err, "an answer without its header");
    mnl_attr_for_each(attr, message, sizeof(struct genlmsghdr))
    {
        if (take_device_attr(attr, context, err) != 0)
            return -1;
    }
    return 0;
}

// ---- building ----

// Bytes at most: a peer with all but allowed-ips, and one allowed-ip.
#define PEER_ROOM    (4 + 36 + 36 + 8 + 8 + 32 + 4)
#define ALLOWED_ROOM (4 + 8 + 20 + 8)
#define PEERS_MAX    65532 // what an attribute's length can say, in whole words

// What is left in the attribute `peers` of `message`.
static size_t room_left(const struct nlmsghdr *message, const struct nlattr *peers)
{
    return PEERS_MAX -
           (size_t)((const char *)mnl_nlmsg_get_payload_tail(message) - (const char *)peers);
}

static void put_allowed_ip(struct nlmsghdr *message, const struct device_allowed_ip *allowed)
{
    struct nlattr *nest = mnl_attr_nest_start(message, 0);
    mnl_attr_put_u16(message, WGALLOWEDIP_A_FAMILY, (uint16_t)allowed->family);
    mnl_attr_put(message, WGALLOWEDIP_A_IPADDR, allowed->family == AF_INET ? 4 : 16,
                 allowed->address);
    mnl_attr_put_u8(message, WGALLOWEDIP_A_CIDR_MASK, allowed->cidr);
    mnl_attr_nest_end(message, nest);
}

// What a peer has besides its allowed-ips; told where it is named first.
static void put_settings(struct nlmsghdr *message, const struct device_peer_change *peer)
{
    const union device_endpoint *endpoint = &peer->endpoint;
    if (peer->preshared != NULL)
        mnl_attr_put(message, WGPEER_A_PRESHARED_KEY, WG_KEY_LEN, peer->preshared);
    if (peer->set_endpoint)
        mnl_attr_put(message, WGPEER_A_ENDPOINT,
                     endpoint->any.sa_family == AF_INET ? sizeof endpoint->v4 : sizeof endpoint->v6,
                     endpoint);
    if (peer->set_keepalive)
        mnl_attr_put_u16(message, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, peer->keepalive);
}

static uint32_t flags_of(const struct device_peer_change *peer, bool continued)
{
    if (peer->remove)
        return WGPEER_F_REMOVE_ME;
    return (peer->update_only || continued ? WGPEER_F_UPDATE_ONLY : 0) |
           (peer->replace_allowed_ips && !continued ? WGPEER_F_REPLACE_ALLOWEDIPS : 0);
}

// Puts a peer, or what is left of it, as far as there is room. Returns whether all of it is in.
static bool put_peer(struct nlmsghdr *message, const struct nlattr *peers,
                     const struct device_peer_change *peer, size_t *allowed_at)
{
    struct nlattr *nest = mnl_attr_nest_start(message, 0);
    uint32_t flags = flags_of(peer, *allowed_at > 0);
    size_t count = peer->remove ? 0 : peer->allowed_count;
    mnl_attr_put(message, WGPEER_A_PUBLIC_KEY, WG_KEY_LEN, peer->public_key);
    if (flags != 0)
        mnl_attr_put_u32(message, WGPEER_A_FLAGS, flags);
    if (!peer->remove && *allowed_at == 0)
        put_settings(message, peer);
    if (count > 0) {
        struct nlattr *all = mnl_attr_nest_start(message, WGPEER_A_ALLOWEDIPS);
        for (; *allowed_at < count && room_left(message, peers) >= ALLOWED_ROOM; ++*allowed_at)
            put_allowed_ip(message, &peer->allowed_ips[*allowed_at]);
        mnl_attr_nest_end(message, all);
    }
    mnl_attr_nest_end(message, nest);
    return *allowed_at == count;
}

struct nlmsghdr *netlink_put_change(void *buffer, uint16_t family, uint32_t seq, uint32_t ifindex,
                                    const struct device_change *change,
                                    struct netlink_change_at *at)
{
    struct nlmsghdr *message = begin(buffer, family, 0, seq, WG_CMD_SET_DEVICE, ifindex);
    if (change->private_key != NULL && at->peer == 0 && at->allowed == 0)
        mnl_attr_put(message, WGDEVICE_A_PRIVATE_KEY, WG_KEY_LEN, change->private_key);
    if (change->peer_count > 0) {
        struct nlattr *peers = mnl_attr_nest_start(message, WGDEVICE_A_PEERS);
        while (at->peer < change->peer_count &&
               room_left(message, peers) >= PEER_ROOM + ALLOWED_ROOM &&
               put_peer(message, peers, &change->peers[at->peer], &at->allowed)) {
            at->peer++;
            at->allowed = 0;
        }
        mnl_attr_nest_end(message, peers);
    }
    at->done = at->peer == change->peer_count;
    return message;
}
