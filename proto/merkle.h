// SPDX-License-Identifier: Apache-2.0
// The Merkle tree of RFC 6962 section 2.1 over SHA-256: hashes, a growing tree's right edge, and
// proofs.
#ifndef PROTO_MERKLE_H
#define PROTO_MERKLE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define MERKLE_HASH_SIZE 32
#define MERKLE_LEVELS                                                                              \
    64 // a tree of up to 2^63 leaves has no more hashes than this on its right edge
#define MERKLE_PROOF_MAX 64 // and no proof (inclusion or consistency) is longer

struct merkle_hash {
    uint8_t bytes[MERKLE_HASH_SIZE];
};

// SHA-256(0x00 || data). (RFC 6962 section 2.1)
struct merkle_hash merkle_leaf(const void *data, size_t length);
// The same in one piece, as most of the time of verifying a log goes to it: `bytes` begins with
// that zero byte, which `length` counts, and has room for MERKLE_PADDING more behind, which are
// overwritten.
#define MERKLE_PADDING 72
struct merkle_hash merkle_leaf_in_place(uint8_t *bytes, size_t length);
// SHA-256(0x01 || left || right).
struct merkle_hash merkle_node(const struct merkle_hash *left, const struct merkle_hash *right);
// SHA-256 of nothing: the root of the tree without leaves.
struct merkle_hash merkle_empty_root(void);

// The right edge of a tree: the roots of the complete subtrees that its size is the sum of, largest
// first. Enough to append and to compute the root; O(log n) in space.
struct merkle_edge {
    uint64_t size; // leaves
    struct merkle_hash hashes[MERKLE_LEVELS];
};

// How many hashes an edge of `size` leaves has: the number of one bits in `size`.
unsigned merkle_edge_length(uint64_t size);
// Adds a leaf, given by its hash. Amortised two hash computations.
void merkle_edge_append(struct merkle_edge *edge, const struct merkle_hash *leaf);
struct merkle_hash merkle_edge_root(const struct merkle_edge *edge);

// Reads the hash of the complete subtree at `level` (0 = leaves) that is the `index`-th from the
// left on that level, i.e. MTH(D[index * 2^level : (index + 1) * 2^level]). Returns 0, or -1 with
// `err`.
typedef int merkle_read_fn(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                           struct error *err);

// The edge of the tree of `size` leaves, read through `read`.
int merkle_edge_read(uint64_t size, merkle_read_fn *read, void *context, struct merkle_edge *edge,
                     struct error *err);

// Inclusion proof of leaf `index` in the tree of `size` leaves, leaf's sibling first (RFC 6962
// section 2.1.1). Needs index < size. `proof` has room for MERKLE_PROOF_MAX; `*length` is set.
int merkle_prove_inclusion(uint64_t index, uint64_t size, merkle_read_fn *read, void *context,
                           struct merkle_hash *proof, size_t *length, struct error *err);
// Consistency proof between the trees of `old_size` and `new_size` leaves (RFC 6962 section 2.1.2);
// needs old_size <= new_size; empty when old_size is 0 or both are equal.
int merkle_prove_consistency(uint64_t old_size, uint64_t new_size, merkle_read_fn *read,
                             void *context, struct merkle_hash *proof, size_t *length,
                             struct error *err);

// The checks of RFC 9162 sections 2.1.3.2 and 2.1.4.2. Return 0 when the proof holds, else -1 with
// what is wrong in `err` (may be NULL). Never read beyond `length`; any size and index is safe.
int merkle_verify_inclusion(uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                            const struct merkle_hash *proof, size_t length,
                            const struct merkle_hash *root, struct error *err);
int merkle_verify_consistency(uint64_t old_size, uint64_t new_size,
                              const struct merkle_hash *old_root,
                              const struct merkle_hash *new_root, const struct merkle_hash *proof,
                              size_t length, struct error *err);

#endif
