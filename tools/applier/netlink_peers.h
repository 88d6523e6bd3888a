// SPDX-License-Identifier: Apache-2.0
// The kernel's netlink messages about a WireGuard device with its peers: read into a view, and
// built from a change; pure.
#ifndef APPLIER_NETLINK_PEERS_H
#define APPLIER_NETLINK_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"
#include "netlink.h"
#include "preshared.h"

// Bytes: room for a request of peers. They are one attribute, whose length is a 16-bit number.
#define NETLINK_CHANGE_SIZE (65536 + 256)

// Asks for the whole device of that interface index.
struct nlmsghdr *netlink_ask_view(void *buffer, uint16_t family, uint32_t seq, uint32_t ifindex);

// Reads a dump's messages, one after the other; peers are appended to `view`.
struct netlink_view {
    uint32_t ifindex; // asked for; an answer about another is refused
    bool seen;        // an answer about it came
    struct device_view *view;
    struct preshared *wanted; // filled in for the peers it names; may be NULL
};
int netlink_read_view(const struct nlmsghdr *message, void *view /* struct netlink_view * */,
                      struct error *err);

// How far a change has been put into messages. Zero it before the first.
struct netlink_change_at {
    size_t peer;    // the next one
    size_t allowed; // of its allowed-ips, how many went before
    bool done;
};

// Builds the next message of `change` in `buffer` (NETLINK_CHANGE_SIZE bytes of guarded memory,
// aligned to 4: keys are put into it), as much as it holds, and moves `at`. To be called until
// at->done. Whoever is to have its preshared key copied must have it in `preshared` by now.
struct nlmsghdr *netlink_put_change(void *buffer, uint16_t family, uint32_t seq, uint32_t ifindex,
                                    const struct device_change *change,
                                    struct netlink_change_at *at);

#endif
