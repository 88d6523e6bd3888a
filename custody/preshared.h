// SPDX-License-Identifier: Apache-2.0
// Preshared keys: made for a link's other end, taken from it, and recorded as set. Released they
// are as private keys are (release.h).
#ifndef CUSTODY_PRESHARED_H
#define CUSTODY_PRESHARED_H

#include "service.h"

void preshared_make(struct call *call, const Custody__V1__MakePsk *request);
void preshared_take(struct call *call, const Custody__V1__TakePsk *request);
void preshared_set(struct call *call, const Custody__V1__SetPsk *request);

// Takes the link that a request names into call->record, and checks that the caller carries the
// key's rotations. NULL with `err` on failure.
const struct config_key *preshared_take_link(struct call *call, const char *key, const char *peer,
                                             const char *peer_key, uint64_t epoch,
                                             struct error *err);

// The key that preshared keys are sealed to, the latest; NULL where there is none yet.
const struct state_key *preshared_receive_key(const struct state *state);
// Whether some key that is in use rotates its preshared keys, and there is no receive key for that
// yet.
bool preshared_lacks_receive_key(const struct daemon *daemon);

// When the epoch after the one made last is due; 0 where none is.
int64_t preshared_due_us(const struct config_key *config, const struct psk *psk);

#endif
