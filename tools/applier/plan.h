// SPDX-License-Identifier: Apache-2.0
// What to do next on one interface: pure decisions from what is wanted (bundles, key states) and
// what is there (log, device). Whoever carries them out asks again afterwards: each is safe to be
// decided and done twice.
#ifndef APPLIER_PLAN_H
#define APPLIER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counterpart.h"
#include "custody.h"
#include "device_view.h"
#include "known_peers.h"
#include "setup.h"

// ---- a counterpart's key on our interface ----

enum plan_step_kind {
    PLAN_STAGE,  // make it a second peer without allowed-ips (endpoint and preshared key of the one
                 // before), record that, acknowledge it
    PLAN_MOVE,   // give it the allowed-ips, making the peer where it is missing; record that
    PLAN_REPAIR, // the same without a record: the log says so already, the interface lost it
    PLAN_RETIRE, // take it off the interface; record that
};

struct plan_step {
    enum plan_step_kind kind;
    uint64_t generation;
    uint8_t public_key[DEVICE_KEY_SIZE];
    bool compromised;   // RETIRE: its host revoked it, and waits for our word
    const char *detail; // why, for the record; a literal
};

#define PLAN_STEPS_MAX 16

struct plan {
    size_t count;
    struct plan_step steps[PLAN_STEPS_MAX]; // in this order
    int64_t due_us;                         // when to ask again at the latest; 0: no need
    bool yield; // our own rotation gives way: the counterpart, which rotates, too, goes first
    bool watch; // a staged generation may take over any moment: look at the handshakes
};

struct plan_counterpart {
    const struct setup_peer *setup;
    const struct counterpart_says *says;
    const struct custody_view *view; // our key's: of its peers, those of this counterpart count
    const struct device_view *device;
    const char *own_host, *own_key;
    bool own_rotation;            // ours is open
    uint64_t answered_generation; // that this process staged: it holds the secret; 0: none
    int64_t grace_us, now_us;
};

// Where both rotate, the lower host id goes first; where one host has both ends, the lower key
// name.
void plan_for_counterpart(const struct plan_counterpart *in, struct plan *plan);

// Whether the peer's allowed-ips are exactly those that are configured.
bool plan_has_allowed_ips(const struct device_peer *peer, const struct setup_peer *setup);

// The counterpart's generation that has, by our log, the allowed-ips; NULL: none.
const struct custody_peer *plan_current(const struct custody_view *view, const char *host,
                                        const char *key);

// A counterpart's generations that are staged on the interface by our log, and that it does not
// announce any more.
unsigned plan_leftovers(const struct custody_view *view, const struct counterpart_says *says,
                        const char *host, const char *key);

// ---- our own key ----

enum plan_own_kind {
    PLAN_NOTHING,
    PLAN_SET_KEY,   // release `generation` for `reason` and set it
    PLAN_ROTATE,    // a rotation to `generation` is open: go on with it
    PLAN_TAKE_OVER, // … and the interface has that key already: see whether it is confirmed
    PLAN_REPLACED,  // … and that is the active one: it replaces a compromised one
};

struct plan_own {
    enum plan_own_kind kind;
    uint64_t generation;
    enum custody_reason reason;
};

// `seen_before`: this process has seen the interface with a key of ours. `ours`: the last public
// key that this process set; NULL: none.
struct plan_own plan_for_own(const struct custody_view *view,
                             const uint8_t device_key[DEVICE_KEY_SIZE], bool seen_before,
                             const uint8_t *ours);

// What must be in the registry about one of our generations; BUNDLE_NONE: no note need be there.
enum record_bundle_state plan_bundle_state(const struct custody_view *view, uint64_t generation);

// NULL where the view has no such generation.
const struct custody_key *plan_generation(const struct custody_view *view, uint64_t generation);
const struct custody_key *plan_in_state(const struct custody_view *view,
                                        enum custody_key_state state);

#endif
