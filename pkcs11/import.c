// SPDX-License-Identifier: Apache-2.0
// The one offer that stands, and the box that comes to it.
#include "import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "import_offer.h"

struct import {
    uint8_t *secret; // guarded; of the offer that stands
    bool stands;
    struct import_offer offer;
};

_Static_assert(KEEPER_BOX_SIZE == crypto_box_SEALBYTES + SEAL_KEY_SIZE, "a box holds one key");

int import_open(struct import **out, struct error *err)
{
    struct import *import = calloc(1, sizeof(*import));
    if (import != NULL)
        import->secret = sodium_malloc(crypto_box_SECRETKEYBYTES);
    if (import == NULL || import->secret == NULL) {
        free(import);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for an import's key");
    }
    *out = import;
    return 0;
}

void import_forget(struct import *import)
{
    sodium_memzero(import->secret, crypto_box_SECRETKEYBYTES);
    import->stands = false;
}

void import_close(struct import *import)
{
    if (import == NULL)
        return;
    sodium_free(import->secret); // wipes
    free(import);
}

int import_offer(struct import *import, struct vault *vault, const struct keeper_import *request,
                 struct keeper_offered *offered, struct error *err)
{
    char text[IMPORT_OFFER_TEXT_MAX];
    struct import_offer *offer = &import->offer;
    size_t length = 0;
    import_forget(import);
    if (vault_check_import(vault, request, err) != 0)
        return -1;
    memset(offer, 0, sizeof(*offer));
    snprintf(offer->host, sizeof(offer->host), "%s", vault->host);
    memcpy(offer->key, request->key, sizeof(offer->key));
    offer->generation = request->generation;
    memcpy(offer->public_key, request->public_key, sizeof(offer->public_key));
    crypto_box_keypair(offer->box_key, import->secret);
    seal_wipe(vault->seal); // what that has left on the stack
    import_offer_format(offer, text);
    if (sign_note(&vault->log, vault->token, text, offered->note, &length, err) != 0) {
        import_forget(import);
        return -1;
    }
    import->stands = true;
    return 0;
}

int import_take(struct import *import, struct vault *vault, const struct keeper_import *request,
                struct keeper_generated *sealed, struct error *err)
{
    const struct import_offer *offer = &import->offer;
    int rc;
    if (!import->stands || strcmp(offer->key, request->key) != 0 ||
        offer->generation != request->generation ||
        memcmp(offer->public_key, request->public_key, sizeof(offer->public_key)) != 0)
        rc = error_set(err, ERROR_FAILED_PRECONDITION,
                       "no offer to import this key stands (each is good for one box, and the last "
                       "one alone): ask for another");
    else
        rc = vault_import(vault, request, offer->box_key, import->secret, err);
    import_forget(import);
    if (rc == 0)
        memcpy(sealed->public_key, request->public_key, sizeof(sealed->public_key));
    return rc;
}
