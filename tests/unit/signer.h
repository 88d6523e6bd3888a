// SPDX-License-Identifier: Apache-2.0
// A signing key made from a fixed seed, for tests that need signed notes.
#ifndef TESTS_UNIT_SIGNER_H
#define TESTS_UNIT_SIGNER_H

#include <stddef.h>
#include <stdint.h>

#include "note.h"

struct signer {
    struct note_key key;
    uint8_t secret[64];
};

// Makes the key `name`; `seed` fills the 32 bytes that it is derived from.
void signer_make(struct signer *signer, const char *name, uint8_t seed);
// Signs `text` into the whole note; returns the note's length.
size_t signer_sign(const struct signer *signer, const char *text, char note[NOTE_MAX]);

#endif
