// SPDX-License-Identifier: Apache-2.0
// Looks at a device: close enough for those that wait, and a bounded share of a core.
#include "tap.h"
#include "tools/applier/pace.h"

#define ASKED 1000000 // ms of the clock
#define HOT   2000

static const struct pace asked = {
    .asked_ms = ASKED, .hot_until_ms = ASKED + HOT, .follow_ms = ASKED, .due_ms = ASKED + 100};

static void looks_take_half_a_core_at_most(void)
{
    for (int64_t took = 0; took < 500; took++) {
        CU_ASSERT(pace_of_own(took) >= took);
        for (int64_t now = ASKED; now < ASKED + HOT; now += 7)
            CU_ASSERT(pace_follow(&asked, now, took) >= took);
        CU_ASSERT(pace_follow(&asked, ASKED + HOT, took) >= 50 * took);
    }
}

// A quick look is late by 4 ms at first; by a sixteenth of the time since then, and never by as
// much as the 50 ms that the other end waits after a handshake where nobody tells of the move.
static void a_look_is_late_by_little(void)
{
    int64_t before = 0;
    CU_ASSERT_EQUAL(pace_of_own(0), 2);
    CU_ASSERT_EQUAL(pace_follow(&asked, ASKED, 0), 4);
    for (int64_t since = 0; since < HOT; since++) {
        int64_t wait = pace_follow(&asked, ASKED + since, 0);
        CU_ASSERT(wait >= before && wait <= 25 && (wait == 4 || wait <= since / 16));
        before = wait;
    }
    CU_ASSERT_EQUAL(before, 25);
    CU_ASSERT_EQUAL(pace_follow(&asked, ASKED + HOT, 0), 1000);
}

// How many looks a host makes: what fifty of them on one machine cost it.
static void few_looks_while_a_cutover_takes_long(void)
{
    int looks = 0;
    for (int64_t now = ASKED; now < ASKED + HOT; now += pace_follow(&asked, now, 0))
        looks++;
    CU_ASSERT(looks <= 120);
}

static void passes_wait_while_a_handshake_is_expected(void)
{
    struct pace pace = asked;
    CU_ASSERT_EQUAL(pace_pass(&pace, ASKED), ASKED + HOT);
    CU_ASSERT_EQUAL(pace_pass(&pace, ASKED + HOT), ASKED + 100);
    pace.due_ms = ASKED + 2 * HOT;
    CU_ASSERT_EQUAL(pace_pass(&pace, ASKED), ASKED + 2 * HOT);
}

static void a_pass_is_made_at_once_for_what_cannot_wait(void)
{
    struct pace dirty = asked, heard = asked, nothing = asked;
    dirty.dirty = true;
    CU_ASSERT_EQUAL(pace_pass(&dirty, ASKED), 0);
    heard.heard = true;
    CU_ASSERT_EQUAL(pace_pass(&heard, ASKED), ASKED + 100);
    nothing.follow_ms = INT64_MAX;
    CU_ASSERT_EQUAL(pace_pass(&nothing, ASKED), ASKED + 100);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"looks take half a core at most", looks_take_half_a_core_at_most},
        {"a look is late by little", a_look_is_late_by_little},
        {"few looks while a cutover takes long", few_looks_while_a_cutover_takes_long},
        {"passes wait while a handshake is expected", passes_wait_while_a_handshake_is_expected},
        {"a pass is made at once for what cannot wait",
         a_pass_is_made_at_once_for_what_cannot_wait},
        CU_TEST_INFO_NULL,
    };
    return tap_run("pace", tests);
}
