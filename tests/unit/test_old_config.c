// SPDX-License-Identifier: Apache-2.0
// Old configurations: which lines are named, and that nothing of a key is.
#include "tools/applier/old_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "tap.h"

#define SECRET "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

static char path[] = "/tmp/custody-old-config-XXXXXX";
static char told[4096];

static void tell(void *context, const char *file, unsigned first, unsigned last, const char *what)
{
    size_t used = strlen(told);
    (void)context;
    CU_ASSERT_STRING_EQUAL(file, path);
    snprintf(told + used, sizeof told - used, "%u-%u %s\n", first, last, what);
}

static struct setup_prefix prefixes[2] = {
    {.address = {.family = AF_INET, .bytes = {10, 0, 0, 0}, .text = "10.0.0.0"}, .bits = 24},
    {.address = {.family = AF_INET6, .bytes = {0xfd, 0, 1}, .text = "fd00:100::"}, .bits = 64},
};
static struct setup_peer peer = {.host = "beta", .allowed_ips = prefixes, .allowed_ip_count = 2};
static const struct setup_interface setup = {.name = "wg0", .peers = &peer, .peer_count = 1};

typedef int scanner(const char *, const struct setup_interface *, old_config_tell *, void *,
                    struct error *);

static int look(scanner *scan_it, const char *text)
{
    struct error err = {.message = ""};
    FILE *file = fopen(path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(text, 1, strlen(text), file), strlen(text));
    CU_ASSERT_EQUAL(fclose(file), 0);
    told[0] = '\0';
    int rc = scan_it(path, &setup, tell, NULL, &err);
    CU_ASSERT_PTR_NULL(strstr(told, "yAnz"));
    CU_ASSERT_PTR_NULL(strstr(err.message, "yAnz"));
    return rc;
}

static void test_wg_quick(void)
{
    CU_ASSERT_EQUAL(look(old_config_wg_quick, "[Interface]\n"
                                              "Address = 10.0.0.1/24\n"
                                              "PrivateKey = " SECRET "\n"
                                              "SaveConfig = true\n"
                                              "PostUp = wg set %i private-key /etc/wireguard/key\n"
                                              "PostUp = echo up\n"
                                              "\n"
                                              "# beta\n"
                                              "[Peer]\n"
                                              "PublicKey = x\n"
                                              "AllowedIPs = 192.0.2.1, 10.0.0.7/24\n"
                                              "\n"
                                              "[Peer]\n"
                                              "AllowedIPs = 10.1.0.0/24\n"
                                              "[peer] # the IPv6 side\n"
                                              "allowedips=fd00:100::5/64"),
                    1);
    CU_ASSERT_STRING_EQUAL(told,
                           "3-3 remove PrivateKey: the key in it is to be destroyed\n"
                           "4-4 remove SaveConfig: it would write custody's keys into this file\n"
                           "5-5 remove the command: it sets a private key\n"
                           "9-11 remove this [Peer] section: custody keeps beta's peer\n"
                           "15-16 remove this [Peer] section: custody keeps beta's peer\n");
}

static void test_nothing_left(void)
{
    CU_ASSERT_EQUAL(look(old_config_wg_quick,
                         "[Interface]\n#PrivateKey = " SECRET "\n"
                         "SaveConfig = false\nPostUp = custody-applier up %i\n"),
                    1);
    CU_ASSERT_STRING_EQUAL(told, "");
    CU_ASSERT_EQUAL(look(old_config_wg_quick, ""), 1);
    CU_ASSERT_STRING_EQUAL(told, "");
    CU_ASSERT_EQUAL(
        look(old_config_wg_quick, "[Peer\nAllowedIPs\n=\n[]\nAllowedIPs = /,10.0.0.0/x\n"), 1);
    CU_ASSERT_STRING_EQUAL(told, "");
}

static void test_netdev(void)
{
    static const char text[] = "[WireGuard]\n"
                               "PrivateKey=" SECRET "\n"
                               "PrivateKeyFile=/etc/wg.key\n"
                               "[WireGuardPeer]\n"
                               "AllowedIPs=10.0.0.0/24\n"
                               "[NetDev]\n"
                               "Name=wg0\n"
                               "Kind=wireguard\n";
    CU_ASSERT_EQUAL(look(old_config_netdev, text), 1);
    CU_ASSERT_STRING_EQUAL(told,
                           "2-2 remove PrivateKey: the key in it is to be destroyed\n"
                           "3-3 remove PrivateKeyFile, and the file that it names\n"
                           "4-5 remove this [WireGuardPeer] section: custody keeps beta's peer\n");
    CU_ASSERT_EQUAL(
        look(old_config_netdev, "[NetDev]\nName=wg1\n[WireGuard]\nPrivateKey=" SECRET "\n"), 0);
    CU_ASSERT_STRING_EQUAL(told, "");
}

static void test_files(void)
{
    struct error err;
    CU_ASSERT_EQUAL(old_config_wg_quick("/nonexistent/wg0.conf", &setup, tell, NULL, &err), 0);
    CU_ASSERT_EQUAL(old_config_netdev("/nonexistent/wg0.netdev", &setup, tell, NULL, &err), 0);
    CU_ASSERT_EQUAL(old_config_wg_quick("/tmp", &setup, tell, NULL, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "/tmp: "));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"lines of wg-quick's", test_wg_quick},
        {"a file without a key", test_nothing_left},
        {"lines of a .netdev", test_netdev},
        {"files that are not there, or none", test_files},
        CU_TEST_INFO_NULL,
    };
    int fd = mkstemp(path);
    if (fd < 0 || sodium_init() < 0)
        return 1;
    close(fd);
    int rc = tap_run("old config", tests);
    unlink(path);
    return rc;
}
