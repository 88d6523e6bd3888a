// SPDX-License-Identifier: Apache-2.0
// A second device beside an interface: what the interface's routes lead to while its key is
// replaced, so that no packet meets the replacement, and none waits.
//
// Both ends have one, with the keys and the peers of the interface itself: the tunnel between them
// is there all along, and idle. The end whose key is replaced sends by it; its counterparts send as
// ever, for what WireGuard has a session to receive by it receives for three minutes more.
#ifndef APPLIER_PAIR_H
#define APPLIER_PAIR_H

#include <stdbool.h>

#include "device.h"
#include "moves.h"

struct pair;

// Opens the device `second` for `interface`, which has the address `own` (IPv4). ERROR_NOT_FOUND
// where it is not there, ERROR_FAILED_PRECONDITION where it cannot serve: without that address, or
// where packets are dropped that come in by another interface than answers leave by (rp_filter 1).
// Routes that lead to it are those that an earlier process left there.
int pair_open(struct pair **out, const char *interface, const char *second,
              enum device_backend backend, const union device_endpoint *own, struct error *err);
// The routes stay where they are. NULL is fine.
void pair_close(struct pair *pair);

const char *pair_name(const struct pair *pair);
struct device *pair_device(struct pair *pair);
struct moves *pair_moves(struct pair *pair); // datagrams that come by it

// Whether the interface's routes lead to it.
bool pair_is_away(const struct pair *pair);
// Has all routes of the interface lead to it, and waits until what took the old way has left. On
// failure they lead where they did, as far as that can be had.
int pair_go_away(struct pair *pair, struct error *err);
// Has them lead to the interface again, and waits until what went by the second device has arrived.
int pair_come_back(struct pair *pair, struct error *err);

#endif
