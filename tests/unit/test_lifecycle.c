// SPDX-License-Identifier: Apache-2.0
// Every event in every state of a key, against a list of what is legal and of nothing else.
#include "lifecycle.h"

#include <string.h>

#include "tap.h"

// NIST SP 800-57 part 1, section 7, with "destroying" between a key's last state and destroyed.
static const struct step {
    enum record_event event;
    enum key_state from, to;
} legal[] = {
    {RECORD_KEY_GENERATED, KEY_NONE, KEY_PRE_ACTIVE},
    {RECORD_KEY_IMPORTED, KEY_NONE, KEY_PRE_ACTIVE},
    {RECORD_KEY_ACTIVATED, KEY_PRE_ACTIVE, KEY_ACTIVE},
    {RECORD_KEY_ACTIVATED, KEY_DEACTIVATED, KEY_ACTIVE}, // rolled back to
    {RECORD_KEY_DEACTIVATED, KEY_ACTIVE, KEY_DEACTIVATED},
    {RECORD_KEY_REVOKED, KEY_PRE_ACTIVE, KEY_COMPROMISED},
    {RECORD_KEY_REVOKED, KEY_ACTIVE, KEY_COMPROMISED},
    {RECORD_KEY_REVOKED, KEY_DEACTIVATED, KEY_COMPROMISED},
    {RECORD_KEY_DESTROYING, KEY_ACTIVE, KEY_DESTROYING}, // only as two operators approved
    {RECORD_KEY_DESTROYING, KEY_PRE_ACTIVE, KEY_DESTROYING},
    {RECORD_KEY_DESTROYING, KEY_DEACTIVATED, KEY_DESTROYING},
    {RECORD_KEY_DESTROYING, KEY_COMPROMISED, KEY_DESTROYING},
    {RECORD_KEY_DESTROYING, KEY_DESTROYING, KEY_DESTROYING}, // again, after a crash
    {RECORD_KEY_DESTROYED, KEY_DESTROYING, KEY_DESTROYED},
};

// Events that leave a key as it is: for each, the states it may come in.
#define IN(state) (1u << (state))
#define LIVING    (IN(KEY_PRE_ACTIVE) | IN(KEY_ACTIVE) | IN(KEY_DEACTIVATED))
#define MADE      (LIVING | IN(KEY_COMPROMISED) | IN(KEY_DESTROYING) | IN(KEY_DESTROYED))
static const struct {
    enum record_event event;
    unsigned states;
} staying[] = {
    {RECORD_KEY_PUBLISHED, MADE},  {RECORD_RELEASE_GRANTED, LIVING}, {RECORD_RELEASE_APPLIED, MADE},
    {RECORD_RELEASE_FAILED, MADE}, {RECORD_LEASE_EXPIRED, MADE},
};

static int expected(enum key_state from, enum record_event event)
{
    for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++)
        if (legal[i].event == event && legal[i].from == from)
            return (int)legal[i].to;
    for (size_t i = 0; i < sizeof(staying) / sizeof(staying[0]); i++)
        if (staying[i].event == event && (staying[i].states & IN(from)) != 0)
            return (int)from;
    return -1;
}

static void test_approval(void)
{
    for (unsigned event = 0; event < RECORD_EVENTS; event++)
        for (unsigned from = 0; from < KEY_STATES; from++)
            CU_ASSERT_EQUAL(lifecycle_needs_approval(from, event),
                            event == RECORD_KEY_DESTROYING && from == KEY_ACTIVE);
}

static void test_state_names(void)
{
    for (unsigned state = KEY_NONE + 1; state < KEY_STATES; state++)
        CU_ASSERT_EQUAL(lifecycle_state_from_name(lifecycle_state_name(state)), state);
    CU_ASSERT_EQUAL(lifecycle_state_from_name("none"), KEY_NONE);
    CU_ASSERT_EQUAL(lifecycle_state_from_name(""), KEY_NONE);
}

static void test_every_event_in_every_state(void)
{
    for (unsigned event = 0; event < RECORD_EVENTS; event++)
        for (unsigned from = 0; from < KEY_STATES; from++)
            CU_ASSERT_EQUAL(lifecycle_next(from, event), expected(from, event));
}

static void test_out_of_range(void)
{
    CU_ASSERT_EQUAL(lifecycle_next(KEY_STATES, RECORD_KEY_ACTIVATED), -1);
    CU_ASSERT_EQUAL(lifecycle_next((enum key_state) - 1, RECORD_KEY_ACTIVATED), -1);
    CU_ASSERT_EQUAL(lifecycle_next(KEY_ACTIVE, RECORD_EVENTS), -1);
    CU_ASSERT_EQUAL(lifecycle_next(KEY_ACTIVE, (enum record_event) - 1), -1);
}

static void test_release(void)
{
    for (unsigned state = 0; state < KEY_STATES; state++)
        for (unsigned reason = 0; reason < REASONS; reason++) {
            bool may = (IN(state) & (IN(KEY_PRE_ACTIVE) | IN(KEY_ACTIVE))) != 0;
            if (state == KEY_DEACTIVATED)
                may = reason == REASON_ROLLBACK;
            CU_ASSERT_EQUAL(lifecycle_may_release(state, reason), may);
        }
}

// What policy lets out must be legal in the log, and what was revoked or destroyed never is.
static void test_release_is_legal(void)
{
    for (unsigned state = 0; state < KEY_STATES; state++)
        for (unsigned reason = 0; reason < REASONS; reason++)
            if (lifecycle_may_release(state, reason))
                CU_ASSERT_EQUAL(lifecycle_next(state, RECORD_RELEASE_GRANTED), (int)state);
}

static void test_bundle_states(void)
{
    static const enum record_bundle_state says[KEY_STATES] = {
        BUNDLE_NONE,        BUNDLE_PRE_ACTIVE, BUNDLE_ACTIVE,   BUNDLE_DESTROYED,
        BUNDLE_COMPROMISED, BUNDLE_DESTROYED,  BUNDLE_DESTROYED};
    for (unsigned state = 0; state < KEY_STATES; state++)
        CU_ASSERT_EQUAL(lifecycle_bundle_state(state), says[state]);
    CU_ASSERT_EQUAL(lifecycle_bundle_state(KEY_STATES), BUNDLE_NONE);
}

static void test_names(void)
{
    static const char *const names[KEY_STATES] = {
        "none", "pre-active", "active", "deactivated", "compromised", "destroying", "destroyed"};
    for (unsigned state = 0; state < KEY_STATES; state++)
        CU_ASSERT_STRING_EQUAL(lifecycle_state_name(state), names[state]);
    CU_ASSERT_STRING_EQUAL(lifecycle_state_name(KEY_STATES), "none");
    CU_ASSERT_STRING_EQUAL(lifecycle_state_name((enum key_state) - 1), "none");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"every event in every state", test_every_event_in_every_state},
        {"what needs approval", test_approval},
        {"names of states, there and back", test_state_names},
        {"states and events that are none", test_out_of_range},
        {"which states are released for which reasons", test_release},
        {"what may be released is legal", test_release_is_legal},
        {"what a bundle says of each state", test_bundle_states},
        {"names of states", test_names},
        CU_TEST_INFO_NULL,
    };
    return tap_run("lifecycle", tests);
}
