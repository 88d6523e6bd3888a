// SPDX-License-Identifier: Apache-2.0
// The tree against the reference tree of Certificate Transparency (eight leaves; its roots and
// proofs are those of google/certificate-transparency's and transparency-dev/merkle's tests) and
// against RFC 6962's recursive definitions.
#include "merkle.h"

#include <stdbool.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"

#define SMALL 40 // leaves of the trees that are compared exhaustively

static struct merkle_hash from_hex(const char *hex)
{
    struct merkle_hash hash;
    memset(&hash, 0, sizeof(hash));
    sodium_hex2bin(hash.bytes, sizeof(hash.bytes), hex, strlen(hex), NULL, NULL, NULL);
    return hash;
}

static bool same(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static bool is_hex(struct merkle_hash hash, const char *hex)
{
    struct merkle_hash wanted = from_hex(hex);
    return same(&hash, &wanted);
}

// ---- RFC 6962 section 2.1, word for word ----

static size_t split(size_t n)
{
    size_t k = 1;
    while (2 * k < n)
        k *= 2;
    return k;
}

static struct merkle_hash mth(const struct merkle_hash *leaves, size_t n)
{
    if (n == 0)
        return merkle_empty_root();
    if (n == 1)
        return leaves[0];
    struct merkle_hash left = mth(leaves, split(n));
    struct merkle_hash right = mth(leaves + split(n), n - split(n));
    return merkle_node(&left, &right);
}

static size_t path(size_t m, const struct merkle_hash *leaves, size_t n, struct merkle_hash *out)
{
    if (n == 1)
        return 0;
    size_t k = split(n);
    size_t length = m < k ? path(m, leaves, k, out) : path(m - k, leaves + k, n - k, out);
    out[length] = m < k ? mth(leaves + k, n - k) : mth(leaves, k);
    return length + 1;
}

static size_t subproof(size_t m, const struct merkle_hash *leaves, size_t n, bool whole,
                       struct merkle_hash *out)
{
    if (m == n) {
        if (whole)
            return 0;
        out[0] = mth(leaves, n);
        return 1;
    }
    size_t k = split(n);
    size_t length = m <= k ? subproof(m, leaves, k, whole, out)
                           : subproof(m - k, leaves + k, n - k, false, out);
    out[length] = m <= k ? mth(leaves + k, n - k) : mth(leaves, k);
    return length + 1;
}

// ---- trees to test on ----

static struct merkle_hash leaves[SMALL];

static int read_leaves(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                       struct error *err)
{
    size_t size = *(const size_t *)context;
    size_t width = (size_t)1 << level;
    if ((index + 1) * width > size)
        return error_set(err, ERROR_INTERNAL, "a subtree that is not complete was asked for");
    *hash = mth(leaves + index * width, width);
    return 0;
}

static void make_reference(void)
{
    static const char *const inputs[] = {
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    };
    for (size_t i = 0; i < 8; i++) {
        uint8_t data[16];
        size_t length = 0;
        sodium_hex2bin(data, sizeof(data), inputs[i], strlen(inputs[i]), NULL, &length, NULL);
        leaves[i] = merkle_leaf(data, length);
    }
}

static void make_small(void)
{
    for (size_t i = 0; i < SMALL; i++)
        leaves[i] = merkle_leaf(&i, sizeof(i));
}

static const char *const reference_roots[] = {
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

struct vector {
    uint64_t from; // a leaf's index, or the old size
    uint64_t size;
    size_t length;
    const char *hashes[3];
};

static const struct vector inclusion_vectors[] = {
    {0, 1, 0, {NULL}},
    {0,
     8,
     3,
     {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
    {5,
     8,
     3,
     {"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
    {2, 3, 1, {"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"}},
    {1,
     5,
     3,
     {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
};

static const struct vector consistency_vectors[] = {
    {1, 1, 0, {NULL}},
    {1,
     8,
     3,
     {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
    {6,
     8,
     3,
     {"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
    {2,
     5,
     2,
     {"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
    {6,
     7,
     3,
     {"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// ---- tests ----

static void test_reference_roots(void)
{
    make_reference();
    CU_ASSERT(is_hex(merkle_empty_root(), reference_roots[0]));
    struct merkle_edge edge = {.size = 0};
    for (size_t n = 0; n <= 8; n++) {
        CU_ASSERT(is_hex(merkle_edge_root(&edge), reference_roots[n]));
        CU_ASSERT_EQUAL(edge.size, n);
        if (n < 8)
            merkle_edge_append(&edge, &leaves[n]);
    }
}

static bool matches(const struct vector *vector, const struct merkle_hash *proof, size_t length)
{
    if (length != vector->length)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_hex(proof[i], vector->hashes[i]))
            return false;
    return true;
}

static void test_reference_proofs(void)
{
    make_reference();
    struct merkle_hash proof[MERKLE_PROOF_MAX];
    size_t length = 0;
    for (size_t i = 0; i < COUNT(inclusion_vectors); i++) {
        const struct vector *v = &inclusion_vectors[i];
        size_t size = v->size;
        struct merkle_hash root = from_hex(reference_roots[size]);
        CU_ASSERT_EQUAL(
            merkle_prove_inclusion(v->from, size, read_leaves, &size, proof, &length, NULL), 0);
        CU_ASSERT(matches(v, proof, length));
        CU_ASSERT_EQUAL(
            merkle_verify_inclusion(v->from, size, &leaves[v->from], proof, length, &root, NULL),
            0);
    }
    for (size_t i = 0; i < COUNT(consistency_vectors); i++) {
        const struct vector *v = &consistency_vectors[i];
        size_t size = v->size;
        struct merkle_hash old_root = from_hex(reference_roots[v->from]);
        struct merkle_hash root = from_hex(reference_roots[size]);
        CU_ASSERT_EQUAL(
            merkle_prove_consistency(v->from, size, read_leaves, &size, proof, &length, NULL), 0);
        CU_ASSERT(matches(v, proof, length));
        CU_ASSERT_EQUAL(
            merkle_verify_consistency(v->from, size, &old_root, &root, proof, length, NULL), 0);
    }
}

static void test_edges(void)
{
    make_small();
    struct merkle_edge edge = {.size = 0};
    for (size_t n = 1; n <= SMALL; n++) {
        merkle_edge_append(&edge, &leaves[n - 1]);
        struct merkle_hash root = merkle_edge_root(&edge);
        struct merkle_hash wanted = mth(leaves, n);
        CU_ASSERT(same(&root, &wanted));
        struct merkle_edge read;
        CU_ASSERT_EQUAL(merkle_edge_read(n, read_leaves, &n, &read, NULL), 0);
        CU_ASSERT_EQUAL(read.size, n);
        CU_ASSERT_EQUAL(
            memcmp(read.hashes, edge.hashes, merkle_edge_length(n) * sizeof(edge.hashes[0])), 0);
    }
}

// Every way to spoil one inclusion proof must be seen.
static void spoil_inclusion(size_t m, size_t n, struct merkle_hash *proof, size_t length)
{
    struct merkle_hash root = mth(leaves, n);
    struct merkle_hash wrong = merkle_leaf("wrong", 5);
    for (size_t other = 0; other < n; other++)
        CU_ASSERT_EQUAL(merkle_verify_inclusion(other, n, &leaves[m], proof, length, &root, NULL) ==
                            0,
                        other == m);
    CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(m, n, &wrong, proof, length, &root, NULL), 0);
    CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(m, n, &leaves[m], proof, length, &wrong, NULL), 0);
    CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(m, n, &leaves[m], proof, length + 1, &root, NULL),
                        0);
    CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(n, n, &leaves[m], proof, length, &root, NULL), 0);
    for (size_t i = 0; i < length; i++) {
        CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(m, n, &leaves[m], proof, i, &root, NULL), 0);
        proof[i].bytes[i % 32] ^= 1;
        CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(m, n, &leaves[m], proof, length, &root, NULL),
                            0);
        proof[i].bytes[i % 32] ^= 1;
    }
}

static void test_inclusion_exhaustively(void)
{
    make_small();
    for (size_t n = 1; n <= SMALL; n++) {
        struct merkle_hash root = mth(leaves, n);
        for (size_t m = 0; m < n; m++) {
            struct merkle_hash wanted[MERKLE_PROOF_MAX];
            struct merkle_hash proof[MERKLE_PROOF_MAX];
            memset(proof, 0, sizeof(proof));
            size_t length = 0;
            CU_ASSERT_EQUAL(merkle_prove_inclusion(m, n, read_leaves, &n, proof, &length, NULL), 0);
            CU_ASSERT_EQUAL(length, path(m, leaves, n, wanted));
            CU_ASSERT_EQUAL(memcmp(proof, wanted, length * sizeof(proof[0])), 0);
            CU_ASSERT_EQUAL(merkle_verify_inclusion(m, n, &leaves[m], proof, length, &root, NULL),
                            0);
            spoil_inclusion(m, n, proof, length);
        }
    }
}

static void spoil_consistency(size_t m, size_t n, struct merkle_hash *proof, size_t length)
{
    struct merkle_hash old_root = mth(leaves, m);
    struct merkle_hash root = mth(leaves, n);
    struct merkle_hash wrong = merkle_leaf("wrong", 5);
    CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(m, n, &wrong, &root, proof, length, NULL), 0);
    CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(m, n, &old_root, &root, proof, length + 1, NULL),
                        0);
    CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(n + 1, n, &old_root, &root, proof, length, NULL),
                        0);
    if (m > 0)
        CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(m, n, &old_root, &wrong, proof, length, NULL),
                            0);
    for (size_t i = 0; i < length; i++) {
        CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(m, n, &old_root, &root, proof, i, NULL), 0);
        proof[i].bytes[i % 32] ^= 1;
        CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(m, n, &old_root, &root, proof, length, NULL),
                            0);
        proof[i].bytes[i % 32] ^= 1;
    }
}

static void test_consistency_exhaustively(void)
{
    make_small();
    for (size_t n = 0; n <= SMALL; n++) {
        struct merkle_hash root = mth(leaves, n);
        for (size_t m = 0; m <= n; m++) {
            struct merkle_hash wanted[MERKLE_PROOF_MAX];
            struct merkle_hash proof[MERKLE_PROOF_MAX];
            memset(proof, 0, sizeof(proof));
            struct merkle_hash old_root = mth(leaves, m);
            size_t length = 99;
            CU_ASSERT_EQUAL(merkle_prove_consistency(m, n, read_leaves, &n, proof, &length, NULL),
                            0);
            CU_ASSERT_EQUAL(length, m == 0 ? 0 : subproof(m, leaves, n, true, wanted));
            CU_ASSERT_EQUAL(memcmp(proof, wanted, length * sizeof(proof[0])), 0);
            CU_ASSERT_EQUAL(merkle_verify_consistency(m, n, &old_root, &root, proof, length, NULL),
                            0);
            spoil_consistency(m, n, proof, length);
        }
    }
}

// A tree whose leaves are all the same, so that any size is at hand.
static int read_uniform(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                        struct error *err)
{
    struct merkle_hash at = merkle_leaf("", 0);
    while (level-- > 0)
        at = merkle_node(&at, &at);
    *hash = at;
    return 0;
}

static void test_huge_trees(void)
{
    static const uint64_t sizes[] = {
        UINT64_C(1) << 63,
        (UINT64_C(1) << 63) - 1,
        (UINT64_C(1) << 62) + 12345,
        (UINT64_C(1) << 32) + 1,
        1000000007,
    };
    struct merkle_hash leaf = merkle_leaf("", 0);
    struct merkle_hash proof[MERKLE_PROOF_MAX];
    size_t length = 0;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct merkle_edge edge;
        CU_ASSERT_EQUAL(merkle_edge_read(sizes[i], read_uniform, NULL, &edge, NULL), 0);
        struct merkle_hash root = merkle_edge_root(&edge);
        const uint64_t places[] = {0, 1, sizes[i] / 3, sizes[i] - 2, sizes[i] - 1};
        for (size_t j = 0; j < COUNT(places); j++) {
            CU_ASSERT_EQUAL(merkle_prove_inclusion(places[j], sizes[i], read_uniform, NULL, proof,
                                                   &length, NULL),
                            0);
            CU_ASSERT_EQUAL(
                merkle_verify_inclusion(places[j], sizes[i], &leaf, proof, length, &root, NULL), 0);
            CU_ASSERT_EQUAL(merkle_edge_read(places[j], read_uniform, NULL, &edge, NULL), 0);
            struct merkle_hash old_root = merkle_edge_root(&edge);
            CU_ASSERT_EQUAL(merkle_prove_consistency(places[j], sizes[i], read_uniform, NULL, proof,
                                                     &length, NULL),
                            0);
            CU_ASSERT_EQUAL(merkle_verify_consistency(places[j], sizes[i], &old_root, &root, proof,
                                                      length, NULL),
                            0);
        }
    }
}

static void test_hostile_numbers(void)
{
    static const uint64_t numbers[] = {
        0, 1, 2, 3, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
    struct merkle_hash proof[MERKLE_PROOF_MAX];
    memset(proof, 0x5a, sizeof(proof));
    struct merkle_hash some = merkle_leaf("some", 4);
    struct merkle_hash other = merkle_leaf("other", 5);
    struct error err;
    for (size_t i = 0; i < COUNT(numbers); i++)
        for (size_t j = 0; j < COUNT(numbers); j++)
            for (size_t length = 0; length <= MERKLE_PROOF_MAX; length++) {
                CU_ASSERT_NOT_EQUAL(merkle_verify_inclusion(numbers[i], numbers[j], &some, proof,
                                                            length, &other, &err),
                                    0);
                CU_ASSERT_NOT_EQUAL(merkle_verify_consistency(numbers[i], numbers[j], &some, &other,
                                                              proof, length, &err),
                                    0);
            }
    size_t length = 0;
    CU_ASSERT_NOT_EQUAL(merkle_prove_inclusion(5, 5, read_uniform, NULL, proof, &length, &err), 0);
    CU_ASSERT_NOT_EQUAL(
        merkle_prove_inclusion(0, UINT64_MAX, read_uniform, NULL, proof, &length, &err), 0);
    CU_ASSERT_NOT_EQUAL(merkle_prove_consistency(6, 5, read_uniform, NULL, proof, &length, &err),
                        0);
    CU_ASSERT_NOT_EQUAL(
        merkle_prove_consistency(3, UINT64_MAX, read_uniform, NULL, proof, &length, &err), 0);
}

static int read_nothing(void *context, unsigned level, uint64_t index, struct merkle_hash *hash,
                        struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE, "no such hash");
}

static void test_read_errors(void)
{
    struct merkle_hash proof[MERKLE_PROOF_MAX];
    struct merkle_edge edge;
    size_t length = 0;
    struct error err = {.code = ERROR_OK};
    CU_ASSERT_EQUAL(merkle_prove_inclusion(3, 7, read_nothing, NULL, proof, &length, &err), -1);
    CU_ASSERT_STRING_EQUAL(err.message, "no such hash");
    CU_ASSERT_EQUAL(merkle_prove_consistency(3, 7, read_nothing, NULL, proof, &length, NULL), -1);
    CU_ASSERT_EQUAL(merkle_edge_read(7, read_nothing, NULL, &edge, NULL), -1);
    CU_ASSERT_EQUAL(merkle_edge_read(0, read_nothing, NULL, &edge, NULL), 0);
}

// Over the ends of SHA-256's blocks; libsodium's is another implementation.
static void test_leaves_of_each_length(void)
{
    uint8_t bytes[300 + MERKLE_PADDING];
    struct merkle_hash expected;
    for (size_t length = 1; length <= 300; length++) {
        memset(bytes, 0xa5, sizeof(bytes));
        bytes[0] = 0;
        for (size_t i = 1; i < length; i++)
            bytes[i] = (uint8_t)(i * length);
        crypto_hash_sha256(expected.bytes, bytes, length);
        struct merkle_hash leaf = merkle_leaf(bytes + 1, length - 1);
        CU_ASSERT(same(&leaf, &expected));
        leaf = merkle_leaf_in_place(bytes, length);
        CU_ASSERT(same(&leaf, &expected));
        CU_ASSERT(length + MERKLE_PADDING >= sizeof(bytes) ||
                  bytes[length + MERKLE_PADDING] == 0xa5);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"roots of the reference tree", test_reference_roots},
        {"proofs of the reference tree", test_reference_proofs},
        {"leaves of each length", test_leaves_of_each_length},
        {"edges are those of the definition", test_edges},
        {"inclusion proofs of all small trees", test_inclusion_exhaustively},
        {"consistency proofs of all small trees", test_consistency_exhaustively},
        {"trees of up to 2^63 leaves", test_huge_trees},
        {"hostile sizes and indices are refused", test_hostile_numbers},
        {"errors of the reader are handed on", test_read_errors},
        CU_TEST_INFO_NULL,
    };
    return tap_run("merkle", tests);
}
