// SPDX-License-Identifier: Apache-2.0
// Collecting refusals, and knowing again those that were told.
#include "refusal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

const char *refusal_kind_name(enum refusal_kind kind)
{
    static const char *const names[REFUSAL_KINDS] = {
        [REFUSAL_UNREADABLE] = "unreadable",
        [REFUSAL_UNTRUSTED] = "untrusted",
        [REFUSAL_FORGED] = "forged",
        [REFUSAL_MISPLACED] = "misplaced",
        [REFUSAL_NOT_YET] = "not yet valid",
        [REFUSAL_EXPIRED] = "expired",
        [REFUSAL_OLDER] = "older",
        [REFUSAL_RETIRED] = "retired",
        [REFUSAL_KEY_CHANGED] = "key changed",
        [REFUSAL_KEY_REUSED] = "key reused",
        [REFUSAL_CHAIN] = "chain broken",
        [REFUSAL_WITHHELD] = "withheld",
        [REFUSAL_TOO_MANY] = "too many",
    };
    return kind > 0 && kind < REFUSAL_KINDS ? names[kind] : "unknown";
}

void refusals_begin(struct refusals *refusals)
{
    refusals->count = 0;
    refusals->dropped = 0;
}

void refusals_free(struct refusals *refusals)
{
    free(refusals->items);
    free(refusals->remembered);
    memset(refusals, 0, sizeof(*refusals));
}

static void identify(const struct refusal *refusal, uint8_t id[REFUSAL_DIGEST_SIZE])
{
    crypto_hash_sha256_state state;
    uint8_t kind = (uint8_t)refusal->kind;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, &kind, sizeof(kind));
    crypto_hash_sha256_update(&state, refusal->digest, sizeof(refusal->digest));
    crypto_hash_sha256_update(&state, (const uint8_t *)refusal->path, strlen(refusal->path));
    crypto_hash_sha256_final(&state, id);
}

// Whether it was told before; it is from now on.
static bool remember(struct refusals *refusals, const struct refusal *refusal)
{
    uint8_t id[REFUSAL_DIGEST_SIZE];
    identify(refusal, id);
    for (size_t i = 0; i < refusals->remembered_count; i++)
        if (memcmp(refusals->remembered[i], id, sizeof(id)) == 0)
            return true;
    memcpy(refusals->remembered[refusals->remembered_next], id, sizeof(id));
    refusals->remembered_next = (refusals->remembered_next + 1) % REFUSALS_REMEMBERED;
    if (refusals->remembered_count < REFUSALS_REMEMBERED)
        refusals->remembered_count++;
    refusals->total++;
    return false;
}

static bool make_room(struct refusals *refusals)
{
    if (refusals->items == NULL)
        refusals->items = calloc(REFUSALS_MAX, sizeof(*refusals->items));
    if (refusals->remembered == NULL)
        refusals->remembered = calloc(REFUSALS_REMEMBERED, sizeof(*refusals->remembered));
    return refusals->items != NULL && refusals->remembered != NULL &&
           refusals->count < REFUSALS_MAX;
}

void refusals_add(struct refusals *refusals, enum refusal_kind kind, const char *path,
                  const uint8_t *digest, const char *format, ...)
{
    if (!make_room(refusals)) {
        refusals->dropped++;
        return;
    }
    struct refusal *refusal = &refusals->items[refusals->count++];
    memset(refusal, 0, sizeof(*refusal));
    refusal->kind = kind;
    snprintf(refusal->path, sizeof(refusal->path), "%s", path);
    if (digest != NULL)
        memcpy(refusal->digest, digest, sizeof(refusal->digest));
    va_list args;
    va_start(args, format);
    vsnprintf(refusal->message, sizeof(refusal->message), format, args);
    va_end(args);
    refusal->told = remember(refusals, refusal);
}
