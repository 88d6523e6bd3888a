// SPDX-License-Identifier: Apache-2.0
// Framing of the wire protocol; pure.
#include "frame.h"

int frame_header(size_t length, uint8_t header[FRAME_HEADER_SIZE], struct error *err)
{
    if (length == 0 || length > FRAME_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a message of %zu bytes cannot be sent: 1 to %d can", length, FRAME_MAX);
    for (int i = 0; i < FRAME_HEADER_SIZE; i++)
        header[i] = (uint8_t)(length >> (8 * (FRAME_HEADER_SIZE - 1 - i)));
    return 0;
}

int frame_length(const uint8_t header[FRAME_HEADER_SIZE], size_t *message_length, struct error *err)
{
    uint32_t announced = 0;
    for (int i = 0; i < FRAME_HEADER_SIZE; i++)
        announced = announced << 8 | header[i];
    if (announced == 0 || announced > FRAME_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "frame of %u bytes: its length must be 1 to %d", announced, FRAME_MAX);
    *message_length = announced;
    return 0;
}

int frame_next(const uint8_t *data, size_t length, size_t *message_length, struct error *err)
{
    size_t announced = 0;
    if (length < FRAME_HEADER_SIZE)
        return 0;
    if (frame_length(data, &announced, err) != 0)
        return -1;
    if (length - FRAME_HEADER_SIZE < announced)
        return 0;
    *message_length = announced;
    return 1;
}
