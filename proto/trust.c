// SPDX-License-Identifier: Apache-2.0
// Reading the trust file, and changing it without ever leaving half of one.
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lines.h"

#define NEW_FILE_MODE 0644

struct trust {
    size_t count, room;
    struct trust_entry *entries; // ordered by host
};

void trust_free(struct trust *trust)
{
    if (trust == NULL)
        return;
    free(trust->entries);
    free(trust);
}

size_t trust_count(const struct trust *trust)
{
    return trust->count;
}

const struct trust_entry *trust_at(const struct trust *trust, size_t i)
{
    return i < trust->count ? &trust->entries[i] : NULL;
}

static size_t position(const struct trust *trust, const char *host)
{
    size_t low = 0, high = trust->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(trust->entries[middle].host, host) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct trust_entry *trust_find(const struct trust *trust, const char *host)
{
    size_t i = position(trust, host);
    return i < trust->count && strcmp(trust->entries[i].host, host) == 0 ? &trust->entries[i]
                                                                         : NULL;
}

int trust_verify(const struct trust *trust, const char *host, const char *note, size_t length,
                 size_t *text_length, struct error *err)
{
    const struct trust_entry *entry = trust_find(trust, host);
    if (entry == NULL)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "host %.63s is not in the trust file: pin its host key first", host);
    return note_verify(note, length, &entry->key, 1, text_length, NULL, err);
}

// ---- parsing ----

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

// Cuts the next word off the line; empty at its end.
static struct line take_word(struct line *line)
{
    size_t blanks = 0, length = 0;
    while (blanks < line->length && is_blank(line->text[blanks]))
        blanks++;
    struct line word = {.text = line->text + blanks};
    while (blanks + length < line->length && !is_blank(word.text[length]))
        length++;
    word.length = length;
    line->text += blanks + length;
    line->length -= blanks + length;
    return word;
}

// A host and its key must fit each other, whoever names them.
static int make_entry(struct trust_entry *entry, const char *host, const char *vkey,
                      struct error *err)
{
    char name[NOTE_NAME_MAX + 1];
    if (!name_is_host(host))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "'%.80s' is no host id: 1 to %d of a-z 0-9 . -", host, HOST_MAX);
    memset(entry, 0, sizeof(*entry));
    memcpy(entry->host, host, strlen(host) + 1);
    if (note_key_parse(&entry->key, vkey, err) != 0)
        return error_prefix(err, "host %s", host);
    name_host_key(host, name, sizeof(name));
    if (strcmp(entry->key.name, name) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "host %s: the key's name is %s where %s must stand", host, entry->key.name,
                         name);
    return 0;
}

static int insert(struct trust *trust, const struct trust_entry *entry, struct error *err)
{
    size_t i = position(trust, entry->host);
    if (trust_find(trust, entry->host) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "host %s stands there already", entry->host);
    if (trust->count == trust->room) {
        size_t room = trust->room == 0 ? 16 : 2 * trust->room;
        struct trust_entry *entries = realloc(trust->entries, room * sizeof(*entries));
        if (entries == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu hosts", room);
        trust->entries = entries;
        trust->room = room;
    }
    memmove(&trust->entries[i + 1], &trust->entries[i], (trust->count - i) * sizeof(*entry));
    trust->entries[i] = *entry;
    trust->count++;
    return 0;
}

// A line that pins a host. Comments and empty lines are none: `*host` is empty.
static int parse_line(struct line line, struct trust_entry *entry, struct error *err)
{
    char host_text[HOST_MAX + 2], vkey_text[NOTE_VKEY_MAX];
    struct line host = take_word(&line), vkey, rest;
    entry->host[0] = '\0';
    if (host.length == 0 || host.text[0] == '#')
        return 0;
    vkey = take_word(&line);
    rest = take_word(&line);
    if (vkey.length == 0 || rest.length != 0 || !line_text(&vkey, vkey_text, sizeof(vkey_text)))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a host id and its verifier key must stand in the line, and no more");
    snprintf(host_text, sizeof(host_text), "%.*s", (int)host.length, host.text);
    return make_entry(entry, host_text, vkey_text, err);
}

static int parse_text(struct trust *trust, const char *text, size_t length, struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    struct line line;
    if (length > 0 && memchr(text, '\0', length) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "it holds a NUL byte");
    for (unsigned number = 1; lines_next(&lines, &line); number++) {
        struct trust_entry entry;
        if (parse_line(line, &entry, err) != 0 ||
            (entry.host[0] != '\0' && insert(trust, &entry, err) != 0))
            return error_prefix(err, "line %u", number);
    }
    return lines.left == 0 ? 0 : error_set(err, ERROR_INVALID_ARGUMENT, "its last line has no end");
}

struct trust *trust_parse(const char *text, size_t length, struct error *err)
{
    struct trust *trust = calloc(1, sizeof(*trust));
    if (trust == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the trust file");
        return NULL;
    }
    if (parse_text(trust, text, length, err) == 0)
        return trust;
    trust_free(trust);
    return NULL;
}

// ---- the file ----

struct text {
    char *bytes; // the caller's to free()
    size_t length;
    mode_t mode;
};

static int read_all(int fd, struct text *text, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > TRUST_FILE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "no file, or one larger than %d bytes",
                         TRUST_FILE_MAX);
    // One byte more shows a file that grows meanwhile.
    size_t room = (size_t)st.st_size + 1;
    text->mode = st.st_mode & 0777;
    text->length = 0;
    text->bytes = malloc(room);
    if (text->bytes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", room);
    while (text->length < room) {
        ssize_t got = read(fd, text->bytes + text->length, room - text->length);
        if (got == 0)
            return 0;
        if (got > 0)
            text->length += (size_t)got;
        else if (errno != EINTR)
            return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    }
    return error_set(err, ERROR_UNAVAILABLE, "it is being written to");
}

// An absent file is an empty one: `*exists` tells.
static int read_file(const char *path, struct text *text, bool *exists, struct error *err)
{
    *text = (struct text){.mode = NEW_FILE_MODE};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    *exists = fd >= 0 || errno != ENOENT;
    if (fd < 0)
        return *exists ? error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno)) : 0;
    int result = read_all(fd, text, err);
    close(fd);
    if (result != 0) {
        free(text->bytes);
        text->bytes = NULL;
    }
    return result;
}

static struct trust *read_and_parse(const char *path, struct text *text, bool must_exist,
                                    struct error *err)
{
    bool exists;
    struct trust *trust = NULL;
    if (read_file(path, text, &exists, err) == 0)
        trust = trust_parse(text->bytes != NULL ? text->bytes : "", text->length, err);
    if (trust != NULL && must_exist && trust->count == 0) {
        error_set(err, ERROR_NOT_FOUND, "%s",
                  exists ? "it pins no host" : "there is no such file; it pins each host's key");
        trust_free(trust);
        trust = NULL;
    }
    if (trust == NULL)
        error_prefix(err, "trust file %.300s", path);
    return trust;
}

struct trust *trust_read(const char *path, bool must_exist, struct error *err)
{
    struct text text;
    struct trust *trust = read_and_parse(path, &text, must_exist, err);
    free(text.bytes);
    return trust;
}

// ---- changing ----

static int fail(const char *path, const char *what, struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE, "trust file %.300s: %s: %s", path, what,
                     strerror(errno));
}

static int write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t put = write(fd, bytes, length);
        if (put < 0 && errno != EINTR)
            return -1;
        if (put > 0) {
            bytes += put;
            length -= (size_t)put;
        }
    }
    return 0;
}

// The folder that the file lies in, locked: whoever changes the file takes that lock. -1 with
// `err`.
static int lock_folder(const char *path, struct error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (length >= sizeof(folder) - 4 || strlen(path) >= PATH_MAX - 4)
        return error_set(err, ERROR_INVALID_ARGUMENT, "trust file %.300s…: the path is too long",
                         path);
    snprintf(folder, sizeof(folder), "%.*s", length > 0 ? (int)length : 1, length > 0 ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(path, "its folder", err);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    if (errno == EWOULDBLOCK)
        error_set(err, ERROR_UNAVAILABLE,
                  "trust file %.300s: another process changes a file of its folder; try again",
                  path);
    else
        fail(path, "its folder's lock", err);
    close(fd);
    return -1;
}

static int replace(int folder, const char *path, const struct text *text, struct error *err)
{
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    if (unlink(temporary) != 0 && errno != ENOENT) // what a crash left
        return fail(path, "what a crash left beside it", err);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(path, "a new one beside it", err);
    bool written = write_all(fd, text->bytes, text->length) == 0 && fchmod(fd, text->mode) == 0 &&
                   fsync(fd) == 0;
    int why = errno;
    written = close(fd) == 0 && written;
    if (written && rename(temporary, path) == 0)
        return fsync(folder) == 0 ? 0 : fail(path, "fsync of its folder", err);
    errno = written ? errno : why;
    fail(path, "a new one beside it", err);
    unlink(temporary);
    return -1;
}

// The text with the line appended.
static int append(struct text *text, const char *host, const char *vkey, struct error *err)
{
    size_t added = strlen(host) + strlen(vkey) + 2; // a blank and a newline
    char *bytes = realloc(text->bytes, text->length + added + 1);
    if (bytes == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the trust file");
    snprintf(bytes + text->length, added + 1, "%s %s\n", host, vkey);
    text->bytes = bytes;
    text->length += added;
    return 0;
}

// Cuts the line that pins the host, which the text was seen to hold.
static void cut(struct text *text, const char *host)
{
    struct lines lines = {.next = text->bytes, .left = text->length};
    struct line line;
    while (lines_next(&lines, &line)) {
        struct line rest = line, word = take_word(&rest);
        if (word.length != strlen(host) || memcmp(word.text, host, word.length) != 0)
            continue;
        size_t at = (size_t)(line.text - text->bytes);
        memmove(text->bytes + at, lines.next, lines.left);
        text->length = at + lines.left;
        return;
    }
}

// Adds the entry to the file's text: 1 when it has to be written, 0 when it stands there.
static int add_entry(const char *path, const struct trust_entry *entry, struct text *text,
                     struct error *err)
{
    char vkey[NOTE_VKEY_MAX];
    struct trust *trust = read_and_parse(path, text, false, err);
    if (trust == NULL)
        return -1;
    const struct trust_entry *before = trust_find(trust, entry->host);
    int result = before == NULL ? 1 : 0;
    if (before != NULL && memcmp(&before->key, &entry->key, sizeof(entry->key)) != 0)
        result = error_set(err, ERROR_ALREADY_EXISTS,
                           "trust file %.300s: host %s is pinned to another key; remove it first",
                           path, entry->host);
    trust_free(trust);
    note_key_format(&entry->key, vkey);
    return result == 1 && append(text, entry->host, vkey, err) != 0 ? -1 : result;
}

int trust_add(const char *path, const char *host, const char *vkey, struct error *err)
{
    struct trust_entry entry;
    struct text text = {.bytes = NULL};
    if (make_entry(&entry, host, vkey, err) != 0)
        return -1;
    int folder = lock_folder(path, err);
    if (folder < 0)
        return -1;
    int result = add_entry(path, &entry, &text, err);
    if (result == 1)
        result = replace(folder, path, &text, err);
    free(text.bytes);
    close(folder);
    return result;
}

int trust_remove(const char *path, const char *host, struct error *err)
{
    struct text text = {.bytes = NULL};
    int folder = lock_folder(path, err);
    if (folder < 0)
        return -1;
    int result = -1;
    struct trust *trust = read_and_parse(path, &text, false, err);
    if (trust != NULL && trust_find(trust, host) == NULL) {
        error_set(err, ERROR_NOT_FOUND, "trust file %.300s: it does not pin host %.63s", path,
                  host);
    } else if (trust != NULL) {
        cut(&text, host);
        result = replace(folder, path, &text, err);
    }
    trust_free(trust);
    free(text.bytes);
    close(folder);
    return result;
}
