// SPDX-License-Identifier: Apache-2.0
// Verifying notes of the registry, once each.
#include "verified.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

// What came of a note's verification under one pinned key.
struct known {
    uint8_t digest[REFUSAL_DIGEST_SIZE];
    uint8_t pinned[32]; // the public key that it was verified with
    size_t text_length; // 0: refused,
    enum refusal_kind kind;
    char *why; // for this
    bool read; // since the last sweep
};

struct verified {
    struct known *items;
    size_t count, room;
    uint64_t signatures;
};

struct verified *verified_new(void)
{
    return calloc(1, sizeof(struct verified));
}

void verified_free(struct verified *verified)
{
    if (verified == NULL)
        return;
    for (size_t i = 0; i < verified->count; i++)
        free(verified->items[i].why);
    free(verified->items);
    free(verified);
}

uint64_t verified_signatures(const struct verified *verified)
{
    return verified->signatures;
}

void verified_sweep(struct verified *verified)
{
    size_t kept = 0;
    for (size_t i = 0; i < verified->count; i++) {
        if (!verified->items[i].read) {
            free(verified->items[i].why);
            continue;
        }
        verified->items[kept] = verified->items[i];
        verified->items[kept++].read = false;
    }
    verified->count = kept;
}

static struct known *find(struct verified *verified, const uint8_t digest[REFUSAL_DIGEST_SIZE],
                          const struct trust_entry *entry)
{
    for (size_t i = 0; i < verified->count; i++)
        if (memcmp(verified->items[i].digest, digest, REFUSAL_DIGEST_SIZE) == 0 &&
            memcmp(verified->items[i].pinned, entry->key.public_key, 32) == 0)
            return &verified->items[i];
    return NULL;
}

// Room for one more; NULL when out of memory, and then that note is verified anew each time.
static struct known *add(struct verified *verified)
{
    if (verified->count == verified->room) {
        size_t room = verified->room == 0 ? 4 : 2 * verified->room;
        struct known *grown = realloc(verified->items, room * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        verified->items = grown;
        verified->room = room;
    }
    struct known *known = &verified->items[verified->count++];
    memset(known, 0, sizeof(*known));
    return known;
}

// Verifies a note that is not known yet. `*result` is not kept when memory is out: its `why` is
// the caller's then, who gets false.
static bool verify(struct verified *verified, const struct trust *trust,
                   const struct trust_entry *entry, const char *note, size_t length,
                   const uint8_t digest[REFUSAL_DIGEST_SIZE], struct known *result)
{
    struct error err = {.code = ERROR_OK};
    memset(result, 0, sizeof(*result));
    memcpy(result->digest, digest, REFUSAL_DIGEST_SIZE);
    memcpy(result->pinned, entry->key.public_key, sizeof(result->pinned));
    result->read = true;
    verified->signatures++;
    if (trust_verify(trust, entry->host, note, length, &result->text_length, &err) != 0) {
        result->text_length = 0;
        // What has no signature that could be checked was cut short, or never was a note.
        result->kind = err.code == ERROR_INVALID_ARGUMENT ? REFUSAL_UNREADABLE : REFUSAL_FORGED;
        result->why = strdup(err.message);
    }
    struct known *kept = add(verified);
    if (kept != NULL)
        *kept = *result;
    return kept != NULL;
}

static void digest_text(struct verified_note *note)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    note->text[note->length] = '\0';
    crypto_hash_sha256(digest, (const uint8_t *)note->text, note->length);
    sodium_bin2hex(note->text_sha256, sizeof(note->text_sha256), digest, sizeof(digest));
}

static enum verified_outcome judge(struct verified *verified, const struct trust *trust,
                                   const char *host, const char *path, struct verified_note *note,
                                   struct refusals *refusals)
{
    const struct trust_entry *entry = trust_find(trust, host);
    if (entry == NULL) {
        refusals_add(refusals, REFUSAL_UNTRUSTED, path, note->digest,
                     "host '%s' is not in the trust file: nothing is believed of it", host);
        return VERIFIED_REFUSED;
    }
    struct known fresh, *known = find(verified, note->digest, entry);
    bool kept = true;
    if (known == NULL) {
        kept = verify(verified, trust, entry, note->text, note->length, note->digest, &fresh);
        known = &fresh;
    }
    known->read = true;
    if (known->text_length == 0)
        refusals_add(refusals, known->kind, path, note->digest, "%s",
                     known->why != NULL ? known->why : "it does not verify");
    else
        note->length = known->text_length;
    bool good = known->text_length > 0;
    if (!kept)
        free(known->why);
    if (good)
        digest_text(note);
    return good ? VERIFIED_GOOD : VERIFIED_REFUSED;
}

int verified_read(struct verified *verified, struct registry *registry, const struct trust *trust,
                  const char *host, const char *path, struct verified_note *note,
                  enum verified_outcome *outcome, struct refusals *refusals, struct error *err)
{
    struct error why = {.code = ERROR_OK};
    memset(note, 0, sizeof(*note));
    if (registry_get(registry, path, note->text, &note->length, &why) == 0) {
        crypto_hash_sha256(note->digest, (const uint8_t *)note->text, note->length);
        *outcome = judge(verified, trust, host, path, note, refusals);
        return 0;
    }
    if (why.code == ERROR_NOT_FOUND) {
        *outcome = VERIFIED_ABSENT;
        return 0;
    }
    if (why.code != ERROR_DATA_LOSS)
        return error_set(err, ERROR_UNAVAILABLE, "%s", why.message);
    refusals_add(refusals, REFUSAL_UNREADABLE, path, NULL, "%s", why.message);
    *outcome = VERIFIED_REFUSED;
    return 0;
}
