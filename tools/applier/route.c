// SPDX-License-Identifier: Apache-2.0
// Builds and parses rtnetlink's messages of routes.
#include "route.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct nlmsghdr *begin(void *buffer, uint16_t type, uint16_t flags, uint32_t seq)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | flags;
    message->nlmsg_seq = seq;
    return message;
}

struct nlmsghdr *route_ask_all(void *buffer, uint32_t seq)
{
    struct nlmsghdr *message = begin(buffer, RTM_GETROUTE, NLM_F_DUMP, seq);
    struct rtmsg *header = mnl_nlmsg_put_extra_header(message, sizeof *header);
    header->rtm_family = AF_UNSPEC;
    return message;
}

static struct nlmsghdr *put(void *buffer, uint16_t type, uint16_t flags, uint32_t seq,
                            const struct route *route, uint32_t ifindex)
{
    struct nlmsghdr *message = begin(buffer, type, NLM_F_ACK | flags, seq);
    struct rtmsg *header = mnl_nlmsg_put_extra_header(message, sizeof *header);
    *header = route->header;
    memcpy(mnl_nlmsg_get_payload_tail(message), route->attributes, route->length);
    message->nlmsg_len += (uint32_t)route->length;
    mnl_attr_put_u32(message, RTA_OIF, ifindex);
    return message;
}

struct nlmsghdr *route_replace(void *buffer, uint32_t seq, const struct route *route,
                               uint32_t ifindex)
{
    return put(buffer, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, seq, route, ifindex);
}

struct nlmsghdr *route_prepend(void *buffer, uint32_t seq, const struct route *route,
                               uint32_t ifindex)
{
    return put(buffer, RTM_NEWROUTE, NLM_F_CREATE, seq, route, ifindex);
}

struct nlmsghdr *route_delete(void *buffer, uint32_t seq, const struct route *route,
                              uint32_t ifindex)
{
    return put(buffer, RTM_DELROUTE, 0, seq, route, ifindex);
}

// ---- reading ----

static bool is_link_local(const struct rtmsg *header, const struct nlattr *destination)
{
    const uint8_t *address = mnl_attr_get_payload(destination);
    if (header->rtm_family == AF_INET6)
        return mnl_attr_get_payload_len(destination) == 16 && address[0] == 0xfe &&
               (address[1] & 0xc0) == 0x80;
    return false;
}

// Copies what a route is made of; false where that is not ours to move.
static bool copy_attributes(const struct nlmsghdr *message, struct route *route, uint32_t ifindex)
{
    const struct nlattr *attr;
    bool leads_there = false;
    mnl_attr_for_each(attr, message, sizeof(struct rtmsg))
    {
        size_t length = MNL_ALIGN(attr->nla_len);
        switch (mnl_attr_get_type(attr)) {
        case RTA_OIF:
            leads_there =
                mnl_attr_validate(attr, MNL_TYPE_U32) == 0 && mnl_attr_get_u32(attr) == ifindex;
            continue;
        case RTA_CACHEINFO: // how long it has been there
            continue;
        case RTA_MULTIPATH:
            return false;
        case RTA_DST:
            if (is_link_local(&route->header, attr))
                return false;
            break;
        default:
            break;
        }
        if (length > sizeof route->attributes - route->length)
            return false;
        memcpy(route->attributes + route->length, attr, attr->nla_len);
        route->length += length;
    }
    return leads_there;
}

int routes_read(const struct nlmsghdr *message, void *context, struct error *err)
{
    struct routes *routes = context;
    struct route route = {.length = 0};
    if (message->nlmsg_type != RTM_NEWROUTE ||
        mnl_nlmsg_get_payload_len(message) < sizeof route.header)
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for routes");
    memcpy(&route.header, mnl_nlmsg_get_payload(message), sizeof route.header);
    if ((route.header.rtm_family != AF_INET && route.header.rtm_family != AF_INET6) ||
        route.header.rtm_type != RTN_UNICAST || (route.header.rtm_flags & RTM_F_CLONED) != 0 ||
        !copy_attributes(message, &route, routes->ifindex))
        return 0;
    route.header.rtm_flags = 0; // the rest is what the kernel found
    if (routes->count == routes->room) {
        size_t room = routes->room == 0 ? 16 : 2 * routes->room;
        struct route *grown = realloc(routes->items, room * sizeof *grown);
        if (grown == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu routes", room);
        routes->items = grown;
        routes->room = room;
    }
    routes->items[routes->count++] = route;
    return 0;
}

void routes_clear(struct routes *routes)
{
    free(routes->items);
    routes->items = NULL;
    routes->count = routes->room = 0;
}
