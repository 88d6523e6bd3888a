// SPDX-License-Identifier: Apache-2.0
// The bytes of a sealed blob and what they are bound to: encoding and additional data, without any
// token.
//
// offset size
//      0    4  magic "CSB1"
//      4    1  suite
//      5    1  purpose (enum record_purpose)
//      6    2  zero
//      8    4  number of the key encryption key, big-endian
//     12   12  initialisation vector
//     24    n  ciphertext, then the tag
#ifndef PKCS11_SEALED_H
#define PKCS11_SEALED_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define SEALED_HEADER_SIZE 12
#define SEALED_IV_SIZE     12
#define SEALED_BODY_MAX    96 // bytes of ciphertext and tag
#define SEALED_MAX         (SEALED_HEADER_SIZE + SEALED_IV_SIZE + SEALED_BODY_MAX)
#define SEALED_AAD_MAX     256

enum sealed_suite {
    SEALED_NONE = 0,
    SEALED_AES_GCM, // AES-256-GCM, 96-bit IV from the token, 128-bit tag (NIST SP 800-38D)
};

// What a blob is: whoever opens it must name the same.
struct sealed_name {
    const char *host;
    const char *key;
    uint64_t generation;
    uint32_t purpose; // enum record_purpose
};

struct sealed {
    enum sealed_suite suite;
    uint32_t purpose;
    uint32_t kek; // the N of custody-kek-N
    uint8_t iv[SEALED_IV_SIZE];
    size_t body_length;
    uint8_t body[SEALED_BODY_MAX]; // ciphertext, then the tag
};

// "aes-gcm"; NULL for a number that is none.
const char *sealed_suite_name(enum sealed_suite suite);

// The additional data: each part behind its length (4 bytes, big-endian), so that no two names give
// the same bytes. Returns its length, 0 when the name does not fit.
size_t sealed_aad(const struct sealed_name *name, enum sealed_suite suite, uint32_t kek,
                  uint8_t aad[SEALED_AAD_MAX]);

// Encodes into `blob`; returns its length.
size_t sealed_encode(const struct sealed *sealed, uint8_t blob[SEALED_MAX]);
// Parses exactly what sealed_encode makes. An IV of zeros is refused, as an empty one would be.
int sealed_parse(struct sealed *sealed, const uint8_t *blob, size_t length, struct error *err);

#endif
