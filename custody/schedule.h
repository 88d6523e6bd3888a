// SPDX-License-Identifier: Apache-2.0
// When a key's next rotation is due, and when an old generation has had its grace: pure functions
// of state, policy and nothing else, so that a restart changes neither.
#ifndef CUSTODY_SCHEDULE_H
#define CUSTODY_SCHEDULE_H

#include <stdint.h>

#include "config.h"
#include "rotations.h"
#include "state.h"

// How much earlier than its lifetime says generation `generation` of `key` on `host` is rotated: 0
// to `jitter_s` seconds, in microseconds; by SHA-256 of the three, so that hosts differ and
// restarts do not.
int64_t schedule_jitter_us(const char *host, const char *key, uint64_t generation,
                           uint32_t jitter_s);

// When the next rotation of a key is due, in microseconds since 1970 UTC; 0 where none is: no
// lifetime, nobody who could carry it out, no active generation, one under way, an operator's hold.
// A time that has passed means: now. After rotations that were rolled back, the next waits for
// `window` times two to the number of those in a row, at most a quarter of the lifetime (of an
// hour where it has none).
// `rotation` and `active` may be NULL.
int64_t schedule_rotation_us(const struct config_key *config, const char *host,
                             const struct rotation *rotation, const struct state_key *active);

// Before when no rotation comes after those that were rolled back in a row; 0 where none was.
// `rotation` may be NULL.
int64_t schedule_again_us(const struct config_key *config, const struct rotation *rotation);

// When a deactivated generation is to be destroyed; 0 for one that is not deactivated.
int64_t schedule_destruction_us(const struct config_key *config, const struct state_key *key);

#endif
