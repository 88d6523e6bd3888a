// SPDX-License-Identifier: Apache-2.0
// How the log that is there differs from the one that the token remembers: reads every record, and
// changes nothing.
#ifndef CUSTODY_SURVEY_H
#define CUSTODY_SURVEY_H

#include <stdbool.h>
#include <stdint.h>

#include "approval.h"
#include "checkpoint.h"
#include "error.h"
#include "merkle.h"
#include "record.h"

#define SURVEY_ATTEMPT (APPROVALS_NEEDED + 2) // the request, the approvals, log.loss-accepted

// The log as it stands: its records up to the first line that is not the next one. The records by
// which operators accept that just this log goes on (an attempt that a crash interrupted) are no
// part of it.
struct survey {
    uint64_t size;
    struct merkle_hash root;
    unsigned attempt;                        // records of such an attempt that follow,
    struct record attempted[SURVEY_ATTEMPT]; // and what they are; SURVEY_ATTEMPT = it is complete
    char what[ERROR_MESSAGE_MAX];            // which record is missing or changed; "" where none is
};

// Reads the log in `dir` and compares it with the head that the token remembers (NULL: it has
// none). Fails only where files cannot be read.
int survey_log(const char *dir, const struct checkpoint *remembered, struct survey *survey,
               struct error *err);

// Finds the approval.requested record of a request, the last one of that id.
int survey_find_request(const char *dir, const char *id, struct record *requested,
                        struct error *err);

#endif
