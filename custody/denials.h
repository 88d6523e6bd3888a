// SPDX-License-Identifier: Apache-2.0
// Records denials, and what appliers find: the first of its kind at once, those like it for a while
// only as a count, so that nobody fills the disk by asking.
#ifndef CUSTODY_DENIALS_H
#define CUSTODY_DENIALS_H

#include "error.h"
#include "record.h"

struct daemon;
struct denials; // opaque

struct denials *denials_new(struct daemon *daemon, struct error *err);
void denials_free(struct denials *denials);

// `record` is a release.denied or access.denied with actor, request, key, code and detail filled
// in, or a finding with actor, key, peer and detail.
void denials_note(struct denials *denials, const struct record *record);
// Records the counts now: the daemon stops.
void denials_flush(struct denials *denials);

#endif
