// SPDX-License-Identifier: Apache-2.0
// The four records by which operators accept that the log lacks what the token remembers, judged
// from the records, the token's head and the pinned keys alone.
#ifndef PKCS11_LOSS_H
#define PKCS11_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "operators.h"

// A size and a root: what approvals of a loss are about.
struct loss_head {
    uint64_t size;
    struct merkle_hash root;
};

struct loss {
    struct loss_head remembered;       // custody-head's; an empty tree's where there is none
    struct loss_head found;            // of the lines that are there
    const struct operators *operators; // whose signatures count
    bool by_uid;                       // two uids do without: the weaker mode
};

// Whether the batch is approval.requested, approval.given, approval.given and log.loss-accepted,
// for just these two heads, approved by two different operators.
int loss_check(const struct loss *loss, const struct keeper_entry *entries, uint32_t count,
               struct error *err);

#endif
