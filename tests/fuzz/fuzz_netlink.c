// SPDX-License-Identifier: Apache-2.0
// Fuzzes what the kernel answers: datagrams of any bytes, to each of our questions; and changes of
// any peers, which must come out of their messages as they went in.
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "tools/applier/netlink_peers.h"
#include "tools/applier/qdisc.h"

#define SEQ    7
#define PORTID 4242
#define FAMILY 0x1c
#define INDEX  3

static void require_sane(const struct netlink_answer *answer)
{
    REQUIRE(answer->error >= 0 && (answer->error <= 4095 || answer->error == EPROTO));
    REQUIRE(memchr(answer->text, '\0', sizeof(answer->text)) != NULL);
    REQUIRE(answer->done || answer->error == 0);
}

static void require_name(const char *name, void *context)
{
    REQUIRE(name != NULL && strlen(name) < UINT16_MAX);
}

// The same datagram is one for our question only when it bears our numbers.
static void parse(const void *datagram, size_t length, uint32_t seq, netlink_reader *reader,
                  void *context)
{
    struct netlink_answer answer = {.done = false};
    struct error err = {.code = ERROR_OK};
    if (netlink_parse(datagram, length, seq, PORTID, reader, context, &answer, &err) != 0)
        fuzz_require_refusal(&err);
    require_sane(&answer);
}

static void fuzz_answers(const void *datagram, size_t length)
{
    uint16_t family = 0;
    struct netlink_device device = {.interface = "wg0"};
    struct netlink_links links = {.found = require_name};
    parse(datagram, length, SEQ, NULL, NULL);
    parse(datagram, length, SEQ, netlink_read_family, &family);
    parse(datagram, length, SEQ, netlink_read_device, &device);
    parse(datagram, length, SEQ, netlink_read_link, &links);
    struct netlink_device none = {.interface = "wg0"};
    const uint8_t zero[DEVICE_KEY_SIZE] = {0};
    parse(datagram, length, SEQ ^ 0x80000000u, netlink_read_device, &none);
    if (length >= sizeof(struct nlmsghdr) &&
        ((const struct nlmsghdr *)datagram)->nlmsg_seq == SEQ &&
        ((const struct nlmsghdr *)datagram)->nlmsg_len >= length)
        REQUIRE(!none.seen && memcmp(none.public_key, zero, sizeof(zero)) == 0);
}

// ---- peers ----

static void require_sound(const struct device_view *view)
{
    for (size_t i = 0; i < view->peer_count; i++) {
        const struct device_peer *peer = &view->peers[i];
        int family = peer->endpoint.any.sa_family;
        REQUIRE(!peer->has_endpoint || family == AF_INET || family == AF_INET6);
        REQUIRE(peer->has_preshared || sodium_is_zero(peer->preshared_tag, DEVICE_TAG_SIZE));
        for (size_t n = 0; n < peer->allowed_count; n++) {
            const struct device_allowed_ip *allowed = &peer->allowed_ips[n];
            REQUIRE((allowed->family == AF_INET && allowed->cidr <= 32) ||
                    (allowed->family == AF_INET6 && allowed->cidr <= 128));
        }
    }
}

static void fuzz_dump(const void *datagram, size_t length)
{
    struct netlink_view into = {
        .ifindex = INDEX, .view = device_view_new(), .wanted = preshared_new(1)};
    struct qdisc_state state = {.ifindex = INDEX};
    struct error err = {.code = ERROR_OK};
    if (into.view == NULL || into.wanted == NULL)
        abort();
    preshared_want(into.wanted, (const uint8_t[DEVICE_KEY_SIZE]){0});
    preshared_ready(into.wanted);
    parse(datagram, length, SEQ, netlink_read_view, &into);
    require_sound(into.view);
    if (device_view_finish(into.view, &err) != 0)
        fuzz_require_refusal(&err);
    else
        for (size_t i = 0; i < into.view->peer_count; i++)
            REQUIRE(device_view_peer(into.view, into.view->peers[i].public_key) ==
                    &into.view->peers[i]);
    preshared_free(into.wanted);
    device_view_free(into.view);
    parse(datagram, length, SEQ, qdisc_read_root, &state);
    REQUIRE(memchr(state.kind, '\0', sizeof(state.kind)) != NULL);
    REQUIRE(state.seen || state.handle == 0);
}

#define CHANGE_PEERS   8
#define CHANGE_ALLOWED 2500 // a message holds 1,600 to 2,300

// A change that the input describes, 4 bytes a peer.
static size_t make_peers(const uint8_t *data, size_t size, struct device_peer_change *peers,
                         const struct device_allowed_ip *allowed, const uint8_t *preshared)
{
    size_t count = 0;
    for (; count < CHANGE_PEERS && (count + 1) * 4 <= size; count++) {
        const uint8_t *at = data + 4 * count;
        struct device_peer_change *peer = &peers[count];
        *peer = (struct device_peer_change){.public_key = {(uint8_t)(count + 1)},
                                            .update_only = at[0] & 1,
                                            .set_endpoint = at[0] & 2,
                                            .set_keepalive = at[0] & 4,
                                            .keepalive = at[1],
                                            .preshared = at[0] & 8 ? preshared : NULL,
                                            .replace_allowed_ips = at[0] & 16,
                                            .allowed_ips = allowed};
        peer->endpoint.any.sa_family = at[0] & 32 ? AF_INET : AF_INET6;
        peer->allowed_count = (size_t)(at[2] | at[3] << 8) % CHANGE_ALLOWED;
    }
    return count;
}

static void require_same(const struct device_peer_change *change, const struct device_peer *peer)
{
    REQUIRE(memcmp(change->public_key, peer->public_key, DEVICE_KEY_SIZE) == 0);
    REQUIRE(peer->has_endpoint == change->set_endpoint);
    REQUIRE(peer->keepalive == (change->set_keepalive ? change->keepalive : 0));
    REQUIRE(peer->has_preshared == (change->preshared != NULL));
    REQUIRE(peer->allowed_count == change->allowed_count);
    for (size_t i = 0; i < peer->allowed_count; i++)
        REQUIRE(device_allowed_ip_equal(&peer->allowed_ips[i], &change->allowed_ips[i]));
}

// Whatever the split, what the messages say together is the change.
static void fuzz_change(const uint8_t *data, size_t size)
{
    static _Alignas(8) uint8_t buffer[NETLINK_CHANGE_SIZE];
    static struct device_peer_change peers[CHANGE_PEERS];
    static struct device_allowed_ip allowed[CHANGE_ALLOWED];
    const uint8_t preshared[DEVICE_KEY_SIZE] = {1};
    struct netlink_view into = {.ifindex = INDEX, .view = device_view_new()};
    struct netlink_change_at at = {.done = false};
    if (into.view == NULL)
        abort();
    for (size_t i = 0; i < CHANGE_ALLOWED; i++)
        allowed[i] = (struct device_allowed_ip){.family = i % 3 ? AF_INET : AF_INET6,
                                                .address = {(uint8_t)i, (uint8_t)(i >> 8)},
                                                .cidr = 32};
    struct device_change change = {.peers = peers};
    change.peer_count = make_peers(data, size, peers, allowed, preshared);
    while (!at.done) {
        const struct nlmsghdr *message =
            netlink_put_change(buffer, FAMILY, SEQ, INDEX, &change, &at);
        REQUIRE(netlink_fits(message, sizeof(buffer)));
        REQUIRE(netlink_read_view(message, &into, NULL) == 0);
    }
    REQUIRE(into.view->peer_count == change.peer_count);
    for (size_t i = 0; i < change.peer_count; i++)
        require_same(&peers[i], &into.view->peers[i]);
    device_view_free(into.view);
}

// What we ask stands in its buffer, whole.
static void fuzz_requests(const uint8_t *data, size_t size)
{
    _Alignas(8) uint8_t buffer[NETLINK_REQUEST_SIZE];
    uint8_t key[DEVICE_KEY_SIZE] = {0};
    char name[IFNAMSIZ] = "";
    memcpy(key, data, size < sizeof(key) ? size : sizeof(key));
    memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
    struct nlmsghdr *message = netlink_set_private_key(buffer, FAMILY, SEQ, name, key);
    REQUIRE((uint8_t *)message == buffer && message->nlmsg_len <= sizeof(buffer));
    REQUIRE(netlink_fits(message, sizeof(buffer)));
    REQUIRE(memmem(buffer, message->nlmsg_len, key, sizeof(key)) != NULL);
    message = netlink_ask_device(buffer, FAMILY, SEQ, name);
    REQUIRE(netlink_fits(message, sizeof(buffer)));
    REQUIRE(memmem(buffer, message->nlmsg_len, name, strlen(name) + 1) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_answers(data, size);
    fuzz_dump(data, size);
    fuzz_requests(data, size);
    // Few inputs are this one's: it is dear.
    if (size >= 4 && size <= 4 * CHANGE_PEERS && data[0] & 64)
        fuzz_change(data, size);
    return 0;
}
