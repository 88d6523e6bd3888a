// SPDX-License-Identifier: Apache-2.0
// Builds and parses rtnetlink's messages of one link.
#include "link_counts.h"

#include <string.h>

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

struct nlmsghdr *link_counts_ask(void *buffer, uint32_t seq, uint32_t ifindex)
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

static void take_kind(const struct nlattr *info, struct link_counts *counts)
{
    const struct nlattr *attr;
    mnl_attr_for_each_nested(attr, info)
    {
        if (mnl_attr_get_type(attr) == IFLA_INFO_KIND &&
            mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
            counts->is_tun = strcmp(mnl_attr_get_str(attr), "tun") == 0;
    }
}

static void take_stats(const struct nlattr *attr, struct link_counts *counts)
{
    // Kernels append to the struct: what is needed stands at its beginning.
    struct {
        uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped,
            tx_dropped;
    } stats;
    if (mnl_attr_get_payload_len(attr) < sizeof stats)
        return;
    memcpy(&stats, mnl_attr_get_payload(attr), sizeof stats);
    counts->seen = true;
    counts->taken = stats.tx_packets + stats.tx_dropped;
}

int link_counts_read(const struct nlmsghdr *message, void *context, struct error *err)
{
    struct link_counts *counts = context;
    struct ifinfomsg link;
    const struct nlattr *attr;
    if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof link)
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for a link");
    memcpy(&link, mnl_nlmsg_get_payload(message), sizeof link);
    if (link.ifi_index != (int)counts->ifindex)
        return error_set(err, ERROR_DATA_LOSS, "netlink: another link than the one asked for");
    mnl_attr_for_each(attr, message, sizeof link)
    {
        if (mnl_attr_get_type(attr) == IFLA_LINKINFO)
            take_kind(attr, counts);
        else if (mnl_attr_get_type(attr) == IFLA_STATS64)
            take_stats(attr, counts);
    }
    return 0;
}
