// SPDX-License-Identifier: Apache-2.0
// Stays: sets keys at start, when an interface appears again, and when told.
#ifndef APPLIER_RUN_H
#define APPLIER_RUN_H

#include "apply.h"
#include "error.h"
#include "retry.h"

struct run_target {
    const char *interface, *key;
};

// Serves `targets` until SIGTERM or SIGINT; SIGHUP releases and sets every key anew. `rate` bounds
// the releases asked for each target. Tells systemd READY after the first round. Returns 0 when
// told to end, or -1.
int run(struct apply_settings *settings, const struct run_target *targets, size_t count,
        const struct rate *rate, struct error *err);

#endif
