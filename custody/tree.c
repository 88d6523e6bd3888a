// SPDX-License-Identifier: Apache-2.0
// The right edge of the log's tree, two tiles wide.
#include "tree.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct tree {
    struct tile_edge edge;
    // The full tile before the unfinished one.
    bool has_before[TILE_LEVELS];
    struct merkle_hash before[TILE_LEVELS][TILE_WIDTH];
    // The hashes above the leaves within the last two leaf tiles, by the tile's parity, level (from
    // 1) and place: the receipts of a batch all need them.
    struct merkle_hash inner[2][TILE_HEIGHT][TILE_WIDTH / 2];
};

struct tree *tree_new(void)
{
    return calloc(1, sizeof(struct tree));
}

void tree_free(struct tree *tree)
{
    free(tree);
}

uint64_t tree_size(const struct tree *tree)
{
    return tree->edge.size;
}

const struct tile_edge *tree_tiles(const struct tree *tree)
{
    return &tree->edge;
}

// ---- growing ----

// The hashes that the leaf at `place` of leaf tile `tile` completes.
static void fill_inner(struct tree *tree, uint64_t tile, unsigned place,
                       const struct merkle_hash *leaf)
{
    struct merkle_hash(*inner)[TILE_WIDTH / 2] = tree->inner[tile & 1];
    struct merkle_hash hash = *leaf;
    for (unsigned level = 1; level < TILE_HEIGHT && (place & 1) != 0; level++) {
        const struct merkle_hash *below = level == 1 ? tree->edge.hashes[0] : inner[level - 1];
        hash = merkle_node(&below[place - 1], &hash);
        place /= 2;
        inner[level][place] = hash;
    }
}

struct filling {
    struct tree *tree;
    tile_full_fn *full;
    void *context;
};

static int on_full(void *context, unsigned level, uint64_t index, const struct merkle_hash *hashes,
                   struct error *err)
{
    const struct filling *filling = context;
    memcpy(filling->tree->before[level], hashes, sizeof(filling->tree->before[level]));
    filling->tree->has_before[level] = true;
    return filling->full(filling->context, level, index, hashes, err);
}

int tree_append(struct tree *tree, const struct merkle_hash *leaf, tile_full_fn *full,
                void *context, struct error *err)
{
    struct filling filling = {.tree = tree, .full = full, .context = context};
    fill_inner(tree, tree->edge.size / TILE_WIDTH, (unsigned)(tree->edge.size % TILE_WIDTH), leaf);
    return tile_edge_append(&tree->edge, leaf, on_full, &filling, err);
}

struct tree *tree_load(uint64_t size, tile_read_fn *read, void *context, struct error *err)
{
    struct tree *tree = tree_new();
    if (tree == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log's tree");
        return NULL;
    }
    tree->edge.size = size;
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        uint64_t index;
        unsigned width = tile_edge_width(&tree->edge, level, &index);
        if (width > 0 && read(context, level, index, width, tree->edge.hashes[level], err) != 0) {
            tree_free(tree);
            return NULL;
        }
    }
    for (unsigned place = 0; place < size % TILE_WIDTH; place++)
        fill_inner(tree, size / TILE_WIDTH, place, &tree->edge.hashes[0][place]);
    return tree;
}

// ---- reading ----

static int read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                     struct merkle_hash *hashes, struct error *err)
{
    const struct tree_reader *reader = context;
    const struct tree *tree = reader->tree;
    uint64_t edge_index;
    unsigned edge_width = tile_edge_width(&tree->edge, level, &edge_index);
    if (index == edge_index && width <= edge_width)
        memcpy(hashes, tree->edge.hashes[level], width * sizeof(*hashes));
    else if (index + 1 == edge_index && tree->has_before[level])
        memcpy(hashes, tree->before[level], width * sizeof(*hashes));
    else if (index < edge_index && reader->older != NULL)
        return reader->older(reader->context, level, index, width, hashes, err);
    else
        return error_set(err, ERROR_INTERNAL,
                         "audit log: %u hashes of tile %u/%" PRIu64 " are not at hand", width,
                         level, index);
    return 0;
}

int tree_read_hash(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                   struct error *err)
{
    const struct tree_reader *reader = context;
    const struct tree *tree = reader->tree;
    struct tile_reader tiles = {.read = read_tile, .context = context};
    if (level >= 1 && level < TILE_HEIGHT && (index + 1) << level <= tree->edge.size) {
        uint64_t tile = index >> (TILE_HEIGHT - level), last = tree->edge.size / TILE_WIDTH;
        if (tile == last || (tile + 1 == last && tree->has_before[0])) {
            *hash = tree->inner[tile & 1][level][index % (TILE_WIDTH >> level)];
            return 0;
        }
    }
    return tile_read_hash(&tiles, level, index, hash, err);
}

struct merkle_hash tree_root(const struct tree *tree)
{
    struct tree_reader reader = {.tree = tree};
    struct merkle_edge edge;
    struct error err;
    // The right edge lies in the unfinished tiles alone: this cannot fail.
    if (merkle_edge_read(tree->edge.size, tree_read_hash, &reader, &edge, &err) != 0)
        abort();
    return merkle_edge_root(&edge);
}
