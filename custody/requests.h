// SPDX-License-Identifier: Apache-2.0
// Dangerous operations: requesting them, listing what waits, and two operators' approvals.
#ifndef CUSTODY_REQUESTS_H
#define CUSTODY_REQUESTS_H

#include "request_list.h"
#include "service.h"

void requests_list(struct call *call, const Custody__V1__ListRequests *wanted);
void requests_approve(struct call *call, const Custody__V1__Approve *approve);

// Records the request to destroy the generation that call->record names, and answers with it.
void requests_make(struct call *call);
// Takes the id of the request under which something is to be done into call->record; "" is fine.
int requests_name(struct call *call, const char *id, struct error *err);

// Finds out who approves `requested`: whose pinned key made the signature, or with "" which
// operator the actor is. Fills the approval.given record.
int requests_identify(const struct config *config, const struct record *requested,
                      const struct record_actor *actor, const char *signature, struct record *given,
                      struct error *err);

// Whether an approval record bears a signature over `requested` by the pinned key of the operator
// that it names.
int requests_check_signed(const struct config *config, const struct record *requested,
                          const struct record *given, struct error *err);

// Whether a record that stands in the log but was never signed may be carried on as far as
// approvals go: after a crash it may be anybody's who could write the file.
int requests_check_again(struct daemon *daemon, const struct record *record, struct error *err);

// Answer with a request that needs approvals first, with one that was approved by `name`, and with
// a list of one.
void requests_answer_needed(struct call *call, const struct request *request);
void requests_answer_approved(struct call *call, const struct request *request, const char *name);
void requests_answer_one(struct call *call, const struct request *request);

#endif
