// SPDX-License-Identifier: Apache-2.0
// The pauses between looks at a device, and the time of the next pass.
#include "pace.h"

#define OWN_MS         2
#define FOLLOW_HOT_MS  4
#define FOLLOW_PART    16
#define FOLLOW_WARM_MS 25 // half of what cutover.c waits after a handshake nobody tells of
#define FOLLOW_COLD_MS 1000
#define COLD_PART      50

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t pace_of_own(int64_t took_ms)
{
    return larger(took_ms, OWN_MS);
}

int64_t pace_follow(const struct pace *pace, int64_t now_ms, int64_t took_ms)
{
    if (now_ms >= pace->hot_until_ms)
        return larger(COLD_PART * took_ms, FOLLOW_COLD_MS);
    int64_t part = larger((now_ms - pace->asked_ms) / FOLLOW_PART, FOLLOW_HOT_MS);
    return larger(smaller(part, FOLLOW_WARM_MS), took_ms);
}

int64_t pace_pass(const struct pace *pace, int64_t now_ms)
{
    if (pace->dirty)
        return 0;
    bool follows = now_ms < pace->hot_until_ms && pace->follow_ms != INT64_MAX;
    return follows && !pace->heard ? larger(pace->due_ms, pace->hot_until_ms) : pace->due_ms;
}
