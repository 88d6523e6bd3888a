// SPDX-License-Identifier: Apache-2.0
// A netlink datagram put together by hand, independently of what is tested.
#ifndef TESTS_UNIT_DATAGRAM_H
#define TESTS_UNIT_DATAGRAM_H

#include <stddef.h>
#include <stdint.h>

struct datagram {
    _Alignas(8) uint8_t bytes[4096];
    size_t length;
    size_t message; // where the last message begins
};

// Appends to the last message, padded to whole words, and tells its length anew.
void put(struct datagram *d, const void *bytes, size_t length);
// Begins a message: its header.
void put_message(struct datagram *d, uint16_t type, uint16_t flags, uint32_t seq, uint32_t portid);
void put_attr(struct datagram *d, uint16_t type, const void *bytes, uint16_t length);
// Attributes put between the two are within one of `type`.
size_t begin_nest(struct datagram *d, uint16_t type);
void end_nest(struct datagram *d, size_t nest);

#endif
