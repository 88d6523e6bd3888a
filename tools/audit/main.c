// SPDX-License-Identifier: Apache-2.0
// custody-audit: the auditor's program; works on files, needs no daemon and no HSM.
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "audit.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"verify", audit_verify}, {"query", audit_query},   {"follow", audit_follow},
    {"stats", audit_stats},   {"show", audit_show},     {"prove", audit_prove},
    {"check", audit_check},   {"export", audit_export},
};

// Seen by libc's argp, which -fvisibility=hidden would otherwise keep it from.
__attribute__((visibility("default"))) const char *argp_program_version =
    "custody-audit (" PACKAGE_NAME ") " PACKAGE_VERSION;

static const char doc[] =
    "Checks and reads custody's audit log. DIR is custodyd's audit-dir, or a copy of it.\v"
    "Commands (\"custody-audit COMMAND --help\" tells more):\n"
    "  verify DIR --vkey=FILE   check every record, the tree and its signature\n"
    "  query DIR                print the records that a question is about\n"
    "  follow DIR               print records as they come\n"
    "  stats DIR                count them by event, key and actor\n"
    "  show DIR                 print all of them as a table\n"
    "  prove DIR INDEX          print the receipt (tlog-proof) of one record\n"
    "  prove DIR --consistency OLD [NEW]\n"
    "                           prove that a log of OLD records grew into this one\n"
    "  check PROOF --vkey=FILE --record=FILE|--since=FILE\n"
    "                           check either proof and tell what it proves\n"
    "  export DIR --tiles=OUT   write the log as C2SP tlog-tiles\n"
    "\n"
    "Exit status: 0 sound, 1 something was found, 2 it could not be checked.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const struct command **chosen = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
            if (strcmp(arg, commands[i].name) == 0)
                *chosen = &commands[i];
        if (*chosen == NULL)
            argp_error(state, "there is no command '%s'", arg);
        // What follows belongs to the command.
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a command is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse, .args_doc = "COMMAND [ARGUMENT...]", .doc = doc};
    argp_err_exit_status = AUDIT_FAILED;
    if (sodium_init() < 0) {
        fprintf(stderr, "custody-audit: libsodium cannot be initialised\n");
        return AUDIT_FAILED;
    }
    const struct command *command = NULL;
    // Options before the command are ours (--help, --version), those after it the command's.
    int at = 1;
    while (at < argc && argv[at][0] == '-')
        at++;
    argp_parse(&argp, at < argc ? at + 1 : argc, argv, ARGP_IN_ORDER, NULL, &command);
    char name[64];
    snprintf(name, sizeof(name), "custody-audit %s", command->name);
    argv[at] = name;
    int status = command->run(argc - at, argv + at);
    // A full disk or a closed pipe must not pass for a report.
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("custody-audit: standard output");
        return AUDIT_FAILED;
    }
    return status;
}
