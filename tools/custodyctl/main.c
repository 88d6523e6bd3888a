// SPDX-License-Identifier: Apache-2.0
// custodyctl: the operator's command line for custodyd.
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"

#define DEFAULT_TIMEOUT_MS 30000
#define MAX_TIMEOUT_S      3600

#define OPTIONS_MAX 3 // of one command, besides the common ones

enum option_key {
    OPTION_SOCKET = 's',
    OPTION_JSON = 'j',
    OPTION_TIMEOUT = 't',
    OPTION_TICKET = 1000,
    OPTION_REASON,
    OPTION_GENERATION,
    OPTION_VKEY_OUT,
    OPTION_REQUEST,
    OPTION_KEY,
    OPTION_SIGNATURE,
    OPTION_WAIT,
    OPTION_WATCH,
    OPTION_FILE,
};

#define TRUST_FILE SYSCONFDIR "/custody/trust"

struct command {
    const char *words; // as typed
    const char *arguments;
    const char *doc;
    unsigned min_arguments, max_arguments;
    bool generation_argument;             // the second argument is one
    enum option_key options[OPTIONS_MAX]; // besides the common ones; ended by 0
    enum ctl_exit (*run)(struct ctl *ctl);
    bool without_daemon;
};

static const struct command commands[] = {
    {"token init",
     "",
     "Make custody's keys in the token, once, and print the log's verifier key",
     0,
     0,
     false,
     {OPTION_VKEY_OUT},
     token_init,
     false},
    {"token probe",
     "",
     "Try in the token each operation that custody needs",
     0,
     0,
     false,
     {0},
     token_probe,
     false},
    {"token status",
     "",
     "Show the token and its verifier keys",
     0,
     0,
     false,
     {0},
     token_status,
     false},
    {"key generate",
     "NAME",
     "Generate the next generation of a key, sealed in the token",
     1,
     1,
     false,
     {OPTION_TICKET},
     key_generate,
     false},
    {"key list",
     "[NAME]",
     "List generations of all keys, or one key's in full",
     0,
     1,
     false,
     {0},
     key_list,
     false},
    {"key show",
     "NAME",
     "Print a key's public key, by default that of the active generation",
     1,
     1,
     false,
     {OPTION_GENERATION},
     key_show,
     false},
    {"key publish",
     "NAME",
     "Print a bundle: the public key, signed by this host",
     1,
     1,
     false,
     {OPTION_GENERATION, OPTION_TICKET},
     key_publish,
     false},
    {"key destroy",
     "NAME GENERATION",
     "Destroy a generation for good; an active one needs two operators' approval",
     2,
     2,
     true,
     {OPTION_TICKET, OPTION_REQUEST},
     key_destroy,
     false},
    {"key rotate",
     "NAME",
     "Begin a rotation to the key's next generation; --wait shows each step",
     1,
     1,
     false,
     {OPTION_TICKET, OPTION_REASON, OPTION_WAIT},
     key_rotate,
     false},
    {"key suspend",
     "NAME",
     "Neither release nor rotate a key until it is resumed",
     1,
     1,
     false,
     {OPTION_TICKET},
     key_suspend,
     false},
    {"key resume",
     "NAME",
     "Release and rotate a suspended key again",
     1,
     1,
     false,
     {OPTION_TICKET},
     key_resume,
     false},
    {"key revoke",
     "NAME",
     "Revoke a generation as compromised, for good, and replace it",
     1,
     1,
     false,
     {OPTION_GENERATION, OPTION_TICKET, OPTION_WAIT},
     key_revoke,
     false},
    {"key history",
     "NAME",
     "Show a key's generations, rotations and counterparts",
     1,
     1,
     false,
     {0},
     key_history,
     false},
    {"host trust add",
     "HOST VKEY",
     "Believe what another host signs with this key",
     2,
     2,
     false,
     {OPTION_FILE},
     trust_add_host,
     true},
    {"host trust list",
     "",
     "List the hosts that are believed",
     0,
     0,
     false,
     {OPTION_FILE},
     trust_list_hosts,
     true},
    {"host trust remove",
     "HOST",
     "Believe a host no more",
     1,
     1,
     false,
     {OPTION_FILE},
     trust_remove_host,
     true},
    {"request list", "", "List what waits for approval", 0, 0, false, {0}, request_list, false},
    {"request show",
     "ID",
     "Print the exact text that approves a request when it is signed",
     1,
     1,
     false,
     {0},
     request_show,
     false},
    {"approve",
     "ID",
     "Approve a request: sign its text with ssh-keygen, or bring the signature",
     1,
     1,
     false,
     {OPTION_KEY, OPTION_SIGNATURE},
     approve,
     false},
    {"log accept-loss",
     "",
     "Go on with a log that lacks what the token remembers, once two operators approve",
     0,
     0,
     false,
     {0},
     log_accept_loss,
     false},
    {"status",
     "",
     "Show the daemon, its token and its log",
     0,
     0,
     false,
     {OPTION_WATCH},
     status_show,
     false},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct argp_option common_options[] = {
    {"socket", OPTION_SOCKET, "PATH", 0, "custodyd's socket [" CUSTODY_SOCKET "]", 0},
    {"json", OPTION_JSON, NULL, 0, "Print JSON", 0},
    {"timeout", OPTION_TIMEOUT, "SECONDS", 0, "Wait so long for an answer [30]", 0},
    {0},
};

static const struct argp_option own_options[] = {
    {"ticket", OPTION_TICKET, "TEXT", 0, "Why: goes into the record, up to 127 bytes", 1},
    {"reason", OPTION_REASON, "TEXT", 0, "What for, in words: goes into the record, too", 1},
    {"generation", OPTION_GENERATION, "N", 0, "This generation [the active, else the newest]", 1},
    {"request", OPTION_REQUEST, "ID", 0, "The request that two operators have approved", 1},
    {"key", OPTION_KEY, "KEYFILE", 0, "Sign with this SSH key, by ssh-keygen", 1},
    {"signature", OPTION_SIGNATURE, "FILE", 0,
     "Take what ssh-keygen -Y sign -n custody-approval wrote; - is standard input", 1},
    {"wait", OPTION_WAIT, NULL, 0, "Show each step until it has ended", 1},
    {"watch", OPTION_WATCH, NULL, 0, "Show it again every two seconds", 1},
    {"file", OPTION_FILE, "FILE", 0, "The trust file [" TRUST_FILE "]", 1},
    {"vkey-out", OPTION_VKEY_OUT, "FILE", 0, "Write the log's verifier key to FILE", 1},
    {0},
};

// ---- options that every command takes, before or after it ----

static error_t parse_common(int key, char *value, struct argp_state *state)
{
    struct ctl *ctl = state->input;
    switch (key) {
    case OPTION_SOCKET:
        ctl->socket = value;
        return 0;
    case OPTION_JSON:
        ctl->json = true;
        return 0;
    case OPTION_TIMEOUT: {
        uint64_t seconds = ctl_generation(value);
        if (seconds == 0 || seconds > MAX_TIMEOUT_S)
            argp_error(state, "--timeout=%s: must be 1 to %d seconds", value, MAX_TIMEOUT_S);
        ctl->timeout_ms = (int)seconds * 1000;
        return 0;
    }
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp common_argp = {.options = common_options, .parser = parse_common};

// ---- one command's own line ----

struct line {
    const struct command *command;
    struct ctl *ctl;
};

static void take_argument(struct line *line, char *value, struct argp_state *state)
{
    struct ctl *ctl = line->ctl;
    if (ctl->argument_count >= line->command->max_arguments)
        argp_error(state, "too many arguments: '%s'", value);
    else
        ctl->arguments[ctl->argument_count++] = value;
    if (ctl->argument_count == 2 && line->command->generation_argument) {
        ctl->generation = ctl_generation(value);
        if (ctl->generation == 0)
            argp_error(state, "GENERATION '%s': must be a number from 1", value);
    }
}

static error_t parse_command(int key, char *value, struct argp_state *state)
{
    struct line *line = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = line->ctl;
        return 0;
    case OPTION_TICKET:
        line->ctl->ticket = value;
        return 0;
    case OPTION_REASON:
        line->ctl->reason = value;
        return 0;
    case OPTION_REQUEST:
        line->ctl->request = value;
        return 0;
    case OPTION_KEY:
        line->ctl->key_file = value;
        return 0;
    case OPTION_SIGNATURE:
        line->ctl->signature = value;
        return 0;
    case OPTION_VKEY_OUT:
        line->ctl->vkey_out = value;
        return 0;
    case OPTION_WATCH:
        line->ctl->watch = true;
        return 0;
    case OPTION_WAIT:
        line->ctl->wait = true;
        return 0;
    case OPTION_FILE:
        line->ctl->file = value;
        return 0;
    case OPTION_GENERATION:
        line->ctl->generation = ctl_generation(value);
        if (line->ctl->generation == 0)
            argp_error(state, "--generation=%s: must be a number from 1", value);
        return 0;
    case ARGP_KEY_ARG:
        take_argument(line, value, state);
        return 0;
    case ARGP_KEY_END:
        if (line->ctl->argument_count < line->command->min_arguments)
            argp_error(state, "%s is missing", line->command->arguments);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse_command_line(const struct command *command, int argc, char **argv,
                               struct ctl *ctl)
{
    struct argp_option options[sizeof(own_options) / sizeof(own_options[0])] = {{0}};
    size_t count = 0;
    for (size_t i = 0; i < OPTIONS_MAX && command->options[i] != 0; i++)
        for (const struct argp_option *option = own_options; option->name != NULL; option++)
            if (option->key == (int)command->options[i])
                options[count++] = *option;
    const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {.options = options,
                              .parser = parse_command,
                              .args_doc = command->arguments,
                              .doc = command->doc,
                              .children = children};
    static char name[80];
    snprintf(name, sizeof(name), "custodyctl %s", command->words);
    argv[0] = name;
    struct line line = {.command = command, .ctl = ctl};
    argp_parse(&argp, argc, argv, 0, NULL, &line);
}

// ---- the whole line ----

struct whole {
    struct ctl *ctl;
    int first; // index in argv of the command's first word
};

static error_t parse_whole(int key, char *value, struct argp_state *state)
{
    struct whole *whole = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = whole->ctl;
        return 0;
    case ARGP_KEY_ARG:
        whole->first = state->next - 1;
        state->next = state->argc; // the rest is the command's
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no command given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// The list of commands in --help, from the table.
static char *list_commands(int key, const char *text, void *input)
{
    char *list = NULL;
    size_t size = 0;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)text;
    FILE *out = open_memstream(&list, &size);
    if (out == NULL)
        return NULL;
    fputs("Commands:\n", out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %s%s%s\n      %s\n", commands[i].words,
                commands[i].arguments[0] != '\0' ? " " : "", commands[i].arguments,
                commands[i].doc);
    fputs("\n'custodyctl COMMAND --help' shows its options. Exit status: 0 done, 1 refused\n"
          "or failed, 2 wrong usage, 3 the daemon cannot be reached.",
          out);
    fclose(out);
    return list;
}

// How many of the command's words argv begins with; `*all` says whether that is all of them.
static int match_words(const char *words, int argc, char **argv, bool *all)
{
    int matched = 0;
    *all = false;
    while (!*all && matched < argc) {
        size_t length = strcspn(words, " ");
        if (strlen(argv[matched]) != length || strncmp(argv[matched], words, length) != 0)
            break;
        matched++;
        *all = words[length] == '\0';
        words += length + 1;
    }
    return matched;
}

// The command whose words stand at argv[0]...; NULL where there is none. `*used` is how many of the
// words are known, at least those that were found.
static const struct command *find_command(int argc, char **argv, int *used)
{
    *used = 0;
    for (size_t i = 0; i < COMMANDS; i++) {
        bool all;
        int matched = match_words(commands[i].words, argc, argv, &all);
        if (matched > *used)
            *used = matched;
        if (all)
            return &commands[i];
    }
    return NULL;
}

static enum ctl_exit fail_unknown(int argc, char **argv, int used)
{
    fputs("custodyctl: unknown command '", stderr);
    for (int i = 0; i < argc && i <= used; i++)
        fprintf(stderr, "%s%s", i > 0 ? " " : "", argv[i]);
    fputs("': see 'custodyctl --help'\n", stderr);
    return CTL_USAGE;
}

static enum ctl_exit run(const struct command *command, struct ctl *ctl)
{
    enum ctl_exit result = command->without_daemon ? CTL_OK : ctl_connect(ctl);
    if (result == CTL_OK)
        result = command->run(ctl);
    custody_close(ctl->custody);
    if ((fflush(stdout) != 0 || ferror(stdout)) && result == CTL_OK)
        result = ctl_fail_here(ctl, "it was done, but the output could not be written");
    return result;
}

int main(int argc, char **argv)
{
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .parser = parse_whole,
        .args_doc = "COMMAND [ARGUMENT...]",
        .doc = "Initialise custodyd's token, declare keys, and see how things stand.\v ",
        .children = children,
        .help_filter = list_commands,
    };
    struct ctl ctl = {
        .socket = CUSTODY_SOCKET, .timeout_ms = DEFAULT_TIMEOUT_MS, .file = TRUST_FILE};
    struct whole whole = {.ctl = &ctl};
    argp_program_version = "custodyctl (custody) " PACKAGE_VERSION;
    argp_err_exit_status = CTL_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &whole);
    int used;
    const struct command *command = find_command(argc - whole.first, argv + whole.first, &used);
    if (command == NULL)
        return fail_unknown(argc - whole.first, argv + whole.first, used);
    snprintf(ctl.command, sizeof(ctl.command), "%s", command->words);
    parse_command_line(command, argc - whole.first - (used - 1), argv + whole.first + (used - 1),
                       &ctl);
    return run(command, &ctl);
}
