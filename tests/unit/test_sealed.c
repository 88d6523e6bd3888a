// SPDX-License-Identifier: Apache-2.0
// Sealed blobs: their encoding, and that every part of a name is bound apart from every other.
#include <string.h>

#include "blobs.h"
#include "sealed.h"
#include "tap.h"

static struct sealed sample(void)
{
    struct sealed sealed = {.suite = SEALED_AES_GCM,
                            .purpose = PURPOSE_WIREGUARD,
                            .kek = 0x01020304,
                            .body_length = 48};
    memset(sealed.iv, 0x11, sizeof(sealed.iv));
    memset(sealed.body, 0x22, 48);
    return sealed;
}

static void test_layout(void)
{
    struct sealed sealed = sample();
    uint8_t blob[SEALED_MAX];
    CU_ASSERT_EQUAL(sealed_encode(&sealed, blob), 72);
    static const uint8_t header[12] = {'C', 'S', 'B', '1', 1, 1, 0, 0, 1, 2, 3, 4};
    CU_ASSERT(memcmp(blob, header, sizeof(header)) == 0);
    CU_ASSERT_EQUAL(blob[12], 0x11);
    CU_ASSERT_EQUAL(blob[23], 0x11);
    CU_ASSERT_EQUAL(blob[24], 0x22);
}

static void test_round_trip(void)
{
    struct sealed sealed = sample(), back;
    uint8_t blob[SEALED_MAX];
    size_t length = sealed_encode(&sealed, blob);
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, length, NULL), 0);
    CU_ASSERT_EQUAL(back.suite, sealed.suite);
    CU_ASSERT_EQUAL(back.purpose, sealed.purpose);
    CU_ASSERT_EQUAL(back.kek, sealed.kek);
    CU_ASSERT_EQUAL(back.body_length, 48);
    CU_ASSERT(memcmp(back.iv, sealed.iv, sizeof(back.iv)) == 0);
    CU_ASSERT(memcmp(back.body, sealed.body, 48) == 0);
}

static void test_damage_is_refused(void)
{
    struct sealed sealed = sample(), back;
    uint8_t blob[SEALED_MAX + 1] = {0};
    size_t length = sealed_encode(&sealed, blob);
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, 0, NULL), -1);
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, 24, NULL), -1);
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, SEALED_MAX + 1, NULL), -1);
    // The magic, the suite, the purpose and the two bytes that are zero.
    for (size_t i = 0; i < 8; i++) {
        blob[i] ^= 0x80;
        CU_ASSERT_EQUAL(sealed_parse(&back, blob, length, NULL), -1);
        blob[i] ^= 0x80;
    }
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, length, NULL), 0);
}

static void test_empty_iv_is_refused(void)
{
    struct sealed sealed = sample(), back;
    struct error err;
    uint8_t blob[SEALED_MAX];
    memset(sealed.iv, 0, sizeof(sealed.iv));
    size_t length = sealed_encode(&sealed, blob);
    CU_ASSERT_EQUAL(sealed_parse(&back, blob, length, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
}

static bool aad_differs(const struct sealed_name *a, const struct sealed_name *b)
{
    uint8_t x[SEALED_AAD_MAX], y[SEALED_AAD_MAX];
    size_t m = sealed_aad(a, SEALED_AES_GCM, 1, x), n = sealed_aad(b, SEALED_AES_GCM, 1, y);
    CU_ASSERT(m > 0 && n > 0);
    return m != n || memcmp(x, y, m) != 0;
}

static void test_every_part_is_bound(void)
{
    const struct sealed_name name = {"alpha", "wg0", 7, PURPOSE_WIREGUARD};
    const struct sealed_name others[] = {
        {"alphb", "wg0", 7, PURPOSE_WIREGUARD}, {"alpha", "wg1", 7, PURPOSE_WIREGUARD},
        {"alpha", "wg0", 8, PURPOSE_WIREGUARD}, {"alpha", "wg0", 7, PURPOSE_PRESHARED},
        {"alphaw", "g0", 7, PURPOSE_WIREGUARD}, // the same letters, cut elsewhere
        {"alph", "awg0", 7, PURPOSE_WIREGUARD},
    };
    CU_ASSERT_FALSE(aad_differs(&name, &name));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        CU_ASSERT_TRUE(aad_differs(&name, &others[i]));
    uint8_t x[SEALED_AAD_MAX], y[SEALED_AAD_MAX];
    size_t m = sealed_aad(&name, SEALED_AES_GCM, 1, x), n = sealed_aad(&name, SEALED_AES_GCM, 2, y);
    CU_ASSERT(m != n || memcmp(x, y, m) != 0);
}

static void test_aad_layout(void)
{
    const struct sealed_name name = {"a", "wg0", 0x0102, PURPOSE_WIREGUARD};
    static const uint8_t expected[] = "CSB1"
                                      "\0\0\0\1a"
                                      "\0\0\0\3wg0"
                                      "\0\0\0\x08\0\0\0\0\0\0\1\2"
                                      "\0\0\0\x08\0\0\0\0\0\0\0\1"
                                      "\0\0\0\7"
                                      "aes-gcm"
                                      "\0\0\0\x08\0\0\0\0\0\0\0\1";
    uint8_t aad[SEALED_AAD_MAX];
    size_t length = sealed_aad(&name, SEALED_AES_GCM, 1, aad);
    CU_ASSERT_EQUAL(length, sizeof(expected) - 1);
    CU_ASSERT(memcmp(aad, expected, sizeof(expected) - 1) == 0);
}

static void test_longest_names_fit(void)
{
    char host[HOST_MAX + 1], key[KEY_MAX + 1];
    memset(host, 'h', HOST_MAX);
    memset(key, 'k', KEY_MAX);
    host[HOST_MAX] = key[KEY_MAX] = '\0';
    const struct sealed_name name = {host, key, UINT64_MAX, PURPOSE_WIREGUARD};
    uint8_t aad[SEALED_AAD_MAX];
    CU_ASSERT(sealed_aad(&name, SEALED_AES_GCM, UINT32_MAX, aad) > 0);
    char longer[400];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    const struct sealed_name beyond = {longer, key, 1, PURPOSE_WIREGUARD};
    CU_ASSERT_EQUAL(sealed_aad(&beyond, SEALED_AES_GCM, 1, aad), 0);
    CU_ASSERT_EQUAL(sealed_aad(&name, SEALED_NONE, 1, aad), 0);
}

static void test_labels(void)
{
    struct blob blob;
    CU_ASSERT_TRUE(blobs_parse_label("custody-key/wg0/18446744073709551615", &blob));
    CU_ASSERT_STRING_EQUAL(blob.key, "wg0");
    CU_ASSERT_EQUAL(blob.generation, UINT64_MAX);
    CU_ASSERT_TRUE(blob.adopted);
    CU_ASSERT_TRUE(blobs_parse_label("custody-new/wg0/1", &blob));
    CU_ASSERT_FALSE(blob.adopted);
    static const char *const others[] = {"",
                                         "custody-head",
                                         "custody-key/",
                                         "custody-key/wg0",
                                         "custody-key//1",
                                         "custody-key/wg0/",
                                         "custody-key/wg0/0",
                                         "custody-key/wg0/01",
                                         "custody-key/wg0/+1",
                                         "custody-key/wg0/-1",
                                         "custody-key/wg0/1x",
                                         "custody-key/wg0/18446744073709551616",
                                         "custody-key/../1",
                                         "custody-key/a b/1",
                                         "Custody-key/wg0/1"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        CU_ASSERT_FALSE(blobs_parse_label(others[i], &blob));
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a blob's layout", test_layout},
        {"a blob parses to what was encoded", test_round_trip},
        {"a damaged blob is refused", test_damage_is_refused},
        {"an empty IV is refused", test_empty_iv_is_refused},
        {"every part of a name is bound", test_every_part_is_bound},
        {"the additional data's layout", test_aad_layout},
        {"the longest names fit, longer ones are refused", test_longest_names_fit},
        {"labels are written in one way", test_labels},
        CU_TEST_INFO_NULL,
    };
    return tap_run("sealed", tests);
}
