// SPDX-License-Identifier: Apache-2.0
// The text of an offer to import a private key: the key that it is to be boxed to, which the keeper
// holds for this once; signed with custody-log, whose public half the applier has pinned.
#ifndef PROTO_IMPORT_OFFER_H
#define PROTO_IMPORT_OFFER_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define IMPORT_OFFER_TEXT_MAX 512 // bytes, with the NUL

// One "name value" line each, in this order, after a first line "custody import offer v1": host,
// key, generation (that it will be), public-key (of the private key to be imported, base64),
// box-key (X25519, base64). No checkpoint begins so: neither can be taken for the other.
struct import_offer {
    char host[HOST_MAX + 1];
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint8_t public_key[RECORD_KEY_SIZE];
    uint8_t box_key[RECORD_KEY_SIZE];
};

// The text that is signed, NUL-terminated. Returns its length.
int import_offer_format(const struct import_offer *offer, char text[IMPORT_OFFER_TEXT_MAX]);
// Parses the text of a note that was already verified. Accepts exactly what import_offer_format
// produces.
int import_offer_parse(struct import_offer *offer, const char *text, size_t length,
                       struct error *err);

#endif
