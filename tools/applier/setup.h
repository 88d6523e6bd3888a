// SPDX-License-Identifier: Apache-2.0
// The applier's configuration file: the registry, the interfaces that it keeps, and who is at their
// other ends.
#ifndef APPLIER_SETUP_H
#define APPLIER_SETUP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"
#include "name.h"
#include "registry.h"

enum setup_method {
    SETUP_METHOD_AUTO, // what the machine can do, hold before poll
    SETUP_METHOD_HOLD, // outgoing packets wait
    SETUP_METHOD_PAIR, // a second device
    SETUP_METHOD_POLL, // nothing waits; a few packets are lost
};

enum setup_hold {
    SETUP_HOLD_AUTO,
    SETUP_HOLD_PLUG,
    SETUP_HOLD_TBF,
};

enum setup_required {
    SETUP_REQUIRED_AUTO, // when it had a handshake lately
    SETUP_REQUIRED_YES,
    SETUP_REQUIRED_NO,
};

enum setup_psk {
    SETUP_PSK_AUTO, // the end with more peers makes preshared keys, the lower host id where equal
    SETUP_PSK_MAKE, // this end does; the other must be told to take
    SETUP_PSK_TAKE, // the other way round
    SETUP_PSK_NONE, // custody leaves this peer's preshared key alone
};

// "10.0.0.2" or "fd00::2": canonical text, and the bytes, network order (4 of them for AF_INET).
struct setup_address {
    int family; // AF_INET, AF_INET6; 0 = none
    uint8_t bytes[16];
    char text[INET6_ADDRSTRLEN];
};

struct setup_prefix {
    struct setup_address address; // no bit set beyond `bits`
    uint8_t bits;
};

// "192.0.2.1:51820" or "[2001:db8::1]:51820".
struct setup_endpoint {
    struct setup_address address; // family 0: none configured
    uint16_t port;
};

struct setup_peer {
    char host[HOST_MAX + 1];
    char key[KEY_MAX + 1]; // the counterpart's name for its key
    struct setup_endpoint endpoint;
    struct setup_endpoint pair_endpoint; // of its second device
    struct setup_prefix *allowed_ips;
    size_t allowed_ip_count;
    uint32_t keepalive_s; // 0 = none
    enum setup_required required;
    enum setup_psk psk;
};

struct setup_interface {
    char name[DEVICE_NAME_MAX + 1];
    char key[KEY_MAX + 1]; // default: its name
    enum setup_method method;
    char pair[DEVICE_NAME_MAX + 1]; // the second device; "" = none
    enum setup_hold hold;
    uint32_t hold_limit_ms;
    struct setup_address move_address; // where move datagrams are taken; family 0: nowhere
    uint16_t move_port;
    uint32_t grace_s;  // 0 = twice the longest handshake interval seen, at least 300
    uint32_t window_s; // 0 = custodyd's own (the view's)
    bool repair;       // drift is put right, not only told
    struct setup_peer *peers;
    size_t peer_count;
};

struct setup {
    char registry[REGISTRY_URL_MAX + 1]; // "" = none: keys are set, nothing rotates
    char *trust_file;
    char *socket;           // custodyd's
    char *log_vkey_file;    // the log's pinned key
    char *metrics_socket;   // answers GET /metrics; NULL: none
    char *metrics_textfile; // for node_exporter; NULL: none
    uint32_t metrics_interval_s;
    uint32_t clock_tolerance_s, fresh_interval_s, max_stale_s, rescan_s;
    struct setup_interface *interfaces;
    size_t interface_count;
};

// Reads and checks the file; an unknown option, a bad value and a duplicate each name file and
// line. NULL with `err` on failure; else the caller's to free.
struct setup *setup_read(const char *path, struct error *err);
void setup_free(struct setup *setup);
// NULL where the interface is not configured.
const struct setup_interface *setup_find(const struct setup *setup, const char *interface);

// Parse one value, in its one canonical form; false when it is not.
bool setup_parse_address(struct setup_address *address, const char *text);
bool setup_parse_prefix(struct setup_prefix *prefix, const char *text);
bool setup_parse_endpoint(struct setup_endpoint *endpoint, const char *text);
// As the socket calls take it; all zeros of no address.
union device_endpoint setup_socket_address(const struct setup_address *address, uint16_t port);

#endif
