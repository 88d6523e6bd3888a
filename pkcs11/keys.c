// SPDX-License-Identifier: Apache-2.0
// custody's keys in the token: private, sensitive, not extractable, each for one use.
#include "keys.h"

#include <string.h>

#include "object.h"

struct role {
    const char *label; // CKA_LABEL and CKA_ID alike: keys have no CKA_APPLICATION
    CK_OBJECT_CLASS class;
};

static const struct role roles[KEYS_ROLES] = {
    [KEYS_KEK] = {"custody-kek-1", CKO_SECRET_KEY},
    [KEYS_MAC] = {"custody-mac-1", CKO_SECRET_KEY},
    [KEYS_PSK] = {"custody-psk-1", CKO_SECRET_KEY},
    [KEYS_LOG] = {"custody-log-1", CKO_PRIVATE_KEY},
    [KEYS_HOST] = {"custody-host-1", CKO_PRIVATE_KEY},
};

// id-Ed25519 (RFC 8410, 1.3.101.112), in DER.
static const unsigned char ed25519_oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};

const char *keys_label(enum keys_role role)
{
    return roles[role].label;
}

static bool signs(enum keys_role role)
{
    return roles[role].class == CKO_PRIVATE_KEY;
}

// Finds the one object of `class` that bears the role's name; CK_INVALID_HANDLE when there is none.
static int find_one(struct token *token, enum keys_role role, CK_OBJECT_CLASS class,
                    CK_OBJECT_HANDLE *handle, struct error *err)
{
    CK_BBOOL yes = CK_TRUE;
    const char *label = roles[role].label;
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_LABEL, (void *)label, (CK_ULONG)strlen(label)},
        {CKA_ID, (void *)label, (CK_ULONG)strlen(label)},
    };
    CK_OBJECT_HANDLE found[8];
    size_t count = 0;
    *handle = CK_INVALID_HANDLE;
    if (object_find(token, attributes, 4, found, 8, &count, err) != 0)
        return -1;
    if (count > 1)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "token '%s' holds %zu objects %s of one class: it cannot be told which is "
                         "right; remove what was copied in",
                         token_describe(token)->label, count, label);
    if (count == 1)
        *handle = found[0];
    return 0;
}

// A key that could leave the token is no key of ours.
static int check_guarded(struct token *token, enum keys_role role, CK_OBJECT_HANDLE handle,
                         struct error *err)
{
    CK_BBOOL sensitive = CK_FALSE, extractable = CK_TRUE;
    size_t length = 0;
    if (object_read(token, handle, CKA_SENSITIVE, &sensitive, sizeof(sensitive), &length, err) < 0)
        return -1;
    if (object_read(token, handle, CKA_EXTRACTABLE, &extractable, sizeof(extractable), &length,
                    err) < 0)
        return -1;
    if (sensitive == CK_TRUE && extractable == CK_FALSE)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "token '%s': %s is %s: this token does not keep its keys, and is refused",
                     token_describe(token)->label, roles[role].label,
                     extractable == CK_FALSE ? "not sensitive" : "extractable");
}

int keys_read_public(struct token *token, CK_OBJECT_HANDLE object, uint8_t public_key[32],
                     struct error *err)
{
    // An OCTET STRING around the point, as PKCS #11 asks; some modules leave it out.
    unsigned char point[64];
    size_t length = 0;
    int got = object_read(token, object, CKA_EC_POINT, point, sizeof(point), &length, err);
    if (got < 0)
        return -1;
    if (got == 0 && length == 34 && point[0] == 0x04 && point[1] == 0x20)
        memcpy(public_key, point + 2, 32);
    else if (got == 0 && length == 32)
        memcpy(public_key, point, 32);
    else
        return error_set(err, ERROR_DATA_LOSS, "token '%s': a public key has no Ed25519 point",
                         token_describe(token)->label);
    return 0;
}

// SoftHSM reads a token object's file at each use, and a session object's not: measured, that is
// half of what unsealing takes. The copy cannot leave the token either, or it is not used.
static CK_OBJECT_HANDLE copy_of(struct token *token, const struct keys *keys, enum keys_role role)
{
    CK_BBOOL no = CK_FALSE;
    CK_ATTRIBUTE changed = {CKA_TOKEN, &no, sizeof(no)};
    CK_OBJECT_HANDLE own = keys->handle[role], copy = CK_INVALID_HANDLE;
    if (own == CK_INVALID_HANDLE ||
        token_module(token)->C_CopyObject(token_anchor(token), own, &changed, 1, &copy) != CKR_OK)
        return own;
    if (check_guarded(token, role, copy, NULL) == 0)
        return copy;
    token_module(token)->C_DestroyObject(token_anchor(token), copy);
    return own;
}

static void copy_keys(struct token *token, struct keys *keys)
{
    keys->unsealing = copy_of(token, keys, KEYS_KEK);
    keys->deriving = copy_of(token, keys, KEYS_PSK);
}

static bool all_there(const struct keys *keys)
{
    for (int role = 0; role < KEYS_ROLES; role++)
        if (keys->handle[role] == CK_INVALID_HANDLE ||
            (signs(role) && keys->public_handle[role] == CK_INVALID_HANDLE))
            return false;
    return true;
}

int keys_find(struct token *token, struct keys *keys, struct error *err)
{
    struct error unguarded = {.code = ERROR_OK};
    memset(keys, 0, sizeof(*keys));
    for (int role = 0; role < KEYS_ROLES; role++) {
        CK_OBJECT_HANDLE *handle = &keys->handle[role];
        if (find_one(token, role, roles[role].class, handle, err) != 0)
            return -1;
        if (*handle != CK_INVALID_HANDLE && check_guarded(token, role, *handle, &unguarded) != 0) {
            if (unguarded.code != ERROR_FAILED_PRECONDITION) {
                *err = unguarded;
                return -1;
            }
            keys->torn = true;
        }
        if (!signs(role))
            continue;
        CK_OBJECT_HANDLE *public_handle = &keys->public_handle[role];
        if (find_one(token, role, CKO_PUBLIC_KEY, public_handle, err) != 0)
            return -1;
        if (*public_handle != CK_INVALID_HANDLE &&
            keys_read_public(token, *public_handle, keys->public_key[role], err) != 0) {
            if (err->code != ERROR_DATA_LOSS)
                return -1;
            keys->torn = true;
        }
    }
    // Where some are missing, a crash may have kept it from being guarded: it is made anew.
    if (unguarded.code != ERROR_OK && all_there(keys)) {
        *err = unguarded;
        return -1;
    }
    copy_keys(token, keys);
    return 0;
}

bool keys_complete(const struct keys *keys)
{
    return all_there(keys) && !keys->torn;
}

static int generate_secret(struct token *token, enum keys_role role, CK_BBOOL on_token,
                           CK_OBJECT_HANDLE *key, struct error *err)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_BBOOL kek = role == KEYS_KEK ? CK_TRUE : CK_FALSE;
    CK_BBOOL mac = role == KEYS_KEK ? CK_FALSE : CK_TRUE;
    CK_ULONG bytes = 32;
    CK_KEY_TYPE type = role == KEYS_KEK ? CKK_AES : CKK_GENERIC_SECRET;
    const char *label = roles[role].label;
    CK_ATTRIBUTE attributes[] = {
        {CKA_KEY_TYPE, &type, sizeof(type)},
        {CKA_VALUE_LEN, &bytes, sizeof(bytes)},
        {CKA_TOKEN, &on_token, sizeof(on_token)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_ENCRYPT, &kek, sizeof(kek)},
        {CKA_DECRYPT, &kek, sizeof(kek)},
        {CKA_SIGN, &mac, sizeof(mac)},
        {CKA_VERIFY, &no, sizeof(no)},
        {CKA_WRAP, &no, sizeof(no)},
        {CKA_UNWRAP, &no, sizeof(no)},
        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_LABEL, (void *)label, (CK_ULONG)strlen(label)},
        {CKA_ID, (void *)label, (CK_ULONG)strlen(label)},
    };
    CK_MECHANISM mechanism = {role == KEYS_KEK ? CKM_AES_KEY_GEN : CKM_GENERIC_SECRET_KEY_GEN, NULL,
                              0};
    CK_RV rv = token_module(token)->C_GenerateKey(token_session(token), &mechanism, attributes,
                                                  sizeof(attributes) / sizeof(attributes[0]), key);
    if (rv == CKR_OK)
        return 0;
    token_fail(token, rv, "C_GenerateKey", err);
    return error_prefix(err, "making %s", label);
}

static int generate_signing(struct token *token, enum keys_role role, CK_BBOOL on_token,
                            CK_OBJECT_HANDLE *key, CK_OBJECT_HANDLE *public_key, struct error *err)
{
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    const char *label = roles[role].label;
    CK_ATTRIBUTE public_half[] = {
        {CKA_EC_PARAMS, (void *)ed25519_oid, sizeof(ed25519_oid)},
        {CKA_TOKEN, &on_token, sizeof(on_token)},
        {CKA_PRIVATE, &no, sizeof(no)},
        {CKA_VERIFY, &yes, sizeof(yes)},
        {CKA_LABEL, (void *)label, (CK_ULONG)strlen(label)},
        {CKA_ID, (void *)label, (CK_ULONG)strlen(label)},
    };
    CK_ATTRIBUTE private_half[] = {
        {CKA_TOKEN, &on_token, sizeof(on_token)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_SIGN, &yes, sizeof(yes)},
        {CKA_DECRYPT, &no, sizeof(no)},
        {CKA_UNWRAP, &no, sizeof(no)},
        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_LABEL, (void *)label, (CK_ULONG)strlen(label)},
        {CKA_ID, (void *)label, (CK_ULONG)strlen(label)},
    };
    CK_MECHANISM mechanism = {CKM_EC_EDWARDS_KEY_PAIR_GEN, NULL, 0};
    CK_RV rv = token_module(token)->C_GenerateKeyPair(
        token_session(token), &mechanism, public_half, sizeof(public_half) / sizeof(public_half[0]),
        private_half, sizeof(private_half) / sizeof(private_half[0]), public_key, key);
    if (rv == CKR_OK)
        return 0;
    token_fail(token, rv, "C_GenerateKeyPair", err);
    return error_prefix(err, "making %s", label);
}

int keys_generate(struct token *token, enum keys_role role, bool on_token, CK_OBJECT_HANDLE *key,
                  CK_OBJECT_HANDLE *public_key, struct error *err)
{
    CK_BBOOL stays = on_token ? CK_TRUE : CK_FALSE;
    if (signs(role))
        return generate_signing(token, role, stays, key, public_key, err);
    return generate_secret(token, role, stays, key, err);
}

static int remove_key(struct token *token, CK_OBJECT_HANDLE *key, struct error *err)
{
    if (*key == CK_INVALID_HANDLE)
        return 0;
    if (object_destroy(token, *key, err) != 0)
        return -1;
    *key = CK_INVALID_HANDLE;
    return 0;
}

int keys_create(struct token *token, struct keys *keys, struct error *err)
{
    // What was found at the start may have gone since, in an attempt that failed.
    if (keys_find(token, keys, err) != 0)
        return -1;
    for (int role = 0; role < KEYS_ROLES; role++) {
        if (remove_key(token, &keys->handle[role], err) != 0 ||
            remove_key(token, &keys->public_handle[role], err) != 0 ||
            keys_generate(token, role, true, &keys->handle[role], &keys->public_handle[role],
                          err) != 0)
            return -1;
    }
    // Read everything back from the token, rather than trust what its calls answered.
    if (token_sync(token, err) != 0 || keys_find(token, keys, err) != 0)
        return -1;
    if (!keys_complete(keys))
        return error_set(err, ERROR_DATA_LOSS,
                         "token '%s': keys that were made are not found again",
                         token_describe(token)->label);
    return 0;
}
