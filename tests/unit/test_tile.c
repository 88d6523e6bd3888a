// SPDX-License-Identifier: Apache-2.0
// Tiles: the names and the examples of c2sp.org/tlog-tiles, and a tree of 70,000 leaves kept in
// tiles beside the same tree kept by its edge.
#include "tile.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

#define LEAVES 70000 // the specification's example

static void assert_path(unsigned level, uint64_t index, unsigned width, const char *wanted)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, width, path);
    CU_ASSERT_STRING_EQUAL(path, wanted);
}

static void test_paths(void)
{
    assert_path(0, 1234067, 256, "tile/0/x001/x234/067");
    assert_path(0, 0, 256, "tile/0/000");
    assert_path(1, 999, 1, "tile/1/999.p/1");
    assert_path(0, 1000, 255, "tile/0/x001/000.p/255");
    assert_path(0, 1234, 5, "tile/0/x001/234.p/5");
    assert_path(7, UINT64_MAX, 255, "tile/7/x018/x446/x744/x073/x709/x551/615.p/255");
}

static void test_widths(void)
{
    CU_ASSERT_EQUAL(tile_width(0, 0, LEAVES), 256);
    CU_ASSERT_EQUAL(tile_width(0, 272, LEAVES), 256);
    CU_ASSERT_EQUAL(tile_width(0, 273, LEAVES), 112);
    CU_ASSERT_EQUAL(tile_width(0, 274, LEAVES), 0);
    CU_ASSERT_EQUAL(tile_width(1, 0, LEAVES), 256);
    CU_ASSERT_EQUAL(tile_width(1, 1, LEAVES), 17);
    CU_ASSERT_EQUAL(tile_width(2, 0, LEAVES), 1);
    CU_ASSERT_EQUAL(tile_width(3, 0, LEAVES), 0);
    CU_ASSERT_EQUAL(tile_width(0, 0, 256), 256);
    CU_ASSERT_EQUAL(tile_width(0, 1, 256), 0);
    CU_ASSERT_EQUAL(tile_width(1, 0, 256), 1);
    CU_ASSERT_EQUAL(tile_width(0, 0, 0), 0);
    CU_ASSERT_EQUAL(tile_width(7, 0, UINT64_C(1) << 63), 128);
    CU_ASSERT_EQUAL(tile_width(8, 0, UINT64_MAX), 0);
    CU_ASSERT_EQUAL(tile_width(0, UINT64_MAX, UINT64_MAX), 0);
}

// Full tiles as the edge hands them out, level 0 and 1; the unfinished ones stay in the edge.
struct store {
    struct tile_edge edge;
    struct merkle_hash tiles[2][LEAVES / TILE_WIDTH + 1][TILE_WIDTH];
    uint64_t count[2];
};

static int keep_tile(void *context, unsigned level, uint64_t index,
                     const struct merkle_hash *hashes, struct error *err)
{
    struct store *store = context;
    if (level > 1 || index != store->count[level])
        return error_set(err, ERROR_INTERNAL, "tile %u/%llu is out of order", level,
                         (unsigned long long)index);
    memcpy(store->tiles[level][index], hashes, sizeof(store->tiles[0][0]));
    store->count[level]++;
    return 0;
}

static int read_tile(void *context, unsigned level, uint64_t index, unsigned width,
                     struct merkle_hash *hashes, struct error *err)
{
    const struct store *store = context;
    uint64_t last = 0;
    unsigned edge_width = tile_edge_width(&store->edge, level, &last);
    if (index == last && width <= edge_width)
        memcpy(hashes, store->edge.hashes[level], width * sizeof(*hashes));
    else if (level < 2 && index < store->count[level])
        memcpy(hashes, store->tiles[level][index], width * sizeof(*hashes));
    else
        return error_set(err, ERROR_NOT_FOUND, "no tile %u/%llu", level, (unsigned long long)index);
    return 0;
}

static struct merkle_hash leaf_at(uint64_t i)
{
    return merkle_leaf(&i, sizeof(i));
}

static void test_tree_in_tiles(void)
{
    struct store *store = calloc(1, sizeof(*store));
    CU_ASSERT_PTR_NOT_NULL_FATAL(store);
    struct merkle_edge edge = {.size = 0};
    struct tile_reader reader = {.read = read_tile, .context = store};
    for (uint64_t i = 0; i < LEAVES; i++) {
        struct merkle_hash leaf = leaf_at(i);
        merkle_edge_append(&edge, &leaf);
        CU_ASSERT_EQUAL(tile_edge_append(&store->edge, &leaf, keep_tile, store, NULL), 0);
        if (i % 4099 != 0)
            continue;
        struct merkle_edge read;
        CU_ASSERT_EQUAL(merkle_edge_read(i + 1, tile_read_hash, &reader, &read, NULL), 0);
        CU_ASSERT_EQUAL(
            memcmp(read.hashes, edge.hashes, merkle_edge_length(i + 1) * sizeof(edge.hashes[0])),
            0);
    }
    CU_ASSERT_EQUAL(store->count[0], 273);
    CU_ASSERT_EQUAL(store->count[1], 1);
    struct merkle_hash root = merkle_edge_root(&edge);
    for (uint64_t i = 0; i < LEAVES; i += 1 + i % 997) {
        struct merkle_hash leaf = leaf_at(i);
        struct merkle_hash proof[MERKLE_PROOF_MAX];
        size_t length = 0;
        CU_ASSERT_EQUAL(
            merkle_prove_inclusion(i, LEAVES, tile_read_hash, &reader, proof, &length, NULL), 0);
        CU_ASSERT_EQUAL(merkle_verify_inclusion(i, LEAVES, &leaf, proof, length, &root, NULL), 0);
    }
    free(store);
}

static int refuse_tile(void *context, unsigned level, uint64_t index,
                       const struct merkle_hash *hashes, struct error *err)
{
    ++*(unsigned *)context;
    return error_set(err, ERROR_UNAVAILABLE, "disk full");
}

// A tile that cannot be kept is reported once, and the edge goes on as if it had been.
static void test_full_fails(void)
{
    struct tile_edge *edge = calloc(1, sizeof(*edge));
    CU_ASSERT_PTR_NOT_NULL_FATAL(edge);
    unsigned calls = 0;
    struct error err;
    for (uint64_t i = 0; i < 256; i++) {
        struct merkle_hash leaf = leaf_at(i);
        CU_ASSERT_EQUAL(tile_edge_append(edge, &leaf, refuse_tile, &calls, &err),
                        i == 255 ? -1 : 0);
    }
    CU_ASSERT_STRING_EQUAL(err.message, "disk full");
    CU_ASSERT_EQUAL(calls, 1);
    CU_ASSERT_EQUAL(edge->size, 256);
    uint64_t index = 99;
    CU_ASSERT_EQUAL(tile_edge_width(edge, 0, &index), 0);
    CU_ASSERT_EQUAL(index, 1);
    CU_ASSERT_EQUAL(tile_edge_width(edge, 1, &index), 1);
    CU_ASSERT_EQUAL(index, 0);
    struct merkle_edge plain = {.size = 0};
    for (uint64_t i = 0; i < 256; i++) {
        struct merkle_hash leaf = leaf_at(i);
        merkle_edge_append(&plain, &leaf);
    }
    CU_ASSERT_EQUAL(memcmp(&edge->hashes[1][0], &plain.hashes[0], MERKLE_HASH_SIZE), 0);
    free(edge);
}

// Above a tile that could not be kept, none is handed out by the same append.
static void test_full_fails_on_two_levels(void)
{
    struct tile_edge *edge = calloc(1, sizeof(*edge));
    CU_ASSERT_PTR_NOT_NULL_FATAL(edge);
    edge->size = 65535;
    unsigned calls = 0;
    struct error err;
    struct merkle_hash leaf = leaf_at(65535);
    CU_ASSERT_EQUAL(tile_edge_append(edge, &leaf, refuse_tile, &calls, &err), -1);
    CU_ASSERT_EQUAL(calls, 1);
    uint64_t index = 99;
    CU_ASSERT_EQUAL(tile_edge_width(edge, 2, &index), 1);
    free(edge);
}

static void test_no_such_hash(void)
{
    struct tile_reader reader = {.read = read_tile, .context = NULL};
    struct merkle_hash hash;
    struct error err;
    CU_ASSERT_NOT_EQUAL(tile_read_hash(&reader, 64, 0, &hash, &err), 0);
    CU_ASSERT_NOT_EQUAL(tile_read_hash(&reader, 63, UINT64_MAX, &hash, &err), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"paths", test_paths},
        {"widths", test_widths},
        {"a tree of 70,000 leaves in tiles", test_tree_in_tiles},
        {"a tile that cannot be kept", test_full_fails},
        {"no tile above one that cannot be kept", test_full_fails_on_two_levels},
        {"hashes that no tree has", test_no_such_hash},
        CU_TEST_INFO_NULL,
    };
    return tap_run("tile", tests);
}
