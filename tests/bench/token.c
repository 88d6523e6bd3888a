// SPDX-License-Identifier: Apache-2.0
// PKCS#11 by p11-kit, in the least number of calls that do what a release does.
#include "token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>
#include <sodium.h>

#define IV_SIZE  12
#define TAG_SIZE 16
#define SLOTS    32

struct token {
    CK_FUNCTION_LIST *module;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE kek, public_key, signing_key;
    const char *label; // of a signing key that is not ours to destroy
    uint8_t iv[IV_SIZE];
    uint8_t sealed[TOKEN_SECRET_SIZE + TAG_SIZE];
};

static uint8_t associated[64] = "host, key name, generation, purpose and suite, as custody binds";

static int check(CK_RV rv, const char *call, struct error *err)
{
    if (rv == CKR_OK)
        return 0;
    return error_set(err, ERROR_INTERNAL, "%s: %s (0x%lx)", call, p11_kit_strerror(rv), rv);
}

static int find_slot(CK_FUNCTION_LIST *module, P11KitUri *uri, CK_SLOT_ID *slot, struct error *err)
{
    CK_SLOT_ID slots[SLOTS];
    CK_ULONG count = SLOTS;
    CK_TOKEN_INFO info;

    if (check(module->C_GetSlotList(CK_TRUE, slots, &count), "C_GetSlotList", err) != 0)
        return -1;
    for (CK_ULONG i = 0; i < count; i++) {
        if (module->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
            p11_kit_uri_match_token_info(uri, &info)) {
            *slot = slots[i];
            return 0;
        }
    }
    return error_set(err, ERROR_NOT_FOUND, "no token in %lu slots is the URI's", count);
}

static int login(struct token *token, const char *pin_source, struct error *err)
{
    char pin[256];
    const char *path = pin_source;
    FILE *file;
    int result = -1;

    if (path != NULL && strncmp(path, "file:", 5) == 0)
        path += 5;
    file = path == NULL ? NULL : fopen(path, "re");
    if (file == NULL)
        return error_set(err, ERROR_NOT_FOUND, "the URI's pin-source cannot be read");
    if (fgets(pin, sizeof(pin), file) != NULL) {
        pin[strcspn(pin, "\n")] = '\0';
        result =
            check(token->module->C_Login(token->session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)),
                  "C_Login", err);
    } else {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s is empty", path);
    }
    sodium_memzero(pin, sizeof(pin));
    fclose(file);
    return result;
}

static int make_keys(struct token *token, struct error *err)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_ULONG size = 32;
    CK_BYTE curve[] = {0x06, 0x03, 0x2b, 0x65, 0x70}; // OID 1.3.101.112, Ed25519 (RFC 8410)
    CK_ATTRIBUTE kek[] = {{CKA_TOKEN, &yes, sizeof(yes)},      {CKA_PRIVATE, &yes, sizeof(yes)},
                          {CKA_SENSITIVE, &yes, sizeof(yes)},  {CKA_EXTRACTABLE, &no, sizeof(no)},
                          {CKA_ENCRYPT, &yes, sizeof(yes)},    {CKA_DECRYPT, &yes, sizeof(yes)},
                          {CKA_VALUE_LEN, &size, sizeof(size)}};
    CK_ATTRIBUTE public[] = {{CKA_TOKEN, &yes, sizeof(yes)},
                             {CKA_VERIFY, &yes, sizeof(yes)},
                             {CKA_EC_PARAMS, curve, sizeof(curve)}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &yes, sizeof(yes)},
                              {CKA_PRIVATE, &yes, sizeof(yes)},
                              {CKA_SENSITIVE, &yes, sizeof(yes)},
                              {CKA_EXTRACTABLE, &no, sizeof(no)},
                              {CKA_SIGN, &yes, sizeof(yes)}};
    CK_MECHANISM aes = {CKM_AES_KEY_GEN, NULL, 0};
    CK_MECHANISM edwards = {CKM_EC_EDWARDS_KEY_PAIR_GEN, NULL, 0};

    if (check(token->module->C_GenerateKey(token->session, &aes, kek, sizeof(kek) / sizeof(*kek),
                                           &token->kek),
              "C_GenerateKey", err) != 0)
        return -1;
    return check(token->module->C_GenerateKeyPair(
                     token->session, &edwards, public, sizeof(public) / sizeof(*public), private,
                     sizeof(private) / sizeof(*private), &token->public_key, &token->signing_key),
                 "C_GenerateKeyPair", err);
}

static int find_key(struct token *token, struct error *err)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof(class)},
                             {CKA_LABEL, (void *)token->label, strlen(token->label)}};
    CK_ULONG count = 0;

    if (check(token->module->C_FindObjectsInit(token->session, wanted, 2), "C_FindObjectsInit",
              err) != 0 ||
        check(token->module->C_FindObjects(token->session, &token->signing_key, 1, &count),
              "C_FindObjects", err) != 0 ||
        check(token->module->C_FindObjectsFinal(token->session), "C_FindObjectsFinal", err) != 0)
        return -1;
    return count == 1 ? 0
                      : error_set(err, ERROR_NOT_FOUND, "the token has no key '%s'", token->label);
}

static int open_session(struct token *token, P11KitUri *uri, struct error *err)
{
    CK_SLOT_ID slot;

    if (check(p11_kit_module_initialize(token->module), "C_Initialize", err) != 0 ||
        find_slot(token->module, uri, &slot, err) != 0)
        return -1;
    if (check(token->module->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
                                           &token->session),
              "C_OpenSession", err) != 0)
        return -1;
    return login(token, p11_kit_uri_get_pin_source(uri), err);
}

static int open_token(const char *text, const char *label, struct token **out, struct error *err)
{
    struct token *token = calloc(1, sizeof(*token));
    P11KitUri *uri = p11_kit_uri_new();
    const char *path;
    int result = -1;

    if (token == NULL || uri == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto cleanup;
    }
    if (p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri) != P11_KIT_URI_OK ||
        (path = p11_kit_uri_get_module_path(uri)) == NULL) {
        error_set(err, ERROR_INVALID_ARGUMENT, "'%s' is no PKCS#11 URI with a module-path", text);
        goto cleanup;
    }
    token->module = p11_kit_module_load(path, 0);
    if (token->module == NULL) {
        error_set(err, ERROR_NOT_FOUND, "%s: %s", path, p11_kit_message());
        goto cleanup;
    }
    token->label = label;
    if (open_session(token, uri, err) != 0 ||
        (label != NULL ? find_key(token, err) : make_keys(token, err)) != 0)
        goto cleanup;
    *out = token;
    token = NULL;
    result = 0;
cleanup:
    token_close(token);
    p11_kit_uri_free(uri);
    return result;
}

int token_open(const char *uri, struct token **out, struct error *err)
{
    return open_token(uri, NULL, out, err);
}

int token_open_key(const char *uri, const char *label, struct token **out, struct error *err)
{
    return open_token(uri, label, out, err);
}

void token_close(struct token *token)
{
    if (token == NULL)
        return;
    if (token->module != NULL) {
        const CK_OBJECT_HANDLE objects[] = {token->kek, token->public_key, token->signing_key};
        for (size_t i = 0;
             token->label == NULL && token->session != 0 && i < sizeof(objects) / sizeof(*objects);
             i++) {
            if (objects[i] != 0)
                token->module->C_DestroyObject(token->session, objects[i]);
        }
        p11_kit_module_finalize(token->module);
        p11_kit_module_release(token->module);
    }
    free(token);
}

static CK_GCM_PARAMS gcm(struct token *token)
{
    return (CK_GCM_PARAMS){.pIv = token->iv,
                           .ulIvLen = IV_SIZE,
                           .ulIvBits = IV_SIZE * 8,
                           .pAAD = associated,
                           .ulAADLen = sizeof(associated),
                           .ulTagBits = TAG_SIZE * 8};
}

int token_seal(struct token *token, const uint8_t secret[TOKEN_SECRET_SIZE], struct error *err)
{
    CK_GCM_PARAMS parameters = gcm(token);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    CK_ULONG length = sizeof(token->sealed);

    randombytes_buf(token->iv, sizeof(token->iv));
    if (check(token->module->C_EncryptInit(token->session, &mechanism, token->kek), "C_EncryptInit",
              err) != 0)
        return -1;
    return check(token->module->C_Encrypt(token->session, (CK_BYTE *)secret, TOKEN_SECRET_SIZE,
                                          token->sealed, &length),
                 "C_Encrypt", err);
}

int token_unseal(struct token *token, uint8_t secret[TOKEN_SECRET_SIZE], struct error *err)
{
    CK_GCM_PARAMS parameters = gcm(token);
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof(parameters)};
    uint8_t room[sizeof(token->sealed)]; // SoftHSM wants room for the tag as well
    CK_ULONG length = sizeof(room);
    int result = -1;

    if (check(token->module->C_DecryptInit(token->session, &mechanism, token->kek), "C_DecryptInit",
              err) == 0 &&
        check(token->module->C_Decrypt(token->session, token->sealed, sizeof(token->sealed), room,
                                       &length),
              "C_Decrypt", err) == 0) {
        memcpy(secret, room, TOKEN_SECRET_SIZE);
        result = 0;
    }
    sodium_memzero(room, sizeof(room));
    return result;
}

int token_sign(struct token *token, const void *text, size_t length,
               uint8_t signature[TOKEN_SIGNATURE_SIZE], struct error *err)
{
    CK_MECHANISM mechanism = {CKM_EDDSA, NULL, 0};
    CK_ULONG size = TOKEN_SIGNATURE_SIZE;

    if (check(token->module->C_SignInit(token->session, &mechanism, token->signing_key),
              "C_SignInit", err) != 0)
        return -1;
    return check(token->module->C_Sign(token->session, (CK_BYTE *)text, length, signature, &size),
                 "C_Sign", err);
}
