// SPDX-License-Identifier: Apache-2.0
// The trust file: which key signs for which host. A line each, "HOST VKEY"; '#' begins a comment.
#ifndef PROTO_TRUST_H
#define PROTO_TRUST_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"
#include "name.h"
#include "note.h"

struct trust_entry {
    char host[HOST_MAX + 1];
    struct note_key key; // its name is name_host_key(host)
};

struct trust; // opaque

#define TRUST_FILE_MAX (16 * 1024 * 1024) // bytes; a larger file is not read

// Reads and checks the whole file; every error names file and line (a host twice, a vkey whose name
// is not its host's, ...). A file that is missing or pins nobody is an error (ERROR_NOT_FOUND) only
// for `must_exist`. NULL with `err` on failure; the caller's to free.
struct trust *trust_read(const char *path, bool must_exist, struct error *err);
// The same of a text; an error names the line.
struct trust *trust_parse(const char *text, size_t length, struct error *err);
void trust_free(struct trust *trust);
size_t trust_count(const struct trust *trust);
const struct trust_entry *trust_at(const struct trust *trust, size_t i); // ordered by host
const struct trust_entry *trust_find(const struct trust *trust, const char *host);

// Pins a host (ERROR_ALREADY_EXISTS with another key: remove it first; with the same key nothing is
// done), or takes it away (ERROR_NOT_FOUND); the file is written anew as PATH.new, made durable and
// renamed over the old one, keeping comments, order and mode. A file that is not there is made by
// trust_add, mode 0644. ERROR_UNAVAILABLE while another process changes a file of that folder.
int trust_add(const char *path, const char *host, const char *vkey, struct error *err);
int trust_remove(const char *path, const char *host, struct error *err);

// Verifies a signed note of `host` with its pinned key: on success `*text_length` bytes at the
// start of `note` are the signed text. Whether that text is about `host` is the caller's to see.
// ERROR_PERMISSION_DENIED where the host is not pinned; else note_verify's errors.
int trust_verify(const struct trust *trust, const char *host, const char *note, size_t length,
                 size_t *text_length, struct error *err);

#endif
