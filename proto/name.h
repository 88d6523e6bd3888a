// SPDX-License-Identifier: Apache-2.0
// What may be a host id, a key's name, a ticket, or a line of free text.
#ifndef PROTO_NAME_H
#define PROTO_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define HOST_MAX   63  // bytes, without the NUL
#define KEY_MAX    63  // bytes of a key's name, without the NUL
#define TICKET_MAX 127 // bytes, without the NUL
#define DETAIL_MAX 447 // bytes of a free-text explanation, without the NUL

// Host id: a lower-case DNS name, 1..HOST_MAX of [a-z0-9.-], beginning and ending with a letter or
// digit.
bool name_is_host(const char *text);
// Key name: 1..KEY_MAX of [A-Za-z0-9_.-], not beginning with '.' or '-'.
bool name_is_key(const char *text);
// Names of keys that begin with '_' are custody's own: the configuration declares none.
bool name_is_reserved(const char *text);
#define NAME_RECEIVE_KEY "_receive" // the key that this host takes preshared keys with
// Ticket: 0..TICKET_MAX bytes of valid UTF-8 without control characters.
bool name_is_ticket(const char *text);
// Valid UTF-8 (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF).
bool name_is_utf8(const void *text, size_t length);

// The names that follow from a host's id: the log's origin and key name "HOST/custody/log", and the
// key name "HOST/custody/host" of the host's bundles. `size` bytes of room suffice when
// NOTE_NAME_MAX + 1.
void name_log_origin(const char *host, char *origin, size_t size);
void name_host_key(const char *host, char *name, size_t size);

#endif
