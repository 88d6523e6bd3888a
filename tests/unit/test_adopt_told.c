// SPDX-License-Identifier: Apache-2.0
// What an adoption says at its end: the routes that a configuration without peers must make itself.
#include "tools/applier/adopt_told.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <sodium.h>

#include "tap.h"

// What is said of an interface "lo", which has 127.0.0.1/8, whose one peer is allowed the prefix.
// For the caller to free.
static char *tell(const char *prefix)
{
    struct setup_prefix allowed;
    struct setup_peer peer = {.host = "beta", .allowed_ips = &allowed, .allowed_ip_count = 1};
    const struct setup_interface setup = {.name = "lo", .peers = &peer, .peer_count = 1};
    const struct custody_view view = {.generation_count = 0};
    char *text = NULL;
    size_t size = 0;
    FILE *before = stdout, *memory = open_memstream(&text, &size);
    CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
    CU_ASSERT_TRUE_FATAL(setup_parse_prefix(&allowed, prefix));
    stdout = memory;
    adopt_tell_done(&setup, &view);
    stdout = before;
    CU_ASSERT_EQUAL_FATAL(fclose(memory), 0);
    return text;
}

static bool is_told(const char *prefix, const char *words)
{
    char *text = tell(prefix);
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static void test_routes(void)
{
    CU_ASSERT_TRUE(is_told("10.9.0.0/16", "  PostUp = ip route replace 10.9.0.0/16 dev %i\n"));
    CU_ASSERT_TRUE(is_told("fd00:9::/64", "  PostUp = ip route replace fd00:9::/64 dev %i\n"));
    // Wider than the network of the address, or beside it.
    CU_ASSERT_TRUE(is_told("126.0.0.0/7", "route replace 126.0.0.0/7"));
    CU_ASSERT_TRUE(is_told("128.0.0.1/32", "route replace 128.0.0.1/32"));
}

static void test_connected(void)
{
    CU_ASSERT_FALSE(is_told("127.0.0.0/8", "ip route"));
    CU_ASSERT_FALSE(is_told("127.1.2.3/32", "ip route"));
}

static void test_default_routes(void)
{
    CU_ASSERT_TRUE(is_told("0.0.0.0/0",
                           "  PostUp = ip -4 route replace 0.0.0.0/0 dev %i table 51820\n"
                           "  PostUp = ip -4 rule add not fwmark 51820 table 51820"));
    CU_ASSERT_TRUE(is_told("::/0", "  PostUp = ip -6 route replace ::/0 dev %i table 51820\n"));
    CU_ASSERT_TRUE(is_told("::/0", "  PostUp = wg set %i fwmark 51820\n"));
    CU_ASSERT_FALSE(is_told("::/0", "src_valid_mark"));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"routes for what peers are allowed", test_routes},
        {"none where the address has one", test_connected},
        {"default routes", test_default_routes},
        CU_TEST_INFO_NULL,
    };
    if (sodium_init() < 0)
        return 1;
    return tap_run("what an adoption says", tests);
}
