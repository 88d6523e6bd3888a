// SPDX-License-Identifier: Apache-2.0
// Hardening of the process itself; the unit file adds what systemd can.
#include "harden.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int harden_bind_now(char **argv, struct error *err)
{
    const char *now = getenv("LD_BIND_NOW");
    if (now != NULL && now[0] != '\0')
        return 0;
    if (setenv("LD_BIND_NOW", "1", 1) != 0)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "setenv: %s", strerror(errno));
    execv("/proc/self/exe", argv);
    return error_set(err, ERROR_INTERNAL,
                     "cannot start again with LD_BIND_NOW=1 (set it beforehand where /proc is not "
                     "mounted): %s",
                     strerror(errno));
}

static int close_between(unsigned first, unsigned last, struct error *err)
{
    if (first <= last && close_range(first, last, 0) != 0)
        return error_set(err, ERROR_INTERNAL, "close_range: %s", strerror(errno));
    return 0;
}

int harden_descriptors(int first, int count, struct error *err)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return error_set(err, ERROR_INTERNAL, "/dev/null: %s", strerror(errno));
    if (count == 0)
        return close_between(3, UINT_MAX, err);
    if (close_between(3, (unsigned)first - 1, err) != 0)
        return -1;
    return close_between((unsigned)(first + count), UINT_MAX, err);
}

// With a limit, locking what comes later would make allocations fail; libsodium locks the secrets'
// pages by itself.
static void lock_memory(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        (limit.rlim_cur == RLIM_INFINITY || geteuid() == 0))
        (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

int harden_process(struct error *err)
{
    const struct rlimit none = {0, 0};
    umask(077);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_set(err, ERROR_INTERNAL, "hardening this process: %s", strerror(errno));
    // Started through /proc/self/exe, it would be listed as "exe".
    (void)prctl(PR_SET_NAME, "custody-keeper", 0, 0, 0);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return error_set(err, ERROR_INTERNAL, "signal: %s", strerror(errno));
    lock_memory();
    return 0;
}
