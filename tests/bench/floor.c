// SPDX-License-Identifier: Apache-2.0
// The floor under a release: C_Decrypt, crypto_box, append, fdatasync and C_Sign, one after the
// other in one process.
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>
#include <sodium.h>

#include "timing.h"
#include "token.h"

#define LINE_SIZE 600 // bytes of a release's record
#define NOTE_SIZE 120 // bytes of a checkpoint that are signed
#define COUNT_MAX 1000000
#define WARMING   20 // releases before measuring

enum part { DECRYPT, BOX, APPEND, SYNC, SIGN, PARTS };
static const char *const part_names[PARTS] = {"decrypt", "box", "append", "fdatasync", "sign"};

struct arguments {
    const char *token;
    const char *file;
    size_t count;
    bool sync;
};

struct floor {
    struct token *token;
    uint8_t *secret; // guarded
    uint8_t applier[crypto_box_PUBLICKEYBYTES];
    int fd;
    bool sync;
    int64_t *whole; // nanoseconds of each release
    int64_t *parts[PARTS];
};

static int append(int fd, const char *line, struct error *err)
{
    size_t done = 0;

    while (done < LINE_SIZE) {
        ssize_t n = write(fd, line + done, LINE_SIZE - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERROR_INTERNAL, "write: %s", strerror(errno));
        done += (size_t)n;
    }
    return 0;
}

// One release; `times` receives the moments between its parts.
static int release(struct floor *floor, const char *line, int64_t times[PARTS + 1],
                   struct error *err)
{
    uint8_t box[crypto_box_SEALBYTES + TOKEN_SECRET_SIZE];
    uint8_t signature[TOKEN_SIGNATURE_SIZE];

    times[DECRYPT] = timing_now();
    if (token_unseal(floor->token, floor->secret, err) != 0)
        return -1;
    times[BOX] = timing_now();
    if (crypto_box_seal(box, floor->secret, TOKEN_SECRET_SIZE, floor->applier) != 0)
        return error_set(err, ERROR_INTERNAL, "crypto_box_seal failed");
    sodium_memzero(floor->secret, TOKEN_SECRET_SIZE);
    times[APPEND] = timing_now();
    if (append(floor->fd, line, err) != 0)
        return -1;
    times[SYNC] = timing_now();
    if (floor->sync && fdatasync(floor->fd) != 0)
        return error_set(err, ERROR_INTERNAL, "fdatasync: %s", strerror(errno));
    times[SIGN] = timing_now();
    if (token_sign(floor->token, line, NOTE_SIZE, signature, err) != 0)
        return -1;
    times[PARTS] = timing_now();
    return 0;
}

static int measure(struct floor *floor, size_t count, struct error *err)
{
    char line[LINE_SIZE];
    int64_t times[PARTS + 1];

    memset(line, 'x', sizeof(line));
    line[LINE_SIZE - 1] = '\n';
    for (size_t i = 0; i < WARMING + count; i++) {
        if (release(floor, line, times, err) != 0)
            return -1;
        if (i < WARMING)
            continue;
        floor->whole[i - WARMING] = times[PARTS] - times[0];
        for (int part = 0; part < PARTS; part++)
            floor->parts[part][i - WARMING] = times[part + 1] - times[part];
    }
    return 0;
}

// One line of JSON: releases a second, and microseconds: of a release, and in the middle of each
// part.
static void report(struct floor *floor, size_t count)
{
    int64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += floor->whole[i];
    printf("{\"rate\":%.1f,\"p50\":%.1f,\"p99\":%.1f", (double)count * 1e9 / (double)sum,
           (double)timing_percentile(floor->whole, count, 50) / 1e3,
           (double)timing_percentile(floor->whole, count, 99) / 1e3);
    for (int part = 0; part < PARTS; part++)
        printf(",\"%s\":%.1f", part_names[part],
               (double)timing_percentile(floor->parts[part], count, 50) / 1e3);
    printf("}\n");
}

static int prepare(struct floor *floor, const struct arguments *arguments, struct error *err)
{
    uint8_t applier_secret[crypto_box_SECRETKEYBYTES];

    if (sodium_init() < 0 || (floor->secret = sodium_malloc(TOKEN_SECRET_SIZE)) == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory");
    floor->whole = calloc(arguments->count, sizeof(int64_t));
    for (int part = 0; part < PARTS; part++)
        floor->parts[part] = calloc(arguments->count, sizeof(int64_t));
    if (floor->whole == NULL || floor->parts[PARTS - 1] == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    crypto_box_keypair(floor->applier, applier_secret);
    sodium_memzero(applier_secret, sizeof(applier_secret));
    floor->sync = arguments->sync;
    floor->fd = open(arguments->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (floor->fd < 0)
        return error_set(err, ERROR_INTERNAL, "%s: %s", arguments->file, strerror(errno));
    if (token_open(arguments->token, &floor->token, err) != 0)
        return -1;
    randombytes_buf(floor->secret, TOKEN_SECRET_SIZE);
    return token_seal(floor->token, floor->secret, err);
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 't':
        arguments->token = argument;
        return 0;
    case 'f':
        arguments->file = argument;
        return 0;
    case 'n':
        arguments->count = strtoul(argument, NULL, 10);
        if (arguments->count == 0 || arguments->count > COUNT_MAX)
            argp_error(state, "--count: a number from 1 to %d", COUNT_MAX);
        return 0;
    case 'S':
        arguments->sync = false;
        return 0;
    case ARGP_KEY_END:
        if (arguments->token == NULL || arguments->file == NULL)
            argp_error(state, "--token and --file are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"token", 't', "URI", 0, "PKCS#11 URI with module-path and pin-source", 0},
    {"file", 'f', "FILE", 0, "append the lines to FILE", 0},
    {"count", 'n', "N", 0, "releases to measure (1000)", 0},
    {"no-sync", 'S', NULL, 0, "leave out fdatasync", 0},
    {0},
};

int main(int argc, char **argv)
{
    const struct argp argp = {
        .options = options, .parser = parse, .doc = "Measures what a release costs at least."};
    struct arguments arguments = {.count = 1000, .sync = true};
    struct floor floor = {.fd = -1};
    struct error err = {0};
    int status = EXIT_FAILURE;

    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    if (prepare(&floor, &arguments, &err) == 0 && measure(&floor, arguments.count, &err) == 0) {
        report(&floor, arguments.count);
        status = EXIT_SUCCESS;
    } else {
        fprintf(stderr, "floor: %s\n", err.message);
    }
    token_close(floor.token);
    if (floor.fd >= 0)
        close(floor.fd);
    free(floor.whole);
    for (int part = 0; part < PARTS; part++)
        free(floor.parts[part]);
    sodium_free(floor.secret);
    return status;
}
