// SPDX-License-Identifier: Apache-2.0
// Reads old configurations line by line, to name lines.
#include "old_config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <sodium.h>

#define FILE_SIZE_MAX (1 << 20)

// What the two kinds call things.
struct dialect {
    const char *interface, *peer; // sections
    bool networkd;
};
static const struct dialect wg_quick = {"Interface", "Peer", false};
static const struct dialect netdev = {"WireGuard", "WireGuardPeer", true};

struct reading {
    const struct dialect *dialect;
    const char *path;
    const struct setup_interface *setup;
    old_config_tell *tell;
    void *context;
    char section[32];
    // The section of a peer that is open.
    unsigned first, last;
    const struct setup_peer *managed; // whose it is; NULL: nobody's
    bool named;                       // a .netdev: of this interface
};

// ---- lines ----

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

// A prefix as people write it: bits beyond its length may be set, and the length may be missing.
static bool parse_prefix(char *text, struct setup_prefix *prefix)
{
    char *slash = strchr(text, '/'), *end = NULL;
    memset(prefix, 0, sizeof *prefix);
    if (slash != NULL)
        *slash = '\0';
    prefix->address.family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    unsigned long most = prefix->address.family == AF_INET6 ? 128 : 32;
    unsigned long bits = slash != NULL ? strtoul(slash + 1, &end, 10) : most;
    if (inet_pton(prefix->address.family, text, prefix->address.bytes) != 1 || bits > most ||
        (slash != NULL && (end == slash + 1 || *end != '\0')))
        return false;
    prefix->bits = (uint8_t)bits;
    for (unsigned long i = bits; i < most; i++)
        prefix->address.bytes[i / 8] &= (uint8_t) ~(0x80 >> (i % 8));
    return true;
}

static const struct setup_peer *find_managed(const struct setup_interface *setup,
                                             const struct setup_prefix *prefix)
{
    for (size_t i = 0; i < setup->peer_count; i++)
        for (size_t j = 0; j < setup->peers[i].allowed_ip_count; j++) {
            const struct setup_prefix *own = &setup->peers[i].allowed_ips[j];
            if (own->address.family == prefix->address.family && own->bits == prefix->bits &&
                memcmp(own->address.bytes, prefix->address.bytes,
                       own->address.family == AF_INET6 ? 16 : 4) == 0)
                return &setup->peers[i];
        }
    return NULL;
}

static void take_allowed_ips(struct reading *reading, char *value)
{
    char *next = NULL;
    struct setup_prefix prefix;
    for (char *word = strtok_r(value, ", \t", &next); word != NULL;
         word = strtok_r(NULL, ", \t", &next))
        if (reading->managed == NULL && parse_prefix(word, &prefix))
            reading->managed = find_managed(reading->setup, &prefix);
}

// ---- what is told ----

static void tell_line(struct reading *reading, unsigned line, const char *what)
{
    reading->tell(reading->context, reading->path, line, line, what);
}

static void end_section(struct reading *reading)
{
    char what[128];
    if (reading->managed == NULL || strcasecmp(reading->section, reading->dialect->peer) != 0)
        return;
    snprintf(what, sizeof what, "remove this [%s] section: custody keeps %s's peer",
             reading->dialect->peer, reading->managed->host);
    reading->tell(reading->context, reading->path, reading->first, reading->last, what);
}

static void begin_section(struct reading *reading, const char *name, unsigned line)
{
    end_section(reading);
    snprintf(reading->section, sizeof reading->section, "%.*s", (int)strcspn(name + 1, "]"),
             name + 1);
    reading->first = line;
    reading->managed = NULL;
}

static void take_interface_option(struct reading *reading, const char *name, const char *value,
                                  unsigned line)
{
    bool runs = strcasecmp(name, "PostUp") == 0 || strcasecmp(name, "PreUp") == 0;
    if (strcasecmp(name, "PrivateKey") == 0)
        tell_line(reading, line, "remove PrivateKey: the key in it is to be destroyed");
    else if (reading->dialect->networkd && strcasecmp(name, "PrivateKeyFile") == 0)
        tell_line(reading, line, "remove PrivateKeyFile, and the file that it names");
    else if (!reading->dialect->networkd && runs && strstr(value, "private-key") != NULL)
        tell_line(reading, line, "remove the command: it sets a private key");
    else if (!reading->dialect->networkd && strcasecmp(name, "SaveConfig") == 0 &&
             strcasecmp(value, "true") == 0)
        tell_line(reading, line, "remove SaveConfig: it would write custody's keys into this file");
}

static void take_line(struct reading *reading, char *text, unsigned number)
{
    char *comment = strpbrk(text, "#;");
    if (comment != NULL && (*comment == '#' || comment == text))
        *comment = '\0';
    text = trim(text);
    if (text[0] == '\0')
        return;
    if (text[0] == '[') {
        begin_section(reading, text, number);
        reading->last = number;
        return;
    }
    reading->last = number;
    char *value = strchr(text, '=');
    if (value == NULL)
        return;
    *value++ = '\0';
    const char *name = trim(text);
    value = trim(value);
    if (strcasecmp(reading->section, reading->dialect->interface) == 0)
        take_interface_option(reading, name, value, number);
    else if (strcasecmp(reading->section, reading->dialect->peer) == 0 &&
             strcasecmp(name, "AllowedIPs") == 0)
        take_allowed_ips(reading, value);
    else if (strcasecmp(reading->section, "NetDev") == 0 && strcasecmp(name, "Name") == 0)
        reading->named = strcmp(value, reading->setup->name) == 0;
}

// ---- files ----

// The file as a string in guarded memory, for sodium_free. NULL: with ERROR_NOT_FOUND where there
// is none.
static char *read_file(const char *path, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = sodium_malloc(FILE_SIZE_MAX + 1);
    size_t length = 0;
    ssize_t got = -1;
    if (fd >= 0 && text != NULL)
        while (length < FILE_SIZE_MAX &&
               (got = read(fd, text + length, FILE_SIZE_MAX - length)) > 0)
            length += (size_t)got;
    if (fd < 0)
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE, "%s: %s", path,
                  strerror(errno));
    else if (text == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "%s: no guarded memory to read it into", path);
    else if (got < 0 || length == FILE_SIZE_MAX)
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path,
                  got < 0 ? strerror(errno) : "larger than a configuration can be (1 MiB)");
    if (fd >= 0)
        close(fd);
    if (fd < 0 || text == NULL || got < 0 || length == FILE_SIZE_MAX) {
        sodium_free(text);
        return NULL;
    }
    text[length] = '\0';
    return text;
}

static void scan(struct reading *reading, char *text)
{
    unsigned number = 0;
    for (char *next = text; next != NULL;) {
        char *line = strsep(&next, "\n");
        take_line(reading, line, ++number);
    }
    end_section(reading);
}

static void tell_nothing(void *context, const char *file, unsigned first, unsigned last,
                         const char *what)
{
    (void)context, (void)file, (void)first, (void)last, (void)what;
}

static int read_config(struct reading *reading, struct error *err)
{
    struct error why;
    char *text = read_file(reading->path, &why);
    if (text != NULL) {
        scan(reading, text);
        sodium_free(text); // wipes
        return 0;
    }
    if (err != NULL)
        *err = why;
    return -1;
}

int old_config_wg_quick(const char *path, const struct setup_interface *setup,
                        old_config_tell *tell, void *context, struct error *err)
{
    struct error why = {.code = ERROR_OK};
    struct reading reading = {
        .dialect = &wg_quick, .path = path, .setup = setup, .tell = tell, .context = context};
    if (read_config(&reading, &why) == 0)
        return 1;
    if (why.code == ERROR_NOT_FOUND)
        return 0;
    *err = why;
    return -1;
}

int old_config_netdev(const char *path, const struct setup_interface *setup, old_config_tell *tell,
                      void *context, struct error *err)
{
    struct reading reading = {
        .dialect = &netdev, .path = path, .setup = setup, .tell = tell_nothing};
    // Its name may stand anywhere in it: so it is read for that first.
    if (read_config(&reading, err) != 0)
        return err->code == ERROR_NOT_FOUND ? 0 : -1;
    if (!reading.named)
        return 0;
    reading = (struct reading){
        .dialect = &netdev, .path = path, .setup = setup, .tell = tell, .context = context};
    return read_config(&reading, err) == 0 ? 1 : -1;
}
