// SPDX-License-Identifier: Apache-2.0
// rtnetlink's messages of routes: those that lead to an interface are read, and put anew so that
// they lead to another; pure.
//
// Formats: linux/rtnetlink.h of the kernel's user API.
#ifndef APPLIER_ROUTE_H
#define APPLIER_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#include <linux/rtnetlink.h>

#include "netlink.h"

#define ROUTE_REQUEST_SIZE    512 // bytes: room for any request built here
#define ROUTE_ATTRIBUTES_SIZE 400

// A route as the kernel tells it, without the interface that it leads to.
struct route {
    struct rtmsg header;
    size_t length;
    _Alignas(4) uint8_t attributes[ROUTE_ATTRIBUTES_SIZE];
};

// Requests, in `buffer` (ROUTE_REQUEST_SIZE bytes, aligned to 4): for all routes; to make `route`
// lead to `ifindex`, in the place of the one that it is but for that, or (IPv4) before it, or no
// more.
struct nlmsghdr *route_ask_all(void *buffer, uint32_t seq);
struct nlmsghdr *route_replace(void *buffer, uint32_t seq, const struct route *route,
                               uint32_t ifindex);
struct nlmsghdr *route_prepend(void *buffer, uint32_t seq, const struct route *route,
                               uint32_t ifindex);
struct nlmsghdr *route_delete(void *buffer, uint32_t seq, const struct route *route,
                              uint32_t ifindex);

// Those that were read: unicast ones that lead to `ifindex` and nowhere else, link-local ones
// aside.
struct routes {
    uint32_t ifindex; // asked for
    struct route *items;
    size_t count, room;
};
int routes_read(const struct nlmsghdr *message, void *routes /* struct routes * */,
                struct error *err);
// Forgets all.
void routes_clear(struct routes *routes);

#endif
