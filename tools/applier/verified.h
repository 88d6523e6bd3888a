// SPDX-License-Identifier: Apache-2.0
// Reads signed notes out of the registry and verifies each of them once: what was verified is known
// again by its digest.
#ifndef APPLIER_VERIFIED_H
#define APPLIER_VERIFIED_H

#include <stddef.h>
#include <stdint.h>

#include "refusal.h"
#include "registry.h"
#include "trust.h"

enum verified_outcome {
    VERIFIED_GOOD,
    VERIFIED_ABSENT, // no such note
    VERIFIED_REFUSED // `refusals` has why
};

struct verified; // opaque: the digests that were verified

struct verified *verified_new(void); // NULL: out of memory
void verified_free(struct verified *verified);

struct verified_note {
    char text[NOTE_MAX];                 // the signed text, NUL-terminated
    size_t length;                       // of the text
    uint8_t digest[REFUSAL_DIGEST_SIZE]; // SHA-256 of the whole note
    char text_sha256[65];                // of the text, lower-case hex
};

// Reads the note at `path` and verifies it as one of `host`. Returns 0 with `*outcome` set, -1 only
// when the registry is gone.
int verified_read(struct verified *verified, struct registry *registry, const struct trust *trust,
                  const char *host, const char *path, struct verified_note *note,
                  enum verified_outcome *outcome, struct refusals *refusals, struct error *err);
// Signatures checked since the start.
uint64_t verified_signatures(const struct verified *verified);
// Forgets what was not read since the last call of this: call it after each look.
void verified_sweep(struct verified *verified);

#endif
