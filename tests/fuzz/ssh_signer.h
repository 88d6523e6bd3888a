// SPDX-License-Identifier: Apache-2.0
// An SSH key made from a fixed seed, and its signatures as `ssh-keygen -Y sign` would make them.
#ifndef TESTS_FUZZ_SSH_SIGNER_H
#define TESTS_FUZZ_SSH_SIGNER_H

#include <stddef.h>
#include <stdint.h>

#include "record.h"

struct ssh_signer {
    char public_key[RECORD_OPERATOR_KEY_MAX + 1]; // "ssh-ed25519 BASE64"
    uint8_t blob[128];                            // the same, decoded
    size_t blob_size;
    uint8_t secret[64];
};

void ssh_signer_make(struct ssh_signer *signer, uint8_t seed);
// The base64 of the SSHSIG blob.
void ssh_signer_sign(const struct ssh_signer *signer, const char *name_space, const void *message,
                     size_t length, char signature[RECORD_SIGNATURE_MAX + 1]);

#endif
