// SPDX-License-Identifier: Apache-2.0
// Receipts: written, read back and checked; the form is that of c2sp.org/tlog-proof.
#include "proof.h"

#include <stdio.h>
#include <string.h>

#include "checkpoint.h"
#include "signer.h"
#include "tap.h"

#define ORIGIN "alpha/custody/log"
#define LEAVES 11
#define HEAD   "c2sp.org/tlog-proof@v1\n"
#define HASH   "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n"

static int read_leaves(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                       struct error *err)
{
    if (level == 0) {
        *hash = merkle_leaf(&index, sizeof(index));
        return 0;
    }
    struct merkle_hash left, right;
    read_leaves(context, level - 1, 2 * index, &left, err);
    read_leaves(context, level - 1, 2 * index + 1, &right, err);
    *hash = merkle_node(&left, &right);
    return 0;
}

// The receipt of leaf `index` in a log of LEAVES, signed by `signer`.
static void make(struct proof *proof, const struct signer *signer, uint64_t index)
{
    memset(proof, 0, sizeof(*proof));
    struct merkle_edge edge;
    merkle_edge_read(LEAVES, read_leaves, NULL, &edge, NULL);
    struct checkpoint checkpoint = {.size = LEAVES, .root = merkle_edge_root(&edge)};
    strcpy(checkpoint.origin, ORIGIN);
    char text[CHECKPOINT_TEXT_MAX];
    checkpoint_format(&checkpoint, text);
    proof->index = index;
    merkle_prove_inclusion(index, LEAVES, read_leaves, NULL, proof->path, &proof->path_length,
                           NULL);
    proof->checkpoint_length = signer_sign(signer, text, proof->checkpoint);
}

static void test_round_trip(void)
{
    struct signer signer;
    signer_make(&signer, ORIGIN, 1);
    for (uint64_t index = 0; index < LEAVES; index++) {
        struct proof proof, again;
        make(&proof, &signer, index);
        char text[PROOF_MAX];
        size_t length = 0;
        CU_ASSERT_EQUAL(proof_format(&proof, text, sizeof(text), &length, NULL), 0);
        CU_ASSERT_EQUAL(length, strlen(text));
        CU_ASSERT_EQUAL(proof_parse(&again, text, length, NULL), 0);
        CU_ASSERT_EQUAL(memcmp(&again, &proof, sizeof(proof)), 0);
        struct merkle_hash leaf = merkle_leaf(&index, sizeof(index));
        CU_ASSERT_EQUAL(proof_verify(&again, &leaf, &signer.key, NULL), 0);
        CU_ASSERT_EQUAL(proof_format(&proof, text, length, &length, NULL), -1);
    }
}

static void test_text(void)
{
    struct proof proof = {.index = 73894, .path_length = 1, .checkpoint = "note"};
    proof.checkpoint_length = 4;
    char text[PROOF_MAX];
    size_t length = 0;
    CU_ASSERT_EQUAL(proof_format(&proof, text, sizeof(text), &length, NULL), 0);
    CU_ASSERT_STRING_EQUAL(text, HEAD "index 73894\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
                                      "\nnote");
    proof.path_length = MERKLE_PROOF_MAX + 1;
    CU_ASSERT_EQUAL(proof_format(&proof, text, sizeof(text), &length, NULL), -1);
}

static void test_largest(void)
{
    struct proof proof = {.index = UINT64_MAX, .path_length = MERKLE_PROOF_MAX};
    memset(proof.checkpoint, 'x', sizeof(proof.checkpoint) - 1);
    proof.checkpoint_length = sizeof(proof.checkpoint) - 1;
    char text[PROOF_MAX];
    size_t length = 0;
    CU_ASSERT_EQUAL(proof_format(&proof, text, sizeof(text), &length, NULL), 0);
    struct proof again;
    CU_ASSERT_EQUAL(proof_parse(&again, text, length, NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &proof, sizeof(proof)), 0);
}

static int parse(const char *text, struct proof *proof)
{
    struct error err;
    return proof_parse(proof, text, strlen(text), &err);
}

static void test_extra(void)
{
    struct proof proof;
    CU_ASSERT_EQUAL(parse(HEAD "extra YWdl\nindex 4\n" HASH "\nnote\n", &proof), 0);
    CU_ASSERT_EQUAL(proof.index, 4);
    CU_ASSERT_EQUAL(proof.path_length, 1);
    CU_ASSERT_STRING_EQUAL(proof.checkpoint, "note\n");
}

static void test_malformed(void)
{
    static const char *const bad[] = {
        "",
        HEAD,
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v2\nindex 0\n\nnote\n",
        "c2sp.org/tlog-proof@v1 \nindex 0\n\nnote\n",
        HEAD "index 0\n",
        HEAD "index 0\n" HASH,
        HEAD "index 0\n" HASH "\n",
        HEAD "index\n\nnote\n",
        HEAD "index 00\n\nnote\n",
        HEAD "index -1\n\nnote\n",
        HEAD "index 18446744073709551616\n\nnote\n",
        HEAD "index 0\nshort\n\nnote\n",
        HEAD "index 0\ngSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlR=\n\nnote\n",
        HEAD "index 0\n " HASH "\nnote\n",
        HEAD "index 0\nextra YWdl\n\nnote\n",
        HEAD "extra YWd\nindex 0\n\nnote\n",
        HEAD "extra YWdl\n",
        HEAD "extra YWdl\nextra YWdl\nindex 0\n\nnote\n",
        HEAD "Index 0\n\nnote\n",
    };
    struct proof proof;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(parse(bad[i], &proof), -1);
    char text[PROOF_MAX + 1] = HEAD "index 0\n";
    for (int i = 0; i < MERKLE_PROOF_MAX; i++)
        strcat(text, HASH);
    size_t length = strlen(text);
    strcpy(text + length, "\nnote\n");
    CU_ASSERT_EQUAL(parse(text, &proof), 0);
    strcpy(text + length, HASH "\nnote\n");
    CU_ASSERT_EQUAL(parse(text, &proof), -1);
    memset(text + length, 'x', sizeof(text) - 1 - length);
    CU_ASSERT_EQUAL(proof_parse(&proof, text, sizeof(text) - 1, NULL), -1);
}

static void test_refused(void)
{
    struct signer signer, stranger;
    signer_make(&signer, ORIGIN, 1);
    signer_make(&stranger, ORIGIN, 2);
    uint64_t index = 4;
    struct merkle_hash leaf = merkle_leaf(&index, sizeof(index));
    struct merkle_hash other = merkle_leaf("other", 5);
    struct proof proof;
    make(&proof, &signer, index);
    CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &signer.key, NULL), 0);
    CU_ASSERT_EQUAL(proof_verify(&proof, &other, &signer.key, NULL), -1);
    CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &stranger.key, NULL), -1);
    for (proof.index = 0; proof.index < LEAVES + 2; proof.index++)
        CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &signer.key, NULL) == 0, proof.index == index);
    proof.index = index;
    proof.path_length--;
    CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &signer.key, NULL), -1);
    proof.path_length++;
    proof.path[0].bytes[0] ^= 1;
    CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &signer.key, NULL), -1);
    make(&proof, &stranger, index);
    CU_ASSERT_EQUAL(proof_verify(&proof, &leaf, &signer.key, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"written, read and verified", test_round_trip},
        {"the text", test_text},
        {"the largest", test_largest},
        {"an extra line is ignored", test_extra},
        {"malformed receipts are refused", test_malformed},
        {"receipts that prove something else are refused", test_refused},
        CU_TEST_INFO_NULL,
    };
    return tap_run("proof", tests);
}
