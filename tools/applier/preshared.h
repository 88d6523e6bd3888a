// SPDX-License-Identifier: Apache-2.0
// Preshared keys read from a device, to be set again on another of its peers; in guarded memory.
#ifndef APPLIER_PRESHARED_H
#define APPLIER_PRESHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device_view.h"
#include "error.h"

// The preshared keys of the peers that were named.
struct preshared;

// Names none yet, room for `max`. NULL: no memory.
struct preshared *preshared_new(size_t max);
void preshared_free(struct preshared *preshared); // wipes; NULL is fine
// Names a peer, once or more often.
void preshared_want(struct preshared *preshared, const uint8_t public_key[DEVICE_KEY_SIZE]);
// After the last one was named, before the first is found.
void preshared_ready(struct preshared *preshared);

// Notes a peer's preshared key (all zeros: none) if that peer was named; `key` is guarded memory.
void preshared_found(struct preshared *preshared, const uint8_t public_key[DEVICE_KEY_SIZE],
                     const uint8_t key[DEVICE_KEY_SIZE]);
// Forgets what was found, before a device is read once more.
void preshared_forget(struct preshared *preshared);

// The key (guarded, as long as `preshared` lives), or NULL when no such peer was found.
const uint8_t *preshared_of(const struct preshared *preshared,
                            const uint8_t public_key[DEVICE_KEY_SIZE]);

#endif
