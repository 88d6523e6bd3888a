// SPDX-License-Identifier: Apache-2.0
// Metrics to be had: over HTTP/1.0 on a Unix socket, and in a file for node_exporter's textfile
// collector. Nothing here waits: whoever owns a loop waits for one descriptor.
#ifndef PROTO_SCRAPE_H
#define PROTO_SCRAPE_H

#include "error.h"
#include "openmetrics.h"

#define SCRAPE_CLIENTS_MAX 8 // at once; whoever comes beyond them waits
#define SCRAPE_PATIENCE_S  5 // that a client gets, from its connecting to its answer's last byte

struct scrape; // opaque: a socket that answers GET /metrics

// The metrics as they are now: for scrape to free(), `*length` bytes; NULL when out of memory.
typedef char *scrape_render(void *context, enum openmetrics_format format, size_t *length);

// Listens at `path`, open to all who can reach it (metrics hold no secret). What is there is
// removed when it is a socket on which nobody listens. NULL with `err` on failure.
struct scrape *scrape_open(const char *path, scrape_render *render, void *context,
                           struct error *err);
// Removes the socket. NULL is fine.
void scrape_close(struct scrape *scrape);
// For poll() and event loops: readable when scrape_work has something to do. The same until
// scrape_close.
int scrape_fd(const struct scrape *scrape);
// Does what can be done without waiting.
void scrape_work(struct scrape *scrape);

// The format that the client of an HTTP request wants, by its Accept line. `head` is the request up
// to and with its empty line. Returns 200, or the status to refuse it with: 400, 404, 405. Pure.
int scrape_parse(const char *head, enum openmetrics_format *format);

// Replaces the file at `path` by `text`, readable by all: a reader sees the old or the new one,
// whole. Waits for the disk. -1 with `err`, and then what was there is untouched.
int scrape_write_file(const char *path, const char *text, size_t length, struct error *err);

#endif
