// SPDX-License-Identifier: Apache-2.0
// What one counterpart says of its key by the registry: its bundles and its freshness note, judged
// by what this host's own log knows of it.
#ifndef APPLIER_COUNTERPART_H
#define APPLIER_COUNTERPART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bundle.h"
#include "custody.h"
#include "freshness.h"
#include "refusal.h"
#include "registry.h"
#include "trust.h"

#define COUNTERPART_NOTES_MAX 32 // bundles of one counterpart that are looked at

// A bundle that was verified: its signature is the host's.
struct counterpart_bundle {
    struct bundle bundle;
    char path[REGISTRY_PATH_MAX + 1];
    uint64_t path_generation; // that its path names
    uint8_t digest[REFUSAL_DIGEST_SIZE];
    char text_sha256[65];
};

struct counterpart_ended {
    uint64_t generation;
    uint32_t state; // BUNDLE_COMPROMISED: remove it at once; BUNDLE_DESTROYED: withdrawn
    uint8_t public_key[RECORD_KEY_SIZE];
};

// What is believed.
struct counterpart_says {
    bool has_active, has_pre_active;
    struct bundle active;     // generation not below the current one, unless that was withdrawn
    struct bundle pre_active; // generation above the active one's, not below the current one
    struct counterpart_ended ended[COUNTERPART_NOTES_MAX]; // by generation
    size_t ended_count;
    struct freshness fresh; // the newest that was ever believed; time 0 = none
    bool stale;             // that is older than max-stale, or there is none
    bool withheld;          // it names a bundle that the registry does not show: stage nothing new
};

// How times are judged.
struct counterpart_times {
    int64_t now_us;
    int64_t tolerance_us; // that clocks may differ
    int64_t max_stale_us;
};

// A freshness note that was verified.
struct counterpart_fresh {
    struct freshness freshness;
    char path[REGISTRY_PATH_MAX + 1];
    uint8_t digest[REFUSAL_DIGEST_SIZE];
};

// All that a judgement is made of. Nothing is kept of it.
struct counterpart_evidence {
    const char *host, *key;          // the counterpart's
    const struct custody_view *view; // of our own key: who was staged, moved to, retired
    const struct counterpart_bundle *bundles;
    size_t bundle_count;
    const struct counterpart_fresh *fresh; // NULL = none is there
    const struct freshness *seen;          // the newest that was believed before; NULL = none
    struct counterpart_times times;
};

// The judgement alone: no I/O. What is refused goes to `refusals`.
void counterpart_judge(const struct counterpart_evidence *evidence, struct counterpart_says *says,
                       struct refusals *refusals);

struct counterpart; // opaque: one counterpart, what was verified of it and what was refused

// NULL when out of memory; else for counterpart_free.
struct counterpart *counterpart_new(const char *host, const char *key);
void counterpart_free(struct counterpart *counterpart);

// Reads its notes and judges them. -1 only when the registry is gone (ERROR_UNAVAILABLE): then
// `says` has nothing but the last freshness time and whether that is stale by now.
int counterpart_look(struct counterpart *counterpart, struct registry *registry,
                     const struct trust *trust, const struct custody_view *view,
                     const struct counterpart_times *times, struct counterpart_says *says,
                     struct error *err);
// Those of the last look; those not `told` are for the log. Valid until the next look.
const struct refusals *counterpart_refusals(const struct counterpart *counterpart);
// Signatures checked since the start.
uint64_t counterpart_signatures(const struct counterpart *counterpart);

#endif
