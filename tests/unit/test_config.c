// SPDX-License-Identifier: Apache-2.0
// The configuration file: defaults, values, and each way to get it wrong, with file and line.
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "tap.h"

#define KEEPER "keeper { socket = \"/run/k.sock\" }\n"
#define MIN    "host = \"alpha\"\n" KEEPER // two lines
#define GRANT  "uid = 0 unit = \"any\" reasons = { \"BOOT\" } rate = \"10/60\""

static char path[] = "/tmp/custody-config-XXXXXX";

// Reads `text` as a configuration file. The caller frees.
static struct config *read_bytes(const void *text, size_t length, struct error *err)
{
    FILE *file = fopen(path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_EQUAL(fwrite(text, 1, length, file), length);
    CU_ASSERT_EQUAL(fclose(file), 0);
    return config_read(path, err);
}

static struct config *read_text(const char *text, struct error *err)
{
    return read_bytes(text, strlen(text), err);
}

static struct config *must_read(const char *text)
{
    struct error err = {.message = ""};
    struct config *config = read_text(text, &err);
    if (config == NULL)
        printf("# %s\n", err.message);
    CU_ASSERT_PTR_NOT_NULL_FATAL(config);
    return config;
}

// ---- what is taken ----

static void test_defaults(void)
{
    struct config *config = must_read(MIN);
    CU_ASSERT_STRING_EQUAL(config->host, "alpha");
    CU_ASSERT_STRING_EQUAL(config->audit_dir, LOCALSTATEDIR "/lib/custody/audit");
    CU_ASSERT_EQUAL(config->lease_s, 10);
    CU_ASSERT_STRING_EQUAL(config->socket.path, RUNSTATEDIR "/custody/custody.sock");
    CU_ASSERT_EQUAL(config->socket.mode, 0660);
    CU_ASSERT_PTR_NULL(config->socket.group);
    CU_ASSERT_STRING_EQUAL(config->keeper.socket, "/run/k.sock");
    CU_ASSERT_PTR_NULL(config->keeper.program);
    CU_ASSERT_EQUAL(config->keeper.releases_per_second, 100);
    CU_ASSERT_EQUAL(config->keeper.timeout_s, 10);
    CU_ASSERT_EQUAL(config->limits.connections_per_uid, 128);
    CU_ASSERT_EQUAL(config->limits.connections, 512);
    CU_ASSERT_EQUAL(config->limits.requests_in_flight, 16);
    CU_ASSERT_EQUAL(config->limits.idle_s, 300);
    // Nobody may do anything.
    CU_ASSERT_EQUAL(config->operator_count, 0);
    CU_ASSERT_EQUAL(config->auditor_count, 0);
    CU_ASSERT_EQUAL(config->key_count, 0);
    config_free(config);
}

static const char full[] =
    "# a comment\n"
    "host = \"beta.example\"\n"
    "audit-dir = \"/srv/audit\"\n"
    "lease = 30\n"
    "socket { path = \"/run/c.sock\" mode = \"0600\" group = \"custody\" }\n"
    "keeper { program = \"/k\" token = \"pkcs11:token=t\" releases-per-second = 7 timeout = 3 }\n"
    "metrics { socket = \"/run/m.sock\" textfile = \"/m.prom\" interval = 60 }\n"
    "hook \"pager\" { command = { \"/bin/page\", \"-u\", \"a b\" } events = { \"log.stuck\", "
    "\"key.revoked\" } user = \"root\" timeout = 30 }\n"
    "hook \"mail\" { command = { \"/bin/mail\" } events = { \"log.stuck\" } }\n"
    "limits { connections-per-uid = 1 connections = 2 requests-in-flight = 3 idle = 4 }\n"
    "operator \"root\" { uid = 0 unit = \"any\" }\n"
    "operator \"ops\" { uid = 4294967294 gid = 0 unit = \"none\" }\n"
    "auditor \"root\" { uid = 1001 unit = \"session-1.scope\" }\n"
    "key \"wg0\" {\n"
    "  not-after = 60\n"
    "  grace = 5\n"
    "  grant \"one\" { uid = 1 gid = 2 unit = \"a.service\" reasons = { \"BOOT\", \"ROLLBACK\" } "
    "rate = \"3/4\" }\n"
    "  grant \"two\" { " GRANT " }\n"
    "}\n"
    "key \"wg1\" { }\n";

static void test_values(void)
{
    struct config *config = must_read(full);
    CU_ASSERT_STRING_EQUAL(config->host, "beta.example");
    CU_ASSERT_STRING_EQUAL(config->audit_dir, "/srv/audit");
    CU_ASSERT_EQUAL(config->lease_s, 30);
    CU_ASSERT_STRING_EQUAL(config->socket.path, "/run/c.sock");
    CU_ASSERT_EQUAL(config->socket.mode, 0600);
    CU_ASSERT_STRING_EQUAL(config->socket.group, "custody");
    CU_ASSERT_STRING_EQUAL(config->keeper.program, "/k");
    CU_ASSERT_STRING_EQUAL(config->keeper.token, "pkcs11:token=t");
    CU_ASSERT_EQUAL(config->keeper.releases_per_second, 7);
    CU_ASSERT_EQUAL(config->keeper.timeout_s, 3);
    CU_ASSERT(config->limits.connections_per_uid == 1 && config->limits.connections == 2);
    CU_ASSERT(config->limits.requests_in_flight == 3 && config->limits.idle_s == 4);
    CU_ASSERT_STRING_EQUAL(config->metrics.socket, "/run/m.sock");
    CU_ASSERT_STRING_EQUAL(config->metrics.textfile, "/m.prom");
    CU_ASSERT_EQUAL(config->metrics.interval_s, 60);
    CU_ASSERT_EQUAL_FATAL(config->hook_count, 2);
    const struct config_hook *hook = &config->hooks[0];
    CU_ASSERT_STRING_EQUAL(hook->name, "pager");
    CU_ASSERT_STRING_EQUAL(hook->command[0], "/bin/page");
    CU_ASSERT_STRING_EQUAL(hook->command[2], "a b");
    CU_ASSERT_PTR_NULL(hook->command[3]);
    for (unsigned event = 0; event < RECORD_EVENTS; event++)
        CU_ASSERT_EQUAL(hook->events[event],
                        event == RECORD_LOG_STUCK || event == RECORD_KEY_REVOKED);
    CU_ASSERT_STRING_EQUAL(hook->user, "root");
    CU_ASSERT(hook->uid == 0 && hook->gid == 0 && hook->timeout_s == 30);
    CU_ASSERT_PTR_NULL(config->hooks[1].user);
    CU_ASSERT_EQUAL(config->hooks[1].timeout_s, 10);
    CU_ASSERT_EQUAL_FATAL(config->operator_count, 2);
    CU_ASSERT_STRING_EQUAL(config->operators[1].name, "ops");
    CU_ASSERT_EQUAL(config->operators[1].uid, 4294967294);
    CU_ASSERT(config->operators[1].has_gid && config->operators[1].gid == 0);
    CU_ASSERT_EQUAL(config->operators[1].unit_kind, CONFIG_UNIT_NONE);
    CU_ASSERT(!config->operators[0].has_gid);
    CU_ASSERT_EQUAL(config->operators[0].unit_kind, CONFIG_UNIT_ANY);
    CU_ASSERT_EQUAL_FATAL(config->auditor_count, 1);
    CU_ASSERT_EQUAL(config->auditors[0].unit_kind, CONFIG_UNIT_EXACT);
    CU_ASSERT_STRING_EQUAL(config->auditors[0].unit, "session-1.scope");
    config_free(config);
}

static void test_keys(void)
{
    struct config *config = must_read(full);
    uint8_t digest[crypto_hash_sha256_BYTES];
    char hex[65];
    CU_ASSERT_EQUAL_FATAL(config->key_count, 2);
    const struct config_key *key = config_find_key(config, "wg0");
    CU_ASSERT_PTR_EQUAL_FATAL(key, &config->keys[0]);
    CU_ASSERT(key->not_after_s == 60 && key->grace_s == 5 && key->grant_count == 2);
    CU_ASSERT_EQUAL(key->grants[0].reasons, 1u << REASON_BOOT | 1u << REASON_ROLLBACK);
    CU_ASSERT(key->grants[0].rate_count == 3 && key->grants[0].rate_seconds == 4);
    CU_ASSERT(key->grants[0].who.uid == 1 && key->grants[0].who.gid == 2);
    CU_ASSERT_STRING_EQUAL(key->grants[0].who.unit, "a.service");
    CU_ASSERT_STRING_EQUAL(key->grants[1].who.name, "two");
    CU_ASSERT_EQUAL(key->grants[1].reasons, 1u << REASON_BOOT);
    CU_ASSERT_EQUAL(config->keys[1].grant_count, 0);
    CU_ASSERT(config->keys[1].not_after_s == 2592000 && config->keys[1].grace_s == 300);
    CU_ASSERT_PTR_NULL(config_find_key(config, "wg"));
    CU_ASSERT_PTR_NULL(config_find_key(config, "wg00"));
    crypto_hash_sha256(digest, (const uint8_t *)full, sizeof(full) - 1);
    sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
    CU_ASSERT_STRING_EQUAL(config->sha256, hex);
    config_free(config);
}

static void test_times(void)
{
    struct config *config = must_read(
        MIN "key \"a\" { }\n"
            "key \"b\" { risk = \"weekly\" }\n"
            "key \"c\" { risk = \"hourly\" jitter = 0 grace = 7 }\n"
            "key \"d\" { lifetime = 5 grace = 1 window = 1 jitter = 2 psk-lifetime = 9 }\n"
            "key \"e\" { risk = \"monthly\" }\n"
            "key \"f\" { risk = \"daily\" }\n");
    const struct config_key *key = config_find_key(config, "a");
    CU_ASSERT(key->lifetime_s == 0 && key->grace_s == 300 && key->window_s == 60);
    CU_ASSERT(key->jitter_s == 0 && key->psk_lifetime_s == 0 && key->not_after_s == 2592000);
    key = config_find_key(config, "b");
    CU_ASSERT(key->lifetime_s == 604800 && key->grace_s == 3600 && key->window_s == 300);
    CU_ASSERT(key->jitter_s == 21600 && key->psk_lifetime_s == 604800);
    key = config_find_key(config, "c");
    CU_ASSERT(key->lifetime_s == 3600 && key->grace_s == 7 && key->window_s == 60);
    CU_ASSERT(key->jitter_s == 0 && key->psk_lifetime_s == 3600);
    key = config_find_key(config, "d");
    CU_ASSERT(key->lifetime_s == 5 && key->grace_s == 1 && key->window_s == 1);
    CU_ASSERT(key->jitter_s == 2 && key->psk_lifetime_s == 9);
    // A bundle outlives its key.
    key = config_find_key(config, "e");
    CU_ASSERT(key->lifetime_s == 2592000 && key->not_after_s == 2 * 2592000);
    CU_ASSERT(config_find_key(config, "f")->lifetime_s == 86400);
    config_free(config);
}

static void test_warning(void)
{
    char text[CONFIG_WARNING_SIZE] = "";
    struct config *config = must_read(
        MIN "key \"a\" { lifetime = 1000 grant \"g\" { " GRANT " } }\n"
            "key \"b\" { grant \"g\" { " GRANT " } }\n"
            "key \"c\" { lifetime = 1000 grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\" "
            "reasons = { \"BOOT\", \"ROTATION\" } } }\n");
    CU_ASSERT(config_key_warning(&config->keys[0], text));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "key 'a' has a lifetime, but no grant for ROTATION"));
    CU_ASSERT(!config_key_warning(&config->keys[1], text));
    CU_ASSERT(!config_key_warning(&config->keys[2], text));
    config_free(config);
}

// ---- what is refused ----

static const struct {
    const char *text;
    int line; // 0: the message names the file alone
    const char *words;
} faults[] = {
    // unknown
    {MIN "hots = \"a\"\n", 3, "hots"},
    {MIN "socket {\n mod = \"0660\"\n}\n", 4, "mod"},
    {MIN "key \"a\" {\n grant \"b\" {\n uid = 0\n unlt = \"any\"\n}\n}\n", 6, "unlt"},
    {MIN "kye \"a\" { }\n", 3, "kye"},
    // twice
    {"host = \"a\"\nhost = \"b\"\n" KEEPER, 2, "'host' is given twice"},
    {MIN "lease = 10\nlease = 10\n", 4, "'lease' is given twice"},
    {MIN "socket { path = \"/a\"\n path = \"/b\" }\n", 4, "'path' is given twice"},
    {MIN "operator \"a\" {\n uid = 0\n uid = 1\n unit = \"any\" }\n", 5, "'uid' is given twice"},
    {MIN
     "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\"\n reasons = { \"BOOT\" }\n"
     " reasons = { \"RESTORE\" } } }\n",
     5, "'reasons' is given twice"},
    {MIN KEEPER, 3, "is given twice"},
    {MIN "limits { }\nlimits { }\n", 4, "'limits' is given twice"},
    {MIN "socket { }\nsocket { }\n", 4, "'socket' is given twice"},
    {MIN "operator \"a\" { uid = 0 unit = \"any\" }\noperator \"a\" { uid = 1 unit = \"any\" }\n",
     4, "a"},
    {MIN "auditor \"a\" { uid = 0 unit = \"any\" }\nauditor \"a\" { uid = 1 unit = \"any\" }\n", 4,
     "a"},
    {MIN "key \"a\" { }\nkey \"a\" { }\n", 4, "a"},
    {MIN "key \"a\" {\n grant \"g\" { " GRANT " }\n grant \"g\" { " GRANT " }\n}\n", 5, "g"},
    // left out
    {"", 0, "'host' is missing"},
    {KEEPER, 0, "'host' is missing"},
    {"host = \"a\"\n", 0, "'keeper' is missing"},
    {"host = \"a\"\nkeeper { }\n", 2, "either 'socket'"},
    {"host = \"a\"\nkeeper { socket = \"/a\" program = \"/b\" }\n", 2, "either 'socket'"},
    {"host = \"a\"\nkeeper { program = \"/b\" }\n", 2, "'token'"},
    {MIN "operator \"a\" { unit = \"any\" }\n", 3, "needs 'uid'"},
    {MIN "operator \"a\" { uid = 0 }\n", 3, "needs 'unit'"},
    {MIN "auditor \"a\" { unit = \"any\" }\n", 3, "needs 'uid'"},
    {MIN "key \"a\" { grant \"g\" { unit = \"any\" reasons = { \"BOOT\" } rate = \"1/1\" } }\n", 3,
     "needs 'uid'"},
    {MIN "key \"a\" { grant \"g\" { uid = 0 reasons = { \"BOOT\" } rate = \"1/1\" } }\n", 3,
     "needs 'unit'"},
    {MIN "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" reasons = { \"BOOT\" } } }\n", 3,
     "needs 'rate'"},
    {MIN "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\" } }\n", 3,
     "needs 'reasons'"},
    {MIN "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\" reasons = { } } }\n", 3,
     "needs 'reasons'"},
    {MIN "operator { uid = 0 unit = \"any\" }\n", 3, "missing title"},
    // values
    {"host = \"Alpha\"\n" KEEPER, 1, "no host id"},
    {"host = \"\"\n" KEEPER, 1, "no host id"},
    {MIN "audit-dir = \"audit\"\n", 3, "absolute path"},
    {MIN "audit-dir = \"\"\n", 3, "absolute path"},
    {MIN "lease = 0\n", 3, "'lease' is 0: it must be 1 to 3600"},
    {MIN "lease = 3601\n", 3, "3601"},
    {MIN "lease = ten\n", 3, "'lease'"},
    {MIN "lease = 10s\n", 3, "'lease'"},
    {MIN "lease = 99999999999999999999\n", 3, "lease"},
    {MIN "lease = \n", 0, ""},
    {MIN "socket { mode = \"0666\" }\n", 3, "open to all"},
    {MIN "socket { mode = \"660x\" }\n", 3, "octal"},
    {MIN "socket { mode = \"0680\" }\n", 3, "octal"},
    {MIN "socket { mode = \"01660\" }\n", 3, "octal"},
    {MIN "socket { mode = \"-1\" }\n", 3, "octal"},
    {MIN "socket { mode = \"\" }\n", 3, "octal"},
    {MIN "socket { path = \"run.sock\" }\n", 3, "absolute path"},
    {"host = \"a\"\nkeeper { socket = \"k\" }\n", 2, "absolute path"},
    {"host = \"a\"\nmetrics { socket = \"k\" }\n" KEEPER, 2, "absolute path"},
    {"host = \"a\"\nmetrics { textfile = \"k\" }\n" KEEPER, 2, "absolute path"},
    {"host = \"a\"\nmetrics { interval = 0 }\n" KEEPER, 2, "must be 1 to 3600"},
    {"host = \"a\"\nmetrics { }\nmetrics { }\n" KEEPER, 3, "given twice"},
    {"host = \"a\"\nhook \"h\" { events = { \"log.stuck\" } }\n" KEEPER, 2, "'command'"},
    {"host = \"a\"\nhook \"h\" { command = { \"page\" } }\n" KEEPER, 2, "absolute path"},
    {"host = \"a\"\nhook \"h\" { command = { \"/p\" } }\n" KEEPER, 2, "'events'"},
    {"host = \"a\"\nhook \"h\" { events = { \"a.b\" } }\n" KEEPER, 2, "no event"},
    {"host = \"a\"\nhook \"h\" { user = \"no such\" }\n" KEEPER, 2, "not known"},
    {"host = \"a\"\nhook \"h\" { timeout = 301 }\n" KEEPER, 2, "1 to 300"},
    {MIN "limits { idle = 0 }\n", 3, "'idle' is 0"},
    {MIN "limits { connections = -1 }\n", 3, "'connections' is -1"},
    {MIN "operator \"a\" { uid = -1 unit = \"any\" }\n", 3, "'uid' is -1"},
    {MIN "operator \"a\" { uid = 4294967295 unit = \"any\" }\n", 3, "'uid' is 4294967295"},
    {MIN "operator \"a\" { uid = root unit = \"any\" }\n", 3, "'uid'"},
    {MIN "operator \"a\" { uid = 0 unit = \"a\" }\n", 3, "'unit' is 'a'"},
    {MIN "operator \"a\" { uid = 0 unit = \"a.slice\" }\n", 3, "'unit' is 'a.slice'"},
    {MIN "operator \"a\" { uid = 0 unit = \"\" }\n", 3, "'unit' is ''"},
    {MIN "operator \"a\" { uid = 0 unit = \"ANY\" }\n", 3, "'unit' is 'ANY'"},
    {MIN "operator \"a b\" { uid = 0 unit = \"any\" }\n", 3, "the name must be"},
    {MIN "key \"a/b\" { }\n", 3, "the name must be"},
    {MIN "key \"\" { }\n", 3, "the name must be"},
    {MIN "key \"_receive\" { }\n", 3, "custody's own"},
    {MIN "key \"a\" { psk-lifetime = -1 }\n", 3, "'psk-lifetime' is -1"},
    {MIN "key \"a\" { not-after = 0 }\n", 3, "'not-after' is 0"},
    {MIN "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\"\n reasons = { \"BOOT\", "
         "\"NAP\" } } }\n",
     4, "'NAP' is no reason"},
    {MIN
     "key \"a\" { grant \"g\" { uid = 0 unit = \"any\" rate = \"1/1\" reasons = { \"boot\" } } }\n",
     3, "'boot' is no reason"},
    // a key's times
    {MIN "key \"a\" { risk = \"yearly\" }\n", 3, "'risk' is 'yearly'"},
    {MIN "key \"a\" { risk = \"daily\"\n risk = \"daily\" }\n", 4, "'risk' is given twice"},
    {MIN "key \"a\" { lifetime = 4 }\n", 3, "'lifetime' is 4: it must be 5 to"},
    {MIN "key \"a\" { lifetime = 0 }\n", 3, "'lifetime' is 0"},
    {MIN "key \"a\" { window = 0 }\n", 3, "'window' is 0: it must be 1 to 3600"},
    {MIN "key \"a\" { window = 3601 }\n", 3, "'window' is 3601"},
    {MIN "key \"a\" { jitter = -1 }\n", 3, "'jitter' is -1"},
    {MIN "key \"a\" { jitter = 1 }\n", 3, "'jitter' but no 'lifetime'"},
    {MIN "key \"a\" {\n lifetime = 1000\n jitter = 501\n}\n", 6, "at most half of the lifetime"},
    {MIN "key \"a\" {\n lifetime = 300\n}\n", 5, "at most the lifetime, 300"},
    {MIN "key \"a\" { risk = \"hourly\" grace = 3500 }\n", 3, "'window' and 'grace'"},
    {MIN "key \"a\" { lifetime = 1000 not-after = 999 }\n", 3, "at least the lifetime"},
    // the file's form
    {MIN "key \"a\" {\n", 0, "'}' is missing"},
    {MIN "key \"a\" { grant \"g\" { " GRANT "\n", 0, "'}' is missing"},
    {MIN "}\n", 3, "closing brace"},
    {MIN "lease 10\n", 3, "'lease'"},
    {MIN "host = \"a\n", 0, ""},
    {MIN "end-of-file = true\n", 3, "end-of-file"},
};

static void test_faults(void)
{
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct error err = {.message = ""};
        char where[64];
        struct config *config = read_text(faults[i].text, &err);
        snprintf(where, sizeof(where), faults[i].line != 0 ? "%s:%d: " : "%s:", path,
                 faults[i].line);
        bool right = config == NULL && err.code == ERROR_INVALID_ARGUMENT &&
                     strncmp(err.message, where, strlen(where)) == 0 &&
                     strstr(err.message, faults[i].words) != NULL;
        if (!right)
            printf("# %s# -> %s\n", faults[i].text, config != NULL ? "accepted" : err.message);
        CU_ASSERT(right);
        config_free(config);
    }
}

static void test_rates(void)
{
    static const char *const bad[] = {"",        "10",      "/60",         "10/",    "0/60",
                                      "10/0",    "-1/60",   "10/60s",      "10/ 60", " 10/60",
                                      "10/60/1", "10.5/60", "99999999/60", "1e3/60", "10:60"};
    char text[512];
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text),
                 MIN "key \"a\" {\n grant \"g\" { uid = 0 unit = \"any\" reasons = { \"BOOT\" }\n "
                     "rate = \"%s\" } }\n",
                 bad[i]);
        struct config *config = read_text(text, &err);
        CU_ASSERT_PTR_NULL(config);
        if (config != NULL)
            printf("# accepted: %s\n", bad[i]);
        else
            CU_ASSERT(strstr(err.message, ":5: 'rate' is '") != NULL);
        config_free(config);
    }
}

static void test_files(void)
{
    struct error err;
    static const char nul[] = MIN "\0";
    CU_ASSERT_PTR_NULL(read_bytes(nul, sizeof(nul), &err));
    CU_ASSERT(strstr(err.message, "NUL") != NULL);
    size_t size = ((size_t)1 << 20) + 1;
    char *large = malloc(size);
    CU_ASSERT_PTR_NOT_NULL_FATAL(large);
    memset(large, '\n', size);
    CU_ASSERT_PTR_NULL(read_bytes(large, size, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT(strstr(err.message, "1 MiB") != NULL);
    memcpy(large, MIN, strlen(MIN));
    struct config *config = read_bytes(large, size - 1, &err);
    CU_ASSERT_PTR_NOT_NULL(config);
    config_free(config);
    free(large);
    unlink(path);
    CU_ASSERT_PTR_NULL(config_read(path, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    CU_ASSERT(strstr(err.message, path) != NULL && strstr(err.message, strerror(ENOENT)) != NULL);
}

// ---- reading again ----

static void test_take_policy(void)
{
    struct config *running =
        must_read(MIN "audit-dir = \"/a\"\noperator \"o\" { uid = 1 unit = \"any\" }\n");
    struct config *fresh = must_read(full);
    char digest[65];
    strcpy(digest, fresh->sha256);
    const char *audit_dir = running->audit_dir, *socket = running->socket.path;
    config_take_policy(running, fresh);
    config_free(fresh);
    CU_ASSERT_STRING_EQUAL(running->host, "alpha");
    CU_ASSERT_PTR_EQUAL(running->audit_dir, audit_dir);
    CU_ASSERT_STRING_EQUAL(running->audit_dir, "/a");
    CU_ASSERT_PTR_EQUAL(running->socket.path, socket);
    CU_ASSERT_STRING_EQUAL(running->keeper.socket, "/run/k.sock");
    CU_ASSERT_PTR_NULL(running->keeper.program);
    CU_ASSERT_EQUAL(running->lease_s, 30);
    CU_ASSERT_EQUAL(running->limits.connections, 2);
    CU_ASSERT_PTR_NULL(running->metrics.socket);
    CU_ASSERT_EQUAL(running->hook_count, 2);
    CU_ASSERT_EQUAL(running->operator_count, 2);
    CU_ASSERT_EQUAL(running->key_count, 2);
    CU_ASSERT_STRING_EQUAL(running->sha256, digest);
    config_free(running);
    config_free(NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"defaults, and nothing granted", test_defaults},
        {"every option", test_values},
        {"keys and grants", test_keys},
        {"a key's times, by risk or one by one", test_times},
        {"a warning", test_warning},
        {"each fault with its line", test_faults},
        {"rates that are none", test_rates},
        {"reading again keeps what cannot change", test_take_policy},
        {"files that cannot be read", test_files},
        CU_TEST_INFO_NULL,
    };
    int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0 || sodium_init() < 0)
        return EXIT_FAILURE;
    int result = tap_run("config", tests);
    unlink(path);
    return result;
}
