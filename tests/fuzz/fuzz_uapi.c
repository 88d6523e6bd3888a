// SPDX-License-Identifier: Apache-2.0
// Fuzzes the answers of a userspace WireGuard: however they are cut they mean the same, and the key
// is the one in them.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "tools/applier/uapi.h"
#include "tools/applier/uapi_peers.h"

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

// ---- peers ----

// A view's peer as the change that would make it.
static struct device_peer_change as_change(const struct device_peer *peer, const uint8_t *preshared)
{
    struct device_peer_change change = {.set_endpoint = peer->has_endpoint,
                                        .endpoint = peer->endpoint,
                                        .set_keepalive = true,
                                        .keepalive = peer->keepalive,
                                        .preshared = peer->has_preshared ? preshared : NULL,
                                        .allowed_ips = peer->allowed_ips,
                                        .allowed_count = peer->allowed_count};
    memcpy(change.public_key, peer->public_key, DEVICE_KEY_SIZE);
    return change;
}

static int read_view(const char *bytes, size_t length, struct device_view *view, struct error *err)
{
    struct uapi_answer *answer = uapi_answer_new();
    struct uapi_view into = {
        .view = view, .wanted = preshared_new(1), .key = sodium_malloc(DEVICE_KEY_SIZE)};
    if (answer == NULL || into.wanted == NULL || into.key == NULL)
        abort();
    preshared_want(into.wanted, (const uint8_t[DEVICE_KEY_SIZE]){0});
    preshared_ready(into.wanted);
    uapi_answer_tell(answer, uapi_read_view, &into);
    int got = uapi_answer_take(answer, bytes, length, err);
    preshared_free(into.wanted);
    sodium_free(into.key);
    uapi_answer_free(answer);
    return got;
}

// The request that makes what was read, read as an answer, is the same again.
static void require_round_trip(const struct device_view *view)
{
    static const char begin[] = "set=1\n", end[] = "errno=0\n\n";
    const uint8_t preshared[DEVICE_KEY_SIZE] = {1};
    struct device_peer_change *peers = calloc(view->peer_count + 1, sizeof *peers);
    struct device_view *again = device_view_new();
    struct device_change change = {.peers = peers, .peer_count = view->peer_count};
    for (size_t i = 0; peers != NULL && i < view->peer_count; i++)
        peers[i] = as_change(&view->peers[i], preshared);
    size_t size = uapi_change_size(&change);
    char *text = malloc(size + sizeof end);
    if (peers == NULL || again == NULL || text == NULL)
        abort();
    size_t length = uapi_put_change(text, size, &change);
    REQUIRE(length < size && strncmp(text, begin, sizeof begin - 1) == 0 &&
            text[length - 1] == '\n');
    memcpy(text + length - 1, end, sizeof end);
    REQUIRE(read_view(text + sizeof begin - 1, strlen(text) - (sizeof begin - 1), again, NULL) ==
            1);
    REQUIRE(again->peer_count == view->peer_count);
    for (size_t i = 0; i < view->peer_count; i++) {
        const struct device_peer *a = &view->peers[i], *b = &again->peers[i];
        REQUIRE(memcmp(a->public_key, b->public_key, DEVICE_KEY_SIZE) == 0);
        REQUIRE(a->keepalive == b->keepalive && a->has_preshared == b->has_preshared);
        REQUIRE(a->has_endpoint == b->has_endpoint);
        REQUIRE(!a->has_endpoint || device_endpoint_equal(&a->endpoint, &b->endpoint));
        REQUIRE(device_allowed_ips_equal(a, b));
    }
    free(text);
    free(peers);
    device_view_free(again);
}

static void fuzz_view(const char *bytes, size_t length)
{
    struct error err = {.code = ERROR_OK};
    struct device_view *view = device_view_new();
    if (view == NULL)
        abort();
    int got = read_view(bytes, length, view, &err);
    if (got < 0)
        fuzz_require_refusal(&err);
    if (got == 1)
        require_round_trip(view);
    device_view_free(view);
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
    fuzz_view(bytes, size);
    free(bytes);
    return 0;
}
