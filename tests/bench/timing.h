// SPDX-License-Identifier: Apache-2.0
// Times of many like operations, and what is said of them: how many a second, the middle one, the
// slow ones.
#ifndef TESTS_BENCH_TIMING_H
#define TESTS_BENCH_TIMING_H

#include <stddef.h>
#include <stdint.h>

// Nanoseconds on a clock that only runs forward.
int64_t timing_now(void);

// The value below which `percent` of the `count` > 0 values lie. Sorts `values`.
int64_t timing_percentile(int64_t *values, size_t count, double percent);

#endif
