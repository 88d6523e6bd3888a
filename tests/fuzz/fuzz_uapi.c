// SPDX-License-Identifier: Apache-2.0
// Fuzzes the answers of a userspace WireGuard: however they are cut they mean the same, and the key
// is the one in them.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "tools/applier/uapi.h"

// Feeds the answer in pieces of `piece` bytes until it ends or is refused.
static int take_in_pieces(struct uapi_answer *answer, const char *bytes, size_t length,
                          size_t piece, struct error *err)
{
    int got = 0;
    for (size_t at = 0; at < length && got >= 0; at += piece)
        got = uapi_answer_take(answer, bytes + at, length - at < piece ? length - at : piece, err);
    return got;
}

// The device's private key, read a second way: the first line of its kind.
static bool find_private_key(const char *bytes, size_t length, uint8_t key[DEVICE_KEY_SIZE])
{
    static const char name[] = "private_key=";
    size_t size = 0;
    const char *at = bytes;
    while (at != NULL && strncmp(at, name, sizeof(name) - 1) != 0) {
        at = memchr(at, '\n', length - (size_t)(at - bytes));
        at = at != NULL && at + 1 < bytes + length ? at + 1 : NULL;
    }
    return at != NULL && sodium_hex2bin(key, DEVICE_KEY_SIZE, at + sizeof(name) - 1,
                                        2 * DEVICE_KEY_SIZE, NULL, &size, NULL) == 0;
}

static void require_public_key(const struct uapi_answer *answer, const char *bytes, size_t length)
{
    uint8_t private_key[DEVICE_KEY_SIZE], expected[DEVICE_KEY_SIZE] = {0};
    uint8_t public_key[DEVICE_KEY_SIZE];
    if (uapi_answer_public_key(answer, public_key, NULL) != 0)
        return;
    if (find_private_key(bytes, length, private_key) &&
        !sodium_is_zero(private_key, sizeof(private_key)))
        REQUIRE(crypto_scalarmult_base(expected, private_key) == 0);
    REQUIRE(memcmp(public_key, expected, sizeof(expected)) == 0);
}

static void fuzz_answer(const char *bytes, size_t length, size_t piece)
{
    struct uapi_answer *whole = uapi_answer_new(), *cut = uapi_answer_new();
    struct error err = {.code = ERROR_OK};
    if (whole == NULL || cut == NULL)
        abort();
    int got = uapi_answer_take(whole, bytes, length, &err);
    if (got < 0)
        fuzz_require_refusal(&err);
    REQUIRE(take_in_pieces(cut, bytes, length, piece, &err) == got);
    if (got == 1) {
        REQUIRE(length >= 2 && memcmp(bytes + length - 2, "\n\n", 2) == 0);
        REQUIRE(uapi_answer_errno(whole) >= 0 && uapi_answer_errno(whole) <= 4095);
        REQUIRE(uapi_answer_errno(whole) == uapi_answer_errno(cut));
        require_public_key(whole, bytes, length);
        require_public_key(cut, bytes, length);
        REQUIRE(uapi_answer_take(whole, "x", 1, NULL) < 0);
    }
    uapi_answer_free(whole);
    uapi_answer_free(cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // NUL-terminated for the second reading alone.
    char *bytes = malloc(size + 1);
    if (bytes == NULL)
        abort();
    memcpy(bytes, data, size);
    bytes[size] = '\0';
    fuzz_answer(bytes, size, 1 + fuzz_hash(data, size) % 97);
    free(bytes);
    return 0;
}
