// SPDX-License-Identifier: Apache-2.0
// When what is due: a table of keys, their rotations and their policy; and the steps that are kept.
#include "schedule.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "steps.h"
#include "tap.h"

#define S                  INT64_C(1000000)
#define JITTER_ALPHA_WG0_1 INT64_C(242977646)

#define T (INT64_C(1795000000) * S) // when the generation was activated

static struct config_grant rotating = {.reasons = 1u << REASON_BOOT | 1u << REASON_ROTATION};
static struct config_grant booting = {.reasons = 1u << REASON_BOOT};

static const struct {
    const char *what;
    uint32_t lifetime, window;
    bool granted;
    bool active;
    struct rotation rotation;
    int64_t due; // after T; -1: never
} cases[] = {
    {"the first time", 1000, 60, true, true, {.key = ""}, 1000 * S},
    {"no lifetime", 0, 60, true, true, {.key = ""}, -1},
    {"nobody who could", 1000, 60, false, true, {.key = ""}, -1},
    {"nothing active", 1000, 60, true, false, {.key = ""}, -1},
    {"one under way", 1000, 60, true, true, {.generation = 2, .started_us = T}, -1},
    {"suspended", 1000, 60, true, true, {.suspended_us = T}, -1},
    {"after one that was confirmed",
     1000,
     60,
     true,
     true,
     {.ended_us = T, .confirmed = 1},
     1000 * S},
    {"rolled back early: the lifetime counts",
     1000,
     60,
     true,
     true,
     {.ended_us = T + 10 * S, .failures = 1},
     1000 * S},
    {"rolled back once: twice the window",
     1000,
     60,
     true,
     true,
     {.ended_us = T + 1010 * S, .failures = 1},
     1130 * S},
    {"rolled back twice: four times",
     1000,
     60,
     true,
     true,
     {.ended_us = T + 1200 * S, .failures = 2},
     1440 * S},
    {"at most a quarter of the lifetime",
     1000,
     60,
     true,
     true,
     {.ended_us = T + 2000 * S, .failures = 3},
     2250 * S},
    {"however often",
     1000,
     60,
     true,
     true,
     {.ended_us = T + 2000 * S, .failures = UINT32_MAX},
     2250 * S},
    {"a long window, often",
     316224000,
     3600,
     true,
     true,
     {.ended_us = T + 316224000 * S, .failures = 64},
     (316224000 + 79056000) * S},
};

static void test_rotation(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct config_key config = {.name = "wg0",
                                          .lifetime_s = cases[i].lifetime,
                                          .window_s = cases[i].window,
                                          .grants = cases[i].granted ? &rotating : &booting,
                                          .grant_count = 1};
        const struct state_key active = {
            .name = "wg0", .generation = 1, .state = KEY_ACTIVE, .activated_us = T};
        int64_t due = schedule_rotation_us(&config, "alpha", &cases[i].rotation,
                                           cases[i].active ? &active : NULL);
        int64_t expected = cases[i].due < 0 ? 0 : T + cases[i].due;
        if (due != expected)
            printf("# %s: %" PRId64 "\n", cases[i].what, due - T);
        CU_ASSERT_EQUAL(due, expected);
    }
}

// What nothing is known of has no rotation.
static void test_unknown(void)
{
    const struct config_key config = {
        .name = "wg0", .lifetime_s = 1000, .grants = &rotating, .grant_count = 1};
    const struct state_key active = {
        .name = "wg0", .generation = 1, .state = KEY_ACTIVE, .activated_us = T};
    CU_ASSERT_EQUAL(schedule_rotation_us(&config, "alpha", NULL, &active), T + 1000 * S);
    CU_ASSERT_EQUAL(schedule_again_us(&config, NULL), 0);
}

static void test_again_without_lifetime(void)
{
    const struct config_key config = {.name = "wg0", .window_s = 60};
    struct rotation rotation = {.ended_us = T, .failures = 1};
    CU_ASSERT_EQUAL(schedule_again_us(&config, &rotation), T + 120 * S);
    rotation.failures = 9;
    CU_ASSERT_EQUAL(schedule_again_us(&config, &rotation), T + 900 * S);
}

static void test_jitter(void)
{
    int64_t least = INT64_MAX, most = -1;
    // By SHA-256 of host, key and generation: these may never change, or a restart would move what
    // is due.
    CU_ASSERT_EQUAL(schedule_jitter_us("alpha", "wg0", 1, 3600), JITTER_ALPHA_WG0_1);
    CU_ASSERT_NOT_EQUAL(schedule_jitter_us("beta", "wg0", 1, 3600), JITTER_ALPHA_WG0_1);
    CU_ASSERT_NOT_EQUAL(schedule_jitter_us("alpha", "wg1", 1, 3600), JITTER_ALPHA_WG0_1);
    CU_ASSERT_NOT_EQUAL(schedule_jitter_us("alpha", "wg0", 2, 3600), JITTER_ALPHA_WG0_1);
    CU_ASSERT_EQUAL(schedule_jitter_us("alpha", "wg0", 1, 0), 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        int64_t share = schedule_jitter_us("alpha", "wg0", i, 100);
        least = share < least ? share : least;
        most = share > most ? share : most;
    }
    // All of the range is used, and nothing beyond.
    CU_ASSERT(least >= 0 && least < 2 * S);
    CU_ASSERT(most <= 100 * S && most > 98 * S);
}

static void test_destruction(void)
{
    const struct config_key config = {.name = "wg0", .grace_s = 300};
    struct state_key key = {.name = "wg0", .state = KEY_DEACTIVATED, .deactivated_us = T};
    CU_ASSERT_EQUAL(schedule_destruction_us(&config, &key), T + 300 * S);
    for (int state = KEY_NONE; state < KEY_STATES; state++) {
        key.state = (enum key_state)state;
        if (state != KEY_DEACTIVATED)
            CU_ASSERT_EQUAL(schedule_destruction_us(&config, &key), 0);
    }
}

// ---- steps ----

static struct record step(enum record_event event, const char *key, uint64_t seq)
{
    struct record record = {.event = event, .seq = seq, .generation = 2};
    snprintf(record.key, sizeof(record.key), "%s", key);
    return record;
}

static void note(struct steps *steps, enum record_event event, const char *key, uint64_t seq)
{
    struct record record = step(event, key, seq);
    steps_note(steps, &record);
}

static void test_steps(void)
{
    struct steps *steps = steps_new();
    note(steps, RECORD_KEY_PUBLISHED, "wg0", 1); // before any rotation
    CU_ASSERT_EQUAL(steps_count(steps, "wg0"), 0);
    note(steps, RECORD_ROTATION_STARTED, "wg0", 2);
    note(steps, RECORD_ROTATION_STARTED, "wg1", 3);
    note(steps, RECORD_KEY_PUBLISHED, "wg0", 4);
    note(steps, RECORD_DRIFT_FOUND, "wg0", 5); // no step
    CU_ASSERT_EQUAL_FATAL(steps_count(steps, "wg0"), 2);
    CU_ASSERT_EQUAL(steps_at(steps, "wg0", 1)->seq, 4);
    CU_ASSERT_PTR_NULL(steps_at(steps, "wg0", 2));
    // The latest are kept.
    for (uint64_t seq = 10; seq < 10 + STEPS_MAX; seq++)
        note(steps, RECORD_PEER_MOVED, "wg0", seq);
    CU_ASSERT_EQUAL_FATAL(steps_count(steps, "wg0"), STEPS_MAX);
    CU_ASSERT_EQUAL(steps_at(steps, "wg0", 0)->seq, 10);
    CU_ASSERT_EQUAL(steps_at(steps, "wg0", STEPS_MAX - 1)->seq, 9 + STEPS_MAX);
    note(steps, RECORD_ROTATION_STARTED, "wg0", 100);
    CU_ASSERT_EQUAL_FATAL(steps_count(steps, "wg0"), 1);
    CU_ASSERT_EQUAL(steps_at(steps, "wg0", 0)->seq, 100);
    CU_ASSERT_EQUAL(steps_count(steps, "wg1"), 1);
    steps_free(steps);
}

static void test_step_of_a_peer(void)
{
    struct steps *steps = steps_new();
    struct record record = step(RECORD_PEER_ACKNOWLEDGED, "wg0", 8);
    note(steps, RECORD_ROTATION_STARTED, "wg0", 7);
    strcpy(record.peer, "beta");
    strcpy(record.peer_key, "wg5");
    record.peer_generation = 9;
    record.peer_state = PEER_MOVED;
    // 119 letters and then characters of two bytes: none is cut in half.
    memset(record.detail, 'x', 119);
    strcpy(record.detail + 119, "\xc3\xa9\xc3\xa9");
    steps_note(steps, &record);
    const struct step *last = steps_at(steps, "wg0", 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(last);
    CU_ASSERT_STRING_EQUAL(last->peer, "beta");
    CU_ASSERT_STRING_EQUAL(last->peer_key, "wg5");
    CU_ASSERT(last->generation == 9 && last->peer_state == PEER_MOVED);
    CU_ASSERT_EQUAL(strlen(last->detail), 119);
    steps_free(steps);
}

int main(void)
{
    static CU_TestInfo tests[] = {
        {"when a rotation is due", test_rotation},
        {"a key that nothing is known of", test_unknown},
        {"the next attempt without a lifetime", test_again_without_lifetime},
        {"the jitter is fixed, and spread", test_jitter},
        {"when a generation has had its grace", test_destruction},
        {"steps: of the rotation that began last, the latest", test_steps},
        {"steps: a counterpart's", test_step_of_a_peer},
        CU_TEST_INFO_NULL,
    };
    return tap_run("schedule", tests);
}
