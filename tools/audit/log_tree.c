// SPDX-License-Identifier: Apache-2.0
// Growing the tree a tile at a time.
#include "log_tree.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "stored_tiles.h"

// A tree as the roots of its whole tiles and the leaves of the one that is not full.
struct growing {
    struct merkle_edge roots; // size counts tiles
    struct merkle_hash leaves[TILE_WIDTH];
};

struct log_tree {
    int dirfd;
    struct report *report;
    uint64_t size;
    struct growing computed; // from the lines
    struct growing stored;   // with the stored hashes, where there are any
    struct log_root *expected;
    const struct log_root *stored_match; // the last root reached that `stored` has as well

    bool in_step;
    uint64_t altered;
    uint64_t uncovered;
    struct tile_edge upper; // tiles of level 1 and above, as if roots of tiles were leaves
    bool upper_known;

    struct stored_tile tile; // of level 0
    bool tile_loaded;
    uint64_t tile_index;
};

struct log_tree *log_tree_new(int dirfd, struct report *report)
{
    struct log_tree *tree = calloc(1, sizeof(*tree));
    if (tree == NULL)
        return NULL;
    tree->dirfd = dirfd;
    tree->report = report;
    tree->in_step = true;
    tree->upper_known = true;
    return tree;
}

void log_tree_free(struct log_tree *tree)
{
    free(tree);
}

// ---- roots ----

// The edge at `size`, whose last tile is not full: roots of tiles first, then single leaves. The
// tree over tiles' roots has the shape of the tree over leaves.
static struct merkle_edge edge_at(const struct growing *growing, uint64_t size)
{
    struct merkle_edge edge = growing->roots;
    edge.size *= TILE_WIDTH;
    for (unsigned i = 0; edge.size < size; i++)
        merkle_edge_append(&edge, &growing->leaves[i]);
    return edge;
}

static struct merkle_hash root_at(const struct growing *growing, uint64_t size)
{
    struct merkle_edge edge = edge_at(growing, size);
    return merkle_edge_root(&edge);
}

static bool same(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

// Checks the roots at sizes above `from` that the tree has now grown to.
static void check_roots(struct log_tree *tree, uint64_t size)
{
    for (struct log_root *root = tree->expected; root != NULL; root = root->next) {
        if (root->reached || root->size > size ||
            root->size / TILE_WIDTH < tree->computed.roots.size)
            continue;
        struct merkle_hash computed = root_at(&tree->computed, root->size);
        root->reached = true;
        root->matches = same(&computed, &root->root);
        struct merkle_hash stored = root_at(&tree->stored, root->size);
        if (same(&stored, &root->root))
            tree->stored_match = root;
    }
}

void log_tree_expect(struct log_tree *tree, struct log_root *root)
{
    root->next = tree->expected;
    tree->expected = root;
    check_roots(tree, tree->size);
}

// ---- tiles ----

// Compares a tile as recomputed (`width` hashes) with the stored one of a level above the leaves;
// a difference in a leaf is found with its record.
static int compare_upper(struct log_tree *tree, unsigned level, uint64_t index,
                         const struct merkle_hash *hashes, unsigned width, struct error *err)
{
    struct stored_tile tile;
    if (stored_tile_read(tree->dirfd, level, index, &tile, err) != 0)
        return -1;
    if (tile.width < width)
        width = tile.width;
    if (tile.damaged)
        report_file(tree->report, REPORT_TILE, tile.path, "it is not a tile: its size is wrong");
    else if (tree->altered == 0 && memcmp(tile.hashes, hashes, width * sizeof(*hashes)) != 0)
        report_file(tree->report, REPORT_TILE, tile.path, "the tile is not that of the records");
    return 0;
}

static int on_full_tile(void *context, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, struct error *err)
{
    struct log_tree *tree = context;
    if (!tree->in_step || !tree->upper_known || level + 1 >= TILE_LEVELS)
        return 0;
    return compare_upper(tree, level + 1, index, hashes, TILE_WIDTH, err);
}

static int load_tile(struct log_tree *tree, uint64_t index, struct error *err)
{
    if (tree->tile_loaded && tree->tile_index == index)
        return 0;
    if (stored_tile_read(tree->dirfd, 0, index, &tree->tile, err) != 0)
        return -1;
    tree->tile_loaded = true;
    tree->tile_index = index;
    if (tree->tile.damaged)
        report_file(tree->report, REPORT_TILE, tree->tile.path,
                    "it is not a tile: its size is wrong");
    return 0;
}

// Compares one line with the stored hash of the record that it says it is.
static int compare_leaf(struct log_tree *tree, const struct leaf_batch *batch, unsigned i,
                        struct error *err)
{
    const struct leaf_line *line = &batch->lines[i];
    struct merkle_hash *leaf = &tree->stored.leaves[(batch->first + i) % TILE_WIDTH];
    *leaf = batch->leaves[i];
    if (load_tile(tree, line->index / TILE_WIDTH, err) != 0)
        return -1;
    if (line->index % TILE_WIDTH >= tree->tile.width)
        return 0;
    const struct merkle_hash *stored = &tree->tile.hashes[line->index % TILE_WIDTH];
    if (!same(stored, leaf)) {
        tree->altered++;
        struct log_place place = {.line = line->line};
        segment_name(line->segment, place.segment);
        report_at(tree->report, batch->first + i);
        // A line that is no record was named already.
        if (line->parsed)
            report_line(tree->report, REPORT_ALTERED, &place, line->index,
                        "the record and the tree's hash of it in %s differ", tree->tile.path);
    }
    if (tree->uncovered == line->index)
        tree->uncovered++;
    if (tree->in_step)
        *leaf = *stored;
    return 0;
}

static int compare_leaves(struct log_tree *tree, const struct leaf_batch *batch, struct error *err)
{
    unsigned at = batch->first % TILE_WIDTH;
    // What holds for nearly all: the lines are those of their tile.
    if (tree->in_step) {
        if (load_tile(tree, batch->first / TILE_WIDTH, err) != 0)
            return -1;
        if (at + batch->count <= tree->tile.width &&
            memcmp(batch->leaves, &tree->tile.hashes[at],
                   batch->count * sizeof(batch->leaves[0])) == 0) {
            memcpy(&tree->stored.leaves[at], batch->leaves,
                   batch->count * sizeof(batch->leaves[0]));
            if (tree->uncovered == batch->first)
                tree->uncovered += batch->count;
            return 0;
        }
    }
    for (unsigned i = 0; i < batch->count; i++)
        if (compare_leaf(tree, batch, i, err) != 0)
            return -1;
    return 0;
}

// ---- growing ----

static struct merkle_hash tile_root(const struct growing *growing)
{
    struct merkle_edge edge = {.size = 0};
    for (unsigned i = 0; i < TILE_WIDTH; i++)
        merkle_edge_append(&edge, &growing->leaves[i]);
    return merkle_edge_root(&edge);
}

static int finish_tile(struct log_tree *tree, const struct leaf_batch *batch, struct error *err)
{
    struct growing *computed = &tree->computed, *stored = &tree->stored;
    struct merkle_hash root = batch->count == TILE_WIDTH ? batch->root : tile_root(computed);
    struct merkle_hash other = root;
    if (memcmp(computed->leaves, stored->leaves, sizeof(computed->leaves)) != 0)
        other = tile_root(stored);
    merkle_edge_append(&computed->roots, &root);
    merkle_edge_append(&stored->roots, &other);
    return tile_edge_append(&tree->upper, &root, on_full_tile, tree, err);
}

int log_tree_take(void *context, const struct leaf_batch *batch, struct error *err)
{
    struct log_tree *tree = context;
    tree->in_step = tree->in_step && batch->in_step;
    memcpy(&tree->computed.leaves[batch->first % TILE_WIDTH], batch->leaves,
           batch->count * sizeof(batch->leaves[0]));
    report_at(tree->report, batch->first);
    if (compare_leaves(tree, batch, err) != 0)
        return -1;
    tree->size = batch->first + batch->count;
    check_roots(tree, tree->size);
    return tree->size % TILE_WIDTH == 0 ? finish_tile(tree, batch, err) : 0;
}

int log_tree_finish(struct log_tree *tree, struct error *err)
{
    for (unsigned level = 0; level + 1 < TILE_LEVELS && tree->in_step && tree->upper_known;
         level++) {
        uint64_t index;
        unsigned width = tile_edge_width(&tree->upper, level, &index);
        if (width > 0 &&
            compare_upper(tree, level + 1, index, tree->upper.hashes[level], width, err) != 0)
            return -1;
    }
    return 0;
}

// ---- beginning in the middle ----

static int read_stored(void *context, unsigned level, uint64_t index, unsigned width,
                       struct merkle_hash *hashes, struct error *err)
{
    const int *dirfd = context;
    struct stored_tile tile;
    if (stored_tile_read(*dirfd, level, index, &tile, err) != 0)
        return -1;
    if (tile.width < width)
        return error_set(err, ERROR_NOT_FOUND, "%s is %s", tile.path,
                         tile.damaged ? "no tile" : "missing or too short");
    memcpy(hashes, tile.hashes, width * sizeof(*hashes));
    return 0;
}

int log_tree_begin(struct log_tree *tree, uint64_t size, struct error *err)
{
    struct tile_reader reader = {.read = read_stored, .context = &tree->dirfd};
    struct merkle_edge edge;
    unsigned rest = (unsigned)(size % TILE_WIDTH);
    if (merkle_edge_read(size - rest, tile_read_hash, &reader, &edge, err) != 0 ||
        (rest > 0 &&
         read_stored(&tree->dirfd, 0, size / TILE_WIDTH, rest, tree->computed.leaves, err) != 0))
        return -1;
    tree->upper.size = size / TILE_WIDTH;
    for (unsigned level = 0; level + 1 < TILE_LEVELS; level++) {
        uint64_t index;
        unsigned width = tile_edge_width(&tree->upper, level, &index);
        if (width > 0 &&
            read_stored(&tree->dirfd, level + 1, index, width, tree->upper.hashes[level], err) != 0)
            return -1;
    }
    edge.size /= TILE_WIDTH;
    tree->computed.roots = edge;
    tree->stored = tree->computed;
    tree->size = tree->uncovered = size;
    return 0;
}

int log_tree_stored_leaf(int dirfd, uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                         const struct merkle_hash *root, struct error *err)
{
    struct tile_reader reader = {.read = read_stored, .context = &dirfd};
    struct merkle_hash proof[MERKLE_PROOF_MAX];
    size_t length;
    if (merkle_prove_inclusion(index, size, tile_read_hash, &reader, proof, &length, err) != 0)
        return -1;
    return merkle_verify_inclusion(index, size, leaf, proof, length, root, err);
}

// ---- what it has come to ----

uint64_t log_tree_size(const struct log_tree *tree)
{
    return tree->size;
}

struct merkle_hash log_tree_root(const struct log_tree *tree)
{
    return root_at(&tree->computed, tree->size);
}

uint64_t log_tree_altered(const struct log_tree *tree)
{
    return tree->altered;
}

uint64_t log_tree_uncovered(const struct log_tree *tree)
{
    return tree->uncovered;
}

bool log_tree_in_step(const struct log_tree *tree)
{
    return tree->in_step;
}

bool log_tree_stored_matches(const struct log_tree *tree, const struct log_root *root)
{
    return tree->stored_match == root;
}
