// SPDX-License-Identifier: Apache-2.0
// Requests: who may make them, what they lead to, and their answers.
#ifndef CUSTODY_SERVICE_H
#define CUSTODY_SERVICE_H

#include <stdint.h>

#include "custody.pb-c.h"
#include "daemon.h"
#include "error.h"
#include "listener.h"
#include "record.h"
#include "state.h"

// A request that is being served. Allocated by service_request, freed by the call_… function that
// answers it.
struct call {
    struct daemon *daemon;
    struct connection *connection;
    uint64_t id;
    const char *name; // of the request, "ReleaseKey"
    struct record_actor actor;
    unsigned roles;             // the actor's, enum policy_role or-ed
    struct record record;       // the one that the request leads to, as far as it is filled in
    struct state_key destroyed; // the generation that is destroyed: the state may forget it
};

// The listener's handlers; the context is the daemon.
listener_request_fn service_request;
listener_hello_fn service_hello;

// Answer and end the call. `response` needs its body only.
void call_answer(struct call *call, Custody__V1__Response *response);
void call_fail(struct call *call, const struct error *why);
// The same, and records that the caller was denied. `call->record` names the key.
void call_deny(struct call *call, const struct error *why);
// call_deny for a PERMISSION_DENIED, call_fail for all else.
void call_refuse(struct call *call, const struct error *why);

// Copies a text of the client into a field of a record. Fails with INVALID_ARGUMENT when it is too
// long.
int call_copy_text(char *field, size_t size, const char *text, const char *what, struct error *err);

// Takes the name of a key that the configuration declares into call->record.key, and the caller
// into its actor. Fails with INVALID_ARGUMENT for what is no name; where the key is not declared,
// with FAILED_PRECONDITION to operators and auditors, and PERMISSION_DENIED to others, as for a key
// that is not theirs. NULL on failure.
const struct config_key *call_take_key(struct call *call, const char *key, struct error *err);
// Whether the caller has one of `roles`, or carries the key's rotations out. Else
// PERMISSION_DENIED.
int call_check_rotates(struct call *call, const struct config_key *key, unsigned roles,
                       struct error *err);
// The ticket, into call->record.
int call_take_ticket(struct call *call, const char *ticket, struct error *err);

#endif
