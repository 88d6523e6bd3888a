// SPDX-License-Identifier: Apache-2.0
// Programs that are run for records of the log: each gets the record's line on its standard input.
// They see durable records only, in their order, one at a time for each hook; whoever is slow loses
// some, which is counted and said, and holds up nobody.
#ifndef CUSTODY_HOOKS_H
#define CUSTODY_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "config.h"
#include "error.h"
#include "openmetrics.h"
#include "record.h"

#define HOOKS_WAITING_MAX 64 // records that wait for one hook

struct daemon;
struct hooks; // opaque

// Whether this process may run each of these hooks as whom it is to run: needed are root, or that
// its user is the process's own. Root itself runs no hook as root.
int hooks_check(const struct config *config, struct error *err);

// Runs what daemon->config says, at each time. Fails where hooks_check does.
struct hooks *hooks_new(struct daemon *daemon, struct error *err);
// Kills what still runs.
void hooks_free(struct hooks *hooks);
// The daemon's configuration is another: takes up the hooks that are new in it, and forgets what
// waits for those that are not in it any more.
void hooks_configure(struct hooks *hooks);

// Takes in a record that was committed.
void hooks_note(struct hooks *hooks, const struct record *record);
// To be called for a child that was reaped. Returns whether `pid` was a hook's.
bool hooks_reaped(struct hooks *hooks, pid_t pid, int status);

// Families of metrics: how often each was run, and what it lost.
void hooks_put_metrics(const struct hooks *hooks, struct openmetrics *text);

#endif
