// SPDX-License-Identifier: Apache-2.0
// What the process gives up and shuts before it learns the PIN.
#ifndef PKCS11_HARDEN_H
#define PKCS11_HARDEN_H

#include "error.h"

// Starts the program again with LD_BIND_NOW=1, once: the lazy binding of a module's functions
// leaves plaintext on the stack (measured on SoftHSM). Returns 0 when it was set already.
int harden_bind_now(char **argv, struct error *err);

// Closes every descriptor but 0, 1, 2 and `count` of them from `first` on; opens /dev/null for
// those of the three that were closed.
int harden_descriptors(int first, int count, struct error *err);

// Not dumpable (no core, no ptrace by the same uid), no new privileges, umask 077, SIGPIPE ignored,
// and memory locked where that is permitted.
int harden_process(struct error *err);

#endif
