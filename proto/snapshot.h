// SPDX-License-Identifier: Apache-2.0
// The canonical text of a state: equal states have equal texts, byte for byte, and its digest
// stands in log.sealed. Kept as DIR/log/NNNNNNNNNNNN.snapshot, N being the index of the record
// after that log.sealed; the text is of the state before it.
#ifndef PROTO_SNAPSHOT_H
#define PROTO_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "state.h"

#define SNAPSHOT_NAME_SIZE 32                 // with the NUL
#define SNAPSHOT_TEXT_MAX  (64 * 1024 * 1024) // bytes; more is not parsed

// "000000000042.snapshot", beside the segment that begins with record 42.
void snapshot_name(uint64_t next, char name[SNAPSHOT_NAME_SIZE]);

// A line each, "name value ...", values separated by one blank, "-" for what is absent;
// custody-log(5) lists them:
//   custody state v1
//   size, time, host, log-vkey, host-vkey
//   key NAME GENERATION STATE PURPOSE PUBLIC-KEY GENERATED ACTIVATED DEACTIVATED RELEASES RELEASED
//   rotation KEY GENERATION REASON STARTED ENDED FAILURES CONFIRMED SUSPENDED BUNDLE-GENERATION
//            BUNDLE-STATE BUNDLE-SHA256 TICKET
//   peer KEY HOST PEER-KEY GENERATION STATE PUBLIC-KEY STAGED MOVED RETIRED
//   psk KEY HOST PEER-KEY MADE RECEIVED SET DESTROYED MADE-TIME RECEIVED-TIME SET-TIME
//   lease ID KEY GENERATION SEQ EXPIRES UID PID
//   request ID OPERATION KEY GENERATION UID REQUESTED EXPIRES OLD-SIZE OLD-ROOT NEW-SIZE NEW-ROOT
//   approval OPERATOR-KEY-SHA256 UID OPERATOR       (of the request before it)
// Keys by name and generation, rotations by key, peers by key, host, peer's key and generation,
// preshared keys by key, host and peer's key, leases and requests in the order of the log; an
// operator's name and a ticket may hold blanks and so come last. NULL with `err` on failure; else
// NUL-terminated, the caller's to free(); `*length` without the NUL.
char *snapshot_format(const struct state *state, size_t *length, struct error *err);

// Parses a text; accepts exactly what snapshot_format makes. NULL with `err` (naming the line) on
// failure.
struct state *snapshot_parse(const char *text, size_t length, struct error *err);

// SHA-256 of the text, lower-case hex.
int snapshot_digest(const struct state *state, char sha256[65], struct error *err);

#endif
