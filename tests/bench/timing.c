// SPDX-License-Identifier: Apache-2.0
// The clock and the percentiles of the benchmark.
#include "timing.h"

#include <stdlib.h>
#include <time.h>

int64_t timing_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

int64_t timing_percentile(int64_t *values, size_t count, double percent)
{
    size_t index = (size_t)((double)count * percent / 100.0);

    qsort(values, count, sizeof(*values), compare);
    return values[index < count ? index : count - 1];
}
