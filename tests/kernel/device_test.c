// SPDX-License-Identifier: Apache-2.0
// The netlink backend against a real kernel: run by `inside`, on interfaces that it has made;
// prints TAP.
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "tools/applier/device.h"

// RFC 7748 section 6.1: Alice's keys.
static const uint8_t PRIVATE[DEVICE_KEY_SIZE] = {
    0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
    0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a};
static const uint8_t PUBLIC[DEVICE_KEY_SIZE] = {
    0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
    0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a};

static bool failed;

static void check(bool passed, const char *what, const struct error *err)
{
    printf("%s - device: %s\n", passed ? "ok" : "not ok", what);
    if (!passed) {
        failed = true;
        printf("# %s: %s\n", error_code_name(err->code), err->message);
    }
    fflush(stdout);
}

static void set_and_read_back(const char *interface, const char *what)
{
    struct error err = {.code = ERROR_OK};
    uint8_t public_key[DEVICE_KEY_SIZE] = {0};
    int rc = device_kernel.set_private_key(interface, PRIVATE, &err);
    if (rc == 0)
        rc = device_kernel.get_public_key(interface, public_key, &err);
    check(rc == 0 && memcmp(public_key, PUBLIC, sizeof PUBLIC) == 0, what, &err);
}

static void fresh_device_has_no_key(const char *interface)
{
    struct error err = {.code = ERROR_OK};
    uint8_t public_key[DEVICE_KEY_SIZE] = {1};
    int rc = device_kernel.get_public_key(interface, public_key, &err);
    check(rc == 0 && sodium_is_zero(public_key, sizeof public_key), "a fresh device has no key",
          &err);
}

static void refused_with(const char *interface, enum error_code code, const char *what)
{
    struct error set = {.code = ERROR_OK}, get = {.code = ERROR_OK};
    uint8_t public_key[DEVICE_KEY_SIZE];
    bool refused = device_kernel.set_private_key(interface, PRIVATE, &set) != 0 && set.code == code;
    check(refused && strstr(set.message, interface) != NULL, what, &set);
    refused = device_kernel.get_public_key(interface, public_key, &get) != 0 && get.code == code;
    check(refused && strstr(get.message, interface) != NULL, what, &get);
    printf("# %s\n", set.message);
}

static void refused_without_capability(const char *interface)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failed = false;
        if (setresuid(65534, 65534, 65534) != 0)
            _exit(2);
        refused_with(interface, ERROR_PERMISSION_DENIED, "without CAP_NET_ADMIN it is refused");
        fflush(stdout);
        _exit(failed);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
        WEXITSTATUS(status) != 0)
        failed = true;
}

static void note_found(const char *interface, void *context)
{
    strcat(strcat(context, interface), " ");
}

static void lists_devices(const char *expected)
{
    struct error err = {.code = ERROR_OK};
    char found[1024] = "";
    int rc = device_kernel.list(note_found, found, &err);
    printf("# found %s\n", found);
    check(rc == 0 && strcmp(found, expected) == 0,
          "WireGuard's interfaces are listed, and no others", &err);
}

// Peers come and go meanwhile, so that dumps are interrupted (NLM_F_DUMP_INTR).
static void reads_while_peers_change(const char *interface)
{
    struct error err = {.code = ERROR_OK};
    uint8_t public_key[DEVICE_KEY_SIZE];
    int rc = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        execlp("sh", "sh", "-c",
               "while :; do wg set \"$0\" peer \"$1\"; wg set \"$0\" peer \"$1\" remove; done",
               interface, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", (char *)NULL);
        _exit(127);
    }
    int64_t end = device_now_ms() + 3000;
    unsigned reads = 0;
    for (; child > 0 && rc == 0 && device_now_ms() < end; reads++) {
        rc = device_kernel.get_public_key(interface, public_key, &err);
        if (rc == 0 && memcmp(public_key, PUBLIC, sizeof PUBLIC) != 0)
            rc = error_set(&err, ERROR_DATA_LOSS, "another key was read");
    }
    kill(child, SIGTERM);
    waitpid(child, NULL, 0);
    printf("# %u reads\n", reads);
    check(rc == 0 && reads > 10, "a device is read while its peers change", &err);
}

int main(int argc, char **argv)
{
    if (argc != 4 || sodium_init() < 0) {
        fputs("usage: device_test FRESH MANY-PEERS NOT-WIREGUARD\n", stderr);
        return 2;
    }
    const char *fresh = argv[1], *many = argv[2], *other = argv[3];
    char expected[64];
    snprintf(expected, sizeof expected, "%s %s ", fresh, many);
    fresh_device_has_no_key(fresh);
    set_and_read_back(fresh, "a key that is set is read back");
    set_and_read_back(many, "the same on a device of many peers");
    reads_while_peers_change(many);
    lists_devices(expected);
    refused_with("nosuch0", ERROR_NOT_FOUND, "an interface that does not exist is refused by name");
    refused_with(other, ERROR_NOT_FOUND, "an interface that is no WireGuard is refused by name");
    refused_without_capability(fresh);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
