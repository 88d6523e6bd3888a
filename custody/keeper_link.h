// SPDX-License-Identifier: Apache-2.0
// The daemon's end of the keeper's channel: starts or connects to the keeper, watches it, and
// brings it back with backoff, while everybody else carries on.
#ifndef CUSTODY_KEEPER_LINK_H
#define CUSTODY_KEEPER_LINK_H

#include <stdbool.h>

#include <event2/event.h>

#include "channel.h"
#include "config.h"
#include "error.h"

struct keeper_link; // opaque

struct keeper_link_handlers {
    // The keeper has logged in and answered.
    void (*ready)(void *context, const struct keeper_status *status);
    // It is gone: exited, hung beyond its time, or it spoke nonsense. It is being brought back.
    void (*lost)(void *context, const struct error *why);
    // A question that was asked is answered, or (`ok` false) failed or will not be: after
    // `seconds`, in which it waited for those before it, too. May be NULL.
    void (*answered)(void *context, enum keeper_op op, double seconds, bool ok);
    void *context;
};

// `config` must outlive the link. Nothing happens before keeper_link_start.
struct keeper_link *keeper_link_new(struct event_base *base, const struct config *config,
                                    const struct keeper_link_handlers *handlers, struct error *err);
void keeper_link_start(struct keeper_link *link);
// Closes the channel, upon which the keeper ends by itself. Handlers are not called any more.
void keeper_link_free(struct keeper_link *link);

bool keeper_link_ready(const struct keeper_link *link);
// Why it is not ready; "" when it is.
const char *keeper_link_message(const struct keeper_link *link);

// An answer, or, when `reply` is NULL, that none will come because the keeper was lost. For a
// COMMIT it is called once for each entry's answer (header.op KEEPER_ENTRY, header.id the entry's)
// and once for the commit's own.
typedef void keeper_reply_fn(void *context, const struct keeper_reply *reply);

// Sends a request that is answered (its header is filled in here). Fails when the keeper is not
// ready.
int keeper_link_ask(struct keeper_link *link, struct keeper_request *request, enum keeper_op op,
                    keeper_reply_fn *answer, void *context, struct error *err);
// Sends an entry, which is answered under `id` as part of the COMMIT asked next.
int keeper_link_send_entry(struct keeper_link *link, struct keeper_request *request, uint64_t id,
                           struct error *err);

// Tries again with a keeper that could not log in: somebody has seen to the PIN.
void keeper_link_resume(struct keeper_link *link);

// To be called for a child that was reaped: says what became of the keeper. Returns whether `pid`
// was it.
bool keeper_link_reaped(struct keeper_link *link, pid_t pid, int status);

#endif
