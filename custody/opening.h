// SPDX-License-Identifier: Apache-2.0
// Brings the log and the token together: after the keeper has logged in, and again after any
// failure, what stands in the log is read, compared with what was signed, and what was left
// unsigned is signed.
#ifndef CUSTODY_OPENING_H
#define CUSTODY_OPENING_H

#include "channel.h"
#include "error.h"

struct daemon;
struct opening; // opaque

// `why` is NULL when it went well.
typedef void opening_done_fn(void *context, const struct error *why);

struct opening *opening_new(struct daemon *daemon, struct error *err);
void opening_free(struct opening *opening);

// Begins (anew). Ends with the daemon READY or UNINITIALISED, or CLOSED with the reason and another
// try later.
void opening_begin(struct opening *opening);
// Begins after a while: something failed just now.
void opening_retry(struct opening *opening);
// The log is open, and its disk has room again: service begins.
void opening_go_on(struct opening *opening);
// Gives up what is under way: the keeper is gone, or the disk hangs.
void opening_cancel(struct opening *opening);

// Calls `done` when the opening that is under way has ended, however it did.
void opening_when_ended(struct opening *opening, opening_done_fn *done, void *context);

// The same from the middle, for a token that was just initialised: opens the empty log, then calls
// `done`, with a NULL `why` when records can be committed.
void opening_empty_log(struct opening *opening, opening_done_fn *done, void *context);

// The highest generation of the key that the token holds a blob of, recorded or not; 0 = none.
uint64_t opening_highest_blob(const struct opening *opening, const char *key);
// The lowest above `above`; 0 = none.
uint64_t opening_lowest_blob(const struct opening *opening, const char *key, uint64_t above);
// A blob came to be, or is gone.
void opening_note_blob(struct opening *opening, const char *key, uint64_t generation);

#endif
