// SPDX-License-Identifier: Apache-2.0
// Backoff and rate: growing, capped, spread, and never more than was granted.
#include "tap.h"
#include "tools/applier/device.h"
#include "tools/applier/retry.h"

static void grows_to_a_cap(void)
{
    for (int costly = 0; costly <= 1; costly++) {
        int64_t first = costly ? 5000 : 250, cap = costly ? 300000 : 30000, before = 0;
        CU_ASSERT_EQUAL(retry_wait_ms(costly, 1, 0), first / 2);
        for (unsigned failures = 1; failures < 100; failures++) {
            int64_t wait = retry_wait_ms(costly, failures, 0);
            CU_ASSERT(wait >= before && wait <= cap);
            before = wait;
        }
        CU_ASSERT_EQUAL(before, cap / 2);
        CU_ASSERT(retry_wait_ms(costly, UINT32_MAX, UINT32_MAX) <= cap);
    }
}

static void is_spread(void)
{
    int64_t low = INT64_MAX, high = 0;
    for (uint32_t random = 0; random < 200000; random += 11) {
        int64_t wait = retry_wait_ms(false, 20, random);
        low = wait < low ? wait : low;
        high = wait > high ? wait : high;
    }
    CU_ASSERT_EQUAL(low, 15000);
    CU_ASSERT_EQUAL(high, 30000);
}

// Greedy use of a rate for an hour: no window of its length ever holds more than its count.
static void rate_holds_in_every_window(void)
{
    struct rate rate;
    int64_t taken[1000], now = 0;
    size_t count = 0;
    CU_ASSERT_EQUAL_FATAL(rate_parse(&rate, "10/60"), 0);
    for (; now < 3600000 && count < 1000; now = rate_next_ms(&rate, now + 1)) {
        CU_ASSERT_EQUAL(rate_next_ms(&rate, now), now);
        rate_take(&rate, now);
        taken[count++] = now;
    }
    CU_ASSERT(count >= 590);
    for (size_t i = 10; i < count; i++)
        CU_ASSERT(taken[i] - taken[i - 10] >= 60000);
}

static void parses_rates(void)
{
    static const char *const bad[] = {"",      "10",     "10/",   "/60",   "0/60", "10/0",
                                      "65/60", "10/60x", "-1/60", "10/-6", "a/b"};
    struct rate rate;
    CU_ASSERT_EQUAL(rate_parse(&rate, "1/3600"), 0);
    CU_ASSERT(rate.count == 1 && rate.per_ms == 3600000);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CU_ASSERT_EQUAL(rate_parse(&rate, bad[i]), -1);
}

static void names_interfaces(void)
{
    static const char *const good[] = {"wg0", "a", "wg-office.1", "abcdefghijklmno"};
    static const char *const bad[] = {
        "", ".", "..", "a/b", "a b", "a:b", "../x", "abcdefghijklmnop", "a\n", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CU_ASSERT(device_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CU_ASSERT(!device_name_is_valid(bad[i]));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a wait grows to its cap", grows_to_a_cap},
        {"a wait is spread over its upper half", is_spread},
        {"a rate holds in every window of its length", rate_holds_in_every_window},
        {"rates are parsed, and nonsense is not", parses_rates},
        {"what may be an interface's name", names_interfaces},
        CU_TEST_INFO_NULL,
    };
    return tap_run("retry", tests);
}
