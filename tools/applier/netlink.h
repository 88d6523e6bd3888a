// SPDX-License-Identifier: Apache-2.0
// Netlink messages to and from the kernel's WireGuard: built and parsed here, pure; sent and
// received elsewhere.
//
// Formats: linux/genetlink.h, linux/wireguard.h and linux/rtnetlink.h of the kernel's user API.
#ifndef APPLIER_NETLINK_H
#define APPLIER_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libmnl/libmnl.h>

#include "device.h"
#include "error.h"

#define NETLINK_REQUEST_SIZE 512 // bytes: room for any request built here

// Requests. `buffer` has NETLINK_REQUEST_SIZE bytes, aligned to 4; what is returned lies in it.
struct nlmsghdr *netlink_ask_family(void *buffer, uint32_t seq);
struct nlmsghdr *netlink_ask_device(void *buffer, uint16_t family, uint32_t seq,
                                    const char *interface);
struct nlmsghdr *netlink_ask_links(void *buffer, uint32_t seq);
// Holds the private key: `buffer` must be guarded memory, and wiped as soon as it is sent.
struct nlmsghdr *netlink_set_private_key(void *buffer, uint16_t family, uint32_t seq,
                                         const char *interface,
                                         const uint8_t private_key[DEVICE_KEY_SIZE]);

// What the datagrams received so far for one request amount to. Zero it before the first.
struct netlink_answer {
    bool done;        // acknowledged, refused, or the end of a dump
    bool interrupted; // what is dumped changed meanwhile, or messages were lost: ask again
    int error;        // the errno value the kernel refused with, or 0
    char text[200];   // and its own words for it (extended acknowledgement), or ""
};

// Whether a whole message stands in the next `left` bytes. (Not mnl_nlmsg_ok: libmnl 1.0.4 takes a
// length of 2^31 and more for a negative one, and so for a small one.)
bool netlink_fits(const struct nlmsghdr *message, int left);

// Takes one message of data. Returns 0, or -1 with `err` filled when it makes no sense.
typedef int netlink_reader(const struct nlmsghdr *message, void *context, struct error *err);

// Parses one datagram of `length` bytes, aligned to 4. Messages of another request or to another
// socket are passed over. Each data message goes to `reader` (may be NULL: data is passed over).
// Returns 0, or -1 with ERROR_DATA_LOSS.
int netlink_parse(const void *datagram, size_t length, uint32_t seq, uint32_t portid,
                  netlink_reader *reader, void *context, struct netlink_answer *answer,
                  struct error *err);

// Readers, each with its context.
int netlink_read_family(const struct nlmsghdr *message, void *family /* uint16_t * */,
                        struct error *err);

struct netlink_device {
    const char *interface;               // asked for; an answer about another is refused
    bool seen;                           // an answer about it came
    uint8_t public_key[DEVICE_KEY_SIZE]; // all zeros: the device has no key
    uint8_t *private_key;                // guarded memory to copy it into; NULL: leave it there
};
int netlink_read_device(const struct nlmsghdr *message, void *device /* struct netlink_device * */,
                        struct error *err);

struct netlink_links {
    device_found *found; // called for each link of kind "wireguard"
    void *context;
};
int netlink_read_link(const struct nlmsghdr *message, void *links /* struct netlink_links * */,
                      struct error *err);

#endif
