// SPDX-License-Identifier: Apache-2.0
// custody's own keys in the token: what they are called, what they may do, and their handles.
#ifndef PKCS11_KEYS_H
#define PKCS11_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "token.h"

#define KEYS_NUMBER 1 // the N of custody-kek-N and so on that this release makes and uses

enum keys_role {
    KEYS_KEK,  // AES-256: seals
    KEYS_MAC,  // generic secret: for the portable sealing suite
    KEYS_PSK,  // generic secret: derives preshared keys
    KEYS_LOG,  // Ed25519: signs heads of the log
    KEYS_HOST, // Ed25519: signs this host's bundles
    KEYS_ROLES
};

struct keys {
    CK_OBJECT_HANDLE handle[KEYS_ROLES];        // CK_INVALID_HANDLE where the token has none
    CK_OBJECT_HANDLE public_handle[KEYS_ROLES]; // of the signing keys
    CK_OBJECT_HANDLE unsealing; // the KEK's copy in the session, to decrypt with; the KEK itself
                                // where the token makes none
    CK_OBJECT_HANDLE deriving;  // likewise, custody-psk-N's
    uint8_t public_key[KEYS_ROLES][32]; // Ed25519; of the signing keys
    bool torn;                          // a crash left one half made
};

// "custody-kek-1"
const char *keys_label(enum keys_role role);

// Finds the keys that are there. Two of one name, or one that could leave the token, are errors.
int keys_find(struct token *token, struct keys *keys, struct error *err);
// Whether all are there.
bool keys_complete(const struct keys *keys);
// Makes all of them, in the place of those that are there: what a crash has left of making them may
// look whole and not work. For a token that has signed and sealed nothing with them.
int keys_create(struct token *token, struct keys *keys, struct error *err);

// The template that a key of this role is made with; for session objects too, so that the probe
// tries the same thing. Sets `*key` (and for a signing key `*public_key`).
int keys_generate(struct token *token, enum keys_role role, bool on_token, CK_OBJECT_HANDLE *key,
                  CK_OBJECT_HANDLE *public_key, struct error *err);
// Reads an Ed25519 public key out of a public key object.
int keys_read_public(struct token *token, CK_OBJECT_HANDLE object, uint8_t public_key[32],
                     struct error *err);

#endif
