// SPDX-License-Identifier: Apache-2.0
// What to do next with one link's preshared key: pure decisions from what both ends say and what
// the handshakes show.
//
// The maker leads and the taker follows. Once the taker has said that it has an epoch, the maker
// sets it just after a handshake and says so; the taker sets what the maker says it has set.
// Between two handshakes lie 120 s in which the ends may differ. Where the taker does not come
// along and no handshake comes, the maker goes back before the session dies at 180 s.
#ifndef APPLIER_PSK_PLAN_H
#define APPLIER_PSK_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "counterpart.h"
#include "custody.h"
#include "psk_note.h"
#include "setup.h"

// Microseconds.
#define PSK_JUST_US INT64_C(30000000) // a handshake so young leaves the other end time to follow
#define PSK_TROUBLE_US                                                                             \
    INT64_C(135000000)                  // one so old should have been followed by another at 120 s
#define PSK_RETRY_US INT64_C(600000000) // after going back

// What the other end's notes say; each the newest that was believed, state PSK_NOTE_NONE = none.
struct psk_says {
    struct psk_note made, received, set;
};

enum psk_role {
    PSK_ROLE_NONE, // this link's preshared key is not custody's, or not yet
    PSK_ROLE_MAKE,
    PSK_ROLE_TAKE,
};

struct psk_plan_in {
    const struct setup_peer *setup;
    const char *own_host;
    uint64_t own_peers;                 // of our interface
    bool makes;                         // our key has a psk-lifetime
    const uint8_t *receive_key;         // ours; NULL: we take none
    const struct counterpart_says *key; // what the other end says of its key
    const struct psk_says *says;        // and of the preshared key
    struct custody_psk own;             // by our log; all zeros: nothing yet
    bool rotating;                      // a private key of either end is being replaced
    bool missing, present;              // the interface has the peer without, with a preshared key
    bool seen_before;                   // this process saw the interface with the preshared key
    int64_t handshake_us;               // the latest with any of its keys; 0 = none
    int64_t repaired_us;                // the handshake after which the key was set again; 0 = none
    int64_t not_before_us;              // after going back: the maker waits until then
    int64_t now_us;
};

enum psk_step {
    PSK_NOTHING,
    PSK_MAKE, // epoch `epoch`, for the other end's receive key
    PSK_TAKE, // what `says->made` brought
    PSK_SET,  // release `epoch` for `reason`, set it, say so
};

struct psk_plan {
    enum psk_role role;
    enum psk_step step;
    uint64_t epoch;
    enum custody_reason reason;
    bool back;          // SET: the maker goes back, and waits
    bool repair;        // SET: no handshake came; this is done once for each
    bool busy;          // the ends may differ: no private key's step on this link now
    const char *detail; // SET: for the record; a literal
    int64_t due_us;     // when to ask again at the latest; 0: no need
};

void psk_plan(const struct psk_plan_in *in, struct psk_plan *plan);

// The key that the other end takes preshared keys with; NULL: it takes none.
const uint8_t *psk_plan_receive_key(const struct counterpart_says *key);

#endif
