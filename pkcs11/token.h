// SPDX-License-Identifier: Apache-2.0
// The token: found by its RFC 7512 URI through p11-kit, logged in to once, with one session that
// work is done in.
//
// One thread only may use a token. Whatever fails in the token is reported through token_fail,
// which gives the next operation a fresh session and remembers that the token is in doubt:
// token_doubtful tells the keeper to try it.
#ifndef PKCS11_TOKEN_H
#define PKCS11_TOKEN_H

#include <stdbool.h>

#include <p11-kit/pkcs11.h>

#include "channel.h"
#include "error.h"
#include "record.h"

struct token;

// Loads the module (the URI's module-path alone, else the modules p11-kit is configured with),
// finds the one token that the URI names and logs in with the PIN of its pin-source or of the
// credentials folder. Signals are blocked around C_Login: SoftHSM's must not be cut short. Errors:
// ERROR_NOT_FOUND when there is no such token, ERROR_UNAUTHENTICATED when the PIN is refused.
int token_open(const char *uri, struct token **token, struct error *err);
// Logs out and unloads; NULL is allowed.
void token_close(struct token *token);

// For calling the module: C_Xxx functions, and the session to call them with.
CK_FUNCTION_LIST *token_module(const struct token *token);
CK_SESSION_HANDLE token_session(const struct token *token);
// What the token says of itself, as a record states it.
const struct record_token *token_describe(const struct token *token);

// Whether its objects are files, which can be put back as they were.
enum keeper_restore token_restore(const struct token *token);

// Fills `err` with "token 'LABEL': FUNCTION: words", renews the session and marks the token
// doubtful. Returns -1.
int token_fail(struct token *token, CK_RV rv, const char *function, struct error *err);
// Gives the next operation a new session; objects of the old one end with it.
void token_renew(struct token *token);
// The session that is never renewed: objects that live as long as a session are made in it.
CK_SESSION_HANDLE token_anchor(const struct token *token);
// Whether something failed since the last token_trust.
bool token_doubtful(const struct token *token);
void token_trust(struct token *token);

// Makes durable what was created or destroyed (SoftHSM leaves that to its caller; hardware needs
// nothing).
int token_sync(struct token *token, struct error *err);

// Fills `length` random bytes from the token.
int token_random(struct token *token, void *data, size_t length, struct error *err);

#endif
