// SPDX-License-Identifier: Apache-2.0
// Holds what was read of a device and its peers.
#include "device_view.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define STACK_OF_HASH 4096 // bytes to wipe after it: libsodium leaves the hashed block there

struct device_view *device_view_new(void)
{
    return calloc(1, sizeof(struct device_view));
}

void device_view_clear(struct device_view *view)
{
    for (size_t i = 0; i < view->peer_count; i++)
        free(view->peers[i].allowed_ips);
    free(view->peers);
    *view = (struct device_view){.peers = NULL};
}

void device_view_free(struct device_view *view)
{
    if (view == NULL)
        return;
    device_view_clear(view);
    free(view);
}

// Makes room for one more in an array of `count`, which grows at powers of two. Returns the array,
// or NULL with the old one untouched.
static void *grow(void *array, size_t count, size_t size)
{
    if (count & (count - 1))
        return array;
    return reallocarray(array, count == 0 ? 1 : 2 * count, size);
}

struct device_peer *device_view_add_peer(struct device_view *view,
                                         const uint8_t public_key[DEVICE_KEY_SIZE])
{
    if (view->peer_count > 0) {
        struct device_peer *last = &view->peers[view->peer_count - 1];
        if (memcmp(last->public_key, public_key, DEVICE_KEY_SIZE) == 0)
            return last;
    }
    struct device_peer *peers = grow(view->peers, view->peer_count, sizeof *peers);
    if (peers == NULL)
        return NULL;
    view->peers = peers;
    struct device_peer *peer = &peers[view->peer_count++];
    memset(peer, 0, sizeof *peer);
    memcpy(peer->public_key, public_key, DEVICE_KEY_SIZE);
    return peer;
}

int device_peer_add_allowed_ip(struct device_peer *peer, const struct device_allowed_ip *allowed,
                               struct error *err)
{
    struct device_allowed_ip *all = grow(peer->allowed_ips, peer->allowed_count, sizeof *all);
    if (all == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for allowed-ips");
    peer->allowed_ips = all;
    all[peer->allowed_count++] = *allowed;
    return 0;
}

// ---- the tag of a preshared key ----

static uint8_t *tag_key; // guarded, crypto_generichash_KEYBYTES, never freed; NULL: no memory

static void make_tag_key(void)
{
    tag_key = sodium_malloc(crypto_generichash_KEYBYTES);
    if (tag_key != NULL)
        randombytes_buf(tag_key, crypto_generichash_KEYBYTES);
}

int device_peer_note_preshared(struct device_peer *peer, const uint8_t preshared[DEVICE_KEY_SIZE],
                               struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    peer->has_preshared = !sodium_is_zero(preshared, DEVICE_KEY_SIZE);
    memset(peer->preshared_tag, 0, sizeof peer->preshared_tag);
    if (!peer->has_preshared)
        return 0;
    pthread_once(&once, make_tag_key);
    if (tag_key == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "no guarded memory for the key of preshared keys' tags");
    int rc = crypto_generichash(peer->preshared_tag, sizeof peer->preshared_tag, preshared,
                                DEVICE_KEY_SIZE, tag_key, crypto_generichash_KEYBYTES);
    sodium_stackzero(STACK_OF_HASH);
    return rc == 0 ? 0 : error_set(err, ERROR_INTERNAL, "a preshared key cannot be hashed");
}

// ---- order and look-up ----

static int compare_peers(const void *a, const void *b)
{
    const struct device_peer *one = a, *other = b;
    return memcmp(one->public_key, other->public_key, DEVICE_KEY_SIZE);
}

int device_view_finish(struct device_view *view, struct error *err)
{
    if (view->peer_count < 2)
        return 0;
    qsort(view->peers, view->peer_count, sizeof *view->peers, compare_peers);
    for (size_t i = 1; i < view->peer_count; i++)
        if (compare_peers(&view->peers[i - 1], &view->peers[i]) == 0)
            return error_set(err, ERROR_DATA_LOSS, "the device told one of its peers twice");
    return 0;
}

const struct device_peer *device_view_peer(const struct device_view *view,
                                           const uint8_t public_key[DEVICE_KEY_SIZE])
{
    struct device_peer wanted;
    if (view->peer_count == 0)
        return NULL;
    memcpy(wanted.public_key, public_key, DEVICE_KEY_SIZE);
    return bsearch(&wanted, view->peers, view->peer_count, sizeof *view->peers, compare_peers);
}

// ---- equality ----

bool device_endpoint_equal(const union device_endpoint *a, const union device_endpoint *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->any.sa_family == AF_INET6 && a->v6.sin6_port == b->v6.sin6_port &&
           a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
           memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

// By family, length of prefix and prefix: an order of what routes the same.
static int compare_allowed_ips(const void *a, const void *b)
{
    const struct device_allowed_ip *one = a, *other = b;
    if (one->family != other->family)
        return one->family < other->family ? -1 : 1;
    if (one->cidr != other->cidr)
        return one->cidr < other->cidr ? -1 : 1;
    size_t whole = one->cidr / 8;
    int order = memcmp(one->address, other->address, whole);
    if (order != 0 || one->cidr % 8 == 0)
        return order;
    return (one->address[whole] >> (8 - one->cidr % 8)) -
           (other->address[whole] >> (8 - one->cidr % 8));
}

bool device_allowed_ip_equal(const struct device_allowed_ip *a, const struct device_allowed_ip *b)
{
    return compare_allowed_ips(a, b) == 0;
}

// A sorted copy, or NULL: no memory.
static struct device_allowed_ip *sorted(const struct device_peer *peer)
{
    struct device_allowed_ip *copy = calloc(peer->allowed_count, sizeof *copy);
    if (copy == NULL)
        return NULL;
    memcpy(copy, peer->allowed_ips, peer->allowed_count * sizeof *copy);
    qsort(copy, peer->allowed_count, sizeof *copy, compare_allowed_ips);
    return copy;
}

bool device_allowed_ips_equal(const struct device_peer *a, const struct device_peer *b)
{
    if (a->allowed_count != b->allowed_count)
        return false;
    if (a->allowed_count == 0)
        return true;
    struct device_allowed_ip *one = sorted(a), *other = sorted(b);
    bool equal = one != NULL && other != NULL;
    for (size_t i = 0; equal && i < a->allowed_count; i++)
        equal = compare_allowed_ips(&one[i], &other[i]) == 0;
    free(one);
    free(other);
    return equal;
}

bool device_has_other_allowed_ips(const struct device_peer *peer,
                                  const struct device_allowed_ip *allowed_ips, size_t count)
{
    for (size_t i = 0; peer != NULL && i < peer->allowed_count; i++) {
        bool found = false;
        for (size_t j = 0; j < count && !found; j++)
            found = device_allowed_ip_equal(&peer->allowed_ips[i], &allowed_ips[j]);
        if (!found)
            return true;
    }
    return false;
}
