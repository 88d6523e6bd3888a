// SPDX-License-Identifier: Apache-2.0
// Importing a private key that an interface has already: it comes boxed to a key pair that is made
// for this once, whose public half the log key signs, and whose private half goes with its use.
#ifndef PKCS11_IMPORT_H
#define PKCS11_IMPORT_H

#include "channel.h"
#include "vault.h"

struct import; // opaque: the one offer that stands, if any

int import_open(struct import **import, struct error *err);
void import_close(struct import *import); // NULL is allowed

// Makes an offer for the key of that public key; the one before is void. `note` becomes the signed
// text of import_offer.h.
int import_offer(struct import *import, struct vault *vault, const struct keeper_import *request,
                 struct keeper_offered *offered, struct error *err);
// Opens the box, which must be to the offer that stands and hold the private key of its public key,
// and seals that as custody-new/... . Whatever comes of it, the offer is void: no box is taken
// twice.
int import_take(struct import *import, struct vault *vault, const struct keeper_import *request,
                struct keeper_generated *sealed, struct error *err);
// Forgets the offer that stands.
void import_forget(struct import *import);

#endif
