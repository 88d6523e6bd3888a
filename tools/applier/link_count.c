// SPDX-License-Identifier: Apache-2.0
// Builds and parses rtnetlink's messages of an interface's counters.
#include "link_count.h"

#include <string.h>

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

struct nlmsghdr *link_count_ask(void *buffer, uint32_t seq, uint32_t ifindex)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = RTM_GETLINK;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message->nlmsg_seq = seq;
    struct ifinfomsg *link = mnl_nlmsg_put_extra_header(message, sizeof *link);
    link->ifi_family = AF_UNSPEC;
    link->ifi_index = (int)ifindex;
    return message;
}

int link_count_read(const struct nlmsghdr *message, void *context, struct error *err)
{
    struct link_count *count = context;
    struct ifinfomsg link;
    const struct nlattr *attr;
    if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof link)
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for an interface");
    memcpy(&link, mnl_nlmsg_get_payload(message), sizeof link);
    if (link.ifi_index != (int)count->ifindex)
        return error_set(err, ERROR_DATA_LOSS, "netlink: the counters of another interface");
    mnl_attr_for_each(attr, message, sizeof link)
    {
        struct rtnl_link_stats64 stats = {0};
        size_t length = mnl_attr_get_payload_len(attr);
        if (mnl_attr_get_type(attr) != IFLA_STATS64)
            continue;
        memcpy(&stats, mnl_attr_get_payload(attr), length < sizeof stats ? length : sizeof stats);
        count->seen = true;
        count->taken = stats.tx_packets + stats.tx_dropped;
    }
    return 0;
}
