// SPDX-License-Identifier: Apache-2.0
// Hashing the lines of a log on all cores: batches go in and come out in the order of the log.
#ifndef TOOLS_AUDIT_LEAF_HASHER_H
#define TOOLS_AUDIT_LEAF_HASHER_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"
#include "tile.h"

// Text in a batch. It holds the longest line at least; 256 lines of 500 bytes fit.
#define LEAF_BATCH_TEXT (160 * 1024)

struct leaf_line {
    uint32_t offset; // of the line in the text; the byte before it is zero, the leaf's prefix, and
                     // MERKLE_PADDING bytes follow it
    uint32_t length;
    bool parsed;      // the line is a record
    uint64_t index;   // by the record's own word
    uint64_t segment; // the first index of the segment that it stands in,
    uint64_t line;    // and its number there
};

// Lines that stand in one and the same tile.
struct leaf_batch {
    uint64_t first; // position of the first line in the tree
    unsigned count;
    bool in_step; // every index is the line's position
    size_t used;  // of the text
    struct leaf_line lines[TILE_WIDTH];
    struct merkle_hash leaves[TILE_WIDTH]; // once hashed
    struct merkle_hash root;               // of a whole tile
    uint8_t text[LEAF_BATCH_TEXT];
};

struct leaf_hasher; // opaque

// Called in order for each batch once it is hashed. Returns 0, or -1 with `err`.
typedef int leaf_done_fn(void *context, const struct leaf_batch *batch, struct error *err);

// `jobs` threads at most hash, the caller's own among them (1: it alone). `first` is the position
// of the first line to come. NULL with `err` on failure.
struct leaf_hasher *leaf_hasher_new(unsigned jobs, uint64_t first, leaf_done_fn *done,
                                    void *context, struct error *err);
void leaf_hasher_free(struct leaf_hasher *hasher);

// Adds a line (its offset is set here); `text` need not last. Returns 0, or -1 with `err`: what
// `done` failed with.
int leaf_hasher_add(struct leaf_hasher *hasher, const char *text, const struct leaf_line *line,
                    struct error *err);
// Hashes what is left.
int leaf_hasher_finish(struct leaf_hasher *hasher, struct error *err);

#endif
