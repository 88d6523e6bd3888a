// SPDX-License-Identifier: Apache-2.0
// custodyd: command line, hardening of the process, and running the daemon.
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <sodium.h>

#include "config.h"
#include "daemon.h"
#include "say.h"

#define DEFAULT_CONFIG SYSCONFDIR "/custody/custodyd.conf"

// Exit statuses; custodyd(8) lists them.
enum {
    EXIT_RUNNING_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_CONFIG = 3,
};

// argp looks for it by name, which -fvisibility=hidden would hide.
__attribute__((visibility("default"))) const char *argp_program_version =
    "custodyd " PACKAGE_VERSION;

struct arguments {
    const char *config;
    bool check;
};

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case 'c':
        arguments->config = value;
        return 0;
    case 't':
        arguments->check = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", value);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Read FILE instead of " DEFAULT_CONFIG, 0},
    {"check-config", 't', NULL, 0, "Check the configuration, say what is wrong with it, and exit",
     0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .doc =
        "Releases WireGuard private keys from an HSM to the appliers that policy names, and "
        "records each release "
        "before the key leaves.\vIt stays in the foreground and writes what happens to standard "
        "error. SIGHUP reads "
        "the policy again; SIGTERM stops it once what is in flight is answered. See custodyd(8).",
};

// What the daemon holds is no secret key, but nobody needs to read it either.
static void harden(void)
{
    struct rlimit none = {0, 0};
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &none);
    umask(027);
    signal(SIGPIPE, SIG_IGN);
}

static int check_config(const char *path)
{
    struct error err;
    struct config *config = config_read(path, &err);
    if (config == NULL) {
        fprintf(stderr, "custodyd: %s\n", err.message);
        return EXIT_CONFIG;
    }
    printf("%s: host %s, %zu key(s), %zu operator(s), %zu auditor(s)\n", path, config->host,
           config->key_count, config->operator_count, config->auditor_count);
    for (size_t i = 0; i < config->key_count; i++) {
        char text[CONFIG_WARNING_SIZE];
        if (config_key_warning(&config->keys[i], text))
            fprintf(stderr, "custodyd: %s: warning: %s\n", path, text);
    }
    config_free(config);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.config = DEFAULT_CONFIG};
    struct error err;
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    if (sodium_init() < 0) {
        fprintf(stderr, "custodyd: libsodium finds no source of randomness\n");
        return EXIT_RUNNING_FAILED;
    }
    if (arguments.check)
        return check_config(arguments.config);
    harden();
    struct daemon *daemon = daemon_new(arguments.config, &err);
    if (daemon == NULL) {
        say(LOG_ERR, "%s", err.message);
        return err.code == ERROR_INVALID_ARGUMENT || err.code == ERROR_NOT_FOUND
                   ? EXIT_CONFIG
                   : EXIT_RUNNING_FAILED;
    }
    int result = daemon_run(daemon);
    daemon_free(daemon);
    return result == 0 ? EXIT_SUCCESS : EXIT_RUNNING_FAILED;
}
