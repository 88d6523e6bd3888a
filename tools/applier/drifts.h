// SPDX-License-Identifier: Apache-2.0
// Drift of an interface under care: recorded once when it appears and once when it is gone, and put
// right where that is configured.
#ifndef APPLIER_DRIFTS_H
#define APPLIER_DRIFTS_H

#include "tended.h"

// At the end of a pass that left nothing to do: compares, has what is new recorded, and repairs
// with `repair = true`. While a cutover is under way nothing is drift. `err` may be NULL.
int drifts_tend(struct tended *tended, struct error *err);

// Compares, and has what is new recorded and what is gone: before a pass puts right what nobody
// would see any more after it.
int drifts_tell(struct tended *tended, struct error *err);

// Compares what `tended` knows: its view, its device as read last, what its counterparts say.
int drifts_look(const struct tended *tended, struct drift *drift, struct error *err);
// Has one finding recorded: that it is there, or is gone; and says so.
int drifts_record(struct tended *tended, enum custody_finding what,
                  const struct drift_finding *finding, struct error *err);
// Puts right what can be; asks for the key's release where it is that. Returns how many findings
// were, or -1 for the first failure, with the others tried.
int drifts_repair(struct tended *tended, const struct drift *drift, struct error *err);

#endif
