// SPDX-License-Identifier: Apache-2.0
// Preshared keys of an interface's links: made or taken, set, and told to the other end.
#ifndef APPLIER_PSK_H
#define APPLIER_PSK_H

#include "tended.h"

// Reads what each counterpart says about the link's preshared key, and carries out what follows. -1
// with `err` for the first failure; the others were carried on with.
int psk_tend(struct tended *tended, struct error *err);

// Whether the ends of this link may have different preshared keys just now, as far as was seen: a
// private key must not be replaced meanwhile.
bool psk_is_busy(const struct tended *tended, const struct tended_peer *peer);

#endif
