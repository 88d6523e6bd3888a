// SPDX-License-Identifier: Apache-2.0
// Keeps preshared keys by the public keys of their peers, sorted.
#include "preshared.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

struct wanted {
    uint8_t public_key[DEVICE_KEY_SIZE];
    bool found;
};

struct preshared {
    size_t count, max;
    struct wanted *wanted; // sorted by public key once ready
    uint8_t *keys;         // guarded, max x DEVICE_KEY_SIZE, in the same order
};

struct preshared *preshared_new(size_t max)
{
    struct preshared *preshared = calloc(1, sizeof *preshared);
    if (preshared == NULL)
        return NULL;
    preshared->max = max;
    preshared->wanted = calloc(max, sizeof *preshared->wanted);
    preshared->keys = sodium_allocarray(max, DEVICE_KEY_SIZE);
    if (preshared->wanted == NULL || preshared->keys == NULL) {
        preshared_free(preshared);
        return NULL;
    }
    return preshared;
}

void preshared_free(struct preshared *preshared)
{
    if (preshared == NULL)
        return;
    sodium_free(preshared->keys); // wipes
    free(preshared->wanted);
    free(preshared);
}

void preshared_want(struct preshared *preshared, const uint8_t public_key[DEVICE_KEY_SIZE])
{
    if (preshared->count == preshared->max)
        return;
    memcpy(preshared->wanted[preshared->count++].public_key, public_key, DEVICE_KEY_SIZE);
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, DEVICE_KEY_SIZE);
}

void preshared_ready(struct preshared *preshared)
{
    size_t kept = 0;
    qsort(preshared->wanted, preshared->count, sizeof *preshared->wanted, compare);
    for (size_t i = 0; i < preshared->count; i++)
        if (i == 0 || compare(&preshared->wanted[i], &preshared->wanted[kept - 1]) != 0)
            preshared->wanted[kept++] = preshared->wanted[i];
    preshared->count = kept;
}

static struct wanted *look_up(const struct preshared *preshared,
                              const uint8_t public_key[DEVICE_KEY_SIZE])
{
    return bsearch(public_key, preshared->wanted, preshared->count, sizeof *preshared->wanted,
                   compare);
}

static uint8_t *key_of(const struct preshared *preshared, const struct wanted *wanted)
{
    return preshared->keys + (size_t)(wanted - preshared->wanted) * DEVICE_KEY_SIZE;
}

void preshared_found(struct preshared *preshared, const uint8_t public_key[DEVICE_KEY_SIZE],
                     const uint8_t key[DEVICE_KEY_SIZE])
{
    struct wanted *wanted = look_up(preshared, public_key);
    if (wanted == NULL)
        return;
    memcpy(key_of(preshared, wanted), key, DEVICE_KEY_SIZE);
    wanted->found = true;
}

void preshared_forget(struct preshared *preshared)
{
    for (size_t i = 0; i < preshared->count; i++)
        preshared->wanted[i].found = false;
    sodium_memzero(preshared->keys, preshared->max * DEVICE_KEY_SIZE);
}

const uint8_t *preshared_of(const struct preshared *preshared,
                            const uint8_t public_key[DEVICE_KEY_SIZE])
{
    const struct wanted *wanted = look_up(preshared, public_key);
    return wanted == NULL || !wanted->found ? NULL : key_of(preshared, wanted);
}
