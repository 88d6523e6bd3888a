// SPDX-License-Identifier: Apache-2.0
// Carries out the plan for each counterpart, and follows its handshakes.
#include "counterparts.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "drifts.h"
#include "psk.h"

#define INTERVAL_MAX_S 86400
#define LOOKS_MS       200 // that a pass reads notes for
#define MOVED_TIMES    6   // that a move is told,
#define MOVED_AGAIN_MS 8   // doubling from here
#define BUSY_AGAIN_MS  1000
#define HOT_MS         2000 // how long to look closely once asked whether we are ready,
#define LAST_MS        50   // that LAST is waited for, after the handshake
#define BACK_MS        1000 // and after the move: it may be rolled back, and packets wait for that

// ---- addresses ----

union device_endpoint counterparts_endpoint(const struct setup_endpoint *configured)
{
    return setup_socket_address(&configured->address, configured->port);
}

bool counterparts_move_address(const struct tended_peer *peer, union device_endpoint *address)
{
    struct setup_address parsed;
    const struct bundle *bundle = peer->says.has_active       ? &peer->says.active
                                  : peer->says.has_pre_active ? &peer->says.pre_active
                                                              : NULL;
    if (bundle == NULL || bundle->address[0] == '\0' ||
        !setup_parse_address(&parsed, bundle->address))
        return false;
    *address = setup_socket_address(&parsed, (uint16_t)bundle->port);
    return true;
}

const uint8_t *counterparts_key(const struct tended *tended, const struct tended_peer *peer)
{
    const struct custody_peer *current =
        known_peers_current(known_peers(tended->view, peer->setup->host, peer->setup->key));
    return current != NULL ? current->public_key : NULL;
}

// ---- what is told to custodyd ----

static int record(struct tended *tended, const struct tended_peer *peer,
                  enum custody_peer_state state, uint64_t generation, const uint8_t *public_key,
                  const char *move_sha256, const char *detail, char *note, struct error *err)
{
    struct custody_error theirs = {0};
    struct custody_peer_step step = {.key = tended->setup->key,
                                     .state = state,
                                     .peer = peer->setup->host,
                                     .peer_key = peer->setup->key,
                                     .generation = generation,
                                     .public_key = public_key,
                                     .move_sha256 = move_sha256,
                                     .detail = detail};
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_record_peer(tended->world->custody, &step, note, note != NULL ? NOTE_MAX : 0,
                            &theirs) != 0)
        return tended_from_library(tended, &theirs, "recording a step with a counterpart", err);
    return 0;
}

static int put_acknowledgement(struct tended *tended, const struct tended_peer *peer,
                               uint64_t generation, const char *note, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1];
    registry_ack_path(path, peer->setup->host, peer->setup->key, generation,
                      tended->world->own_host, tended->setup->key);
    return registry_put(tended->world->registry, path, note, strlen(note), err);
}

// ---- what is done to the interface ----

static struct device_allowed_ip *make_allowed_ips(const struct setup_peer *setup)
{
    struct device_allowed_ip *allowed = calloc(setup->allowed_ip_count + 1, sizeof *allowed);
    for (size_t i = 0; allowed != NULL && i < setup->allowed_ip_count; i++) {
        allowed[i].family = setup->allowed_ips[i].address.family;
        allowed[i].cidr = setup->allowed_ips[i].bits;
        memcpy(allowed[i].address, setup->allowed_ips[i].address.bytes, sizeof allowed[i].address);
    }
    return allowed;
}

// A counterpart's peer from before custody knew it: it has the allowed-ips that are configured.
static const struct device_peer *find_by_hand(const struct tended *tended,
                                              const struct tended_peer *peer)
{
    for (size_t i = 0; i < tended->there->peer_count; i++)
        if (plan_has_allowed_ips(&tended->there->peers[i], peer->setup))
            return &tended->there->peers[i];
    return NULL;
}

// Whom the new peer takes endpoint and preshared key from: the current one, where it is there; on
// first contact the one that was made by hand.
static const struct device_peer *
find_before(const struct tended *tended, const struct tended_peer *peer, const uint8_t *public_key)
{
    const uint8_t *current = counterparts_key(tended, peer);
    const struct device_peer *before =
        current != NULL ? device_view_peer(tended->there, current) : find_by_hand(tended, peer);
    bool itself =
        before != NULL && sodium_memcmp(before->public_key, public_key, DEVICE_KEY_SIZE) == 0;
    return itself ? NULL : before;
}

// Fills what makes `public_key` a peer, as far as it is not one yet.
static void fill_new_peer(const struct tended *tended, const struct tended_peer *peer,
                          const uint8_t *public_key, struct device_peer_change *change)
{
    const struct setup_endpoint *configured = &peer->setup->endpoint;
    const struct device_peer *before = find_before(tended, peer, public_key);
    memcpy(change->public_key, public_key, DEVICE_KEY_SIZE);
    if (device_view_peer(tended->there, public_key) != NULL)
        return;
    if (before != NULL) {
        change->copy_preshared_from = before->public_key;
        change->set_endpoint = before->has_endpoint;
        change->endpoint = before->endpoint;
    }
    if (!change->set_endpoint && configured->address.family != 0) {
        change->set_endpoint = true;
        change->endpoint = counterparts_endpoint(configured);
    }
}

static int set_peers(struct tended *tended, const struct device_peer_change *changes, size_t count,
                     struct error *err)
{
    struct device_change change = {.peers = changes, .peer_count = count};
    return device_set(tended->device, &change, err);
}

// Gives the allowed-ips to `public_key`, in one request with what goes with that.
static int give_allowed_ips(struct tended *tended, const struct tended_peer *peer,
                            const uint8_t *public_key, struct error *err)
{
    struct device_peer_change changes[2] = {0};
    const struct device_peer *before = find_before(tended, peer, public_key);
    struct device_allowed_ip *allowed = make_allowed_ips(peer->setup);
    if (allowed == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for allowed-ips");
    fill_new_peer(tended, peer, public_key, &changes[0]);
    changes[0].allowed_ips = allowed;
    changes[0].allowed_count = peer->setup->allowed_ip_count;
    changes[0].replace_allowed_ips = device_has_other_allowed_ips(
        device_view_peer(tended->there, public_key), allowed, peer->setup->allowed_ip_count);
    changes[0].set_keepalive = true;
    changes[0].keepalive = (uint16_t)peer->setup->keepalive_s;
    if (before != NULL) {
        memcpy(changes[1].public_key, before->public_key, DEVICE_KEY_SIZE);
        changes[1].update_only = changes[1].set_keepalive = true;
    }
    int rc = set_peers(tended, changes, before != NULL ? 2 : 1, err);
    free(allowed);
    return rc;
}

// ---- the steps ----

static int stage(struct tended *tended, struct tended_peer *peer, const struct plan_step *step,
                 struct error *err)
{
    struct device_peer_change change = {0};
    uint8_t digest[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof digest + 1], note[NOTE_MAX];
    fill_new_peer(tended, peer, step->public_key, &change);
    if (set_peers(tended, &change, 1, err) != 0)
        return -1;
    randombytes_buf(peer->secret, sizeof peer->secret);
    crypto_hash_sha256(digest, peer->secret, sizeof peer->secret);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    if (record(tended, peer, CUSTODY_PEER_STAGED, step->generation, step->public_key, hex, NULL,
               note, err) != 0 ||
        put_acknowledgement(tended, peer, step->generation, note, err) != 0)
        return -1;
    peer->answered_generation = step->generation;
    tended_tell(tended, "%s: generation %" PRIu64 " staged and acknowledged", peer->setup->host,
                step->generation);
    return 0;
}

// Has a move recorded that was made. What cannot be recorded now is, later.
static int record_move(struct tended *tended, struct tended_peer *peer, const char *detail,
                       struct error *err)
{
    if (record(tended, peer, CUSTODY_PEER_MOVED, peer->unrecorded_generation, peer->unrecorded_key,
               NULL, detail, NULL, err) != 0)
        return -1;
    tended_tell(tended, "%s: moved to generation %" PRIu64, peer->setup->host,
                peer->unrecorded_generation);
    peer->unrecorded_generation = 0;
    return 0;
}

// Whether the log must hear that it is staged before it may hear of a move: all but the first key
// of a counterpart.
static bool is_unknown(const struct tended *tended, const struct tended_peer *peer,
                       uint64_t generation)
{
    if (counterparts_key(tended, peer) == NULL)
        return false;
    return known_peers_find(known_peers(tended->view, peer->setup->host, peer->setup->key),
                            generation) == NULL;
}

// The log does not know what was made by hand: it goes when its grace is over, as an old generation
// would. (After a restart it is drift's to tell of.)
static void note_replaced(struct tended *tended, struct tended_peer *peer,
                          const uint8_t *public_key)
{
    const struct device_peer *before = find_before(tended, peer, public_key);
    if (before == NULL || counterparts_key(tended, peer) != NULL)
        return;
    memcpy(peer->replaced, before->public_key, DEVICE_KEY_SIZE);
    peer->replaced_due_us = tended_now_us() + tended_grace_us(tended);
}

static int retire_replaced(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    const struct device_peer *there = device_view_peer(tended->there, peer->replaced);
    struct device_peer_change change = {.remove = true};
    if (peer->replaced_due_us == 0)
        return 0;
    int64_t left_ms = (peer->replaced_due_us - tended_now_us()) / 1000;
    if (left_ms > 0) {
        if (device_now_ms() + left_ms + 1 < tended->due_ms)
            tended->due_ms = device_now_ms() + left_ms + 1;
        return 0;
    }
    memcpy(change.public_key, peer->replaced, DEVICE_KEY_SIZE);
    // Somebody gave it allowed-ips again: then it is theirs.
    if (there != NULL && there->allowed_count == 0 && set_peers(tended, &change, 1, err) != 0)
        return -1;
    peer->replaced_due_us = 0;
    return 0;
}

static int move(struct tended *tended, struct tended_peer *peer, const struct plan_step *step,
                struct error *err)
{
    if (is_unknown(tended, peer, step->generation) && stage(tended, peer, step, err) != 0)
        return -1;
    note_replaced(tended, peer, step->public_key);
    if (give_allowed_ips(tended, peer, step->public_key, err) != 0)
        return -1;
    peer->unrecorded_generation = step->generation;
    memcpy(peer->unrecorded_key, step->public_key, DEVICE_KEY_SIZE);
    return record_move(tended, peer, step->detail, err);
}

static int retire(struct tended *tended, struct tended_peer *peer, const struct plan_step *step,
                  struct error *err)
{
    struct device_peer_change change = {.remove = true};
    char note[NOTE_MAX];
    memcpy(change.public_key, step->public_key, DEVICE_KEY_SIZE);
    if (set_peers(tended, &change, 1, err) != 0 ||
        record(tended, peer, CUSTODY_PEER_RETIRED, step->generation, step->public_key, NULL,
               step->detail, note, err) != 0)
        return -1;
    if (peer->answered_generation == step->generation)
        peer->answered_generation = 0;
    tended_tell(tended, "%s: generation %" PRIu64 " retired: %s", peer->setup->host,
                step->generation, step->detail);
    // Its host waits to hear that a compromised key is gone; of others there is no need to tell.
    return step->compromised ? put_acknowledgement(tended, peer, step->generation, note, err) : 0;
}

// What is put on an interface that was in use before this process says so in the log: somebody took
// it away meanwhile, or the configuration is another now.
static int repair(struct tended *tended, const struct tended_peer *peer, const uint8_t *public_key,
                  struct error *err)
{
    struct drift_finding finding = {
        .kind = DRIFT_ALLOWED_IPS, .host = peer->setup->host, .peer_key = peer->setup->key};
    if (!tended->inherited)
        return give_allowed_ips(tended, peer, public_key, err);
    snprintf(finding.words, sizeof finding.words,
             "%s %s lacked its allowed-ips when the applier took the interface up",
             peer->setup->host, peer->setup->key);
    if (drifts_record(tended, CUSTODY_DRIFT_FOUND, &finding, err) != 0 ||
        give_allowed_ips(tended, peer, public_key, err) != 0)
        return -1;
    return drifts_record(tended, CUSTODY_DRIFT_CLEARED, &finding, err);
}

static int carry_out(struct tended *tended, struct tended_peer *peer, const struct plan_step *step,
                     struct error *err)
{
    switch (step->kind) {
    case PLAN_STAGE:
        return stage(tended, peer, step, err);
    case PLAN_MOVE:
        return move(tended, peer, step, err);
    case PLAN_REPAIR:
        return repair(tended, peer, step->public_key, err);
    case PLAN_RETIRE:
        return retire(tended, peer, step, err);
    }
    return 0;
}

int counterparts_repair(struct tended *tended, const struct tended_peer *peer,
                        const uint8_t *public_key, struct error *err)
{
    return give_allowed_ips(tended, peer, public_key, err);
}

// ---- a pass ----

void counterparts_tell_refusals(struct tended *tended, const struct tended_peer *peer,
                                const struct refusals *refusals)
{
    for (size_t i = 0; i < refusals->count; i++) {
        const struct refusal *refusal = &refusals->items[i];
        char detail[DETAIL_MAX + 1];
        if (refusal->told)
            continue;
        tended->counts.refused[refusal->kind]++;
        snprintf(detail, sizeof detail, "%s: %.100s: %.300s", refusal_kind_name(refusal->kind),
                 refusal->path, refusal->message);
        tended_tell(tended, "%s: a note is refused: %s", peer->setup->host, detail);
        if (tended->world->custody != NULL)
            (void)custody_record_finding(tended->world->custody, tended->setup->key,
                                         CUSTODY_NOTE_REJECTED, peer->setup->host, peer->setup->key,
                                         detail, NULL);
    }
}

static void tell_staleness(struct tended *tended, struct tended_peer *peer)
{
    bool stale = peer->says.stale && peer->says.fresh.time_us != 0;
    if (stale == peer->stale_told)
        return;
    peer->stale_told = stale;
    tended_tell(tended, "%s: its freshness note is %s", peer->setup->host,
                stale ? "too old: nothing new of it is staged" : "fresh again");
    if (tended->world->custody != NULL)
        (void)custody_record_finding(tended->world->custody, tended->setup->key,
                                     stale ? CUSTODY_REGISTRY_STALE : CUSTODY_REGISTRY_FRESH,
                                     peer->setup->host, peer->setup->key, "", NULL);
}

static int read_notes(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    const struct setup *setup = tended->world->setup;
    struct counterpart_times times = {.now_us = tended_now_us(),
                                      .tolerance_us = setup->clock_tolerance_s * INT64_C(1000000),
                                      .max_stale_us = setup->max_stale_s * INT64_C(1000000)};
    return counterpart_look(peer->counterpart, tended->world->registry, tended->world->trust,
                            tended->view, &times, &peer->says, err);
}

static int look_at(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    int rc = read_notes(tended, peer, err);
    counterparts_tell_refusals(tended, peer, counterpart_refusals(peer->counterpart));
    tell_staleness(tended, peer);
    return rc;
}

static void look_soon(struct tended *tended)
{
    int64_t due = device_now_ms() + BUSY_AGAIN_MS;
    if (due < tended->due_ms)
        tended->due_ms = due;
}

int counterparts_read(struct tended *tended, struct error *err)
{
    for (size_t i = 0; i < tended->peer_count; i++) {
        if (read_notes(tended, &tended->peers[i], err) != 0)
            return -1;
        tended->peers[i].look = false;
    }
    return 0;
}

static int tend(struct tended *tended, struct tended_peer *peer, const char **yield,
                struct error *err)
{
    struct plan plan;
    int rc = 0; // what the registry does not say, the log may
    if (peer->look && (rc = look_at(tended, peer, err)) == 0)
        peer->look = false;
    if (peer->unrecorded_generation != 0) {
        // The plan must not undo what the log does not know of.
        tended->dirty = true;
        return record_move(tended, peer, "by its handshake", err);
    }
    struct plan_counterpart in = {.setup = peer->setup,
                                  .says = &peer->says,
                                  .view = tended->view,
                                  .device = tended->there,
                                  .own_host = tended->world->own_host,
                                  .own_key = tended->setup->key,
                                  .own_rotation = tended->view->rotation_generation != 0,
                                  .answered_generation = peer->answered_generation,
                                  .grace_us = tended_grace_us(tended),
                                  .now_us = tended_now_us()};
    plan_for_counterpart(&in, &plan);
    peer->watch = plan.watch;
    if (plan.yield)
        *yield = peer->setup->host;
    size_t done = 0;
    bool whole = true;
    for (size_t i = 0; i < plan.count; i++) {
        whole = whole && plan.steps[i].kind != PLAN_REPAIR;
        // What an interface lost that was whole is drift; what one lacks that is new is put there.
        if (plan.steps[i].kind == PLAN_REPAIR && peer->whole)
            continue;
        // A new key is not acknowledged while the link's ends may have different preshared keys:
        // its host would force a handshake that fails.
        if (plan.steps[i].kind == PLAN_STAGE && psk_is_busy(tended, peer)) {
            look_soon(tended);
            continue;
        }
        if (carry_out(tended, peer, &plan.steps[i], err) != 0)
            return -1;
        done++;
    }
    if (retire_replaced(tended, peer, err) != 0)
        return -1;
    if (whole && plan_current(tended->view, peer->setup->host, peer->setup->key) != NULL)
        peer->whole = true;
    if (plan.due_us != 0) {
        int64_t in_ms = (plan.due_us - in.now_us) / 1000 + 1;
        if (device_now_ms() + in_ms < tended->due_ms)
            tended->due_ms = device_now_ms() + in_ms;
    }
    if (done > 0)
        tended->dirty = true; // see what the log and the interface say now
    return rc;
}

// How far apart handshakes are: an old key must outlive the next one.
static void observe_intervals(struct tended *tended)
{
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        const uint8_t *key = counterparts_key(tended, peer);
        const struct device_peer *there = key != NULL ? device_view_peer(tended->there, key) : NULL;
        int64_t now_s = there != NULL ? there->latest_handshake.tv_sec : 0;
        if (now_s == 0 || now_s == peer->shook_s)
            continue;
        int64_t interval_s = peer->shook_s != 0 ? now_s - peer->shook_s : 0;
        if (interval_s > tended->interval_s)
            tended->interval_s = interval_s < INTERVAL_MAX_S ? interval_s : INTERVAL_MAX_S;
        peer->shook_s = now_s;
    }
}

// Reading the notes of thousands takes its time, in which nobody would be answered: what a pass
// does not get to is the next one's.
int counterparts_tend(struct tended *tended, const char **yield, struct error *err)
{
    observe_intervals(tended);
    int64_t until = device_now_ms() + LOOKS_MS;
    bool left = false;
    int rc = 0;
    *yield = NULL;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct error one;
        if (tended->peers[i].look && device_now_ms() >= until) {
            left = true;
            continue;
        }
        if (tend(tended, &tended->peers[i], yield, rc == 0 ? err : &one) != 0)
            rc = -1;
    }
    if (left && rc == 0)
        tended->due_ms = 0;
    return rc;
}

// ---- following handshakes ----

static struct tended_handshake *find_seen(struct tended_peer *peer, const uint8_t *public_key)
{
    for (size_t i = 0; i < peer->seen_count; i++)
        if (sodium_memcmp(peer->seen[i].public_key, public_key, DEVICE_KEY_SIZE) == 0)
            return &peer->seen[i];
    return NULL;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static bool is_same(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static const struct device_peer *staged_peer(const struct tended *tended,
                                             const struct tended_peer *peer)
{
    return peer->says.has_pre_active
               ? device_view_peer(tended->there, peer->says.pre_active.public_key)
               : NULL;
}

// The generation before the one that is pre-active, as the log has it: what a rolled-back host
// comes back with.
static const struct custody_peer *find_older(const struct tended *tended,
                                             const struct tended_peer *peer)
{
    struct known_peers known = known_peers(tended->view, peer->setup->host, peer->setup->key);
    const struct custody_peer *older = NULL;
    for (size_t i = 0; i < known.count; i++) {
        const struct custody_peer *each = &known.first[i];
        if (each->state != CUSTODY_PEER_RETIRED && each->moved_us != 0 &&
            each->generation < peer->says.pre_active.generation &&
            (older == NULL || each->generation > older->generation))
            older = each;
    }
    return older;
}

// Whether that peer shook hands since it was seen last; notes what is seen now. The first look
// goes by the clock: whether it is later than `other`'s.
static bool shook_hands(struct tended_peer *peer, const struct device_peer *there,
                        const struct device_peer *other)
{
    struct tended_handshake *seen = find_seen(peer, there->public_key);
    if (seen != NULL) {
        bool changed = !is_same(&seen->at, &there->latest_handshake);
        seen->at = there->latest_handshake;
        return changed;
    }
    if (peer->seen_count == TENDED_SEEN_MAX) {
        memmove(peer->seen, peer->seen + 1, sizeof peer->seen - sizeof peer->seen[0]);
        peer->seen_count--;
    }
    seen = &peer->seen[peer->seen_count++];
    memcpy(seen->public_key, there->public_key, DEVICE_KEY_SIZE);
    seen->at = there->latest_handshake;
    return there->latest_handshake.tv_sec != 0 &&
           (other == NULL || is_later(&there->latest_handshake, &other->latest_handshake));
}

static void tell_moved(struct tended *tended, struct tended_peer *peer, uint64_t generation)
{
    peer->moved = (struct move){.kind = MOVE_MOVED, .generation = generation};
    snprintf(peer->moved.host, sizeof peer->moved.host, "%s", peer->setup->host);
    snprintf(peer->moved.key, sizeof peer->moved.key, "%s", peer->setup->key);
    memcpy(peer->moved.bytes, peer->secret, sizeof peer->moved.bytes);
    peer->moved_left = MOVED_TIMES;
    peer->moved_next_ms = device_now_ms();
    (void)counterparts_repeat(tended);
}

// Whether the allowed-ips are, on the interface, that peer's.
static bool owns(const struct tended_peer *peer, const struct device_peer *there)
{
    return there->allowed_count > 0 || peer->setup->allowed_ip_count == 0;
}

static int take_over(struct tended *tended, struct tended_peer *peer, uint64_t generation,
                     const struct device_peer *there, struct error *err)
{
    if (!owns(peer, there)) {
        if (give_allowed_ips(tended, peer, there->public_key, err) != 0)
            return -1;
        peer->unrecorded_generation = generation;
        memcpy(peer->unrecorded_key, there->public_key, DEVICE_KEY_SIZE);
        tended->dirty = true; // the pass after this has it recorded
    }
    if (generation == peer->answered_generation) {
        tell_moved(tended, peer, generation);
        tended->hot_until_ms = device_now_ms() + BACK_MS;
    }
    return 0;
}

// Shook hands under its next key: what it sent under the one before may still be on its way through
// WireGuard, and would be refused once the allowed-ips have moved.
static void await_last(struct tended_peer *peer, uint64_t generation)
{
    peer->arriving_generation = generation;
    peer->arriving_until_ms = device_now_ms() + LAST_MS;
}

static bool has_arrived(const struct tended_peer *peer, uint64_t generation)
{
    if (peer->arriving_generation != generation)
        return false;
    return peer->asked_generation != generation || peer->heard_last ||
           device_now_ms() >= peer->arriving_until_ms;
}

static int follow(struct tended *tended, struct tended_peer *peer, struct error *err)
{
    const struct device_peer *next = staged_peer(tended, peer);
    const struct custody_peer *older = find_older(tended, peer);
    const struct device_peer *before =
        older != NULL ? device_view_peer(tended->there, older->public_key) : NULL;
    if (next == NULL)
        return 0;
    bool forward = shook_hands(peer, next, before);
    bool back = before != NULL && shook_hands(peer, before, next);
    if (forward && (!back || is_later(&next->latest_handshake, &before->latest_handshake)))
        await_last(peer, peer->says.pre_active.generation);
    else if (back)
        peer->arriving_generation = 0;
    if (has_arrived(peer, peer->says.pre_active.generation)) {
        if (take_over(tended, peer, peer->says.pre_active.generation, next, err) != 0)
            return -1; // the next look tries again
        peer->arriving_generation = 0;
        return 0;
    }
    if (back && !owns(peer, before))
        return take_over(tended, peer, older->generation, before, err);
    return 0;
}

int counterparts_follow(struct tended *tended, struct error *err)
{
    int rc = 0;
    for (size_t i = 0; i < tended->peer_count; i++)
        if (tended->peers[i].watch && follow(tended, &tended->peers[i], err) != 0)
            rc = -1;
    return rc;
}

// ---- datagrams ----

static bool is_sender(const struct tended_peer *peer, const struct move *move,
                      const union device_endpoint *from)
{
    union device_endpoint address;
    return strcmp(peer->setup->host, move->host) == 0 && strcmp(peer->setup->key, move->key) == 0 &&
           peer->answered_generation == move->generation &&
           counterparts_move_address(peer, &address) && device_endpoint_equal(&address, from);
}

static void answer(struct tended *tended, struct tended_peer *peer, struct moves *moves,
                   const struct move *question, const union device_endpoint *from)
{
    struct move ready = *question;
    ready.kind = MOVE_READY;
    peer->asked_generation = question->generation;
    peer->heard_last = false;
    tended->asked_ms = device_now_ms();
    tended->hot_until_ms = tended->asked_ms + HOT_MS;
    tended->follow_ms = 0;
    moves_send(moves, &ready, from);
}

static void hear_last(struct tended *tended, struct tended_peer *peer, const struct move *move)
{
    if (peer->asked_generation != move->generation)
        return;
    peer->heard_last = true;
    if (peer->arriving_generation == move->generation)
        tended->follow_ms = 0;
}

// READY and MOVED answer what only a cutover asks.
void counterparts_datagram(struct tended *tended, struct moves *moves, const struct move *move,
                           const union device_endpoint *from)
{
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        if (!is_sender(peer, move, from))
            continue;
        if (move->kind == MOVE_ASK)
            answer(tended, peer, moves, move, from);
        else if (move->kind == MOVE_LAST)
            hear_last(tended, peer, move);
    }
}

int64_t counterparts_repeat(struct tended *tended)
{
    int64_t now = device_now_ms(), next = INT64_MAX;
    for (size_t i = 0; i < tended->peer_count; i++) {
        struct tended_peer *peer = &tended->peers[i];
        union device_endpoint address;
        if (peer->moved_left == 0 || tended->moves == NULL ||
            !counterparts_move_address(peer, &address))
            continue;
        if (now >= peer->moved_next_ms) {
            moves_send(tended->moves, &peer->moved, &address);
            peer->moved_left--;
            peer->moved_next_ms = now + (MOVED_AGAIN_MS << (MOVED_TIMES - 1 - peer->moved_left));
        }
        if (peer->moved_left > 0 && peer->moved_next_ms < next)
            next = peer->moved_next_ms;
    }
    return next;
}
