// SPDX-License-Identifier: Apache-2.0
// The one argument that most commands take: DIR, an audit-dir.
#ifndef TOOLS_AUDIT_DIR_ARGUMENT_H
#define TOOLS_AUDIT_DIR_ARGUMENT_H

#include <argp.h>

// What is left for a command's parser after its options: takes the single DIR into `*dir` and ends
// the program with a message where it is missing or another follows.
error_t dir_argument(int key, char *arg, struct argp_state *state, const char **dir);

#endif
