// SPDX-License-Identifier: Apache-2.0
// Fuzzes SSH signatures and their armour: lines KEY, NAMESPACE, SIGNATURE, then the message.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "sshsig.h"
#include "ssh_signer.h"

#define COLUMNS 70 // of an armoured line

// What was accepted is so for this message and this namespace only.
static void require_bound(const char *key, const char *space, const char *signature,
                          const uint8_t *message, size_t length)
{
    char *more = malloc(length + 1), *other = malloc(strlen(space) + 2);
    if (more == NULL || other == NULL)
        abort();
    memcpy(more, message, length);
    more[length] = 'x';
    sprintf(other, "%sx", space);
    REQUIRE(sshsig_check_key(key, NULL) == 0);
    REQUIRE(sshsig_verify(key, space, more, length + 1, signature, NULL) != 0);
    REQUIRE(sshsig_verify(key, other, message, length, signature, NULL) != 0);
    free(more);
    free(other);
}

// Armour, and the base64 out of it again.
static void require_armour(const char *signature)
{
    size_t length = strlen(signature), used = 0;
    char *text = malloc(length * 2 + 128), *again = malloc(length + 1);
    if (text == NULL || again == NULL)
        abort();
    used += (size_t)sprintf(text, "-----BEGIN SSH SIGNATURE-----\n");
    for (size_t at = 0; at < length; at += COLUMNS)
        used += (size_t)sprintf(text + used, "%.*s\n", COLUMNS, signature + at);
    used += (size_t)sprintf(text + used, "-----END SSH SIGNATURE-----\n");
    REQUIRE(sshsig_from_armour(text, used, again, length + 1, NULL) == 0);
    REQUIRE(strcmp(again, signature) == 0);
    if (length > 0)
        REQUIRE(sshsig_from_armour(text, used, again, length, NULL) != 0);
    free(text);
    free(again);
}

static void fuzz_signature(const char *key, const char *space, const char *signature,
                           const uint8_t *message, size_t length)
{
    struct error err = {.code = ERROR_OK};
    if (sshsig_verify(key, space, message, length, signature, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    require_bound(key, space, signature, message, length);
    require_armour(signature);
}

// Signs the input, and alters the signature or the message.
static void fuzz_alter(const uint8_t *data, size_t size)
{
    static struct ssh_signer signer;
    char signature[RECORD_SIGNATURE_MAX + 1];
    uint64_t choice = fuzz_hash(data, size);
    if (signer.blob_size == 0)
        ssh_signer_make(&signer, 5);
    ssh_signer_sign(&signer, "custody-approval", data, size, signature);
    REQUIRE(sshsig_verify(signer.public_key, "custody-approval", data, size, signature, NULL) == 0);
    require_bound(signer.public_key, "custody-approval", signature, data, size);
    require_armour(signature);
    fuzz_flip(signature, strlen(signature), choice);
    REQUIRE(sshsig_verify(signer.public_key, "custody-approval", data, size, signature, NULL) != 0);
}

static void fuzz_armour(const char *data, size_t size)
{
    char base64[RECORD_SIGNATURE_MAX + 1];
    struct error err = {.code = ERROR_OK};
    if (sshsig_from_armour(data, size, base64, sizeof(base64), &err) != 0)
        fuzz_require_refusal(&err);
    else
        REQUIRE(memchr(base64, '\0', sizeof(base64)) != NULL && strchr(base64, '\n') == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    char *key = input_line(&input), *space = input_line(&input), *signature = input_line(&input);
    if (signature != NULL)
        fuzz_signature(key, space, signature, input.at, input.left);
    free(key);
    free(space);
    free(signature);
    fuzz_armour((const char *)data, size);
    fuzz_alter(data, size);
    return 0;
}
