// SPDX-License-Identifier: Apache-2.0
// Reading the applier's configuration with libconfuse, and refusing whatever is not exactly right.
#include "setup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <confuse.h>

#include "lines.h"

// Put after the file's last line, where only the top level knows it: libconfuse takes a section
// that the end of the file cuts off for a whole one. No file can set it, for its control byte.
#define END_OF_FILE "\x04end-of-file"

#define DEFAULT_MOVE_PORT 51900

// libconfuse calls back without a context; one file is read at a time.
static struct {
    const char *path;
    struct error *err; // the first complaint; later ones follow from it
    bool failed;
    // What is set in the sections that are open, to find what is set twice: libconfuse takes the
    // last one silently.
    struct seen {
        const cfg_t *section;
        const char *option;
        unsigned values; // of a list so far
        bool closed;     // the list's end was seen
    } seen[64];
    size_t seen_count;
    // The allowed-ips of the interface that is open.
    struct taken {
        struct setup_prefix prefix;
        const char *host; // whose they are
    } * taken;
    size_t taken_count, taken_room;
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

// ---- what is given twice ----

static struct seen *find_seen(const cfg_t *section, const char *option)
{
    for (size_t i = reading.seen_count; i > 0; i--)
        if (reading.seen[i - 1].section == section &&
            strcmp(reading.seen[i - 1].option, option) == 0)
            return &reading.seen[i - 1];
    return NULL;
}

static struct seen *add_seen(const cfg_t *section, const char *option)
{
    // Three levels of sections with a dozen options each: there is room.
    if (reading.seen_count == sizeof(reading.seen) / sizeof(reading.seen[0]))
        return NULL;
    reading.seen[reading.seen_count] = (struct seen){.section = section, .option = option};
    return &reading.seen[reading.seen_count++];
}

// When a section ends: what was set in it is the last that was set.
static void forget_seen(const cfg_t *section)
{
    while (reading.seen_count > 0 && reading.seen[reading.seen_count - 1].section == section)
        reading.seen_count--;
}

static int complain_twice(cfg_t *section, const char *option)
{
    cfg_error(section, "'%s' is given twice", option);
    return -1;
}

static int note_seen(cfg_t *section, cfg_opt_t *option)
{
    if (find_seen(section, cfg_opt_name(option)) != NULL ||
        add_seen(section, cfg_opt_name(option)) == NULL)
        return complain_twice(section, cfg_opt_name(option));
    return 0;
}

// A list is checked after each of its values and once more at its end. 1: there is a new value, 0:
// the end, -1: a second list.
static int note_list(cfg_t *section, cfg_opt_t *option)
{
    struct seen *seen = find_seen(section, cfg_opt_name(option));
    if (seen == NULL)
        seen = add_seen(section, cfg_opt_name(option));
    if (seen == NULL || seen->closed)
        return complain_twice(section, cfg_opt_name(option));
    seen->closed = cfg_opt_size(option) == seen->values;
    seen->values = cfg_opt_size(option);
    return seen->closed ? 0 : 1;
}

// ---- addresses ----

bool setup_parse_address(struct setup_address *address, const char *text)
{
    memset(address, 0, sizeof(*address));
    address->family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    if (strlen(text) >= sizeof(address->text) ||
        inet_pton(address->family, text, address->bytes) != 1 ||
        inet_ntop(address->family, address->bytes, address->text, sizeof(address->text)) == NULL)
        return false;
    // An IPv4 address has one form, its own.
    struct in6_addr in6;
    memcpy(&in6, address->bytes, sizeof(in6));
    return strcmp(text, address->text) == 0 &&
           (address->family == AF_INET || !IN6_IS_ADDR_V4MAPPED(&in6));
}

static bool copy_until(char *out, size_t size, const char *text, const char *end)
{
    if (end == NULL || (size_t)(end - text) >= size)
        return false;
    memcpy(out, text, (size_t)(end - text));
    out[end - text] = '\0';
    return true;
}

static bool parse_decimal(const char *text, uint64_t limit, uint64_t *value)
{
    struct line line = {.text = text, .length = strlen(text)};
    return line_decimal(&line, value) && *value <= limit;
}

static bool is_masked(const struct setup_prefix *prefix)
{
    for (size_t bit = prefix->bits; bit < 8 * sizeof(prefix->address.bytes); bit++)
        if (prefix->address.bytes[bit / 8] & (0x80 >> bit % 8))
            return false;
    return true;
}

bool setup_parse_prefix(struct setup_prefix *prefix, const char *text)
{
    char address[INET6_ADDRSTRLEN];
    uint64_t bits;
    const char *slash = strchr(text, '/');
    memset(prefix, 0, sizeof(*prefix));
    if (!copy_until(address, sizeof(address), text, slash) ||
        !setup_parse_address(&prefix->address, address) ||
        !parse_decimal(slash + 1, prefix->address.family == AF_INET ? 32 : 128, &bits))
        return false;
    prefix->bits = (uint8_t)bits;
    return is_masked(prefix);
}

static bool is_zero(const struct setup_address *address)
{
    static const uint8_t zero[sizeof(address->bytes)];
    return memcmp(address->bytes, zero, sizeof(zero)) == 0;
}

bool setup_parse_endpoint(struct setup_endpoint *endpoint, const char *text)
{
    char address[INET6_ADDRSTRLEN];
    uint64_t port;
    bool bracketed = text[0] == '[';
    const char *start = text + bracketed, *end = strchr(start, bracketed ? ']' : ':');
    memset(endpoint, 0, sizeof(*endpoint));
    if (!copy_until(address, sizeof(address), start, end) || end[bracketed] != ':' ||
        !setup_parse_address(&endpoint->address, address) ||
        !parse_decimal(end + bracketed + 1, UINT16_MAX, &port))
        return false;
    endpoint->port = (uint16_t)port;
    return port > 0 && bracketed == (endpoint->address.family == AF_INET6) &&
           !is_zero(&endpoint->address);
}

union device_endpoint setup_socket_address(const struct setup_address *address, uint16_t port)
{
    union device_endpoint endpoint;
    memset(&endpoint, 0, sizeof endpoint);
    if (address->family == AF_INET6) {
        endpoint.v6.sin6_family = AF_INET6;
        endpoint.v6.sin6_port = htons(port);
        memcpy(&endpoint.v6.sin6_addr, address->bytes, 16);
    } else if (address->family == AF_INET) {
        endpoint.v4.sin_family = AF_INET;
        endpoint.v4.sin_port = htons(port);
        memcpy(&endpoint.v4.sin_addr, address->bytes, 4);
    }
    return endpoint;
}

// ---- values ----

static int check_number(cfg_t *section, cfg_opt_t *option, long low, long high)
{
    if (note_seen(section, option) != 0)
        return -1;
    long value = cfg_opt_getnint(option, 0);
    if (value >= low && value <= high)
        return 0;
    cfg_error(section, "'%s' is %ld: it must be %ld to %ld", cfg_opt_name(option), value, low,
              high);
    return -1;
}

static int check_tolerance(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, 3600);
}

static int check_interval(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 7 * 86400);
}

static int check_limit_ms(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, 10000);
}

static int check_port(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 1, UINT16_MAX);
}

static int check_keepalive(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, UINT16_MAX);
}

// 0 stands for what is found out, or is custodyd's.
static int check_seconds(cfg_t *section, cfg_opt_t *option)
{
    return check_number(section, option, 0, 10L * 366 * 86400);
}

static int check_flag(cfg_t *section, cfg_opt_t *option)
{
    return note_seen(section, option);
}

static int check_path(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, option) != 0)
        return -1;
    if (cfg_opt_getnstr(option, 0)[0] == '/')
        return 0;
    cfg_error(section, "'%s' must be an absolute path, not '%s'", cfg_opt_name(option),
              cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_registry(cfg_t *section, cfg_opt_t *option)
{
    const char *url = cfg_opt_getnstr(option, 0);
    if (note_seen(section, option) != 0)
        return -1;
    struct error err = {.code = ERROR_OK};
    struct registry *registry = registry_open(url, &err);
    registry_close(registry);
    if (registry != NULL)
        return 0;
    cfg_error(section, "%s", err.message);
    return -1;
}

static int check_key(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, option) != 0)
        return -1;
    if (name_is_key(cfg_opt_getnstr(option, 0)))
        return 0;
    cfg_error(section, "'%s' is no key's name: 1 to %d of A-Z a-z 0-9 _ . -",
              cfg_opt_getnstr(option, 0), KEY_MAX);
    return -1;
}

static const char *const method_names[] = {"auto", "hold", "pair", "poll", NULL};
static const char *const hold_names[] = {"auto", "plug", "tbf", NULL};
static const char *const required_names[] = {"auto", "yes", "no", NULL};
static const char *const psk_names[] = {"auto", "make", "take", "none", NULL};

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static int check_word(cfg_t *section, cfg_opt_t *option, const char *const *words)
{
    if (note_seen(section, option) != 0)
        return -1;
    if (find_word(words, cfg_opt_getnstr(option, 0)) >= 0)
        return 0;
    char all[64] = "";
    for (int i = 0; words[i] != NULL; i++) {
        size_t used = strlen(all);
        snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    cfg_error(section, "'%s' is '%s': it must be one of %s", cfg_opt_name(option),
              cfg_opt_getnstr(option, 0), all);
    return -1;
}

static int check_method(cfg_t *section, cfg_opt_t *option)
{
    return check_word(section, option, method_names);
}

static int check_hold(cfg_t *section, cfg_opt_t *option)
{
    return check_word(section, option, hold_names);
}

static int check_required(cfg_t *section, cfg_opt_t *option)
{
    return check_word(section, option, required_names);
}

static int check_psk(cfg_t *section, cfg_opt_t *option)
{
    return check_word(section, option, psk_names);
}

static int check_address(cfg_t *section, cfg_opt_t *option)
{
    struct setup_address address;
    if (note_seen(section, option) != 0)
        return -1;
    if (setup_parse_address(&address, cfg_opt_getnstr(option, 0)) && !is_zero(&address))
        return 0;
    cfg_error(section, "'%s' is '%s': it must be a numeric address in its shortest form",
              cfg_opt_name(option), cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_endpoint(cfg_t *section, cfg_opt_t *option)
{
    struct setup_endpoint endpoint;
    if (note_seen(section, option) != 0)
        return -1;
    if (setup_parse_endpoint(&endpoint, cfg_opt_getnstr(option, 0)))
        return 0;
    cfg_error(
        section,
        "'%s' is '%s': it must be ADDRESS:PORT or [ADDRESS]:PORT, numeric, the address in its "
        "shortest form",
        cfg_opt_name(option), cfg_opt_getnstr(option, 0));
    return -1;
}

static int check_pair(cfg_t *section, cfg_opt_t *option)
{
    if (note_seen(section, option) != 0)
        return -1;
    if (device_name_is_valid(cfg_opt_getnstr(option, 0)))
        return 0;
    cfg_error(section, "'pair' is '%s': that cannot be an interface's name",
              cfg_opt_getnstr(option, 0));
    return -1;
}

static bool same_prefix(const struct setup_prefix *a, const struct setup_prefix *b)
{
    return a->address.family == b->address.family && a->bits == b->bits &&
           memcmp(a->address.bytes, b->address.bytes, sizeof(a->address.bytes)) == 0;
}

static int take_prefix(cfg_t *section, const struct setup_prefix *prefix)
{
    for (size_t i = 0; i < reading.taken_count; i++) {
        if (!same_prefix(&reading.taken[i].prefix, prefix))
            continue;
        cfg_error(section, "%s/%d is peer '%s' already: an interface has one peer for a prefix",
                  prefix->address.text, prefix->bits, reading.taken[i].host);
        return -1;
    }
    if (reading.taken_count == reading.taken_room) {
        size_t room = reading.taken_room == 0 ? 16 : 2 * reading.taken_room;
        struct taken *grown = realloc(reading.taken, room * sizeof(*grown));
        if (grown == NULL) {
            cfg_error(section, "out of memory");
            return -1;
        }
        reading.taken = grown;
        reading.taken_room = room;
    }
    reading.taken[reading.taken_count++] =
        (struct taken){.prefix = *prefix, .host = cfg_title(section)};
    return 0;
}

static int check_allowed_ips(cfg_t *section, cfg_opt_t *option)
{
    struct setup_prefix prefix;
    int what = note_list(section, option);
    if (what <= 0)
        return what;
    const char *text = cfg_opt_getnstr(option, cfg_opt_size(option) - 1);
    if (setup_parse_prefix(&prefix, text))
        return take_prefix(section, &prefix);
    cfg_error(section,
              "'%s' is no prefix: ADDRESS/BITS, numeric, in its shortest form, no bit set beyond "
              "BITS",
              text);
    return -1;
}

// ---- sections ----

static int check_peer(cfg_t *interface, cfg_opt_t *option)
{
    cfg_t *peer = cfg_opt_getnsec(option, cfg_opt_size(option) - 1);
    (void)interface;
    forget_seen(peer);
    if (!name_is_host(cfg_title(peer))) {
        cfg_error(peer,
                  "peer '%s' is no host id: 1 to %d of a-z 0-9 . -, beginning and ending with a "
                  "letter or digit",
                  cfg_title(peer), HOST_MAX);
        return -1;
    }
    if (cfg_size(peer, "allowed-ips") > 0)
        return 0;
    cfg_error(peer, "peer '%s' needs 'allowed-ips': what is sent to it", cfg_title(peer));
    return -1;
}

static const char *interface_key(cfg_t *interface)
{
    const char *key = cfg_getstr(interface, "key");
    return key != NULL ? key : cfg_title(interface);
}

// What a second device needs.
static int check_paired(cfg_t *interface)
{
    const char *pair = cfg_getstr(interface, "pair"),
               *address = cfg_getstr(interface, "move-address");
    if (pair == NULL && strcmp(cfg_getstr(interface, "method"), "pair") == 0) {
        cfg_error(interface,
                  "interface '%s': 'method' is 'pair': it needs 'pair', another "
                  "interface's name",
                  cfg_title(interface));
        return -1;
    }
    if (pair != NULL && strcmp(pair, cfg_title(interface)) == 0) {
        cfg_error(interface, "interface '%s' cannot be its own 'pair'", cfg_title(interface));
        return -1;
    }
    if (pair == NULL || (address != NULL && strchr(address, ':') == NULL))
        return 0;
    cfg_error(interface, "interface '%s': 'pair' needs 'move-address', of IPv4",
              cfg_title(interface));
    return -1;
}

// Whether a device is meant by both.
static bool share_device(cfg_t *interface, cfg_t *other)
{
    const char *pair = cfg_getstr(interface, "pair"), *other_pair = cfg_getstr(other, "pair");
    return (pair != NULL && strcmp(pair, cfg_title(other)) == 0) ||
           (other_pair != NULL && strcmp(other_pair, cfg_title(interface)) == 0) ||
           (pair != NULL && other_pair != NULL && strcmp(pair, other_pair) == 0);
}

// What two interfaces must not have in common.
static int check_apart(cfg_t *interface, cfg_t *other)
{
    if (share_device(interface, other)) {
        cfg_error(interface, "interfaces '%s' and '%s': a 'pair' serves one of them, and no other",
                  cfg_title(interface), cfg_title(other));
        return -1;
    }
    const char *address = cfg_getstr(interface, "move-address"),
               *other_address = cfg_getstr(other, "move-address");
    if (strcmp(interface_key(interface), interface_key(other)) == 0) {
        cfg_error(interface, "interface '%s': key '%s' is interface '%s''s already",
                  cfg_title(interface), interface_key(interface), cfg_title(other));
        return -1;
    }
    if (address == NULL || other_address == NULL || strcmp(address, other_address) != 0 ||
        cfg_getint(interface, "move-port") != cfg_getint(other, "move-port"))
        return 0;
    cfg_error(interface,
              "interface '%s': 'move-address' %s with 'move-port' %ld is interface '%s''s already",
              cfg_title(interface), address, cfg_getint(interface, "move-port"), cfg_title(other));
    return -1;
}

static int check_interface(cfg_t *parent, cfg_opt_t *option)
{
    unsigned last = cfg_opt_size(option) - 1;
    cfg_t *interface = cfg_opt_getnsec(option, last);
    (void)parent;
    forget_seen(interface);
    reading.taken_count = 0;
    if (!device_name_is_valid(cfg_title(interface))) {
        cfg_error(interface, "'%s' cannot be an interface's name", cfg_title(interface));
        return -1;
    }
    if (!name_is_key(interface_key(interface))) {
        cfg_error(interface, "interface '%s' needs 'key': its own name cannot be a key's",
                  cfg_title(interface));
        return -1;
    }
    if (check_paired(interface) != 0)
        return -1;
    for (unsigned i = 0; i < last; i++)
        if (check_apart(interface, cfg_opt_getnsec(option, i)) != 0)
            return -1;
    return 0;
}

// ---- the file ----

#define TITLED (CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES)

static cfg_t *make_parser(void)
{
    cfg_opt_t peer_options[] = {
        CFG_STR("key", NULL, CFGF_NONE),           CFG_STR("endpoint", NULL, CFGF_NONE),
        CFG_STR("pair-endpoint", NULL, CFGF_NONE), CFG_STR_LIST("allowed-ips", NULL, CFGF_NONE),
        CFG_INT("keepalive", 0, CFGF_NONE),        CFG_STR("required", "auto", CFGF_NONE),
        CFG_STR("psk", "auto", CFGF_NONE),         CFG_END(),
    };
    cfg_opt_t interface_options[] = {
        CFG_STR("key", NULL, CFGF_NONE),
        CFG_STR("method", "auto", CFGF_NONE),
        CFG_STR("pair", NULL, CFGF_NONE),
        CFG_STR("hold", "auto", CFGF_NONE),
        CFG_INT("hold-limit", 300, CFGF_NONE),
        CFG_STR("move-address", NULL, CFGF_NONE),
        CFG_INT("move-port", DEFAULT_MOVE_PORT, CFGF_NONE),
        CFG_INT("grace", 0, CFGF_NONE),
        CFG_INT("window", 0, CFGF_NONE),
        CFG_BOOL("repair", cfg_false, CFGF_NONE),
        CFG_SEC("peer", peer_options, TITLED),
        CFG_END(),
    };
    cfg_opt_t options[] = {
        CFG_STR("registry", NULL, CFGF_NONE),
        CFG_STR("trust", SYSCONFDIR "/custody/trust", CFGF_NONE),
        CFG_STR("socket", RUNSTATEDIR "/custody/custody.sock", CFGF_NONE),
        CFG_STR("log-vkey", SYSCONFDIR "/custody/log.vkey", CFGF_NONE),
        CFG_STR("metrics-socket", NULL, CFGF_NONE),
        CFG_STR("metrics-textfile", NULL, CFGF_NONE),
        CFG_INT("metrics-interval", 15, CFGF_NONE),
        CFG_INT("clock-tolerance", 120, CFGF_NONE),
        CFG_INT("fresh-interval", 300, CFGF_NONE),
        CFG_INT("max-stale", 900, CFGF_NONE),
        CFG_INT("rescan", 30, CFGF_NONE),
        CFG_SEC("interface", interface_options, TITLED),
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
        {"registry", check_registry},
        {"trust", check_path},
        {"socket", check_path},
        {"log-vkey", check_path},
        {"metrics-socket", check_path},
        {"metrics-textfile", check_path},
        {"metrics-interval", check_interval},
        {"clock-tolerance", check_tolerance},
        {"fresh-interval", check_interval},
        {"max-stale", check_interval},
        {"rescan", check_interval},
        {"interface", check_interface},
        {"interface|key", check_key},
        {"interface|method", check_method},
        {"interface|pair", check_pair},
        {"interface|hold", check_hold},
        {"interface|hold-limit", check_limit_ms},
        {"interface|move-address", check_address},
        {"interface|move-port", check_port},
        {"interface|grace", check_seconds},
        {"interface|window", check_seconds},
        {"interface|repair", check_flag},
        {"interface|peer", check_peer},
        {"interface|peer|key", check_key},
        {"interface|peer|endpoint", check_endpoint},
        {"interface|peer|pair-endpoint", check_endpoint},
        {"interface|peer|allowed-ips", check_allowed_ips},
        {"interface|peer|keepalive", check_keepalive},
        {"interface|peer|required", check_required},
        {"interface|peer|psk", check_psk},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        cfg_set_validate_func(cfg, checks[i].option, checks[i].check);
}

static int check_whole(cfg_t *cfg, const char *path, struct error *err)
{
    if (cfg_getint(cfg, "max-stale") <= cfg_getint(cfg, "fresh-interval"))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "%s: 'max-stale' (%ld) must be more than 'fresh-interval' (%ld): else all "
                         "is stale always",
                         path, cfg_getint(cfg, "max-stale"), cfg_getint(cfg, "fresh-interval"));
    for (unsigned i = 0; i < cfg_size(cfg, "interface"); i++)
        if (cfg_size(cfg_getnsec(cfg, "interface", i), "peer") > 0 &&
            cfg_getstr(cfg, "registry") == NULL)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "%s: 'registry' is missing: where the peers' notes are", path);
    return 0;
}

static int parse(cfg_t *cfg, const char *path, char *text, struct error *err)
{
    memset(&reading, 0, sizeof(reading));
    reading.path = path;
    reading.err = err;
    cfg_set_error_function(cfg, on_error);
    set_checks(cfg);
    FILE *file = fmemopen(text, strlen(text), "r");
    int result = file != NULL ? cfg_parse_fp(cfg, file) : CFG_FILE_ERROR;
    if (file != NULL)
        fclose(file);
    free(reading.taken);
    reading.taken = NULL;
    reading.err = NULL;
    if (result == CFG_SUCCESS)
        return check_whole(cfg, path, err);
    return reading.failed ? -1
                          : error_set(err, ERROR_INVALID_ARGUMENT, "%s: cannot be parsed", path);
}

// The whole file as a NUL-terminated string with END_OF_FILE behind it, for the caller to free.
static char *read_file(const char *path, struct error *err)
{
    enum { LIMIT = 8 << 20 };
    static const char end[] = "\n" END_OF_FILE " = true\n";
    FILE *file = fopen(path, "re");
    char *text = malloc(LIMIT + 1 + sizeof(end));
    size_t length = file != NULL && text != NULL ? fread(text, 1, LIMIT + 1, file) : 0;
    if (text == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the configuration");
    else if (file == NULL)
        error_set(err, ERROR_NOT_FOUND, "%s: %s", path, strerror(errno));
    else if (ferror(file))
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
    else if (length > LIMIT)
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: larger than a configuration can be (8 MiB)",
                  path);
    else if (memchr(text, '\0', length) != NULL)
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: holds a NUL byte", path);
    else {
        memcpy(text + length, end, sizeof(end));
        fclose(file);
        return text;
    }
    if (file != NULL)
        fclose(file);
    free(text);
    return NULL;
}

static int copy_peer(struct setup_peer *peer, cfg_t *from, const char *key)
{
    const char *endpoint = cfg_getstr(from, "endpoint"),
               *pair_endpoint = cfg_getstr(from, "pair-endpoint");
    snprintf(peer->host, sizeof(peer->host), "%s", cfg_title(from));
    snprintf(peer->key, sizeof(peer->key), "%s",
             cfg_getstr(from, "key") != NULL ? cfg_getstr(from, "key") : key);
    if (endpoint != NULL)
        setup_parse_endpoint(&peer->endpoint, endpoint);
    if (pair_endpoint != NULL)
        setup_parse_endpoint(&peer->pair_endpoint, pair_endpoint);
    peer->keepalive_s = (uint32_t)cfg_getint(from, "keepalive");
    peer->required = (enum setup_required)find_word(required_names, cfg_getstr(from, "required"));
    peer->psk = (enum setup_psk)find_word(psk_names, cfg_getstr(from, "psk"));
    unsigned count = cfg_size(from, "allowed-ips");
    peer->allowed_ips = calloc(count, sizeof(*peer->allowed_ips));
    if (peer->allowed_ips == NULL)
        return -1;
    peer->allowed_ip_count = count;
    for (unsigned i = 0; i < count; i++)
        setup_parse_prefix(&peer->allowed_ips[i], cfg_getnstr(from, "allowed-ips", i));
    return 0;
}

static int copy_interface(struct setup_interface *interface, cfg_t *from)
{
    const char *address = cfg_getstr(from, "move-address"), *pair = cfg_getstr(from, "pair");
    snprintf(interface->pair, sizeof(interface->pair), "%s", pair != NULL ? pair : "");
    snprintf(interface->name, sizeof(interface->name), "%s", cfg_title(from));
    snprintf(interface->key, sizeof(interface->key), "%s", interface_key(from));
    interface->method = (enum setup_method)find_word(method_names, cfg_getstr(from, "method"));
    interface->hold = (enum setup_hold)find_word(hold_names, cfg_getstr(from, "hold"));
    interface->hold_limit_ms = (uint32_t)cfg_getint(from, "hold-limit");
    if (address != NULL)
        setup_parse_address(&interface->move_address, address);
    interface->move_port = (uint16_t)cfg_getint(from, "move-port");
    interface->grace_s = (uint32_t)cfg_getint(from, "grace");
    interface->window_s = (uint32_t)cfg_getint(from, "window");
    interface->repair = cfg_getbool(from, "repair") == cfg_true;
    unsigned count = cfg_size(from, "peer");
    interface->peers = calloc(count + 1, sizeof(*interface->peers));
    if (interface->peers == NULL)
        return -1;
    interface->peer_count = count;
    for (unsigned i = 0; i < count; i++)
        if (copy_peer(&interface->peers[i], cfg_getnsec(from, "peer", i), interface->key) != 0)
            return -1;
    return 0;
}

static int copy_setup(struct setup *setup, cfg_t *cfg, struct error *err)
{
    const char *registry = cfg_getstr(cfg, "registry");
    unsigned count = cfg_size(cfg, "interface");
    snprintf(setup->registry, sizeof(setup->registry), "%s", registry != NULL ? registry : "");
    setup->trust_file = strdup(cfg_getstr(cfg, "trust"));
    setup->socket = strdup(cfg_getstr(cfg, "socket"));
    setup->log_vkey_file = strdup(cfg_getstr(cfg, "log-vkey"));
    const char *metrics_socket = cfg_getstr(cfg, "metrics-socket"),
               *metrics_textfile = cfg_getstr(cfg, "metrics-textfile");
    setup->metrics_socket = metrics_socket != NULL ? strdup(metrics_socket) : NULL;
    setup->metrics_textfile = metrics_textfile != NULL ? strdup(metrics_textfile) : NULL;
    setup->metrics_interval_s = (uint32_t)cfg_getint(cfg, "metrics-interval");
    setup->clock_tolerance_s = (uint32_t)cfg_getint(cfg, "clock-tolerance");
    setup->fresh_interval_s = (uint32_t)cfg_getint(cfg, "fresh-interval");
    setup->max_stale_s = (uint32_t)cfg_getint(cfg, "max-stale");
    setup->rescan_s = (uint32_t)cfg_getint(cfg, "rescan");
    setup->interfaces = calloc(count + 1, sizeof(*setup->interfaces));
    bool failed = setup->trust_file == NULL || setup->socket == NULL ||
                  setup->log_vkey_file == NULL || setup->interfaces == NULL ||
                  (metrics_socket != NULL && setup->metrics_socket == NULL) ||
                  (metrics_textfile != NULL && setup->metrics_textfile == NULL);
    setup->interface_count = setup->interfaces != NULL ? count : 0;
    for (unsigned i = 0; i < count && !failed; i++)
        failed = copy_interface(&setup->interfaces[i], cfg_getnsec(cfg, "interface", i)) != 0;
    return failed ? error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the configuration")
                  : 0;
}

struct setup *setup_read(const char *path, struct error *err)
{
    char *text = read_file(path, err);
    if (text == NULL)
        return NULL;
    struct setup *setup = calloc(1, sizeof(*setup));
    cfg_t *cfg = make_parser();
    bool ok = false;
    if (setup == NULL || cfg == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the configuration");
    else
        ok = parse(cfg, path, text, err) == 0 && copy_setup(setup, cfg, err) == 0;
    free(text);
    if (cfg != NULL)
        cfg_free(cfg);
    if (ok)
        return setup;
    setup_free(setup);
    return NULL;
}

void setup_free(struct setup *setup)
{
    if (setup == NULL)
        return;
    for (size_t i = 0; i < setup->interface_count; i++) {
        for (size_t p = 0; p < setup->interfaces[i].peer_count; p++)
            free(setup->interfaces[i].peers[p].allowed_ips);
        free(setup->interfaces[i].peers);
    }
    free(setup->interfaces);
    free(setup->trust_file);
    free(setup->socket);
    free(setup->log_vkey_file);
    free(setup->metrics_socket);
    free(setup->metrics_textfile);
    free(setup);
}

const struct setup_interface *setup_find(const struct setup *setup, const char *interface)
{
    for (size_t i = 0; i < setup->interface_count; i++)
        if (strcmp(setup->interfaces[i].name, interface) == 0)
            return &setup->interfaces[i];
    return NULL;
}
