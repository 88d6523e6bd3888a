// SPDX-License-Identifier: Apache-2.0
// The token bucket: pure arithmetic, the clock is the caller's.
#include "pace.h"

#define ONE UINT64_C(1000000)

void pace_setup(struct pace *pace, uint64_t per_second, int64_t now_us)
{
    pace->per_second = per_second;
    pace->credit = per_second * ONE;
    pace->last_us = now_us;
}

bool pace_take(struct pace *pace, int64_t now_us)
{
    if (now_us > pace->last_us) {
        uint64_t passed = (uint64_t)(now_us - pace->last_us);
        // Past a second the bucket is full in any case; so nothing can overflow.
        if (passed > ONE)
            passed = ONE;
        pace->credit += passed * pace->per_second;
        if (pace->credit > pace->per_second * ONE)
            pace->credit = pace->per_second * ONE;
        pace->last_us = now_us;
    }
    if (pace->credit < ONE)
        return false;
    pace->credit -= ONE;
    return true;
}
