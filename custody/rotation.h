// SPDX-License-Identifier: Apache-2.0
// Rotations: begun by an operator or by schedule, ended by the applier that carried them out; and
// an operator's hold and revocation, which end them too.
#ifndef CUSTODY_ROTATION_H
#define CUSTODY_ROTATION_H

#include "service.h"

void rotation_rotate(struct call *call, const Custody__V1__RotateKey *request);
void rotation_end(struct call *call, const Custody__V1__EndRotation *request);
void rotation_suspend(struct call *call, const Custody__V1__SuspendKey *request);
void rotation_resume(struct call *call, const Custody__V1__ResumeKey *request);
void rotation_revoke(struct call *call, const Custody__V1__RevokeKey *request);

// `why` is NULL when the rotation was begun.
typedef void rotation_begun_fn(void *context, const struct error *why);
// Begins a rotation of the key that `wanted` names, with its actor, reason and ticket: to the
// pre-active generation, or to one that is made for it. Fails, and does not call `done`, where that
// is not possible now.
int rotation_begin(struct daemon *daemon, const struct record *wanted, rotation_begun_fn *done,
                   void *context, struct error *err);

// Carries on what a crash left half done: a generation whose rotation was confirmed becomes active,
// one whose rotation was rolled back is destroyed. For the opening of the log.
void rotation_finish(struct daemon *daemon);
// Whether a key that was revoked still lacks its replacement's rotation.
bool rotation_lacks_replacement(const struct state *state, const char *key);

// The records by which `key` becomes the active generation, and the active one deactivated. Returns
// how many they are: 0 where it is active.
unsigned rotation_activate(const struct state *state, const struct state_key *key,
                           struct commit_entry entries[2]);

#endif
