// SPDX-License-Identifier: Apache-2.0
// Open watches: requests that are answered when a key has changed.
#ifndef CUSTODY_WATCHES_H
#define CUSTODY_WATCHES_H

#include "service.h"

struct watches; // opaque

struct watches *watches_new(struct daemon *daemon, struct error *err);
void watches_free(struct watches *watches);

void watches_add(struct call *call, const Custody__V1__WatchKeys *request);
// Takes in a record that was committed.
void watches_note(struct watches *watches, const struct record *record);
// Answers all, for the log was read again: what its watchers know may be anything.
void watches_restart(struct watches *watches);
// Answers all, for the daemon stops; there will be no more.
void watches_end(struct watches *watches);

#endif
