// SPDX-License-Identifier: Apache-2.0
// Parses the command line by argp, past a table of which command takes what.
#include "command_line.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "name.h"

#define CONFIG_FILE SYSCONFDIR "/custody/applier.conf"

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
    OPTION_HOLD,
    OPTION_JSON,
    OPTION_WATCH,
    OPTION_REPAIR
};
#define BIT(option) (1ul << ((option)-OPTION_SOCKET))
#define ALL_TAKE                                                                                   \
    (BIT(OPTION_SOCKET) | BIT(OPTION_LOG_VKEY) | BIT(OPTION_BACKEND) | BIT(OPTION_CONFIG))

static const struct {
    const char *name;
    const char *takes;         // in words, for messages
    size_t fewest, most;       // interfaces
    bool keys;                 // INTERFACE=KEY is fine
    unsigned long own_options; // besides those that all take
} commands[COMMANDS] = {
    [COMMAND_APPLY] = {"apply", "one INTERFACE; its key is named by --key", 1, 1, false,
                       BIT(OPTION_KEY) | BIT(OPTION_GENERATION) | BIT(OPTION_REASON) |
                           BIT(OPTION_TICKET)},
    [COMMAND_RUN] = {"run", "INTERFACE[=KEY]..., or none and --config", 0, COMMAND_LINE_TARGETS_MAX,
                     true, BIT(OPTION_RATE)},
    [COMMAND_UP] = {"up", "one INTERFACE", 1, 1, false, BIT(OPTION_HOLD)},
    [COMMAND_ADOPT] = {"adopt", "one INTERFACE, which is in --config", 1, 1, false, 0},
    [COMMAND_DRIFT] = {"drift", "one INTERFACE, or none for all in --config", 0, 1, false,
                       BIT(OPTION_JSON) | BIT(OPTION_REPAIR)},
    [COMMAND_STATUS] = {"status", "no INTERFACE: it tells of those in --config", 0, 0, false,
                        BIT(OPTION_JSON) | BIT(OPTION_WATCH)},
};

static const struct argp_option options[] = {
    {"socket", OPTION_SOCKET, "PATH", 0, "custodyd's socket (default " CUSTODY_SOCKET ")", 1},
    {"log-vkey", OPTION_LOG_VKEY, "FILE", 0,
     "the log's verifier key, which receipts must bear out (default " SYSCONFDIR
     "/custody/log.vkey)",
     1},
    {"backend", OPTION_BACKEND, "BACKEND", 0,
     "auto (default: userspace if the interface has a UAPI socket, else kernel), kernel or "
     "userspace",
     1},
    {"config", OPTION_CONFIG, "FILE", 0,
     "interfaces and counterparts, for adopt, drift, status, and run without an INTERFACE "
     "(default " CONFIG_FILE ")",
     1},
    {NULL, 0, NULL, 0, "For apply:", 2},
    {"key", OPTION_KEY, "NAME", 0, "the key's name (default: the interface's)", 2},
    {"generation", OPTION_GENERATION, "N", 0, "which generation (default: the current one)", 2},
    {"reason", OPTION_REASON, "REASON", 0,
     "BOOT (default), RESTORE, ROTATION, ROLLBACK or OPERATOR", 2},
    {"ticket", OPTION_TICKET, "TEXT", 0, "what this release is for; goes into the log", 2},
    {NULL, 0, NULL, 0, "For run with an INTERFACE:", 3},
    {"rate", OPTION_RATE, "N/SECONDS", 0,
     "ask for at most N releases of a key in SECONDS (default 10/60); not more than the daemon's "
     "policy grants",
     3},
    {NULL, 0, NULL, 0, "For up:", 4},
    {"hold", OPTION_HOLD, "KIND", 0,
     "auto (default: plug if the kernel has it, else tbf), plug or tbf: the qdisc that can hold "
     "the interface's packets",
     4},
    {NULL, 0, NULL, 0, "For drift and status:", 5},
    {"json", OPTION_JSON, NULL, 0, "print JSON", 5},
    {"repair", OPTION_REPAIR, NULL, 0, "drift: put right what can be, then print what is left", 5},
    {"watch", OPTION_WATCH, NULL, 0, "status: look again every two seconds", 5},
    {0},
};

// ---- values ----

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

static void take_hold(struct command_line *line, const char *text, struct argp_state *state)
{
    int kind = hold_kind_from_name(text);
    if (kind < 0)
        argp_error(state, "--hold: '%s' is none of auto, plug, tbf", text);
    line->hold = (enum hold_kind)kind;
}

static void take_key(struct command_line *line, const char *text, struct argp_state *state)
{
    line->task.key = text;
    if (!name_is_key(text))
        argp_error(state, "--key: '%s' cannot be a key's name", text);
}

static void take_reason(struct command_line *line, const char *text, struct argp_state *state)
{
    line->task.reason = reason_from_name(text);
    if (line->task.reason == 0)
        argp_error(state, "--reason: '%s' is none of BOOT, RESTORE, ROTATION, ROLLBACK, OPERATOR",
                   text);
}

static void take_ticket(struct command_line *line, const char *text, struct argp_state *state)
{
    line->task.ticket = text;
    if (!name_is_ticket(text))
        argp_error(state, "--ticket: at most %d bytes of UTF-8, no control characters", TICKET_MAX);
}

// INTERFACE or INTERFACE=KEY.
static void take_target(struct command_line *line, const char *text, struct argp_state *state)
{
    if (line->count == COMMAND_LINE_TARGETS_MAX)
        argp_error(state, "more than %d interfaces", COMMAND_LINE_TARGETS_MAX);
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

// ---- the line as a whole ----

static void take_argument(struct command_line *line, const char *text, struct argp_state *state)
{
    if (line->command != COMMAND_NONE) {
        take_target(line, text, state);
        return;
    }
    for (int i = COMMAND_NONE + 1; i < COMMANDS; i++)
        if (strcmp(commands[i].name, text) == 0)
            line->command = (enum command)i;
    if (line->command == COMMAND_NONE)
        argp_error(state, "'%s' is no command: apply, run, up, adopt, drift or status", text);
}

static const char *option_name(int option)
{
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].key == option)
            return options[i].name;
    return "";
}

static void check(struct command_line *line, struct argp_state *state)
{
    if (line->command == COMMAND_NONE)
        argp_error(state, "a command is needed: apply, run, up, adopt, drift or status");
    const char *name = commands[line->command].name;
    bool keys = false;
    for (size_t i = 0; i < line->count; i++)
        keys = keys || line->targets[i].key != line->targets[i].interface;
    if (line->count < commands[line->command].fewest ||
        line->count > commands[line->command].most || (keys && !commands[line->command].keys))
        argp_error(state, "%s takes %s", name, commands[line->command].takes);
    for (int option = OPTION_SOCKET; option <= OPTION_REPAIR; option++)
        if (line->given & BIT(option) & ~ALL_TAKE & ~commands[line->command].own_options)
            argp_error(state, "--%s is not for %s", option_name(option), name);
    if (line->command != COMMAND_APPLY)
        return;
    line->task.interface = line->targets[0].interface;
    if (line->task.key == NULL)
        line->task.key = line->task.interface;
}

static error_t take(int option, char *text, struct argp_state *state)
{
    struct command_line *line = state->input;
    if (option >= OPTION_SOCKET && option <= OPTION_REPAIR)
        line->given |= BIT(option);
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
        take_key(line, text, state);
        return 0;
    case OPTION_GENERATION:
        take_generation(line, text, state);
        return 0;
    case OPTION_REASON:
        take_reason(line, text, state);
        return 0;
    case OPTION_TICKET:
        take_ticket(line, text, state);
        return 0;
    case OPTION_RATE:
        if (rate_parse(&line->rate, text) != 0)
            argp_error(state, "--rate: '%s' is not N/SECONDS (N at most %d)", text, RATE_MAX);
        return 0;
    case OPTION_HOLD:
        take_hold(line, text, state);
        return 0;
    case OPTION_JSON:
        line->json = true;
        return 0;
    case OPTION_WATCH:
        line->watch = true;
        return 0;
    case OPTION_REPAIR:
        line->repair = true;
        return 0;
    case ARGP_KEY_ARG:
        take_argument(line, text, state);
        return 0;
    case ARGP_KEY_END:
        check(line, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void command_line_parse(struct command_line *line, int argc, char **argv, int usage)
{
    static const struct argp argp = {
        .options = options,
        .parser = take,
        .args_doc = "apply INTERFACE\nrun [INTERFACE[=KEY]...]\nup INTERFACE\nadopt "
                    "INTERFACE\ndrift [INTERFACE]\nstatus",
        .doc =
            "Takes WireGuard private keys from custodyd, sets them on interfaces, and rotates "
            "them."
            "\vapply sets one key and ends. run stays: with a configuration file it sets keys, "
            "rotates them and follows its counterparts' rotations; with INTERFACE[=KEY] it sets "
            "keys at start, when an interface appears again, and on SIGHUP. up makes an interface "
            "ready to have its packets held while its key is changed, before there is traffic. "
            "adopt takes over an interface that was configured with a private key, and rotates it "
            "off that. drift compares the log, signed bundles and interfaces. status tells how "
            "interfaces, keys and counterparts stand. Exit: 0 done (drift: none; status: all is "
            "well), 1 refused or failed (drift: some; status: something needs attention), 2 "
            "usage, 3 custodyd not reached, 4 no such interface.",
    };
    line->config = CONFIG_FILE;
    line->task.reason = CUSTODY_REASON_BOOT;
    line->rate = (struct rate){.count = 10, .per_ms = 60000};
    argp_err_exit_status = usage;
    argp_parse(&argp, argc, argv, 0, NULL, line);
}
