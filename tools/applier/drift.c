// SPDX-License-Identifier: Apache-2.0
// Compares log, bundles and interface, peer by peer.
#include "drift.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "plan.h"

#define KEY_TEXT sodium_base64_ENCODED_LEN(DEVICE_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)

const char *drift_kind_name(enum drift_kind kind)
{
    static const char *const names[DRIFT_KINDS] = {
        [DRIFT_NO_KEY] = "no-key",           [DRIFT_OWN_KEY] = "own-key",
        [DRIFT_OWN_BUNDLE] = "own-bundle",   [DRIFT_PEER_MISSING] = "peer-missing",
        [DRIFT_GENERATION] = "generation",   [DRIFT_ALLOWED_IPS] = "allowed-ips",
        [DRIFT_KEEPALIVE] = "keepalive",     [DRIFT_PRESHARED] = "preshared-key",
        [DRIFT_RETIRED] = "retired",         [DRIFT_STALE_STAGED] = "staged",
        [DRIFT_TAKEN] = "allowed-ips-taken", [DRIFT_UNMANAGED] = "unmanaged",
    };
    return (unsigned)kind < DRIFT_KINDS ? names[kind] : "unknown";
}

// ---- collecting ----

static const char *base64(const uint8_t key[DEVICE_KEY_SIZE], char text[KEY_TEXT])
{
    return sodium_bin2base64(text, KEY_TEXT, key, DEVICE_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL);
}

// NULL when there is no more room.
static struct drift_finding *add(struct drift *drift, enum drift_kind kind,
                                 const struct setup_peer *peer, const uint8_t *public_key,
                                 uint64_t generation)
{
    static const bool by_others[DRIFT_KINDS] = {
        [DRIFT_OWN_BUNDLE] = true, [DRIFT_GENERATION] = true,   [DRIFT_PRESHARED] = true,
        [DRIFT_UNMANAGED] = true,  [DRIFT_STALE_STAGED] = true,
    };
    if (drift->count == DRIFT_MAX) {
        drift->cut = true;
        return NULL;
    }
    struct drift_finding *finding = &drift->items[drift->count++];
    *finding = (struct drift_finding){.kind = kind,
                                      .drift = kind != DRIFT_UNMANAGED,
                                      .repairable = !by_others[kind],
                                      .host = peer != NULL ? peer->host : NULL,
                                      .peer_key = peer != NULL ? peer->key : NULL,
                                      .generation = generation,
                                      .has_public_key = public_key != NULL};
    if (public_key != NULL)
        memcpy(finding->public_key, public_key, DEVICE_KEY_SIZE);
    return finding;
}

__attribute__((format(printf, 2, 3))) static void say(struct drift_finding *finding,
                                                      const char *format, ...)
{
    va_list arguments;
    if (finding == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(finding->words, sizeof finding->words, format, arguments);
    va_end(arguments);
}

// ---- our own key ----

static bool is_key(const struct custody_key *key, const uint8_t public_key[DEVICE_KEY_SIZE])
{
    return key != NULL && sodium_memcmp(key->public_key, public_key, DEVICE_KEY_SIZE) == 0;
}

static void compare_own_key(const struct drift_in *in, struct drift *drift)
{
    const struct custody_key *active = plan_in_state(in->view, CUSTODY_KEY_ACTIVE);
    const struct custody_key *next = plan_in_state(in->view, CUSTODY_KEY_PRE_ACTIVE);
    const uint8_t *there = in->device->public_key;
    char has[KEY_TEXT], should[KEY_TEXT];
    bool rotating = next != NULL && next->generation == in->view->rotation_generation;
    if (active == NULL || is_key(active, there) || (rotating && is_key(next, there)))
        return;
    if (sodium_is_zero(there, DEVICE_KEY_SIZE)) {
        say(add(drift, DRIFT_NO_KEY, NULL, NULL, active->generation),
            "the interface has no private key; the log says generation %" PRIu64 ", public key %s",
            active->generation, base64(active->public_key, should));
        return;
    }
    say(add(drift, DRIFT_OWN_KEY, NULL, there, active->generation),
        "the interface has the private key of %s; the log says generation %" PRIu64
        ", public key %s",
        base64(there, has), active->generation, base64(active->public_key, should));
}

static void compare_own_bundle(const struct drift_in *in, struct drift *drift)
{
    const struct custody_key *active = plan_in_state(in->view, CUSTODY_KEY_ACTIVE);
    uint64_t published = in->view->bundle_generation;
    // While a rotation is open the next generation's bundle is the latest; of one that ended badly
    // the withdrawal is.
    if (active == NULL || published == 0 || in->view->rotation_generation != 0 ||
        (published == active->generation && in->view->bundle_state == CUSTODY_BUNDLE_ACTIVE) ||
        (published > active->generation && in->view->bundle_state == CUSTODY_BUNDLE_DESTROYED) ||
        (published != active->generation && in->view->bundle_state == CUSTODY_BUNDLE_COMPROMISED))
        return;
    say(add(drift, DRIFT_OWN_BUNDLE, NULL, NULL, active->generation),
        "generation %" PRIu64 " is active, but the bundle that was published last is of generation "
        "%" PRIu64 " and says something else: counterparts are told the wrong key",
        active->generation, published);
}

// ---- a counterpart ----

static bool has_prefix(const struct device_peer *peer, const struct setup_prefix *prefix)
{
    for (size_t i = 0; i < peer->allowed_count; i++) {
        const struct device_allowed_ip *allowed = &peer->allowed_ips[i];
        if (allowed->family == prefix->address.family && allowed->cidr == prefix->bits &&
            memcmp(allowed->address, prefix->address.bytes, allowed->family == AF_INET6 ? 16 : 4) ==
                0)
            return true;
    }
    return false;
}

static size_t prefixes_of(const struct device_peer *peer, const struct setup_peer *setup)
{
    size_t count = 0;
    for (size_t i = 0; i < setup->allowed_ip_count; i++)
        count += has_prefix(peer, &setup->allowed_ips[i]) ? 1 : 0;
    return count;
}

static void compare_peer(const struct drift_in *in, size_t index,
                         const struct custody_peer *current, struct drift *drift)
{
    const struct setup_peer *setup = &in->setup->peers[index];
    const struct device_peer *there = device_view_peer(in->device, current->public_key);
    const uint8_t *key = current->public_key;
    uint64_t generation = current->generation;
    char text[KEY_TEXT];
    if (there == NULL) {
        say(add(drift, DRIFT_PEER_MISSING, setup, key, generation),
            "%s generation %" PRIu64 ", public key %s, is no peer of the interface", setup->host,
            generation, base64(key, text));
        return;
    }
    if (prefixes_of(there, setup) != setup->allowed_ip_count ||
        there->allowed_count != setup->allowed_ip_count)
        say(add(drift, DRIFT_ALLOWED_IPS, setup, key, generation),
            "%s's peer %s has %zu of its %zu allowed-ips, and %zu that are not configured",
            setup->host, base64(key, text), prefixes_of(there, setup), setup->allowed_ip_count,
            there->allowed_count - prefixes_of(there, setup));
    if (there->keepalive != setup->keepalive_s)
        say(add(drift, DRIFT_KEEPALIVE, setup, key, generation),
            "%s's peer %s has keepalive %u, configured is %u", setup->host, base64(key, text),
            (unsigned)there->keepalive, (unsigned)setup->keepalive_s);
    enum drift_preshared wanted = in->peers[index].preshared;
    if (wanted != DRIFT_PRESHARED_ANY && there->has_preshared != (wanted == DRIFT_PRESHARED_ONE))
        say(add(drift, DRIFT_PRESHARED, setup, key, generation),
            "%s's peer %s has %s preshared key", setup->host, base64(key, text),
            there->has_preshared ? "a" : "no");
}

static void compare_generation(const struct drift_in *in, size_t index,
                               const struct custody_peer *current, struct drift *drift)
{
    const struct setup_peer *setup = &in->setup->peers[index];
    const struct counterpart_says *says = in->peers[index].says;
    char text[KEY_TEXT];
    if (says == NULL || !says->has_active)
        return;
    if (current == NULL)
        say(add(drift, DRIFT_GENERATION, setup, says->active.public_key, says->active.generation),
            "%s's bundle says that generation %" PRIu64 ", public key %s, is active; the log knows "
            "no key of it yet",
            setup->host, says->active.generation, base64(says->active.public_key, text));
    else if (says->active.generation > current->generation)
        say(add(drift, DRIFT_GENERATION, setup, says->active.public_key, says->active.generation),
            "%s's bundle says that generation %" PRIu64 " is active; the log moved to generation "
            "%" PRIu64 " last",
            setup->host, says->active.generation, current->generation);
}

static bool was_withdrawn(const struct counterpart_says *says, uint64_t generation)
{
    for (size_t i = 0; says != NULL && i < says->ended_count; i++)
        if (says->ended[i].generation == generation)
            return true;
    return false;
}

// Since when a generation without the allowed-ips waits to go: it was staged, or moved away from.
static int64_t waits_since(const struct drift_in *in, const struct setup_peer *setup,
                           const struct custody_peer *peer)
{
    const struct custody_peer *current = plan_current(in->view, setup->host, setup->key);
    int64_t since = peer->moved_us > peer->staged_us ? peer->moved_us : peer->staged_us;
    if (peer->moved_us != 0 && current != NULL && current->moved_us > since)
        since = current->moved_us;
    return since;
}

// A generation of the log that should not be a peer (any more).
static void compare_left_over(const struct drift_in *in, size_t index,
                              const struct custody_peer *peer, struct drift *drift)
{
    const struct setup_peer *setup = &in->setup->peers[index];
    const struct counterpart_says *says = in->peers[index].says;
    bool wanted =
        says != NULL && says->has_pre_active && says->pre_active.generation == peer->generation;
    char text[KEY_TEXT];
    if (device_view_peer(in->device, peer->public_key) == NULL)
        return;
    base64(peer->public_key, text);
    if (peer->state == CUSTODY_PEER_RETIRED)
        say(add(drift, DRIFT_RETIRED, setup, peer->public_key, peer->generation),
            "%s generation %" PRIu64 ", public key %s, was retired, and is a peer all the same",
            setup->host, peer->generation, text);
    else if (was_withdrawn(says, peer->generation))
        say(add(drift, DRIFT_RETIRED, setup, peer->public_key, peer->generation),
            "%s has withdrawn generation %" PRIu64 ", public key %s, which still is a peer",
            setup->host, peer->generation, text);
    else if (peer->state == CUSTODY_PEER_STAGED && says != NULL && !wanted &&
             in->now_us > waits_since(in, setup, peer) + in->grace_us)
        say(add(drift, DRIFT_STALE_STAGED, setup, peer->public_key, peer->generation),
            "%s generation %" PRIu64
            ", public key %s, is a peer without allowed-ips longer than the grace period",
            setup->host, peer->generation, text);
}

static void compare_counterpart(const struct drift_in *in, size_t index, struct drift *drift)
{
    const struct setup_peer *setup = &in->setup->peers[index];
    const struct custody_peer *current = plan_current(in->view, setup->host, setup->key);
    compare_generation(in, index, current, drift);
    if (current != NULL)
        compare_peer(in, index, current, drift);
    struct known_peers known = known_peers(in->view, setup->host, setup->key);
    for (size_t i = 0; i < known.count; i++)
        if (&known.first[i] != current)
            compare_left_over(in, index, &known.first[i], drift);
}

// ---- peers that nobody knows ----

// Marks those of the device's peers whose public key somebody names.
static void mark(const struct device_view *device, bool *known,
                 const uint8_t public_key[DEVICE_KEY_SIZE])
{
    const struct device_peer *peer = device_view_peer(device, public_key);
    if (peer != NULL)
        known[peer - device->peers] = true;
}

// For each of the device's peers whether it is known. NULL: no memory.
static bool *find_known(const struct drift_in *in)
{
    bool *known = calloc(in->device->peer_count + 1, sizeof *known);
    for (size_t i = 0; known != NULL && i < in->view->peer_count; i++)
        mark(in->device, known, in->view->peers[i].public_key);
    // What a bundle names is about to be staged or moved to.
    for (size_t i = 0; known != NULL && i < in->setup->peer_count; i++) {
        const struct counterpart_says *says = in->peers[i].says;
        if (says != NULL && says->has_active)
            mark(in->device, known, says->active.public_key);
        if (says != NULL && says->has_pre_active)
            mark(in->device, known, says->pre_active.public_key);
    }
    return known;
}

static void compare_unknown(const struct drift_in *in, const struct device_peer *peer,
                            struct drift *drift)
{
    const struct setup_peer *robbed = NULL;
    char text[KEY_TEXT];
    for (size_t i = 0; i < in->setup->peer_count && robbed == NULL; i++)
        if (prefixes_of(peer, &in->setup->peers[i]) > 0)
            robbed = &in->setup->peers[i];
    base64(peer->public_key, text);
    if (robbed != NULL) {
        bool known = plan_current(in->view, robbed->host, robbed->key) != NULL;
        struct drift_finding *finding = add(drift, DRIFT_TAKEN, robbed, peer->public_key, 0);
        if (finding != NULL)
            finding->repairable = known;
        say(finding, "peer %s, which nobody manages, has allowed-ips of %s%s", text, robbed->host,
            known ? "" : ", of which the log knows no key yet");
        return;
    }
    say(add(drift, DRIFT_UNMANAGED, NULL, peer->public_key, 0), "peer %s is managed by nobody",
        text);
}

static void compare_all_unknown(const struct drift_in *in, struct drift *drift)
{
    bool *known = find_known(in);
    // (No memory: this time none is looked at, and so none is said to be gone.)
    drift->cut |= known == NULL;
    for (size_t i = 0; known != NULL && i < in->device->peer_count && !drift->cut; i++)
        if (!known[i])
            compare_unknown(in, &in->device->peers[i], drift);
    free(known);
}

void drift_compare(const struct drift_in *in, struct drift *drift)
{
    memset(drift, 0, sizeof *drift);
    compare_own_key(in, drift);
    compare_own_bundle(in, drift);
    for (size_t i = 0; i < in->setup->peer_count; i++)
        compare_counterpart(in, i, drift);
    compare_all_unknown(in, drift);
}

// ---- findings ----

bool drift_same(const struct drift_finding *a, const struct drift_finding *b)
{
    return a->kind == b->kind && a->has_public_key == b->has_public_key &&
           (a->host == NULL) == (b->host == NULL) &&
           (a->host == NULL ||
            (strcmp(a->host, b->host) == 0 && strcmp(a->peer_key, b->peer_key) == 0)) &&
           memcmp(a->public_key, b->public_key, DEVICE_KEY_SIZE) == 0;
}

size_t drift_count(const struct drift *drift)
{
    size_t count = 0;
    for (size_t i = 0; i < drift->count; i++)
        count += drift->items[i].drift ? 1 : 0;
    return count;
}
