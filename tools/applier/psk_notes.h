// SPDX-License-Identifier: Apache-2.0
// A counterpart's notes about a link's preshared key: read from the registry, verified, judged.
#ifndef APPLIER_PSK_NOTES_H
#define APPLIER_PSK_NOTES_H

#include <stdint.h>

#include "psk_plan.h"
#include "refusal.h"
#include "registry.h"
#include "trust.h"

struct psk_notes; // opaque: of one counterpart, what was verified and what was refused

// Of counterpart `host`, whose key is `key`. NULL when out of memory; else for psk_notes_free.
struct psk_notes *psk_notes_new(const char *host, const char *key);
void psk_notes_free(struct psk_notes *notes);

// To whom they must be addressed, and when that is.
struct psk_notes_own {
    const char *host, *key;
    const uint8_t *receive_key; // NULL: we take none
    uint64_t received;          // the highest epoch that we took
    int64_t now_us;
    int64_t tolerance_us; // that clocks may differ
};

// The judgement of a verified note alone, found where that of `state` should be: 0, or the kind of
// refusal with the words in `message` (REFUSAL_MESSAGE_MAX bytes). `newest` is what was believed
// before, its state PSK_NOTE_NONE for nothing.
int psk_notes_judge(const struct psk_note *note, enum psk_note_state state, const char *host,
                    const char *key, const struct psk_notes_own *own, const struct psk_note *newest,
                    char *message);

// Looks for all of them; `says` is the newest that was ever believed. -1 only when the registry is
// gone; `says` is filled all the same.
int psk_notes_look(struct psk_notes *notes, struct registry *registry, const struct trust *trust,
                   const struct psk_notes_own *own, struct psk_says *says, struct error *err);
// Those of the last look. Valid until the next look.
const struct refusals *psk_notes_refusals(const struct psk_notes *notes);

#endif
