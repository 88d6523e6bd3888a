// SPDX-License-Identifier: Apache-2.0
// A limit on how often: a token bucket that holds one second's worth.
#ifndef PKCS11_PACE_H
#define PKCS11_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    uint64_t per_second;
    uint64_t credit; // in millionths of one
    int64_t last_us; // monotonic
};

// Allows `per_second` (1 to 1000000) at once, and as many in each second after.
void pace_setup(struct pace *pace, uint64_t per_second, int64_t now_us);
// Takes one. Returns false when there is none. `now_us` is microseconds of a clock that never runs
// back.
bool pace_take(struct pace *pace, int64_t now_us);

#endif
