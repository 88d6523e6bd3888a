// SPDX-License-Identifier: Apache-2.0
// The daemon as a whole: its parts, and what it can serve at the moment.
#ifndef CUSTODY_DAEMON_H
#define CUSTODY_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "channel.h"
#include "commit.h"
#include "config.h"
#include "denials.h"
#include "disk.h"
#include "hooks.h"
#include "keeper_link.h"
#include "leases.h"
#include "listener.h"
#include "log.h"
#include "loss.h"
#include "metrics.h"
#include "opening.h"
#include "policy.h"
#include "projection.h"
#include "rotation_timer.h"
#include "state.h"
#include "steps.h"
#include "stuck.h"

enum daemon_phase {
    DAEMON_CLOSED, // the keeper or the log is not there: `token status` and `status` are served
    DAEMON_UNINITIALISED, // an empty log and a token without objects: `token init`, too
    DAEMON_SEALED,        // token and log disagree: status, and what leads out of it
    DAEMON_READY,
};

struct watches;

struct daemon {
    struct event_base *base;
    const char *config_path;
    struct config *config;
    struct policy_rates *rates;
    struct keeper_link *link;
    struct keeper_status keeper; // as it said last
    struct disk *disk;
    struct log *log;
    struct state *state;           // never NULL; replaced when the log is read again
    struct projection *projection; // of the state, for others to read
    struct commit *commit;
    struct opening *opening;
    struct stuck *stuck;
    struct denials *denials;
    struct loss *loss; // what is to be done while SEALED
    struct leases *leases;
    struct rotation_timer *rotation_timer;
    struct steps *steps;     // of rotations
    struct watches *watches; // that clients have open
    struct listener *listener;
    struct hooks *hooks;
    struct metrics *metrics;
    enum daemon_phase phase;
    enum error_code phase_code;            // of why it is not READY
    char phase_message[ERROR_MESSAGE_MAX]; // why
    bool started_recorded;                 // daemon.started stands in the log
    bool generating;                       // a key is being generated
    unsigned beginning;                    // rotations that are being begun
    bool stopping;
    bool stop_recorded; // daemon.stopped is in the log, or on its way there
    int64_t started_us;
    struct event *status_timer;  // asks the keeper for its status now and then
    struct event *publish_timer; // writes what outside readers still lack
    struct event *stop_timer;    // bounds the drain
};

// Reads the configuration, opens the log and the socket, and starts the keeper. NULL with `err` on
// failure.
struct daemon *daemon_new(const char *config_path, struct error *err);
// Serves until a signal says to stop. Returns 0 after a clean stop.
int daemon_run(struct daemon *daemon);
void daemon_free(struct daemon *daemon);

void daemon_set_phase(struct daemon *daemon, enum daemon_phase phase, const char *message);
// CLOSED, with the reason's message; its code is told to clients when it is DATA_LOSS.
void daemon_close(struct daemon *daemon, const struct error *why);

// Records something that the daemon did by itself; a failure is only said.
void daemon_record(struct daemon *daemon, const struct record *record);

#endif
