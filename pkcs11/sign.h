// SPDX-License-Identifier: Apache-2.0
// Signing in the token: Ed25519 over a note's text.
#ifndef PKCS11_SIGN_H
#define PKCS11_SIGN_H

#include <stdbool.h>
#include <stddef.h>

#include "keys.h"
#include "note.h"
#include "token.h"

// A signing key of the token with the name it signs under.
struct signer {
    CK_OBJECT_HANDLE key;
    struct note_key verifier;
    bool proven;                // its first signature of this process was verified with libsodium
    CK_SESSION_HANDLE prepared; // in which sign_prepare has begun a signature; CK_INVALID_HANDLE
};

// Takes the key of `role` (KEYS_LOG or KEYS_HOST), to sign as `name`.
int sign_setup(struct signer *signer, const struct keys *keys, enum keys_role role,
               const char *name, struct error *err);

// Begins a signature (C_SignInit), so that the next sign_note has less to do; nothing is signed. No
// other operation may be begun in the session before that, or before sign_cancel. A failure shows
// in sign_note.
void sign_prepare(struct signer *signer, struct token *token);
void sign_cancel(struct signer *signer, struct token *token);

// Signs `text` (which ends in a newline) and makes the whole note, NUL-terminated, in `note`.
int sign_note(struct signer *signer, struct token *token, const char *text, char note[NOTE_MAX],
              size_t *length, struct error *err);

// The bare signature, for the probe. (RFC 8032, pure Ed25519: CKM_EDDSA without parameters)
int sign_ed25519(struct token *token, CK_OBJECT_HANDLE key, const void *data, size_t length,
                 uint8_t signature[NOTE_SIGNATURE_SIZE], struct error *err);

#endif
