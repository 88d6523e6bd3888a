// SPDX-License-Identifier: Apache-2.0
// Cuts an interface over to its next private key so that no packet is lost, or back to the one
// before. Blocks for as long as packets are held, and not much longer.
//
// What is true of WireGuard here: setting the private key ends the sending sessions and leaves the
// receiving ones; a persistent keepalive that goes from 0 to 25 sends one now, and so forces a
// handshake now; latest-handshake changes when the session is there both ways. Outgoing packets
// wait above WireGuard until each counterpart has said that the allowed-ips moved.
#ifndef APPLIER_CUTOVER_H
#define APPLIER_CUTOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "hold.h"
#include "hold_guard.h"
#include "moves.h"

#define CUTOVER_ASKS_MAX 64 // times that a counterpart is asked

// A counterpart that the rotation waits for.
struct cutover_peer {
    uint8_t public_key[DEVICE_KEY_SIZE]; // its own, on our interface
    char host[HOST_MAX + 1];
    bool has_move_address; // it takes and sends move datagrams there; else a fixed hold serves
    union device_endpoint move_address;
    uint8_t move_sha256[32]; // of the secret in its signed acknowledgement
    // What came of it.
    bool ready, handshaken, moved;
    // Inside.
    struct timespec before; // its latest handshake under the key before
    int64_t handshaken_ms;  // when a new one was seen
};

struct cutover {
    struct device *device;
    struct hold *hold;        // NULL: nothing is held ("poll")
    struct hold_guard *guard; // told of it; may be NULL
    struct moves *moves;      // NULL: no move datagrams
    const char *own_host, *own_key;
    uint64_t generation; // that takes over
    int deadline_ms;     // from the new key's setting to its confirmation
    struct cutover_peer *peers;
    size_t peer_count;
    // What was measured: for the log and the operator.
    int held_ms;
    int round_trip_ms;    // the longest, between asking and the answer; 0 = nobody was asked
    const char *farthest; // whose that is; NULL = nobody's
    // Inside.
    int64_t asked_ms[CUTOVER_ASKS_MAX]; // when it was asked who is ready
    unsigned asks;
    unsigned held_max; // packets that may wait
};

// Asks each counterpart that takes move datagrams whether its applier is there, and has it look
// closely from now on. Returns 0 when all answered within `timeout_ms`, else -1 with `err` naming
// those that did not. Measures their round trips.
int cutover_ask_ready(struct cutover *cutover, int timeout_ms, struct error *err);

enum cutover_outcome {
    CUTOVER_CONFIRMED,     // handshake and move with each; nothing is held any more
    CUTOVER_NOT_CONFIRMED, // the new key is set and the packets are still held: cutover_back
    CUTOVER_NOT_BEGUN,     // the new key was not set; nothing is held
};

// Whether packets that are held need not wait longer than `deadline_ms`, as far as the round trips
// tell: a handshake that the other end knows of takes one and a half, to hear of its move another
// half. 0, or -1 with `err` saying what would do.
int cutover_check_deadline(const struct cutover *cutover, struct error *err);

// Holds, sets `private_key` (32 bytes of guarded memory) and waits. `err` for all but the first.
enum cutover_outcome cutover_run(struct cutover *cutover, const uint8_t *private_key,
                                 struct error *err);

// Sets the key before again, waits a moment for its handshakes (400 ms and two round trips), and
// lets the packets go in any case. -1 when the key could not be set.
int cutover_back(struct cutover *cutover, const uint8_t *private_key, struct error *err);

// Lets the packets go, whatever is set.
void cutover_let_go(struct cutover *cutover);

// Forces a handshake with each counterpart under the key that is set, and waits for it up to
// `timeout_ms`: whether a key that was set by a process before this one is confirmed. 0, or -1 with
// `err` naming those without.
int cutover_probe(struct cutover *cutover, int timeout_ms, struct error *err);

#endif
