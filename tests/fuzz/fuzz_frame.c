// SPDX-License-Identifier: Apache-2.0
// Fuzzes a stream of frames: a frame is found in it exactly when it is whole, and in bounds.
#include <string.h>

#include "frame.h"
#include "fuzz.h"

static size_t announced(const uint8_t *header)
{
    return (size_t)header[0] << 24 | (size_t)header[1] << 16 | (size_t)header[2] << 8 | header[3];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {.code = ERROR_OK};
    uint8_t header[FRAME_HEADER_SIZE];
    size_t at = 0, length = 0, told = 0;
    int found;
    while ((found = frame_next(data + at, size - at, &length, &err)) == 1) {
        REQUIRE(length >= 1 && length <= FRAME_MAX && length <= size - at - FRAME_HEADER_SIZE);
        REQUIRE(frame_header(length, header, &err) == 0);
        REQUIRE(memcmp(header, data + at, sizeof(header)) == 0);
        REQUIRE(frame_length(data + at, &told, &err) == 0 && told == length);
        // With a byte less it is not whole.
        REQUIRE(frame_next(data + at, FRAME_HEADER_SIZE + length - 1, &told, &err) == 0);
        at += FRAME_HEADER_SIZE + length;
    }
    if (found < 0) {
        fuzz_require_refusal(&err);
        REQUIRE(size - at >= FRAME_HEADER_SIZE);
        REQUIRE(announced(data + at) == 0 || announced(data + at) > FRAME_MAX);
        REQUIRE(frame_length(data + at, &told, &err) != 0);
        REQUIRE(frame_header(announced(data + at), header, &err) != 0);
    } else {
        REQUIRE(size - at < FRAME_HEADER_SIZE ||
                announced(data + at) > size - at - FRAME_HEADER_SIZE);
    }
    return 0;
}
