// SPDX-License-Identifier: Apache-2.0
// Sealing under the token's key encryption key: 32-byte keys in, blobs out, and back into guarded
// memory.
#ifndef PKCS11_SEAL_H
#define PKCS11_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "keys.h"
#include "sealed.h"
#include "token.h"

#define SEAL_KEY_SIZE 32

struct seal;

// `host` is bound into every blob. Neither `token` nor `keys` is copied: they must outlive the
// seal.
int seal_open(struct token *token, const struct keys *keys, const char *host, struct seal **seal,
              struct error *err);
void seal_close(struct seal *seal); // NULL is allowed

// The suite that new blobs are sealed with.
enum sealed_suite seal_suite(const struct seal *seal);

// The guarded buffer of SEAL_KEY_SIZE bytes that keys are made, sealed from and unsealed into. It
// holds nothing between two requests: whoever put a key there calls seal_wipe on every path.
uint8_t *seal_key(struct seal *seal);
// Wipes the buffer and the stack below the caller: a module leaves plaintext there (measured on
// SoftHSM).
void seal_wipe(struct seal *seal);

// Makes a new X25519 private key in the buffer: random bytes of the token XOR random bytes of this
// machine, clamped (RFC 7748 section 5), so that neither source alone can weaken it.
int seal_make_key(struct seal *seal, struct error *err);

// Seals the buffer's key as `key`/`generation` for `purpose`.
int seal_wrap(struct seal *seal, const char *key, uint64_t generation, uint32_t purpose,
              uint8_t blob[SEALED_MAX], size_t *length, struct error *err);
// Unseals a blob into the buffer. ERROR_DATA_LOSS when it is not that key's, or was changed.
int seal_unwrap(struct seal *seal, const char *key, uint64_t generation, const uint8_t *blob,
                size_t length, struct error *err);

// Encrypts and decrypts once: whether the token still does its work.
int seal_try(struct seal *seal, struct error *err);

// The suite's two operations with any key of the token, for the probe. `body` has room for `length`
// + the tag.
int seal_gcm_encrypt(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                     const uint8_t *aad, size_t aad_length, const uint8_t *plain, size_t length,
                     uint8_t *body, size_t *body_length, struct error *err);
// `plain` has room for `body_length` bytes: SoftHSM wants that for the tag too.
int seal_gcm_decrypt(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                     const uint8_t *aad, size_t aad_length, const uint8_t *body, size_t body_length,
                     uint8_t *plain, size_t *length, struct error *err);

#endif
