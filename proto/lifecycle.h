// SPDX-License-Identifier: Apache-2.0
// The life of a key generation: NIST SP 800-57's states and the events that lead from one to the
// next, as a pure table.
#ifndef PROTO_LIFECYCLE_H
#define PROTO_LIFECYCLE_H

#include <stdbool.h>

#include "record.h"

enum key_state {
    KEY_NONE = 0,    // not generated yet
    KEY_PRE_ACTIVE,  // sealed; may be published
    KEY_ACTIVE,      // confirmed on the interface
    KEY_DEACTIVATED, // replaced; kept for the grace period
    KEY_COMPROMISED, // revoked; never released again
    KEY_DESTROYING,  // its destruction is recorded; the token may still hold it
    KEY_DESTROYED,
    KEY_STATES
};

// The state that `event` leads to from `state`, or -1 where the event is not legal there. Events
// that are not about a generation's state (a release, an outcome) leave it as it is where they are
// legal.
int lifecycle_next(enum key_state state, enum record_event event);

// Whether records of `event` are about one generation, and so legal in some of its states only.
bool lifecycle_is_about_generation(enum record_event event);

// Whether the transition is legal only with an approved request: what an active key's interface
// needs is not destroyed by one operator alone.
bool lifecycle_needs_approval(enum key_state state, enum record_event event);

// Whether a generation in `state` may be released for `reason`: pre-active and active ones, and a
// deactivated one only for ROLLBACK (the grace period is the caller's to check).
bool lifecycle_may_release(enum key_state state, enum record_reason reason);
// Whether one that was imported may be, besides: it is there to be rotated off, or back to, and for
// nothing else.
bool lifecycle_may_release_imported(enum record_reason reason);

// What a bundle says of a generation in `state`: all that ended is "destroyed", but for what was
// compromised. BUNDLE_NONE for KEY_NONE.
enum record_bundle_state lifecycle_bundle_state(enum key_state state);

// "pre-active"; "none" for a number that is none of them.
const char *lifecycle_state_name(enum key_state state);
// And back; KEY_NONE for what is none of them.
enum key_state lifecycle_state_from_name(const char *name);

#endif
