// SPDX-License-Identifier: Apache-2.0
// When nothing could be recorded, and why: log.stuck says so in the log as soon as anything can be
// recorded again, and log.recovered that it is over.
#ifndef CUSTODY_STUCK_H
#define CUSTODY_STUCK_H

#include <stdbool.h>

#include "error.h"

struct daemon;
struct stuck; // opaque

struct stuck *stuck_new(struct daemon *daemon, struct error *err);
void stuck_free(struct stuck *stuck);

// Records, and so releases, have stopped. The first reason counts until they go on.
void stuck_begin(struct stuck *stuck, const struct error *why);
bool stuck_is_on(const struct stuck *stuck);

// The log is open, but its disk is full: records that in the reserve's room, and waits for more.
// Then opening_go_on is called.
void stuck_wait_for_room(struct stuck *stuck);
void stuck_stop_waiting(struct stuck *stuck); // the log is opened anew
// Service goes on: records what there was.
void stuck_end(struct stuck *stuck);

#endif
