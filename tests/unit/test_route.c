// SPDX-License-Identifier: Apache-2.0
// rtnetlink's messages of routes: which are taken, and what they become when they lead elsewhere.
#include <string.h>
#include <sys/socket.h>

#include "datagram.h"
#include "tap.h"
#include "tools/applier/route.h"

#define SEQ     7
#define PORTID  4242
#define IFINDEX 0x1234
#define SECOND  0x4321

enum { DST = 1, OIF = 4, PRIORITY = 6, PREFSRC = 7, MULTIPATH = 9, CACHEINFO = 12, TABLE = 15 };

// struct rtmsg of linux/rtnetlink.h: family, lengths of destination and source, tos, table,
// protocol, scope, type, and flags.
static void put_route(struct datagram *d, uint8_t family, uint8_t bits, uint8_t type,
                      uint32_t flags)
{
    const uint8_t header[8] = {family, bits, 0, 0, 254, 3, 253, type};
    put(d, header, sizeof header);
    put(d, &flags, sizeof flags);
}

static int parse(const struct datagram *d, struct routes *routes)
{
    struct netlink_answer answer = {0};
    return netlink_parse(d->bytes, d->length, SEQ, PORTID, routes_read, routes, &answer, NULL);
}

static void asks(void)
{
    _Alignas(8) uint8_t buffer[ROUTE_REQUEST_SIZE];
    struct datagram d = {.length = 0};
    const uint8_t header[12] = {0};
    put_message(&d, 26 /* RTM_GETROUTE */, NLM_F_REQUEST | NLM_F_DUMP, SEQ, 0);
    put(&d, header, sizeof header);
    const struct nlmsghdr *message = route_ask_all(buffer, SEQ);
    CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
    CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
}

// All of a route but its interface, how long it was there and what the kernel found of it.
static void replaces(void)
{
    static const uint8_t destination[4] = {10, 66, 0, 0}, own[4] = {10, 66, 0, 2};
    const uint32_t table = 254, there = IFINDEX, second = SECOND, metric = 50;
    _Alignas(8) uint8_t buffer[ROUTE_REQUEST_SIZE];
    struct datagram d = {.length = 0}, expected = {.length = 0};
    struct routes routes = {.ifindex = IFINDEX};
    put_message(&d, 24 /* RTM_NEWROUTE */, NLM_F_MULTI, SEQ, PORTID);
    put_route(&d, AF_INET, 16, 1 /* RTN_UNICAST */, 0x10 /* RTNH_F_LINKDOWN */);
    put_attr(&d, TABLE, &table, 4);
    put_attr(&d, DST, destination, 4);
    put_attr(&d, PRIORITY, &metric, 4);
    put_attr(&d, PREFSRC, own, 4);
    put_attr(&d, OIF, &there, 4);
    put_attr(&d, CACHEINFO, buffer, 32);
    CU_ASSERT_EQUAL(parse(&d, &routes), 0);
    CU_ASSERT_EQUAL_FATAL(routes.count, 1);
    put_message(&expected, 24, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, SEQ, 0);
    put_route(&expected, AF_INET, 16, 1, 0);
    put_attr(&expected, TABLE, &table, 4);
    put_attr(&expected, DST, destination, 4);
    put_attr(&expected, PRIORITY, &metric, 4);
    put_attr(&expected, PREFSRC, own, 4);
    put_attr(&expected, OIF, &second, 4);
    const struct nlmsghdr *message = route_replace(buffer, SEQ, &routes.items[0], SECOND);
    CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, expected.length);
    CU_ASSERT_EQUAL(memcmp(buffer, expected.bytes, expected.length), 0);
    // Before it, and no more: the same but for the message's type and flags.
    struct nlmsghdr header = *message;
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    memcpy(expected.bytes, &header, sizeof header);
    (void)route_prepend(buffer, SEQ, &routes.items[0], SECOND);
    CU_ASSERT_EQUAL(memcmp(buffer, expected.bytes, expected.length), 0);
    header.nlmsg_type = 25; // RTM_DELROUTE
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    memcpy(expected.bytes, &header, sizeof header);
    (void)route_delete(buffer, SEQ, &routes.items[0], SECOND);
    CU_ASSERT_EQUAL(memcmp(buffer, expected.bytes, expected.length), 0);
    routes_clear(&routes);
    CU_ASSERT_EQUAL(routes.count, 0);
}

static void leaves_others(void)
{
    static const uint8_t link_local[16] = {0xfe, 0x80}, global[16] = {0xfd};
    static const struct {
        uint8_t family, type;
        uint32_t ifindex;
        const uint8_t *destination; // NULL: the default route
        uint16_t extra;             // an attribute more
        uint16_t extra_length;
        size_t count;
    } rows[] = {
        {AF_INET6, 1, IFINDEX, global, 0, 0, 1},
        {AF_INET6, 1, IFINDEX, NULL, 0, 0, 1},
        {AF_INET6, 1, SECOND, global, 0, 0, 0},
        {AF_INET6, 2 /* RTN_LOCAL */, IFINDEX, global, 0, 0, 0},
        {AF_INET6, 1, IFINDEX, link_local, 0, 0, 0},
        {AF_INET6, 1, IFINDEX, global, MULTIPATH, 16, 0},
        {AF_INET6, 1, IFINDEX, global, 30, 500, 0}, // more than is understood
        {AF_BRIDGE, 1, IFINDEX, global, 0, 0, 0},
    };
    static const uint8_t zeros[512];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct datagram d = {.length = 0};
        struct routes routes = {.ifindex = IFINDEX};
        put_message(&d, 24, NLM_F_MULTI, SEQ, PORTID);
        put_route(&d, rows[i].family, rows[i].destination != NULL ? 64 : 0, rows[i].type, 0);
        if (rows[i].destination != NULL)
            put_attr(&d, DST, rows[i].destination, 16);
        if (rows[i].extra != 0)
            put_attr(&d, rows[i].extra, zeros, rows[i].extra_length);
        put_attr(&d, OIF, &rows[i].ifindex, 4);
        CU_ASSERT_EQUAL(parse(&d, &routes), 0);
        CU_ASSERT_EQUAL(routes.count, rows[i].count);
        routes_clear(&routes);
    }
}

static void refuses(void)
{
    struct datagram link = {.length = 0}, cut = {.length = 0};
    struct routes routes = {.ifindex = IFINDEX};
    put_message(&link, 16 /* RTM_NEWLINK */, 0, SEQ, PORTID);
    put_route(&link, AF_INET, 16, 1, 0);
    CU_ASSERT_EQUAL(parse(&link, &routes), -1);
    put_message(&cut, 24, 0, SEQ, PORTID);
    put(&cut, "\2\20\0", 4);
    CU_ASSERT_EQUAL(parse(&cut, &routes), -1);
    CU_ASSERT_EQUAL(routes.count, 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"asking for all: the bytes that linux/rtnetlink.h asks for", asks},
        {"a route leads elsewhere, and is the same but for that", replaces},
        {"only unicast routes that lead to the interface are taken", leaves_others},
        {"what is no route is refused", refuses},
        CU_TEST_INFO_NULL,
    };
    return tap_run("route", tests);
}
