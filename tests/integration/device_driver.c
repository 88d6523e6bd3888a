// SPDX-License-Identifier: Apache-2.0
// Does to one interface what it reads line by line, with the applier's device layer: each line is
// answered by one, "ok ..." or "error CODE: WORDS". For tests, which hold the keys themselves.
//
//   view | messages | set ITEM... | hold KIND LIMIT | begin | drain MS | end | pending | close |
//   leftover | guard | tell 1 | tell 0 | unguard
//
// An ITEM of set is key=BASE64, or, of the peer named last by peer=BASE64: remove, update,
// endpoint=HOST:PORT, keepalive=N, psk=BASE64, copy=BASE64, replace, allowed=ADDRESS/N.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "tools/applier/device.h"
#include "tools/applier/hold.h"
#include "tools/applier/hold_guard.h"

#define PEERS_MAX   12000
#define ALLOWED_MAX 40000

struct driver {
    const char *interface;
    struct device *device;
    struct hold *hold;
    struct hold_guard *guard;
    struct device_change change;
    struct device_peer_change *peers;
    struct device_allowed_ip *allowed;
    size_t allowed_count;
    uint8_t (*keys)[DEVICE_KEY_SIZE]; // guarded: whatever a peer points to
    size_t key_count;
};

static _Noreturn void bad(const char *item)
{
    fprintf(stderr, "device_driver: '%s' is not understood\n", item);
    exit(2);
}

// ---- view ----

static const char *base64(const uint8_t key[DEVICE_KEY_SIZE])
{
    static char text[64];
    return sodium_bin2base64(text, sizeof text, key, DEVICE_KEY_SIZE,
                             sodium_base64_VARIANT_ORIGINAL);
}

static void print_endpoint(const union device_endpoint *endpoint)
{
    char host[INET6_ADDRSTRLEN];
    if (endpoint->any.sa_family == AF_INET)
        printf(",\"endpoint\":\"%s:%u\"",
               inet_ntop(AF_INET, &endpoint->v4.sin_addr, host, sizeof host),
               ntohs(endpoint->v4.sin_port));
    else
        printf(",\"endpoint\":\"[%s]:%u\"",
               inet_ntop(AF_INET6, &endpoint->v6.sin6_addr, host, sizeof host),
               ntohs(endpoint->v6.sin6_port));
}

static void print_peer(const struct device_peer *peer)
{
    char text[INET6_ADDRSTRLEN];
    printf(
        "{\"public_key\":\"%s\",\"keepalive\":%u,\"handshake\":%lld.%09ld,\"rx\":%llu,\"tx\":%llu",
        base64(peer->public_key), peer->keepalive, (long long)peer->latest_handshake.tv_sec,
        peer->latest_handshake.tv_nsec, (unsigned long long)peer->rx_bytes,
        (unsigned long long)peer->tx_bytes);
    if (peer->has_endpoint)
        print_endpoint(&peer->endpoint);
    if (peer->has_preshared)
        printf(",\"tag\":\"%s\"", sodium_bin2hex(text, sizeof text, peer->preshared_tag, 16));
    printf(",\"allowed_ips\":[");
    for (size_t i = 0; i < peer->allowed_count; i++)
        printf(
            "%s\"%s/%u\"", i == 0 ? "" : ",",
            inet_ntop(peer->allowed_ips[i].family, peer->allowed_ips[i].address, text, sizeof text),
            peer->allowed_ips[i].cidr);
    printf("]}");
}

static int do_view(struct driver *driver, struct error *err)
{
    struct device_view *view;
    if (device_read(driver->device, &view, err) != 0)
        return -1;
    printf("ok {\"public_key\":\"%s\",\"listen_port\":%u,\"fwmark\":%u,\"peers\":[",
           base64(view->public_key), view->listen_port, view->fwmark);
    for (size_t i = 0; i < view->peer_count; i++) {
        if (device_view_peer(view, view->peers[i].public_key) != &view->peers[i])
            bad("look-up");
        printf("%s", i == 0 ? "" : ",");
        print_peer(&view->peers[i]);
    }
    puts("]}");
    device_view_free(view);
    return 0;
}

// ---- set ----

static uint8_t *take_key(struct driver *driver, const char *text)
{
    size_t length = 0;
    uint8_t *key = driver->keys[driver->key_count++];
    if (driver->key_count > 3 * PEERS_MAX ||
        sodium_base642bin(key, DEVICE_KEY_SIZE, text, strlen(text), NULL, &length, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        length != DEVICE_KEY_SIZE)
        bad(text);
    return key;
}

static void take_endpoint(struct device_peer_change *peer, char *text)
{
    char *colon = strrchr(text, ':');
    if (colon == NULL)
        bad(text);
    *colon = '\0';
    in_port_t port = htons((uint16_t)atoi(colon + 1));
    peer->set_endpoint = true;
    if (inet_pton(AF_INET, text, &peer->endpoint.v4.sin_addr) == 1) {
        peer->endpoint.v4.sin_family = AF_INET;
        peer->endpoint.v4.sin_port = port;
    } else if (inet_pton(AF_INET6, text, &peer->endpoint.v6.sin6_addr) == 1) {
        peer->endpoint.v6.sin6_family = AF_INET6;
        peer->endpoint.v6.sin6_port = port;
    } else {
        bad(text);
    }
}

static void take_allowed(struct driver *driver, struct device_peer_change *peer, char *text)
{
    struct device_allowed_ip *allowed = &driver->allowed[driver->allowed_count++];
    char *slash = strchr(text, '/');
    if (slash == NULL || driver->allowed_count >= ALLOWED_MAX)
        bad(text);
    *slash = '\0';
    *allowed = (struct device_allowed_ip){.family = strchr(text, ':') ? AF_INET6 : AF_INET,
                                          .cidr = (uint8_t)atoi(slash + 1)};
    if (inet_pton(allowed->family, text, allowed->address) != 1)
        bad(text);
    if (peer->allowed_count++ == 0)
        peer->allowed_ips = allowed;
}

static void take_item(struct driver *driver, char *item)
{
    struct device_peer_change *peer = &driver->peers[driver->change.peer_count - 1];
    char *value = strchr(item, '=');
    if (value != NULL)
        *value++ = '\0';
    if (strcmp(item, "key") == 0) {
        driver->change.private_key = take_key(driver, value);
    } else if (strcmp(item, "peer") == 0) {
        peer = &driver->peers[driver->change.peer_count++];
        memset(peer, 0, sizeof *peer);
        memcpy(peer->public_key, take_key(driver, value), DEVICE_KEY_SIZE);
    } else if (driver->change.peer_count == 0) {
        bad(item);
    } else if (strcmp(item, "remove") == 0) {
        peer->remove = true;
    } else if (strcmp(item, "update") == 0) {
        peer->update_only = true;
    } else if (strcmp(item, "replace") == 0) {
        peer->replace_allowed_ips = true;
    } else if (strcmp(item, "endpoint") == 0) {
        take_endpoint(peer, value);
    } else if (strcmp(item, "keepalive") == 0) {
        peer->set_keepalive = true;
        peer->keepalive = (uint16_t)atoi(value);
    } else if (strcmp(item, "psk") == 0) {
        peer->preshared = take_key(driver, value);
    } else if (strcmp(item, "copy") == 0) {
        peer->copy_preshared_from = take_key(driver, value);
    } else if (strcmp(item, "allowed") == 0) {
        take_allowed(driver, peer, value);
    } else {
        bad(item);
    }
}

static int do_set(struct driver *driver, char *items, struct error *err)
{
    char *rest = NULL;
    driver->change = (struct device_change){.peers = driver->peers};
    driver->allowed_count = driver->key_count = 0;
    for (char *item = strtok_r(items, " ", &rest); item != NULL; item = strtok_r(NULL, " ", &rest))
        take_item(driver, item);
    if (device_set(driver->device, &driver->change, err) != 0)
        return -1;
    puts("ok");
    return 0;
}

// ---- hold ----

static int do_hold(struct driver *driver, char *text, struct error *err)
{
    char *limit = strchr(text, ' ');
    if (limit == NULL)
        bad(text);
    *limit++ = '\0';
    if (hold_open(&driver->hold, driver->interface, (enum hold_kind)hold_kind_from_name(text),
                  (uint32_t)strtoul(limit, NULL, 10), err) != 0)
        return -1;
    printf("ok %s %s\n", hold_kind_name(hold_kind(driver->hold)),
           hold_attached_now(driver->hold) ? "attached" : "reused");
    return 0;
}

static int do_pending(struct driver *driver, struct error *err)
{
    struct hold_pending pending;
    if (hold_pending(driver->hold, &pending, err) != 0)
        return -1;
    printf("ok %u %u %u\n", pending.packets, pending.bytes, pending.dropped);
    return 0;
}

static int do_messages(const struct driver *driver)
{
    struct device_messages messages = device_messages(driver->device);
    printf("ok %llu %llu\n", (unsigned long long)messages.sent,
           (unsigned long long)messages.received);
    return 0;
}

static int plainly(int rc)
{
    if (rc == 0)
        puts("ok");
    return rc;
}

static int obey(struct driver *driver, char *line, struct error *err)
{
    if (strcmp(line, "view") == 0)
        return do_view(driver, err);
    if (strcmp(line, "messages") == 0)
        return do_messages(driver);
    if (strncmp(line, "set ", 4) == 0)
        return do_set(driver, line + 4, err);
    if (strncmp(line, "hold ", 5) == 0)
        return do_hold(driver, line + 5, err);
    if (strcmp(line, "begin") == 0) {
        hold_prepare(driver->hold);
        return plainly(hold_begin(driver->hold, err));
    }
    if (strncmp(line, "drain ", 6) == 0)
        return plainly(hold_drain(driver->hold, atoi(line + 6), err));
    if (strcmp(line, "end") == 0)
        return plainly(hold_end(driver->hold, err));
    if (strcmp(line, "pending") == 0)
        return do_pending(driver, err);
    if (strcmp(line, "leftover") == 0)
        return plainly(hold_release_leftover(driver->interface, err));
    if (strcmp(line, "guard") == 0)
        return plainly(hold_guard_start(&driver->guard, driver->interface, err));
    if (strncmp(line, "tell ", 5) == 0) {
        hold_guard_tell(driver->guard, atoi(line + 5));
        return plainly(0);
    }
    if (strcmp(line, "unguard") == 0) {
        hold_guard_stop(driver->guard);
        driver->guard = NULL;
        return plainly(0);
    }
    if (strcmp(line, "close") != 0)
        bad(line);
    int rc = plainly(hold_close(driver->hold, err));
    driver->hold = NULL;
    return rc;
}

static void serve(struct driver *driver)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        struct error err = {.code = ERROR_OK};
        line[strcspn(line, "\n")] = '\0';
        if (obey(driver, line, &err) != 0)
            printf("error %s: %s\n", error_code_name(err.code), err.message);
        fflush(stdout);
    }
    free(line);
}

// INTERFACE BACKEND; BACKEND "none": for a hold alone.
int main(int argc, char **argv)
{
    struct error err = {.code = ERROR_OK};
    struct driver driver = {.interface = argc > 1 ? argv[1] : NULL};
    if (argc != 3 || sodium_init() < 0) {
        fputs("usage: device_driver INTERFACE auto|kernel|userspace|none\n", stderr);
        return 2;
    }
    driver.peers = calloc(PEERS_MAX, sizeof *driver.peers);
    driver.allowed = calloc(ALLOWED_MAX, sizeof *driver.allowed);
    driver.keys = sodium_allocarray(3 * PEERS_MAX, DEVICE_KEY_SIZE);
    if (driver.peers == NULL || driver.allowed == NULL || driver.keys == NULL)
        bad("memory");
    if (strcmp(argv[2], "none") != 0 &&
        device_open(&driver.device, driver.interface,
                    (enum device_backend)device_backend_from_name(argv[2]), &err) != 0)
        printf("error %s: %s\n", error_code_name(err.code), err.message);
    else
        printf("ok %s\n", driver.device == NULL ? "" : device_backend_name(driver.device));
    fflush(stdout);
    if (err.code == ERROR_OK)
        serve(&driver);
    hold_guard_stop(driver.guard);
    hold_close(driver.hold, NULL);
    device_close(driver.device);
    sodium_free(driver.keys);
    free(driver.peers);
    free(driver.allowed);
    return 0;
}
