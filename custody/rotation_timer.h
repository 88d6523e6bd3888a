// SPDX-License-Identifier: Apache-2.0
// Does by itself what is due: rotations by schedule, the destruction of generations that have had
// their grace, replacements that a revocation still lacks.
#ifndef CUSTODY_ROTATION_TIMER_H
#define CUSTODY_ROTATION_TIMER_H

#include "error.h"
#include "record.h"

struct daemon;
struct rotation_timer; // opaque

struct rotation_timer *rotation_timer_new(struct daemon *daemon, struct error *err);
void rotation_timer_free(struct rotation_timer *timer);

// Looks at once, from the event loop: the log was opened, or the policy read anew.
void rotation_timer_look(struct rotation_timer *timer);
// Takes in a record that was committed: what is due may have changed.
void rotation_timer_note(struct rotation_timer *timer, const struct record *record);

#endif
