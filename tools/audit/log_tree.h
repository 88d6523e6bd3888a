// SPDX-License-Identifier: Apache-2.0
// The tree over the lines of a log as verify recomputes it: its roots against those that somebody
// vouched for, its hashes against the stored tiles.
#ifndef TOOLS_AUDIT_LOG_TREE_H
#define TOOLS_AUDIT_LOG_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "leaf_hasher.h"
#include "merkle.h"
#include "report.h"

struct log_tree; // opaque

// A root that the tree must have at a size. The caller's; it must outlive the tree.
struct log_root {
    uint64_t size;
    struct merkle_hash root;
    bool reached;          // the tree has grown to `size`
    bool matches;          // and its root was this one
    struct log_root *next; // the tree's
};

// `dirfd` (of the audit-dir) and `report` are borrowed. NULL when out of memory.
struct log_tree *log_tree_new(int dirfd, struct report *report);
void log_tree_free(struct log_tree *tree);

// Begins at `size` in place of 0, with what the stored tiles say: nothing vouches for them but the
// roots that are reached later. ERROR_NOT_FOUND where a tile is missing or damaged.
int log_tree_begin(struct log_tree *tree, uint64_t size, struct error *err);

// Looks out for a root at a size that the tree has not passed.
void log_tree_expect(struct log_tree *tree, struct log_root *root);
// Takes the next batch; `context` is the tree. Reports records and tiles that differ.
leaf_done_fn log_tree_take;
// Compares the unfinished tiles.
int log_tree_finish(struct log_tree *tree, struct error *err);

uint64_t log_tree_size(const struct log_tree *tree);
struct merkle_hash log_tree_root(const struct log_tree *tree);
uint64_t log_tree_altered(const struct log_tree *tree);   // records that differ from their tile
uint64_t log_tree_uncovered(const struct log_tree *tree); // the first record that no tile covers
bool log_tree_in_step(const struct log_tree *tree);       // every record stands at its own index
// Whether with the stored hashes in place of the records' the root at `root` is right.
bool log_tree_stored_matches(const struct log_tree *tree, const struct log_root *root);

// Whether `leaf` is that of record `index` in the tree of `size` records, by the stored tiles,
// whose root there is `root`. ERROR_DATA_LOSS when it is not.
int log_tree_stored_leaf(int dirfd, uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                         const struct merkle_hash *root, struct error *err);

#endif
