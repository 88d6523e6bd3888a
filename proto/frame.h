// SPDX-License-Identifier: Apache-2.0
// Framing on the Unix socket: a 4-byte big-endian length (1..65,536), then that many bytes of one
// protobuf message.
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define FRAME_HEADER_SIZE 4
#define FRAME_MAX         65536 // bytes of the message

// Writes the header for a message of `length` bytes (1..FRAME_MAX).
int frame_header(size_t length, uint8_t header[FRAME_HEADER_SIZE], struct error *err);

// Reads the length of the message from a frame's header; -1 with `err` when it is 0 or too large:
// nothing after that can be read.
int frame_length(const uint8_t header[FRAME_HEADER_SIZE], size_t *message_length,
                 struct error *err);

// Looks for a frame at the start of `data`. Returns 1 with `*message_length` set when a whole one
// stands there (the message begins at data + FRAME_HEADER_SIZE), 0 when more bytes are needed, -1
// with `err` when the length is 0 or too large: nothing after that can be read.
int frame_next(const uint8_t *data, size_t length, size_t *message_length, struct error *err);

#endif
