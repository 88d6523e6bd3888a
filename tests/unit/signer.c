// SPDX-License-Identifier: Apache-2.0
// Signing notes with libsodium.
#include "signer.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

void signer_make(struct signer *signer, const char *name, uint8_t seed)
{
    uint8_t bytes[crypto_sign_SEEDBYTES];
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES];
    memset(bytes, seed, sizeof(bytes));
    crypto_sign_seed_keypair(public_key, signer->secret, bytes);
    if (note_key_make(&signer->key, name, public_key, NULL) != 0)
        abort();
}

size_t signer_sign(const struct signer *signer, const char *text, char note[NOTE_MAX])
{
    uint8_t signature[NOTE_SIGNATURE_SIZE];
    size_t length = 0;
    crypto_sign_detached(signature, NULL, (const unsigned char *)text, strlen(text),
                         signer->secret);
    if (note_format(text, &signer->key, signature, note, NOTE_MAX, &length, NULL) != 0)
        abort();
    return length;
}
