// SPDX-License-Identifier: Apache-2.0
// The sealed daemon: token and log disagree, nothing can be recorded, and what leads out of it is
// that the files are put back, or that two operators accept the loss.
#ifndef CUSTODY_LOSS_H
#define CUSTODY_LOSS_H

#include "custody.pb-c.h"
#include "error.h"

struct call;
struct daemon;
struct loss; // opaque

struct loss *loss_new(struct daemon *daemon, struct error *err);
void loss_free(struct loss *loss);

// Opening the log failed with ERROR_DATA_LOSS, `why`: looks at what is there and makes the daemon
// SEALED, with a message that names what is missing or changed. Approvals of the same loss that
// were given before stay.
void loss_enter(struct loss *loss, const struct error *why);

// Has the log opened again at once, unless a loss is just being accepted.
void loss_look_again(struct loss *loss);

// What is served meanwhile.
void loss_list(struct call *call, const char *id);
void loss_approve(struct call *call, const Custody__V1__Approve *approve);
// Answers with the request; once it has its approvals, goes on with the log that is there.
void loss_accept(struct call *call);

#endif
