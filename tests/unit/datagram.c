// SPDX-License-Identifier: Apache-2.0
// Puts netlink datagrams together, byte by byte.
#include "datagram.h"

#include <string.h>

void put(struct datagram *d, const void *bytes, size_t length)
{
    memcpy(d->bytes + d->length, bytes, length);
    d->length += length;
    while (d->length % 4 != 0)
        d->bytes[d->length++] = 0;
    uint32_t total = (uint32_t)(d->length - d->message);
    memcpy(d->bytes + d->message, &total, sizeof total);
}

void put_message(struct datagram *d, uint16_t type, uint16_t flags, uint32_t seq, uint32_t portid)
{
    uint32_t zero = 0;
    d->message = d->length;
    put(d, &zero, 4);
    put(d, (const uint16_t[]){type, flags}, 4);
    put(d, &seq, 4);
    put(d, &portid, 4);
}

void put_attr(struct datagram *d, uint16_t type, const void *bytes, uint16_t length)
{
    put(d, (const uint16_t[]){(uint16_t)(length + 4), type}, 4);
    put(d, bytes, length);
}

size_t begin_nest(struct datagram *d, uint16_t type)
{
    size_t nest = d->length;
    put_attr(d, type | 0x8000 /* NLA_F_NESTED */, "", 0);
    return nest;
}

void end_nest(struct datagram *d, size_t nest)
{
    uint16_t length = (uint16_t)(d->length - nest);
    memcpy(d->bytes + nest, &length, sizeof length);
}
