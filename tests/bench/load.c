// SPDX-License-Identifier: Apache-2.0
// Many appliers at once: processes with a connection each ask custodyd for releases, one after the
// other, and are timed.
#include <argp.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "custody.h"
#include "timing.h"

#define CLIENTS_MAX 512
#define COUNT_MAX   100000
#define WARMING     3  // releases of each client before measuring
#define LEASE_MAX   64 // bytes of a lease's name with its NUL
#define TIMEOUT_MS  30000
#define LIMIT_S     600 // then it gives up as a whole

struct arguments {
    const char *socket, *log_vkey, *key;
    size_t clients, count;
    bool report; // the outcome of each release before the next; else all of them after measuring
};

// In memory that all the processes share.
struct client {
    bool measured;              // all its releases came
    int64_t end;                // when the last one did
    double cpu_us;              // microseconds of processor time while measuring
    struct custody_error error; // code CUSTODY_OK when all went well
};

static struct arguments arguments = {.key = "wga", .clients = 1, .count = 1000};

// Processes and not threads: guarded memory is mapped and unmapped at each release, and in one
// address space every client would pay for every other's.
static struct {
    pthread_barrier_t *start;
    struct client *clients;
    int64_t *latencies; // nanoseconds, `count` of each client
} shared;

// Only in a client's own process.
static struct client *client;
static struct custody *custody;

static int release(char lease[LEASE_MAX])
{
    struct custody_released *released;

    if (custody_release(custody, arguments.key, 0, CUSTODY_REASON_RESTORE, "bench", &released,
                        &client->error) != 0)
        return -1;
    snprintf(lease, LEASE_MAX, "%s", custody_released_lease(released));
    custody_released_free(released);
    return 0;
}

static int report(const char *lease)
{
    return custody_report_outcome(custody, lease, true, NULL, &client->error);
}

static int warm(void)
{
    char lease[LEASE_MAX];

    for (int i = 0; i < WARMING; i++) {
        if (release(lease) != 0 || report(lease) != 0)
            return -1;
    }
    return 0;
}

static int measure(int64_t *latencies, char (*leases)[LEASE_MAX])
{
    for (size_t i = 0; i < arguments.count; i++) {
        int64_t begin = timing_now();
        if (release(leases[i]) != 0)
            return -1;
        client->end = timing_now();
        latencies[i] = client->end - begin;
        if (arguments.report && report(leases[i]) != 0)
            return -1;
    }
    return 0;
}

// Microseconds of processor time that this process has used.
static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void run_client(size_t number, const char *log_vkey)
{
    const struct custody_options options = {.socket = arguments.socket,
                                            .log_vkey = log_vkey,
                                            .client = "bench",
                                            .timeout_ms = TIMEOUT_MS};
    char(*leases)[LEASE_MAX] = calloc(arguments.count, sizeof(*leases));
    double cpu;
    int result = -1;

    client = &shared.clients[number];
    if (leases == NULL)
        client->error.code = CUSTODY_RESOURCE_EXHAUSTED;
    else if (custody_connect(&options, &custody, &client->error) == 0)
        result = warm();
    // Everyone comes to every barrier, whatever became of it: nobody may wait for ever.
    pthread_barrier_wait(shared.start);
    cpu = cpu_us();
    if (result == 0)
        result = measure(&shared.latencies[number * arguments.count], leases);
    client->cpu_us = cpu_us() - cpu;
    client->measured = result == 0;
    pthread_barrier_wait(shared.start);
    for (size_t i = 0; result == 0 && !arguments.report && i < arguments.count; i++)
        result = report(leases[i]);
    custody_close(custody);
    free(leases);
}

static void *share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("load: mmap");
        exit(EXIT_FAILURE);
    }
    return memory;
}

static void start_clients(const char *log_vkey)
{
    pthread_barrierattr_t attributes;

    shared.clients = share(arguments.clients * sizeof(*shared.clients));
    shared.latencies = share(arguments.clients * arguments.count * sizeof(*shared.latencies));
    shared.start = share(sizeof(*shared.start));
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(shared.start, &attributes, (unsigned)arguments.clients + 1);
    alarm(LIMIT_S);
    for (size_t i = 0; i < arguments.clients; i++) {
        pid_t pid = fork();
        if (pid < 0) {
            perror("load: fork");
            exit(EXIT_FAILURE);
        }
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            run_client(i, log_vkey);
            _exit(EXIT_SUCCESS);
        }
    }
}

// One line of JSON: releases a second from the first question to the last answer; microseconds of a
// call, and of processor time for each release in the clients.
static void print_result(int64_t begin)
{
    size_t total = arguments.clients * arguments.count;
    int64_t end = begin;
    double cpu = 0;

    for (size_t i = 0; i < arguments.clients; i++) {
        if (!shared.clients[i].measured)
            return;
        end = shared.clients[i].end > end ? shared.clients[i].end : end;
        cpu += shared.clients[i].cpu_us;
    }
    printf("{\"rate\":%.1f,\"p50\":%.1f,\"p99\":%.1f,\"cpu\":%.1f}\n",
           (double)total * 1e9 / (double)(end - begin),
           (double)timing_percentile(shared.latencies, total, 50) / 1e3,
           (double)timing_percentile(shared.latencies, total, 99) / 1e3, cpu / (double)total);
    fflush(stdout);
}

static int first_error(void)
{
    for (size_t i = 0; i < arguments.clients; i++) {
        const struct custody_error *error = &shared.clients[i].error;
        if (error->code != CUSTODY_OK) {
            fprintf(stderr, "load: client %zu: %s: %s\n", i, custody_code_name(error->code),
                    error->message);
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
    switch (key) {
    case 's':
        arguments.socket = argument;
        return 0;
    case 'v':
        arguments.log_vkey = argument;
        return 0;
    case 'k':
        arguments.key = argument;
        return 0;
    case 'c':
        arguments.clients = number(state, argument, CLIENTS_MAX);
        return 0;
    case 'n':
        arguments.count = number(state, argument, COUNT_MAX);
        return 0;
    case 'r':
        arguments.report = true;
        return 0;
    case ARGP_KEY_END:
        if (arguments.log_vkey == NULL)
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
    char vkey[256];
    int64_t begin;

    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    if (read_line(arguments.log_vkey, vkey, sizeof(vkey)) != 0)
        return EXIT_FAILURE;
    start_clients(vkey);
    pthread_barrier_wait(shared.start);
    begin = timing_now();
    pthread_barrier_wait(shared.start);
    print_result(begin); // while the clients report their outcomes
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return first_error() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
