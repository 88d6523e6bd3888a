// SPDX-License-Identifier: Apache-2.0
// Makes durable what SoftHSM writes: it never calls fsync itself.
#ifndef PKCS11_SOFTHSM_SYNC_H
#define PKCS11_SOFTHSM_SYNC_H

#include "error.h"

struct softhsm_sync;

// Remembers SoftHSM's folder. NULL when there is none, or no memory.
struct softhsm_sync *softhsm_sync_open(void);
void softhsm_sync_close(struct softhsm_sync *sync); // NULL is allowed

// Makes the tokens' files that are new or changed since the last call durable, and the folders that
// name them. (syncfs would wait for whatever else writes to that file system.) NULL for `sync` does
// nothing.
int softhsm_sync_changes(struct softhsm_sync *sync, struct error *err);

#endif
