// SPDX-License-Identifier: Apache-2.0
// When the signed head is due in the token: at once while commits are few, else at an interval.
#ifndef PKCS11_HEAD_PACE_H
#define PKCS11_HEAD_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define HEAD_PACE_COMMITS 20 // in a second: from here on the head waits for the interval

struct head_pace {
    int64_t interval_us;
    int64_t commits_us[HEAD_PACE_COMMITS]; // when the last ones were, a ring
    unsigned next;
    bool waits; // a head was signed that the token has not
    int64_t since_us;
};

// Times are microseconds of a clock that never runs back.
void head_pace_setup(struct head_pace *pace, uint32_t interval_ms);
// A head was signed; it was written into the token.
void head_pace_signed(struct head_pace *pace, int64_t now_us);
void head_pace_written(struct head_pace *pace);
// In how many microseconds the head that waits is due; 0 = now, -1 when none waits.
int64_t head_pace_due(const struct head_pace *pace, int64_t now_us);

#endif
