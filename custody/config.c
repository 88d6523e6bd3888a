// SPDX-License-Identifier: Apache-2.0
// Reading the configuration with libconfuse, and refusing whatever is not exactly right.
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <confuse.h>
#include <sodium.h>

// Put after the file's last line, where only the top level knows it: libconfuse takes a section
// that the end of the file cuts off for a whole one. The control byte keeps it from being an option
// that a file could set.
#define END_OF_FILE "\x04end-of-file"

// libconfuse calls back without a context; the file is read once at a time, on the daemon's one
// thread.
static struct {
    const char *path;
    struct error *err; // the first complaint; later ones follow from it
    bool failed;
    struct seen {
        const cfg_t *section;
        const char *option;
        unsigned values; // of a list so far
        bool closed;     // the list's end was seen
    } * seen; // what was set already, to find duplicates: libconfuse takes the last one silently
    size_t seen_count, seen_room;
} reading;

__attribute__((format(printf, 2, 0))) static void on_error(cfg_t *cfg, const char *format,
                                                           va_list args)
{
    if (reading.failed)
        return;
    reading.failed = true;
    char what[ERROR_MESSAGE_MAX / 2];
    vsnprintf(what, sizeof(what), format, args);
    if (strstr(what, END_OF_FILE) != NULL)
        snprintf(what, sizeof(what), "the file ends before a section does: a '}' is missing");
    error_set(reading.err, ERROR_INVALID_ARGUMENT, "%s:%d: %s", reading.path,
              cfg != NULL ? cfg->line : 0, what);
}

// ---- duplicates ----

static struct seen *find_seen(const cfg_t *section, const char *option)
{
    for (size_t i = 0; i < reading.seen_count; i++)
        if (reading.seen[i].section == section && strcmp(reading.seen[i].option, option) == 0)
            return &reading.seen[i];
    return NULL;
}

static int complain_twice(cfg_t *section, const char *option)
{
    cfg_error(section, "'%s' is given twice", option);
    return -1;
}

static struct seen *add_seen(cfg_t *section, const char *option)
{
    if (reading.seen_count == reading.seen_room) {
        size_t room = reading.seen_room == 0 ? 64 : 2 * reading.seen_room;
        struct seen *grown = realloc(reading.seen, room * sizeof(*grown));
        if (grown == NULL) {
            cfg_error(section, "out of memory");
            return NULL;
        }
        reading.seen = grown;
        reading.seen_room = room;
    }
    reading.seen[reading.seen_count] = (struct seen){.section = section, .option = option};
    return &reading.seen[reading.seen_count++];
}

static int note_seen(cfg_t *section, const char *option)
{
    if (find_seen(section, option) != NULL)
        return complain_twice(section, option);
    return add_seen(section, option) != NULL ? 0 : -1;
}

// A list is checked after each of its values and once more at its end, where it has not grown.
static int note_list(cfg_t *section, cfg_opt_t *option)
{
    struct seen *seen = find_seen(section, cfg_opt_name(option));
    if (seen == NULL)
        seen = add_seen(section, cfg_opt_name(option));
    if (seen == NULL)
        return -1;
    if (seen->closed)
        return complain_twice(section, cfg_opt_name(option));
    seen->closed = cfg_opt_size(option) == seen->values;
    seen->values = cfg_opt_size(option);
    return 0;
}

static int check_once(cfg_t *section, cfg_opt_t *option)
{
    return note_seen(section, cfg_opt_name(option));
}

// ---- values ----

static int check_number(cfg_t *section, cfg_opt_t *option, long low, long high)
{
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    long value = cfg_opt_getnint(option, 0);
    if (value >= low && value <= high)
        return 0;
    cfg_error(section, "'%s' is %ld: it must be %ld to %ld", cfg_opt_name(option), value, low,
              high);
    return -1;
}

static int check_id(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, (long)UINT32_MAX - 1);
}

static int check_limit(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 1000000);
}

static int check_seconds(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 10L * 366 * 86400);
}

static int check_segment_size(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 4096, 1L << 30);
}

static int check_lease(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 3600);
}

static int check_interval(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 60000);
}

static int check_approvals(cfg_t *section, cfg_opt_t *option)
{
    const char *how = cfg_opt_getnstr(option, 0);
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (strcmp(how, "signatures") == 0 || strcmp(how, "uids") == 0)
        return 0;
    cfg_error(section, "'approvals' is '%s': it must be signatures, or uids, which is weaker", how);
    return -1;
}

static int check_host(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (name_is_host(cfg_opt_getnstr(option, 0)))
        return 0;
    cfg_error(
        section,
        "'%s' is no host id: 1 to %d of a-z 0-9 . -, beginning and ending with a letter or digit",
        cfg_opt_getnstr(option, 0), HOST_MAX);
    return -1;
}

static int check_path(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (cfg_opt_getnstr(option, 0)[0] == '/')
        return 0;
    cfg_error(section, "'%s' must be an absolute path, not '%s'", cfg_opt_name(option),
              cfg_opt_getnstr(option, 0));
    return -1;
}

static bool parse_mode(const char *text, mode_t *mode)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 8);
    *mode = (mode_t)value;
    return text[0] >= '0' && text[0] <= '7' && *end == '\0' && errno == 0 && value <= 0777;
}

static int check_mode(cfg_t *section, cfg_opt_t *option)
{
    mode_t mode;
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (!parse_mode(cfg_opt_getnstr(option, 0), &mode)) {
        cfg_error(section, "'mode' is '%s': it must be octal, such as 0660",
                  cfg_opt_getnstr(option, 0));
        return -1;
    }
    if ((mode & 0007) == 0)
        return 0;
    cfg_error(section, "'mode' is '%s': the socket must not be open to all",
              cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_reasons(cfg_t *section, cfg_opt_t *option)
{
    if (note_list(section, option) != 0)
        return -1;
    for (unsigned i = 0; i < cfg_opt_size(option); i++) {
        if (record_reason_from_name(cfg_opt_getnstr(option, i)) == REASON_NONE) {
            cfg_error(section, "'%s' is no reason: BOOT, RESTORE, ROTATION, ROLLBACK or OPERATOR",
                      cfg_opt_getnstr(option, i));
            return -1;
        }
    }
    return 0;
}

static bool parse_rate(const char *text, uint32_t *count, uint32_t *seconds)
{
    char after;
    return strspn(text, "0123456789/") == strlen(text) &&
           sscanf(text, "%7" SCNu32 "/%7" SCNu32 "%c", count, seconds, &after) == 2 && *count > 0 &&
           *seconds > 0;
}

static int check_rate(cfg_t *section, cfg_opt_t *option)
{
    uint32_t count, seconds;
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (parse_rate(cfg_opt_getnstr(option, 0), &count, &seconds))
        return 0;
    cfg_error(section, "'rate' is '%s': it must be RELEASES/SECONDS, such as 10/60",
              cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_unit(cfg_t *section, cfg_opt_t *option)
{
    const char *unit = cfg_opt_getnstr(option, 0);
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    const char *dot = strrchr(unit, '.');
    bool exact = dot != NULL && (strcmp(dot, ".service") == 0 || strcmp(dot, ".scope") == 0);
    if ((exact || strcmp(unit, "any") == 0 || strcmp(unit, "none") == 0) &&
        strlen(unit) <= RECORD_UNIT_MAX)
        return 0;
    cfg_error(
        section,
        "'unit' is '%s': it must be a systemd unit (NAME.service or NAME.scope), none, or any",
        unit);
    return -1;
}

// ---- sections ----

#define OPTION_UNSET (-1)

static int require(cfg_t *section, const char *option, const char *why)
{
    cfg_opt_t *opt = cfg_getopt(section, option);
    if (cfg_opt_size(opt) > 0 && (opt->type != CFGT_STR || cfg_opt_getnstr(opt, 0) != NULL) &&
        (opt->type != CFGT_INT || cfg_opt_getnint(opt, 0) != OPTION_UNSET))
        return 0;
    cfg_error(section, "%s needs '%s': %s", cfg_name(section), option, why);
    return -1;
}

static int check_title(cfg_t *section)
{
    const char *title = cfg_title(section);
    if (title != NULL && name_is_key(title))
        return 0;
    cfg_error(section, "%s '%s': the name must be 1 to %d of A-Z a-z 0-9 _ . -", cfg_name(section),
              title != NULL ? title : "", KEY_MAX);
    return -1;
}

static int check_principal(cfg_t *parent, cfg_opt_t *option)
{
    cfg_t *section = cfg_opt_getnsec(option, cfg_opt_size(option) - 1);
    (void)parent;
    if (check_title(section) != 0 || require(section, "uid", "the user who is meant") != 0)
        return -1;
    return require(section, "unit", "a systemd unit, \"none\", or \"any\"");
}

static int check_grant(cfg_t *parent, cfg_opt_t *option)
{
    cfg_t *section = cfg_opt_getnsec(option, cfg_opt_size(option) - 1);
    if (check_principal(parent, option) != 0 ||
        require(section, "rate", "RELEASES/SECONDS, such as 10/60") != 0)
        return -1;
    if (cfg_size(section, "reasons") > 0)
        return 0;
    cfg_error(section, "grant needs 'reasons': what the key may be released for");
    return -1;
}

// ---- hooks ----

static int check_patience(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 300);
}

static int check_command(cfg_t *section, cfg_opt_t *option)
{
    if (note_list(section, option) != 0)
        return -1;
    if (cfg_opt_size(option) == 0 || cfg_opt_getnstr(option, 0)[0] == '/')
        return 0;
    cfg_error(section, "'command' begins with '%s': it must be a program's absolute path",
              cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_events(cfg_t *section, cfg_opt_t *option)
{
    if (note_list(section, option) != 0)
        return -1;
    for (unsigned i = 0; i < cfg_opt_size(option); i++) {
        if (record_event_from_name(cfg_opt_getnstr(option, i)) == RECORD_NONE) {
            cfg_error(section, "'%s' is no event of the log: custody-log(5) lists them",
                      cfg_opt_getnstr(option, i));
            return -1;
        }
    }
    return 0;
}

static int check_user(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (getpwnam(cfg_opt_getnstr(option, 0)) != NULL)
        return 0;
    cfg_error(section, "user '%s' is not known on this host", cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_hook(cfg_t *parent, cfg_opt_t *option)
{
    cfg_t *section = cfg_opt_getnsec(option, cfg_opt_size(option) - 1);
    (void)parent;
    if (check_title(section) != 0 ||
        require(section, "command", "the program to run, and its arguments") != 0)
        return -1;
    return require(section, "events", "the log's events to run it for");
}

// ---- a key's times ----

#define DAY_S 86400L

struct times {
    long lifetime, grace, window, jitter, psk_lifetime;
};

// What `risk` stands for: how long a private key is in use, and what goes with that.
static const struct preset {
    const char *risk;
    struct times times;
} presets[] = {
    {"hourly", {3600, 300, 60, 300, 3600}},
    {"daily", {DAY_S, 3600, 120, 3600, DAY_S}},
    {"weekly", {7 * DAY_S, 3600, 300, 6 * 3600, 7 * DAY_S}},
    {"monthly", {30 * DAY_S, DAY_S, 300, DAY_S, 30 * DAY_S}},
};
static const struct times no_preset = {0, 300, 60, 0, 0};

static const struct times *find_preset(const char *risk)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++)
        if (strcmp(presets[i].risk, risk) == 0)
            return &presets[i].times;
    return NULL;
}

static int check_risk(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, cfg_opt_name(option)) != 0)
        return -1;
    if (find_preset(cfg_opt_getnstr(option, 0)) != NULL)
        return 0;
    cfg_error(section, "'risk' is '%s': it must be hourly, daily, weekly or monthly",
              cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_lifetime(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 5, 10L * 366 * DAY_S);
}

static int check_window(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 3600);
}

static int check_psk_lifetime(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, 10L * 366 * DAY_S);
}

static int check_jitter(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, 366 * DAY_S);
}

static long number_or(cfg_t *section, const char *option, long otherwise)
{
    long value = cfg_getint(section, option);
    return value != OPTION_UNSET ? value : otherwise;
}

static struct times read_times(cfg_t *section)
{
    const char *risk = cfg_getstr(section, "risk");
    const struct times *preset = risk != NULL ? find_preset(risk) : &no_preset;
    return (struct times){
        .lifetime = number_or(section, "lifetime", preset->lifetime),
        .grace = number_or(section, "grace", preset->grace),
        .window = number_or(section, "window", preset->window),
        .jitter = number_or(section, "jitter", preset->jitter),
        .psk_lifetime = number_or(section, "psk-lifetime", preset->psk_lifetime),
    };
}

// A bundle is good for longer than the key is in use.
static long read_not_after(cfg_t *section, const struct times *times)
{
    long least = 2 * times->lifetime;
    return number_or(section, "not-after", least > 30 * DAY_S ? least : 30 * DAY_S);
}

static int check_times(cfg_t *section)
{
    struct times times = read_times(section);
    if (times.lifetime == 0 && times.jitter == 0)
        return 0;
    if (times.lifetime == 0)
        cfg_error(section, "key '%s' has 'jitter' but no 'lifetime' that it is taken from",
                  cfg_title(section));
    else if (times.jitter > times.lifetime / 2)
        cfg_error(section,
                  "key '%s': 'jitter' is %ld: it must be at most half of the lifetime, %ld",
                  cfg_title(section), times.jitter, times.lifetime);
    else if (times.window + times.grace > times.lifetime - times.jitter)
        cfg_error(section,
                  "key '%s': 'window' and 'grace' are %ld and %ld: together with 'jitter', %ld, "
                  "they must be at most the lifetime, %ld",
                  cfg_title(section), times.window, times.grace, times.jitter, times.lifetime);
    else if (read_not_after(section, &times) < times.lifetime)
        cfg_error(section, "key '%s': 'not-after' is %ld: it must be at least the lifetime, %ld",
                  cfg_title(section), read_not_after(section, &times), times.lifetime);
    else
        return 0;
    return -1;
}

static int check_key(cfg_t *parent, cfg_opt_t *option)
{
    cfg_t *section = cfg_opt_getnsec(option, cfg_opt_size(option) - 1);
    (void)parent;
    if (check_title(section) != 0)
        return -1;
    if (name_is_reserved(cfg_title(section))) {
        cfg_error(section, "key '%s': names that begin with '_' are custody's own",
                  cfg_title(section));
        return -1;
    }
    return check_times(section);
}

static int check_keeper(cfg_t *parent, cfg_opt_t *option)
{
    if (note_seen(parent, cfg_opt_name(option)) != 0)
        return -1;
    cfg_t *section = cfg_opt_getnsec(option, 0);
    bool socket = cfg_getstr(section, "socket") != NULL,
         program = cfg_getstr(section, "program") != NULL;
    if (socket == program) {
        cfg_error(section, "keeper needs either 'socket' (a keeper that runs by itself) or "
                           "'program' (one to start)");
        return -1;
    }
    if (socket)
        return 0;
    return require(section, "token", "the PKCS#11 URI of the token");
}

// ---- the file ----

#define UNSET_INT(name)   CFG_INT(name, OPTION_UNSET, CFGF_NONE)
#define PRINCIPAL_OPTIONS UNSET_INT("uid"), UNSET_INT("gid"), CFG_STR("unit", NULL, CFGF_NONE)
#define TITLED            (CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES)

static cfg_t *make_parser(void)
{
    cfg_opt_t socket_options[] = {
        CFG_STR("path", RUNSTATEDIR "/custody/custody.sock", CFGF_NONE),
        CFG_STR("mode", "0660", CFGF_NONE),
        CFG_STR("group", NULL, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t keeper_options[] = {
        CFG_STR("socket", NULL, CFGF_NONE),
        CFG_STR("program", NULL, CFGF_NONE),
        CFG_STR("token", NULL, CFGF_NONE),
        CFG_INT("releases-per-second", 100, CFGF_NONE),
        CFG_INT("timeout", 10, CFGF_NONE),
        CFG_INT("head-interval", 1000, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t limit_options[] = {
        CFG_INT("connections-per-uid", 128, CFGF_NONE),
        CFG_INT("connections", 512, CFGF_NONE),
        CFG_INT("requests-in-flight", 16, CFGF_NONE),
        CFG_INT("idle", 300, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t log_options[] = {
        CFG_INT("segment-size", 16 << 20, CFGF_NONE),
        CFG_INT("segment-age", 30 * 86400, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t metrics_options[] = {
        CFG_STR("socket", NULL, CFGF_NONE),
        CFG_STR("textfile", NULL, CFGF_NONE),
        CFG_INT("interval", 15, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t hook_options[] = {
        CFG_STR_LIST("command", NULL, CFGF_NONE),
        CFG_STR_LIST("events", NULL, CFGF_NONE),
        CFG_STR("user", NULL, CFGF_NONE),
        CFG_INT("timeout", 10, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t principal_options[] = {PRINCIPAL_OPTIONS, CFG_END()};
    cfg_opt_t grant_options[] = {
        PRINCIPAL_OPTIONS,
        CFG_STR_LIST("reasons", NULL, CFGF_NONE),
        CFG_STR("rate", NULL, CFGF_NONE),
        CFG_END(),
    };
    cfg_opt_t key_options[] = {
        CFG_STR("risk", NULL, CFGF_NONE),
        UNSET_INT("not-after"),
        UNSET_INT("lifetime"),
        UNSET_INT("grace"),
        UNSET_INT("window"),
        UNSET_INT("jitter"),
        UNSET_INT("psk-lifetime"),
        CFG_SEC("grant", grant_options, TITLED),
        CFG_END(),
    };
    cfg_opt_t options[] = {
        CFG_STR("host", NULL, CFGF_NONE),
        CFG_STR("audit-dir", LOCALSTATEDIR "/lib/custody/audit", CFGF_NONE),
        CFG_INT("lease", 10, CFGF_NONE),
        CFG_STR("approvals", "signatures", CFGF_NONE),
        CFG_STR("operators", NULL, CFGF_NONE),
        CFG_SEC("socket", socket_options, CFGF_NONE),
        CFG_SEC("keeper", keeper_options, CFGF_NONE),
        CFG_SEC("limits", limit_options, CFGF_NONE),
        CFG_SEC("log", log_options, CFGF_NONE),
        CFG_SEC("metrics", metrics_options, CFGF_NONE),
        CFG_SEC("hook", hook_options, TITLED),
        CFG_SEC("operator", principal_options, TITLED),
        CFG_SEC("auditor", principal_options, TITLED),
        CFG_SEC("key", key_options, TITLED),
        CFG_BOOL(END_OF_FILE, cfg_false, CFGF_NONE),
        CFG_END(),
    };
    return cfg_init(options, CFGF_NONE);
}

static void set_checks(cfg_t *cfg)
{
    static const struct {
        const char *option;
        cfg_validate_callback_t check;
    } checks[] = {
        {"host", check_host},
        {"audit-dir", check_path},
        {"lease", check_lease},
        {"approvals", check_approvals},
        {"operators", check_path},
        {"socket", check_once},
        {"socket|path", check_path},
        {"socket|mode", check_mode},
        {"socket|group", check_once},
        {"keeper", check_keeper},
        {"keeper|socket", check_path},
        {"keeper|program", check_path},
        {"keeper|token", check_once},
        {"keeper|releases-per-second", check_limit},
        {"keeper|timeout", check_lease},
        {"keeper|head-interval", check_interval},
        {"limits", check_once},
        {"limits|connections-per-uid", check_limit},
        {"limits|connections", check_limit},
        {"limits|requests-in-flight", check_limit},
        {"limits|idle", check_seconds},
        {"log", check_once},
        {"log|segment-size", check_segment_size},
        {"log|segment-age", check_seconds},
        {"metrics", check_once},
        {"metrics|socket", check_path},
        {"metrics|textfile", check_path},
        {"metrics|interval", check_lease},
        {"hook", check_hook},
        {"hook|command", check_command},
        {"hook|events", check_events},
        {"hook|user", check_user},
        {"hook|timeout", check_patience},
        {"operator", check_principal},
        {"operator|uid", check_id},
        {"operator|gid", check_id},
        {"operator|unit", check_unit},
        {"auditor", check_principal},
        {"auditor|uid", check_id},
        {"auditor|gid", check_id},
        {"auditor|unit", check_unit},
        {"key", check_key},
        {"key|not-after", check_seconds},
        {"key|risk", check_risk},
        {"key|lifetime", check_lifetime},
        {"key|grace", check_seconds},
        {"key|window", check_window},
        {"key|jitter", check_jitter},
        {"key|psk-lifetime", check_psk_lifetime},
        {"key|grant", check_grant},
        {"key|grant|uid", check_id},
        {"key|grant|gid", check_id},
        {"key|grant|unit", check_unit},
        {"key|grant|reasons", check_reasons},
        {"key|grant|rate", check_rate},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        cfg_set_validate_func(cfg, checks[i].option, checks[i].check);
}

static void copy_principal(struct config_principal *who, cfg_t *section)
{
    snprintf(who->name, sizeof(who->name), "%s", cfg_title(section));
    who->uid = (uid_t)cfg_getint(section, "uid");
    who->has_gid = cfg_getint(section, "gid") != OPTION_UNSET;
    who->gid = who->has_gid ? (gid_t)cfg_getint(section, "gid") : 0;
    const char *unit = cfg_getstr(section, "unit");
    who->unit_kind = strcmp(unit, "any") == 0    ? CONFIG_UNIT_ANY
                     : strcmp(unit, "none") == 0 ? CONFIG_UNIT_NONE
                                                 : CONFIG_UNIT_EXACT;
    snprintf(who->unit, sizeof(who->unit), "%s", unit);
}

static int copy_principals(struct config_principal **principals, size_t *count, cfg_t *cfg,
                           const char *name)
{
    *count = cfg_size(cfg, name);
    *principals = calloc(*count + 1, sizeof(**principals));
    if (*principals == NULL)
        return -1;
    for (size_t i = 0; i < *count; i++)
        copy_principal(&(*principals)[i], cfg_getnsec(cfg, name, (unsigned)i));
    return 0;
}

static int copy_key(struct config_key *key, cfg_t *section)
{
    snprintf(key->name, sizeof(key->name), "%s", cfg_title(section));
    struct times times = read_times(section);
    key->not_after_s = (uint32_t)read_not_after(section, &times);
    key->lifetime_s = (uint32_t)times.lifetime;
    key->grace_s = (uint32_t)times.grace;
    key->window_s = (uint32_t)times.window;
    key->jitter_s = (uint32_t)times.jitter;
    key->psk_lifetime_s = (uint32_t)times.psk_lifetime;
    key->grant_count = cfg_size(section, "grant");
    key->grants = calloc(key->grant_count + 1, sizeof(*key->grants));
    if (key->grants == NULL)
        return -1;
    for (size_t i = 0; i < key->grant_count; i++) {
        cfg_t *from = cfg_getnsec(section, "grant", (unsigned)i);
        struct config_grant *grant = &key->grants[i];
        copy_principal(&grant->who, from);
        for (unsigned r = 0; r < cfg_size(from, "reasons"); r++)
            grant->reasons |= 1u << record_reason_from_name(cfg_getnstr(from, "reasons", r));
        parse_rate(cfg_getstr(from, "rate"), &grant->rate_count, &grant->rate_seconds);
    }
    return 0;
}

static char *copy_string(const char *text, bool *failed)
{
    char *copy = text != NULL ? strdup(text) : NULL;
    *failed |= text != NULL && copy == NULL;
    return copy;
}

static int copy_hook(struct config_hook *hook, cfg_t *section)
{
    bool failed = false;
    unsigned count = cfg_size(section, "command");
    snprintf(hook->name, sizeof(hook->name), "%s", cfg_title(section));
    hook->timeout_s = (uint32_t)cfg_getint(section, "timeout");
    hook->user = copy_string(cfg_getstr(section, "user"), &failed);
    const struct passwd *passwd = hook->user != NULL ? getpwnam(hook->user) : NULL;
    if (passwd != NULL) {
        hook->uid = passwd->pw_uid;
        hook->gid = passwd->pw_gid;
    }
    for (unsigned i = 0; i < cfg_size(section, "events"); i++)
        hook->events[record_event_from_name(cfg_getnstr(section, "events", i))] = true;
    hook->command = calloc(count + 1, sizeof(char *));
    for (unsigned i = 0; i < count && hook->command != NULL; i++)
        hook->command[i] = copy_string(cfg_getnstr(section, "command", i), &failed);
    return failed || hook->command == NULL || (hook->user != NULL && passwd == NULL) ? -1 : 0;
}

static int copy_hooks(struct config *config, cfg_t *cfg)
{
    size_t count = cfg_size(cfg, "hook");
    config->hooks = calloc(count + 1, sizeof(*config->hooks));
    for (size_t i = 0; i < count && config->hooks != NULL; i++) {
        config->hook_count = i + 1; // what config_free has to look at, even when this one fails
        if (copy_hook(&config->hooks[i], cfg_getnsec(cfg, "hook", (unsigned)i)) != 0)
            return -1;
    }
    return config->hooks != NULL ? 0 : -1;
}

static int copy_daemon(struct config *config, cfg_t *cfg)
{
    cfg_t *socket = cfg_getsec(cfg, "socket"), *keeper = cfg_getsec(cfg, "keeper"),
          *limits = cfg_getsec(cfg, "limits"), *log = cfg_getsec(cfg, "log"),
          *metrics = cfg_getsec(cfg, "metrics");
    bool failed = false;
    snprintf(config->host, sizeof(config->host), "%s", cfg_getstr(cfg, "host"));
    config->audit_dir = copy_string(cfg_getstr(cfg, "audit-dir"), &failed);
    config->lease_s = (uint32_t)cfg_getint(cfg, "lease");
    config->approvals_by_uid = strcmp(cfg_getstr(cfg, "approvals"), "uids") == 0;
    config->operators_file = copy_string(cfg_getstr(cfg, "operators"), &failed);
    config->socket.path = copy_string(cfg_getstr(socket, "path"), &failed);
    parse_mode(cfg_getstr(socket, "mode"), &config->socket.mode);
    config->socket.group = copy_string(cfg_getstr(socket, "group"), &failed);
    config->keeper.socket = copy_string(cfg_getstr(keeper, "socket"), &failed);
    config->keeper.program = copy_string(cfg_getstr(keeper, "program"), &failed);
    config->keeper.token = copy_string(cfg_getstr(keeper, "token"), &failed);
    config->keeper.releases_per_second = (uint32_t)cfg_getint(keeper, "releases-per-second");
    config->keeper.head_interval_ms = (uint32_t)cfg_getint(keeper, "head-interval");
    config->keeper.timeout_s = (uint32_t)cfg_getint(keeper, "timeout");
    config->limits.connections_per_uid = (uint32_t)cfg_getint(limits, "connections-per-uid");
    config->limits.connections = (uint32_t)cfg_getint(limits, "connections");
    config->limits.requests_in_flight = (uint32_t)cfg_getint(limits, "requests-in-flight");
    config->limits.idle_s = (uint32_t)cfg_getint(limits, "idle");
    config->log.segment_size = (uint64_t)cfg_getint(log, "segment-size");
    config->log.segment_age_s = (uint32_t)cfg_getint(log, "segment-age");
    config->metrics.socket = copy_string(cfg_getstr(metrics, "socket"), &failed);
    config->metrics.textfile = copy_string(cfg_getstr(metrics, "textfile"), &failed);
    config->metrics.interval_s = (uint32_t)cfg_getint(metrics, "interval");
    return failed ? -1 : 0;
}

static int copy_config(struct config *config, cfg_t *cfg, struct error *err)
{
    size_t count = cfg_size(cfg, "key");
    config->keys = calloc(count + 1, sizeof(*config->keys));
    bool failed =
        config->keys == NULL || copy_daemon(config, cfg) != 0 || copy_hooks(config, cfg) != 0 ||
        copy_principals(&config->operators, &config->operator_count, cfg, "operator") != 0 ||
        copy_principals(&config->auditors, &config->auditor_count, cfg, "auditor") != 0;
    for (size_t i = 0; i < count && !failed; i++) {
        failed = copy_key(&config->keys[i], cfg_getnsec(cfg, "key", (unsigned)i)) != 0;
        config->key_count = i + 1; // what config_free has to look at, even when this one failed
    }
    return failed ? error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the configuration")
                  : 0;
}

// The whole file as a NUL-terminated string, for the caller to free: what is digested (`*length`
// bytes) is what is parsed, with END_OF_FILE behind it.
static char *read_file(const char *path, size_t *length, struct error *err)
{
    enum { LIMIT = 1 << 20 };
    FILE *file = fopen(path, "re");
    static const char end[] = "\n" END_OF_FILE " = true\n";
    char *text = malloc(LIMIT + 1 + sizeof(end));
    if (file == NULL || text == NULL) {
        error_set(err, ERROR_NOT_FOUND, "%s: %s", path, strerror(errno));
        goto fail;
    }
    *length = fread(text, 1, LIMIT + 1, file);
    if (ferror(file)) {
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (*length > LIMIT) {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: larger than a configuration can be (1 MiB)",
                  path);
        goto fail;
    }
    text[*length] = '\0';
    if (strlen(text) != *length) {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: holds a NUL byte", path);
        goto fail;
    }
    memcpy(text + *length, end, sizeof(end));
    fclose(file);
    return text;
fail:
    if (file != NULL)
        fclose(file);
    free(text);
    return NULL;
}

static int parse(cfg_t *cfg, const char *path, char *text, struct error *err)
{
    reading.path = path;
    reading.err = err;
    reading.failed = false;
    reading.seen_count = 0;
    cfg_set_error_function(cfg, on_error);
    set_checks(cfg);
    FILE *file = fmemopen(text, strlen(text), "r");
    int result = file != NULL ? cfg_parse_fp(cfg, file) : CFG_FILE_ERROR;
    if (file != NULL)
        fclose(file);
    free(reading.seen);
    reading.seen = NULL;
    reading.seen_room = 0;
    reading.err = NULL;
    if (result != CFG_SUCCESS)
        return reading.failed
                   ? -1
                   : error_set(err, ERROR_INVALID_ARGUMENT, "%s: cannot be parsed", path);
    if (cfg_getstr(cfg, "host") == NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s: 'host' is missing: this host's id",
                         path);
    cfg_t *keeper = cfg_getsec(cfg, "keeper");
    if (cfg_getstr(keeper, "socket") == NULL && cfg_getstr(keeper, "program") == NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "%s: section 'keeper' is missing: where the keeper is", path);
    return 0;
}

static int read_operators(struct config *config, struct error *err)
{
    config->pinned = calloc(1, sizeof(*config->pinned));
    if (config->pinned == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the operators' keys");
    if (config->operators_file == NULL)
        return 0;
    return operators_read(config->operators_file, config->pinned, err);
}

struct config *config_read(const char *path, struct error *err)
{
    struct config *config = calloc(1, sizeof(*config));
    cfg_t *cfg = make_parser();
    size_t length;
    char *text = read_file(path, &length, err);
    bool ok = false;
    if (text == NULL)
        goto cleanup;
    if (config == NULL || cfg == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the configuration");
        goto cleanup;
    }
    if (parse(cfg, path, text, err) != 0 || copy_config(config, cfg, err) != 0 ||
        read_operators(config, err) != 0)
        goto cleanup;
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, (const uint8_t *)text, length);
    sodium_bin2hex(config->sha256, sizeof(config->sha256), digest, sizeof(digest));
    ok = true;
cleanup:
    free(text);
    if (cfg != NULL)
        cfg_free(cfg);
    if (!ok) {
        config_free(config);
        config = NULL;
    }
    return config;
}

static void free_hook(struct config_hook *hook)
{
    for (size_t i = 0; hook->command != NULL && hook->command[i] != NULL; i++)
        free(hook->command[i]);
    free(hook->command);
    free(hook->user);
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->key_count; i++)
        free(config->keys[i].grants);
    free(config->keys);
    for (size_t i = 0; i < config->hook_count; i++)
        free_hook(&config->hooks[i]);
    free(config->hooks);
    free(config->metrics.socket);
    free(config->metrics.textfile);
    free(config->operators);
    free(config->auditors);
    free(config->audit_dir);
    free(config->operators_file);
    free(config->pinned);
    free(config->socket.path);
    free(config->socket.group);
    free(config->keeper.socket);
    free(config->keeper.program);
    free(config->keeper.token);
    free(config);
}

const struct config_key *config_find_key(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->key_count; i++)
        if (strcmp(config->keys[i].name, name) == 0)
            return &config->keys[i];
    return NULL;
}

bool config_key_warning(const struct config_key *key, char text[CONFIG_WARNING_SIZE])
{
    for (size_t i = 0; i < key->grant_count; i++)
        if (key->grants[i].reasons & 1u << REASON_ROTATION)
            return false;
    if (key->lifetime_s == 0)
        return false;
    snprintf(text, CONFIG_WARNING_SIZE,
             "key '%s' has a lifetime, but no grant for ROTATION: nobody could carry a rotation "
             "out, and none is started by schedule",
             key->name);
    return true;
}

void config_take_policy(struct config *config, struct config *fresh)
{
    struct config old = *config;
    *config = *fresh;
    // What the running parts were made with stays.
    memcpy(config->host, old.host, sizeof(config->host));
    config->audit_dir = old.audit_dir;
    config->socket = old.socket;
    config->keeper = old.keeper;
    config->metrics = old.metrics;
    old.audit_dir = fresh->audit_dir;
    old.socket = fresh->socket;
    old.keeper = fresh->keeper;
    old.metrics = fresh->metrics;
    *fresh = old;
}
