// SPDX-License-Identifier: Apache-2.0
// Guarded memory for libcustody's keys: locked, never dumped, between guard pages; kept for the
// next key once wiped.
#ifndef PROTO_GUARDED_H
#define PROTO_GUARDED_H

#include <stdint.h>

#include "error.h"

#define GUARDED_SIZE 32 // bytes: one key

// GUARDED_SIZE bytes from sodium_malloc. NULL with `err` when memory cannot be had, or not locked.
// Any thread may call.
uint8_t *guarded_take(struct error *err);
// Wipes it and takes it back; NULL is fine.
void guarded_give(uint8_t *memory);

#endif
