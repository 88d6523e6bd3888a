// SPDX-License-Identifier: Apache-2.0
// A bar on standard error while a log is read, where that is a terminal.
#ifndef TOOLS_AUDIT_PROGRESS_H
#define TOOLS_AUDIT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown;
    uint64_t total; // 0: not known
    uint64_t next;  // when to draw again
};

void progress_begin(struct progress *progress, uint64_t first, uint64_t total);
// `done` of the total; cheap enough for each record.
void progress_draw(struct progress *progress, uint64_t done);
// Wipes the bar.
void progress_end(struct progress *progress);

#endif
