// SPDX-License-Identifier: Apache-2.0
// Parsing of SSH's length-prefixed strings, and the four kinds of signature.
#include "sshsig.h"

#include <stdint.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <sodium.h>

#include "lines.h"

#define MAGIC        "SSHSIG"
#define USER_PRESENT 0x01 // PROTOCOL.u2f: flag of a security key's signature
#define POINT_SIZE   65   // an uncompressed point of P-256
#define DIGEST_MAX   64

struct kind {
    const char *type;
    bool ecdsa;
    bool security_key;
};

static const struct kind kinds[] = {
    {"ssh-ed25519", false, false},
    {"ecdsa-sha2-nistp256", true, false},
    {"sk-ssh-ed25519@openssh.com", false, true},
    {"sk-ecdsa-sha2-nistp256@openssh.com", true, true},
};

// What is left of a blob; borrowed.
struct blob {
    const uint8_t *at;
    size_t left;
};

struct key {
    const struct kind *kind;
    uint8_t bytes[SSHSIG_BLOB_MAX];
    size_t size;
    struct blob point;       // the public key itself
    struct blob application; // of a security key
};

// ---- reading ----

static bool take_bytes(struct blob *blob, size_t length, struct blob *bytes)
{
    if (length > blob->left)
        return false;
    *bytes = (struct blob){blob->at, length};
    blob->at += length;
    blob->left -= length;
    return true;
}

static bool take_u32(struct blob *blob, uint32_t *value)
{
    struct blob bytes;
    if (!take_bytes(blob, 4, &bytes))
        return false;
    *value = (uint32_t)bytes.at[0] << 24 | (uint32_t)bytes.at[1] << 16 |
             (uint32_t)bytes.at[2] << 8 | bytes.at[3];
    return true;
}

static bool take_string(struct blob *blob, struct blob *string)
{
    uint32_t length;
    return take_u32(blob, &length) && take_bytes(blob, length, string);
}

static bool is_text(const struct blob *string, const char *text)
{
    return string->left == strlen(text) && memcmp(string->at, text, string->left) == 0;
}

static bool take_text(struct blob *blob, const char *text)
{
    struct blob string;
    return take_string(blob, &string) && is_text(&string, text);
}

static bool decode(const char *base64, size_t length, uint8_t *bytes, size_t *size)
{
    struct line line = {.text = base64, .length = length};
    return line_base64_any(&line, bytes, SSHSIG_BLOB_MAX, size);
}

// The key's own blob (RFC 8709 section 4, RFC 5656 section 3.1, PROTOCOL.u2f), whose type must be
// `kind`'s.
static bool parse_key_blob(struct key *key)
{
    struct blob blob = {key->bytes, key->size};
    if (!take_text(&blob, key->kind->type) || (key->kind->ecdsa && !take_text(&blob, "nistp256")) ||
        !take_string(&blob, &key->point) ||
        (key->kind->security_key && !take_string(&blob, &key->application)) || blob.left != 0)
        return false;
    if (key->kind->ecdsa)
        return key->point.left == POINT_SIZE && key->point.at[0] == 0x04;
    return key->point.left == crypto_sign_PUBLICKEYBYTES;
}

static int parse_key(struct key *key, const char *text, struct error *err)
{
    const char *blank = strchr(text, ' ');
    size_t type = blank != NULL ? (size_t)(blank - text) : strlen(text);
    memset(key, 0, sizeof(*key));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strlen(kinds[i].type) == type && memcmp(kinds[i].type, text, type) == 0)
            key->kind = &kinds[i];
    if (key->kind == NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "SSH key of type '%.*s': only ed25519 and ecdsa P-256 keys approve, also "
                         "on a security key",
                         (int)(type < 40 ? type : 40), text);
    if (blank == NULL || !decode(blank + 1, strlen(blank + 1), key->bytes, &key->size) ||
        !parse_key_blob(key))
        return error_set(err, ERROR_INVALID_ARGUMENT, "SSH key of type %s is malformed",
                         key->kind->type);
    return 0;
}

int sshsig_check_key(const char *public_key, struct error *err)
{
    struct key key;
    return parse_key(&key, public_key, err);
}

// ---- what is signed ----

static const EVP_MD *digest_named(const struct blob *name)
{
    if (is_text(name, "sha512"))
        return EVP_sha512();
    return is_text(name, "sha256") ? EVP_sha256() : NULL;
}

static size_t put_string(uint8_t *out, const void *bytes, size_t length)
{
    out[0] = (uint8_t)(length >> 24);
    out[1] = (uint8_t)(length >> 16);
    out[2] = (uint8_t)(length >> 8);
    out[3] = (uint8_t)length;
    if (length > 0)
        memcpy(out + 4, bytes, length);
    return 4 + length;
}

// "SSHSIG", namespace, reserved, hash algorithm, H(message). (PROTOCOL.sshsig section 3)
static int signed_data(const char *name_space, const struct blob *algorithm, const void *message,
                       size_t length, uint8_t out[SSHSIG_BLOB_MAX], size_t *size)
{
    uint8_t digest[DIGEST_MAX];
    unsigned digest_size = 0;
    const EVP_MD *md = digest_named(algorithm);
    if (md == NULL || strlen(name_space) > 256 ||
        EVP_Digest(message, length, digest, &digest_size, md, NULL) != 1)
        return -1;
    memcpy(out, MAGIC, 6);
    *size = 6;
    *size += put_string(out + *size, name_space, strlen(name_space));
    *size += put_string(out + *size, "", 0);
    *size += put_string(out + *size, algorithm->at, algorithm->left);
    *size += put_string(out + *size, digest, digest_size);
    return 0;
}

// A security key signs SHA-256(application), flags, counter and SHA-256(data) instead.
// (PROTOCOL.u2f, "SSH U2F Signatures")
static void security_key_data(const struct blob *application, const struct blob *tail,
                              uint8_t data[SSHSIG_BLOB_MAX], size_t *size)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, data, *size);
    crypto_hash_sha256(data, application->at, application->left);
    memcpy(data + sizeof(digest), tail->at, tail->left);
    memcpy(data + sizeof(digest) + tail->left, digest, sizeof(digest));
    *size = 2 * sizeof(digest) + tail->left;
}

// ---- verifying ----

static EVP_PKEY *p256_key(const struct blob *point)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"P-256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point->at, point->left),
        OSSL_PARAM_construct_end(),
    };
    if (context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(context);
    return key;
}

// r and s, as SSH's mpints, into DER. Returns its length, for OPENSSL_free; 0 on failure.
static int ecdsa_der(const struct blob *signature, uint8_t **der)
{
    struct blob rest = *signature, r, s;
    if (!take_string(&rest, &r) || !take_string(&rest, &s) || rest.left != 0 || r.left == 0 ||
        s.left == 0 || r.left > 33 || s.left > 33 || (r.at[0] & 0x80) || (s.at[0] & 0x80))
        return 0;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r_number = BN_bin2bn(r.at, (int)r.left, NULL);
    BIGNUM *s_number = BN_bin2bn(s.at, (int)s.left, NULL);
    int length = 0;
    if (pair != NULL && r_number != NULL && s_number != NULL &&
        ECDSA_SIG_set0(pair, r_number, s_number) == 1)
        length = i2d_ECDSA_SIG(pair, der);
    else {
        BN_free(r_number);
        BN_free(s_number);
    }
    ECDSA_SIG_free(pair);
    return length;
}

static bool verify_ecdsa(const struct key *key, const struct blob *signature, const uint8_t *data,
                         size_t size)
{
    uint8_t *der = NULL;
    int der_length = ecdsa_der(signature, &der);
    EVP_PKEY *public_key = p256_key(&key->point);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = der_length > 0 && public_key != NULL && context != NULL &&
                EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, public_key) == 1 &&
                EVP_DigestVerify(context, der, (size_t)der_length, data, size) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(public_key);
    OPENSSL_free(der);
    return good;
}

static bool verify_raw(const struct key *key, const struct blob *signature, const uint8_t *data,
                       size_t size)
{
    if (key->kind->ecdsa)
        return verify_ecdsa(key, signature, data, size);
    return signature->left == crypto_sign_BYTES &&
           crypto_sign_verify_detached(signature->at, data, size, key->point.at) == 0;
}

// The blob of a signature (its type first), over `data`, which it may change.
static int verify_blob(const struct key *key, struct blob blob, uint8_t data[SSHSIG_BLOB_MAX],
                       size_t size, struct error *err)
{
    struct blob raw, tail = {NULL, 0};
    if (!take_text(&blob, key->kind->type) || !take_string(&blob, &raw) ||
        (key->kind->security_key && !take_bytes(&blob, 5, &tail)) || blob.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the SSH signature is malformed");
    if (key->kind->security_key) {
        if ((tail.at[0] & USER_PRESENT) == 0)
            return error_set(err, ERROR_PERMISSION_DENIED,
                             "nobody touched the security key when it signed");
        security_key_data(&key->application, &tail, data, &size);
    }
    if (!verify_raw(key, &raw, data, size))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "the SSH signature is not one over this text by this key");
    return 0;
}

int sshsig_verify(const char *public_key, const char *name_space, const void *message,
                  size_t length, const char *signature, struct error *err)
{
    struct key key;
    uint8_t bytes[SSHSIG_BLOB_MAX], data[SSHSIG_BLOB_MAX];
    size_t size = 0, data_size = 0;
    struct blob blob, magic, signer, space, reserved, algorithm, inner;
    uint32_t version;
    if (parse_key(&key, public_key, err) != 0)
        return -1;
    if (!decode(signature, strlen(signature), bytes, &size))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the SSH signature is not base64, or too long");
    blob = (struct blob){bytes, size};
    if (!take_bytes(&blob, 6, &magic) || memcmp(magic.at, MAGIC, 6) != 0 ||
        !take_u32(&blob, &version) || version != 1 || !take_string(&blob, &signer) ||
        !take_string(&blob, &space) || !take_string(&blob, &reserved) ||
        !take_string(&blob, &algorithm) || !take_string(&blob, &inner) || blob.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "this is no SSH signature of version 1");
    if (!is_text(&space, name_space))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "the SSH signature is for another purpose: its namespace must be %s",
                         name_space);
    if (signer.left != key.size || memcmp(signer.at, key.bytes, key.size) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED, "the SSH signature is by another key");
    if (signed_data(name_space, &algorithm, message, length, data, &data_size) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the SSH signature uses a hash that is neither sha256 nor sha512");
    return verify_blob(&key, inner, data, data_size, err);
}

int sshsig_signer(const char *signature, char *public_key, size_t size, struct error *err)
{
    uint8_t bytes[SSHSIG_BLOB_MAX];
    char base64[sodium_base64_ENCODED_LEN(SSHSIG_BLOB_MAX, sodium_base64_VARIANT_ORIGINAL)];
    size_t length = 0;
    struct blob blob, magic, signer, type;
    uint32_t version;
    bool sound = decode(signature, strlen(signature), bytes, &length);
    blob = (struct blob){bytes, length};
    sound = sound && take_bytes(&blob, 6, &magic) && memcmp(magic.at, MAGIC, 6) == 0 &&
            take_u32(&blob, &version) && take_string(&blob, &signer);
    if (!sound)
        return error_set(err, ERROR_INVALID_ARGUMENT, "this is no SSH signature");
    sodium_bin2base64(base64, sizeof(base64), signer.at, signer.left,
                      sodium_base64_VARIANT_ORIGINAL);
    if (!take_string(&signer, &type))
        return error_set(err, ERROR_INVALID_ARGUMENT, "this SSH signature names no key");
    int written =
        snprintf(public_key, size, "%.*s %s", (int)type.left, (const char *)type.at, base64);
    if (written < 0 || (size_t)written >= size)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the key of this SSH signature is too long");
    return 0;
}

// ---- armour ----

int sshsig_from_armour(const char *text, size_t length, char *base64, size_t size,
                       struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    struct line line;
    size_t used = 0;
    bool begun = false;
    while (lines_next(&lines, &line)) {
        struct line rest = line;
        if (!begun && line_skip(&rest, "-----BEGIN SSH SIGNATURE-----") && rest.length == 0) {
            begun = true;
        } else if (begun && line_skip(&rest, "-----END SSH SIGNATURE-----") && rest.length == 0) {
            base64[used] = '\0';
            return 0;
        } else if (begun) {
            if (used + line.length >= size)
                return error_set(err, ERROR_INVALID_ARGUMENT,
                                 "the SSH signature is longer than any that custody takes");
            memcpy(base64 + used, line.text, line.length);
            used += line.length;
        }
    }
    return error_set(err, ERROR_INVALID_ARGUMENT,
                     "no SSH signature found: what ssh-keygen -Y sign writes is wanted");
}
