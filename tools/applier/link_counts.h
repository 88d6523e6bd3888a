// SPDX-License-Identifier: Apache-2.0
// rtnetlink's messages of what an interface is and how many packets it has taken; pure.
//
// Formats: linux/rtnetlink.h and linux/if_link.h of the kernel's user API.
#ifndef APPLIER_LINK_COUNTS_H
#define APPLIER_LINK_COUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "netlink.h"

// A request, in `buffer` (64 bytes, aligned to 4).
struct nlmsghdr *link_counts_ask(void *buffer, uint32_t seq, uint32_t ifindex);

struct link_counts {
    uint32_t ifindex; // asked for; an answer about another is refused
    bool seen;        // an answer with counts came
    bool is_tun;      // a daemon reads what is sent
    uint64_t taken;   // packets sent or dropped, since it was made (tun: read by the daemon)
};
int link_counts_read(const struct nlmsghdr *message, void *counts /* struct link_counts * */,
                     struct error *err);

#endif
