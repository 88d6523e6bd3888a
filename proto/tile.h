// SPDX-License-Identifier: Apache-2.0
// Hash tiles as c2sp.org/tlog-tiles lays them out: 256 hashes wide, eight tree levels high.
#ifndef PROTO_TILE_H
#define PROTO_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "merkle.h"

#define TILE_WIDTH    256
#define TILE_HEIGHT   8
#define TILE_LEVELS   8 // tile levels 0..7 hold every tree of up to 2^63 leaves
#define TILE_PATH_MAX 64

// The relative path of tile `index` at tile level `level` with `width` hashes (1..256), e.g.
// "tile/0/x001/234.p/5".
void tile_path(unsigned level, uint64_t index, unsigned width, char path[TILE_PATH_MAX]);

// How many hashes the tile has in a tree of `size` leaves: 0..256.
unsigned tile_width(unsigned level, uint64_t index, uint64_t size);

// Reads a tile's hashes: at least `width` of them (1..256) into `hashes`. Returns 0, or -1 with
// `err`.
typedef int tile_read_fn(void *context, unsigned level, uint64_t index, unsigned width,
                         struct merkle_hash *hashes, struct error *err);

// A merkle_read_fn over tiles: `context` is a struct tile_reader.
struct tile_reader {
    tile_read_fn *read;
    void *context;
};
merkle_read_fn tile_read_hash;

// The tiles on the right edge of a growing tree, kept in memory: one unfinished tile a level.
struct tile_edge {
    uint64_t size; // leaves
    struct merkle_hash hashes[TILE_LEVELS][TILE_WIDTH];
};

// Called for each tile that an append fills (256 hashes), lowest level first. Returns 0, or -1 with
// `err`.
typedef int tile_full_fn(void *context, unsigned level, uint64_t index,
                         const struct merkle_hash *hashes, struct error *err);
// Adds a leaf. If `full` fails the edge is still consistent and holds the leaf.
int tile_edge_append(struct tile_edge *edge, const struct merkle_hash *leaf, tile_full_fn *full,
                     void *context, struct error *err);
// How many hashes the edge holds at tile level `level` (0..255), and which tile they belong to.
unsigned tile_edge_width(const struct tile_edge *edge, unsigned level, uint64_t *index);

#endif
