// SPDX-License-Identifier: Apache-2.0
// The tree in memory: what a batch's receipts need is at hand at every size, and a tree out of its
// tiles goes on like the one that made them.
#include "tree.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

#define BATCH  64
#define LEAVES (TILE_WIDTH * TILE_WIDTH + 3 * TILE_WIDTH) // crosses a tile of level 1

static struct merkle_hash leaf_at(uint64_t index)
{
    return merkle_leaf(&index, sizeof(index));
}

// Full tiles of the first two levels, and a refusal of all others.
struct store {
    uint64_t full[3]; // how many of a level
    struct merkle_hash tiles[2][LEAVES / TILE_WIDTH][TILE_WIDTH];
    const struct tree *tree; // the unfinished ones
};

static int keep(void *context, unsigned level, uint64_t index, const struct merkle_hash *hashes,
                struct error *err)
{
    struct store *store = context;
    (void)err;
    CU_ASSERT_EQUAL(index, store->full[level]);
    store->full[level]++;
    if (level < 2)
        memcpy(store->tiles[level][index], hashes, sizeof(store->tiles[level][index]));
    return 0;
}

static int read_stored(void *context, unsigned level, uint64_t index, unsigned width,
                       struct merkle_hash *hashes, struct error *err)
{
    const struct store *store = context;
    uint64_t edge_index;
    if (level < 2 && index < store->full[level]) {
        memcpy(hashes, store->tiles[level][index], width * sizeof(*hashes));
        return 0;
    }
    if (width > tile_edge_width(tree_tiles(store->tree), level, &edge_index) || index != edge_index)
        return error_set(err, ERROR_NOT_FOUND, "no such tile");
    memcpy(hashes, tree_tiles(store->tree)->hashes[level], width * sizeof(*hashes));
    return 0;
}

static struct store *store_new(struct tree *tree)
{
    struct store *store = calloc(1, sizeof(*store));
    CU_ASSERT_PTR_NOT_NULL_FATAL(store);
    store->tree = tree;
    return store;
}

static void append(struct tree *tree, struct store *store, uint64_t count)
{
    for (uint64_t end = tree_size(tree) + count; tree_size(tree) < end;) {
        struct merkle_hash leaf = leaf_at(tree_size(tree));
        CU_ASSERT_EQUAL(tree_append(tree, &leaf, keep, store, NULL), 0);
    }
}

// The receipt of one leaf, with nothing but memory.
static void check_receipt(const struct tree *tree, uint64_t index, const struct merkle_hash *root)
{
    struct tree_reader reader = {.tree = tree};
    struct merkle_hash proof[MERKLE_PROOF_MAX], leaf = leaf_at(index);
    size_t length;
    struct error err;
    CU_ASSERT_EQUAL_FATAL(merkle_prove_inclusion(index, tree_size(tree), tree_read_hash, &reader,
                                                 proof, &length, &err),
                          0);
    CU_ASSERT_EQUAL(
        merkle_verify_inclusion(index, tree_size(tree), &leaf, proof, length, root, &err), 0);
}

static void test_receipts(void)
{
    struct tree *tree = tree_new();
    struct store *store = store_new(tree);
    struct merkle_edge edge = {.size = 0};
    while (tree_size(tree) + BATCH <= LEAVES) {
        uint64_t first = tree_size(tree), count = BATCH - first % 7;
        append(tree, store, count);
        for (uint64_t i = first; i < first + count; i++) {
            struct merkle_hash leaf = leaf_at(i);
            merkle_edge_append(&edge, &leaf);
        }
        struct merkle_hash root = tree_root(tree), wanted = merkle_edge_root(&edge);
        CU_ASSERT_EQUAL_FATAL(memcmp(&root, &wanted, sizeof(root)), 0);
        // All where a tile ends, else the two ends of the batch.
        for (uint64_t i = first; i < first + count; i++)
            if ((first + count) % TILE_WIDTH < BATCH || i == first || i == first + count - 1)
                check_receipt(tree, i, &root);
    }
    free(store);
    tree_free(tree);
}

static void check_load(uint64_t size)
{
    struct tree *tree = tree_new();
    struct store *store = store_new(tree);
    struct error err;
    append(tree, store, size);
    struct tree *loaded = tree_load(size, read_stored, store, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(loaded);
    struct merkle_hash root = tree_root(tree), same = tree_root(loaded);
    CU_ASSERT_EQUAL(memcmp(&root, &same, sizeof(root)), 0);
    for (int i = 0; i < 300; i++) {
        struct merkle_hash leaf = leaf_at(tree_size(loaded));
        struct store nowhere = {.tree = NULL};
        nowhere.full[0] = tree_size(loaded) / TILE_WIDTH;
        nowhere.full[1] = nowhere.full[0] / TILE_WIDTH;
        CU_ASSERT_EQUAL(tree_append(loaded, &leaf, keep, &nowhere, &err), 0);
        root = tree_root(loaded);
        check_receipt(loaded, tree_size(loaded) - 1, &root);
    }
    tree_free(loaded);
    free(store);
    tree_free(tree);
}

static void test_load(void)
{
    static const uint64_t sizes[] = {0, 1, 255, 256, 257, 511, 512, 1000, 65535, 65536, 65537};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_load(sizes[i]);
}

// What is older than two tiles is asked for, and missed where nobody has it.
static void test_older(void)
{
    struct tree *tree = tree_new();
    struct store *store = store_new(tree);
    append(tree, store, 1000);
    struct tree_reader alone = {.tree = tree};
    struct tree_reader helped = {.tree = tree, .older = read_stored, .context = store};
    struct merkle_hash hash, wanted = leaf_at(5);
    struct error err;
    CU_ASSERT_EQUAL(tree_read_hash(&alone, 0, 5, &hash, &err), -1);
    CU_ASSERT_EQUAL(tree_read_hash(&helped, 0, 5, &hash, &err), 0);
    CU_ASSERT_EQUAL(memcmp(&hash, &wanted, sizeof(hash)), 0);
    CU_ASSERT_EQUAL(tree_read_hash(&helped, 0, 1000, &hash, &err), -1);
    free(store);
    tree_free(tree);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"receipts of a batch need memory alone", test_receipts},
        {"a tree out of its tiles goes on", test_load},
        {"older hashes", test_older},
        CU_TEST_INFO_NULL,
    };
    return tap_run("tree", tests);
}
