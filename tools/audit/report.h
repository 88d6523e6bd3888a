// SPDX-License-Identifier: Apache-2.0
// What verify says: one line a finding or note as it comes, for people or as JSON, and a verdict.
#ifndef TOOLS_AUDIT_REPORT_H
#define TOOLS_AUDIT_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "log_reader.h"
#include "merkle.h"

#define REPORT_NO_INDEX UINT64_MAX // where no record is meant

struct report {
    bool json;
    uint64_t findings;
};

// Prints a finding about the line at `place` that is, or should be, record `index`.
void report_line(struct report *report, const struct log_place *place, uint64_t index,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));
// Prints a finding about another file in the audit-dir, named relative to it.
void report_file(struct report *report, const char *file, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Prints something worth knowing that is no finding.
void report_note(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// Prints the last line: sound or not. `records` is how many lines the log has, `signed_size` and
// `root` are those of its signed head; `root` NULL when there is none that holds.
void report_verdict(const struct report *report, uint64_t records, uint64_t signed_size,
                    const struct merkle_hash *root);

#endif
