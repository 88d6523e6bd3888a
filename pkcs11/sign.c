// SPDX-License-Identifier: Apache-2.0
// Ed25519 in the token, and notes made with it.
#include "sign.h"

#include <string.h>

#include <sodium.h>

int sign_setup(struct signer *signer, const struct keys *keys, enum keys_role role,
               const char *name, struct error *err)
{
    memset(signer, 0, sizeof(*signer));
    signer->key = keys->handle[role];
    return note_key_make(&signer->verifier, name, keys->public_key[role], err);
}

static CK_RV begin(struct token *token, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM mechanism = {CKM_EDDSA, NULL, 0};
    return token_module(token)->C_SignInit(token_session(token), &mechanism, key);
}

// Ends a signature that was begun in the session.
static int end(struct token *token, const void *data, size_t length,
               uint8_t signature[NOTE_SIGNATURE_SIZE], struct error *err)
{
    CK_ULONG got = NOTE_SIGNATURE_SIZE;
    CK_RV rv = token_module(token)->C_Sign(token_session(token), (CK_BYTE_PTR)data,
                                           (CK_ULONG)length, signature, &got);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_Sign (EdDSA)", err);
    if (got != NOTE_SIGNATURE_SIZE)
        return error_set(err, ERROR_INTERNAL, "C_Sign (EdDSA) gave %lu bytes, not %d",
                         (unsigned long)got, NOTE_SIGNATURE_SIZE);
    return 0;
}

int sign_ed25519(struct token *token, CK_OBJECT_HANDLE key, const void *data, size_t length,
                 uint8_t signature[NOTE_SIGNATURE_SIZE], struct error *err)
{
    CK_RV rv = begin(token, key);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_SignInit (EdDSA)", err);
    return end(token, data, length, signature, err);
}

void sign_prepare(struct signer *signer, struct token *token)
{
    signer->prepared = CK_INVALID_HANDLE;
    if (begin(token, signer->key) == CKR_OK)
        signer->prepared = token_session(token);
    else
        token_renew(token); // whatever it left begun
}

void sign_cancel(struct signer *signer, struct token *token)
{
    // What PKCS #11 2.40 has for ending an operation early is to end its session.
    if (signer->prepared != CK_INVALID_HANDLE && signer->prepared == token_session(token))
        token_renew(token);
    signer->prepared = CK_INVALID_HANDLE;
}

int sign_note(struct signer *signer, struct token *token, const char *text, char note[NOTE_MAX],
              size_t *length, struct error *err)
{
    uint8_t signature[NOTE_SIGNATURE_SIZE];
    bool begun = signer->prepared != CK_INVALID_HANDLE && signer->prepared == token_session(token);
    signer->prepared = CK_INVALID_HANDLE;
    if ((begun ? end(token, text, strlen(text), signature, err)
               : sign_ed25519(token, signer->key, text, strlen(text), signature, err)) != 0)
        return -1;
    if (!signer->proven) {
        if (crypto_sign_verify_detached(signature, (const unsigned char *)text, strlen(text),
                                        signer->verifier.public_key) != 0)
            return error_set(err, ERROR_DATA_LOSS,
                             "token '%s': what it signs as %s does not verify with the public key "
                             "that it holds beside",
                             token_describe(token)->label, signer->verifier.name);
        signer->proven = true;
    }
    return note_format(text, &signer->verifier, signature, note, NOTE_MAX, length, err);
}
