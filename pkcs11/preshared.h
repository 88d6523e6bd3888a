// SPDX-License-Identifier: Apache-2.0
// Preshared keys in the token: those that this host makes are derived by custody-psk-N each time
// and stored nowhere, those that it takes are sealed. psks.h says how an epoch follows from the one
// before.
#ifndef PKCS11_PRESHARED_H
#define PKCS11_PRESHARED_H

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "vault.h"

// The name of the sealed blobs of one link, "_psk." and 40 hex digits of SHA-256 over our own key's
// name, the other end's host and its key's name, each behind its length.
void preshared_name(const char *key, const char *peer, const char *peer_key,
                    char name[KEY_MAX + 1]);

// T of the epoch that a psk.generated record names, sealed to its receive_key.
int preshared_send(struct vault *vault, const struct record *record, uint8_t box[PSK_BOX_SIZE],
                   struct error *err);

// Opens a box with this host's receive key, and seals the preshared key that it leads to as
// custody-new/…; one that was never recorded is replaced. ERROR_PERMISSION_DENIED when the box is
// none for this host, ERROR_NOT_FOUND when the epoch before is not there.
int preshared_receive(struct vault *vault, const struct keeper_receive *request, struct error *err);
// What was received becomes custody-key/…, as psk.received says.
int preshared_adopt(struct vault *vault, const struct record *record, struct error *err);

// Puts the preshared key that a release.granted record names into the seal's buffer: derived when
// its method is "made"; unsealed when it is "received", and among the `releasable` highest epochs.
// The caller calls seal_wipe, also on failure.
int preshared_open(struct vault *vault, const struct record *record, unsigned releasable,
                   struct error *err);

// Whether the token holds the epoch that the record names.
bool preshared_holds(const struct vault *vault, const struct record *record);
// Destroys it, as psk.destroyed says; fine where it is gone.
int preshared_destroy(struct vault *vault, const struct record *record, struct error *err);

#endif
