// SPDX-License-Identifier: Apache-2.0
// custody-keeper: holds the PIN, and is the only program of custody that logs in to the token.
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>
#include <systemd/sd-daemon.h>

#include "harden.h"
#include "keeper.h"
#include "serve.h"
#include "softhsm.h"

// Exit codes; custody-keeper(8) lists them.
enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_BAD_USAGE = 2,
    EXIT_NO_TOKEN = 3,
    EXIT_NO_LOGIN = 4,
    EXIT_TOKEN_LOST = 5,
};

#define RELEASES_DEFAULT 100
#define RELEASES_MAX     1000000

#define HEAD_INTERVAL_DEFAULT_MS 1000
#define HEAD_INTERVAL_MAX_MS     60000

struct arguments {
    struct keeper_options keeper;
    int fd; // -1 when not given
    const char *socket;
    const char *operators; // NULL when not given
    uid_t client_uid;
};

enum option_key {
    OPTION_HOST = 256,
    OPTION_TOKEN,
    OPTION_AUDIT,
    OPTION_FD,
    OPTION_SOCKET,
    OPTION_RATE,
    OPTION_HEAD,
    OPTION_OPERATORS,
    OPTION_BY_UID,
    OPTION_UID
};

static const struct argp_option options[] = {
    {"host", OPTION_HOST, "HOST", 0, "this host's id, which every record bears", 0},
    {"token", OPTION_TOKEN, "URI", 0,
     "the token, as RFC 7512 writes it; pin-source=file:/PATH and module-path=PATH count", 0},
    {"audit-dir", OPTION_AUDIT, "DIR", 0, "the folder whose log/ holds the audit log", 0},
    {"fd", OPTION_FD, "N", 0, "serve on the connected SOCK_SEQPACKET socket N", 1},
    {"socket", OPTION_SOCKET, "PATH", 0, "listen on this path", 1},
    {"client-uid", OPTION_UID, "UID", 0, "serve clients of this user only", 1},
    {"releases-per-second", OPTION_RATE, "N", 0, "let out no more keys than this (100)", 2},
    {"operators", OPTION_OPERATORS, "FILE", 0,
     "the operators' SSH keys, whose signatures accept a loss of records", 2},
    {"approve-by-uid", OPTION_BY_UID, NULL, 0,
     "accept a loss that two uids approved without signing: the weaker mode", 2},
    {"head-interval", OPTION_HEAD, "MS", 0,
     "while records are many, write the log's head into the token so often (1000)", 2},
    {0},
};

// argp looks for it by name, which -fvisibility=hidden would hide.
__attribute__((visibility("default"))) const char *argp_program_version =
    "custody-keeper " PACKAGE_VERSION;

static unsigned long parse_number(const char *text, unsigned long min, unsigned long max,
                                  const char *what, struct argp_state *state)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < min || value > max)
        argp_error(state, "%s must be a number from %lu to %lu, not '%s'", what, min, max, text);
    return value;
}

static void check_arguments(const struct arguments *arguments, struct argp_state *state)
{
    const struct keeper_options *keeper = &arguments->keeper;
    if (keeper->host == NULL || keeper->token == NULL || keeper->audit_dir == NULL)
        argp_error(state, "--host, --token and --audit-dir are needed");
    if (arguments->fd >= 0 && arguments->socket != NULL)
        argp_error(state, "--fd and --socket exclude each other");
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case OPTION_HOST:
        if (!name_is_host(value))
            argp_error(state, "'%s' is no host id: it takes 1 to 63 of a-z, 0-9, '.' and '-'",
                       value);
        arguments->keeper.host = value;
        return 0;
    case OPTION_TOKEN:
        arguments->keeper.token = value;
        return 0;
    case OPTION_AUDIT:
        arguments->keeper.audit_dir = value;
        return 0;
    case OPTION_FD:
        arguments->fd = (int)parse_number(value, 3, 1 << 20, "--fd", state);
        return 0;
    case OPTION_SOCKET:
        arguments->socket = value;
        return 0;
    case OPTION_UID:
        arguments->client_uid = (uid_t)parse_number(value, 0, 4294967294UL, "--client-uid", state);
        return 0;
    case OPTION_RATE:
        arguments->keeper.releases_per_second =
            parse_number(value, 1, RELEASES_MAX, "--releases-per-second", state);
        return 0;
    case OPTION_OPERATORS:
        arguments->operators = value;
        return 0;
    case OPTION_BY_UID:
        arguments->keeper.approve_by_uid = true;
        return 0;
    case OPTION_HEAD:
        arguments->keeper.head_interval_ms =
            (uint32_t)parse_number(value, 1, HEAD_INTERVAL_MAX_MS, "--head-interval", state);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "there is no argument '%s'", value);
        return 0;
    case ARGP_KEY_END:
        check_arguments(arguments, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options,
    .parser = parse_option,
    .doc =
        "Keep the token: seal, unseal and sign for custodyd, and only under a record in its log.\v"
        "Without --fd and --socket the socket comes from systemd. KEEPER and custody-keeper(8) say "
        "what is promised and what is refused.",
};

static int fail(const struct error *err, int status)
{
    fprintf(stderr, "custody-keeper: %s\n", err->message);
    return status;
}

// Finds the descriptor to serve on among what was given, and closes all others.
static int take_descriptor(const struct arguments *arguments, int *fd, struct error *err)
{
    int inherited = sd_listen_fds(1);
    if (arguments->fd >= 0 || arguments->socket != NULL) {
        *fd = arguments->fd;
        return harden_descriptors(*fd, *fd >= 0 ? 1 : 0, err);
    }
    if (inherited != 1)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "nothing to serve on: give --fd or --socket, or start this from a "
                         "systemd socket unit");
    *fd = SD_LISTEN_FDS_START;
    return harden_descriptors(*fd, 1, err);
}

static int exit_status(const struct error *err)
{
    if (err->code == ERROR_UNAUTHENTICATED)
        return EXIT_NO_LOGIN;
    if (err->code == ERROR_NOT_FOUND || err->code == ERROR_UNAVAILABLE)
        return EXIT_NO_TOKEN;
    return EXIT_FAILED;
}

static void say_ready(const struct keeper *keeper)
{
    struct keeper_status status;
    keeper_describe(keeper, &status);
    fprintf(stderr, "custody-keeper: logged in to token '%s' (%s), %u keys%s\n", status.token.label,
            status.token.serial, (unsigned)status.blobs,
            status.initialised ? "" : "; it is not initialised");
    if (status.leftovers > 0)
        fprintf(stderr,
                "custody-keeper: %u objects are leftovers of keys that were never recorded\n",
                (unsigned)status.leftovers);
    sd_notify(0, "READY=1");
}

// Serves on `fd` (a listening or a connected socket).
static int serve(struct keeper *keeper, const struct arguments *arguments, int fd, int signals)
{
    struct error err = {.code = ERROR_OK};
    bool listening = false;
    if (serve_kind(fd, &listening, &err) != 0)
        return fail(&err, EXIT_FAILED);
    enum keeper_outcome outcome =
        listening ? serve_clients(keeper, fd, signals, arguments->client_uid, &err)
                  : serve_client(keeper, fd, signals, arguments->client_uid, &err);
    sd_notify(0, "STOPPING=1");
    if (outcome == KEEPER_GOES_ON)
        return EXIT_DONE;
    return fail(&err, outcome == KEEPER_TOKEN_LOST ? EXIT_TOKEN_LOST : EXIT_FAILED);
}

// Opens the token and serves.
static int keep(const struct arguments *arguments, int fd)
{
    struct error err = {.code = ERROR_OK};
    struct keeper *keeper = NULL;
    char notice[256];
    int signals = serve_signals(&err);
    if (signals < 0)
        return fail(&err, EXIT_FAILED);
    if (fd < 0 && (fd = serve_listen(arguments->socket, &err)) < 0)
        return fail(&err, EXIT_FAILED);
    if (softhsm_mend(notice, sizeof(notice), &err) < 0)
        return fail(&err, EXIT_FAILED);
    if (notice[0] != '\0')
        fprintf(stderr, "custody-keeper: %s\n", notice);
    if (keeper_open(&arguments->keeper, &keeper, &err) != 0)
        return fail(&err, exit_status(&err));
    say_ready(keeper);
    int status = serve(keeper, arguments, fd, signals);
    keeper_close(keeper);
    if (arguments->socket != NULL)
        unlink(arguments->socket);
    return status;
}

int main(int argc, char **argv)
{
    struct error err = {.code = ERROR_OK};
    struct arguments arguments = {.keeper.releases_per_second = RELEASES_DEFAULT,
                                  .keeper.head_interval_ms = HEAD_INTERVAL_DEFAULT_MS,
                                  .fd = -1,
                                  .client_uid = SERVE_ANYBODY};
    argp_err_exit_status = EXIT_BAD_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &arguments);
    if (harden_bind_now(argv, &err) != 0 || harden_process(&err) != 0)
        return fail(&err, EXIT_FAILED);
    struct operators operators = {.count = 0};
    if (arguments.operators != NULL && operators_read(arguments.operators, &operators, &err) != 0)
        return fail(&err, EXIT_FAILED);
    arguments.keeper.operators = &operators;
    int fd = -1;
    if (take_descriptor(&arguments, &fd, &err) != 0)
        return fail(&err, EXIT_FAILED);
    if (sodium_init() < 0) {
        error_set(&err, ERROR_INTERNAL, "libsodium does not start");
        return fail(&err, EXIT_FAILED);
    }
    return keep(&arguments, fd);
}
