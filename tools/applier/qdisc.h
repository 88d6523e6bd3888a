// SPDX-License-Identifier: Apache-2.0
// rtnetlink messages about an interface's root qdisc: plug and tbf set, whatever is there read;
// pure.
//
// Formats: linux/rtnetlink.h, linux/pkt_sched.h and linux/gen_stats.h of the kernel's user API.
#ifndef APPLIER_QDISC_H
#define APPLIER_QDISC_H

#include <stdbool.h>
#include <stdint.h>

#include "netlink.h"

#define QDISC_REQUEST_SIZE 256         // bytes: room for any request built here
#define QDISC_HANDLE       0x43570000u // of every qdisc that we attach: tells ours from others'
#define QDISC_KIND_MAX     15          // bytes of a kind's name, without the NUL

// Requests, in `buffer` (QDISC_REQUEST_SIZE bytes, aligned to 4). `attach`: make it the root, which
// must be the kernel's default; else change the one of ours that is there.
struct nlmsghdr *qdisc_ask_root(void *buffer, uint32_t seq, uint32_t ifindex);
// `action` is a TCQ_PLUG_*; one that is attached is blocking, whatever `action` says.
struct nlmsghdr *qdisc_set_plug(void *buffer, uint32_t seq, uint32_t ifindex, bool attach,
                                int action, uint32_t limit);
// `overhead`: bytes that each packet costs beyond its own; its own must fit `burst`, else the
// kernel drops it.
struct qdisc_tbf {
    uint64_t rate;         // bytes a second
    uint32_t burst, limit; // bytes
    uint16_t overhead;
};
struct nlmsghdr *qdisc_set_tbf(void *buffer, uint32_t seq, uint32_t ifindex, bool attach,
                               const struct qdisc_tbf *tbf);

// What the root qdisc is.
struct qdisc_state {
    uint32_t ifindex;              // asked for; an answer about another is refused
    bool seen;                     // an answer came
    char kind[QDISC_KIND_MAX + 1]; // cut where it is longer
    uint32_t handle;               // 0: the kernel's default
    uint32_t packets, bytes;       // waiting
    uint32_t dropped;
    uint32_t passed; // packets that it let through since it was attached; wraps
};
int qdisc_read_root(const struct nlmsghdr *message, void *state /* struct qdisc_state * */,
                    struct error *err);

#endif
