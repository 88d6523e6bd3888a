// SPDX-License-Identifier: Apache-2.0
// The keeper's own view of the log's segment: a read-only descriptor, where it stands, and the tree
// so far.
#ifndef PKCS11_LOGFILE_H
#define PKCS11_LOGFILE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"

struct logfile;

// Opens AUDIT_DIR/log/FIRST.jsonl, begins with `edge` (of `first` leaves) and reads lines until the
// tree has `size` leaves. What lies beyond is not looked at. The folder's entry of the file is made
// durable too.
int logfile_open(const char *audit_dir, const struct merkle_edge *edge, uint64_t size,
                 struct logfile **log, struct error *err);
void logfile_close(struct logfile *log); // NULL is allowed

int logfile_descriptor(const struct logfile *log);
const struct merkle_edge *logfile_edge(const struct logfile *log);
uint64_t logfile_offset(const struct logfile *log);

// Whether the descriptor is still the file of that name, and the only name it has. A file that was
// swapped, unlinked or linked elsewhere is an error.
int logfile_check(const struct logfile *log, struct error *err);
// Whether the file holds exactly these bytes `ahead` bytes beyond the offset.
int logfile_compare(const struct logfile *log, uint64_t ahead, const void *bytes, size_t length,
                    struct error *err);
// Takes in what was committed.
void logfile_advance(struct logfile *log, const struct merkle_edge *edge, uint64_t length);

#endif
