// SPDX-License-Identifier: Apache-2.0
// Fuzzes a record's line: what the parser accepts, the encoder gives back to the byte.
#include <string.h>

#include "fuzz.h"
#include "record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char line[RECORD_LINE_MAX];
    struct record record;
    struct error err = {.code = ERROR_OK};
    size_t length = 0;
    if (record_parse(&record, (const char *)data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return 0;
    }
    REQUIRE(record_encode(&record, line, sizeof(line), &length, &err) == 0);
    REQUIRE(length == size && memcmp(line, data, size) == 0);
    // It stands in a file of lines, and must not end one early.
    REQUIRE(memchr(line, '\n', length) == NULL);
    REQUIRE(record_encode(&record, line, size, &length, &err) == 0);
    REQUIRE(record_encode(&record, line, size - 1, &length, &err) != 0);
    fuzz_require_refusal(&err);
    return 0;
}
