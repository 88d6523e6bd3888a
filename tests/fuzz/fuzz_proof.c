// SPDX-License-Identifier: Apache-2.0
// Fuzzes receipts and Merkle proofs: their text has one form, true ones hold, and altered ones do
// not.
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "fuzz.h"
#include "proof.h"
#include "tests/unit/signer.h"

#define LEAVES 520 // two whole levels of tiles and some
#define LEVELS 10

// ---- a fixed tree ----

static struct merkle_hash tree[LEVELS][LEAVES];

static void make_tree(void)
{
    static bool made;
    if (made)
        return;
    made = true;
    for (uint32_t i = 0; i < LEAVES; i++)
        tree[0][i] = merkle_leaf(&i, sizeof(i));
    for (unsigned level = 1; level < LEVELS; level++)
        for (unsigned i = 0; i < LEAVES >> level; i++)
            tree[level][i] = merkle_node(&tree[level - 1][2 * i], &tree[level - 1][2 * i + 1]);
}

static int read_tree(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                     struct error *err)
{
    REQUIRE(level < LEVELS && index < LEAVES >> level);
    *hash = tree[level][index];
    return 0;
}

static struct merkle_hash root_of(uint64_t size)
{
    struct merkle_edge edge;
    REQUIRE(merkle_edge_read(size, read_tree, NULL, &edge, NULL) == 0);
    return merkle_edge_root(&edge);
}

// ---- receipts ----

static void make_receipt(struct proof *proof, uint64_t index, uint64_t size,
                         const struct signer *signer)
{
    struct checkpoint checkpoint = {.size = size, .root = root_of(size)};
    char text[CHECKPOINT_TEXT_MAX];
    strcpy(checkpoint.origin, signer->key.name);
    checkpoint_format(&checkpoint, text);
    memset(proof, 0, sizeof(*proof));
    proof->index = index;
    REQUIRE(merkle_prove_inclusion(index, size, read_tree, NULL, proof->path, &proof->path_length,
                                   NULL) == 0);
    proof->checkpoint_length = signer_sign(signer, text, proof->checkpoint);
}

static void fuzz_receipt(uint64_t index, uint64_t size, uint64_t choice)
{
    static struct signer signer;
    struct proof proof, again;
    char text[PROOF_MAX];
    size_t length;
    if (signer.key.name[0] == '\0')
        signer_make(&signer, "alpha/custody/log", 1);
    make_receipt(&proof, index, size, &signer);
    REQUIRE(proof_format(&proof, text, sizeof(text), &length, NULL) == 0);
    REQUIRE(proof_parse(&again, text, length, NULL) == 0);
    REQUIRE(proof_verify(&again, &tree[0][index], &signer.key, NULL) == 0);
    REQUIRE(proof_verify(&again, &tree[0][(index + 1) % LEAVES], &signer.key, NULL) != 0);
    fuzz_flip(text, length, choice);
    REQUIRE(proof_parse(&again, text, length, NULL) != 0 ||
            proof_verify(&again, &tree[0][index], &signer.key, NULL) != 0);
}

static void fuzz_text(const char *data, size_t size)
{
    static const char extra[] = "c2sp.org/tlog-proof@v1\nextra ";
    struct proof proof;
    struct error err = {.code = ERROR_OK};
    char text[PROOF_MAX];
    size_t length = 0;
    if (proof_parse(&proof, data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    REQUIRE(proof.path_length <= MERKLE_PROOF_MAX && proof.checkpoint_length < NOTE_MAX);
    // An extra line is ignored, and so is not given back; nor is what a NUL cuts off, which no
    // checkpoint that verifies holds.
    if (memchr(data, '\0', size) != NULL ||
        (size >= sizeof(extra) - 1 && memcmp(data, extra, sizeof(extra) - 1) == 0))
        return;
    REQUIRE(proof_format(&proof, text, sizeof(text), &length, NULL) == 0);
    REQUIRE(length == size && memcmp(text, data, size) == 0);
}

// ---- proofs ----

static void fuzz_inclusion(uint64_t index, uint64_t size, uint64_t choice)
{
    struct merkle_hash path[MERKLE_PROOF_MAX], root = root_of(size);
    size_t length;
    REQUIRE(merkle_prove_inclusion(index, size, read_tree, NULL, path, &length, NULL) == 0);
    REQUIRE(merkle_verify_inclusion(index, size, &tree[0][index], path, length, &root, NULL) == 0);
    for (uint64_t other = 0; other < size; other += 1 + choice % 64)
        REQUIRE(other == index || merkle_verify_inclusion(other, size, &tree[0][index], path,
                                                          length, &root, NULL) != 0);
    if (length == 0)
        return;
    REQUIRE(merkle_verify_inclusion(index, size, &tree[0][index], path, length - 1, &root, NULL) !=
            0);
    fuzz_flip(path, length * sizeof(path[0]), choice);
    REQUIRE(merkle_verify_inclusion(index, size, &tree[0][index], path, length, &root, NULL) != 0);
}

static void fuzz_consistency(uint64_t old_size, uint64_t new_size, uint64_t choice)
{
    struct merkle_hash path[MERKLE_PROOF_MAX];
    struct merkle_hash old_root = root_of(old_size), new_root = root_of(new_size);
    size_t length;
    REQUIRE(merkle_prove_consistency(old_size, new_size, read_tree, NULL, path, &length, NULL) ==
            0);
    REQUIRE(merkle_verify_consistency(old_size, new_size, &old_root, &new_root, path, length,
                                      NULL) == 0);
    if (length > 0) {
        REQUIRE(merkle_verify_consistency(old_size, new_size, &old_root, &new_root, path,
                                          length - 1, NULL) != 0);
        fuzz_flip(path, length * sizeof(path[0]), choice);
        REQUIRE(merkle_verify_consistency(old_size, new_size, &old_root, &new_root, path, length,
                                          NULL) != 0);
        fuzz_flip(path, length * sizeof(path[0]), choice);
    }
    fuzz_flip(&old_root, sizeof(old_root), choice);
    REQUIRE(merkle_verify_consistency(old_size, new_size, &old_root, &new_root, path, length,
                                      NULL) != 0);
}

// Hashes that nobody made, and any sizes: no proof, no matter.
static void fuzz_any(struct input input)
{
    struct merkle_hash path[MERKLE_PROOF_MAX], leaf = {{0}};
    uint64_t a = input_u64(&input), b = input_u64(&input);
    struct error err = {.code = ERROR_OK};
    size_t length = input.left / sizeof(path[0]);
    if (length > MERKLE_PROOF_MAX)
        length = MERKLE_PROOF_MAX;
    memcpy(path, input.at, length * sizeof(path[0]));
    if (merkle_verify_inclusion(a, b, &leaf, path, length, &tree[0][0], &err) == 0)
        fuzz_failed("a proof by nobody is refused", __FILE__, __LINE__);
    fuzz_require_refusal(&err);
    if (merkle_verify_consistency(a, b, &leaf, &tree[0][0], path, length, &err) == 0)
        fuzz_failed("consistency of a root by nobody is refused", __FILE__, __LINE__);
    fuzz_require_refusal(&err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    uint64_t choice = fuzz_hash(data, size);
    make_tree();
    fuzz_text((const char *)data, size);
    if (size >= 16)
        fuzz_any(input);
    uint64_t leaves = 1 + input_u64(&input) % LEAVES;
    uint64_t other = 1 + input_u64(&input) % leaves;
    fuzz_inclusion(other - 1, leaves, choice);
    fuzz_consistency(other, leaves, choice);
    fuzz_receipt(other - 1, leaves, choice);
    return 0;
}
