// SPDX-License-Identifier: Apache-2.0
// What verify found, in the order of the log: for people or as JSON, and a verdict.
#ifndef TOOLS_AUDIT_REPORT_H
#define TOOLS_AUDIT_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "log_reader.h"
#include "merkle.h"

#define REPORT_NO_INDEX     UINT64_MAX // where no record is meant
#define REPORT_FINDINGS_MAX 1000       // kept; the rest is only counted
#define REPORT_AT_END       UINT64_MAX // order of what is said of the log as a whole

// What a finding means to whoever has to act on it.
enum report_kind {
    REPORT_NOT_A_RECORD,
    REPORT_SEQUENCE,
    REPORT_SEGMENT,
    REPORT_STATE,
    REPORT_TIME,
    REPORT_LEASE,
    REPORT_ALTERED,
    REPORT_TILE,
    REPORT_SNAPSHOT,
    REPORT_HEAD,
    REPORT_TRUNCATED,
    REPORT_KEPT_HEAD,
    REPORT_LOG_KEY,
    REPORT_APPROVAL,
    REPORT_LOSS,
    REPORT_KINDS
};

struct report; // opaque

// NULL when out of memory.
struct report *report_new(void);
void report_free(struct report *report);

// Where in the log the next findings belong, counted in lines.
void report_at(struct report *report, uint64_t order);

// Adds a finding about the line at `place` that is, or should be, record `index`.
void report_line(struct report *report, enum report_kind kind, const struct log_place *place,
                 uint64_t index, const char *format, ...) __attribute__((format(printf, 5, 6)));
// Adds a finding about another file in the audit-dir, named relative to it.
void report_file(struct report *report, enum report_kind kind, const char *file, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));
// Adds something worth knowing that is no finding.
void report_note(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
uint64_t report_findings(const struct report *report);

// What the verdict is about.
struct report_log {
    uint64_t first;                 // record that was read first
    uint64_t records;               // how many the log has
    uint64_t signed_size;           // of its signed head,
    const struct merkle_hash *root; // and its root; NULL when there is none that holds
};
// Prints everything, and the verdict last: sound or not.
void report_print(struct report *report, const struct report_log *log, bool json);

#endif
