// SPDX-License-Identifier: Apache-2.0
// The Unix socket: accepts connections, cuts frames, unpacks requests, packs responses, and keeps
// every client within its limits.
#ifndef CUSTODY_LISTENER_H
#define CUSTODY_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "caller.h"
#include "config.h"
#include "custody.pb-c.h"
#include "error.h"

struct listener;   // opaque
struct connection; // opaque

// A request after the connection's Hello, which the listener answers by itself. It must be answered
// exactly once, by connection_answer, now or later, even when the client has gone in between.
// `request` lives until the call returns.
typedef void listener_request_fn(void *context, struct connection *connection,
                                 const Custody__V1__Request *request);
// Fills what the daemon tells about itself; pointers must live until the next call.
typedef void listener_hello_fn(void *context, Custody__V1__HelloAnswer *answer);
// Called after listener_drain whenever less is left to answer or to send than before. Must not free
// the listener.
typedef void listener_drained_fn(void *context);

struct listener_handlers {
    listener_request_fn *request;
    listener_hello_fn *hello;
    listener_drained_fn *drained; // or NULL
    void *context;
};

// Listens on the socket that systemd passed, else on its own at config->socket.path. NULL with
// `err` on failure.
struct listener *listener_new(struct event_base *base, const struct config *config,
                              const struct listener_handlers *handlers, struct error *err);
void listener_free(struct listener *listener);
// New limits, from a configuration that was read anew.
void listener_configure(struct listener *listener, const struct config *config);
// Accepts nobody and reads nothing any more; what is in flight is still answered.
void listener_drain(struct listener *listener);
// Whether every request is answered and every answer handed to the kernel.
bool listener_is_drained(const struct listener *listener);

unsigned listener_connections(const struct listener *listener);
unsigned listener_in_flight(const struct listener *listener); // requests not answered yet

// Whether the client is still there, as far as is known.
bool connection_is_open(const struct connection *connection);
struct caller *connection_caller(struct connection *connection);
// Packs and sends `response`, whose id must be the request's. Ends that request.
void connection_answer(struct connection *connection, const Custody__V1__Response *response);

#endif
