// SPDX-License-Identifier: Apache-2.0
// Metrics of a running applier, on a socket and in a file.
#ifndef APPLIER_METRICS_H
#define APPLIER_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "openmetrics.h"
#include "setup.h"
#include "tended.h"

// What is told about. Must outlive the metrics; whoever changes it does so between two calls.
struct metrics_source {
    struct tended_world *world;
    struct tended **tended;
    size_t count;
};

// All of it as text, for the caller to free(); NULL when out of memory. Reads a device again when
// it was last read some seconds ago and no cutover is in flight.
char *metrics_text(const struct metrics_source *source, enum openmetrics_format format,
                   size_t *length);

struct metrics; // opaque

// Opens what `setup` names; it may name neither. NULL with `err` on failure.
struct metrics *metrics_open(const struct setup *setup, const struct metrics_source *source,
                             struct error *err);
void metrics_close(struct metrics *metrics); // NULL is fine
// For poll(); -1 without a socket.
int metrics_fd(const struct metrics *metrics);
// When to call metrics_work at the latest, of device_now_ms; INT64_MAX: no need.
int64_t metrics_due_ms(const struct metrics *metrics);
// Answers who asks, and has the file written when that is due; waits for neither.
void metrics_work(struct metrics *metrics);

#endif
