// SPDX-License-Identifier: Apache-2.0
// Hash tiles of c2sp.org/tlog-tiles: their names and widths, hashes out of them, and the growing
// edge.
#include "tile.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void tile_path(unsigned level, uint64_t index, unsigned width, char path[TILE_PATH_MAX])
{
    // Groups of three digits from the right; all but the last begin with an 'x'.
    unsigned groups[7];
    unsigned count = 0;
    do {
        groups[count++] = (unsigned)(index % 1000);
        index /= 1000;
    } while (index != 0);
    int used = snprintf(path, TILE_PATH_MAX, "tile/%u/", level);
    while (count-- > 0)
        used += snprintf(path + used, TILE_PATH_MAX - (size_t)used, count > 0 ? "x%03u/" : "%03u",
                         groups[count]);
    if (width < TILE_WIDTH)
        snprintf(path + used, TILE_PATH_MAX - (size_t)used, ".p/%u", width);
}

unsigned tile_width(unsigned level, uint64_t index, uint64_t size)
{
    if (level >= TILE_LEVELS)
        return 0;
    uint64_t hashes = size >> (TILE_HEIGHT * level);
    uint64_t full = hashes / TILE_WIDTH;
    if (index != full)
        return index < full ? TILE_WIDTH : 0;
    return (unsigned)(hashes % TILE_WIDTH);
}

// The root over `count` hashes, a power of two. Overwrites them.
static struct merkle_hash fold(struct merkle_hash *hashes, unsigned count)
{
    for (; count > 1; count /= 2)
        for (unsigned i = 0; i < count / 2; i++)
            hashes[i] = merkle_node(&hashes[2 * i], &hashes[2 * i + 1]);
    return hashes[0];
}

int tile_read_hash(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                   struct error *err)
{
    const struct tile_reader *reader = context;
    unsigned tile_level = level / TILE_HEIGHT;
    unsigned above = level % TILE_HEIGHT; // levels between the tile's hashes and the one wanted
    if (tile_level >= TILE_LEVELS || index > UINT64_MAX >> above)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the tree has no hash %llu at level %u",
                         (unsigned long long)index, level);
    uint64_t first = index << above;
    unsigned offset = (unsigned)(first % TILE_WIDTH);
    unsigned count = 1u << above;
    struct merkle_hash hashes[TILE_WIDTH];
    if (reader->read(reader->context, tile_level, first / TILE_WIDTH, offset + count, hashes,
                     err) != 0)
        return -1;
    *hash = fold(hashes + offset, count);
    return 0;
}

int tile_edge_append(struct tile_edge *edge, const struct merkle_hash *leaf, tile_full_fn *full,
                     void *context, struct error *err)
{
    int result = 0;
    uint64_t position = edge->size++;
    struct merkle_hash hash = *leaf;
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        struct merkle_hash *hashes = edge->hashes[level];
        hashes[position % TILE_WIDTH] = hash;
        if (position % TILE_WIDTH != TILE_WIDTH - 1)
            break;
        position /= TILE_WIDTH;
        // After a failure the edge is still brought up to date, but no tile is handed out above
        // the one that is missing.
        if (result == 0)
            result = full(context, level, position, hashes, err);
        hash = fold(hashes, TILE_WIDTH);
    }
    return result;
}

unsigned tile_edge_width(const struct tile_edge *edge, unsigned level, uint64_t *index)
{
    uint64_t hashes = edge->size >> (TILE_HEIGHT * level);
    *index = hashes / TILE_WIDTH;
    return (unsigned)(hashes % TILE_WIDTH);
}
