// SPDX-License-Identifier: Apache-2.0
// Framing: lengths at and beyond both ends, and frames that arrive in pieces.
#include "frame.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

static void test_header(void)
{
    static const struct {
        size_t length;
        uint8_t header[FRAME_HEADER_SIZE];
    } good[] = {
        {1, {0, 0, 0, 1}},         {255, {0, 0, 0, 255}}, {256, {0, 0, 1, 0}},
        {65535, {0, 0, 255, 255}}, {65536, {0, 1, 0, 0}},
    };
    uint8_t header[FRAME_HEADER_SIZE];
    struct error err;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        size_t length = 0;
        CU_ASSERT_EQUAL(frame_header(good[i].length, header, &err), 0);
        CU_ASSERT_EQUAL(memcmp(header, good[i].header, sizeof(header)), 0);
        CU_ASSERT_EQUAL(frame_length(header, &length, &err), 0);
        CU_ASSERT_EQUAL(length, good[i].length);
    }
    static const size_t bad[] = {0, 65537, (size_t)1 << 32, ((size_t)1 << 32) + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CU_ASSERT_EQUAL(frame_header(bad[i], header, &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    }
}

static void test_bad_lengths(void)
{
    static const uint8_t bad[][FRAME_HEADER_SIZE] = {
        {0, 0, 0, 0}, {0, 1, 0, 1}, {1, 0, 0, 0}, {0x80, 0, 0, 1}, {255, 255, 255, 255}};
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t length = 7;
        CU_ASSERT_EQUAL(frame_length(bad[i], &length, &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
        CU_ASSERT_EQUAL(frame_next(bad[i], FRAME_HEADER_SIZE, &length, &err), -1);
        // A header that is not whole says nothing yet.
        CU_ASSERT_EQUAL(frame_next(bad[i], FRAME_HEADER_SIZE - 1, &length, &err), 0);
        CU_ASSERT_EQUAL(length, 7);
    }
}

static void test_pieces(void)
{
    static const uint8_t stream[] = {0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 1, 'd'};
    size_t length;
    for (size_t have = 0; have <= sizeof(stream); have++) {
        // In memory of just that size, so that a byte read too many is found by a checker.
        uint8_t *data = malloc(have + 1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(data);
        memcpy(data, stream, have);
        length = 0;
        CU_ASSERT_EQUAL(frame_next(data, have, &length, NULL), have >= 7);
        CU_ASSERT_EQUAL(length, have >= 7 ? 3u : 0u);
        free(data);
    }
    CU_ASSERT_EQUAL(frame_next(stream + 7, sizeof(stream) - 7, &length, NULL), 1);
    CU_ASSERT_EQUAL(length, 1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"headers", test_header},
        {"lengths that are refused", test_bad_lengths},
        {"frames in pieces", test_pieces},
        CU_TEST_INFO_NULL,
    };
    return tap_run("frame", tests);
}
