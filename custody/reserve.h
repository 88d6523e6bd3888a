// SPDX-License-Identifier: Apache-2.0
// Room kept in the audit folder (DIR/reserve), so that a full disk can still be recorded.
#ifndef CUSTODY_RESERVE_H
#define CUSTODY_RESERVE_H

#include "error.h"

#define RESERVE_NAME "reserve"
#define RESERVE_SIZE (256 * 1024) // bytes

// Makes sure that the reserve stands in the folder, all of it allocated.
int reserve_make(int dir, struct error *err);
void reserve_release(int dir);

#endif
