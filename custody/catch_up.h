// SPDX-License-Identifier: Apache-2.0
// Carries a state on by the records that stand in the log's segments, read beside the daemon that
// writes them.
#ifndef CUSTODY_CATCH_UP_H
#define CUSTODY_CATCH_UP_H

#include <stdint.h>

#include "error.h"
#include "state.h"

#define CATCH_UP_MAX 100000 // records; a state that is further behind is not worth it

// Applies the records of DIR/log from state_size(state) up to `until`. -1 with `err`:
// ERROR_DATA_LOSS when a record does not follow from the state, ERROR_NOT_FOUND when the state is
// too far behind or the log does not hold these records, ERROR_UNAVAILABLE when it cannot be read.
int catch_up(const char *dir, struct state *state, uint64_t until, struct error *err);

#endif
