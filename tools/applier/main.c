// SPDX-License-Identifier: Apache-2.0
// custody-applier: takes keys from custodyd, sets them on WireGuard interfaces, and rotates them.
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

#include <sodium.h>

#include "adopt.h"
#include "command_line.h"
#include "drift_command.h"
#include "serve.h"
#include "status.h"

#define LOG_VKEY SYSCONFDIR "/custody/log.vkey"

enum exit_status {
    EXIT_SET = 0,
    EXIT_REFUSED = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_NO_DEVICE = 4
};

// Whether all memory may be locked without end: under a finite limit a later allocation would fail.
static bool may_lock_all(void)
{
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0)
        return true;
    return syscall(SYS_capget, &header, sets) == 0 &&
           sets[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

// No core dump, no tracer of our own user's, and no swap where that is permitted (what holds a key
// is locked by itself in any case).
static void harden_process(void)
{
    const struct rlimit no_core = {0, 0};
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &no_core);
    if (may_lock_all())
        (void)mlockall(MCL_CURRENT | MCL_FUTURE);
    signal(SIGPIPE, SIG_IGN);
}

static int do_apply(struct command_line *line)
{
    struct apply_report report;
    struct error err = {.code = ERROR_OK};
    if (line->settings.log_vkey_file == NULL)
        line->settings.log_vkey_file = LOG_VKEY;
    enum apply_outcome outcome = apply_once(&line->settings, &line->task, &report, &err);
    if (outcome == APPLY_CONFIRMED) {
        printf("%s: key %s generation %llu set and confirmed (%s), public key %s, log index %llu, "
               "lease %s\n",
               line->task.interface, line->task.key, (unsigned long long)report.generation,
               report.backend, report.public_key, (unsigned long long)report.log_index,
               report.lease);
        return fflush(stdout) == 0 ? EXIT_SET : EXIT_REFUSED;
    }
    fprintf(stderr, "custody-applier: %s\n", err.message);
    return outcome == APPLY_UNREACHABLE ? EXIT_UNREACHABLE
           : outcome == APPLY_NO_DEVICE ? EXIT_NO_DEVICE
                                        : EXIT_REFUSED;
}

// Who wrote a configuration file expects rotations.
static void warn_of_config(const struct command_line *line)
{
    if (access(line->config, F_OK) == 0)
        fprintf(stderr,
                "custody-applier: %s is not read, as interfaces are named on the command line: "
                "nothing rotates\n",
                line->config);
}

static int run_with_defaults(struct command_line *line, struct error *err)
{
    if (line->settings.log_vkey_file == NULL)
        line->settings.log_vkey_file = LOG_VKEY;
    return run(&line->settings, line->targets, line->count, &line->rate, err);
}

static int do_run(struct command_line *line)
{
    struct error err = {.code = ERROR_OK};
    int rc;
    line->settings.may_list = true;
    if (line->count == 0) {
        rc = serve(line->config, &line->settings, &err);
    } else {
        warn_of_config(line);
        rc = run_with_defaults(line, &err);
    }
    if (rc == 0)
        return EXIT_SET;
    fprintf(stderr, "custody-applier: %s\n", err.message);
    return EXIT_REFUSED;
}

static int do_up(const struct command_line *line)
{
    const char *interface = line->targets[0].interface;
    struct error err = {.code = ERROR_OK};
    struct hold *hold;
    if (hold_open(&hold, interface, line->hold, HOLD_LIMIT_DEFAULT, &err) == 0) {
        printf("%s: %s qdisc %s\n", interface, hold_kind_name(hold_kind(hold)),
               hold_attached_now(hold) ? "attached" : "is there already");
        if (hold_close(hold, &err) == 0)
            return fflush(stdout) == 0 ? EXIT_SET : EXIT_REFUSED;
    }
    fprintf(stderr, "custody-applier: %s\n", err.message);
    return err.code == ERROR_NOT_FOUND ? EXIT_NO_DEVICE : EXIT_REFUSED;
}

int main(int argc, char **argv)
{
    static struct command_line line;
    harden_process();
    command_line_parse(&line, argc, argv, EXIT_USAGE);
    if (sodium_init() < 0) {
        fputs("custody-applier: libsodium cannot start\n", stderr);
        return EXIT_REFUSED;
    }
    switch (line.command) {
    case COMMAND_APPLY:
        return do_apply(&line);
    case COMMAND_UP:
        return do_up(&line);
    case COMMAND_ADOPT:
        return adopt_command(line.config, &line.settings, line.targets[0].interface);
    case COMMAND_DRIFT:
        return drift_command(line.config, &line.settings,
                             line.count > 0 ? line.targets[0].interface : NULL, line.json,
                             line.repair);
    case COMMAND_STATUS:
        return status_show(line.config, &line.settings, line.json, line.watch);
    default:
        return do_run(&line);
    }
}
