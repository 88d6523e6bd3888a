// SPDX-License-Identifier: Apache-2.0
// The probe's checks, one function each.
#include "probe.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "ckr.h"
#include "object.h"
#include "seal.h"
#include "sign.h"

// What a check works with. After each operation that fails the session is a new one, and session
// objects end with theirs: so each check makes its own.
struct probe {
    struct token *token;
    const struct keys *keys; // NULL where the token is not initialised
};

// Returns 0 when the token does what is asked, else -1 with `err`. `detail` may be filled in either
// case.
typedef int check_fn(struct probe *probe, char detail[128], struct error *err);

static int refused(struct error *err, const char *what)
{
    return error_set(err, ERROR_FAILED_PRECONDITION, "%s", what);
}

static int check_random(struct probe *probe, char detail[128], struct error *err)
{
    unsigned char a[32] = {0}, b[32] = {0};
    if (token_random(probe->token, a, sizeof(a), err) != 0 ||
        token_random(probe->token, b, sizeof(b), err) != 0)
        return -1;
    if (sodium_is_zero(a, sizeof(a)) || memcmp(a, b, sizeof(a)) == 0)
        return refused(err, "C_GenerateRandom gave the same bytes twice, or zeros");
    return 0;
}

enum gcm_twist { GCM_HONEST, GCM_TAG, GCM_AAD };

// Seals 32 bytes, changes what `twist` says, and unseals.
static int gcm_trip(struct probe *probe, enum gcm_twist twist, struct error *err)
{
    CK_OBJECT_HANDLE kek, unused;
    uint8_t iv[SEALED_IV_SIZE], plain[32] = "thirty-two bytes that are known";
    uint8_t aad[] = "additional data", body[SEALED_BODY_MAX], back[SEALED_BODY_MAX];
    size_t length = 0, back_length = 0;
    if (keys_generate(probe->token, KEYS_KEK, false, &kek, &unused, err) != 0 ||
        token_random(probe->token, iv, sizeof(iv), err) != 0 ||
        seal_gcm_encrypt(probe->token, kek, iv, aad, sizeof(aad), plain, sizeof(plain), body,
                         &length, err) != 0)
        return -1;
    if (twist == GCM_TAG)
        body[length - 1] ^= 1;
    if (twist == GCM_AAD)
        aad[0] ^= 1;
    int result = seal_gcm_decrypt(probe->token, kek, iv, aad, sizeof(aad), body, length, back,
                                  &back_length, err);
    if (result == 0 && (back_length != sizeof(plain) || memcmp(back, plain, sizeof(plain)) != 0))
        result = refused(err, "AES-GCM gave back other bytes");
    token_module(probe->token)->C_DestroyObject(token_session(probe->token), kek);
    return result;
}

static int check_gcm(struct probe *probe, char detail[128], struct error *err)
{
    return gcm_trip(probe, GCM_HONEST, err);
}

static int check_gcm_tag(struct probe *probe, char detail[128], struct error *err)
{
    struct error cause;
    if (gcm_trip(probe, GCM_TAG, &cause) == 0)
        return refused(err, "AES-GCM accepted a changed tag");
    snprintf(detail, 128, "refused");
    return 0;
}

static int check_gcm_aad(struct probe *probe, char detail[128], struct error *err)
{
    struct error cause;
    if (gcm_trip(probe, GCM_AAD, &cause) == 0)
        return refused(err, "AES-GCM accepted other additional data");
    snprintf(detail, 128, "refused");
    return 0;
}

static int check_gcm_iv(struct probe *probe, char detail[128], struct error *err)
{
    CK_OBJECT_HANDLE kek, unused;
    if (keys_generate(probe->token, KEYS_KEK, false, &kek, &unused, err) != 0)
        return -1;
    CK_GCM_PARAMS parameters = {.tag_bits = 128};
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    CK_RV rv =
        token_module(probe->token)->C_EncryptInit(token_session(probe->token), &mechanism, kek);
    if (rv == CKR_OK) {
        return refused(err, "the token accepts an empty IV; the keeper never gives one");
    }
    snprintf(detail, 128, "refused (%s)", ckr_name(rv));
    return 0;
}

static int check_sign(struct probe *probe, char detail[128], struct error *err)
{
    CK_OBJECT_HANDLE key, public_half;
    uint8_t public_key[32], signature[NOTE_SIGNATURE_SIZE];
    static const unsigned char text[] = "a text that custody-keeper signs to try the token\n";
    if (keys_generate(probe->token, KEYS_LOG, false, &key, &public_half, err) != 0)
        return -1;
    int result = keys_read_public(probe->token, public_half, public_key, err);
    if (result == 0)
        result = sign_ed25519(probe->token, key, text, sizeof(text) - 1, signature, err);
    if (result == 0 &&
        crypto_sign_verify_detached(signature, text, sizeof(text) - 1, public_key) != 0)
        result = refused(err, "libsodium does not verify the token's Ed25519 signature");
    if (result == 0)
        snprintf(detail, 128, "verified with libsodium");
    return result;
}

static int check_data(struct probe *probe, char detail[128], struct error *err)
{
    uint8_t value[SEALED_MAX];
    CK_OBJECT_HANDLE object;
    randombytes_buf(value, sizeof(value));
    if (object_create_data(probe->token, "custody-probe", value, sizeof(value), &object, err) != 0)
        return -1;
    return object_destroy(probe->token, object, err);
}

static int check_hmac(struct probe *probe, char detail[128], struct error *err)
{
    CK_OBJECT_HANDLE key, unused;
    if (keys_generate(probe->token, KEYS_MAC, false, &key, &unused, err) != 0)
        return -1;
    CK_FUNCTION_LIST *p11 = token_module(probe->token);
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    unsigned char text[] = "text", mac[2][32];
    for (int i = 0; i < 2; i++) {
        CK_ULONG length = sizeof(mac[i]);
        CK_RV rv = p11->C_SignInit(token_session(probe->token), &mechanism, key);
        if (rv == CKR_OK)
            rv = p11->C_Sign(token_session(probe->token), text, sizeof(text), mac[i], &length);
        if (rv != CKR_OK)
            return token_fail(probe->token, rv, "C_Sign (SHA256-HMAC)", err);
        if (length != sizeof(mac[i]))
            return refused(err, "SHA256-HMAC has a wrong length");
    }
    if (sodium_memcmp(mac[0], mac[1], sizeof(mac[0])) != 0)
        return refused(err, "SHA256-HMAC of one text differs from itself");
    return 0;
}

// The key of a role: the token's own where there is one, else a session object made as that is.
static int key_of(struct probe *probe, enum keys_role role, CK_OBJECT_HANDLE *key,
                  struct error *err)
{
    CK_OBJECT_HANDLE unused;
    if (probe->keys != NULL) {
        *key = probe->keys->handle[role];
        return 0;
    }
    return keys_generate(probe->token, role, false, key, &unused, err);
}

static int check_kept(struct probe *probe, enum keys_role role, char detail[128], struct error *err)
{
    CK_OBJECT_HANDLE key;
    if (key_of(probe, role, &key, err) != 0)
        return -1;
    uint8_t *value = sodium_malloc(256);
    if (value == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory");
    size_t length = 0;
    int got = object_read(probe->token, key, CKA_VALUE, value, 256, &length, err);
    sodium_free(value);
    if (got == 0)
        return refused(err, "the token gave the key's value away");
    snprintf(detail, 128, "refused");
    return 0;
}

static int check_kek_kept(struct probe *probe, char detail[128], struct error *err)
{
    return check_kept(probe, KEYS_KEK, detail, err);
}

static int check_signing_kept(struct probe *probe, char detail[128], struct error *err)
{
    return check_kept(probe, KEYS_LOG, detail, err);
}

// A session key that may wrap.
static int make_wrapper(struct probe *probe, CK_OBJECT_HANDLE *wrapper, struct error *err)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG bytes = 32;
    CK_ATTRIBUTE attributes[] = {
        {CKA_TOKEN, &no, sizeof(no)},       {CKA_VALUE_LEN, &bytes, sizeof(bytes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)}, {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_WRAP, &yes, sizeof(yes)},
    };
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_RV rv = token_module(probe->token)
                   ->C_GenerateKey(token_session(probe->token), &mechanism, attributes, 5, wrapper);
    return rv == CKR_OK ? 0 : token_fail(probe->token, rv, "C_GenerateKey", err);
}

// Tries to wrap `key` by each mechanism that could. Returns -1 when one succeeds.
static int try_wraps(struct probe *probe, CK_OBJECT_HANDLE wrapper, CK_OBJECT_HANDLE key,
                     char detail[128], struct error *err)
{
    static const CK_MECHANISM_TYPE kinds[] = {CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD,
                                              CKM_AES_CBC_PAD, CKM_AES_ECB};
    unsigned char iv[16] = {1};
    uint8_t *out = sodium_malloc(512);
    if (out == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory");
    int result = 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && result == 0; i++) {
        CK_MECHANISM mechanism = {kinds[i], NULL, 0};
        if (kinds[i] == CKM_AES_CBC_PAD) {
            mechanism.pParameter = iv;
            mechanism.ulParameterLen = sizeof(iv);
        }
        CK_ULONG length = 512;
        CK_RV rv =
            token_module(probe->token)
                ->C_WrapKey(token_session(probe->token), &mechanism, wrapper, key, out, &length);
        if (rv == CKR_OK)
            result = refused(err, "the token wrapped the key out");
        else
            snprintf(detail, 128, "refused (%s)", ckr_name(rv));
    }
    sodium_free(out);
    return result;
}

static int check_unwrappable(struct probe *probe, enum keys_role role, char detail[128],
                             struct error *err)
{
    CK_OBJECT_HANDLE key, wrapper;
    if (key_of(probe, role, &key, err) != 0 || make_wrapper(probe, &wrapper, err) != 0)
        return -1;
    return try_wraps(probe, wrapper, key, detail, err);
}

static int check_kek_unwrappable(struct probe *probe, char detail[128], struct error *err)
{
    return check_unwrappable(probe, KEYS_KEK, detail, err);
}

static int check_signing_unwrappable(struct probe *probe, char detail[128], struct error *err)
{
    return check_unwrappable(probe, KEYS_LOG, detail, err);
}

static int check_kek_wraps_nothing(struct probe *probe, char detail[128], struct error *err)
{
    CK_OBJECT_HANDLE kek, other;
    if (key_of(probe, KEYS_KEK, &kek, err) != 0)
        return -1;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG bytes = 32;
    CK_ATTRIBUTE attributes[] = {{CKA_TOKEN, &no, sizeof(no)},
                                 {CKA_VALUE_LEN, &bytes, sizeof(bytes)},
                                 {CKA_EXTRACTABLE, &yes, sizeof(yes)}};
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_RV rv = token_module(probe->token)
                   ->C_GenerateKey(token_session(probe->token), &mechanism, attributes, 3, &other);
    if (rv != CKR_OK)
        return token_fail(probe->token, rv, "C_GenerateKey", err);
    return try_wraps(probe, kek, other, detail, err);
}

static const struct {
    const char *name;
    bool required;
    check_fn *check;
} checks[] = {
    {"random numbers", true, check_random},
    {"aes-gcm seals and unseals", true, check_gcm},
    {"aes-gcm refuses a changed tag", true, check_gcm_tag},
    {"aes-gcm refuses other additional data", true, check_gcm_aad},
    {"aes-gcm refuses an empty IV", false, check_gcm_iv},
    {"ed25519 signs", true, check_sign},
    {"private data objects", true, check_data},
    {"sha256-hmac", false, check_hmac},
    {"sealing key: its value is kept", true, check_kek_kept},
    {"sealing key: cannot be wrapped", true, check_kek_unwrappable},
    {"sealing key: wraps nothing", true, check_kek_wraps_nothing},
    {"signing key: its value is kept", true, check_signing_kept},
    {"signing key: cannot be wrapped", true, check_signing_unwrappable},
};

_Static_assert(sizeof(checks) / sizeof(checks[0]) <= KEEPER_PROBE_MAX, "the answer has room");

void probe_run(struct token *token, const struct keys *keys, struct keeper_probe *out)
{
    memset(out, 0, sizeof(*out));
    struct probe probe = {token, keys};
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        struct keeper_probe_check *check = &out->checks[out->count++];
        struct error err = {0};
        snprintf(check->name, sizeof(check->name), "%s", checks[i].name);
        check->required = checks[i].required;
        check->passed = checks[i].check(&probe, check->detail, &err) == 0;
        if (!check->passed)
            snprintf(check->detail, sizeof(check->detail), "%.127s", err.message);
        // Ends the session, and with it the objects that the check made.
        token_renew(token);
    }
}
