// SPDX-License-Identifier: Apache-2.0
// The registry: signed notes at paths, where hosts leave word for each other. It is not trusted: it
// may lie, replay and vanish, and no more than delay comes of it.
#ifndef APPLIER_REGISTRY_H
#define APPLIER_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "name.h"
#include "note.h"

#define REGISTRY_URL_MAX   1024 // bytes of a URL, without the NUL
#define REGISTRY_NAME_MAX  191  // bytes of a note's own name, without the NUL
#define REGISTRY_PATH_MAX  (HOST_MAX + 1 + KEY_MAX + 1 + REGISTRY_NAME_MAX)
#define REGISTRY_NAMES_MAX 1024  // names that one listing keeps
#define REGISTRY_SCAN_MAX  65536 // entries of a folder that one listing looks at

struct registry; // opaque

// "dir:/PATH" (a folder, which need not be there yet). NULL with `err` on failure; else for
// registry_close.
struct registry *registry_open(const char *url, struct error *err);
void registry_close(struct registry *registry);
const char *registry_url(const struct registry *registry);

// Everywhere below: ERROR_UNAVAILABLE with words when the registry itself is gone (deleted, not
// mounted); it is tried anew at each call, so that it heals by itself.

// Puts a note of `length` bytes at `path`, in place of what is there: a reader finds the old one or
// the new one, whole. Durable on return. Folders below the root are made as needed, with the root's
// own permissions; the note is readable by all.
int registry_put(struct registry *registry, const char *path, const char *note, size_t length,
                 struct error *err);
// Reads the note at `path` into `note`, NUL-terminated, `*length` bytes without the NUL.
// ERROR_NOT_FOUND when there is none, ERROR_DATA_LOSS when what is there is none and cannot be (a
// link, a folder, more than NOTE_MAX - 1 bytes). Symbolic links are followed nowhere below the
// root.
int registry_get(struct registry *registry, const char *path, char note[NOTE_MAX], size_t *length,
                 struct error *err);
// Removes the note at `path`; one that is not there is removed already.
int registry_remove(struct registry *registry, const char *path, struct error *err);

struct registry_names {
    char **items; // ordered as strings
    size_t count;
    size_t passed_over; // names that matched, beyond REGISTRY_NAMES_MAX or longer than a name is
    bool unread;        // the folder has more entries than REGISTRY_SCAN_MAX: there may be others
};
// The names in `folder` that begin with `prefix`. A folder that is not there has none. `*names` is
// the caller's to free with registry_names_free, also after a failure.
int registry_list(struct registry *registry, const char *folder, const char *prefix,
                  struct registry_names *names, struct error *err);
void registry_names_free(struct registry_names *names);

// Says which folders to watch, in place of those before; they need not be there yet. The strings
// are copied.
int registry_watch(struct registry *registry, const char *const *folders, size_t count,
                   struct error *err);
// For poll(): readable when registry_drain may have something. Stays the same until
// registry_close.
int registry_fd(const struct registry *registry);
// Called for a watched folder in which something changed; NULL: any may have.
typedef void registry_changed(const char *folder, void *context);
// Takes all that was told, without waiting, each folder once, and takes up watches on what came
// back. To be called at each rescan too, which a shared folder needs, as another host's writes tell
// nothing here. -1 when the registry is gone: then everything is taken all the same.
int registry_drain(struct registry *registry, registry_changed *changed, void *context,
                   struct error *err);

// ---- paths ----
// Key names hold no '@' and generations no '-', so that each of these can be told apart.

// "HOST/KEY".
void registry_folder(char folder[REGISTRY_PATH_MAX + 1], const char *host, const char *key);
// "HOST/KEY/bundle-GENERATION".
void registry_bundle_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                          uint64_t generation);
// "HOST/KEY/fresh".
void registry_fresh_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key);
// "HOST/KEY/ack-GENERATION-PEERKEY@PEERHOST": by PEERHOST, for its key PEERKEY, of HOST's KEY.
void registry_ack_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                       uint64_t generation, const char *peer_host, const char *peer_key);
// "HOST/KEY/psk-STATE-PEERKEY@PEERHOST": by HOST, about its KEY's link with PEERHOST's PEERKEY;
// STATE is made, received or set.
void registry_psk_path(char path[REGISTRY_PATH_MAX + 1], const char *host, const char *key,
                       const char *state, const char *peer_host, const char *peer_key);
// Whether `name` (within a folder) is "bundle-GENERATION", in the one form that there is.
bool registry_bundle_name(const char *name, uint64_t *generation);
// Whether it is "ack-GENERATION-PEERKEY@PEERHOST".
bool registry_ack_name(const char *name, uint64_t *generation, char peer_host[HOST_MAX + 1],
                       char peer_key[KEY_MAX + 1]);

// ---- kinds of registries ----

struct registry_ops {
    const char *scheme; // "dir", before the URL's ':'
    // `where` is what follows the ':'. The rest as above; paths and folders were checked.
    void *(*open)(const char *where, struct error *err);
    void (*close)(void *state);
    int (*put)(void *state, const char *path, const char *note, size_t length, struct error *err);
    int (*get)(void *state, const char *path, char note[NOTE_MAX], size_t *length,
               struct error *err);
    int (*remove)(void *state, const char *path, struct error *err);
    int (*list)(void *state, const char *folder, const char *prefix, struct registry_names *names,
                struct error *err);
    int (*watch)(void *state, const char *const *folders, size_t count, struct error *err);
    int (*fd)(const void *state);
    int (*drain)(void *state, registry_changed *changed, void *context, struct error *err);
};

extern const struct registry_ops registry_dir;

// For a kind's list: takes a name, or counts it where it is too long or one too many.
int registry_names_add(struct registry_names *names, const char *name, struct error *err);

#endif
