// SPDX-License-Identifier: Apache-2.0
// custody-applier drift: log, bundles and interfaces compared, once, and told.
#ifndef APPLIER_DRIFT_COMMAND_H
#define APPLIER_DRIFT_COMMAND_H

#include <stdbool.h>

#include "apply.h"

// For `interface`, or for all of the file at `path` when it is NULL. Prints what it finds, as JSON
// with `json`; with `repair` puts it right first and prints what is left. Returns the exit status:
// 0 no drift, 1 drift, 2 the configuration is wrong, 3 custodyd is not reached or refuses, 4 no
// such interface.
int drift_command(const char *path, const struct apply_settings *settings, const char *interface,
                  bool json, bool repair);

#endif
