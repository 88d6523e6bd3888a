// SPDX-License-Identifier: Apache-2.0
// The sealed blobs in the token: private data objects custody-new/NAME/GENERATION and
// custody-key/NAME/GENERATION.
//
// They are enumerated once, when the store is opened, and known by their handles from then on:
// finding costs SoftHSM time for every object of the token. What a crash left torn is listed as a
// leftover and never used.
#ifndef PKCS11_BLOBS_H
#define PKCS11_BLOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "name.h"
#include "sealed.h"
#include "token.h"

#define BLOBS_MAX 4096

struct blob {
    char key[KEY_MAX + 1]; // "" for a torn object without a name
    uint64_t generation;
    uint32_t purpose; // PURPOSE_NONE for what cannot be read
    bool adopted;     // custody-key/…
    bool torn;        // no value, or none that is a sealed blob
    CK_OBJECT_HANDLE handle;
};

struct blobs;

int blobs_open(struct token *token, struct blobs **blobs, struct error *err);
void blobs_close(struct blobs *blobs); // NULL is allowed

// All of them, ordered by key and generation, adopted ones first among equals.
size_t blobs_count(const struct blobs *blobs);
const struct blob *blobs_at(const struct blobs *blobs, size_t index);
// How many are adopted and whole; all others are leftovers.
size_t blobs_adopted(const struct blobs *blobs);
// How many bear a key's name, whole or not.
size_t blobs_named(const struct blobs *blobs);

// The one of that name, or NULL. A pointer is good until the store changes.
const struct blob *blobs_find(const struct blobs *blobs, const char *key, uint64_t generation,
                              bool adopted);
// The highest generation of a key in the token, adopted or not; 0 when there is none.
uint64_t blobs_highest(const struct blobs *blobs, const char *key);
// How many adopted generations of the key are higher than this one.
size_t blobs_above(const struct blobs *blobs, const char *key, uint64_t generation);

// Reads a blob's bytes. ERROR_DATA_LOSS when it is torn.
int blobs_read(struct blobs *blobs, const struct blob *blob, uint8_t value[SEALED_MAX],
               size_t *length, struct error *err);

// Stores a new one as custody-new/….
int blobs_create(struct blobs *blobs, const char *key, uint64_t generation, const uint8_t *value,
                 size_t length, struct error *err);
// custody-new/… becomes custody-key/…: stored anew under that name and read back before the old
// object goes, so that a crash at any instant leaves at least one whole.
int blobs_adopt(struct blobs *blobs, const char *key, uint64_t generation, struct error *err);
// Destroys every object of that name, adopted or not. ERROR_NOT_FOUND when there is none.
int blobs_destroy(struct blobs *blobs, const char *key, uint64_t generation, struct error *err);

// Splits "custody-key/NAME/GENERATION" or "custody-new/…". Returns whether it is one.
bool blobs_parse_label(const char *label, struct blob *blob);

#endif
