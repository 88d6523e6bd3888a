// SPDX-License-Identifier: Apache-2.0
// Fuzzes a key bundle's text: it has one form, and a record's bundle reads back as what the record
// says.
#include <string.h>

#include "bundle.h"
#include "fuzz.h"

static void fuzz_text(const char *data, size_t size)
{
    struct bundle bundle;
    struct error err = {.code = ERROR_OK};
    char text[BUNDLE_TEXT_MAX];
    if (bundle_parse(&bundle, data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    int length = bundle_format(&bundle, text);
    REQUIRE(length >= 0 && (size_t)length == size && memcmp(text, data, size) == 0);
}

static void fuzz_record(const char *line, size_t length)
{
    struct record record;
    struct bundle made, read;
    char text[BUNDLE_TEXT_MAX];
    if (record_parse(&record, line, length, NULL) != 0)
        return;
    bundle_from_record(&made, &record);
    int used = bundle_format(&made, text);
    REQUIRE(used >= 0 && used < BUNDLE_TEXT_MAX && strlen(text) == (size_t)used);
    REQUIRE((bundle_parse(&read, text, (size_t)used, NULL) == 0) ==
            (bundle_check(&made, NULL) == 0));
    if (bundle_check(&made, NULL) != 0)
        return; // the record names no host, no key, no port, ...
    char read_digest[65], made_digest[65];
    REQUIRE(strcmp(read.host, record.host) == 0 && strcmp(read.key, record.key) == 0);
    REQUIRE(read.generation == record.generation && read.not_before_us == record.not_before_us &&
            read.not_after_us == record.not_after_us);
    REQUIRE(read.state == record.bundle_state && read.port == record.port);
    REQUIRE(strcmp(read.address, record.address) == 0 &&
            strcmp(read.previous, record.previous) == 0);
    bundle_digest(&read, read_digest);
    bundle_digest(&made, made_digest);
    REQUIRE(bundle_check(&made, NULL) == 0 && strcmp(read_digest, made_digest) == 0);
    REQUIRE(memcmp(read.receive_key, record.receive_key, sizeof(read.receive_key)) == 0);
    REQUIRE(memcmp(read.public_key, record.public_key, sizeof(read.public_key)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_text((const char *)data, size);
    fuzz_record((const char *)data, size);
    return 0;
}
