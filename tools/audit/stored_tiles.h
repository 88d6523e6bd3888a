// SPDX-License-Identifier: Apache-2.0
// The hash tiles that lie in an audit-dir. Nobody signs them: they tell which record differs, and
// only the signed root tells who is right.
#ifndef TOOLS_AUDIT_STORED_TILES_H
#define TOOLS_AUDIT_STORED_TILES_H

#include <stdbool.h>

#include "error.h"
#include "tile.h"

struct stored_tile {
    char path[TILE_PATH_MAX]; // relative to the audit-dir
    unsigned width;           // hashes in it; 0: there is no such tile
    bool damaged;             // a file is there that is no tile (its size, or no regular file)
    struct merkle_hash hashes[TILE_WIDTH];
};

// Reads the tile at `level` and `index`: the full one, else the widest partial one. Where there is
// none, `tile->width` is 0. Returns -1 with `err` only when reading fails.
int stored_tile_read(int dirfd, unsigned level, uint64_t index, struct stored_tile *tile,
                     struct error *err);

#endif
