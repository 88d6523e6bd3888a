// SPDX-License-Identifier: Apache-2.0
// A process beside this one that lets an interface's packets go when this one dies while it holds
// them: nothing else would, until somebody starts an applier again.
#ifndef APPLIER_HOLD_GUARD_H
#define APPLIER_HOLD_GUARD_H

#include "error.h"

struct hold_guard;

// Starts it. To be called before any key is in memory: it is a copy of this process.
int hold_guard_start(struct hold_guard **out, const char *interface, struct error *err);
// Says that the interface is held from now on, or is not any more. A guard that has died is no
// reason not to go on.
void hold_guard_tell(struct hold_guard *guard, int held);
// Ends it and waits for that. NULL is fine.
void hold_guard_stop(struct hold_guard *guard);

#endif
