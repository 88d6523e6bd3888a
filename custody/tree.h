// SPDX-License-Identifier: Apache-2.0
// The log's tree as the event loop holds it: the unfinished tile of each level and the full one
// before it, so that the receipts of a batch just committed need no disk. Pure.
#ifndef CUSTODY_TREE_H
#define CUSTODY_TREE_H

#include "error.h"
#include "merkle.h"
#include "tile.h"

struct tree; // opaque

struct tree *tree_new(void); // without leaves; NULL when out of memory
void tree_free(struct tree *tree);

// The tree of `size` leaves out of its tiles, of which `read` gives those on the right edge. They
// are not checked: their root is tree_root. NULL with `err` on failure.
struct tree *tree_load(uint64_t size, tile_read_fn *read, void *context, struct error *err);

uint64_t tree_size(const struct tree *tree);
struct merkle_hash tree_root(const struct tree *tree);
const struct tile_edge *tree_tiles(const struct tree *tree); // the unfinished ones

// Adds a leaf. Tiles that it fills go to `full` (see tile.h).
int tree_append(struct tree *tree, const struct merkle_hash *leaf, tile_full_fn *full,
                void *context, struct error *err);

// A merkle_read_fn; `context` is a struct tree_reader. What is not in memory comes from `older`, or
// is an error where that is NULL.
struct tree_reader {
    const struct tree *tree;
    tile_read_fn *older;
    void *context;
};
merkle_read_fn tree_read_hash;

#endif
