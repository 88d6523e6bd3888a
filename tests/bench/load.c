// SPDX-License-Identifier: Apache-2.0
// Many appliers at once: threads with a connection each ask custodyd for releases, one after the
// other, and are timed.
#include <argp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/resource.h>

#include "custody.h"
#include "timing.h"

#define CLIENTS_MAX 512
#define COUNT_MAX   100000
#define WARMING     3  // releases of each client before measuring
#define LEASE_MAX   64 // bytes of a lease's name with its NUL
#define TIMEOUT_MS  30000

struct arguments {
    const char *socket, *log_vkey, *key;
    size_t clients, count;
    bool report; // the outcome of each release before the next; else all of them after measuring
};

struct client {
    const struct arguments *arguments;
    pthread_barrier_t *start;
    pthread_t thread;
    struct custody *custody;
    int64_t *latencies;         // nanoseconds, `count` of them
    char (*leases)[LEASE_MAX];  // whose outcomes are to be reported
    int64_t end;                // when its last release came
    bool measured;              // all its releases came
    struct custody_error error; // code CUSTODY_OK when all went well
};

static int release(struct client *client, char lease[LEASE_MAX])
{
    struct custody_released *released;

    if (custody_release(client->custody, client->arguments->key, 0, CUSTODY_REASON_RESTORE, "bench",
                        &released, &client->error) != 0)
        return -1;
    snprintf(lease, LEASE_MAX, "%s", custody_released_lease(released));
    custody_released_free(released);
    return 0;
}

static int report(struct client *client, const char *lease)
{
    return custody_report_outcome(client->custody, lease, true, NULL, &client->error);
}

static int warm(struct client *client)
{
    char lease[LEASE_MAX];

    for (int i = 0; i < WARMING; i++) {
        if (release(client, lease) != 0 || report(client, lease) != 0)
            return -1;
    }
    return 0;
}

static int measure(struct client *client)
{
    for (size_t i = 0; i < client->arguments->count; i++) {
        int64_t begin = timing_now();
        if (release(client, client->leases[i]) != 0)
            return -1;
        client->end = timing_now();
        client->latencies[i] = client->end - begin;
        if (client->arguments->report && report(client, client->leases[i]) != 0)
            return -1;
    }
    return 0;
}

static void *run(void *argument)
{
    struct client *client = argument;
    int result = warm(client);

    // Every thread comes to every barrier, whatever became of it: nobody may wait for ever.
    pthread_barrier_wait(client->start);
    if (result == 0)
        result = measure(client);
    client->measured = result == 0;
    pthread_barrier_wait(client->start);
    for (size_t i = 0; result == 0 && !client->arguments->report && i < client->arguments->count;
         i++)
        result = report(client, client->leases[i]);
    return NULL;
}

static int connect_client(struct client *client, const char *log_vkey)
{
    const struct custody_options options = {.socket = client->arguments->socket,
                                            .log_vkey = log_vkey,
                                            .client = "bench",
                                            .timeout_ms = TIMEOUT_MS};

    client->latencies = calloc(client->arguments->count, sizeof(*client->latencies));
    client->leases = calloc(client->arguments->count, sizeof(*client->leases));
    if (client->latencies == NULL || client->leases == NULL) {
        client->error.code = CUSTODY_RESOURCE_EXHAUSTED;
        snprintf(client->error.message, sizeof(client->error.message), "out of memory");
        return -1;
    }
    return custody_connect(&options, &client->custody, &client->error);
}

// Microseconds of processor time that this process has used.
static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// One line of JSON: releases a second from the first question to the last answer, microseconds of a
// call, and of processor time for each release here.
static int print_result(struct client *clients, const struct arguments *arguments, int64_t begin,
                        double cpu)
{
    size_t total = arguments->clients * arguments->count;
    int64_t *all = calloc(total, sizeof(*all));
    int64_t end = begin;

    if (all == NULL)
        return -1;
    for (size_t i = 0; i < arguments->clients; i++) {
        memcpy(all + i * arguments->count, clients[i].latencies, arguments->count * sizeof(*all));
        end = clients[i].end > end ? clients[i].end : end;
    }
    printf("{\"rate\":%.1f,\"p50\":%.1f,\"p99\":%.1f,\"cpu\":%.1f}\n",
           (double)total * 1e9 / (double)(end - begin),
           (double)timing_percentile(all, total, 50) / 1e3,
           (double)timing_percentile(all, total, 99) / 1e3, cpu / (double)total);
    free(all);
    return fflush(stdout);
}

// Runs all the clients from one moment on; the result is printed while they report their outcomes.
static int run_all(struct client *clients, const struct arguments *arguments)
{
    pthread_barrier_t start;
    int64_t begin;
    double cpu;
    bool measured = true;
    int result = -1;

    pthread_barrier_init(&start, NULL, (unsigned)arguments->clients + 1);
    for (size_t i = 0; i < arguments->clients; i++) {
        clients[i].start = &start;
        if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0) {
            perror("load: pthread_create");
            exit(EXIT_FAILURE); // the threads that wait at the barrier end with the process
        }
    }
    pthread_barrier_wait(&start);
    begin = timing_now();
    cpu = cpu_us();
    pthread_barrier_wait(&start);
    cpu = cpu_us() - cpu;
    for (size_t i = 0; i < arguments->clients; i++)
        measured = measured && clients[i].measured;
    if (measured)
        result = print_result(clients, arguments, begin, cpu);
    for (size_t i = 0; i < arguments->clients; i++)
        pthread_join(clients[i].thread, NULL);
    pthread_barrier_destroy(&start);
    return result;
}

static int first_error(const struct client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (clients[i].error.code != CUSTODY_OK) {
            fprintf(stderr, "load: client %zu: %s: %s\n", i,
                    custody_code_name(clients[i].error.code), clients[i].error.message);
            return -1;
        }
    }
    return 0;
}

static int read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");

    if (file == NULL || fgets(line, size, file) == NULL) {
        fprintf(stderr, "load: %s cannot be read\n", path);
        if (file != NULL)
            fclose(file);
        return -1;
    }
    line[strcspn(line, "\n")] = '\0';
    fclose(file);
    return 0;
}

static size_t number(struct argp_state *state, const char *text, size_t max)
{
    unsigned long value = strtoul(text, NULL, 10);

    if (value == 0 || value > max)
        argp_error(state, "'%s' is no number from 1 to %zu", text, max);
    return value;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 's':
        arguments->socket = argument;
        return 0;
    case 'v':
        arguments->log_vkey = argument;
        return 0;
    case 'k':
        arguments->key = argument;
        return 0;
    case 'c':
        arguments->clients = number(state, argument, CLIENTS_MAX);
        return 0;
    case 'n':
        arguments->count = number(state, argument, COUNT_MAX);
        return 0;
    case 'r':
        arguments->report = true;
        return 0;
    case ARGP_KEY_END:
        if (arguments->log_vkey == NULL)
            argp_error(state, "--log-vkey is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option options[] = {
    {"socket", 's', "PATH", 0, "custodyd's socket (" CUSTODY_SOCKET ")", 0},
    {"log-vkey", 'v', "FILE", 0, "the log's verifier key", 0},
    {"key", 'k', "NAME", 0, "the key to ask for (wga)", 0},
    {"clients", 'c', "N", 0, "that ask at once (1)", 0},
    {"count", 'n', "N", 0, "releases for each (1000)", 0},
    {"report", 'r', NULL, 0, "report each outcome before the next release", 0},
    {0},
};

int main(int argc, char **argv)
{
    const struct argp argp = {
        .options = options, .parser = parse, .doc = "Measures releases by concurrent clients."};
    struct arguments arguments = {.key = "wga", .clients = 1, .count = 1000};
    static struct client clients[CLIENTS_MAX];
    char vkey[256];
    int status = EXIT_FAILURE;

    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    if (read_line(arguments.log_vkey, vkey, sizeof(vkey)) != 0)
        return status;
    for (size_t i = 0; i < arguments.clients; i++) {
        clients[i].arguments = &arguments;
        if (connect_client(&clients[i], vkey) != 0)
            goto cleanup;
    }
    if (run_all(clients, &arguments) == 0)
        status = EXIT_SUCCESS;
cleanup:
    if (first_error(clients, arguments.clients) != 0)
        status = EXIT_FAILURE;
    for (size_t i = 0; i < arguments.clients; i++) {
        custody_close(clients[i].custody);
        free(clients[i].latencies);
        free(clients[i].leases);
    }
    return status;
}
