// SPDX-License-Identifier: Apache-2.0
// The client's end of the Unix socket: whole frames in and out, nothing waiting past its deadline.
#ifndef PROTO_CONNECTION_H
#define PROTO_CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct connection; // opaque

// The moment `timeout_ms` milliseconds from now, in nanoseconds of CLOCK_MONOTONIC: what the calls
// below wait until.
int64_t connection_deadline(int timeout_ms);

// Connects to the socket at `path`; on success `*out` is the caller's to close. ERROR_UNAVAILABLE
// where nobody listens, ERROR_PERMISSION_DENIED where the socket's mode keeps us out.
int connection_open(const char *path, int64_t deadline, struct connection **out, struct error *err);
// Closes and frees; NULL is fine.
void connection_close(struct connection *connection);

// Where the next message to send is to be written: room for FRAME_MAX bytes, valid until
// connection_close.
uint8_t *connection_outgoing(struct connection *connection);
// Sends the `length` bytes written to connection_outgoing as one frame. A peer that has closed is
// not an error here: what it said last is still to be read, so connection_receive tells.
int connection_send(struct connection *connection, size_t length, int64_t deadline,
                    struct error *err);
// Receives one frame. `*message` points into the connection and holds until the next call on it.
int connection_receive(struct connection *connection, int64_t deadline, const uint8_t **message,
                       size_t *length, struct error *err);

// The same without waiting: returns 1 with a message, 0 when no whole one is there yet, -1 on
// failure.
int connection_poll(struct connection *connection, const uint8_t **message, size_t *length,
                    struct error *err);
// The socket, for poll().
int connection_fd(const struct connection *connection);

#endif
