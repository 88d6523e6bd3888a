// SPDX-License-Identifier: Apache-2.0
// SSH signatures (OpenSSH's PROTOCOL.sshsig) by an ed25519 key, written independently of
// proto/sshsig.c.
#include "ssh_signer.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"

#define BLOB_MAX 512

struct blob {
    uint8_t bytes[BLOB_MAX];
    size_t size;
};

static void put(struct blob *blob, const void *bytes, size_t length)
{
    REQUIRE(length <= sizeof(blob->bytes) - blob->size);
    memcpy(blob->bytes + blob->size, bytes, length);
    blob->size += length;
}

static void put_string(struct blob *blob, const void *bytes, size_t length)
{
    const uint8_t head[4] = {0, 0, (uint8_t)(length >> 8), (uint8_t)length};
    put(blob, head, sizeof(head));
    put(blob, bytes, length);
}

static void put_text(struct blob *blob, const char *text)
{
    put_string(blob, text, strlen(text));
}

void ssh_signer_make(struct ssh_signer *signer, uint8_t seed)
{
    uint8_t bytes[crypto_sign_SEEDBYTES], public_key[crypto_sign_PUBLICKEYBYTES];
    struct blob blob = {.size = 0};
    memset(bytes, seed, sizeof(bytes));
    crypto_sign_seed_keypair(public_key, signer->secret, bytes);
    put_text(&blob, "ssh-ed25519");
    put_string(&blob, public_key, sizeof(public_key));
    memcpy(signer->blob, blob.bytes, blob.size);
    signer->blob_size = blob.size;
    int used = snprintf(signer->public_key, sizeof(signer->public_key), "ssh-ed25519 ");
    sodium_bin2base64(signer->public_key + used, sizeof(signer->public_key) - (size_t)used,
                      blob.bytes, blob.size, sodium_base64_VARIANT_ORIGINAL);
}

void ssh_signer_sign(const struct ssh_signer *signer, const char *name_space, const void *message,
                     size_t length, char signature[RECORD_SIGNATURE_MAX + 1])
{
    uint8_t digest[crypto_hash_sha512_BYTES], raw[crypto_sign_BYTES];
    struct blob text = {.size = 0}, inner = {.size = 0}, whole = {.size = 0};
    crypto_hash_sha512(digest, message, length);
    put(&text, "SSHSIG", 6);
    put_text(&text, name_space);
    put_text(&text, "");
    put_text(&text, "sha512");
    put_string(&text, digest, sizeof(digest));
    crypto_sign_detached(raw, NULL, text.bytes, text.size, signer->secret);
    put_text(&inner, "ssh-ed25519");
    put_string(&inner, raw, sizeof(raw));
    put(&whole, "SSHSIG\0\0\0\1", 10);
    put_string(&whole, signer->blob, signer->blob_size);
    put_text(&whole, name_space);
    put_text(&whole, "");
    put_text(&whole, "sha512");
    put_string(&whole, inner.bytes, inner.size);
    sodium_bin2base64(signature, RECORD_SIGNATURE_MAX + 1, whole.bytes, whole.size,
                      sodium_base64_VARIANT_ORIGINAL);
}
