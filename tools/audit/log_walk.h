// SPDX-License-Identifier: Apache-2.0
// A walk over a whole log, for the commands that print, count or hash what is in it. Only verify
// looks closer at what is damaged, and reads with a log_reader itself.
#ifndef TOOLS_AUDIT_LOG_WALK_H
#define TOOLS_AUDIT_LOG_WALK_H

#include <stdint.h>

#include "error.h"
#include "log_reader.h"
#include "record.h"

// Called for each record, with the line that it was parsed from; both are valid during the call.
// Returns 0, or -1 with `err`, which ends the walk.
typedef int log_walk_fn(void *context, const struct record *record, const struct segment_line *line,
                        struct error *err);

// What a walk came by.
struct log_walk_counts {
    uint64_t segments, bytes;
    uint64_t damaged; // lines that are no records, and segments that cannot be read
};

// Walks through the log in DIR from the segment on that should hold record `since` (its earlier
// records come too). What is damaged is passed over, and named on standard error as "COMMAND:
// log/SEGMENT:LINE: what"; `command` NULL says nothing of it. Returns 0 with `*counts` filled, or
// -1 with `err`: DIR is no audit-dir, reading fails, or `found` did.
int log_walk(const char *dir, uint64_t since, const char *command, log_walk_fn *found,
             void *context, struct log_walk_counts *counts, struct error *err);

// What log_walk says of damage.
void log_walk_complain(const char *command, const struct log_place *place, const char *what);

// Called for each of the lines that the tree is over.
typedef int log_line_fn(void *context, const struct segment_line *line, struct error *err);

// Walks through the first `size` lines of the log, records or not. Fails with ERROR_DATA_LOSS where
// it has fewer, or a segment cannot be opened.
int log_walk_lines(struct log_reader *reader, uint64_t size, log_line_fn *found, void *context,
                   struct error *err);

#endif
