// SPDX-License-Identifier: Apache-2.0
// The next generation of a key: made by the keeper, recorded, adopted.
#ifndef CUSTODY_GENERATION_H
#define CUSTODY_GENERATION_H

#include "error.h"
#include "record.h"

struct daemon;

// `why` is NULL when the generation was recorded and the token holds it; `generated` is its record.
typedef void generation_done_fn(void *context, const struct record *generated,
                                const struct error *why);

// Makes the next generation, pre-active, of the key that `wanted`, a key.generated, names; its
// actor, ticket and reason go into the log with it. Fails, and does not call `done`, where the key
// has a pre-active generation (ERROR_FAILED_PRECONDITION), and while another generation is being
// made (ERROR_ABORTED).
int generation_make(struct daemon *daemon, const struct record *wanted, generation_done_fn *done,
                    void *context, struct error *err);

#endif
