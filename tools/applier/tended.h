// SPDX-License-Identifier: Apache-2.0
// One interface under care: what is known of it, of its key and of its counterparts. Each pass
// looks at all of that and does what is missing; a pass that was cut short is made good by the
// next.
#ifndef APPLIER_TENDED_H
#define APPLIER_TENDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acknowledgements.h"
#include "apply.h"
#include "counterpart.h"
#include "custody.h"
#include "device.h"
#include "drift.h"
#include "hold.h"
#include "hold_guard.h"
#include "moves.h"
#include "pair.h"
#include "plan.h"
#include "psk_notes.h"
#include "registry.h"
#include "setup.h"
#include "trust.h"

#define TENDED_SEEN_MAX 4 // generations of a counterpart whose handshakes are followed

// What all interfaces share. Not owned.
struct tended_world {
    const struct setup *setup;
    struct registry *registry; // NULL: none configured; nothing rotates
    const struct trust *trust;
    struct apply_settings *settings;
    bool registry_gone;                // when it was asked last
    struct custody *custody;           // NULL while custodyd is not reached
    char own_host[HOST_MAX + 1];       // "" until custodyd told it once
    char own_host_vkey[NOTE_VKEY_MAX]; // …
};

// A handshake as it was seen last.
struct tended_handshake {
    uint8_t public_key[DEVICE_KEY_SIZE];
    struct timespec at;
};

// A link's preshared key.
struct tended_psk {
    struct psk_notes *reader;
    struct psk_says says;
    char notes[PSK_NOTE_STATES][NOTE_MAX]; // ours, as signed last: put back where they are lost
    bool seen;                             // this process saw it on the interface
    bool unrecorded;                       // set, and custodyd not told yet:
    uint64_t unrecorded_epoch;             // this one
    int64_t repaired_us, not_before_us;    // as psk_plan.h has them
};

// A counterpart.
struct tended_peer {
    const struct setup_peer *setup;
    char folder[HOST_MAX + 1 + KEY_MAX + 1]; // of the registry: "HOST/KEY"
    struct counterpart *counterpart;
    struct acknowledgements *acknowledgements;
    struct counterpart_says says;
    bool look;       // its notes may have changed
    int64_t shook_s; // the latest handshake that was seen, seconds since 1970; 0 = none
    bool whole;      // this interface had its peer as it should be: what is amiss now is drift
    bool stale_told;
    // Its next key, on our interface.
    uint64_t answered_generation;      // staged and acknowledged by this process; 0 = none
    uint8_t secret[MOVES_SECRET_SIZE]; // that will tell it of the move
    bool watch;                        // a take-over is possible
    uint64_t asked_generation;         // its host asked about it last, and will say LAST; 0 = none
    bool heard_last;                   // it has
    uint64_t arriving_generation;      // shook hands, and waits for LAST; 0 = none
    int64_t arriving_until_ms;         // but no longer than this
    struct tended_handshake seen[TENDED_SEEN_MAX];
    size_t seen_count;
    uint8_t replaced[DEVICE_KEY_SIZE]; // its peer that was made by hand,
    int64_t replaced_due_us;           // and when that goes; 0: there is none
    uint64_t unrecorded_generation;    // moved to, and custodyd not told yet; 0 = none
    uint8_t unrecorded_key[DEVICE_KEY_SIZE];
    struct move moved; // told again a few times: datagrams may be lost
    unsigned moved_left;
    int64_t moved_next_ms;
    // Our next key, on its interface.
    bool required;
    bool acknowledged;           // as recorded
    bool late;                   // as recorded
    uint64_t dropped_generation; // of ours, compromised: the highest that it said it has dropped
    uint8_t move_sha256[32];
    struct tended_psk psk;
    int64_t pair_turn_ms; // when we begin the handshake that the pair lacks; 0 = it lacks none
};

// A note of ours, as it was signed last: put back where the registry lost it.
struct tended_note {
    uint64_t generation; // 0 = none
    char text[NOTE_MAX];
};

// For metrics: since the configuration was read.
struct tended_counts {
    uint64_t confirmed, rolled_back; // rotations
    bool has_held;
    int held_ms; // the last time
    uint64_t refused[REFUSAL_KINDS];
    bool knows_drift;
    unsigned drift;
};

struct tended {
    struct tended_world *world;
    const struct setup_interface *setup;
    // The interface.
    bool present, seen_before;
    struct device_identity identity;
    struct device *device;
    struct hold *hold;
    struct hold_guard *guard;
    struct moves *moves;
    struct pair *pair;             // its second device; NULL: none is there
    struct error pair_last;        // said of it last
    int64_t pair_back_ms;          // when the routes may lead to the interface again
    bool by_pair;                  // the attempt that was last went by it
    struct device_view *there;     // as it was read last
    uint8_t ours[DEVICE_KEY_SIZE]; // the public key set last by this process
    bool has_ours;
    bool keyed;         // this interface had its key: another one now is drift
    bool inherited;     // it had it before this process set one
    struct drift told;  // that is recorded; `host` and `peer_key` of it live in `setup`
    int64_t interval_s; // the longest between two handshakes with one counterpart, at most a day
    // The key.
    struct custody_view *view; // as it was told last
    struct tended_note notes[4];
    int64_t fresh_due_us;
    // The rotation that is open.
    uint64_t rotation; // generation for which `required` was settled; 0 = none
    int64_t settle_ms; // when keepalives go back to what is configured; 0 = they are
    struct tended_peer *peers;
    size_t peer_count;
    struct tended_peer **by_folder; // the same, ordered by the registry's folder of each
    // When to look again.
    bool dirty;    // at once, and the log may say something else
    bool view_old; // the log does, or may
    int64_t due_ms, follow_ms, hot_until_ms;
    int64_t asked_ms;            // by a counterpart, whether we are ready; 0 = never
    bool heard;                  // a counterpart whose move was made has said something since
    unsigned failures, in_a_row; // of passes; and passes that each found more to do
    uint64_t read_sent;          // messages sent to the device when it had been read last
    int64_t read_ms, passed_ms;  // when the device was read last, and a pass made; 0 = never
    struct tended_counts counts;
    struct error last; // said last, so as not to say it again
};

// NULL with `err` on failure; else for tended_free.
struct tended *tended_new(struct tended_world *world, const struct setup_interface *setup,
                          struct error *err);
void tended_free(struct tended *tended);

// Whether the interface is there; a new one of the same name is opened anew.
void tended_find(struct tended *tended);

// When a pass is wanted. While a counterpart cuts over, only its handshakes count: passes wait,
// unless we have changed something, or the counterpart has something to say after our move.
int64_t tended_pass_due(const struct tended *tended);
// One pass. Sets `due_ms` to when the next is wanted at the latest.
void tended_pass(struct tended *tended);
// Looks at the handshakes alone, where a take-over is possible, and moves what is to be moved. Sets
// `follow_ms` (INT64_MAX: no need).
void tended_follow(struct tended *tended);
// Where this interface takes move datagrams; false where it does not.
bool tended_move_address(const struct tended *tended, union device_endpoint *address);
// Takes what datagrams have come.
void tended_datagrams(struct tended *tended);
// The registry has something new: in that folder; NULL: anywhere.
void tended_changed(struct tended *tended, const char *folder);

// So many differences were found between log, bundles and interface; 0: none.
void tended_set_drift(struct tended *tended, unsigned differences);

// For people: to the journal, unless it was the last thing said.
void tended_say(struct tended *tended, const struct error *err);
void tended_tell(const struct tended *tended, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// ---- for the modules of a pass ----

int64_t tended_now_us(void); // of the wall clock
// Reads the device into `there`.
int tended_read(struct tended *tended, struct error *err);
// The same, where this process asked the device for anything since it was read.
int tended_read_again(struct tended *tended, struct error *err);
// Asks custodyd for the view.
int tended_ask(struct tended *tended, struct error *err);
// The library's error as ours.
int tended_from_library(const struct tended *tended, const struct custody_error *theirs,
                        const char *doing, struct error *err);
// Closes a release's lease; what cannot be told is said.
void tended_report(struct tended *tended, const struct custody_released *released, bool applied,
                   const char *detail);
int64_t tended_grace_us(const struct tended *tended);

#endif
