// SPDX-License-Identifier: Apache-2.0
// Fuzzes the text of a note about a preshared key: it has one form, and a record's note reads back
// as what the record says.
#include <string.h>

#include "fuzz.h"
#include "psk_note.h"

static void fuzz_text(const char *data, size_t size)
{
    struct psk_note note;
    struct error err = {.code = ERROR_OK};
    char text[PSK_NOTE_TEXT_MAX];
    if (psk_note_parse(&note, data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    int length = psk_note_format(&note, text);
    REQUIRE(length >= 0 && (size_t)length == size && memcmp(text, data, size) == 0);
}

static void fuzz_record(const char *line, size_t length)
{
    struct record record;
    struct psk_note made, read;
    char text[PSK_NOTE_TEXT_MAX];
    if (record_parse(&record, line, length, NULL) != 0)
        return;
    psk_note_from_record(&made, &record);
    memset(made.box, 1, sizeof(made.box));
    int used = psk_note_format(&made, text);
    REQUIRE(used >= 0 && used < PSK_NOTE_TEXT_MAX && strlen(text) == (size_t)used);
    if (psk_note_parse(&read, text, (size_t)used, NULL) != 0)
        return; // no link, no epoch, or no step of a preshared key
    REQUIRE(strcmp(read.host, record.host) == 0 && strcmp(read.key, record.key) == 0);
    REQUIRE(strcmp(read.peer, record.peer) == 0 && strcmp(read.peer_key, record.peer_key) == 0);
    REQUIRE(read.epoch == record.epoch && read.time_us == record.time_us);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_text((const char *)data, size);
    fuzz_record((const char *)data, size);
    return 0;
}
