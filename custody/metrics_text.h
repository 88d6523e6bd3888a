// SPDX-License-Identifier: Apache-2.0
// What custodyd's metrics are: counts since it was started, and how things stand, as text.
#ifndef CUSTODY_METRICS_TEXT_H
#define CUSTODY_METRICS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "channel.h"
#include "name.h"
#include "openmetrics.h"
#include "record.h"

struct daemon;

#define METRICS_REQUESTS_MAX 32 // kinds of requests that were denied
#define METRICS_OPS          (KEEPER_COMMIT + 1)

// What is counted of one key.
struct metrics_key {
    char key[KEY_MAX + 1];
    uint64_t started, confirmed, rolled_back;
    // The counterparts that have not said yet that they dropped the generation revoked last.
    uint64_t revoked; // that generation; 0 = none since the daemon was started
    size_t unconfirmed_count, unconfirmed_room;
    char (*unconfirmed)[HOST_MAX + 1];
};

// Since the daemon was started. Begins all zeros.
struct metrics_counts {
    uint64_t records[RECORD_EVENTS];     // by event
    uint64_t occurrences[RECORD_EVENTS]; // with those that a coalesced record stands for
    struct {
        char request[33];
        uint64_t count;
    } denied[METRICS_REQUESTS_MAX];
    size_t denied_kinds;
    struct metrics_key *keys;
    size_t key_count, key_room;
    struct openmetrics_histogram hsm[METRICS_OPS]; // by enum keeper_op
    uint64_t hsm_failures[METRICS_OPS];
    int64_t hsm_success_us; // the last one's time; 0 = none yet
};

// Takes in a record that was committed.
void metrics_count_record(struct metrics_counts *counts, const struct daemon *daemon,
                          const struct record *record);
// Takes in an answer of the keeper's.
void metrics_count_answer(struct metrics_counts *counts, enum keeper_op op, double seconds, bool ok,
                          int64_t now_us);
void metrics_counts_clear(struct metrics_counts *counts);

// All of it, for the caller to free(); NULL when out of memory.
char *metrics_text(const struct metrics_counts *counts, const struct daemon *daemon,
                   enum openmetrics_format format, size_t *length);

#endif
