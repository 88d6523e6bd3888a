// SPDX-License-Identifier: Apache-2.0
// The thread that does all work on the audit folder, so that a disk that hangs holds up nobody who
// needs no disk: a queue of jobs, done in order, each answered on the event loop.
#ifndef CUSTODY_DISK_H
#define CUSTODY_DISK_H

#include <stdbool.h>

#include <event2/event.h>

#include "error.h"

#define DISK_HANGS_S 10 // a job older than this counts as hanging

struct disk; // opaque

// Both are called on the event loop.
struct disk_handlers {
    void (*hangs)(void *context, const struct error *why); // a job does not return
    void (*back)(void *context);                           // it has returned after all
    void *context;
};

struct disk *disk_new(struct event_base *base, const struct disk_handlers *handlers,
                      struct error *err);

typedef void disk_fn(void *context);
// Queues a job: `work` is called in the thread, after all jobs queued before; then `done` on the
// event loop. `what` names it for people ("appending") and is not copied. Fails when too many wait.
int disk_do(struct disk *disk, const char *what, disk_fn *work, disk_fn *done, void *context,
            struct error *err);

// Waits until every job is done, and calls their `done`; not longer than `ms`. Returns whether they
// are.
bool disk_wait(struct disk *disk, int ms);

// Whether the job under way hangs, and what to say of it.
bool disk_is_hanging(const struct disk *disk, struct error *why);

// Ends the thread once its queue is empty. False, with the thread left as it is, when that takes
// longer than `ms`: then nothing that jobs use may be freed. No `done` is called any more.
bool disk_free(struct disk *disk, int ms);

#endif
