// SPDX-License-Identifier: Apache-2.0
// Holds an interface's outgoing packets above WireGuard for a moment, in a root qdisc kept for
// good, and lets them go in their order.
//
// Needs CAP_NET_ADMIN in the network namespace of the process. A process that dies while it holds
// leaves the interface blocked, until hold_open or hold_release_leftover is called for it.
#ifndef APPLIER_HOLD_H
#define APPLIER_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum hold_kind {
    HOLD_AUTO, // what is attached already, else plug where the kernel has it, else tbf
    HOLD_PLUG, // sch_plug: blocks and releases at a word
    HOLD_TBF,  // sch_tbf: its rate is turned down to 1 byte a second and back up
};

// A hold's default limit. Counted in bytes, a GSO packet whole, whether holding or not: take 2 x
// peak rate x the longest hold + 128 KiB.
#define HOLD_LIMIT_DEFAULT (64u * 1024 * 1024)

// "auto", "plug", "tbf"; -1 for what is none.
int hold_kind_from_name(const char *name);
const char *hold_kind_name(enum hold_kind kind);

struct hold;

// Makes `interface` ready: attaches the qdisc as its root if it is not there, releases whatever an
// earlier process left held, sets the limit (bytes that may wait; what comes beyond is dropped).
// Returns 0, or -1 with ERROR_NOT_FOUND (no such interface), ERROR_PERMISSION_DENIED,
// ERROR_FAILED_PRECONDITION where someone else's root qdisc is there, which is left alone, one of
// ours of another kind, or where the kernel has not this kind.
int hold_open(struct hold **out, const char *interface, enum hold_kind kind, uint32_t limit,
              struct error *err);
// The kind in use: HOLD_PLUG or HOLD_TBF.
enum hold_kind hold_kind(const struct hold *hold);
// Whether hold_open had to attach the qdisc: on an interface with traffic, that may have lost a few
// packets (0-5 were seen).
bool hold_attached_now(const struct hold *hold);

// To be called just before hold_begin, for hold_drain's sake: looks at what is on its way to
// WireGuard now, which takes some milliseconds where that is wireguard-go.
void hold_prepare(struct hold *hold);
// From its return on, no packet reaches WireGuard. (tbf: the interface must be up, its MTU must
// stay what it is, and two empty packets of our own are sent, to a multicast address nobody listens
// on.) On failure nothing is held. Holding already: nothing to do.
int hold_begin(struct hold *hold, struct error *err);
// Waits until what was let through before hold_begin has left WireGuard, too: what reaches it after
// its key was replaced would leave under the new one before the counterpart expects that. 0 then,
// and where nothing is held; -1 after `timeout_ms` with ERROR_DEADLINE_EXCEEDED, or where it cannot
// be told: it is held all the same.
int hold_drain(struct hold *hold, int timeout_ms, struct error *err);
// Lets all go that waited, in their order. (tbf: no faster than a WireGuard in user space takes
// them without loss, some 7,500 packets a second; that blocks until nothing waits, for 250 ms at
// most.) Not holding: nothing to do. On failure, try again: the interface is still held.
int hold_end(struct hold *hold, struct error *err);

struct hold_pending {
    uint32_t packets, bytes; // waiting now
    uint32_t dropped;        // since the qdisc was attached, for lack of room
};
int hold_pending(struct hold *hold, struct hold_pending *pending, struct error *err);

// Releases if need be and frees; the qdisc stays. -1 with `err` filled when the interface may still
// be held. NULL is fine.
int hold_close(struct hold *hold, struct error *err);

// Releases `interface` if a qdisc of ours is its root, for start-up, and gives it the default
// limit; else does nothing. 0, or -1 with ERROR_NOT_FOUND (no such interface) or another error.
int hold_release_leftover(const char *interface, struct error *err);

#endif
