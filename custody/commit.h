// SPDX-License-Identifier: Apache-2.0
// The one way into the log. Records gather while the batch before them commits; then they get their
// seq and time, are checked against the state, appended, and handed to the keeper, which makes them
// durable, does what they ask for and signs the head. Only then is anybody told.
#ifndef CUSTODY_COMMIT_H
#define CUSTODY_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "channel.h"
#include "error.h"
#include "keeper_link.h"
#include "log.h"
#include "record.h"
#include "state.h"

struct commit; // opaque

// What became of a submitted record.
struct commit_result {
    bool recorded; // it is in the log, durable and signed
    struct error
        error; // not recorded: why. Recorded: what its action failed with, ERROR_OK when it did not
    const struct record *record; // with its seq and time when recorded
    const char *line;            // without its newline; `line_length` bytes
    size_t line_length;
    const uint8_t *box;     // of KEEPER_ACTION_RELEASE: KEEPER_BOX_SIZE bytes
    const char *note;       // of KEEPER_ACTION_PUBLISH, ACKNOWLEDGE and REFRESH
    const char *checkpoint; // the signed head that covers it
};
// Pointers in `result` live until the call returns.
typedef void commit_done_fn(void *context, const struct commit_result *result);

struct commit_handlers {
    // Nothing more can be recorded until commit_open: what stands in the log must be looked at
    // again.
    void (*closed)(void *context, const struct error *why);
    // The record is in the log, durable and signed. Comes before the answers of its batch.
    void (*committed)(void *context, const struct record *record);
    // The queue has become empty.
    void (*idle)(void *context);
    void *context;
};

// `origin` is the log's. The link and the log must outlive it. Closed until commit_open.
struct commit *commit_new(struct event_base *base, struct keeper_link *link, struct log *log,
                          const char *host, const struct commit_handlers *handlers,
                          struct error *err);
void commit_free(struct commit *commit);

// From now on records are applied to `state`, which holds what is in the log (signed or not), and
// are appended.
void commit_open(struct commit *commit, struct state *state);
// Fails all that waits with `why`, and takes nothing until the next commit_open. Calls no handler.
void commit_close(struct commit *commit, const struct error *why);
bool commit_is_open(const struct commit *commit);
bool commit_is_idle(const struct commit *commit);

// Queues a record: a copy, whose seq, time and host are filled in when its batch is made. `done`
// (may be NULL) is called exactly once, never from within this call. Fails when closed.
int commit_submit(struct commit *commit, const struct record *record, enum keeper_action action,
                  commit_done_fn *done, void *context, struct error *err);

// A record of several that are queued together.
struct commit_entry {
    struct record record;
    enum keeper_action action;
    commit_done_fn *done; // may be NULL
    void *context;
};

// Queues several records, which go into the log one after the other, and into one batch where they
// fit: from the first that cannot be recorded on, none is. 1 to COMMIT_GROUP_MAX; fails when
// closed, and then queues none.
#define COMMIT_GROUP_MAX 4
int commit_submit_all(struct commit *commit, const struct commit_entry *entries, unsigned count,
                      struct error *err);

// Queues a record that stands in the segment already and was applied to the state, but is not
// signed.
int commit_resubmit(struct commit *commit, const struct record *record, enum keeper_action action,
                    commit_done_fn *done, void *context, struct error *err);

// Closes the segment when it has become old; call it now and then.
void commit_look_at_age(struct commit *commit);

// Microseconds since 1970 UTC, by the wall clock.
int64_t commit_now_us(void);

#endif
