// SPDX-License-Identifier: Apache-2.0
// The token as the floor uses it: one AES key and one Ed25519 key of its own, both token objects,
// in one session.
#ifndef TESTS_BENCH_TOKEN_H
#define TESTS_BENCH_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define TOKEN_SECRET_SIZE    32
#define TOKEN_SIGNATURE_SIZE 64

struct token;

// Logs in to the token that the PKCS#11 URI names (with module-path and pin-source=file:), and
// makes the two keys.
// `*out` is the caller's to close. Returns 0, or -1 with `err`.
int token_open(const char *uri, struct token **out, struct error *err);
// The same with a signing key that is there already, by its label; it can sign and nothing else.
int token_open_key(const char *uri, const char *label, struct token **out, struct error *err);
// Destroys the keys that token_open made, and logs out; NULL is fine.
void token_close(struct token *token);

// Seals a secret with AES-GCM for token_unseal. Returns 0, or -1 with `err`.
int token_seal(struct token *token, const uint8_t secret[TOKEN_SECRET_SIZE], struct error *err);
// C_Decrypt of what token_seal sealed. `secret` is the caller's to wipe.
int token_unseal(struct token *token, uint8_t secret[TOKEN_SECRET_SIZE], struct error *err);
// C_Sign with Ed25519.
int token_sign(struct token *token, const void *text, size_t length,
               uint8_t signature[TOKEN_SIGNATURE_SIZE], struct error *err);

#endif
