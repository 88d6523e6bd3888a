// SPDX-License-Identifier: Apache-2.0
// Opens a registry of the kind that its URL names, and checks every path before that kind sees it.
#include "registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lines.h"

static const struct registry_ops *const kinds[] = {
    &registry_dir,
};

struct registry {
    const struct registry_ops *ops;
    void *state;
    char url[REGISTRY_URL_MAX + 1];
};

static const struct registry_ops *find_kind(const char *url, const char **where)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t length = strlen(kinds[i]->scheme);
        if (strncmp(url, kinds[i]->scheme, length) == 0 && url[length] == ':') {
            *where = url + length + 1;
            return kinds[i];
        }
    }
    return NULL;
}

struct registry *registry_open(const char *url, struct error *err)
{
    const char *where;
    const struct registry_ops *ops = find_kind(url, &where);
    if (ops == NULL || strlen(url) > REGISTRY_URL_MAX) {
        error_set(err, ERROR_INVALID_ARGUMENT,
                  "registry '%.200s': a registry is dir:/PATH, at most %d bytes", url,
                  REGISTRY_URL_MAX);
        return NULL;
    }
    struct registry *registry = calloc(1, sizeof(*registry));
    if (registry == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the registry");
        return NULL;
    }
    registry->ops = ops;
    snprintf(registry->url, sizeof(registry->url), "%s", url);
    registry->state = ops->open(where, err);
    if (registry->state == NULL) {
        free(registry);
        return NULL;
    }
    return registry;
}

void registry_close(struct registry *registry)
{
    if (registry == NULL)
        return;
    registry->ops->close(registry->state);
    free(registry);
}

const char *registry_url(const struct registry *registry)
{
    return registry->url;
}

// ---- paths ----

// Whether `folder` is "HOST/KEY"; `length` bytes of it.
static bool is_folder(const char *folder, size_t length)
{
    char text[HOST_MAX + 1 + KEY_MAX + 1];
    if (length >= sizeof(text))
        return false;
    memcpy(text, folder, length);
    text[length] = '\0';
    char *slash = strchr(text, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return name_is_host(text) && name_is_key(slash + 1);
}

// What a note's own name may be made of: what the names above are made of, and '@'.
static bool is_note_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= REGISTRY_NAME_MAX && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-") ==
               length;
}

static int check_path(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    if (slash != NULL && is_folder(path, (size_t)(slash - path)) && is_note_name(slash + 1))
        return 0;
    return error_set(err, ERROR_INVALID_ARGUMENT,
                     "registry: '%.200s' is no note's path: HOST/KEY/NAME", path);
}

static int check_folder(const char *folder, struct error *err)
{
    if (is_folder(folder, strlen(folder)))
        return 0;
    return error_set(err, ERROR_INVALID_ARGUMENT, "registry: '%.200s' is no folder: HOST/KEY",
                     folder);
}

void registry_folder(char folder[REGISTRY_PATH_MAX + 1], const char *host, const char *key)
{
    snprintf(folder, REGISTRY_PATH_MAX + 1, "%s/%s", host, key);
}

void registry_bundle_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                          uint64_t generation)
{
    snprintf(path, REGISTRY_PATH_MAX + 1, "%s/%s/bundle-%" PRIu64, host, key, generation);
}

void registry_fresh_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key)
{
    snprintf(path, REGISTRY_PATH_MAX + 1, "%s/%s/fresh", host, key);
}

void registry_ack_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                       uint64_t generation, const char *peer_host, const char *peer_key)
{
    snprintf(path, REGISTRY_PATH_MAX + 1, "%s/%s/ack-%" PRIu64 "-%s@%s", host, key, generation,
             peer_key, peer_host);
}

void registry_psk_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                       const char *state, const char *peer_host, const char *peer_key)
{
    snprintf(path, REGISTRY_PATH_MAX + 1, "%s/%s/psk-%s-%s@%s", host, key, state, peer_key,
             peer_host);
}

bool registry_bundle_name(const char *name, uint64_t *generation)
{
    struct line line = {.text = name, .length = strlen(name)};
    return line_skip(&line, "bundle-") && line_decimal(&line, generation) && *generation > 0;
}

// Copies `length` bytes as a string; false where they do not fit.
static bool copy_part(char *out, size_t size, const char *text, size_t length)
{
    if (length >= size)
        return false;
    memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

bool registry_ack_name(const char *name, uint64_t *generation, char peer_host[HOST_MAX + 1],
                       char peer_key[KEY_MAX + 1])
{
    struct line line = {.text = name, .length = strlen(name)};
    const char *at = strchr(name, '@');
    if (!line_skip(&line, "ack-") || at == NULL)
        return false;
    const char *dash = memchr(line.text, '-', line.length);
    if (dash == NULL || dash > at)
        return false;
    line.length = (size_t)(dash - line.text);
    return line_decimal(&line, generation) && *generation > 0 &&
           copy_part(peer_key, KEY_MAX + 1, dash + 1, (size_t)(at - dash - 1)) &&
           copy_part(peer_host, HOST_MAX + 1, at + 1, strlen(at + 1)) && name_is_key(peer_key) &&
           name_is_host(peer_host);
}

// ---- notes ----

int registry_put(struct registry *registry, const char *path, const char *note, size_t length,
                 struct error *err)
{
    if (check_path(path, err) != 0)
        return -1;
    if (length == 0 || length >= NOTE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "registry: %s: a note has 1 to %d bytes, not %zu", path, NOTE_MAX - 1,
                         length);
    return registry->ops->put(registry->state, path, note, length, err);
}

int registry_get(struct registry *registry, const char *path, char note[NOTE_MAX], size_t *length,
                 struct error *err)
{
    if (check_path(path, err) != 0)
        return -1;
    return registry->ops->get(registry->state, path, note, length, err);
}

int registry_remove(struct registry *registry, const char *path, struct error *err)
{
    if (check_path(path, err) != 0)
        return -1;
    return registry->ops->remove(registry->state, path, err);
}

// ---- listings ----

int registry_names_add(struct registry_names *names, const char *name, struct error *err)
{
    enum { FIRST = 16 };
    if (names->count == REGISTRY_NAMES_MAX || strlen(name) > REGISTRY_NAME_MAX) {
        names->passed_over++;
        return 0;
    }
    if (names->count == 0 || (names->count >= FIRST && (names->count & (names->count - 1)) == 0)) {
        size_t room = names->count == 0 ? FIRST : 2 * names->count;
        char **grown = realloc(names->items, room * sizeof(*grown));
        if (grown == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for names");
        names->items = grown;
    }
    names->items[names->count] = strdup(name);
    if (names->items[names->count] == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for names");
    names->count++;
    return 0;
}

void registry_names_free(struct registry_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    memset(names, 0, sizeof(*names));
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int registry_list(struct registry *registry, const char *folder, const char *prefix,
                  struct registry_names *names, struct error *err)
{
    memset(names, 0, sizeof(*names));
    if (check_folder(folder, err) != 0 ||
        registry->ops->list(registry->state, folder, prefix, names, err) != 0)
        return -1;
    if (names->count > 0)
        qsort(names->items, names->count, sizeof(*names->items), compare_names);
    return 0;
}

// ---- watching ----

int registry_watch(struct registry *registry, const char *const *folders, size_t count,
                   struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (check_folder(folders[i], err) != 0)
            return -1;
    return registry->ops->watch(registry->state, folders, count, err);
}

int registry_fd(const struct registry *registry)
{
    return registry->ops->fd(registry->state);
}

int registry_drain(struct registry *registry, registry_changed *changed, void *context,
                   struct error *err)
{
    return registry->ops->drain(registry->state, changed, context, err);
}
