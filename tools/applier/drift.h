// SPDX-License-Identifier: Apache-2.0
// Drift: where the log, the signed bundles and the interface do not say the same. A pure
// comparison; whoever asks decides what is done about it.
#ifndef APPLIER_DRIFT_H
#define APPLIER_DRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counterpart.h"
#include "custody.h"
#include "device_view.h"
#include "setup.h"

enum drift_kind {
    DRIFT_NO_KEY,       // the interface has no private key
    DRIFT_OWN_KEY,      // … or another than the active generation's
    DRIFT_OWN_BUNDLE,   // what was published last is not the key's state
    DRIFT_PEER_MISSING, // the generation that has the allowed-ips by the log is no peer
    DRIFT_GENERATION,   // the counterpart's active bundle names another than the log
    DRIFT_ALLOWED_IPS,  // the peer has others than are configured
    DRIFT_KEEPALIVE,    // …
    DRIFT_PRESHARED,    // it has a preshared key, or none, where the opposite is wanted
    DRIFT_RETIRED,      // a generation that was retired or withdrawn is a peer
    DRIFT_STALE_STAGED, // a staged generation is past its grace
    DRIFT_TAKEN,        // a peer that nobody manages has allowed-ips of a configured counterpart
    DRIFT_UNMANAGED,    // a peer that nobody manages: told, and no drift
    DRIFT_KINDS
};

// "own-key", "peer-missing", ...; for scripts.
const char *drift_kind_name(enum drift_kind kind);

#define DRIFT_WORDS_MAX 319 // bytes, without the NUL

struct drift_finding {
    enum drift_kind kind;
    bool drift;           // false: told only
    bool repairable;      // by what this host can do to its own interface
    const char *host;     // the counterpart's and its key's name, of the setup; NULL: about our own
    const char *peer_key; // key, or about nobody's
    uint64_t generation;  // of the key that should be there, or should not; 0: none
    bool has_public_key;  // that is there, or is missing
    uint8_t public_key[DEVICE_KEY_SIZE];
    char words[DRIFT_WORDS_MAX + 1]; // for people
};

#define DRIFT_MAX 64

struct drift {
    struct drift_finding items[DRIFT_MAX];
    size_t count;
    bool cut; // there is more
};

// Whether a counterpart's peer is to have a preshared key.
enum drift_preshared {
    DRIFT_PRESHARED_ANY, // not known, or none of ours: not looked at
    DRIFT_PRESHARED_NONE,
    DRIFT_PRESHARED_ONE,
};

struct drift_peer {
    const struct counterpart_says *says; // NULL: the registry was not looked at
    enum drift_preshared preshared;
};

struct drift_in {
    const struct setup_interface *setup;
    const struct custody_view *view;
    const struct device_view *device;
    const struct drift_peer *peers; // one for each of setup->peers
    int64_t grace_us, now_us;
};

// `*drift` is filled; of its findings, strings point into `in->setup`.
void drift_compare(const struct drift_in *in, struct drift *drift);

// Whether both are about the same thing: what was told once is not told again.
bool drift_same(const struct drift_finding *a, const struct drift_finding *b);
// How many of them are drift.
size_t drift_count(const struct drift *drift);

#endif
