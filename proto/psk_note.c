// SPDX-License-Identifier: Apache-2.0
// The text of a note about a preshared key: written from a record, and read strictly.
#include "psk_note.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

#define KEY_BASE64 sodium_base64_ENCODED_LEN(RECORD_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)
#define BOX_BASE64 sodium_base64_ENCODED_LEN(PSK_BOX_SIZE, sodium_base64_VARIANT_ORIGINAL)

static const char *const names[PSK_NOTE_STATES] = {
    [PSK_NOTE_MADE] = "made",
    [PSK_NOTE_RECEIVED] = "received",
    [PSK_NOTE_SET] = "set",
};

const char *psk_note_state_name(enum psk_note_state state)
{
    return (unsigned)state < PSK_NOTE_STATES ? names[state] : NULL;
}

static enum psk_note_state state_of(enum record_event event)
{
    switch (event) {
    case RECORD_PSK_GENERATED:
        return PSK_NOTE_MADE;
    case RECORD_PSK_RECEIVED:
        return PSK_NOTE_RECEIVED;
    case RECORD_PSK_SET:
        return PSK_NOTE_SET;
    default:
        return PSK_NOTE_NONE;
    }
}

void psk_note_from_record(struct psk_note *note, const struct record *record)
{
    memset(note, 0, sizeof(*note));
    memcpy(note->host, record->host, sizeof(note->host));
    memcpy(note->key, record->key, sizeof(note->key));
    memcpy(note->peer, record->peer, sizeof(note->peer));
    memcpy(note->peer_key, record->peer_key, sizeof(note->peer_key));
    note->epoch = record->epoch;
    note->state = state_of(record->event);
    memcpy(note->receive_key, record->receive_key, sizeof(note->receive_key));
    note->time_us = record->time_us;
}

int psk_note_format(const struct psk_note *note, char text[PSK_NOTE_TEXT_MAX])
{
    char receive_key[KEY_BASE64] = "-", box[BOX_BASE64] = "-", time[RECORD_TIME_SIZE];
    const char *state = psk_note_state_name(note->state);
    if (record_time_format(note->time_us, time) != 0)
        return -1;
    if (note->state == PSK_NOTE_MADE) {
        sodium_bin2base64(receive_key, sizeof(receive_key), note->receive_key,
                          sizeof(note->receive_key), sodium_base64_VARIANT_ORIGINAL);
        sodium_bin2base64(box, sizeof(box), note->box, sizeof(note->box),
                          sodium_base64_VARIANT_ORIGINAL);
    }
    return snprintf(text, PSK_NOTE_TEXT_MAX,
                    "custody psk v1\n"
                    "host %s\n"
                    "key %s\n"
                    "peer %s\n"
                    "peer-key %s\n"
                    "epoch %" PRIu64 "\n"
                    "state %s\n"
                    "receive-key %s\n"
                    "box %s\n"
                    "time %s\n",
                    note->host, note->key, note->peer, note->peer_key, note->epoch,
                    state != NULL ? state : "-", receive_key, box, time);
}

static bool take_host(struct lines *lines, const char *name, char host[HOST_MAX + 1])
{
    return lines_take_text(lines, name, host, HOST_MAX + 1) && name_is_host(host);
}

static bool take_key(struct lines *lines, const char *name, char key[KEY_MAX + 1])
{
    return lines_take_text(lines, name, key, KEY_MAX + 1) && name_is_key(key);
}

static bool take_state(struct lines *lines, struct psk_note *note)
{
    char name[16];
    if (!lines_take_text(lines, "state ", name, sizeof(name)))
        return false;
    for (int state = PSK_NOTE_MADE; state < PSK_NOTE_STATES; state++)
        if (strcmp(name, names[state]) == 0)
            note->state = (enum psk_note_state)state;
    return note->state == PSK_NOTE_SET || (note->state != PSK_NOTE_NONE && note->epoch > 0);
}

// Base64 of `size` bytes where the key was made, else a dash.
static bool take_bytes(struct lines *lines, const char *name, const struct psk_note *note,
                       uint8_t *bytes, size_t size)
{
    struct line value;
    if (!lines_take(lines, name, &value))
        return false;
    return note->state == PSK_NOTE_MADE
               ? line_base64(&value, bytes, size) && !sodium_is_zero(bytes, size)
               : line_is_dash(&value);
}

static const char *parse_names(struct psk_note *note, struct lines *lines)
{
    struct line value;
    if (!lines_take(lines, "custody psk v1", &value) || value.length != 0)
        return "custody psk v1";
    if (!take_host(lines, "host ", note->host))
        return "host";
    if (!take_key(lines, "key ", note->key))
        return "key";
    if (!take_host(lines, "peer ", note->peer))
        return "peer";
    return take_key(lines, "peer-key ", note->peer_key) ? NULL : "peer-key";
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct psk_note *note, struct lines *lines)
{
    struct line value;
    const char *wrong = parse_names(note, lines);
    if (wrong != NULL)
        return wrong;
    if (!lines_take(lines, "epoch ", &value) || !line_decimal(&value, &note->epoch) ||
        note->epoch > INT64_MAX)
        return "epoch";
    if (!take_state(lines, note))
        return "state";
    if (!take_bytes(lines, "receive-key ", note, note->receive_key, sizeof(note->receive_key)))
        return "receive-key";
    if (!take_bytes(lines, "box ", note, note->box, sizeof(note->box)))
        return "box";
    return lines_take(lines, "time ", &value) &&
                   record_time_parse(value.text, value.length, &note->time_us) == 0
               ? NULL
               : "time";
}

int psk_note_parse(struct psk_note *note, const char *text, size_t length, struct error *err)
{
    memset(note, 0, sizeof(*note));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(note, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the preshared key's note has its line \"%s\" missing, out of place or "
                         "wrong",
                         wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the preshared key's note has more lines than it should");
    return 0;
}

int psk_note_check(const struct psk_note *note, struct error *err)
{
    char text[PSK_NOTE_TEXT_MAX];
    struct psk_note read;
    int length = psk_note_format(note, text);
    if (length < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the time of the preshared key's note is out of range");
    return psk_note_parse(&read, text, (size_t)length, err);
}
