// SPDX-License-Identifier: Apache-2.0
// The keeper's small parts: words for PKCS#11's return values, and the pace of releases.
#include <string.h>

#include "ckr.h"
#include "head_pace.h"
#include "pace.h"
#include "tap.h"

static void test_words(void)
{
    struct error err;
    CU_ASSERT_EQUAL(ckr_set(&err, CKR_PIN_INCORRECT, "C_Login"), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAUTHENTICATED);
    CU_ASSERT_STRING_EQUAL(err.message, "C_Login: the PIN is wrong (CKR_PIN_INCORRECT, 0xa0)");
    ckr_set(&err, CKR_DEVICE_REMOVED, "C_Sign");
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    ckr_set(&err, CKR_DEVICE_MEMORY, "C_CreateObject");
    CU_ASSERT_EQUAL(err.code, ERROR_RESOURCE_EXHAUSTED);
}

static void test_unknown_values(void)
{
    struct error err;
    CU_ASSERT_STRING_EQUAL(ckr_name(0x77777), "CKR_?");
    CU_ASSERT_STRING_EQUAL(ckr_name(CKR_VENDOR_DEFINED + 5), "CKR_VENDOR_DEFINED");
    ckr_set(&err, CKR_VENDOR_DEFINED + 5, "C_Sign");
    CU_ASSERT_EQUAL(err.code, ERROR_INTERNAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "0x80000005"));
    // A failure that calls itself CKR_OK must still be one.
    ckr_set(&err, CKR_OK, "C_Sign");
    CU_ASSERT_EQUAL(err.code, ERROR_INTERNAL);
}

static unsigned take(struct pace *pace, unsigned tries, int64_t now_us)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < tries; i++)
        taken += pace_take(pace, now_us);
    return taken;
}

static void test_pace(void)
{
    struct pace pace;
    pace_setup(&pace, 10, 5000000);
    CU_ASSERT_EQUAL(take(&pace, 100, 5000000), 10);
    CU_ASSERT_EQUAL(take(&pace, 100, 5099999), 0);
    CU_ASSERT_EQUAL(take(&pace, 100, 5100000), 1);
    CU_ASSERT_EQUAL(take(&pace, 100, 5600000), 5);
    // Idle time is worth no more than one second's keys.
    CU_ASSERT_EQUAL(take(&pace, 100, INT64_MAX), 10);
    CU_ASSERT_EQUAL(take(&pace, 100, 0), 0);
}

static void test_pace_at_its_bounds(void)
{
    struct pace pace;
    pace_setup(&pace, 1, 0);
    CU_ASSERT_EQUAL(take(&pace, 5, 0), 1);
    CU_ASSERT_EQUAL(take(&pace, 5, 999999), 0);
    CU_ASSERT_EQUAL(take(&pace, 5, 1000000), 1);
    pace_setup(&pace, 1000000, 0);
    CU_ASSERT_EQUAL(take(&pace, 2000000, 0), 1000000);
    CU_ASSERT_EQUAL(take(&pace, 10, 3), 3);
}

#define SECOND INT64_C(1000000)

static void test_head_is_due_at_once_while_commits_are_few(void)
{
    struct head_pace pace;
    head_pace_setup(&pace, 5000);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 0), -1);
    // The first second of a clock is not taken for a busy one.
    head_pace_signed(&pace, 0);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 0), 0);
    head_pace_written(&pace);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 0), -1);
    for (int i = 1; i < 100; i++) {
        head_pace_signed(&pace, i * SECOND / (HEAD_PACE_COMMITS - 1));
        CU_ASSERT_EQUAL(head_pace_due(&pace, i * SECOND / (HEAD_PACE_COMMITS - 1)), 0);
        head_pace_written(&pace);
    }
}

static void test_head_waits_while_commits_are_many(void)
{
    struct head_pace pace;
    head_pace_setup(&pace, 700);
    for (int i = 0; i < HEAD_PACE_COMMITS - 1; i++) {
        head_pace_signed(&pace, 10 * SECOND + i);
        CU_ASSERT_EQUAL(head_pace_due(&pace, 10 * SECOND + i), 0);
        head_pace_written(&pace);
    }
    // The twentieth within a second waits for the interval, and so do those after it.
    head_pace_signed(&pace, 10 * SECOND + 100);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 10 * SECOND + 100), 700000);
    head_pace_signed(&pace, 10 * SECOND + 300);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 10 * SECOND + 300), 699800);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 10 * SECOND + 700100), 0);
    // When they stop it is not waited longer than the busy second.
    head_pace_setup(&pace, 60000);
    for (int i = 0; i < HEAD_PACE_COMMITS; i++)
        head_pace_signed(&pace, 20 * SECOND);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 20 * SECOND + 1), SECOND - 1);
    CU_ASSERT_EQUAL(head_pace_due(&pace, 21 * SECOND), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"return values have words and codes", test_words},
        {"unknown return values are errors", test_unknown_values},
        {"releases have a pace", test_pace},
        {"the pace at its bounds", test_pace_at_its_bounds},
        {"the head is due at once while commits are few",
         test_head_is_due_at_once_while_commits_are_few},
        {"the head waits while commits are many", test_head_waits_while_commits_are_many},
        CU_TEST_INFO_NULL,
    };
    return tap_run("keeper parts", tests);
}
