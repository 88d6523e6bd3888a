// SPDX-License-Identifier: Apache-2.0
// The opened token as the keeper works with it: its keys, blobs, head and signers, and what can be
// done without a log.
#ifndef PKCS11_VAULT_H
#define PKCS11_VAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "blobs.h"
#include "channel.h"
#include "head.h"
#include "keys.h"
#include "seal.h"
#include "sign.h"
#include "token.h"

#define VAULT_LEFTOVERS_MAX 64 // custody-new/… that nobody adopted; more are not made

struct vault {
    char host[HOST_MAX + 1];
    struct token *token;
    struct keys keys;
    bool initialised; // every key is there; the signers and the seal can be used
    struct seal *seal;
    struct blobs *blobs;
    struct head head;
    struct signer log;
    struct signer host_signer;
};

// Opens the token and takes stock of what it holds. The errors are token_open's, and what is wrong
// with the objects.
int vault_open(struct vault *vault, const char *host, const char *uri, struct error *err);
void vault_close(struct vault *vault);

void vault_status(const struct vault *vault, struct keeper_status *status);
void vault_list(const struct vault *vault, uint32_t first, struct keeper_list *list);
// Makes the keys that are missing, after the probe has passed. Refused once the token holds a head,
// or blobs whose key is gone.
int vault_init(struct vault *vault, struct error *err);
// Makes, seals and stores a new key as custody-new/…, unseals it once, and gives its public key.
// One that is there already and was never recorded is taken for it.
int vault_generate(struct vault *vault, const struct keeper_generate *request,
                   uint8_t public_key[RECORD_KEY_SIZE], struct error *err);

// Whether a key of that name, generation and public key may be imported.
int vault_check_import(const struct vault *vault, const struct keeper_import *request,
                       struct error *err);
// Opens the request's box, to `box_key` and its guarded `secret`, into the seal's buffer; makes
// sure that what is in it has the request's public key; seals and stores it as custody-new/..., for
// PURPOSE_IMPORTED.
int vault_import(struct vault *vault, const struct keeper_import *request,
                 const uint8_t box_key[RECORD_KEY_SIZE], const uint8_t *secret, struct error *err);

// Unseals a blob into the seal's buffer and derives its public key. The caller calls seal_wipe,
// also on failure.
int vault_unseal(struct vault *vault, const struct blob *blob, uint8_t public_key[RECORD_KEY_SIZE],
                 struct error *err);

// After something failed in the token: whether it still works. False means that this process must
// end.
bool vault_works(struct vault *vault, struct error *err);

// Whether a token.initialised record says of the token what the token says.
int vault_check_initialised(const struct vault *vault, const struct record *record,
                            struct error *err);

#endif
