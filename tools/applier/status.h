// SPDX-License-Identifier: Apache-2.0
// How the interfaces of a configuration stand: read from custodyd, the registry and the devices
// themselves, whether or not an applier runs. Changes nothing.
#ifndef APPLIER_STATUS_H
#define APPLIER_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "apply.h"
#include "counterpart.h"
#include "custody.h"
#include "device_view.h"
#include "error.h"
#include "setup.h"

#define STATUS_REMARKS_MAX 64

// A counterpart.
struct status_peer {
    const struct setup_peer *setup;
    struct counterpart_says says;
    uint64_t generation;  // that has the allowed-ips, by our log; 0: none
    int64_t handshake_us; // the latest; 0: never
    unsigned leftovers;   // generations staged that it does not announce any more
};

struct status_interface {
    const struct setup_interface *setup;
    struct custody_view *view;  // NULL: custodyd did not tell
    struct device_view *device; // NULL: there is none, or it cannot be read
    bool missing;               // there is none
    struct status_peer *peers;  // one for each of setup's
};

struct status {
    char host[HOST_MAX + 1]; // "" where custodyd was not reached
    bool custodyd_reached, registry_reached;
    int64_t now_us;
    struct setup *setup;
    struct status_interface *interfaces; // one for each of setup's
    // What needs attention, in words; beyond STATUS_REMARKS_MAX they are only counted.
    size_t remark_count;
    char remarks[STATUS_REMARKS_MAX][160];
};

// Looks at all of it. NULL with `err` when the configuration cannot be read; what cannot be had
// besides is a remark.
struct status *status_look(const char *path, const struct apply_settings *given, struct error *err);
void status_free(struct status *status);

// Prints it: a table of at most 80 columns, or JSON on one line. -1 when stdout takes no more.
int status_print(const struct status *status);
int status_print_json(const struct status *status);

// Looks and prints, again and again where `watch` says so, until stdout is gone. Returns the exit
// status: 0 all is well, 1 something needs attention, 3 custodyd is not reached, 4 an interface is
// not there.
int status_show(const char *path, const struct apply_settings *given, bool json, bool watch);

#endif
