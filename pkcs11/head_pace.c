// SPDX-License-Identifier: Apache-2.0
// The pace of custody-head: pure arithmetic, the clock is the caller's.
#include "head_pace.h"

#define SECOND_US INT64_C(1000000)

void head_pace_setup(struct head_pace *pace, uint32_t interval_ms)
{
    *pace = (struct head_pace){.interval_us = (int64_t)interval_ms * 1000};
    for (unsigned i = 0; i < HEAD_PACE_COMMITS; i++)
        pace->commits_us[i] = -SECOND_US;
}

void head_pace_signed(struct head_pace *pace, int64_t now_us)
{
    pace->commits_us[pace->next] = now_us;
    pace->next = (pace->next + 1) % HEAD_PACE_COMMITS;
    if (!pace->waits)
        pace->since_us = now_us;
    pace->waits = true;
}

void head_pace_written(struct head_pace *pace)
{
    pace->waits = false;
}

int64_t head_pace_due(const struct head_pace *pace, int64_t now_us)
{
    if (!pace->waits)
        return -1;
    // The ring's next place holds the oldest: while that is within the last second, commits are
    // many.
    int64_t calm = pace->commits_us[pace->next] + SECOND_US - now_us;
    int64_t late = pace->since_us + pace->interval_us - now_us;
    int64_t due = calm < late ? calm : late;
    return due > 0 ? due : 0;
}
