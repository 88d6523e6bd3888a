// SPDX-License-Identifier: Apache-2.0
// The Merkle tree of RFC 6962 over SHA-256: hashing, the growing edge, making proofs.
//
// OpenSSL's SHA-256 uses the processor's instructions where it has them, libsodium's does not
// (0.14 us a node against 0.37 us), and its plain functions, which it would rather see replaced by
// EVP, take a fifth less time than that for pieces as short as these: a log is millions of them.
#define OPENSSL_API_COMPAT 10100
#include "merkle.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/sha.h>

#define SIZE_LIMIT (UINT64_C(1) << 63)

#define BLOCK 64 // bytes that SHA-256 takes at a time

// Hashes a message in place, as whole blocks: the padding (FIPS 180-4 section 5.1.1) is written
// behind it, and the hash taken from the state. SHA256_Final would take a fifth of a node's time.
static inline struct merkle_hash hash_in_place(uint8_t *bytes, size_t length)
{
    struct merkle_hash hash;
    SHA256_CTX context;
    uint64_t bits = htobe64((uint64_t)length * 8);
    size_t size = (length + 1 + sizeof(bits) + BLOCK - 1) / BLOCK * BLOCK;
    bytes[length] = 0x80;
    memset(bytes + length + 1, 0, size - sizeof(bits) - length - 1);
    memcpy(bytes + size - sizeof(bits), &bits, sizeof(bits));
    SHA256_Init(&context);
    SHA256_Update(&context, bytes, size);
    for (unsigned i = 0; i < MERKLE_HASH_SIZE / sizeof(uint32_t); i++) {
        uint32_t word = htobe32(context.h[i]);
        memcpy(hash.bytes + i * sizeof(word), &word, sizeof(word));
    }
    return hash;
}

struct merkle_hash merkle_leaf_in_place(uint8_t *bytes, size_t length)
{
    return hash_in_place(bytes, length);
}

struct merkle_hash merkle_leaf(const void *data, size_t length)
{
    const uint8_t prefix = 0x00;
    struct merkle_hash hash;
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, &prefix, 1);
    SHA256_Update(&context, data, length);
    SHA256_Final(hash.bytes, &context);
    return hash;
}

struct merkle_hash merkle_node(const struct merkle_hash *left, const struct merkle_hash *right)
{
    uint8_t bytes[2 * BLOCK];
    bytes[0] = 0x01;
    memcpy(bytes + 1, left->bytes, MERKLE_HASH_SIZE);
    memcpy(bytes + 1 + MERKLE_HASH_SIZE, right->bytes, MERKLE_HASH_SIZE);
    return hash_in_place(bytes, 1 + 2 * MERKLE_HASH_SIZE);
}

struct merkle_hash merkle_empty_root(void)
{
    uint8_t bytes[BLOCK];
    return hash_in_place(bytes, 0);
}

unsigned merkle_edge_length(uint64_t size)
{
    return (unsigned)__builtin_popcountll(size);
}

void merkle_edge_append(struct merkle_edge *edge, const struct merkle_hash *leaf)
{
    struct merkle_hash hash = *leaf;
    unsigned length = merkle_edge_length(edge->size);
    // As in a binary counter: each trailing one is a subtree that becomes twice as large.
    for (uint64_t size = edge->size; (size & 1) != 0; size >>= 1)
        hash = merkle_node(&edge->hashes[--length], &hash);
    edge->hashes[length] = hash;
    edge->size++;
}

struct merkle_hash merkle_edge_root(const struct merkle_edge *edge)
{
    unsigned length = merkle_edge_length(edge->size);
    if (length == 0)
        return merkle_empty_root();
    struct merkle_hash root = edge->hashes[--length];
    while (length > 0)
        root = merkle_node(&edge->hashes[--length], &root);
    return root;
}

int merkle_edge_read(uint64_t size, merkle_read_fn *read, void *context, struct merkle_edge *edge,
                     struct error *err)
{
    unsigned length = 0;
    for (unsigned level = MERKLE_LEVELS; level-- > 0;) {
        if ((size >> level & 1) == 0)
            continue;
        if (read(context, level, (size >> level) - 1, &edge->hashes[length], err) != 0)
            return -1;
        length++;
    }
    edge->size = size;
    return 0;
}

// The root over the leaves [start, end), a range that the splits of RFC 6962 make: `start` is a
// multiple of the smallest power of two that is not below its length.
static int range_root(uint64_t start, uint64_t end, merkle_read_fn *read, void *context,
                      struct merkle_hash *root, struct error *err)
{
    bool first = true;
    // The complete subtrees that the range is the sum of, the smallest, rightmost one first.
    for (unsigned level = 0; start < end; level++) {
        uint64_t width = UINT64_C(1) << level;
        if (((end - start) & width) == 0)
            continue;
        end -= width;
        struct merkle_hash hash;
        if (read(context, level, end >> level, &hash, err) != 0)
            return -1;
        *root = first ? hash : merkle_node(&hash, root);
        first = false;
    }
    return 0;
}

// The largest power of two below `size`, which is at least 2.
static uint64_t split(uint64_t size)
{
    return UINT64_C(1) << (63 - __builtin_clzll(size - 1));
}

// Proofs are made from the root downwards and written from the leaf upwards.
static void reverse(struct merkle_hash *hashes, size_t length)
{
    for (size_t i = 0; i < length / 2; i++) {
        struct merkle_hash other = hashes[length - 1 - i];
        hashes[length - 1 - i] = hashes[i];
        hashes[i] = other;
    }
}

int merkle_prove_inclusion(uint64_t index, uint64_t size, merkle_read_fn *read, void *context,
                           struct merkle_hash *proof, size_t *length, struct error *err)
{
    if (index >= size || size > SIZE_LIMIT)
        return error_set(err, ERROR_INVALID_ARGUMENT, "index %llu is not in a tree of %llu records",
                         (unsigned long long)index, (unsigned long long)size);
    size_t count = 0;
    uint64_t start = 0;
    uint64_t end = size;
    while (end - start > 1) {
        uint64_t middle = start + split(end - start);
        bool left = index < middle;
        if (range_root(left ? middle : start, left ? end : middle, read, context, &proof[count],
                       err) != 0)
            return -1;
        count++;
        if (left)
            end = middle;
        else
            start = middle;
    }
    reverse(proof, count);
    *length = count;
    return 0;
}

int merkle_prove_consistency(uint64_t old_size, uint64_t new_size, merkle_read_fn *read,
                             void *context, struct merkle_hash *proof, size_t *length,
                             struct error *err)
{
    if (old_size > new_size || new_size > SIZE_LIMIT)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a tree of %llu records does not grow out of one of %llu",
                         (unsigned long long)new_size, (unsigned long long)old_size);
    *length = 0;
    if (old_size == 0)
        return 0;
    size_t count = 0;
    uint64_t start = 0;
    uint64_t end = new_size;
    while (old_size != end) {
        uint64_t middle = start + split(end - start);
        bool left = old_size <= middle;
        if (range_root(left ? middle : start, left ? end : middle, read, context, &proof[count],
                       err) != 0)
            return -1;
        count++;
        if (left)
            end = middle;
        else
            start = middle;
    }
    // A range that begins at 0 is the old tree itself, whose root the verifier has.
    if (start > 0 && range_root(start, end, read, context, &proof[count++], err) != 0)
        return -1;
    reverse(proof, count);
    *length = count;
    return 0;
}

static bool same(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

// Where a verifier stands: a node's index on its level, and that of the level's last node.
struct position {
    uint64_t node;
    uint64_t last;
};

// Whether the next hash of the proof is the left sibling. Then skips the levels on which the node
// is the last one and has no sibling (the inner "right-shift" of RFC 9162).
static bool left_sibling(struct position *position)
{
    if ((position->node & 1) == 0 && position->node != position->last)
        return false;
    while ((position->node & 1) == 0 && position->node != 0) {
        position->node >>= 1;
        position->last >>= 1;
    }
    return true;
}

static void go_up(struct position *position)
{
    position->node >>= 1;
    position->last >>= 1;
}

// RFC 9162 section 2.1.3.2.
int merkle_verify_inclusion(uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                            const struct merkle_hash *proof, size_t length,
                            const struct merkle_hash *root, struct error *err)
{
    if (index >= size)
        return error_set(err, ERROR_DATA_LOSS, "index %llu is not in a tree of %llu records",
                         (unsigned long long)index, (unsigned long long)size);
    struct position position = {.node = index, .last = size - 1};
    struct merkle_hash hash = *leaf;
    for (size_t i = 0; i < length; i++) {
        if (position.last == 0)
            return error_set(err, ERROR_DATA_LOSS,
                             "the inclusion proof has %zu hashes, more than the tree has levels",
                             length);
        if (left_sibling(&position))
            hash = merkle_node(&proof[i], &hash);
        else
            hash = merkle_node(&hash, &proof[i]);
        go_up(&position);
    }
    if (position.last != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the inclusion proof has only %zu hashes and does not reach the root",
                         length);
    if (!same(&hash, root))
        return error_set(err, ERROR_DATA_LOSS,
                         "the inclusion proof does not lead from this record to the signed root");
    return 0;
}

// The cases that RFC 9162 leaves out because they need no proof.
static int verify_trivial_consistency(bool roots_match, size_t length, struct error *err)
{
    if (length != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the consistency proof has %zu hashes where none is needed", length);
    if (!roots_match)
        return error_set(err, ERROR_DATA_LOSS, "the two roots contradict each other");
    return 0;
}

// RFC 9162 section 2.1.4.2, from step 3 on.
static int walk_consistency(struct position position, const struct merkle_hash *first,
                            const struct merkle_hash *old_root, const struct merkle_hash *new_root,
                            const struct merkle_hash *proof, size_t length, struct error *err)
{
    while ((position.node & 1) != 0)
        go_up(&position);
    struct merkle_hash old_hash = *first;
    struct merkle_hash new_hash = *first;
    for (size_t i = 0; i < length; i++) {
        if (position.last == 0)
            return error_set(err, ERROR_DATA_LOSS,
                             "the consistency proof has more hashes than the tree has levels");
        if (left_sibling(&position)) {
            old_hash = merkle_node(&proof[i], &old_hash);
            new_hash = merkle_node(&proof[i], &new_hash);
        } else {
            new_hash = merkle_node(&new_hash, &proof[i]);
        }
        go_up(&position);
    }
    if (position.last != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the consistency proof is too short to reach the root");
    if (!same(&old_hash, old_root))
        return error_set(err, ERROR_DATA_LOSS,
                         "the consistency proof does not lead to the old root");
    if (!same(&new_hash, new_root))
        return error_set(err, ERROR_DATA_LOSS,
                         "the consistency proof does not lead to the new root");
    return 0;
}

int merkle_verify_consistency(uint64_t old_size, uint64_t new_size,
                              const struct merkle_hash *old_root,
                              const struct merkle_hash *new_root, const struct merkle_hash *proof,
                              size_t length, struct error *err)
{
    if (old_size > new_size)
        return error_set(err, ERROR_DATA_LOSS,
                         "the log shrank: it had %llu records and now has %llu",
                         (unsigned long long)old_size, (unsigned long long)new_size);
    if (old_size == 0) {
        struct merkle_hash empty = merkle_empty_root();
        bool match = same(old_root, &empty) && (new_size != 0 || same(new_root, &empty));
        return verify_trivial_consistency(match, length, err);
    }
    if (old_size == new_size)
        return verify_trivial_consistency(same(old_root, new_root), length, err);
    if (length == 0)
        return error_set(err, ERROR_DATA_LOSS, "the consistency proof is empty");
    struct position position = {.node = old_size - 1, .last = new_size - 1};
    // An old tree that is complete is a node of the new one, so the proof leaves its root out.
    bool complete = (old_size & (old_size - 1)) == 0;
    return walk_consistency(position, complete ? old_root : proof, old_root, new_root,
                            complete ? proof : proof + 1, complete ? length : length - 1, err);
}
