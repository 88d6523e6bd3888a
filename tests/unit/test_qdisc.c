// SPDX-License-Identifier: Apache-2.0
// rtnetlink's messages of root qdiscs, and of what links have taken: bytes that are built, answers
// that are read.
#include <string.h>

#include <linux/netlink.h>

#include "datagram.h"
#include "tap.h"
#include "tools/applier/link_counts.h"
#include "tools/applier/qdisc.h"

#define SEQ     7
#define PORTID  4242
#define IFINDEX 0x1234

// struct tcmsg of linux/rtnetlink.h.
static void put_tcmsg(struct datagram *d, uint32_t ifindex, uint32_t handle)
{
    const uint32_t words[] = {0, ifindex, handle, 0xffffffff /* TC_H_ROOT */, 0};
    put(d, words, sizeof words);
}

static void asks(void)
{
    _Alignas(8) uint8_t buffer[QDISC_REQUEST_SIZE];
    struct datagram d = {.length = 0};
    put_message(&d, 38 /* RTM_GETQDISC */, NLM_F_REQUEST | NLM_F_ACK | NLM_F_ECHO, SEQ, 0);
    put_tcmsg(&d, IFINDEX, 0);
    const struct nlmsghdr *message = qdisc_ask_root(buffer, SEQ, IFINDEX);
    CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
    CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
}

static void sets_plug(void)
{
    for (int attach = 0; attach < 2; attach++) {
        _Alignas(8) uint8_t buffer[QDISC_REQUEST_SIZE];
        struct datagram d = {.length = 0};
        const uint32_t options[] = {2 /* TCQ_PLUG_RELEASE_INDEFINITE */, 77777};
        put_message(&d, 36 /* RTM_NEWQDISC */,
                    NLM_F_REQUEST | NLM_F_ACK | (attach ? NLM_F_CREATE | NLM_F_EXCL : 0), SEQ, 0);
        put_tcmsg(&d, IFINDEX, QDISC_HANDLE);
        put_attr(&d, 1 /* TCA_KIND */, "plug", 5);
        put_attr(&d, 2 /* TCA_OPTIONS */, options, sizeof options);
        const struct nlmsghdr *message = qdisc_set_plug(buffer, SEQ, IFINDEX, attach, 2, 77777);
        CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
        CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
    }
}

static void sets_tbf(void)
{
    static const uint64_t rates[] = {1, 100000000000};
    for (int i = 0; i < 2; i++) {
        _Alignas(8) uint8_t buffer[QDISC_REQUEST_SIZE];
        struct datagram d = {.length = 0};
        const struct qdisc_tbf tbf = {
            .rate = rates[i], .burst = 1600, .limit = 77777, .overhead = 60000};
        // struct tc_tbf_qopt of linux/pkt_sched.h: two tc_ratespec, limit, buffer, mtu.
        uint8_t options[36] = {[1] = 1 /* TC_LINKLAYER_ETHERNET */};
        const uint16_t overhead = 60000;
        const uint32_t rate = i == 0 ? 1 : 0xffffffff, limit = 77777, burst = 1600;
        memcpy(options + 2, &overhead, sizeof overhead);
        memcpy(options + 8, &rate, sizeof rate);
        memcpy(options + 24, &limit, sizeof limit);
        put_message(&d, 36, NLM_F_REQUEST | NLM_F_ACK, SEQ, 0);
        put_tcmsg(&d, IFINDEX, QDISC_HANDLE);
        put_attr(&d, 1, "tbf", 4);
        size_t nest = begin_nest(&d, 2);
        put_attr(&d, 1 /* TCA_TBF_PARMS */, options, sizeof options);
        put_attr(&d, 6 /* TCA_TBF_BURST */, &burst, sizeof burst);
        if (i == 1)
            put_attr(&d, 4 /* TCA_TBF_RATE64 */, &rates[i], sizeof rates[i]);
        end_nest(&d, nest);
        const struct nlmsghdr *message = qdisc_set_tbf(buffer, SEQ, IFINDEX, false, &tbf);
        CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
        CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
    }
}

static int parse(const struct datagram *d, struct qdisc_state *state)
{
    struct netlink_answer answer = {0};
    *state = (struct qdisc_state){.ifindex = IFINDEX};
    return netlink_parse(d->bytes, d->length, SEQ, PORTID, qdisc_read_root, state, &answer, NULL);
}

static void reads(void)
{
    struct datagram d = {.length = 0};
    struct qdisc_state state;
    const uint32_t queue[] = {3, 4567, 89, 1, 2}; // qlen, backlog, drops, requeues, overlimits
    put_message(&d, 36, 0, SEQ, PORTID);
    put_tcmsg(&d, IFINDEX, QDISC_HANDLE);
    put_attr(&d, 1, "plug", 5);
    size_t stats = begin_nest(&d, 7 /* TCA_STATS2 */);
    put_attr(&d, 1 /* TCA_STATS_BASIC */, queue, 12); // bytes: 64 bits, packets: the third word
    put_attr(&d, 3 /* TCA_STATS_QUEUE */, queue, sizeof queue);
    end_nest(&d, stats);
    CU_ASSERT_EQUAL(parse(&d, &state), 0);
    CU_ASSERT(state.seen && state.handle == QDISC_HANDLE);
    CU_ASSERT_STRING_EQUAL(state.kind, "plug");
    CU_ASSERT(state.packets == 3 && state.bytes == 4567 && state.dropped == 89);
    CU_ASSERT_EQUAL(state.passed, 89);
}

static void asks_for_counts(void)
{
    _Alignas(8) uint8_t buffer[QDISC_REQUEST_SIZE];
    struct datagram d = {.length = 0};
    const uint32_t link[] = {0, IFINDEX, 0, 0}; // struct ifinfomsg of linux/rtnetlink.h
    put_message(&d, 18 /* RTM_GETLINK */, NLM_F_REQUEST | NLM_F_ACK, SEQ, 0);
    put(&d, link, sizeof link);
    const struct nlmsghdr *message = link_counts_ask(buffer, SEQ, IFINDEX);
    CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
    CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
}

static int parse_counts(const struct datagram *d, struct link_counts *counts)
{
    struct netlink_answer answer = {0};
    *counts = (struct link_counts){.ifindex = IFINDEX};
    return netlink_parse(d->bytes, d->length, SEQ, PORTID, link_counts_read, counts, &answer, NULL);
}

static void reads_counts(void)
{
    // struct rtnl_link_stats64: packets received and sent, bytes, errors, dropped, …
    const uint64_t stats[24] = {1, 20000000000, 3, 4, 5, 6, 7, 80};
    const uint32_t link[] = {0, IFINDEX, 0, 0}, other[] = {0, IFINDEX + 1, 0, 0};
    struct datagram d = {.length = 0}, wrong = {.length = 0}, qdisc = {.length = 0};
    struct link_counts counts;
    put_message(&d, 16 /* RTM_NEWLINK */, 0, SEQ, PORTID);
    put(&d, link, sizeof link);
    put_attr(&d, 3 /* IFLA_IFNAME */, "wg0", 4);
    put_attr(&d, 23 /* IFLA_STATS64 */, stats, sizeof stats);
    size_t info = begin_nest(&d, 18 /* IFLA_LINKINFO */);
    put_attr(&d, 1 /* IFLA_INFO_KIND */, "tun", 4);
    end_nest(&d, info);
    CU_ASSERT_EQUAL(parse_counts(&d, &counts), 0);
    CU_ASSERT(counts.seen && counts.is_tun && counts.taken == 20000000080);
    put_message(&wrong, 16, 0, SEQ, PORTID);
    put(&wrong, other, sizeof other);
    CU_ASSERT_EQUAL(parse_counts(&wrong, &counts), -1);
    put_message(&qdisc, 36, 0, SEQ, PORTID);
    put_tcmsg(&qdisc, IFINDEX, QDISC_HANDLE);
    CU_ASSERT_EQUAL(parse_counts(&qdisc, &counts), -1);
    CU_ASSERT(!counts.seen);
}

static void refuses_others(void)
{
    struct datagram d = {.length = 0}, link = {.length = 0}, cut = {.length = 0};
    struct qdisc_state state;
    put_message(&d, 36, 0, SEQ, PORTID);
    put_tcmsg(&d, IFINDEX + 1, QDISC_HANDLE);
    CU_ASSERT_EQUAL(parse(&d, &state), -1);
    put_message(&link, 16 /* RTM_NEWLINK */, 0, SEQ, PORTID);
    put_tcmsg(&link, IFINDEX, QDISC_HANDLE);
    CU_ASSERT_EQUAL(parse(&link, &state), -1);
    put_message(&cut, 36, 0, SEQ, PORTID);
    put(&cut, (const uint32_t[]){0, IFINDEX, QDISC_HANDLE}, 12);
    CU_ASSERT_EQUAL(parse(&cut, &state), -1);
    CU_ASSERT(!state.seen);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"asking for a root qdisc: the bytes that linux/rtnetlink.h asks for", asks},
        {"plug: the bytes that linux/pkt_sched.h asks for", sets_plug},
        {"tbf: the bytes that linux/pkt_sched.h asks for", sets_tbf},
        {"kind, handle and what waits are read", reads},
        {"asking for a link's counts: the bytes that linux/rtnetlink.h asks for", asks_for_counts},
        {"a link's kind and counts are read, of the one asked for", reads_counts},
        {"other answers are refused", refuses_others},
        CU_TEST_INFO_NULL,
    };
    return tap_run("qdisc", tests);
}
