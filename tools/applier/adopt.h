// SPDX-License-Identifier: Apache-2.0
// custody-applier adopt: an interface that was configured with a plaintext private key comes under
// custody, and off that key.
#ifndef APPLIER_ADOPT_H
#define APPLIER_ADOPT_H

#include "apply.h"

// Does what is left to be done for `interface` of the file at `path`, and says on standard output
// what that was; run again it carries on. Returns the exit status: 0 adopted, 1 something has to be
// changed first, 2 the configuration is wrong, 3 custodyd is not reached or refuses, 4 no such
// interface.
int adopt_command(const char *path, const struct apply_settings *settings, const char *interface);

#endif
