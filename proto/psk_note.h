// SPDX-License-Identifier: Apache-2.0
// The text of a note about a link's preshared key: what one end states to the other, signed with
// custody-host.
#ifndef PROTO_PSK_NOTE_H
#define PROTO_PSK_NOTE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define PSK_NOTE_TEXT_MAX 1024 // bytes, with the NUL
#define PSK_BOX_SIZE      80   // crypto_box_seal of 32 bytes

enum psk_note_state {
    PSK_NOTE_NONE = 0,
    PSK_NOTE_MADE,     // "made": the maker has this epoch's key; the box brings the taker its part
    PSK_NOTE_RECEIVED, // "received": the taker has it
    PSK_NOTE_SET,      // "set": it is on the interface; epoch 0: none is
    PSK_NOTE_STATES
};

// One "name value" line each, in this order, after a first line "custody psk v1": host, key, peer,
// peer-key, epoch, state, receive-key and box (base64; "-" but for "made"), time (RFC 3339).
struct psk_note {
    char host[HOST_MAX + 1]; // who says so,
    char key[KEY_MAX + 1];   // of its interface of this key,
    char peer[HOST_MAX + 1]; // about the link with this host's
    char peer_key[KEY_MAX + 1];
    uint64_t epoch;
    enum psk_note_state state;
    uint8_t receive_key[RECORD_KEY_SIZE]; // MADE: the peer's, that the box is sealed to
    uint8_t box[PSK_BOX_SIZE];            // MADE
    int64_t time_us;
};

// "made", "received", "set"; NULL for what is none.
const char *psk_note_state_name(enum psk_note_state state);

// From a psk.generated, psk.received or psk.set record alone, but for the box.
void psk_note_from_record(struct psk_note *note, const struct record *record);
// The text that is signed, NUL-terminated. Returns its length, or -1 when the time is out of range.
int psk_note_format(const struct psk_note *note, char text[PSK_NOTE_TEXT_MAX]);
// Whether it has a text that psk_note_parse takes. ERROR_INVALID_ARGUMENT otherwise.
int psk_note_check(const struct psk_note *note, struct error *err);
// Parses the text of a note that was already verified. Accepts exactly what psk_note_format
// produces.
int psk_note_parse(struct psk_note *note, const char *text, size_t length, struct error *err);

#endif
