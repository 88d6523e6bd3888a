// SPDX-License-Identifier: Apache-2.0
// Reads and writes the userspace protocol's lines of a WireGuard device with its peers.
#include "uapi_peers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

// ---- reading ----

static int odd(struct error *err, const char *what)
{
    return error_set(err, ERROR_DATA_LOSS, "UAPI: %s that makes no sense", what);
}

// A decimal number of at most `max`, digits alone.
static int take_number(const char *text, uint64_t max, uint64_t *number)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *number <= max ? 0 : -1;
}

static int take_key(const char *hex, uint8_t key[DEVICE_KEY_SIZE])
{
    size_t length = 0;
    return strlen(hex) == 2 * DEVICE_KEY_SIZE &&
                   sodium_hex2bin(key, DEVICE_KEY_SIZE, hex, 2 * DEVICE_KEY_SIZE, NULL, &length,
                                  NULL) == 0 &&
                   length == DEVICE_KEY_SIZE
               ? 0
               : -1;
}

// A zone is a number or an interface's name.
static int take_zone(const char *zone, uint32_t *scope)
{
    uint64_t number;
    if (take_number(zone, UINT32_MAX, &number) == 0)
        *scope = (uint32_t)number;
    else
        *scope = if_nametoindex(zone);
    return *scope == 0 ? -1 : 0;
}

static int take_endpoint_v4(char *host, in_port_t port, union device_endpoint *endpoint)
{
    endpoint->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port};
    return inet_pton(AF_INET, host, &endpoint->v4.sin_addr) == 1 ? 0 : -1;
}

// ADDRESS or ADDRESS%ZONE.
static int take_endpoint_v6(char *host, in_port_t port, union device_endpoint *endpoint)
{
    char *zone = strchr(host, '%');
    uint32_t scope = 0;
    if (zone != NULL) {
        *zone = '\0';
        if (take_zone(zone + 1, &scope) != 0)
            return -1;
    }
    endpoint->v6 =
        (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port, .sin6_scope_id = scope};
    return inet_pton(AF_INET6, host, &endpoint->v6.sin6_addr) == 1 ? 0 : -1;
}

// HOST:PORT, or [HOST]:PORT for IPv6.
static int take_endpoint(const char *text, struct device_peer *peer)
{
    char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (colon == NULL || take_number(colon + 1, UINT16_MAX, &port) != 0)
        return -1;
    bool brackets = text[0] == '[' && colon - text >= 2 && colon[-1] == ']';
    size_t length = (size_t)(colon - text) - (brackets ? 2 : 0);
    if (length >= sizeof host)
        return -1;
    memcpy(host, text + (brackets ? 1 : 0), length);
    host[length] = '\0';
    memset(&peer->endpoint, 0, sizeof peer->endpoint);
    peer->has_endpoint = true;
    return brackets ? take_endpoint_v6(host, htons((uint16_t)port), &peer->endpoint)
                    : take_endpoint_v4(host, htons((uint16_t)port), &peer->endpoint);
}

// ADDRESS/CIDR.
static int take_allowed_ip(const char *text, struct device_peer *peer, struct error *err)
{
    char address[INET6_ADDRSTRLEN];
    struct device_allowed_ip allowed = {.family = strchr(text, ':') == NULL ? AF_INET : AF_INET6};
    const char *slash = strchr(text, '/');
    uint64_t cidr;
    if (slash == NULL || (size_t)(slash - text) >= sizeof address ||
        take_number(slash + 1, allowed.family == AF_INET ? 32 : 128, &cidr) != 0)
        return odd(err, "an allowed-ip");
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    if (inet_pton(allowed.family, address, allowed.address) != 1)
        return odd(err, "an allowed-ip");
    allowed.cidr = (uint8_t)cidr;
    return device_peer_add_allowed_ip(peer, &allowed, err);
}

static int take_preshared(const char *value, struct uapi_view *into, struct error *err)
{
    int rc = take_key(value, into->key);
    if (rc != 0) {
        odd(err, "a preshared key");
    } else {
        if (into->wanted != NULL)
            preshared_found(into->wanted, into->peer->public_key, into->key);
        rc = device_peer_note_preshared(into->peer, into->key, err);
    }
    sodium_memzero(into->key, DEVICE_KEY_SIZE);
    return rc;
}

static int begin_peer(const char *value, struct uapi_view *into, struct error *err)
{
    static const uint8_t none[DEVICE_KEY_SIZE];
    uint8_t public_key[DEVICE_KEY_SIZE];
    if (take_key(value, public_key) != 0)
        return odd(err, "a peer's public key");
    into->peer = device_view_add_peer(into->view, public_key);
    if (into->peer == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a device's peers");
    // A daemon may leave out a preshared key that is none.
    if (into->wanted != NULL && !into->peer->has_preshared)
        preshared_found(into->wanted, public_key, none);
    return 0;
}

// What is told of a peer as a number.
static int take_peer_number(const char *name, const char *value, struct device_peer *peer,
                            struct error *err)
{
    uint64_t number;
    if (strcmp(name, "persistent_keepalive_interval") == 0) {
        if (take_number(value, UINT16_MAX, &number) != 0)
            return odd(err, "a keepalive");
        peer->keepalive = (uint16_t)number;
    } else if (strcmp(name, "last_handshake_time_sec") == 0) {
        if (take_number(value, INT64_MAX, &number) != 0)
            return odd(err, "a latest handshake");
        peer->latest_handshake.tv_sec = (time_t)number;
    } else if (strcmp(name, "last_handshake_time_nsec") == 0) {
        if (take_number(value, 999999999, &number) != 0)
            return odd(err, "a latest handshake");
        peer->latest_handshake.tv_nsec = (long)number;
    } else if (strcmp(name, "rx_bytes") == 0) {
        if (take_number(value, UINT64_MAX, &peer->rx_bytes) != 0)
            return odd(err, "a count of bytes");
    } else if (strcmp(name, "tx_bytes") == 0) {
        if (take_number(value, UINT64_MAX, &peer->tx_bytes) != 0)
            return odd(err, "a count of bytes");
    }
    return 0; // another name: of a newer daemon
}

static int take_device_line(const char *name, const char *value, struct device_view *view,
                            struct error *err)
{
    uint64_t number;
    if (strcmp(name, "listen_port") == 0) {
        if (take_number(value, UINT16_MAX, &number) != 0)
            return odd(err, "a port");
        view->listen_port = (uint16_t)number;
    } else if (strcmp(name, "fwmark") == 0) {
        if (take_number(value, UINT32_MAX, &number) != 0)
            return odd(err, "a firewall mark");
        view->fwmark = (uint32_t)number;
    }
    return 0;
}

int uapi_read_view(const char *name, const char *value, void *context, struct error *err)
{
    struct uapi_view *into = context;
    if (strcmp(name, "public_key") == 0)
        return begin_peer(value, into, err);
    if (into->peer == NULL)
        return take_device_line(name, value, into->view, err);
    if (strcmp(name, "preshared_key") == 0)
        return take_preshared(value, into, err);
    if (strcmp(name, "endpoint") == 0)
        return take_endpoint(value, into->peer) == 0 ? 0 : odd(err, "an endpoint");
    if (strcmp(name, "allowed_ip") == 0)
        return take_allowed_ip(value, into->peer, err);
    return take_peer_number(name, value, into->peer, err);
}

// ---- writing ----

// Bytes at most: a peer's lines but allowed-ips, and one allowed-ip's.
#define PEER_ROOM    400
#define ALLOWED_ROOM 72
#define DEVICE_ROOM  96

size_t uapi_change_size(const struct device_change *change)
{
    size_t size = DEVICE_ROOM;
    for (size_t i = 0; i < change->peer_count; i++)
        size += PEER_ROOM + change->peers[i].allowed_count * ALLOWED_ROOM;
    return size;
}

struct request {
    char *text;
    size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void put(struct request *request, const char *format,
                                                      ...)
{
    va_list args;
    va_start(args, format);
    int n =
        vsnprintf(request->text + request->length, request->size - request->length, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < request->size - request->length)
        request->length += (size_t)n;
}

// NAME=HEX; the digits are written nowhere else, as printf's own buffers could keep them.
static void put_key(struct request *request, const char *name, const uint8_t key[DEVICE_KEY_SIZE])
{
    put(request, "%s=", name);
    if (request->size - request->length < 2 * DEVICE_KEY_SIZE + 2)
        return;
    sodium_bin2hex(request->text + request->length, 2 * DEVICE_KEY_SIZE + 1, key, DEVICE_KEY_SIZE);
    request->length += 2 * DEVICE_KEY_SIZE;
    put(request, "\n");
}

static void put_endpoint(struct request *request, const union device_endpoint *endpoint)
{
    char host[INET6_ADDRSTRLEN];
    if (endpoint->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &endpoint->v4.sin_addr, host, sizeof host);
        put(request, "endpoint=%s:%u\n", host, ntohs(endpoint->v4.sin_port));
        return;
    }
    inet_ntop(AF_INET6, &endpoint->v6.sin6_addr, host, sizeof host);
    if (endpoint->v6.sin6_scope_id != 0)
        put(request, "endpoint=[%s%%%" PRIu32 "]:%u\n", host, endpoint->v6.sin6_scope_id,
            ntohs(endpoint->v6.sin6_port));
    else
        put(request, "endpoint=[%s]:%u\n", host, ntohs(endpoint->v6.sin6_port));
}

static void put_peer(struct request *request, const struct device_peer_change *peer)
{
    put_key(request, "public_key", peer->public_key);
    if (peer->remove) {
        put(request, "remove=true\n");
        return;
    }
    if (peer->update_only)
        put(request, "update_only=true\n");
    if (peer->preshared != NULL)
        put_key(request, "preshared_key", peer->preshared);
    if (peer->set_endpoint)
        put_endpoint(request, &peer->endpoint);
    if (peer->set_keepalive)
        put(request, "persistent_keepalive_interval=%u\n", peer->keepalive);
    if (peer->replace_allowed_ips)
        put(request, "replace_allowed_ips=true\n");
    for (size_t i = 0; i < peer->allowed_count; i++) {
        char address[INET6_ADDRSTRLEN];
        const struct device_allowed_ip *allowed = &peer->allowed_ips[i];
        inet_ntop(allowed->family, allowed->address, address, sizeof address);
        put(request, "allowed_ip=%s/%u\n", address, allowed->cidr);
    }
}

size_t uapi_put_change(char *text, size_t size, const struct device_change *change)
{
    struct request request = {.text = text, .size = size};
    put(&request, "set=1\n");
    if (change->private_key != NULL)
        put_key(&request, "private_key", change->private_key);
    for (size_t i = 0; i < change->peer_count; i++)
        put_peer(&request, &change->peers[i]);
    put(&request, "\n");
    return request.length;
}
