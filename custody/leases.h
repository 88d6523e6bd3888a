// SPDX-License-Identifier: Apache-2.0
// Sees to it that every release is closed: one whose applier says nothing in time becomes
// lease.expired.
#ifndef CUSTODY_LEASES_H
#define CUSTODY_LEASES_H

#include "error.h"

struct daemon;
struct leases; // opaque

struct leases *leases_new(struct daemon *daemon, struct error *err);
void leases_free(struct leases *leases);
// To be called when a lease was opened, and when the daemon has become ready.
void leases_watch(struct leases *leases);

#endif
