// SPDX-License-Identifier: Apache-2.0
// Views of devices: peers in parts, look-up, tags of preshared keys, what is equal.
#include <arpa/inet.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"
#include "tools/applier/device_view.h"

static void merges_and_looks_up(void)
{
    struct device_view *view = device_view_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(view);
    for (uint32_t i = 0; i < 1000; i++) {
        uint8_t key[DEVICE_KEY_SIZE] = {(uint8_t)(i * 7), (uint8_t)(i >> 8), (uint8_t)i};
        const struct device_allowed_ip allowed = {.family = AF_INET, .cidr = (uint8_t)(i % 33)};
        for (int part = 0; part < 2; part++) {
            struct device_peer *peer = device_view_add_peer(view, key);
            CU_ASSERT_PTR_NOT_NULL_FATAL(peer);
            CU_ASSERT_EQUAL(device_peer_add_allowed_ip(peer, &allowed, NULL), 0);
        }
    }
    CU_ASSERT_EQUAL(view->peer_count, 1000);
    CU_ASSERT_EQUAL_FATAL(device_view_finish(view, NULL), 0);
    for (uint32_t i = 0; i < 1000; i++) {
        uint8_t key[DEVICE_KEY_SIZE] = {(uint8_t)(i * 7), (uint8_t)(i >> 8), (uint8_t)i};
        const struct device_peer *peer = device_view_peer(view, key);
        CU_ASSERT_FATAL(peer != NULL && peer->allowed_count == 2);
        CU_ASSERT_EQUAL(peer->allowed_ips[1].cidr, i % 33);
        key[31] = 1;
        CU_ASSERT_PTR_NULL(device_view_peer(view, key));
    }
    device_view_clear(view);
    CU_ASSERT_PTR_NULL(device_view_peer(view, (const uint8_t[32]){0}));
    device_view_free(view);
}

static void refuses_a_peer_twice(void)
{
    struct device_view *view = device_view_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(view);
    device_view_add_peer(view, (const uint8_t[32]){1});
    device_view_add_peer(view, (const uint8_t[32]){2});
    device_view_add_peer(view, (const uint8_t[32]){1});
    CU_ASSERT_EQUAL(device_view_finish(view, NULL), -1);
    device_view_free(view);
}

static void tags_tell_equality(void)
{
    struct device_peer a = {.keepalive = 0}, b = a, c = a, none = a;
    const uint8_t key[DEVICE_KEY_SIZE] = {1, [31] = 1}, other[DEVICE_KEY_SIZE] = {1, [31] = 2};
    const uint8_t zero[DEVICE_KEY_SIZE] = {0};
    uint8_t plain[DEVICE_TAG_SIZE];
    CU_ASSERT_EQUAL(device_peer_note_preshared(&a, key, NULL), 0);
    CU_ASSERT_EQUAL(device_peer_note_preshared(&b, key, NULL), 0);
    CU_ASSERT_EQUAL(device_peer_note_preshared(&c, other, NULL), 0);
    CU_ASSERT_EQUAL(device_peer_note_preshared(&none, zero, NULL), 0);
    CU_ASSERT(a.has_preshared && b.has_preshared && c.has_preshared && !none.has_preshared);
    CU_ASSERT_EQUAL(memcmp(a.preshared_tag, b.preshared_tag, sizeof plain), 0);
    CU_ASSERT_NOT_EQUAL(memcmp(a.preshared_tag, c.preshared_tag, sizeof plain), 0);
    CU_ASSERT(sodium_is_zero(none.preshared_tag, sizeof plain));
    // Nobody without this process's key can test a guess by it.
    crypto_generichash(plain, sizeof plain, key, sizeof key, NULL, 0);
    CU_ASSERT_NOT_EQUAL(memcmp(a.preshared_tag, plain, sizeof plain), 0);
    CU_ASSERT_EQUAL(device_peer_note_preshared(&a, zero, NULL), 0);
    CU_ASSERT(!a.has_preshared && sodium_is_zero(a.preshared_tag, sizeof plain));
}

static void compares_what_routes(void)
{
    const struct device_allowed_ip a = {.family = AF_INET, .address = {10, 1, 0xf0}, .cidr = 20};
    struct device_allowed_ip same = a, other = a;
    same.address[2] = 0xff; // beyond the prefix
    same.address[3] = 9;
    CU_ASSERT(device_allowed_ip_equal(&a, &same));
    other.address[2] = 0xe0;
    CU_ASSERT(!device_allowed_ip_equal(&a, &other));
    other = a;
    other.cidr = 21;
    CU_ASSERT(!device_allowed_ip_equal(&a, &other));
    other = a;
    other.family = AF_INET6;
    CU_ASSERT(!device_allowed_ip_equal(&a, &other));

    struct device_allowed_ip one[] = {a, other}, turned[] = {other, same}, less[] = {a, a};
    const struct device_peer p = {.allowed_ips = one, .allowed_count = 2};
    const struct device_peer q = {.allowed_ips = turned, .allowed_count = 2};
    const struct device_peer r = {.allowed_ips = less, .allowed_count = 2}, none = {.keepalive = 1};
    CU_ASSERT(device_allowed_ips_equal(&p, &q));
    CU_ASSERT(!device_allowed_ips_equal(&p, &r));
    CU_ASSERT(!device_allowed_ips_equal(&p, &none));
    CU_ASSERT(device_allowed_ips_equal(&none, &none));

    CU_ASSERT(!device_has_other_allowed_ips(&p, turned, 2));
    CU_ASSERT(!device_has_other_allowed_ips(&r, turned, 2)); // it lacks one: that is added
    CU_ASSERT(device_has_other_allowed_ips(&p, &same, 1));
    CU_ASSERT(device_has_other_allowed_ips(&p, NULL, 0));
    CU_ASSERT(!device_has_other_allowed_ips(&none, turned, 2));
    CU_ASSERT(!device_has_other_allowed_ips(NULL, turned, 2));
}

static void compares_endpoints(void)
{
    union device_endpoint a = {.v4 = {.sin_family = AF_INET, .sin_port = 1}}, b = a;
    union device_endpoint v6 = {.v6 = {.sin6_family = AF_INET6, .sin6_port = 1}}, scoped = v6;
    CU_ASSERT(device_endpoint_equal(&a, &b));
    b.v4.sin_port = 2;
    CU_ASSERT(!device_endpoint_equal(&a, &b));
    b = a;
    b.v4.sin_addr.s_addr = 1;
    CU_ASSERT(!device_endpoint_equal(&a, &b));
    scoped.v6.sin6_scope_id = 3;
    CU_ASSERT(device_endpoint_equal(&v6, &v6) && !device_endpoint_equal(&v6, &scoped));
    CU_ASSERT(!device_endpoint_equal(&a, &v6));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a peer told in parts is one, and is found", merges_and_looks_up},
        {"a peer told twice is refused", refuses_a_peer_twice},
        {"tags are equal if and only if preshared keys are", tags_tell_equality},
        {"allowed-ips are equal when they route the same, in any order", compares_what_routes},
        {"endpoints are compared with family, port and scope", compares_endpoints},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? 1 : tap_run("device_view", tests);
}
