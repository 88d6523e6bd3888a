// SPDX-License-Identifier: Apache-2.0
// Encoding of sealed blobs and of their additional data.
#include "sealed.h"

#include <string.h>

#include <sodium.h>

static const uint8_t magic[4] = {'C', 'S', 'B', '1'};

const char *sealed_suite_name(enum sealed_suite suite)
{
    switch (suite) {
    case SEALED_AES_GCM:
        return "aes-gcm";
    case SEALED_NONE:
        break;
    }
    return NULL;
}

static void put_number(uint8_t *out, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

// Appends one part behind its length. Returns the new length, or 0 once something did not fit.
static size_t put_part(uint8_t *aad, size_t used, const void *part, size_t length)
{
    if (used == 0 || length > SEALED_AAD_MAX - 4 || used > SEALED_AAD_MAX - 4 - length)
        return 0;
    put_number(aad + used, length, 4);
    memcpy(aad + used + 4, part, length);
    return used + 4 + length;
}

static size_t put_number_part(uint8_t *aad, size_t used, uint64_t value)
{
    uint8_t number[8];
    put_number(number, value, sizeof(number));
    return put_part(aad, used, number, sizeof(number));
}

size_t sealed_aad(const struct sealed_name *name, enum sealed_suite suite, uint32_t kek,
                  uint8_t aad[SEALED_AAD_MAX])
{
    const char *suite_name = sealed_suite_name(suite);
    if (suite_name == NULL)
        return 0;
    memcpy(aad, magic, sizeof(magic));
    size_t used = sizeof(magic);
    used = put_part(aad, used, name->host, strlen(name->host));
    used = put_part(aad, used, name->key, strlen(name->key));
    used = put_number_part(aad, used, name->generation);
    used = put_number_part(aad, used, name->purpose);
    used = put_part(aad, used, suite_name, strlen(suite_name));
    return put_number_part(aad, used, kek);
}

size_t sealed_encode(const struct sealed *sealed, uint8_t blob[SEALED_MAX])
{
    memcpy(blob, magic, sizeof(magic));
    blob[4] = (uint8_t)sealed->suite;
    blob[5] = (uint8_t)sealed->purpose;
    blob[6] = blob[7] = 0;
    put_number(blob + 8, sealed->kek, 4);
    memcpy(blob + SEALED_HEADER_SIZE, sealed->iv, SEALED_IV_SIZE);
    memcpy(blob + SEALED_HEADER_SIZE + SEALED_IV_SIZE, sealed->body, sealed->body_length);
    return SEALED_HEADER_SIZE + SEALED_IV_SIZE + sealed->body_length;
}

int sealed_parse(struct sealed *sealed, const uint8_t *blob, size_t length, struct error *err)
{
    if (length <= SEALED_HEADER_SIZE + SEALED_IV_SIZE || length > SEALED_MAX)
        return error_set(err, ERROR_DATA_LOSS, "a sealed blob cannot have %zu bytes", length);
    if (memcmp(blob, magic, sizeof(magic)) != 0)
        return error_set(err, ERROR_DATA_LOSS, "not a sealed blob of a format known here");
    memset(sealed, 0, sizeof(*sealed));
    sealed->suite = blob[4];
    sealed->purpose = blob[5];
    if (sealed_suite_name(sealed->suite) == NULL)
        return error_set(err, ERROR_DATA_LOSS, "sealing suite %u is not known here", blob[4]);
    if (sealed->purpose == PURPOSE_NONE || sealed->purpose >= PURPOSES || blob[6] != 0 ||
        blob[7] != 0)
        return error_set(err, ERROR_DATA_LOSS, "the sealed blob's header is damaged");
    for (int i = 0; i < 4; i++)
        sealed->kek = sealed->kek << 8 | blob[8 + i];
    memcpy(sealed->iv, blob + SEALED_HEADER_SIZE, SEALED_IV_SIZE);
    if (sodium_is_zero(sealed->iv, SEALED_IV_SIZE))
        return error_set(err, ERROR_DATA_LOSS, "the sealed blob has no initialisation vector");
    sealed->body_length = length - SEALED_HEADER_SIZE - SEALED_IV_SIZE;
    memcpy(sealed->body, blob + SEALED_HEADER_SIZE + SEALED_IV_SIZE, sealed->body_length);
    return 0;
}
