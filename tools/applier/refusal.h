// SPDX-License-Identifier: Apache-2.0
// Notes that were not believed: why, in words, and each told once however often it is found again.
#ifndef APPLIER_REFUSAL_H
#define APPLIER_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry.h"

#define REFUSAL_MESSAGE_MAX ERROR_MESSAGE_MAX
#define REFUSAL_DIGEST_SIZE 32

enum refusal_kind {
    REFUSAL_UNREADABLE = 1, // cut short, too large, no file, not in the form of its kind
    REFUSAL_UNTRUSTED,      // nobody pinned a key for that host
    REFUSAL_FORGED,         // not signed by the pinned key, or wrongly
    REFUSAL_MISPLACED,      // about another host, key, generation, or for another
    REFUSAL_NOT_YET,        // from a time to come, beyond the tolerance
    REFUSAL_EXPIRED,        // past its time, beyond the tolerance
    REFUSAL_OLDER,          // the registry went back behind what was moved to, or seen
    REFUSAL_RETIRED,        // of a generation that was retired
    REFUSAL_KEY_CHANGED,    // another public key for the same generation
    REFUSAL_KEY_REUSED,     // a public key that is somebody else's, or another generation's
    REFUSAL_CHAIN,          // "previous" contradicts what else was published
    REFUSAL_WITHHELD,       // not what the newer freshness note says is the latest
    REFUSAL_TOO_MANY,       // more notes than are looked at
    REFUSAL_KINDS
};
// "forged".
const char *refusal_kind_name(enum refusal_kind kind);

struct refusal {
    enum refusal_kind kind;
    char path[REGISTRY_PATH_MAX + 1];
    uint8_t digest[REFUSAL_DIGEST_SIZE]; // SHA-256 of the note; zeros where it could not be read
    bool told;                           // it was reported by an earlier look
    char message[REFUSAL_MESSAGE_MAX];
};

#define REFUSALS_MAX        32  // of one look; beyond them only `dropped` counts
#define REFUSALS_REMEMBERED 256 // told ones that are known again

// The refusals of one look, and the memory of those before. Begins all zeros.
struct refusals {
    size_t count;
    struct refusal *items; // room for REFUSALS_MAX, made at the first; NULL before
    size_t dropped;        // that found no room in this look
    uint64_t total;        // different ones since the start
    // SHA-256 of kind, path and digest of what was told, the oldest overwritten first.
    uint8_t (*remembered)[REFUSAL_DIGEST_SIZE]; // room for REFUSALS_REMEMBERED, or NULL
    size_t remembered_count, remembered_next;
};

// Begins a look: forgets the items, not the memory.
void refusals_begin(struct refusals *refusals);
// Adds one, with its `told` set from memory, and remembers it. `digest` may be NULL.
void refusals_add(struct refusals *refusals, enum refusal_kind kind, const char *path,
                  const uint8_t *digest, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void refusals_free(struct refusals *refusals);

#endif
