// SPDX-License-Identifier: Apache-2.0
// The transitions of a key generation, one row an event that touches it.
#include "lifecycle.h"

#include <string.h>

#define NO (-1)

// next[event][state]: NIST SP 800-57 part 1 section 7, without its "suspended", which is an
// operator's hold of the whole key here (rotations.h) and no state of a generation. Rows that are
// all zero (KEY_NONE -> KEY_NONE) belong to events that are about no generation; the first column
// of the others never is.
// clang-format off
static const signed char next[RECORD_EVENTS][KEY_STATES] = {
    //                           none            pre-active       active           deactivated      compromised      destroying      destroyed
    [RECORD_KEY_GENERATED]   = {KEY_PRE_ACTIVE, NO,              NO,              NO,              NO,              NO,             NO},
    [RECORD_KEY_IMPORTED]    = {KEY_PRE_ACTIVE, NO,              NO,              NO,              NO,              NO,             NO},
    // What has ended is published as such.
    [RECORD_KEY_PUBLISHED]   = {NO,             KEY_PRE_ACTIVE,  KEY_ACTIVE,      KEY_DEACTIVATED, KEY_COMPROMISED, KEY_DESTROYING, KEY_DESTROYED},
    [RECORD_KEY_ACTIVATED]   = {NO,             KEY_ACTIVE,      NO,              KEY_ACTIVE,      NO,              NO,             NO},
    [RECORD_KEY_DEACTIVATED] = {NO,             NO,              KEY_DEACTIVATED, NO,              NO,              NO,             NO},
    [RECORD_KEY_REVOKED]     = {NO,             KEY_COMPROMISED, KEY_COMPROMISED, KEY_COMPROMISED, NO,              NO,             NO},
    [RECORD_KEY_DESTROYING]  = {NO,             KEY_DESTROYING,  KEY_DESTROYING,  KEY_DESTROYING,  KEY_DESTROYING,  KEY_DESTROYING, NO},
    [RECORD_KEY_DESTROYED]   = {NO,             NO,              NO,              NO,              NO,              KEY_DESTROYED,  NO},
    [RECORD_RELEASE_GRANTED] = {NO,             KEY_PRE_ACTIVE,  KEY_ACTIVE,      KEY_DEACTIVATED, NO,              NO,             NO},
    // An outcome may come when the key has moved on: revoked, or even destroyed, between release and report.
    [RECORD_RELEASE_APPLIED] = {NO,             KEY_PRE_ACTIVE,  KEY_ACTIVE,      KEY_DEACTIVATED, KEY_COMPROMISED, KEY_DESTROYING, KEY_DESTROYED},
    [RECORD_RELEASE_FAILED]  = {NO,             KEY_PRE_ACTIVE,  KEY_ACTIVE,      KEY_DEACTIVATED, KEY_COMPROMISED, KEY_DESTROYING, KEY_DESTROYED},
    [RECORD_LEASE_EXPIRED]   = {NO,             KEY_PRE_ACTIVE,  KEY_ACTIVE,      KEY_DEACTIVATED, KEY_COMPROMISED, KEY_DESTROYING, KEY_DESTROYED},
};
// clang-format on

int lifecycle_next(enum key_state state, enum record_event event)
{
    if ((unsigned)state >= KEY_STATES || (unsigned)event >= RECORD_EVENTS)
        return NO;
    return next[event][state] == KEY_NONE ? NO : next[event][state];
}

bool lifecycle_is_about_generation(enum record_event event)
{
    return (unsigned)event < RECORD_EVENTS && next[event][KEY_NONE] != KEY_NONE;
}

bool lifecycle_needs_approval(enum key_state state, enum record_event event)
{
    return state == KEY_ACTIVE && event == RECORD_KEY_DESTROYING;
}

bool lifecycle_may_release(enum key_state state, enum record_reason reason)
{
    return state == KEY_PRE_ACTIVE || state == KEY_ACTIVE ||
           (state == KEY_DEACTIVATED && reason == REASON_ROLLBACK);
}

bool lifecycle_may_release_imported(enum record_reason reason)
{
    return reason == REASON_BOOT || reason == REASON_RESTORE || reason == REASON_ROLLBACK;
}

enum record_bundle_state lifecycle_bundle_state(enum key_state state)
{
    switch (state) {
    case KEY_PRE_ACTIVE:
        return BUNDLE_PRE_ACTIVE;
    case KEY_ACTIVE:
        return BUNDLE_ACTIVE;
    case KEY_COMPROMISED:
        return BUNDLE_COMPROMISED;
    case KEY_DEACTIVATED:
    case KEY_DESTROYING:
    case KEY_DESTROYED:
        return BUNDLE_DESTROYED;
    default:
        return BUNDLE_NONE;
    }
}

enum key_state lifecycle_state_from_name(const char *name)
{
    for (int state = KEY_NONE + 1; state < KEY_STATES; state++)
        if (strcmp(lifecycle_state_name(state), name) == 0)
            return state;
    return KEY_NONE;
}

const char *lifecycle_state_name(enum key_state state)
{
    static const char *const names[KEY_STATES] = {
        [KEY_NONE] = "none",
        [KEY_PRE_ACTIVE] = "pre-active",
        [KEY_ACTIVE] = "active",
        [KEY_DEACTIVATED] = "deactivated",
        [KEY_COMPROMISED] = "compromised",
        [KEY_DESTROYING] = "destroying",
        [KEY_DESTROYED] = "destroyed",
    };
    return (unsigned)state < KEY_STATES ? names[state] : "none";
}
