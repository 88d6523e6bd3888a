// SPDX-License-Identifier: Apache-2.0
// What operators do with keys: generate, publish, destroy, and list them.
#ifndef CUSTODY_KEYS_H
#define CUSTODY_KEYS_H

#include <stdbool.h>

#include "service.h"

void keys_generate(struct call *call, const Custody__V1__GenerateKey *request);
void keys_publish(struct call *call, const Custody__V1__PublishKey *request);
void keys_destroy(struct call *call, const Custody__V1__DestroyKey *request);
// Operators and auditors see all keys, appliers those that a grant names them for.
void keys_list(struct call *call, const Custody__V1__ListKeys *request);

// Carries on a destruction that was recorded but perhaps not done: destroys the blob if it is still
// in the token, and records that it is gone.
void keys_finish_destroying(struct daemon *daemon, const struct state_key *key, bool in_token);

// The record by which the daemon itself destroys a generation, for commit_submit_all: once it is
// done, key.destroyed is recorded too. `detail` says why.
struct commit_entry keys_destroying(struct daemon *daemon, const struct state_key *key,
                                    const char *detail);

// Destroys a generation by itself; `done` is told when its destruction is recorded and carried out,
// or why not. Fails, and does not call it, where nothing can be recorded.
typedef void keys_destroyed_fn(void *context, const struct error *why);
int keys_destroy_by_itself(struct daemon *daemon, const struct state_key *key, const char *detail,
                           keys_destroyed_fn *done, void *context, struct error *err);

// A generation as the wire has it; pointers into `key`.
void keys_fill(Custody__V1__Key *out, const struct state_key *key);

#endif
