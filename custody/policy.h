// SPDX-License-Identifier: Apache-2.0
// Who may do what: pure decisions over the configuration. Whatever is not granted is denied.
#ifndef CUSTODY_POLICY_H
#define CUSTODY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "error.h"
#include "record.h"

enum policy_role {
    POLICY_NOBODY = 0,
    POLICY_APPLIER = 1 << 0, // named in some key's grant
    POLICY_AUDITOR = 1 << 1,
    POLICY_OPERATOR = 1 << 2,
};

// Whether `actor` is whom `who` names: uid, gid where given, and the exact unit.
bool policy_matches(const struct config_principal *who, const struct record_actor *actor);

// The roles `actor` has, or-ed.
unsigned policy_roles(const struct config *config, const struct record_actor *actor);

// Whether `actor` is named in a grant of this key.
bool policy_may_see(const struct config_key *key, const struct record_actor *actor);

// Whether `actor` carries this key's rotations out: named in a grant of it with reason ROTATION.
bool policy_may_rotate(const struct config_key *key, const struct record_actor *actor);

// The times of a grant's recent releases, as a token bucket: `count` at once, refilled evenly over
// `seconds`.
struct policy_rate {
    double tokens;
    int64_t filled_us; // 0 = never used: full
};
// Takes one release at `now_us` (monotonic microseconds). False when there is none to take.
bool policy_rate_take(struct policy_rate *rate, uint32_t count, uint32_t seconds, int64_t now_us);

// The rates of all grants, kept across a reload of the configuration.
struct policy_rates;
struct policy_rates *policy_rates_new(void);
void policy_rates_free(struct policy_rates *rates);

// Decides a release: 0 when granted (and the rate is taken), else -1 with PERMISSION_DENIED or
// RESOURCE_EXHAUSTED.
int policy_release(const struct config *config, struct policy_rates *rates,
                   const struct record_actor *actor, const char *key, enum record_reason reason,
                   int64_t now_us, struct error *err);

#endif
