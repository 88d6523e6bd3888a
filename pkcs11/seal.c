// SPDX-License-Identifier: Apache-2.0
// Sealing and unsealing in the token, by suite.
#include "seal.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define GCM_TAG_SIZE 16
#define STACK_WIPE   65536 // bytes; SoftHSM's C_Decrypt leaves plaintext within that reach
#define ROOM         SEALED_BODY_MAX // a module may want room for the tag beside the key

// A way to seal. `encrypt` appends the tag; `decrypt` refuses what is not authentic.
struct suite {
    enum sealed_suite number;
    int (*encrypt)(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                   const uint8_t *aad, size_t aad_length, const uint8_t *plain, size_t length,
                   uint8_t *body, size_t *body_length, struct error *err);
    int (*decrypt)(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                   const uint8_t *aad, size_t aad_length, const uint8_t *body, size_t body_length,
                   uint8_t *plain, size_t *length, struct error *err);
};

static const struct suite suites[] = {
    {SEALED_AES_GCM, seal_gcm_encrypt, seal_gcm_decrypt},
};

struct seal {
    struct token *token;
    const struct keys *keys;
    char host[HOST_MAX + 1];
    const struct suite *suite; // for new blobs
    uint8_t *room;             // guarded, ROOM bytes; the key is at its start
};

static const struct suite *suite_of(enum sealed_suite number)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        if (suites[i].number == number)
            return &suites[i];
    return NULL;
}

// SoftHSM accepts an empty IV, and zeros are what one that was never filled looks like: both end
// here.
static int check_iv(const uint8_t iv[SEALED_IV_SIZE], struct error *err)
{
    if (sodium_is_zero(iv, SEALED_IV_SIZE))
        return error_set(err, ERROR_INTERNAL, "an initialisation vector of zeros is refused");
    return 0;
}

static CK_GCM_PARAMS gcm_parameters(const uint8_t *iv, const uint8_t *aad, size_t aad_length)
{
    return (CK_GCM_PARAMS){
        .iv_ptr = (unsigned char *)iv,
        .iv_len = SEALED_IV_SIZE,
        .iv_bits = 8 * SEALED_IV_SIZE, // NSS refuses when it is not set
        .aad_ptr = (unsigned char *)aad,
        .aad_len = aad_length,
        .tag_bits = 8 * GCM_TAG_SIZE,
    };
}

int seal_gcm_encrypt(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                     const uint8_t *aad, size_t aad_length, const uint8_t *plain, size_t length,
                     uint8_t *body, size_t *body_length, struct error *err)
{
    if (check_iv(iv, err) != 0)
        return -1;
    CK_FUNCTION_LIST *p11 = token_module(token);
    CK_GCM_PARAMS parameters = gcm_parameters(iv, aad, aad_length);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    CK_RV rv = p11->C_EncryptInit(token_session(token), &mechanism, kek);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_EncryptInit (AES-GCM)", err);
    CK_ULONG got = (CK_ULONG)(length + GCM_TAG_SIZE);
    rv = p11->C_Encrypt(token_session(token), (CK_BYTE_PTR)plain, (CK_ULONG)length, body, &got);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_Encrypt (AES-GCM)", err);
    if (got != length + GCM_TAG_SIZE)
        return error_set(err, ERROR_INTERNAL, "C_Encrypt (AES-GCM) gave %lu bytes for %zu",
                         (unsigned long)got, length);
    *body_length = got;
    return 0;
}

int seal_gcm_decrypt(struct token *token, CK_OBJECT_HANDLE kek, const uint8_t iv[SEALED_IV_SIZE],
                     const uint8_t *aad, size_t aad_length, const uint8_t *body, size_t body_length,
                     uint8_t *plain, size_t *length, struct error *err)
{
    if (check_iv(iv, err) != 0)
        return -1;
    if (body_length <= GCM_TAG_SIZE)
        return error_set(err, ERROR_DATA_LOSS, "the sealed blob is too short");
    CK_FUNCTION_LIST *p11 = token_module(token);
    CK_GCM_PARAMS parameters = gcm_parameters(iv, aad, aad_length);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    CK_RV rv = p11->C_DecryptInit(token_session(token), &mechanism, kek);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_DecryptInit (AES-GCM)", err);
    CK_ULONG got = (CK_ULONG)body_length;
    rv =
        p11->C_Decrypt(token_session(token), (CK_BYTE_PTR)body, (CK_ULONG)body_length, plain, &got);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_Decrypt (AES-GCM)", err);
    if (got != body_length - GCM_TAG_SIZE)
        return error_set(err, ERROR_INTERNAL, "C_Decrypt (AES-GCM) gave %lu bytes of %zu",
                         (unsigned long)got, body_length - GCM_TAG_SIZE);
    *length = got;
    return 0;
}

int seal_open(struct token *token, const struct keys *keys, const char *host, struct seal **out,
              struct error *err)
{
    struct seal *seal = calloc(1, sizeof(*seal));
    uint8_t *room = sodium_malloc(ROOM);
    if (seal == NULL || room == NULL) {
        free(seal);
        sodium_free(room);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for keys");
    }
    sodium_memzero(room, ROOM);
    seal->token = token;
    seal->keys = keys;
    seal->suite = &suites[0];
    seal->room = room;
    memcpy(seal->host, host, strnlen(host, HOST_MAX));
    *out = seal;
    return 0;
}

void seal_close(struct seal *seal)
{
    if (seal == NULL)
        return;
    sodium_free(seal->room);
    free(seal);
}

enum sealed_suite seal_suite(const struct seal *seal)
{
    return seal->suite->number;
}

uint8_t *seal_key(struct seal *seal)
{
    return seal->room;
}

void seal_wipe(struct seal *seal)
{
    sodium_memzero(seal->room, ROOM);
    sodium_stackzero(STACK_WIPE);
}

int seal_make_key(struct seal *seal, struct error *err)
{
    uint8_t *key = seal->room;
    uint8_t *own = seal->room + SEAL_KEY_SIZE; // the room's second half is guarded as well
    if (token_random(seal->token, key, SEAL_KEY_SIZE, err) != 0)
        return -1;
    randombytes_buf(own, SEAL_KEY_SIZE);
    for (size_t i = 0; i < SEAL_KEY_SIZE; i++)
        key[i] ^= own[i];
    sodium_memzero(own, SEAL_KEY_SIZE);
    key[0] &= 0xf8;
    key[31] = (uint8_t)((key[31] & 0x7f) | 0x40);
    return 0;
}

static CK_OBJECT_HANDLE kek_of(const struct seal *seal, uint32_t number)
{
    return number == KEYS_NUMBER ? seal->keys->handle[KEYS_KEK] : CK_INVALID_HANDLE;
}

int seal_wrap(struct seal *seal, const char *key, uint64_t generation, uint32_t purpose,
              uint8_t blob[SEALED_MAX], size_t *length, struct error *err)
{
    struct sealed sealed = {.suite = seal->suite->number, .purpose = purpose, .kek = KEYS_NUMBER};
    const struct sealed_name name = {seal->host, key, generation, purpose};
    uint8_t aad[SEALED_AAD_MAX];
    size_t aad_length = sealed_aad(&name, sealed.suite, sealed.kek, aad);
    CK_OBJECT_HANDLE kek = kek_of(seal, sealed.kek);
    if (aad_length == 0 || kek == CK_INVALID_HANDLE)
        return error_set(err, ERROR_FAILED_PRECONDITION, "the token has no %s to seal with",
                         keys_label(KEYS_KEK));
    if (token_random(seal->token, sealed.iv, sizeof(sealed.iv), err) != 0)
        return -1;
    if (seal->suite->encrypt(seal->token, kek, sealed.iv, aad, aad_length, seal->room,
                             SEAL_KEY_SIZE, sealed.body, &sealed.body_length, err) != 0)
        return -1;
    *length = sealed_encode(&sealed, blob);
    return 0;
}

int seal_unwrap(struct seal *seal, const char *key, uint64_t generation, const uint8_t *blob,
                size_t length, struct error *err)
{
    struct sealed sealed;
    if (sealed_parse(&sealed, blob, length, err) != 0)
        return -1;
    const struct suite *suite = suite_of(sealed.suite);
    CK_OBJECT_HANDLE kek = sealed.kek == KEYS_NUMBER ? seal->keys->unsealing : CK_INVALID_HANDLE;
    if (suite == NULL || kek == CK_INVALID_HANDLE)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the token does not have the key that it was sealed with (custody-kek-%u)",
                         (unsigned)sealed.kek);
    const struct sealed_name name = {seal->host, key, generation, sealed.purpose};
    uint8_t aad[SEALED_AAD_MAX];
    size_t aad_length = sealed_aad(&name, sealed.suite, sealed.kek, aad);
    if (aad_length == 0)
        return error_set(err, ERROR_INTERNAL, "the key's name does not fit its binding");
    size_t got = 0;
    struct error cause;
    if (suite->decrypt(seal->token, kek, sealed.iv, aad, aad_length, sealed.body,
                       sealed.body_length, seal->room, &got, &cause) != 0) {
        seal_wipe(seal);
        // SoftHSM calls a wrong tag CKR_GENERAL_ERROR, as it calls much else.
        if (cause.code == ERROR_INTERNAL || cause.code == ERROR_DATA_LOSS)
            return error_set(err, ERROR_DATA_LOSS,
                             "what the token holds cannot be unsealed: it was changed, or is of "
                             "another host or key (%.200s)",
                             cause.message);
        if (err != NULL)
            *err = cause;
        return -1;
    }
    if (got == SEAL_KEY_SIZE)
        return 0;
    seal_wipe(seal);
    return error_set(err, ERROR_DATA_LOSS, "an unsealed key has %zu bytes, not %d", got,
                     SEAL_KEY_SIZE);
}

int seal_try(struct seal *seal, struct error *err)
{
    uint8_t blob[SEALED_MAX];
    size_t length = 0;
    int result = seal_wrap(seal, "try", 0, PURPOSE_WIREGUARD, blob, &length, err);
    if (result == 0)
        result = seal_unwrap(seal, "try", 0, blob, length, err);
    seal_wipe(seal);
    return result;
}
