// SPDX-License-Identifier: Apache-2.0
// What a released key must be before it is handed over: proven by its receipt, and the one that was
// asked for.
#ifndef PROTO_RELEASED_H
#define PROTO_RELEASED_H

#include <stddef.h>
#include <stdint.h>

#include "custody.h"
#include "error.h"
#include "note.h"

// What was asked for.
struct released_request {
    const char *key;
    uint64_t generation; // 0: the daemon's choice
    // Of a preshared key: the link's other end, and its epoch. NULL: a private key was asked for.
    const char *peer, *peer_key;
    uint64_t epoch;
    enum custody_reason reason;
    const char *ticket;
    const uint8_t *applier_public_key;  // ours, ephemeral
    const uint8_t *applier_private_key; // in guarded memory
};

// What was answered, as it came; pointers into the answer.
struct released_answer {
    const char *lease;
    int64_t expires_us;
    uint64_t generation;
    const uint8_t *public_key, *box, *record, *receipt;
    size_t public_key_length, box_length, record_length, receipt_length;
};

// Checks the answer against the request and the pinned log key, opens the box into guarded memory
// and compares what was in it with the public key recorded. ERROR_DATA_LOSS where a check fails;
// nothing is handed over then.
int released_open(const struct released_request *request, const struct released_answer *answer,
                  const struct note_key *log_key, struct custody_released **out, struct error *err);

// A fresh X25519 key pair. Returns the private half in guarded memory (locked, never dumped), for
// guarded_give; NULL with `err`.
uint8_t *released_ephemeral(uint8_t public_key[CUSTODY_KEY_SIZE], struct error *err);

#endif
