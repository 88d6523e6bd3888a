// SPDX-License-Identifier: Apache-2.0
// What SoftHSM needs beyond PKCS#11: mending a token.object that a crash emptied, and making its
// files durable.
#ifndef PKCS11_SOFTHSM_H
#define PKCS11_SOFTHSM_H

#include <stddef.h>

#include "error.h"

// The copy of token.object that provisioning leaves beside it. SoftHSM reads only names that end in
// ".object".
#define SOFTHSM_COPY "token.object.provisioned"

// Puts the provisioning copy back where a token's token.object has 0 bytes or is gone, in the
// tokens folder that SoftHSM's configuration names. To be called before C_Initialize. `notice`
// (room for `size` bytes) says what was put back, "" when nothing was. Returns how many, or -1 with
// `err`. No SoftHSM configuration is no error.
int softhsm_mend(char *notice, size_t size, struct error *err);

// Opens the folder that holds all tokens' folders, as SoftHSM's configuration names it. Returns a
// descriptor, or -1 when there is none.
int softhsm_folder_open(void);

// Takes the lock of the token with this serial number, so that no second keeper logs in to it: two
// logins can destroy a SoftHSM token. Waits up to `timeout_ms` for one that is just ending. Sets
// `*lock` to a descriptor that holds it until it is closed, or to -1 where there is no such folder.
int softhsm_lock(const char *serial, int timeout_ms, int *lock, struct error *err);

#endif
