// SPDX-License-Identifier: Apache-2.0
// Metrics of custodyd, on a socket and in a file.
#ifndef CUSTODY_METRICS_H
#define CUSTODY_METRICS_H

#include <stdbool.h>

#include "channel.h"
#include "error.h"
#include "record.h"

struct daemon;
struct metrics; // opaque

// Opens what the configuration names. A file that cannot be written is only said, and tried again.
struct metrics *metrics_new(struct daemon *daemon, struct error *err);
void metrics_free(struct metrics *metrics);

// Takes in a record that was committed.
void metrics_note(struct metrics *metrics, const struct record *record);
// Takes in an answer of the keeper's (keeper_link.h: answered).
void metrics_answered(struct metrics *metrics, enum keeper_op op, double seconds, bool ok);

#endif
