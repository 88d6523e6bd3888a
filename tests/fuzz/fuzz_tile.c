// SPDX-License-Identifier: Apache-2.0
// Fuzzes hash tiles: their paths lead back to them, and a tree read from tiles is the tree.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tile.h"

#define LEAVES_MAX 2100 // eight full tiles and a part of one, and a second level
#define TILES_MAX  (LEAVES_MAX / TILE_WIDTH + 1)

// ---- paths ----

// c2sp.org/tlog-tiles read the other way round: groups of three digits, all but the last after an
// "x", then ".p/WIDTH" where the tile is not full.
static void require_path(const char *path, unsigned level, uint64_t index, unsigned width)
{
    char *at;
    uint64_t read = 0;
    REQUIRE(strncmp(path, "tile/", 5) == 0);
    REQUIRE(strtoul(path + 5, &at, 10) == level && *at == '/');
    for (bool more = true; more;) {
        at++;
        more = *at == 'x';
        at += more;
        REQUIRE(strspn(at, "0123456789") == 3);
        read = read * 1000 + strtoul(at, &at, 10);
        REQUIRE(!more || *at == '/');
    }
    REQUIRE(read == index);
    if (width == TILE_WIDTH)
        REQUIRE(*at == '\0');
    else
        REQUIRE(strncmp(at, ".p/", 3) == 0 && strtoul(at + 3, &at, 10) == width && *at == '\0');
}

static void fuzz_path(struct input *input)
{
    char path[TILE_PATH_MAX];
    unsigned level = input_byte(input) % TILE_LEVELS;
    unsigned width = 1 + input_byte(input);
    uint64_t index = input_u64(input), size = input_u64(input);
    tile_path(level, index, width, path);
    require_path(path, level, index, width);
    // The widths of a level's tiles add up to its hashes: full, full, ..., a part, none.
    unsigned here = tile_width(level, index, size);
    REQUIRE(here <= TILE_WIDTH);
    REQUIRE(index == UINT64_MAX || here == TILE_WIDTH || tile_width(level, index + 1, size) == 0);
    REQUIRE(index == 0 || here == 0 || tile_width(level, index - 1, size) == TILE_WIDTH);
    REQUIRE(tile_width(level, (size >> TILE_HEIGHT * level) / TILE_WIDTH, size) ==
            (size >> TILE_HEIGHT * level) % TILE_WIDTH);
}

// ---- a tree and its tiles ----

struct store {
    struct tile_edge edge;
    unsigned fail_after; // full tiles, after which no more are taken
    unsigned full[TILE_LEVELS];
    struct merkle_hash tiles[TILE_LEVELS][TILES_MAX][TILE_WIDTH];
};

static int keep_tile(void *context, unsigned level, uint64_t index,
                     const struct merkle_hash *hashes, struct error *err)
{
    struct store *store = context;
    if (store->fail_after == 0)
        return -1;
    store->fail_after--;
    REQUIRE(index == store->full[level] && index < TILES_MAX);
    store->full[level]++;
    memcpy(store->tiles[level][index], hashes, sizeof(store->tiles[level][index]));
    return 0;
}

static int read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                     struct merkle_hash *hashes, struct error *err)
{
    const struct store *store = context;
    uint64_t last;
    unsigned there = tile_edge_width(&store->edge, level, &last);
    REQUIRE(width >= 1 && width <= tile_width(level, index, store->edge.size));
    REQUIRE(index < last || (index == last && width <= there));
    const struct merkle_hash *from =
        index < last ? store->tiles[level][index] : store->edge.hashes[level];
    memcpy(hashes, from, width * sizeof(*hashes));
    return 0;
}

static void require_same_tree(struct store *store, const struct merkle_edge *edge)
{
    struct tile_reader reader = {.read = read_tile, .context = store};
    struct merkle_edge read;
    REQUIRE(merkle_edge_read(edge->size, tile_read_hash, &reader, &read, NULL) == 0);
    struct merkle_hash a = merkle_edge_root(edge), b = merkle_edge_root(&read);
    REQUIRE(read.size == edge->size && memcmp(&a, &b, sizeof(a)) == 0);
}

static void require_proof(struct store *store, const struct merkle_edge *edge, uint64_t index)
{
    struct tile_reader reader = {.read = read_tile, .context = store};
    struct merkle_hash path[MERKLE_PROOF_MAX], leaf, root = merkle_edge_root(edge);
    size_t length;
    REQUIRE(tile_read_hash(&reader, 0, index, &leaf, NULL) == 0);
    REQUIRE(merkle_prove_inclusion(index, edge->size, tile_read_hash, &reader, path, &length,
                                   NULL) == 0);
    REQUIRE(merkle_verify_inclusion(index, edge->size, &leaf, path, length, &root, NULL) == 0);
}

static void fuzz_tree(struct input *input)
{
    static struct store store;
    struct merkle_edge edge = {.size = 0};
    uint64_t choice = input_u64(input);
    unsigned leaves = choice % LEAVES_MAX;
    bool failed = false;
    memset(&store.full, 0, sizeof(store.full));
    store.edge.size = 0;
    store.fail_after = input_byte(input) % 4 == 1 ? input_byte(input) % 8 : UINT32_MAX;
    for (unsigned i = 0; i < leaves; i++) {
        uint64_t value = choice + i;
        struct merkle_hash leaf = merkle_leaf(&value, sizeof(value));
        merkle_edge_append(&edge, &leaf);
        failed |= tile_edge_append(&store.edge, &leaf, keep_tile, &store, NULL) != 0;
        REQUIRE(store.edge.size == edge.size);
    }
    // What no disk took can be read from no disk; the edge is right even so.
    if (failed || leaves == 0)
        return;
    require_same_tree(&store, &edge);
    require_proof(&store, &edge, input_u64(input) % leaves);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    fuzz_path(&input);
    fuzz_tree(&input);
    return 0;
}
