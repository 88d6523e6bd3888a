// SPDX-License-Identifier: Apache-2.0
// Builds and parses rtnetlink's messages of root qdiscs.
#include "qdisc.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <linux/gen_stats.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

// ---- building ----

static struct nlmsghdr *begin(void *buffer, uint16_t type, uint16_t flags, uint32_t seq,
                              uint32_t ifindex)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message->nlmsg_seq = seq;
    struct tcmsg *qdisc = mnl_nlmsg_put_extra_header(message, sizeof *qdisc);
    qdisc->tcm_family = AF_UNSPEC;
    qdisc->tcm_ifindex = (int)ifindex;
    qdisc->tcm_parent = TC_H_ROOT;
    return message;
}

struct nlmsghdr *qdisc_ask_root(void *buffer, uint32_t seq, uint32_t ifindex)
{
    // Without NLM_F_ECHO the kernel tells those who listen for changes, and not us.
    return begin(buffer, RTM_GETQDISC, NLM_F_ECHO, seq, ifindex);
}

static struct nlmsghdr *begin_set(void *buffer, uint32_t seq, uint32_t ifindex, bool attach,
                                  const char *kind)
{
    struct nlmsghdr *message =
        begin(buffer, RTM_NEWQDISC, attach ? NLM_F_CREATE | NLM_F_EXCL : 0, seq, ifindex);
    struct tcmsg *qdisc = mnl_nlmsg_get_payload(message);
    qdisc->tcm_handle = QDISC_HANDLE;
    mnl_attr_put_strz(message, TCA_KIND, kind);
    return message;
}

struct nlmsghdr *qdisc_set_plug(void *buffer, uint32_t seq, uint32_t ifindex, bool attach,
                                int action, uint32_t limit)
{
    struct nlmsghdr *message = begin_set(buffer, seq, ifindex, attach, "plug");
    const struct tc_plug_qopt options = {.action = action, .limit = limit};
    mnl_attr_put(message, TCA_OPTIONS, sizeof options, &options);
    return message;
}

struct nlmsghdr *qdisc_set_tbf(void *buffer, uint32_t seq, uint32_t ifindex, bool attach,
                               const struct qdisc_tbf *tbf)
{
    struct nlmsghdr *message = begin_set(buffer, seq, ifindex, attach, "tbf");
    const struct tc_tbf_qopt options = {
        // A link layer that is known: of an unknown one the kernel wants a table.
        .rate = {.rate = tbf->rate < UINT32_MAX ? (uint32_t)tbf->rate : UINT32_MAX,
                 .linklayer = TC_LINKLAYER_ETHERNET,
                 .overhead = tbf->overhead},
        .limit = tbf->limit,
    };
    struct nlattr *nest = mnl_attr_nest_start(message, TCA_OPTIONS);
    mnl_attr_put(message, TCA_TBF_PARMS, sizeof options, &options);
    mnl_attr_put_u32(message, TCA_TBF_BURST, tbf->burst);
    if (tbf->rate >= UINT32_MAX)
        mnl_attr_put_u64(message, TCA_TBF_RATE64, tbf->rate);
    mnl_attr_nest_end(message, nest);
    return message;
}

// ---- parsing ----

// struct gnet_stats_basic is padded at its end; the kernel may send it without.
#define BASIC_SIZE (offsetof(struct gnet_stats_basic, packets) + sizeof(uint32_t))

static void take_stats(const struct nlattr *stats, struct qdisc_state *state)
{
    const struct nlattr *attr;
    struct gnet_stats_basic basic;
    struct gnet_stats_queue queue;
    mnl_attr_for_each_nested(attr, stats)
    {
        if (mnl_attr_get_type(attr) == TCA_STATS_BASIC &&
            mnl_attr_get_payload_len(attr) >= BASIC_SIZE) {
            memcpy(&basic, mnl_attr_get_payload(attr), BASIC_SIZE);
            state->passed = basic.packets;
        }
        if (mnl_attr_get_type(attr) != TCA_STATS_QUEUE ||
            mnl_attr_get_payload_len(attr) < sizeof queue)
            continue;
        memcpy(&queue, mnl_attr_get_payload(attr), sizeof queue);
        state->packets = queue.qlen;
        state->bytes = queue.backlog;
        state->dropped = queue.drops;
    }
}

int qdisc_read_root(const struct nlmsghdr *message, void *context, struct error *err)
{
    struct qdisc_state *state = context;
    struct tcmsg qdisc;
    const struct nlattr *attr;
    if (message->nlmsg_type != RTM_NEWQDISC || mnl_nlmsg_get_payload_len(message) < sizeof qdisc)
        return error_set(err, ERROR_DATA_LOSS,
                         "netlink: an unexpected answer to a question for a qdisc");
    memcpy(&qdisc, mnl_nlmsg_get_payload(message), sizeof qdisc);
    if (qdisc.tcm_ifindex != (int)state->ifindex)
        return error_set(err, ERROR_DATA_LOSS, "netlink: a qdisc of another interface");
    state->seen = true;
    state->handle = qdisc.tcm_handle;
    mnl_attr_for_each(attr, message, sizeof qdisc)
    {
        if (mnl_attr_get_type(attr) == TCA_KIND &&
            mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
            snprintf(state->kind, sizeof state->kind, "%s", mnl_attr_get_str(attr));
        else if (mnl_attr_get_type(attr) == TCA_STATS2)
            take_stats(attr, state);
    }
    return 0;
}
