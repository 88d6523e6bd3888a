// SPDX-License-Identifier: Apache-2.0
// When to try again, and how often at most: backoff and rate, pure (times are handed in, in
// milliseconds).
#ifndef APPLIER_RETRY_H
#define APPLIER_RETRY_H

#include <stdbool.h>
#include <stdint.h>

// How long to wait after the `failures`-th failure in a row (1, 2, ...): doubling up to a cap, the
// upper half of it spread by `random`, so that many appliers do not come back at one instant. What
// is `costly` (a release was asked for, which leaves a record in the log each time) is tried more
// rarely than what passes by itself.
int64_t retry_wait_ms(bool costly, unsigned failures, uint32_t random);

#define RATE_MAX 64

// At most `count` (1..RATE_MAX) releases in any `per_ms` milliseconds.
struct rate {
    unsigned count;
    int64_t per_ms;
    unsigned used; // how many of `taken` are filled
    unsigned next; // the oldest of `taken`, overwritten next
    int64_t taken[RATE_MAX];
};
// Parses "10/60" (releases per seconds). Returns 0, or -1 when it is none.
int rate_parse(struct rate *rate, const char *text);
// The earliest time, `now_ms` or later, at which one more is within the rate.
int64_t rate_next_ms(const struct rate *rate, int64_t now_ms);
void rate_take(struct rate *rate, int64_t now_ms);

#endif
