// SPDX-License-Identifier: Apache-2.0
// Finds a counterpart in a view, whose peers are ordered by host, key and number.
#include "known_peers.h"

#include <string.h>

static int compare(const struct custody_peer *peer, const char *host, const char *key)
{
    int order = strcmp(peer->host, host);
    return order != 0 ? order : strcmp(peer->key, key);
}

struct known_peers known_peers(const struct custody_view *view, const char *host, const char *key)
{
    size_t low = 0, high = view->peer_count, count = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&view->peers[middle], host, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    while (low + count < view->peer_count && compare(&view->peers[low + count], host, key) == 0)
        count++;
    return (struct known_peers){count > 0 ? &view->peers[low] : NULL, count};
}

const struct custody_peer *known_peers_find(struct known_peers known, uint64_t generation)
{
    for (size_t i = 0; i < known.count; i++)
        if (known.first[i].generation == generation)
            return &known.first[i];
    return NULL;
}

const struct custody_peer *known_peers_current(struct known_peers known)
{
    for (size_t i = 0; i < known.count; i++)
        if (known.first[i].state == CUSTODY_PEER_MOVED)
            return &known.first[i];
    return NULL;
}
