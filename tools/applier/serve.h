// SPDX-License-Identifier: Apache-2.0
// Stays, with a configuration file: sets keys, rotates them, and follows the counterparts'
// rotations.
#ifndef APPLIER_SERVE_H
#define APPLIER_SERVE_H

#include "apply.h"
#include "error.h"

// Serves what the file at `path` says until SIGTERM or SIGINT; SIGHUP reads it and the trust file
// anew (one that is wrong is said, and the one before stays). `settings`: what the command line
// says goes before what the file says, where it is not NULL. Returns 0 when told to end, or -1.
int serve(const char *path, const struct apply_settings *settings, struct error *err);

#endif
