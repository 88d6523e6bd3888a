// SPDX-License-Identifier: Apache-2.0
// Fuzzes an acknowledgement's text: it has one form, and a record's reads back as what the record
// says.
#include <string.h>

#include "acknowledgement.h"
#include "fuzz.h"

static void fuzz_text(const char *data, size_t size)
{
    struct acknowledgement ack;
    struct error err = {.code = ERROR_OK};
    char text[ACKNOWLEDGEMENT_TEXT_MAX];
    if (acknowledgement_parse(&ack, data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    int length = acknowledgement_format(&ack, text);
    REQUIRE(length >= 0 && (size_t)length == size && memcmp(text, data, size) == 0);
    REQUIRE((ack.state == PEER_STAGED) == (ack.move_sha256[0] != '\0'));
}

static void fuzz_record(const char *line, size_t length)
{
    struct record record;
    struct acknowledgement made, read;
    char text[ACKNOWLEDGEMENT_TEXT_MAX];
    if (record_parse(&record, line, length, NULL) != 0)
        return;
    acknowledgement_from_record(&made, &record);
    int used = acknowledgement_format(&made, text);
    REQUIRE(used >= 0 && used < ACKNOWLEDGEMENT_TEXT_MAX && strlen(text) == (size_t)used);
    bool taken = acknowledgement_parse(&read, text, (size_t)used, NULL) == 0;
    REQUIRE((acknowledgement_check(&made, NULL) == 0) == taken);
    if (!taken)
        return;
    REQUIRE(record.event == RECORD_PEER_STAGED || record.event == RECORD_PEER_RETIRED);
    REQUIRE(strcmp(read.host, record.host) == 0 && strcmp(read.key, record.key) == 0);
    REQUIRE(strcmp(read.peer, record.peer) == 0 && strcmp(read.peer_key, record.peer_key) == 0);
    REQUIRE(read.generation == record.peer_generation && read.time_us == record.time_us);
    REQUIRE(memcmp(read.public_key, record.peer_public_key, sizeof(read.public_key)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_text((const char *)data, size);
    fuzz_record((const char *)data, size);
    return 0;
}
