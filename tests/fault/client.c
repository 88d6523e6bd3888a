// SPDX-License-Identifier: Apache-2.0
// An applier and operator in one for the fault tests: reads a command a line, does it with
// libcustody, and prints what custodyd acknowledged. A connection that broke is made anew by the
// next command.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "custody.h"

#define TIMEOUT_MS 60000 // then it is a hang
#define LINE_SIZE  1024

static struct {
    const char *socket;
    char log_vkey[256]; // "" until it is known
    struct custody *connection;
    struct custody_error error;
} client;

static void hang_up(void)
{
    custody_close(client.connection);
    client.connection = NULL;
}

static int connect_daemon(void)
{
    const struct custody_options options = {
        .socket = client.socket,
        .log_vkey = client.log_vkey[0] != '\0' ? client.log_vkey : NULL,
        .client = "fault",
        .timeout_ms = TIMEOUT_MS,
    };
    if (client.connection != NULL)
        return 0;
    return custody_connect(&options, &client.connection, &client.error);
}

// ---- commands: each prints "ok ..." or leaves why not in client.error ----

static int do_vkey(char **words)
{
    snprintf(client.log_vkey, sizeof client.log_vkey, "%s", words[1]);
    hang_up();
    puts("ok");
    return 0;
}

static int do_status(char **words)
{
    struct custody_status status;
    (void)words;
    if (custody_status(client.connection, &status, &client.error) != 0)
        return -1;
    printf("ok\t%d\t%d\t%d\t%llu\t%s\t%s\t%s\n", status.initialised, status.keeper_ready,
           status.log_ready, (unsigned long long)status.log_size, status.log_vkey,
           status.keeper_message, status.log_message);
    return 0;
}

static int do_init(char **words)
{
    struct custody_token_initialised initialised;
    (void)words;
    if (custody_token_init(client.connection, &initialised, &client.error) != 0)
        return -1;
    printf("ok\t%s\n", initialised.log_vkey);
    snprintf(client.log_vkey, sizeof client.log_vkey, "%s", initialised.log_vkey);
    hang_up(); // the next one pins it
    return 0;
}

static void print_key(const struct custody_key *key)
{
    printf("\t%s\t%llu\t%s\t", key->name, (unsigned long long)key->generation,
           custody_key_state_name(key->state));
    for (size_t i = 0; i < sizeof key->public_key; i++)
        printf("%02x", key->public_key[i]);
}

static int do_generate(char **words)
{
    struct custody_key key;
    if (custody_key_generate(client.connection, words[1], NULL, &key, &client.error) != 0)
        return -1;
    fputs("ok", stdout);
    print_key(&key);
    putchar('\n');
    return 0;
}

static int do_destroy(char **words)
{
    struct custody_key key;
    if (custody_key_destroy(client.connection, words[1], strtoull(words[2], NULL, 10), NULL, NULL,
                            &key, NULL, &client.error) != 0)
        return -1;
    fputs("ok", stdout);
    print_key(&key);
    putchar('\n');
    return 0;
}

static int do_list(char **words)
{
    struct custody_key *keys;
    size_t count;
    if (custody_list_keys(client.connection, words[1], &keys, &count, &client.error) != 0)
        return -1;
    fputs("ok", stdout);
    for (size_t i = 0; i < count; i++)
        print_key(&keys[i]);
    putchar('\n');
    free(keys);
    return 0;
}

// A key that comes out of this was opened: what it prints is a promise of custodyd's.
static int do_release(char **words)
{
    struct custody_released *released;
    enum custody_reason reason =
        strcmp(words[3], "ROLLBACK") == 0 ? CUSTODY_REASON_ROLLBACK : CUSTODY_REASON_RESTORE;
    if (custody_release(client.connection, words[1], strtoull(words[2], NULL, 10), reason, NULL,
                        &released, &client.error) != 0)
        return -1;
    printf("ok\t%s\t%llu\t%s\t", custody_released_key(released),
           (unsigned long long)custody_released_generation(released),
           custody_released_lease(released));
    for (size_t i = 0; i < CUSTODY_KEY_SIZE; i++)
        printf("%02x", custody_released_public_key(released)[i]);
    printf("\t%s\n", custody_released_record(released));
    custody_released_free(released);
    return 0;
}

static int do_report(char **words)
{
    if (custody_report_outcome(client.connection, words[1], true, NULL, &client.error) != 0)
        return -1;
    puts("ok");
    return 0;
}

static const struct command {
    const char *name;
    int arguments;
    bool connects;
    int (*run)(char **words);
} commands[] = {
    {"vkey", 1, false, do_vkey},      {"status", 0, true, do_status},
    {"init", 0, true, do_init},       {"generate", 1, true, do_generate},
    {"destroy", 2, true, do_destroy}, {"list", 1, true, do_list},
    {"release", 3, true, do_release}, {"report", 1, true, do_report},
};

static int run(char *line)
{
    char *words[4] = {0};
    char *rest = line;
    int count = 0;
    while (count < 4 && (words[count] = strsep(&rest, " \n")) != NULL && words[count][0] != '\0')
        count++;
    for (size_t i = 0; count > 0 && i < sizeof commands / sizeof commands[0]; i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, words[0]) != 0 || command->arguments != count - 1)
            continue;
        if (command->connects && connect_daemon() != 0)
            return -1;
        return command->run(words);
    }
    client.error.code = CUSTODY_INVALID_ARGUMENT;
    snprintf(client.error.message, sizeof client.error.message, "no such command");
    return -1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    char line[LINE_SIZE];
    if (argc != 2) {
        fputs("usage: client SOCKET\n", stderr);
        return 2;
    }
    client.socket = argv[1];
    while (fgets(line, sizeof line, stdin) != NULL) {
        double begin = now();
        if (run(line) != 0) {
            printf("err\t%s\t%.3f\t%s\n", custody_code_name(client.error.code), now() - begin,
                   client.error.message);
            hang_up();
        }
        fflush(stdout);
    }
    hang_up();
    return 0;
}
