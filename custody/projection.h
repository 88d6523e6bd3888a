// SPDX-License-Identifier: Apache-2.0
// AUDIT DIR/state.db, a projection of the log for those who want to ask it with SQL. A thread of
// its own writes it from copies of the records that are committed; nothing is decided by it, and
// nothing waits for it, whatever becomes of the folder that it lies in.
#ifndef CUSTODY_PROJECTION_H
#define CUSTODY_PROJECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"
#include "record.h"
#include "state.h"

struct projection; // opaque

// Starts the thread, which waits for projection_begin. NULL with `err` on failure.
struct projection *projection_new(const char *audit_dir, struct error *err);
// Lets the thread write what it still has, for a few seconds at most.
void projection_free(struct projection *projection);

// The log was read and says `state`, all of which is committed: what was fed before is forgotten.
// The state.db that is there is compared with it; one that is damaged, of another host or not what
// the log says is set aside, which is said, and made anew.
void projection_begin(struct projection *projection, const struct state *state);

// Copies `count` records that were committed, in order, for the thread. When it has fallen too far
// behind they are dropped, until projection_refresh.
void projection_feed(struct projection *projection, const struct record *records, size_t count);

// Call it every few seconds with the state as it is now (it may be ahead of what is committed): a
// thread that records were dropped for goes on from it. Whether it had to.
bool projection_refresh(struct projection *projection, const struct state *state);

// What an operator should know of state.db, "" when it is nothing.
#define PROJECTION_WARNING_SIZE 256
void projection_warning(struct projection *projection, char text[PROJECTION_WARNING_SIZE]);

#endif
