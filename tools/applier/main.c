// SPDX-License-Identifier: Apache-2.0
// custody-applier: takes keys from custodyd and sets them on WireGuard interfaces.
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

#include <sodium.h>

#include "apply.h"
#include "device.h"
#include "hold.h"
#include "name.h"
#include "run.h"
#include "serve.h"

#define TARGETS_MAX 256
#define CONFIG_FILE SYSCONFDIR "/custody/applier.conf"
#define LOG_VKEY    SYSCONFDIR "/custody/log.vkey"

enum exit_status {
    EXIT_SET = 0,
    EXIT_REFUSED = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_NO_DEVICE = 4
};

// Exported in spite of -fvisibility=hidden: argp looks it up from libc.
__attribute__((visibility("default"))) const char *argp_program_version =
    "custody-applier (custody) " PACKAGE_VERSION;

enum {
    OPTION_SOCKET = 256,
    OPTION_LOG_VKEY,
    OPTION_BACKEND,
    OPTION_CONFIG,
    OPTION_KEY,
    OPTION_GENERATION,
    OPTION_REASON,
    OPTION_TICKET,
    OPTION_RATE,
    OPTION_HOLD
};

static const struct argp_option options[] = {
    {"socket", OPTION_SOCKET, "PATH", 0, "custodyd's socket (default " CUSTODY_SOCKET ")", 1},
    {"log-vkey", OPTION_LOG_VKEY, "FILE", 0,
     "the log's verifier key, which receipts must bear out (default " LOG_VKEY ")", 1},
    {"backend", OPTION_BACKEND, "BACKEND", 0,
     "auto (default: userspace if the interface has a UAPI socket, else kernel), kernel or "
     "userspace",
     1},
    {"config", OPTION_CONFIG, "FILE", 0,
     "interfaces and counterparts, for run without an INTERFACE (default " CONFIG_FILE ")", 1},
    {NULL, 0, NULL, 0, "For apply:", 2},
    {"key", OPTION_KEY, "NAME", 0, "the key's name (default: the interface's)", 2},
    {"generation", OPTION_GENERATION, "N", 0, "which generation (default: the current one)", 2},
    {"reason", OPTION_REASON, "REASON", 0,
     "BOOT (default), RESTORE, ROTATION, ROLLBACK or OPERATOR", 2},
    {"ticket", OPTION_TICKET, "TEXT", 0, "what this release is for; goes into the log", 2},
    {NULL, 0, NULL, 0, "For run:", 3},
    {"rate", OPTION_RATE, "N/SECONDS", 0,
     "ask for at most N releases of a key in SECONDS (default 10/60); not more than the daemon's "
     "policy grants",
     3},
    {NULL, 0, NULL, 0, "For up:", 4},
    {"hold", OPTION_HOLD, "KIND", 0,
     "auto (default: plug if the kernel has it, else tbf), plug or tbf: the qdisc that can hold "
     "the "
     "interface's packets",
     4},
    {0},
};

struct command_line {
    struct apply_settings settings;
    struct apply_task task;
    struct rate rate;
    const char *config;
    const char *command;
    bool for_apply, for_run, for_up; // an option of that command was given
    enum hold_kind hold;
    struct run_target targets[TARGETS_MAX];
    char names[TARGETS_MAX][DEVICE_NAME_MAX + 1];
    size_t count;
};

static enum custody_reason reason_from_name(const char *name)
{
    static const char *const names[] = {[CUSTODY_REASON_BOOT] = "BOOT",
                                        [CUSTODY_REASON_RESTORE] = "RESTORE",
                                        [CUSTODY_REASON_ROTATION] = "ROTATION",
                                        [CUSTODY_REASON_ROLLBACK] = "ROLLBACK",
                                        [CUSTODY_REASON_OPERATOR] = "OPERATOR"};
    for (size_t i = CUSTODY_REASON_BOOT; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return (enum custody_reason)i;
    return 0;
}

static void take_backend(struct command_line *line, const char *text, struct argp_state *state)
{
    int backend = device_backend_from_name(text);
    if (backend < 0)
        argp_error(state, "--backend: '%s' is none of auto, kernel, userspace", text);
    line->settings.backend = (enum device_backend)backend;
}

static void take_generation(struct command_line *line, const char *text, struct argp_state *state)
{
    char *end;
    line->task.generation = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || line->task.generation == 0)
        argp_error(state, "--generation: '%s' is no generation (1, 2, ...)", text);
}

// INTERFACE or INTERFACE=KEY.
static void take_target(struct command_line *line, const char *text, struct argp_state *state)
{
    if (line->count == TARGETS_MAX)
        argp_error(state, "more than %d interfaces", TARGETS_MAX);
    struct run_target *target = &line->targets[line->count];
    char *name = line->names[line->count++];
    size_t length = strcspn(text, "=");
    if (length <= DEVICE_NAME_MAX)
        snprintf(name, DEVICE_NAME_MAX + 1, "%.*s", (int)length, text);
    if (length > DEVICE_NAME_MAX || !device_name_is_valid(name))
        argp_error(state, "'%.*s' cannot be an interface's name", (int)length, text);
    target->interface = name;
    target->key = text[length] == '=' ? text + length + 1 : name;
    if (!name_is_key(target->key))
        argp_error(state, "'%s' cannot be a key's name", target->key);
    for (size_t i = 0; i + 1 < line->count; i++)
        if (strcmp(line->targets[i].interface, name) == 0)
            argp_error(state, "interface '%s' is named twice", name);
}

static void take_hold(struct command_line *line, const char *text, struct argp_state *state)
{
    int kind = hold_kind_from_name(text);
    if (kind < 0)
        argp_error(state, "--hold: '%s' is none of auto, plug, tbf", text);
    line->hold = (enum hold_kind)kind;
}

static bool is_command(const struct command_line *line, const char *command)
{
    return line->command != NULL && strcmp(line->command, command) == 0;
}

static void check_line(struct command_line *line, struct argp_state *state)
{
    bool apply = is_command(line, "apply"), up = is_command(line, "up");
    if (line->command == NULL || (line->count == 0 && !is_command(line, "run")))
        argp_error(state, "a command and an interface are needed: apply INTERFACE, run "
                          "INTERFACE[=KEY]..., or up INTERFACE");
    if (apply && (line->count != 1 || line->targets[0].key != line->targets[0].interface))
        argp_error(state, "apply takes one INTERFACE; its key is named by --key");
    if (up && (line->count != 1 || line->targets[0].key != line->targets[0].interface))
        argp_error(state, "up takes one INTERFACE, and no key");
    if (line->for_apply && !apply)
        argp_error(state, "--key, --generation, --reason and --ticket are for apply");
    if (line->for_run && !is_command(line, "run"))
        argp_error(state, "--rate is for run");
    if (line->for_up && !up)
        argp_error(state, "--hold is for up");
    if (!apply)
        return;
    line->task.interface = line->targets[0].interface;
    if (line->task.key == NULL)
        line->task.key = line->task.interface;
}

static void take_argument(struct command_line *line, const char *text, struct argp_state *state)
{
    if (line->command != NULL)
        take_target(line, text, state);
    else if (strcmp(text, "apply") != 0 && strcmp(text, "run") != 0 && strcmp(text, "up") != 0)
        argp_error(state, "'%s' is no command: apply, run or up", text);
    else
        line->command = text;
}

static error_t take(int option, char *text, struct argp_state *state)
{
    struct command_line *line = state->input;
    line->for_apply |= option >= OPTION_KEY && option <= OPTION_TICKET;
    line->for_run |= option == OPTION_RATE;
    line->for_up |= option == OPTION_HOLD;
    switch (option) {
    case OPTION_SOCKET:
        line->settings.socket = text;
        return 0;
    case OPTION_LOG_VKEY:
        line->settings.log_vkey_file = text;
        return 0;
    case OPTION_BACKEND:
        take_backend(line, text, state);
        return 0;
    case OPTION_CONFIG:
        line->config = text;
        return 0;
    case OPTION_KEY:
        line->task.key = text;
        if (!name_is_key(text))
            argp_error(state, "--key: '%s' cannot be a key's name", text);
        return 0;
    case OPTION_GENERATION:
        take_generation(line, text, state);
        return 0;
    case OPTION_REASON:
        line->task.reason = reason_from_name(text);
        if (line->task.reason == 0)
            argp_error(state,
                       "--reason: '%s' is none of BOOT, RESTORE, ROTATION, ROLLBACK, OPERATOR",
                       text);
        return 0;
    case OPTION_TICKET:
        line->task.ticket = text;
        if (!name_is_ticket(text))
            argp_error(state, "--ticket: at most %d bytes of UTF-8, no control characters",
                       TICKET_MAX);
        return 0;
    case OPTION_RATE:
        if (rate_parse(&line->rate, text) != 0)
            argp_error(state, "--rate: '%s' is not N/SECONDS (N at most %d)", text, RATE_MAX);
        return 0;
    case OPTION_HOLD:
        take_hold(line, text, state);
        return 0;
    case ARGP_KEY_ARG:
        take_argument(line, text, state);
        return 0;
    case ARGP_KEY_END:
        check_line(line, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

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
    static const struct argp argp = {
        .options = options,
        .parser = take,
        .args_doc = "apply INTERFACE\nrun [INTERFACE[=KEY]...]\nup INTERFACE",
        .doc =
            "Takes WireGuard private keys from custodyd and sets them on interfaces."
            "\vapply sets one key and ends; run stays, and sets each key at start, when its "
            "interface appears "
            "again, and on SIGHUP. up makes an interface ready to have its packets held while its "
            "key is changed, before there is traffic. Exit: 0 set and confirmed, 1 refused or "
            "failed, 2 usage, 3 "
            "custodyd not "
            "reached, 4 no such interface.",
    };
    static struct command_line line = {
        .config = CONFIG_FILE,
        .task = {.reason = CUSTODY_REASON_BOOT},
        .rate = {.count = 10, .per_ms = 60000},
    };
    harden_process();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &line);
    if (sodium_init() < 0) {
        fputs("custody-applier: libsodium cannot start\n", stderr);
        return EXIT_REFUSED;
    }
    return is_command(&line, "apply") ? do_apply(&line)
           : is_command(&line, "up")  ? do_up(&line)
                                      : do_run(&line);
}
