// SPDX-License-Identifier: Apache-2.0
// The applier's configuration file: defaults, values, and each way to get it wrong, with its line.
#include "tools/applier/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"

#define REGISTRY "registry = \"dir:/srv/r\"\n"
#define IPS      "allowed-ips = { \"10.0.0.2/32\" }"

static char path[] = "/tmp/custody-setup-XXXXXX";

static struct setup *read_bytes(const void *text, size_t length, struct error *err)
{
    FILE *file = fopen(path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(text, 1, length, file), length);
    CU_ASSERT_EQUAL(fclose(file), 0);
    return setup_read(path, err);
}

static struct setup *must_read(const char *text)
{
    struct error err = {.message = ""};
    struct setup *setup = read_bytes(text, strlen(text), &err);
    if (setup == NULL)
        printf("# %s\n", err.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(setup);
    return setup;
}

static void test_defaults(void)
{
    struct setup *setup = must_read(REGISTRY "interface \"wg0\" { peer \"beta\" { " IPS " } }\n");
    CU_ASSERT_STRING_EQUAL(setup->trust_file, SYSCONFDIR "/custody/trust");
    CU_ASSERT_STRING_EQUAL(setup->socket, RUNSTATEDIR "/custody/custody.sock");
    CU_ASSERT_STRING_EQUAL(setup->log_vkey_file, SYSCONFDIR "/custody/log.vkey");
    CU_ASSERT_EQUAL(setup->clock_tolerance_s, 120);
    CU_ASSERT_EQUAL(setup->fresh_interval_s, 300);
    CU_ASSERT_EQUAL(setup->max_stale_s, 900);
    CU_ASSERT_EQUAL(setup->rescan_s, 30);
    CU_ASSERT(setup->metrics_socket == NULL && setup->metrics_textfile == NULL);
    CU_ASSERT_EQUAL_FATAL(setup->interface_count, 1);
    const struct setup_interface *interface = setup_find(setup, "wg0");
    CU_ASSERT_PTR_NOT_NULL_FATAL(interface);
    CU_ASSERT_STRING_EQUAL(interface->key, "wg0");
    CU_ASSERT_EQUAL(interface->method, SETUP_METHOD_AUTO);
    CU_ASSERT_EQUAL(interface->hold, SETUP_HOLD_AUTO);
    CU_ASSERT_EQUAL(interface->hold_limit_ms, 300);
    CU_ASSERT_EQUAL(interface->move_address.family, 0);
    CU_ASSERT_EQUAL(interface->move_port, 51900);
    CU_ASSERT_STRING_EQUAL(interface->pair, "");
    CU_ASSERT_EQUAL(interface->grace_s, 0);
    CU_ASSERT_FALSE(interface->repair);
    CU_ASSERT_EQUAL_FATAL(interface->peer_count, 1);
    CU_ASSERT_STRING_EQUAL(interface->peers[0].key, "wg0");
    CU_ASSERT_EQUAL(interface->peers[0].endpoint.address.family, 0);
    CU_ASSERT_EQUAL(interface->peers[0].pair_endpoint.address.family, 0);
    CU_ASSERT_EQUAL(interface->peers[0].keepalive_s, 0);
    CU_ASSERT_EQUAL(interface->peers[0].required, SETUP_REQUIRED_AUTO);
    CU_ASSERT_EQUAL(interface->peers[0].psk, SETUP_PSK_AUTO);
    CU_ASSERT_PTR_NULL(setup_find(setup, "wg1"));
    setup_free(setup);
    setup_free(must_read("# nothing\n"));
    setup_free(NULL);
}

static void test_values(void)
{
    struct setup *setup = must_read(
        "registry = \"dir:/srv/r\" trust = \"/t\" socket = \"/s\" log-vkey = \"/v\"\n"
        "metrics-socket = \"/m.sock\" metrics-textfile = \"/m.prom\" metrics-interval = 3\n"
        "clock-tolerance = 5 fresh-interval = 10 max-stale = 20 rescan = 7\n"
        "interface \"wg0\" { key = \"alpha-key\" method = \"hold\" hold = \"tbf\" hold-limit = "
        "250\n"
        "  move-address = \"fd00::1\" move-port = 4000 grace = 600 window = 60 repair = true\n"
        "  peer \"beta\" { key = \"k2\" endpoint = \"[2001:db8::2]:51820\" keepalive = 25\n"
        "    required = \"no\" psk = \"take\" allowed-ips = { \"10.0.0.2/32\", \"fd00:0:0:2::/64\" "
        "} }\n"
        "  peer \"gamma.example\" { endpoint = \"192.0.2.3:1\" required = \"yes\"\n"
        "    allowed-ips = { \"0.0.0.0/0\", \"::/0\", \"10.0.0.0/31\" } }\n"
        "}\n"
        "interface \"wg1\" { method = \"poll\" move-address = \"fd00::1\"\n"
        "  peer \"beta\" { " IPS " } }\n"
        "interface \"wg2\" { method = \"pair\" pair = \"wg2b\" move-address = \"10.0.2.1\"\n"
        "  peer \"beta\" { pair-endpoint = \"192.0.2.2:51821\" " IPS " } }\n");
    CU_ASSERT_STRING_EQUAL(setup->trust_file, "/t");
    CU_ASSERT_EQUAL(setup->rescan_s, 7);
    CU_ASSERT_STRING_EQUAL(setup->metrics_socket, "/m.sock");
    CU_ASSERT_STRING_EQUAL(setup->metrics_textfile, "/m.prom");
    CU_ASSERT_EQUAL(setup->metrics_interval_s, 3);
    CU_ASSERT_EQUAL_FATAL(setup->interface_count, 3);
    const struct setup_interface *interface = &setup->interfaces[0];
    CU_ASSERT_EQUAL(interface->method, SETUP_METHOD_HOLD);
    CU_ASSERT_EQUAL(interface->hold, SETUP_HOLD_TBF);
    CU_ASSERT_STRING_EQUAL(interface->move_address.text, "fd00::1");
    CU_ASSERT_EQUAL(interface->move_port, 4000);
    CU_ASSERT_EQUAL(interface->window_s, 60);
    CU_ASSERT(interface->repair);
    CU_ASSERT_EQUAL_FATAL(interface->peer_count, 2);
    const struct setup_peer *beta = &interface->peers[0], *gamma = &interface->peers[1];
    CU_ASSERT_STRING_EQUAL(beta->key, "k2");
    CU_ASSERT_EQUAL(beta->endpoint.address.family, AF_INET6);
    CU_ASSERT_EQUAL(beta->endpoint.port, 51820);
    CU_ASSERT_EQUAL_FATAL(beta->allowed_ip_count, 2);
    CU_ASSERT_EQUAL(beta->allowed_ips[1].bits, 64);
    CU_ASSERT_EQUAL(beta->allowed_ips[1].address.bytes[7], 2);
    CU_ASSERT_EQUAL(beta->required, SETUP_REQUIRED_NO);
    CU_ASSERT_EQUAL(beta->psk, SETUP_PSK_TAKE);
    CU_ASSERT_STRING_EQUAL(gamma->key, "alpha-key");
    CU_ASSERT_EQUAL(gamma->endpoint.address.bytes[3], 3);
    CU_ASSERT_EQUAL(gamma->allowed_ip_count, 3);
    CU_ASSERT_EQUAL(gamma->required, SETUP_REQUIRED_YES);
    CU_ASSERT_EQUAL(setup->interfaces[1].method, SETUP_METHOD_POLL);
    CU_ASSERT_EQUAL(setup->interfaces[2].method, SETUP_METHOD_PAIR);
    CU_ASSERT_STRING_EQUAL(setup->interfaces[2].pair, "wg2b");
    CU_ASSERT_EQUAL(setup->interfaces[2].peers[0].pair_endpoint.port, 51821);
    setup_free(setup);
}

// What is no configuration, and what is said of it.
#define IN_INTERFACE(text) REGISTRY "interface \"wg0\" {\n" text "\n}\n"
#define IN_PEER(text)      IN_INTERFACE("peer \"beta\" {\n" IPS "\n" text "\n}")
static const struct {
    const char *text;
    int line; // 0: about the whole file
    const char *words;
} faults[] = {
    {"registri = \"dir:/r\"\n", 1, "registri"},
    {"\nregistry = \"etcd:x\"\n", 2, "dir:/PATH"},
    {"registry = \"dir:r\"\n", 1, "absolute"},
    {"registry = \"dir:/r\"\nregistry = \"dir:/r\"\n", 2, "'registry' is given twice"},
    {"trust = \"t\"\n", 1, "absolute path"},
    {"socket = \"\"\n", 1, "absolute path"},
    {"log-vkey = \"x\"\n", 1, "absolute path"},
    {"clock-tolerance = 3601\n", 1, "0 to 3600"},
    {"clock-tolerance = -1\n", 1, "0 to 3600"},
    {"fresh-interval = 0\n", 1, "1 to 604800"},
    {"max-stale = 700000\n", 1, "1 to 604800"},
    {"rescan = 0\n", 1, "1 to 604800"},
    {"metrics-socket = \"m\"\n", 1, "absolute path"},
    {"metrics-interval = 0\n", 1, "1 to 604800"},
    {"rescan = 1s\n", 1, "rescan"},
    {"fresh-interval = 900\n", 0, "'max-stale' (900) must be more"},
    {"interface \"wg0\" { peer \"beta\" { " IPS " } }\n", 0, "'registry' is missing"},
    {"interface \"much-too-long-a-name\" { }\n", 1, "cannot be an interface's name"},
    {"interface \"wg0\" { }\n\ninterface \"wg0\" { }\n", 3, "duplicate"},
    {"interface \"wg 0\" { }\n", 1, "cannot be an interface's name"},
    {"interface \"wg+0\" { }\n", 1, "needs 'key'"},
    {IN_INTERFACE("repair = maybe"), 3, "repair"},
    {IN_INTERFACE("repair = true\nrepair = true"), 4, "'repair' is given twice"},
    {"interface \"wg0\" {\n", 0, "a '}' is missing"},
    {"interface \"wg0\" { }\ninterface \"wg1\" {\n key = \"wg0\"\n}\n", 4,
     "key 'wg0' is interface 'wg0''s already"},
    {"interface \"a\" { move-address = \"10.0.0.1\" }\n"
     "interface \"b\" { move-address = \"10.0.0.1\" move-port = 51900 }\n",
     2, "'move-port' 51900 is interface 'a''s already"},
    {IN_INTERFACE("key = \"-x\""), 3, "no key's name"},
    {IN_INTERFACE("method = \"fast\""), 3, "auto, hold, pair, poll"},
    {IN_INTERFACE("method = \"pair\""), 4, "it needs 'pair'"},
    {IN_INTERFACE("pair = \"a/b\""), 3, "cannot be an interface's name"},
    {IN_INTERFACE("pair = \"wg0\" move-address = \"10.0.0.1\""), 4, "its own 'pair'"},
    {IN_INTERFACE("pair = \"wg0b\""), 4, "'move-address', of IPv4"},
    {IN_INTERFACE("pair = \"wg0b\" move-address = \"fd00::1\""), 4, "'move-address', of IPv4"},
    {"interface \"a\" { pair = \"b\" move-address = \"10.0.0.1\" }\ninterface \"b\" { }\n", 2,
     "a 'pair' serves one of them"},
    {"interface \"a\" { pair = \"c\" move-address = \"10.0.0.1\" }\n"
     "interface \"b\" { pair = \"c\" move-address = \"10.0.0.2\" }\n",
     2, "a 'pair' serves one of them"},
    {IN_INTERFACE("hold = \"netem\""), 3, "auto, plug, tbf"},
    {IN_INTERFACE("hold-limit = 0"), 3, "1 to 10000"},
    {IN_INTERFACE("move-address = \"localhost\""), 3, "numeric address"},
    {IN_INTERFACE("move-address = \"::\""), 3, "numeric address"},
    {IN_INTERFACE("move-address = \"fd00:0::1\""), 3, "shortest form"},
    {IN_INTERFACE("move-port = 65536"), 3, "1 to 65535"},
    {IN_INTERFACE("grace = -1"), 3, "0 to"},
    {IN_INTERFACE("window = \"x\""), 3, "window"},
    {IN_INTERFACE("grace = 1 grace = 1"), 3, "'grace' is given twice"},
    {IN_INTERFACE("colour = 1"), 3, "colour"},
    {IN_INTERFACE("peer \"Beta\" { " IPS " }"), 3, "no host id"},
    {IN_INTERFACE("peer \"beta\" { }"), 3, "needs 'allowed-ips'"},
    {IN_INTERFACE("peer \"b\" { " IPS " }\npeer \"b\" { }"), 4, "duplicate"},
    {IN_INTERFACE("peer \"b\" { " IPS " }\npeer \"c\" { " IPS " }"), 4,
     "10.0.0.2/32 is peer 'b' already"},
    {IN_INTERFACE("peer \"b\" { allowed-ips = { \"10.0.0.2/32\",\n\"10.0.0.2/32\" } }"), 4,
     "is peer 'b' already"},
    {IN_PEER("key = \"a/b\""), 5, "no key's name"},
    {IN_PEER("endpoint = \"beta:51820\""), 5, "numeric"},
    {IN_PEER("endpoint = \"192.0.2.1\""), 5, "numeric"},
    {IN_PEER("pair-endpoint = \"beta:1\""), 5, "'pair-endpoint' is 'beta:1'"},
    {IN_PEER("keepalive = 65536"), 5, "0 to 65535"},
    {IN_PEER("required = \"maybe\""), 5, "auto, yes, no"},
    {IN_PEER("psk = \"both\""), 5, "auto, make, take, none"},
    {IN_PEER("required = \"no\"\nrequired = \"no\""), 6, "'required' is given twice"},
    {IN_PEER(IPS), 5, "'allowed-ips' is given twice"},
    {IN_PEER("allowed-ip = \"x\""), 5, "allowed-ip"},
    {IN_INTERFACE("peer \"b\" {\nallowed-ips = { \"10.0.0.2/24\" } }"), 4, "no bit set beyond"},
    {IN_INTERFACE("peer \"b\" {\nallowed-ips = { \"10.0.0.2\" } }"), 4, "no prefix"},
};

static void test_faults(void)
{
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct error err = {.message = ""};
        char where[64];
        struct setup *setup = read_bytes(faults[i].text, strlen(faults[i].text), &err);
        snprintf(where, sizeof(where), faults[i].line > 0 ? "%s:%d: " : "%s:", path,
                 faults[i].line);
        bool right = setup == NULL && strncmp(err.message, where, strlen(where)) == 0 &&
                     strstr(err.message, faults[i].words) != NULL;
        if (!right)
            printf("# row %zu: %s\n# said: %s\n", i, faults[i].words, err.message);
        CU_ASSERT_TRUE(right);
        setup_free(setup);
    }
}

static void test_forms(void)
{
    static const char *const good_endpoints[] = {"192.0.2.1:1", "[2001:db8::1]:65535"};
    static const char *const bad_endpoints[] = {
        "",
        ":1",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "0.0.0.0:1",
        "192.0.2.1:01",
        "192.0.2.01:1",
        "2001:db8::1:1",
        "[192.0.2.1]:1",
        "[::]:1",
        "[2001:db8::1]1",
        "[2001:db8::1",
        "[2001:DB8::1]:1",
        "192.0.2.1:1 ",
    };
    static const char *const bad_prefixes[] = {
        "",
        "/",
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.1/31",
        "::1/127",
        "::/129",
        "::ffff:10.0.0.1/128",
        "10.0.0/8",
        "fd00:0::/64",
        "FD00::/64",
        "10.0.0.0/8/8",
    };
    struct setup_endpoint endpoint;
    struct setup_prefix prefix;
    for (size_t i = 0; i < sizeof(good_endpoints) / sizeof(good_endpoints[0]); i++)
        CU_ASSERT_TRUE(setup_parse_endpoint(&endpoint, good_endpoints[i]));
    for (size_t i = 0; i < sizeof(bad_endpoints) / sizeof(bad_endpoints[0]); i++) {
        if (setup_parse_endpoint(&endpoint, bad_endpoints[i]))
            printf("# taken: '%s'\n", bad_endpoints[i]);
        CU_ASSERT_FALSE(setup_parse_endpoint(&endpoint, bad_endpoints[i]));
    }
    for (size_t i = 0; i < sizeof(bad_prefixes) / sizeof(bad_prefixes[0]); i++) {
        if (setup_parse_prefix(&prefix, bad_prefixes[i]))
            printf("# taken: '%s'\n", bad_prefixes[i]);
        CU_ASSERT_FALSE(setup_parse_prefix(&prefix, bad_prefixes[i]));
    }
}

static void test_files(void)
{
    struct error err;
    static const char nul[] = "rescan = 5\0\n";
    CU_ASSERT_PTR_NULL(setup_read("/nonexistent/applier.conf", &err));
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    CU_ASSERT_PTR_NULL(setup_read("/tmp", &err));
    CU_ASSERT_PTR_NULL(read_bytes(nul, sizeof(nul) - 1, &err));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "NUL"));
    size_t size = (8 << 20) + 1;
    char *large = malloc(size);
    CU_ASSERT_PTR_NOT_NULL_FATAL(large);
    memset(large, '\n', size);
    CU_ASSERT_PTR_NULL(read_bytes(large, size, &err));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "8 MiB"));
    free(large);
}

// The example is one that is taken.
static void test_example(void)
{
    char example[512];
    struct error err = {.message = ""};
    const char *srcdir = getenv("srcdir");
    snprintf(example, sizeof(example), "%s/tools/applier/applier.conf",
             srcdir != NULL ? srcdir : ".");
    struct setup *setup = setup_read(example, &err);
    if (setup == NULL)
        printf("# %s\n", err.message);
    CU_ASSERT_PTR_NOT_NULL(setup);
    setup_free(setup);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"defaults", test_defaults},
        {"every option", test_values},
        {"each fault with its line", test_faults},
        {"endpoints and prefixes that are none", test_forms},
        {"files that cannot be read", test_files},
        {"the example", test_example},
        CU_TEST_INFO_NULL,
    };
    int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0)
        return EXIT_FAILURE;
    int result = tap_run("setup", tests);
    unlink(path);
    return result;
}
