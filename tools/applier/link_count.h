// SPDX-License-Identifier: Apache-2.0
// rtnetlink messages about how many packets an interface has taken from its queue; pure.
//
// Formats: linux/rtnetlink.h and linux/if_link.h of the kernel's user API.
#ifndef APPLIER_LINK_COUNT_H
#define APPLIER_LINK_COUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "netlink.h"

#define LINK_COUNT_REQUEST_SIZE 64 // bytes

// A request for the counters, in `buffer` (aligned to 4).
struct nlmsghdr *link_count_ask(void *buffer, uint32_t seq, uint32_t ifindex);

struct link_count {
    uint32_t ifindex; // asked for; an answer about another is refused
    bool seen;        // an answer with counters came
    uint64_t taken;   // packets, sent or dropped
};
int link_count_read(const struct nlmsghdr *message, void *count /* struct link_count * */,
                    struct error *err);

#endif
