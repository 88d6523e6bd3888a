// SPDX-License-Identifier: Apache-2.0
// WireGuard's netlink messages with peers: what is built, whole and split, and dumps, true and
// hostile, that are read.
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netlink.h>
#include <sodium.h>

#include "datagram.h"
#include "tap.h"
#include "tools/applier/netlink_peers.h"

#define FAMILY  0x1c
#define SEQ     7
#define PORTID  4242
#define IFINDEX 0x1234

static const uint8_t DEVICE_KEY[DEVICE_KEY_SIZE] = {0xd0, [31] = 0xd1};
static const uint8_t PEER1[DEVICE_KEY_SIZE] = {0x11, [31] = 0x1f};
static const uint8_t PEER2[DEVICE_KEY_SIZE] = {0x22, [31] = 0x2f};
static const uint8_t PSK[DEVICE_KEY_SIZE] = {0x77, [31] = 0x7f};

// ---- dumps, with linux/wireguard.h's numbers ----

static void put_part(struct datagram *d)
{
    put_message(d, FAMILY, NLM_F_MULTI, SEQ, PORTID);
    put(d, (const uint8_t[]){0 /* WG_CMD_GET_DEVICE */, 1, 0, 0}, 4);
}

static void put_device(struct datagram *d, uint32_t ifindex)
{
    const uint16_t port = 51820;
    const uint32_t mark = 0x51;
    put_part(d);
    put_attr(d, 6 /* LISTEN_PORT */, &port, sizeof port);
    put_attr(d, 7 /* FWMARK */, &mark, sizeof mark);
    put_attr(d, 1 /* IFINDEX */, &ifindex, sizeof ifindex);
    put_attr(d, 2 /* IFNAME */, "wg0", 4);
    put_attr(d, 3 /* PRIVATE_KEY */, PSK, sizeof PSK);
    put_attr(d, 4 /* PUBLIC_KEY */, DEVICE_KEY, sizeof DEVICE_KEY);
}

static void put_allowed_ip(struct datagram *d, uint16_t family, const void *address, uint8_t cidr)
{
    size_t nest = begin_nest(d, 0);
    put_attr(d, 1 /* FAMILY */, &family, sizeof family);
    put_attr(d, 2 /* IPADDR */, address, family == AF_INET ? 4 : 16);
    put_attr(d, 3 /* CIDR_MASK */, &cidr, sizeof cidr);
    end_nest(d, nest);
}

// A peer with everything, or another with nothing.
static void put_peers(struct datagram *d)
{
    const uint16_t keepalive = 25;
    const int64_t handshake[] = {1700000000, 999};
    const uint64_t rx = 0x100000002, tx = 0x300000004;
    const struct sockaddr_in endpoint = {
        .sin_family = AF_INET, .sin_port = htons(4321), .sin_addr.s_addr = htonl(0xc0000201)};
    size_t peers = begin_nest(d, 8 /* PEERS */), peer = begin_nest(d, 0);
    put_attr(d, 1 /* PUBLIC_KEY */, PEER2, sizeof PEER2);
    put_attr(d, 2 /* PRESHARED_KEY */, PSK, sizeof PSK);
    put_attr(d, 6 /* LAST_HANDSHAKE_TIME */, handshake, sizeof handshake);
    put_attr(d, 5 /* KEEPALIVE */, &keepalive, sizeof keepalive);
    put_attr(d, 8 /* TX_BYTES */, &tx, sizeof tx);
    put_attr(d, 7 /* RX_BYTES */, &rx, sizeof rx);
    put_attr(d, 4 /* ENDPOINT */, &endpoint, sizeof endpoint);
    size_t allowed = begin_nest(d, 9 /* ALLOWEDIPS */);
    put_allowed_ip(d, AF_INET, (const uint8_t[]){10, 1, 0, 0}, 16);
    end_nest(d, allowed);
    end_nest(d, peer);
    end_nest(d, peers);
}

// The next message: the same peer's allowed-ips go on, then another peer.
static void put_more_peers(struct datagram *d)
{
    static const uint8_t v6[16] = {0xfd};
    struct sockaddr_in6 endpoint = {.sin6_family = AF_INET6, .sin6_port = htons(1)};
    put_part(d);
    size_t peers = begin_nest(d, 8), peer = begin_nest(d, 0);
    put_attr(d, 1, PEER2, sizeof PEER2);
    size_t allowed = begin_nest(d, 9);
    put_allowed_ip(d, AF_INET6, v6, 64);
    put_allowed_ip(d, AF_INET, (const uint8_t[]){0, 0, 0, 0}, 0);
    end_nest(d, allowed);
    end_nest(d, peer);
    peer = begin_nest(d, 0);
    put_attr(d, 1, PEER1, sizeof PEER1);
    put_attr(d, 2, (const uint8_t[32]){0}, 32);
    put_attr(d, 4, &endpoint, sizeof endpoint);
    end_nest(d, peer);
    end_nest(d, peers);
}

static void put_done(struct datagram *d)
{
    int error = 0;
    put_message(d, NLMSG_DONE, NLM_F_MULTI, SEQ, PORTID);
    put(d, &error, sizeof error);
}

static int parse_into(const void *bytes, size_t length, struct netlink_view *into)
{
    struct netlink_answer answer = {0};
    return netlink_parse(bytes, length, SEQ, PORTID, netlink_read_view, into, &answer, NULL);
}

static int outcome(const struct datagram *d)
{
    struct netlink_view into = {.ifindex = IFINDEX, .view = device_view_new()};
    int rc = parse_into(d->bytes, d->length, &into);
    device_view_free(into.view);
    return rc;
}

static void reads_all(void)
{
    struct datagram d = {.length = 0};
    struct netlink_view into = {.ifindex = IFINDEX, .view = device_view_new()};
    struct device_view *view = into.view;
    put_device(&d, IFINDEX);
    put_peers(&d);
    put_more_peers(&d);
    put_done(&d);
    CU_ASSERT_EQUAL_FATAL(parse_into(d.bytes, d.length, &into), 0);
    CU_ASSERT_EQUAL_FATAL(device_view_finish(view, NULL), 0);
    CU_ASSERT(into.seen && view->listen_port == 51820 && view->fwmark == 0x51);
    CU_ASSERT_EQUAL(memcmp(view->public_key, DEVICE_KEY, sizeof DEVICE_KEY), 0);
    CU_ASSERT_EQUAL_FATAL(view->peer_count, 2);
    const struct device_peer *one = device_view_peer(view, PEER1);
    const struct device_peer *two = device_view_peer(view, PEER2);
    CU_ASSERT_FATAL(one != NULL && two != NULL && device_view_peer(view, PSK) == NULL);
    CU_ASSERT(two->keepalive == 25 && two->rx_bytes == 0x100000002 && two->tx_bytes == 0x300000004);
    CU_ASSERT(two->latest_handshake.tv_sec == 1700000000 && two->latest_handshake.tv_nsec == 999);
    CU_ASSERT(two->has_endpoint && two->endpoint.v4.sin_port == htons(4321));
    CU_ASSERT(two->has_preshared && !one->has_preshared);
    CU_ASSERT(one->has_endpoint && one->endpoint.any.sa_family == AF_INET6);
    CU_ASSERT(one->allowed_count == 0 && one->keepalive == 0);
    CU_ASSERT_EQUAL_FATAL(two->allowed_count, 3);
    CU_ASSERT(two->allowed_ips[0].family == AF_INET && two->allowed_ips[0].cidr == 16);
    CU_ASSERT(two->allowed_ips[1].family == AF_INET6 && two->allowed_ips[1].address[0] == 0xfd);
    device_view_free(view);
}

static void finds_preshared(void)
{
    struct datagram d = {.length = 0};
    struct netlink_view into = {
        .ifindex = IFINDEX, .view = device_view_new(), .wanted = preshared_new(3)};
    CU_ASSERT_PTR_NOT_NULL_FATAL(into.wanted);
    preshared_want(into.wanted, PEER2);
    preshared_want(into.wanted, PSK); // no such peer
    preshared_want(into.wanted, PEER2);
    preshared_ready(into.wanted);
    put_device(&d, IFINDEX);
    put_peers(&d);
    put_more_peers(&d);
    CU_ASSERT_EQUAL(parse_into(d.bytes, d.length, &into), 0);
    const uint8_t *found = preshared_of(into.wanted, PEER2);
    CU_ASSERT_FATAL(found != NULL);
    CU_ASSERT_EQUAL(memcmp(found, PSK, sizeof PSK), 0);
    CU_ASSERT_PTR_NULL(preshared_of(into.wanted, PSK));
    CU_ASSERT_PTR_NULL(preshared_of(into.wanted, PEER1)); // there, and not asked for
    preshared_forget(into.wanted);
    CU_ASSERT_PTR_NULL(preshared_of(into.wanted, PEER2));
    preshared_free(into.wanted);
    device_view_free(into.view);
}

static void refuses_another_interface(void)
{
    struct datagram d = {.length = 0};
    put_device(&d, IFINDEX + 1);
    CU_ASSERT_EQUAL(outcome(&d), -1);
}

// An attribute of a peer with any length but the right ones.
static void refuses_odd_lengths(void)
{
    static const struct {
        uint16_t type, right, or_right;
    } cases[] = {{1, 32, 32}, {2, 32, 32}, {5, 2, 2},  {6, 16, 16},
                 {7, 8, 8},   {8, 8, 8},   {4, 16, 28}};
    uint8_t bytes[48] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (uint16_t length = 0; length <= sizeof bytes; length++) {
            struct datagram d = {.length = 0};
            const uint16_t family = length == 28 ? AF_INET6 : AF_INET;
            memcpy(bytes, &family, sizeof family);
            put_device(&d, IFINDEX);
            size_t peers = begin_nest(&d, 8), peer = begin_nest(&d, 0);
            if (cases[i].type != 1)
                put_attr(&d, 1, PEER1, sizeof PEER1);
            put_attr(&d, cases[i].type, bytes, length);
            end_nest(&d, peer);
            end_nest(&d, peers);
            bool right = length == cases[i].right || length == cases[i].or_right;
            CU_ASSERT_EQUAL(outcome(&d), right ? 0 : -1);
        }
    }
}

static void refuses_odd_allowed_ips(void)
{
    static const struct {
        uint16_t family;
        uint8_t cidr;
        int rc;
    } cases[] = {{AF_INET, 32, 0},    {AF_INET, 33, -1}, {AF_INET, 255, -1}, {AF_INET6, 128, 0},
                 {AF_INET6, 129, -1}, {0, 0, -1},        {0xffff, 0, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct datagram d = {.length = 0};
        put_device(&d, IFINDEX);
        size_t peers = begin_nest(&d, 8), peer = begin_nest(&d, 0);
        put_attr(&d, 1, PEER1, sizeof PEER1);
        size_t allowed = begin_nest(&d, 9);
        put_allowed_ip(&d, cases[i].family, PSK, cases[i].cidr);
        end_nest(&d, allowed);
        end_nest(&d, peer);
        end_nest(&d, peers);
        CU_ASSERT_EQUAL(outcome(&d), cases[i].rc);
    }
}

// Every prefix, in memory of exactly its size, and bytes changed at random: refused, or less.
static void survives_cuts_and_noise(void)
{
    struct datagram d = {.length = 0};
    uint8_t seed[randombytes_SEEDBYTES] = {1};
    put_device(&d, IFINDEX);
    put_peers(&d);
    put_more_peers(&d);
    for (size_t length = 1; length < d.length; length++) {
        struct netlink_view into = {.ifindex = IFINDEX, .view = device_view_new()};
        void *copy = malloc(length);
        CU_ASSERT_FATAL(copy != NULL && into.view != NULL);
        memcpy(copy, d.bytes, length);
        (void)parse_into(copy, length, &into);
        CU_ASSERT(into.view->peer_count <= 1);
        free(copy);
        device_view_free(into.view);
    }
    for (uint32_t round = 0; round < 20000; round++) {
        struct datagram noisy = d;
        uint16_t random[6];
        memcpy(seed, &round, sizeof round);
        randombytes_buf_deterministic(random, sizeof random, seed);
        for (int i = 0; i < 6; i += 2)
            noisy.bytes[random[i] % d.length] = (uint8_t)random[i + 1];
        (void)outcome(&noisy);
    }
}

// ---- building ----

static void asks_by_index(void)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    static const uint8_t expected[] = {28, 0, 0, 0, FAMILY, 0, 5, 3, SEQ, 0, 0,    0,    0, 0,
                                       0,  0, 0, 1, 0,      0, 8, 0, 1,   0, 0x34, 0x12, 0, 0};
    const struct nlmsghdr *message = netlink_ask_view(buffer, FAMILY, SEQ, IFINDEX);
    CU_ASSERT_EQUAL(message->nlmsg_len, sizeof expected);
    CU_ASSERT_EQUAL(memcmp(buffer, expected, sizeof expected), 0);
}

// The bytes that linux/wireguard.h asks for, put together by hand.
static void builds_change(void)
{
    static _Alignas(8) uint8_t buffer[NETLINK_CHANGE_SIZE];
    const struct device_allowed_ip allowed = {.family = AF_INET, .address = {10, 1}, .cidr = 16};
    struct device_peer_change peers[] = {
        {.set_endpoint = true,
         .set_keepalive = true,
         .keepalive = 25,
         .preshared = PSK,
         .update_only = true,
         .replace_allowed_ips = true,
         .allowed_ips = &allowed,
         .allowed_count = 1},
        {.remove = true, .set_keepalive = true, .allowed_ips = &allowed, .allowed_count = 1}};
    memcpy(peers[0].public_key, PEER1, sizeof PEER1);
    memcpy(peers[1].public_key, PEER2, sizeof PEER2);
    peers[0].endpoint.v4 = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(4321), .sin_addr.s_addr = htonl(0xc0000201)};
    const struct device_change change = {
        .private_key = DEVICE_KEY, .peers = peers, .peer_count = 2};
    struct netlink_change_at at = {0};
    const struct nlmsghdr *message = netlink_put_change(buffer, FAMILY, SEQ, IFINDEX, &change, &at);

    struct datagram d = {.length = 0};
    const uint32_t ifindex = IFINDEX, flags = 2 | 4, gone = 1;
    const uint16_t keepalive = 25;
    put_message(&d, FAMILY, NLM_F_REQUEST | NLM_F_ACK, SEQ, 0);
    put(&d, (const uint8_t[]){1 /* WG_CMD_SET_DEVICE */, 1, 0, 0}, 4);
    put_attr(&d, 1, &ifindex, sizeof ifindex);
    put_attr(&d, 3, DEVICE_KEY, sizeof DEVICE_KEY);
    size_t all = begin_nest(&d, 8), peer = begin_nest(&d, 0);
    put_attr(&d, 1, PEER1, sizeof PEER1);
    put_attr(&d, 3 /* FLAGS */, &flags, sizeof flags);
    put_attr(&d, 2, PSK, sizeof PSK);
    put_attr(&d, 4, &peers[0].endpoint.v4, sizeof peers[0].endpoint.v4);
    put_attr(&d, 5, &keepalive, sizeof keepalive);
    size_t ips = begin_nest(&d, 9);
    put_allowed_ip(&d, AF_INET, (const uint8_t[]){10, 1, 0, 0}, 16);
    end_nest(&d, ips);
    end_nest(&d, peer);
    peer = begin_nest(&d, 0);
    put_attr(&d, 1, PEER2, sizeof PEER2);
    put_attr(&d, 3, &gone, sizeof gone);
    end_nest(&d, peer);
    end_nest(&d, all);
    CU_ASSERT(at.done);
    CU_ASSERT_EQUAL_FATAL(message->nlmsg_len, d.length);
    CU_ASSERT_EQUAL(memcmp(buffer, d.bytes, d.length), 0);
}

static void builds_key_alone(void)
{
    static _Alignas(8) uint8_t buffer[NETLINK_CHANGE_SIZE];
    struct netlink_change_at at = {0};
    const struct device_change change = {.private_key = DEVICE_KEY};
    const struct nlmsghdr *message = netlink_put_change(buffer, FAMILY, SEQ, IFINDEX, &change, &at);
    CU_ASSERT(at.done);
    CU_ASSERT_EQUAL(message->nlmsg_len, 16 + 4 + 8 + 36);
}

static bool contains(const uint8_t *buffer, size_t length, const uint8_t key[DEVICE_KEY_SIZE])
{
    return memmem(buffer, length, key, DEVICE_KEY_SIZE) != NULL;
}

// What the messages of a change say, read as a dump would be. Returns how many they were.
static int read_back(const struct device_change *change, struct device_view *view)
{
    static _Alignas(8) uint8_t buffer[NETLINK_CHANGE_SIZE];
    struct netlink_change_at at = {0};
    int count = 0;
    for (; !at.done && count < 1000; count++) {
        struct netlink_view into = {.ifindex = IFINDEX, .view = view};
        memset(buffer, 0xee, sizeof buffer);
        const struct nlmsghdr *message =
            netlink_put_change(buffer, FAMILY, SEQ, IFINDEX, change, &at);
        CU_ASSERT_FATAL(message->nlmsg_len <= sizeof buffer);
        CU_ASSERT_EQUAL(netlink_read_view(message, &into, NULL), 0);
        CU_ASSERT_EQUAL(contains(buffer, message->nlmsg_len, DEVICE_KEY), count == 0);
    }
    CU_ASSERT(at.done);
    return count;
}

static void splits_peers(void)
{
    enum { PEERS = 2000, EACH = 3 };
    struct device_peer_change *peers = calloc(PEERS, sizeof *peers);
    struct device_allowed_ip *allowed = calloc(PEERS * EACH, sizeof *allowed);
    struct device_view *view = device_view_new();
    CU_ASSERT_FATAL(peers != NULL && allowed != NULL && view != NULL);
    for (int i = 0; i < PEERS; i++) {
        memcpy(peers[i].public_key, &i, sizeof i);
        peers[i].allowed_ips = allowed + i * EACH;
        peers[i].allowed_count = EACH;
        peers[i].preshared = PSK;
        for (int n = 0; n < EACH; n++)
            allowed[i * EACH + n] =
                (struct device_allowed_ip){.family = AF_INET6,
                                           .cidr = 128,
                                           .address = {(uint8_t)i, (uint8_t)(i >> 8), (uint8_t)n}};
    }
    const struct device_change change = {
        .private_key = DEVICE_KEY, .peers = peers, .peer_count = PEERS};
    // A peer takes 4+36+36+4 bytes and 3 times 36.
    CU_ASSERT_EQUAL(read_back(&change, view), (PEERS * 188 + 65000) / 65536 + 1);
    CU_ASSERT_EQUAL_FATAL(view->peer_count, PEERS);
    for (int i = 0; i < PEERS; i++) {
        CU_ASSERT_EQUAL(memcmp(view->peers[i].public_key, &i, sizeof i), 0);
        CU_ASSERT(view->peers[i].has_preshared && view->peers[i].allowed_count == EACH);
        CU_ASSERT(device_allowed_ip_equal(&view->peers[i].allowed_ips[EACH - 1],
                                          &allowed[i * EACH + EACH - 1]));
    }
    device_view_free(view);
    free(allowed);
    free(peers);
}

// One peer of more allowed-ips than a message holds: it goes on in the next, without being made
// there, and without forgetting the ones before.
static void splits_one_peer(void)
{
    enum { ALLOWED = 5000 };
    static _Alignas(8) uint8_t buffer[NETLINK_CHANGE_SIZE];
    struct device_allowed_ip *allowed = calloc(ALLOWED, sizeof *allowed);
    struct device_peer_change peer = {
        .replace_allowed_ips = true, .set_keepalive = true, .keepalive = 9};
    struct device_view *view = device_view_new();
    CU_ASSERT_FATAL(allowed != NULL && view != NULL);
    memcpy(peer.public_key, PEER1, sizeof PEER1);
    peer.allowed_ips = allowed;
    peer.allowed_count = ALLOWED;
    for (int i = 0; i < ALLOWED; i++)
        allowed[i] = (struct device_allowed_ip){
            .family = AF_INET, .cidr = 32, .address = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}};
    const struct device_change change = {
        .private_key = DEVICE_KEY, .peers = &peer, .peer_count = 1};
    CU_ASSERT_EQUAL(read_back(&change, view), 3); // of 28 bytes each
    CU_ASSERT_EQUAL_FATAL(view->peer_count, 1);
    CU_ASSERT_EQUAL_FATAL(view->peers[0].allowed_count, ALLOWED);
    for (int i = 0; i < ALLOWED; i++)
        CU_ASSERT(device_allowed_ip_equal(&view->peers[0].allowed_ips[i], &allowed[i]));
    struct netlink_change_at at = {0};
    netlink_put_change(buffer, FAMILY, SEQ, IFINDEX, &change, &at);
    netlink_put_change(buffer, FAMILY, SEQ, IFINDEX, &change, &at);
    // After header, index, and the heads of peers and peer: key, then flags, then allowed-ips.
    const uint8_t *second = buffer + 16 + 4 + 8 + 4 + 4 + 36;
    CU_ASSERT_EQUAL(memcmp(second, (const uint8_t[]){8, 0, 3, 0, 4 /* UPDATE_ONLY */, 0, 0, 0}, 8),
                    0);
    CU_ASSERT_EQUAL(memcmp(second + 10, (const uint8_t[]){9, 0x80}, 2), 0);
    device_view_free(view);
    free(allowed);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"asking for a device: the bytes that linux/wireguard.h asks for", asks_by_index},
        {"a device, its peers, and a peer told in two messages are read", reads_all},
        {"preshared keys are found for those who are named, and no others", finds_preshared},
        {"an answer about another interface is refused", refuses_another_interface},
        {"attributes of odd lengths are refused", refuses_odd_lengths},
        {"allowed-ips that are none are refused", refuses_odd_allowed_ips},
        {"dumps cut short, and noise, are survived", survives_cuts_and_noise},
        {"a change: the bytes that linux/wireguard.h asks for", builds_change},
        {"a private key alone is a change", builds_key_alone},
        {"many peers are split into messages, and each is there once", splits_peers},
        {"a peer of many allowed-ips goes on in the next message", splits_one_peer},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? 1 : tap_run("netlink_peers", tests);
}
