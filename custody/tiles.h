// SPDX-License-Identifier: Apache-2.0
// Hash tiles as files under the audit folder (c2sp.org/tlog-tiles). They can be had again from the
// segments, so none is made durable by itself.
#ifndef CUSTODY_TILES_H
#define CUSTODY_TILES_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"
#include "tile.h"

int tiles_write(int dir, unsigned level, uint64_t index, unsigned width,
                const struct merkle_hash *hashes, struct error *err);

// Reads the first `width` hashes of a tile, from the full one or a partial one that is wide enough.
// Not checked.
int tiles_read(int dir, unsigned level, uint64_t index, unsigned width, struct merkle_hash *hashes,
               struct error *err);

// Whether the full tile stands there with just these hashes.
bool tiles_stand(int dir, unsigned level, uint64_t index, const struct merkle_hash *hashes);

// What tiles_publish wrote last.
struct tiles_published {
    unsigned width[TILE_LEVELS];
    uint64_t index[TILE_LEVELS];
};
// Writes the unfinished tiles, and removes partial ones that were outgrown, in this life of the
// daemon or an earlier one.
int tiles_publish(int dir, const struct tile_edge *edge, struct tiles_published *published,
                  struct error *err);

#endif
