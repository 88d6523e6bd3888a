// SPDX-License-Identifier: Apache-2.0
// Attestation's reading of /proc: units as systemd lays them out, and as somebody would who wants
// to be taken for one.
#include "caller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"

#define V1 "12:pids:/x\n11:cpu,cpuacct:/x\n"

static const struct {
    const char *cgroup;
    const char *unit; // NULL: refused
} cgroups[] = {
    // unified
    {"0::/system.slice/custody-applier.service\n", "custody-applier.service"},
    {"0::/system.slice/custody-applier.service", "custody-applier.service"},
    {"0::/\n", ""},
    {"0::/init.scope\n", "init.scope"},
    {"0::/custody-test.service\n", "custody-test.service"},
    // slices in slices; an instance
    {"0::/a.slice/a-b.slice/a-b-c.slice/x@1.service\n", "x@1.service"},
    {"0::/system.slice\n", ""},
    {"0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"},
    // what runs under a user's manager is that manager's, whatever it calls itself
    {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/custody-applier.service\n",
     "user@1000.service"},
    {"0::/user.slice/user-1000.slice/user@1000.service/system.slice/custody-applier.service\n",
     "user@1000.service"},
    // groups that a unit made below its own
    {"0::/system.slice/docker.service/custody-applier.service\n", "docker.service"},
    {"0::/system.slice/a.service/sub/deeper\n", "a.service"},
    {"0::/system.slice/a.service/../b.service\n", "a.service"},
    {"0::/machine.slice/vm.scope/system.slice/b.service\n", "vm.scope"},
    // no slice, and no unit either: what stands below it counts for nothing
    {"0::/docker/0123abcd/system.slice/custody-applier.service\n", ""},
    {"0::/system.slice/x.mount/custody-applier.service\n", ""},
    {"0::/system.slice/x.socket\n", ""},
    {"0::/custody-applier\n", ""},
    // only almost a suffix
    {"0::/system.slice/.service\n", ""},
    {"0::/.slice/a.service\n", ""},
    {"0::/system.slice/a.services\n", ""},
    {"0::/system.slice/a.Service\n", ""},
    {"0::/system.slice/a.service (deleted)\n", ""},
    {"0::/system.slice//a.service\n", ""},
    {"0::/system.slice/ a.service\n", " a.service"},
    // hostile names
    {"0::/system.slice/a:b.service\n", "a:b.service"},
    {"0::/0::/system.slice/a.service\n", ""},
    {"0::/system.slice/\xff.service\n", "\xff.service"},
    // outside our namespace
    {"0::/../system.slice/a.service\n", NULL},
    {"0::/..\n", NULL},
    {"0::/system.slice/../a.service\n", NULL},
    {V1 "1:name=systemd:/../a.service\n0::/\n", NULL},
    // hybrid: units are in the unified hierarchy, or in systemd's own
    {V1 "1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n", "a.service"},
    {V1 "1:name=systemd:/system.slice/a.service\n0::/\n", "a.service"},
    {V1 "1:name=systemd:/system.slice/a.service\n", "a.service"},
    {"0::/system.slice/b.service\n" V1 "1:name=systemd:/system.slice/a.service\n", "b.service"},
    {V1 "1:name=systemd:/\n0::/\n", ""},
    // other hierarchies say nothing of units
    {"3:cpuset:/system.slice/a.service\n0::/\n", ""},
    {"3:name=other:/system.slice/a.service\n0::/\n", ""},
    {"3:name=systemdx:/system.slice/a.service\n0::/\n", ""},
    {"3:name=system:/system.slice/a.service\n0::/\n", ""},
    {"3:cpu,name=systemd:/system.slice/a.service\n0::/\n", ""},
    // nothing to go by
    {V1, NULL},
    {"", NULL},
    {"\n", NULL},
    {"0::\n", NULL},
    {"0:/\n", NULL},
    {"0::relative\n", NULL},
    {"garbage", NULL},
    {"0::/a.service\ngarbage\n", NULL},
};

static void test_units(void)
{
    for (size_t i = 0; i < sizeof(cgroups) / sizeof(cgroups[0]); i++) {
        char unit[RECORD_UNIT_MAX + 1];
        int parsed = caller_parse_unit(cgroups[i].cgroup, unit);
        bool right = cgroups[i].unit == NULL ? parsed != 0
                                             : parsed == 0 && strcmp(unit, cgroups[i].unit) == 0;
        if (!right)
            printf("# %s -> %d '%s'\n", cgroups[i].cgroup, parsed, parsed == 0 ? unit : "");
        CU_ASSERT(right);
    }
}

static void test_long_unit(void)
{
    char unit[RECORD_UNIT_MAX + 1], name[RECORD_UNIT_MAX + 2], cgroup[2 * RECORD_UNIT_MAX];
    for (size_t length = RECORD_UNIT_MAX; length <= RECORD_UNIT_MAX + 1; length++) {
        memset(name, 'a', length);
        strcpy(name + length - strlen(".service"), ".service");
        snprintf(cgroup, sizeof(cgroup), "0::/system.slice/%s\n", name);
        CU_ASSERT_EQUAL(caller_parse_unit(cgroup, unit), length <= RECORD_UNIT_MAX ? 0 : -1);
        if (length <= RECORD_UNIT_MAX)
            CU_ASSERT_STRING_EQUAL(unit, name);
    }
}

#define FIELDS_3_TO_21 "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"

static void test_start_time(void)
{
    static const struct {
        const char *stat;
        int result;
        uint64_t ticks;
    } stats[] = {
        {"1 (init) " FIELDS_3_TO_21 " 4711 22 23\n", 0, 4711},
        {"1 (a b c) " FIELDS_3_TO_21 " 4711 22\n", 0, 4711},
        {"1 (a) S 1 2 3 (b) " FIELDS_3_TO_21 " 4711 22\n", 0, 4711},
        {"1 (() " FIELDS_3_TO_21 " 4711 22\n", 0, 4711},
        {"1 ()))) " FIELDS_3_TO_21 " 4711 22\n", 0, 4711},
        {"1 (a\n) " FIELDS_3_TO_21 " 18446744073709551615\n", 0, UINT64_MAX},
        {"1 () " FIELDS_3_TO_21 " 4711", 0, 4711},
        {"1 (a) " FIELDS_3_TO_21 " 18446744073709551616 22\n", -1, 0},
        {"1 (a) " FIELDS_3_TO_21 " x\n", -1, 0},
        {"1 (a) " FIELDS_3_TO_21 " 47x 22\n", -1, 0},
        {"1 (a) " FIELDS_3_TO_21 " ", -1, 0},
        {"1 (a) " FIELDS_3_TO_21, -1, 0},
        {"1 (a) S 1 2", -1, 0},
        {"1 (a " FIELDS_3_TO_21 " 4711 22\n", -1, 0},
        {"", -1, 0},
    };
    for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++) {
        uint64_t ticks = 0;
        CU_ASSERT_EQUAL(caller_parse_start_time(stats[i].stat, &ticks), stats[i].result);
        if (stats[i].result == 0)
            CU_ASSERT_EQUAL(ticks, stats[i].ticks);
    }
}

// The kernel's own text, of a process whose name is made to confuse.
static void test_own_start_time(void)
{
    char stat[1024] = "";
    uint64_t ticks = 0;
    FILE *file = fopen("/proc/self/stat", "re");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    size_t length = fread(stat, 1, sizeof(stat) - 1, file);
    fclose(file);
    stat[length] = '\0';
    CU_ASSERT_EQUAL(caller_parse_start_time(stat, &ticks), 0);
    CU_ASSERT(ticks > 0);
}

// The peer of a socket pair is this process itself.
static void test_attest_self(void)
{
    int pair[2];
    struct error err;
    struct record_actor actor;
    char exe[RECORD_EXE_MAX + 1] = "";
    CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct caller *caller = caller_new(pair[0], &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(caller);
    CU_ASSERT_EQUAL(caller_uid(caller), geteuid());
    CU_ASSERT_EQUAL(caller_attest(caller, &actor, &err), 0);
    CU_ASSERT(actor.present && actor.uid == geteuid() && actor.gid == getegid());
    CU_ASSERT_EQUAL(actor.pid, (uint32_t)getpid());
    CU_ASSERT(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
    CU_ASSERT_STRING_EQUAL(actor.exe, exe);
    CU_ASSERT(!actor.exe_unavailable && strlen(actor.exe_sha256) == 64);
    caller_free(caller);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"units in /proc/PID/cgroup", test_units},
        {"a unit's name that is too long", test_long_unit},
        {"start times in /proc/PID/stat", test_start_time},
        {"this process's own start time", test_own_start_time},
        {"this process attested", test_attest_self},
        CU_TEST_INFO_NULL,
    };
    return tap_run("caller", tests);
}
