// SPDX-License-Identifier: Apache-2.0
// A counterpart's generations as our log tells of them, out of a view of many counterparts.
#ifndef APPLIER_KNOWN_PEERS_H
#define APPLIER_KNOWN_PEERS_H

#include <stddef.h>
#include <stdint.h>

#include "custody.h"

// They stand together in the view, by number; live as long as it does.
struct known_peers {
    const struct custody_peer *first;
    size_t count;
};

struct known_peers known_peers(const struct custody_view *view, const char *host, const char *key);
// One of them; NULL: it is not known.
const struct custody_peer *known_peers_find(struct known_peers known, uint64_t generation);
// The one that has the allowed-ips; NULL: none.
const struct custody_peer *known_peers_current(struct known_peers known);

#endif
