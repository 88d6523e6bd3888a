// SPDX-License-Identifier: Apache-2.0
// What verify checks of records as it reads them: their order, what they do to the state, the
// segments that they fill, and the signatures in them.
#ifndef TOOLS_AUDIT_RECORD_CHECKS_H
#define TOOLS_AUDIT_RECORD_CHECKS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "log_reader.h"
#include "log_tree.h"
#include "operators.h"
#include "report.h"
#include "state.h"

struct record_checks; // opaque

struct record_checks_options {
    struct log_reader *reader;
    struct report *report;
    struct log_tree *tree;             // told of the roots that records vouch for
    const struct operators *operators; // NULL: none are pinned
    uint64_t signed_size;              // of the head; what lies beyond it may be torn
};

// All that `options` points to is borrowed. NULL when out of memory.
struct record_checks *record_checks_new(const struct record_checks_options *options);
void record_checks_free(struct record_checks *checks);

// Begins at record `size` with the state before it, which becomes the checks'. The record before
// it was log.sealed.
void record_checks_begin(struct record_checks *checks, struct state *state);

// A segment that begins, or that cannot be read.
void record_checks_segment(struct record_checks *checks, const struct log_item *item);
// A line. Returns whether it belongs into the tree, with `leaf` filled but for its offset.
bool record_checks_line(struct record_checks *checks, const struct log_item *item,
                        struct leaf_line *leaf);
// What can be said only at the end; `vkey` is the key that signed the head.
int record_checks_conclude(struct record_checks *checks, const char *vkey, struct error *err);

uint64_t record_checks_lines(const struct record_checks *checks); // the log's size as far as read
const struct log_place *record_checks_last(const struct record_checks *checks); // the last line's
// The last log.loss-accepted: its index and the size of the head that was given up; false for none.
bool record_checks_loss(const struct record_checks *checks, uint64_t *index, uint64_t *old_size,
                        uint64_t *new_size);

#endif
