// SPDX-License-Identifier: Apache-2.0
// The userspace protocol's lines of peers: requests that are written, answers, true and hostile,
// that are read.
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"
#include "tools/applier/uapi.h"
#include "tools/applier/uapi_peers.h"

#define HEX1 "1100000000000000000000000000000000000000000000000000000000000001"
#define HEX2 "2200000000000000000000000000000000000000000000000000000000000002"
#define PSK  "7700000000000000000000000000000000000000000000000000000000000007"
#define NONE "0000000000000000000000000000000000000000000000000000000000000000"

static const uint8_t KEY1[DEVICE_KEY_SIZE] = {0x11, [31] = 1};
static const uint8_t KEY2[DEVICE_KEY_SIZE] = {0x22, [31] = 2};
static const uint8_t PSK_KEY[DEVICE_KEY_SIZE] = {0x77, [31] = 7};

// Reads a whole answer. Returns what the last call returned.
static int read_answer(const char *text, struct device_view *view, struct preshared *wanted,
                       struct error *err)
{
    struct uapi_answer *answer = uapi_answer_new();
    struct uapi_view into = {.view = view, .wanted = wanted, .key = sodium_malloc(DEVICE_KEY_SIZE)};
    CU_ASSERT_FATAL(answer != NULL && into.key != NULL);
    sodium_memzero(into.key, DEVICE_KEY_SIZE);
    uapi_answer_tell(answer, uapi_read_view, &into);
    int rc = uapi_answer_take(answer, text, strlen(text), err);
    CU_ASSERT(rc != 1 || sodium_is_zero(into.key, DEVICE_KEY_SIZE));
    sodium_free(into.key);
    uapi_answer_free(answer);
    return rc;
}

static int outcome(const char *lines)
{
    char text[1024];
    struct device_view *view = device_view_new();
    snprintf(text, sizeof text, "public_key=" HEX1 "\n%s\nerrno=0\n\n", lines);
    int rc = read_answer(text, view, NULL, NULL);
    device_view_free(view);
    return rc;
}

static void reads_all(void)
{
    struct device_view *view = device_view_new();
    CU_ASSERT_EQUAL_FATAL(
        read_answer(
            "private_key=" PSK "\nlisten_port=51820\nfwmark=81\npublic_key=" HEX2
            "\npreshared_key=" PSK "\nprotocol_version=1\nendpoint=192.0.2.1:4321\n"
            "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=999\n"
            "tx_bytes=18446744073709551615\nrx_bytes=5\npersistent_keepalive_interval=25\n"
            "allowed_ip=10.1.0.0/16\nallowed_ip=fd00::/64\nsomething_new=x\npublic_key=" HEX1
            "\npreshared_key=" NONE "\nendpoint=[fe80::9%3]:65535\nerrno=0\n\n",
            view, NULL, NULL),
        1);
    CU_ASSERT_EQUAL_FATAL(device_view_finish(view, NULL), 0);
    CU_ASSERT(view->listen_port == 51820 && view->fwmark == 81 && view->peer_count == 2);
    const struct device_peer *one = device_view_peer(view, KEY1),
                             *two = device_view_peer(view, KEY2);
    CU_ASSERT_FATAL(one != NULL && two != NULL);
    CU_ASSERT(two->has_preshared && !one->has_preshared && two->keepalive == 25);
    CU_ASSERT(two->tx_bytes == UINT64_MAX && two->rx_bytes == 5);
    CU_ASSERT(two->latest_handshake.tv_sec == 1700000000 && two->latest_handshake.tv_nsec == 999);
    CU_ASSERT(two->endpoint.v4.sin_addr.s_addr == htonl(0xc0000201));
    CU_ASSERT(two->endpoint.v4.sin_port == htons(4321) && two->allowed_count == 2);
    CU_ASSERT(two->allowed_ips[1].family == AF_INET6 && two->allowed_ips[1].cidr == 64);
    CU_ASSERT(one->endpoint.v6.sin6_scope_id == 3 && one->endpoint.v6.sin6_port == 0xffff);
    CU_ASSERT(one->endpoint.v6.sin6_addr.s6_addr[15] == 9);
    device_view_free(view);
}

static void finds_preshared(void)
{
    static const char text[] =
        "public_key=" HEX1 "\npublic_key=" HEX2 "\npreshared_key=" PSK "\nerrno=0\n\n";
    struct preshared *wanted = preshared_new(2);
    struct device_view *view = device_view_new();
    preshared_want(wanted, KEY2);
    preshared_want(wanted, KEY1);
    preshared_ready(wanted);
    CU_ASSERT_EQUAL(read_answer(text, view, wanted, NULL), 1);
    const uint8_t *one = preshared_of(wanted, KEY1), *two = preshared_of(wanted, KEY2);
    CU_ASSERT_FATAL(one != NULL && two != NULL);
    CU_ASSERT(sodium_is_zero(one, DEVICE_KEY_SIZE)); // there, without one
    CU_ASSERT_EQUAL(memcmp(two, PSK_KEY, DEVICE_KEY_SIZE), 0);
    preshared_free(wanted);
    device_view_free(view);
}

static void refuses_nonsense(void)
{
    static const char *const good[] = {"endpoint=1.2.3.4:0", "endpoint=[::1]:5", "allowed_ip=::/0",
                                       "allowed_ip=1.2.3.4/32", "endpoint=[fe80::1%lo]:5"};
    static const char *const bad[] = {
        "public_key=11",
        "public_key=zz" NONE,
        "preshared_key=",
        "preshared_key=7" PSK,
        "endpoint=",
        "endpoint=1.2.3.4",
        "endpoint=1.2.3.4:",
        "endpoint=1.2.3.4:65536",
        "endpoint=1.2.3.4:x",
        "endpoint=host:5",
        "endpoint=::1:5",
        "endpoint=[1.2.3.4]:5",
        "endpoint=[::1:5",
        "endpoint=::1]:5",
        "endpoint=]:5",
        "endpoint=[:5",
        "endpoint=[]:5",
        "endpoint=[::1%]:5",
        "endpoint=[::1%nosuchzone]:5",
        "endpoint=[::1%0]:5",
        "endpoint=[1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111:2222:3333:4444:5555]:5",
        "allowed_ip=",
        "allowed_ip=1.2.3.4",
        "allowed_ip=1.2.3.4/",
        "allowed_ip=1.2.3.4/33",
        "allowed_ip=::/129",
        "allowed_ip=1.2.3/8",
        "allowed_ip=1.2.3.4/-1",
        "allowed_ip=/8",
        "allowed_ip=1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111:2222/8",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=",
        "persistent_keepalive_interval= 1",
        "persistent_keepalive_interval=+1",
        "last_handshake_time_sec=-1",
        "last_handshake_time_sec=9223372036854775808",
        "last_handshake_time_nsec=1000000000",
        "rx_bytes=18446744073709551616",
        "tx_bytes=1x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CU_ASSERT_EQUAL(outcome(good[i]), 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CU_ASSERT_EQUAL(outcome(bad[i]), -1);
        if (outcome(bad[i]) != -1)
            printf("# taken: %s\n", bad[i]);
    }
    struct device_view *view = device_view_new();
    CU_ASSERT_EQUAL(read_answer("listen_port=65536\n", view, NULL, NULL), -1);
    CU_ASSERT_EQUAL(read_answer("fwmark=4294967296\n", view, NULL, NULL), -1);
    device_view_free(view);
}

static void messages_keep_secrets(void)
{
    struct error err = {.code = ERROR_OK};
    struct device_view *view = device_view_new();
    CU_ASSERT_EQUAL(read_answer("public_key=" HEX1 "\npreshared_key=77aabbXX\n", view, NULL, &err),
                    -1);
    CU_ASSERT_PTR_NULL(strstr(err.message, "aabb"));
    CU_ASSERT(strlen(err.message) > 0);
    device_view_free(view);
}

static void writes_change(void)
{
    const struct device_allowed_ip allowed[] = {
        {.family = AF_INET, .address = {10, 1}, .cidr = 16},
        {.family = AF_INET6, .address = {0xfd}, .cidr = 64}};
    struct device_peer_change peers[] = {
        {.update_only = true,
         .set_endpoint = true,
         .set_keepalive = true,
         .keepalive = 25,
         .preshared = PSK_KEY,
         .replace_allowed_ips = true,
         .allowed_ips = allowed,
         .allowed_count = 2},
        {.remove = true, .set_keepalive = true, .allowed_ips = allowed, .allowed_count = 2},
        {.set_endpoint = true}};
    memcpy(peers[0].public_key, KEY1, sizeof KEY1);
    memcpy(peers[1].public_key, KEY2, sizeof KEY2);
    memcpy(peers[2].public_key, KEY2, sizeof KEY2);
    peers[0].endpoint.v4 = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(4321), .sin_addr.s_addr = htonl(0xc0000201)};
    peers[2].endpoint.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
                                                 .sin6_port = htons(5),
                                                 .sin6_scope_id = 3,
                                                 .sin6_addr.s6_addr = {0xfe, 0x80, [15] = 9}};
    const struct device_change change = {.private_key = PSK_KEY, .peers = peers, .peer_count = 3};
    char text[4096];
    size_t size = uapi_change_size(&change);
    CU_ASSERT_FATAL(size <= sizeof text);
    size_t length = uapi_put_change(text, size, &change);
    CU_ASSERT_EQUAL(length, strlen(text));
    CU_ASSERT_STRING_EQUAL(
        text,
        "set=1\nprivate_key=" PSK "\npublic_key=" HEX1 "\nupdate_only=true\npreshared_key=" PSK
        "\nendpoint=192.0.2.1:4321\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\n"
        "allowed_ip=10.1.0.0/16\nallowed_ip=fd00::/64\npublic_key=" HEX2 "\nremove=true\n"
        "public_key=" HEX2 "\nendpoint=[fe80::9%3]:5\n\n");
}

// The longest of everything has room.
static void longest_change_fits(void)
{
    struct device_allowed_ip allowed[64];
    struct device_peer_change peers[16] = {{.remove = false}};
    memset(allowed, 0xff, sizeof allowed);
    for (size_t i = 0; i < 64; i++) {
        allowed[i].family = AF_INET6;
        allowed[i].cidr = 128;
    }
    for (size_t i = 0; i < 16; i++) {
        peers[i] = (struct device_peer_change){.update_only = true,
                                               .set_endpoint = true,
                                               .set_keepalive = true,
                                               .keepalive = 65535,
                                               .preshared = PSK_KEY,
                                               .replace_allowed_ips = true,
                                               .allowed_ips = allowed,
                                               .allowed_count = 64};
        memset(&peers[i].endpoint, 0xff, sizeof peers[i].endpoint);
        peers[i].endpoint.any.sa_family = AF_INET6;
    }
    const struct device_change change = {.private_key = PSK_KEY, .peers = peers, .peer_count = 16};
    size_t size = uapi_change_size(&change);
    char *text = malloc(size);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    size_t length = uapi_put_change(text, size, &change);
    CU_ASSERT(length < size && text[length] == '\0');
    CU_ASSERT_STRING_EQUAL(text + length - 6, "/128\n\n");
    int lines = 0;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    CU_ASSERT_EQUAL(lines, 2 + 16 * (6 + 64) + 1);
    free(text);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a device and its peers are read", reads_all},
        {"preshared keys are found, also of a peer that has none", finds_preshared},
        {"nonsense is refused, its neighbours are not", refuses_nonsense},
        {"what is said about a bad line does not repeat it", messages_keep_secrets},
        {"a change: the lines of wireguard.com/xplatform", writes_change},
        {"the longest change has room", longest_change_fits},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? 1 : tap_run("uapi_peers", tests);
}
