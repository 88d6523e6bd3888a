// SPDX-License-Identifier: Apache-2.0
// Room kept in the audit folder (DIR/reserve), so that a full disk can still be recorded.
#ifndef CUSTODY_RESERVE_H
#define CUSTODY_RESERVE_H

#include <stdbool.h>

#include "error.h"

#define RESERVE_NAME "reserve"
#define RESERVE_SIZE (64 * 1024) // bytes

// Makes sure that the reserve stands in the folder, all of it allocated, with as much again left
// free where `spare` asks for that. ERROR_RESOURCE_EXHAUSTED when the disk, or a quota, is full.
int reserve_make(int dir, bool spare, struct error *err);
void reserve_release(int dir);

#endif
