// SPDX-License-Identifier: Apache-2.0
// The exact account of numbered packets: each counted once, whatever was lost, doubled or
// overtaken.
#ifndef TESTS_ROTATION_ACCOUNT_H
#define TESTS_ROTATION_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#define ACCOUNT_NUMBERS_MAX (UINT64_C(1) << 28) // packets a run: 74 hours at 1,000 a second
#define ACCOUNT_WINDOWS_MAX 65536

// What arrived of the packets that were sent in one window of time.
struct account_window {
    uint64_t received;     // each number once
    int64_t longest_gap;   // ns between two arrivals, or an arrival and the end, the later of here
    int64_t longest_delay; // ns from sending to arrival; both ends have one clock
};

struct account;

// An empty account, NULL without memory.
struct account *account_new(void);

void account_free(struct account *account);

// Takes down the arrival at `now` (ns) of packet `number`, sent at `sent` (ns) in window `window`.
// False when a number or window is beyond the maxima or memory ran out: the account is then not
// exact any more.
bool account_take(struct account *account, uint64_t number, uint32_t window, int64_t sent,
                  int64_t now);

// The sender said at `now` (ns) that it had ended, in window `window`: a silence until then was a
// gap, too.
void account_end(struct account *account, uint32_t window, int64_t now);

// Packets that arrived, each number once.
uint64_t account_received(const struct account *account);

// Arrivals of numbers that had arrived before.
uint64_t account_duplicated(const struct account *account);

// First arrivals of numbers lower than one that had arrived.
uint64_t account_reordered(const struct account *account);

// When the last first arrival was (ns); 0 before any.
int64_t account_last(const struct account *account);

// What arrived of window `window`; zeros when nothing did.
struct account_window account_window(const struct account *account, uint32_t window);

#endif
