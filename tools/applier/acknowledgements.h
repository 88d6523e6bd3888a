// SPDX-License-Identifier: Apache-2.0
// Which counterparts have acknowledged a generation of our key, by signed notes in the registry.
#ifndef APPLIER_ACKNOWLEDGEMENTS_H
#define APPLIER_ACKNOWLEDGEMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "acknowledgement.h"
#include "refusal.h"
#include "registry.h"
#include "trust.h"

struct acknowledgements; // opaque: of one counterpart, what was verified and what was refused

// Of counterpart `host`, whose key is `key`. NULL when out of memory; else for
// acknowledgements_free.
struct acknowledgements *acknowledgements_new(const char *host, const char *key);
void acknowledgements_free(struct acknowledgements *acknowledgements);

// What is to be acknowledged.
struct acknowledgements_own {
    const char *host, *key;
    uint64_t generation;
    const uint8_t *public_key; // RECORD_KEY_SIZE bytes
    int64_t now_us;
    int64_t tolerance_us; // that clocks may differ
};

// The judgement of a verified note alone: 0, or the kind of refusal with the words in `message`
// (REFUSAL_MESSAGE_MAX bytes). `newest` is what was accepted before, or NULL.
int acknowledgements_judge(const struct acknowledgement *ack, const char *host, const char *key,
                           const struct acknowledgements_own *own,
                           const struct acknowledgement *newest, char *message);

// Looks for the counterpart's acknowledgement: `*ack` is the newest that was ever seen of this
// generation and public key, its state PEER_NONE when there is none. -1 only when the registry is
// gone; `*ack` is filled all the same.
int acknowledgements_look(struct acknowledgements *acknowledgements, struct registry *registry,
                          const struct trust *trust, const struct acknowledgements_own *own,
                          struct acknowledgement *ack, struct error *err);
// Those of the last look. Valid until the next look.
const struct refusals *acknowledgements_refusals(const struct acknowledgements *acknowledgements);

#endif
