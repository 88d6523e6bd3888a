// SPDX-License-Identifier: Apache-2.0
// What operators do with keys: generate, publish, destroy, and list them.
#ifndef CUSTODY_KEYS_H
#define CUSTODY_KEYS_H

#include <stdbool.h>

#include "service.h"

void keys_generate(struct call *call, const Custody__V1__GenerateKey *request);
void keys_publish(struct call *call, const Custody__V1__PublishKey *request);
void keys_destroy(struct call *call, const Custody__V1__DestroyKey *request);
// Operators and auditors see all keys, appliers those that a grant names them for. `roles` are the
// caller's.
void keys_list(struct call *call, const Custody__V1__ListKeys *request, unsigned roles);

// Carries on a destruction that was recorded but perhaps not done: destroys the blob if it is still
// in the token, and records that it is gone.
void keys_finish_destroying(struct daemon *daemon, const struct state_key *key, bool in_token);

#endif
