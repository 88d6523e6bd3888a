// SPDX-License-Identifier: Apache-2.0
// Verifying on from a head that the auditor kept: where to begin to read, and with which state.
#ifndef TOOLS_AUDIT_KEPT_HEAD_H
#define TOOLS_AUDIT_KEPT_HEAD_H

#include <stdint.h>

#include "checkpoint.h"
#include "error.h"
#include "log_reader.h"
#include "log_tree.h"
#include "state.h"

// Where verification begins.
struct kept_start {
    uint64_t first;      // record; 0: the log's beginning
    struct state *state; // before it; NULL when first is 0; the caller's to free
};

// Finds the beginning of the segment that holds the first record after the head, and begins `tree`
// there. Its edge is taken from the stored tiles, which the kept root vouches for once the tree has
// grown to the kept size; the state from the snapshot there, which the log.sealed before it vouches
// for, which the edge vouches for. Returns -1 with `err` when the files do not allow that: nothing
// is wrong with the log then that reading all of it would not tell as well.
int kept_head_start(struct log_reader *reader, const struct checkpoint *kept, struct log_tree *tree,
                    struct kept_start *start, struct error *err);

#endif
