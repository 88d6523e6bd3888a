// SPDX-License-Identifier: Apache-2.0
// A conversation with the kernel over one netlink socket. Whatever passes through lies in guarded
// memory, and is wiped.
#ifndef APPLIER_NETLINK_TALK_H
#define APPLIER_NETLINK_TALK_H

#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"
#include "netlink.h"

// How long the kernel may take for one request. Setting a key on a device of 10,000 peers takes
// seconds, a dump of them a fraction of one.
#define NETLINK_TALK_TIMEOUT_MS 10000

struct netlink_talk;

// Opens a socket on `bus` (NETLINK_GENERIC, NETLINK_ROUTE), for requests of up to `request_size`
// bytes. Returns 0, or -1 with ERROR_RESOURCE_EXHAUSTED or ERROR_UNAVAILABLE.
int netlink_talk_open(struct netlink_talk **out, int bus, size_t request_size, struct error *err);
void netlink_talk_close(struct netlink_talk *talk); // NULL is fine

// Where the next request is to be built (`request_size` bytes of guarded memory, aligned to 16),
// and its sequence number.
void *netlink_talk_request(struct netlink_talk *talk);
uint32_t netlink_talk_seq(struct netlink_talk *talk);

// Sends `message`, which lies in the buffer of requests, wipes it, hands what comes back to
// `reader` (see netlink_parse) and says in `answer` what came of it. Where answers were lost, or
// this fails, the next request goes over a new socket: what is left of the old one dies with it.
// Returns 0, or -1 with ERROR_UNAVAILABLE, ERROR_DEADLINE_EXCEEDED or what the reader said.
int netlink_talk_ask(struct netlink_talk *talk, const struct nlmsghdr *message,
                     netlink_reader *reader, void *context, struct netlink_answer *answer,
                     struct error *err);

struct device_messages netlink_talk_messages(const struct netlink_talk *talk);

#endif
