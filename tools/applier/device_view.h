// SPDX-License-Identifier: Apache-2.0
// What a WireGuard device and its peers are at one moment. No secret is in it: a preshared key is
// only told by a tag.
#ifndef APPLIER_DEVICE_VIEW_H
#define APPLIER_DEVICE_VIEW_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "error.h"

#define DEVICE_KEY_SIZE 32
#define DEVICE_TAG_SIZE 16

// A peer's outer address: `any.sa_family` is AF_INET or AF_INET6; port in network byte order.
union device_endpoint {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6; // with its scope id
};

struct device_allowed_ip {
    int family;          // AF_INET or AF_INET6
    uint8_t address[16]; // network byte order; of AF_INET the first 4, the rest 0
    uint8_t cidr;        // 0..32 or 0..128
};

struct device_peer {
    uint8_t public_key[DEVICE_KEY_SIZE];
    bool has_endpoint;
    union device_endpoint endpoint;
    uint16_t keepalive;               // seconds, 0: off
    struct timespec latest_handshake; // of the wall clock; both 0: never
    uint64_t rx_bytes, tx_bytes;
    // Two peers of this process's views have the same preshared key if and only if their tags are
    // equal (a keyed hash; the key is made anew in each process). All zeros without one.
    bool has_preshared;
    uint8_t preshared_tag[DEVICE_TAG_SIZE];
    struct device_allowed_ip *allowed_ips;
    size_t allowed_count;
};

struct device_view {
    uint8_t public_key[DEVICE_KEY_SIZE]; // all zeros: the device has no private key
    uint16_t listen_port;                // 0: none yet
    uint32_t fwmark;                     // 0: none
    struct device_peer *peers;           // sorted by public key, each once
    size_t peer_count;
};

void device_view_free(struct device_view *view); // NULL is fine
// The peer with that public key, or NULL. Its address lives as long as the view.
const struct device_peer *device_view_peer(const struct device_view *view,
                                           const uint8_t public_key[DEVICE_KEY_SIZE]);

bool device_endpoint_equal(const union device_endpoint *a, const union device_endpoint *b);
bool device_allowed_ip_equal(const struct device_allowed_ip *a, const struct device_allowed_ip *b);
// Whether both peers have the same allowed-ips, in whatever order. (No memory to tell: no.)
bool device_allowed_ips_equal(const struct device_peer *a, const struct device_peer *b);
// Whether `peer` (NULL: no) has allowed-ips beside these. Only then are they to be replaced: that
// takes all away before it gives the new ones, and packets that arrive between are dropped.
bool device_has_other_allowed_ips(const struct device_peer *peer,
                                  const struct device_allowed_ip *allowed_ips, size_t count);

// ---- for the backends, which fill a view ----

// A view under construction. Peers are added one after the other; where one's allowed-ips go on in
// a later message, it comes again and its parts are one peer.
struct device_view *device_view_new(void); // NULL: no memory
// Empties it, to be filled anew.
void device_view_clear(struct device_view *view);
// Appends a peer, or, when the last one added has this key, continues it. NULL: no memory.
struct device_peer *device_view_add_peer(struct device_view *view,
                                         const uint8_t public_key[DEVICE_KEY_SIZE]);
int device_peer_add_allowed_ip(struct device_peer *peer, const struct device_allowed_ip *allowed,
                               struct error *err);
// Notes the tag of a preshared key, which lies in guarded memory; 32 zeros: none. -1 with
// ERROR_RESOURCE_EXHAUSTED where there is no guarded memory for the tag's key.
int device_peer_note_preshared(struct device_peer *peer, const uint8_t preshared[DEVICE_KEY_SIZE],
                               struct error *err);
// Sorts. Returns 0, or -1 with ERROR_DATA_LOSS when a peer was told twice.
int device_view_finish(struct device_view *view, struct error *err);

#endif
