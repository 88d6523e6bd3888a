// SPDX-License-Identifier: Apache-2.0
// C2SP signed notes (c2sp.org/signed-note): verifier keys, signing input, parsing and verification;
// Ed25519 only.
#ifndef PROTO_NOTE_H
#define PROTO_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define NOTE_NAME_MAX       128  // bytes of a key name, without the NUL
#define NOTE_VKEY_MAX       256  // bytes of an encoded verifier key, with the NUL
#define NOTE_SIGNATURE_SIZE 64   // Ed25519
#define NOTE_MAX            4096 // bytes of a note that custody makes or takes, with the NUL
#define NOTE_SIGNATURES_MAX 16

// A verifier key: "NAME+HEX(key id)+BASE64(0x01 || public key)", the encoding Go's sumdb/note
// reads.
struct note_key {
    char name[NOTE_NAME_MAX + 1];
    uint32_t id; // first four bytes, big-endian, of SHA-256(name || 0x0A || 0x01 || public key)
    uint8_t public_key[32];
};

// Fills `key` from a name and an Ed25519 public key. The name must be 1..NOTE_NAME_MAX bytes of
// UTF-8 without spaces, control characters or '+'.
int note_key_make(struct note_key *key, const char *name, const uint8_t public_key[32],
                  struct error *err);
// Parses an encoded verifier key; surrounding white space is ignored; the key id is checked.
int note_key_parse(struct note_key *key, const char *vkey, struct error *err);
// Reads one from a file (its first line).
int note_key_read(struct note_key *key, const char *path, struct error *err);
void note_key_format(const struct note_key *key, char vkey[NOTE_VKEY_MAX]);

// Appends the blank line and the signature line to `text` (which must end in a newline): the whole
// note into `note` (room for `size` bytes), NUL-terminated; `*length` without the NUL.
int note_format(const char *text, const struct note_key *key,
                const uint8_t signature[NOTE_SIGNATURE_SIZE], char *note, size_t size,
                size_t *length, struct error *err);

// Verifies `note` (need not be NUL-terminated) against `keys`: at least one of them must have
// signed, and no signature by one of them may be wrong; unknown signatures are ignored. On success
// `*text_length` is the length of the signed text (with its final newline) at the start of `note`,
// and signed_by[i] (may be NULL; `count` flags) says which signed.
int note_verify(const char *note, size_t length, const struct note_key *keys, size_t count,
                size_t *text_length, bool *signed_by, struct error *err);

#endif
