// SPDX-License-Identifier: Apache-2.0
// How often a device is looked at, and when a pass is due; pure. Nothing tells of a handshake: the
// device must be read, the whole of it, which takes 40 ms at 10,000 peers.
#ifndef APPLIER_PACE_H
#define APPLIER_PACE_H

#include <stdbool.h>
#include <stdint.h>

// All times are milliseconds of one clock.

// How long to wait after a look that took `took_ms`, where our own key is cut over and packets
// wait: at most half of a core goes to looking.
int64_t pace_of_own(int64_t took_ms);

// What a counterpart's cutover is followed by.
struct pace {
    int64_t asked_ms;     // when it asked whether we are ready, the last time
    int64_t hot_until_ms; // its handshake is expected until then
    int64_t follow_ms;    // when to look next; INT64_MAX: there is nothing to follow
    int64_t due_ms;       // when a pass is due otherwise
    bool dirty;           // something was changed by ourselves
    bool heard;           // a counterpart whose move was made has said something since
};

// How long to wait after a look that took `took_ms`: from 4 ms on a sixteenth of the time since it
// asked, so that a cutover that takes long, as on a busy machine, is not made longer by looking;
// but 25 ms at most, because of the way back nobody tells. Never less than `took_ms`, half of a
// core; when no handshake is expected a fiftieth, and a second at least.
int64_t pace_follow(const struct pace *pace, int64_t now_ms, int64_t took_ms);

// When a pass is wanted. While a handshake is expected, only that counts: passes wait, unless we
// have changed something, or the counterpart has something to say after our move.
int64_t pace_pass(const struct pace *pace, int64_t now_ms);

#endif
