// SPDX-License-Identifier: Apache-2.0
// Policy: who is whom, for what, how often; and that what nobody granted is denied.
#include "policy.h"

#include <stdio.h>
#include <string.h>

#include "tap.h"

#define SECOND INT64_C(1000000)
#define START  (1000 * SECOND)

static struct record_actor actor(uint32_t uid, uint32_t gid, const char *unit)
{
    struct record_actor who = {.present = true, .uid = uid, .gid = gid, .pid = 42};
    snprintf(who.unit, sizeof(who.unit), "%s", unit);
    return who;
}

static struct config_principal principal(const char *name, uid_t uid, enum config_unit kind,
                                         const char *unit)
{
    struct config_principal who = {.uid = uid, .unit_kind = kind};
    snprintf(who.name, sizeof(who.name), "%s", name);
    snprintf(who.unit, sizeof(who.unit), "%s", unit);
    return who;
}

static struct config_grant grant(const char *name, uid_t uid, const char *unit, uint32_t reasons,
                                 uint32_t count, uint32_t seconds)
{
    return (struct config_grant){.who = principal(name, uid, CONFIG_UNIT_EXACT, unit),
                                 .reasons = reasons,
                                 .rate_count = count,
                                 .rate_seconds = seconds};
}

#define BIT(reason) (1u << (reason))

// Key a: uid 10 in a.service for BOOT, twice in 10 s; uid 11 in a.service for ROTATION. Key b:
// nobody.
static struct config_grant a_grants[2];
static struct config_key keys[2];
static struct config config;

static const struct config *example(void)
{
    a_grants[0] = grant("one", 10, "a.service", BIT(REASON_BOOT), 2, 10);
    a_grants[1] = grant("two", 11, "a.service", BIT(REASON_ROTATION), 1, 1);
    memset(keys, 0, sizeof(keys));
    strcpy(keys[0].name, "a");
    keys[0].grants = a_grants;
    keys[0].grant_count = 2;
    strcpy(keys[1].name, "b");
    config = (struct config){.keys = keys, .key_count = 2};
    return &config;
}

static enum error_code release(const struct config *from, struct policy_rates *rates, uint32_t uid,
                               const char *unit, const char *key, enum record_reason reason,
                               int64_t now_us)
{
    struct record_actor who = actor(uid, 0, unit);
    struct error err = {.code = ERROR_OK};
    if (policy_release(from, rates, &who, key, reason, now_us, &err) == 0)
        return ERROR_OK;
    CU_ASSERT(err.message[0] != '\0');
    return err.code;
}

// ---- who ----

static void test_units(void)
{
    struct record_actor in_a = actor(10, 0, "a.service"), in_none = actor(10, 0, "");
    struct config_principal exact = principal("x", 10, CONFIG_UNIT_EXACT, "a.service");
    CU_ASSERT(policy_matches(&exact, &in_a));
    CU_ASSERT(!policy_matches(&exact, &in_none));
    static const char *const others[] = {"a.servic",  "a.service2", "A.service",
                                         "b.service", "aa.service", "user@1000.service",
                                         "any",       "none"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct record_actor other = actor(10, 0, others[i]);
        CU_ASSERT(!policy_matches(&exact, &other));
    }
    struct config_principal none = principal("x", 10, CONFIG_UNIT_NONE, "none");
    CU_ASSERT(policy_matches(&none, &in_none));
    CU_ASSERT(!policy_matches(&none, &in_a));
    struct config_principal any = principal("x", 10, CONFIG_UNIT_ANY, "any");
    CU_ASSERT(policy_matches(&any, &in_none));
    CU_ASSERT(policy_matches(&any, &in_a));
    any.unit_kind = (enum config_unit)9;
    CU_ASSERT(!policy_matches(&any, &in_a));
}

static void test_uid_and_gid(void)
{
    struct config_principal who = principal("x", 10, CONFIG_UNIT_ANY, "any");
    struct record_actor right = actor(10, 20, ""), uid = actor(0, 20, ""), gid = actor(10, 0, "");
    CU_ASSERT(policy_matches(&who, &right));
    CU_ASSERT(!policy_matches(&who, &uid)); // not even root
    CU_ASSERT(policy_matches(&who, &gid));
    who.has_gid = true;
    who.gid = 20;
    CU_ASSERT(policy_matches(&who, &right));
    CU_ASSERT(!policy_matches(&who, &gid));
    who.gid = 0;
    CU_ASSERT(policy_matches(&who, &gid));
    CU_ASSERT(!policy_matches(&who, &right));
    right.present = false;
    who.has_gid = false;
    CU_ASSERT(!policy_matches(&who, &right));
}

static void test_roles(void)
{
    struct config with = *example();
    struct config_principal operators[] = {principal("o", 1, CONFIG_UNIT_ANY, "any")};
    struct config_principal auditors[] = {principal("a", 2, CONFIG_UNIT_ANY, "any"),
                                          principal("b", 1, CONFIG_UNIT_EXACT, "x.service")};
    with.operators = operators;
    with.operator_count = 1;
    with.auditors = auditors;
    with.auditor_count = 2;
    struct record_actor operator_ = actor(1, 0, ""), both = actor(1, 0, "x.service"),
                        auditor = actor(2, 0, ""), applier = actor(10, 0, "a.service"),
                        elsewhere = actor(10, 0, "b.service");
    CU_ASSERT_EQUAL(policy_roles(&with, &operator_), POLICY_OPERATOR);
    CU_ASSERT_EQUAL(policy_roles(&with, &both), POLICY_OPERATOR | POLICY_AUDITOR);
    CU_ASSERT_EQUAL(policy_roles(&with, &auditor), POLICY_AUDITOR);
    CU_ASSERT_EQUAL(policy_roles(&with, &applier), POLICY_APPLIER);
    CU_ASSERT_EQUAL(policy_roles(&with, &elsewhere), POLICY_NOBODY);
    CU_ASSERT(policy_may_see(&keys[0], &applier));
    CU_ASSERT(!policy_may_see(&keys[1], &applier));
    CU_ASSERT(!policy_may_see(&keys[0], &operator_));
}

static void test_default_deny(void)
{
    static const struct config empty;
    struct policy_rates *rates = policy_rates_new();
    struct record_actor root = actor(0, 0, "a.service");
    CU_ASSERT_EQUAL(policy_roles(&empty, &root), POLICY_NOBODY);
    for (unsigned reason = 1; reason < REASONS; reason++) {
        CU_ASSERT_EQUAL(release(&empty, rates, 0, "a.service", "a", reason, START),
                        ERROR_PERMISSION_DENIED);
        CU_ASSERT_EQUAL(release(example(), rates, 0, "a.service", "b", reason, START),
                        ERROR_PERMISSION_DENIED);
    }
    policy_rates_free(rates);
}

// ---- what for ----

static void test_reasons(void)
{
    struct policy_rates *rates = policy_rates_new();
    for (unsigned reason = 1; reason < REASONS; reason++) {
        CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", reason, START),
                        reason == REASON_BOOT ? ERROR_OK : ERROR_PERMISSION_DENIED);
        CU_ASSERT_EQUAL(release(example(), rates, 11, "a.service", "a", reason, START),
                        reason == REASON_ROTATION ? ERROR_OK : ERROR_PERMISSION_DENIED);
        CU_ASSERT_EQUAL(release(example(), rates, 10, "b.service", "a", reason, START),
                        ERROR_PERMISSION_DENIED);
    }
    policy_rates_free(rates);
}

// A key that is not declared and one that is another's are not to be told apart.
static void test_same_answer(void)
{
    struct policy_rates *rates = policy_rates_new();
    struct record_actor who = actor(12, 0, "a.service");
    struct error known, unknown;
    CU_ASSERT_EQUAL(policy_release(example(), rates, &who, "a", REASON_BOOT, START, &known), -1);
    CU_ASSERT_EQUAL(policy_release(example(), rates, &who, "z", REASON_BOOT, START, &unknown), -1);
    CU_ASSERT_EQUAL(known.code, unknown.code);
    for (char *c = unknown.message; *c != '\0'; c++)
        if ((c[0] == 'z' && (c[-1] == '\'' || c[-1] == '"')))
            *c = 'a';
    CU_ASSERT_STRING_EQUAL(known.message, unknown.message);
    policy_rates_free(rates);
}

// ---- how often ----

static void test_bucket(void)
{
    struct policy_rate rate = {0};
    for (int i = 0; i < 3; i++)
        CU_ASSERT(policy_rate_take(&rate, 3, 30, START));
    CU_ASSERT(!policy_rate_take(&rate, 3, 30, START));
    CU_ASSERT(!policy_rate_take(&rate, 3, 30, START + 9 * SECOND));
    CU_ASSERT(policy_rate_take(&rate, 3, 30, START + 10 * SECOND + 1));
    CU_ASSERT(!policy_rate_take(&rate, 3, 30, START + 11 * SECOND));
    // Never more at once than it holds, however long nobody came.
    for (int i = 0; i < 3; i++)
        CU_ASSERT(policy_rate_take(&rate, 3, 30, START + 100000 * SECOND));
    CU_ASSERT(!policy_rate_take(&rate, 3, 30, START + 100000 * SECOND));
}

// Over any time: no more than the bucket holds and what flowed into it, to whoever asks how often.
static void test_bucket_never_overflows(void)
{
    struct policy_rate rate = {0};
    unsigned taken = 0;
    for (int64_t ms = 0; ms <= 60000; ms++)
        taken += policy_rate_take(&rate, 10, 60, START + ms * 1000);
    CU_ASSERT(taken == 19 || taken == 20);
}

static void test_rate_of_a_grant(void)
{
    struct policy_rates *rates = policy_rates_new();
    CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", REASON_BOOT, START), ERROR_OK);
    // What is denied takes nothing.
    CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", REASON_OPERATOR, START),
                    ERROR_PERMISSION_DENIED);
    CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", REASON_BOOT, START), ERROR_OK);
    CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", REASON_BOOT, START),
                    ERROR_RESOURCE_EXHAUSTED);
    // Another grant's rate is its own.
    CU_ASSERT_EQUAL(release(example(), rates, 11, "a.service", "a", REASON_ROTATION, START),
                    ERROR_OK);
    CU_ASSERT_EQUAL(
        release(example(), rates, 10, "a.service", "a", REASON_BOOT, START + 6 * SECOND), ERROR_OK);
    CU_ASSERT_EQUAL(
        release(example(), rates, 10, "a.service", "a", REASON_BOOT, START + 6 * SECOND),
        ERROR_RESOURCE_EXHAUSTED);
    policy_rates_free(rates);
}

// Two grants that match one caller: the second is used when the first is spent.
static void test_two_grants(void)
{
    struct policy_rates *rates = policy_rates_new();
    const struct config *from = example();
    a_grants[1] = grant("two", 10, "a.service", BIT(REASON_BOOT), 1, 1000);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(release(from, rates, 10, "a.service", "a", REASON_BOOT, START), ERROR_OK);
    CU_ASSERT_EQUAL(release(from, rates, 10, "a.service", "a", REASON_BOOT, START),
                    ERROR_RESOURCE_EXHAUSTED);
    policy_rates_free(rates);
}

// A configuration read again gives nobody a full bucket; a rate that it changed counts from then
// on.
static void test_reload(void)
{
    struct policy_rates *rates = policy_rates_new();
    for (int i = 0; i < 2; i++)
        CU_ASSERT_EQUAL(release(example(), rates, 10, "a.service", "a", REASON_BOOT, START),
                        ERROR_OK);
    const struct config *again = example();
    struct config_grant swapped = a_grants[0];
    a_grants[0] = a_grants[1];
    a_grants[1] = swapped; // another order is no other grant
    CU_ASSERT_EQUAL(release(again, rates, 10, "a.service", "a", REASON_BOOT, START),
                    ERROR_RESOURCE_EXHAUSTED);
    a_grants[1].rate_count = 1;
    CU_ASSERT_EQUAL(release(again, rates, 10, "a.service", "a", REASON_BOOT, START + 100 * SECOND),
                    ERROR_OK);
    CU_ASSERT_EQUAL(release(again, rates, 10, "a.service", "a", REASON_BOOT, START + 100 * SECOND),
                    ERROR_RESOURCE_EXHAUSTED);
    policy_rates_free(rates);
    policy_rates_free(NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"units: exact, none, any", test_units},
        {"uid and gid", test_uid_and_gid},
        {"roles", test_roles},
        {"what is not granted is denied", test_default_deny},
        {"reasons", test_reasons},
        {"an undeclared key and another's give one answer", test_same_answer},
        {"a rate is spent and refilled", test_bucket},
        {"a rate holds over any time", test_bucket_never_overflows},
        {"each grant has its own rate", test_rate_of_a_grant},
        {"two grants for one caller", test_two_grants},
        {"rates outlive a reload", test_reload},
        CU_TEST_INFO_NULL,
    };
    return tap_run("policy", tests);
}
