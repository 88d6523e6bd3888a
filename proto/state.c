// SPDX-License-Identifier: Apache-2.0
// The projection of the log: each record is checked against what the records before it say, then
// applied.
#include "state.h"

#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "snapshot.h"

// A lease in the list of open ones (granted first, first) and in the tree by its id. `lease` comes
// first, so that a pointer to one is a pointer to its node.
struct node {
    struct state_lease lease;
    TAILQ_ENTRY(node) link;
};
TAILQ_HEAD(node_list, node);

struct state {
    uint64_t size;
    int64_t time_us;
    bool initialised;
    char host[HOST_MAX + 1];
    char log_vkey[NOTE_VKEY_MAX];
    char host_vkey[NOTE_VKEY_MAX];
    struct state_key *keys; // ordered by name, then generation
    size_t key_count, key_room;
    size_t last_key; // where a generation was looked for last: the next record is often about it
    struct node_list leases;
    size_t lease_count;
    void *lease_tree; // tsearch's
    struct request_list requests;
    struct rotations rotations;
    struct peers peers;
    struct psks psks;
};

struct state *state_new(void)
{
    struct state *state = calloc(1, sizeof(*state));
    if (state != NULL)
        TAILQ_INIT(&state->leases);
    return state;
}

static int compare_leases(const void *a, const void *b)
{
    const struct state_lease *x = a, *y = b;
    return strcmp(x->lease, y->lease);
}

static void close_lease(struct state *state, struct node *node)
{
    tdelete(&node->lease, &state->lease_tree, compare_leases);
    TAILQ_REMOVE(&state->leases, node, link);
    state->lease_count--;
    free(node);
}

void state_free(struct state *state)
{
    if (state == NULL)
        return;
    while (!TAILQ_EMPTY(&state->leases))
        close_lease(state, TAILQ_FIRST(&state->leases));
    rotations_free(&state->rotations);
    peers_free(&state->peers);
    psks_free(&state->psks);
    free(state->keys);
    free(state);
}

// ---- looking ----

uint64_t state_size(const struct state *state)
{
    return state->size;
}

int64_t state_time_us(const struct state *state)
{
    return state->time_us;
}

bool state_initialised(const struct state *state)
{
    return state->initialised;
}

const char *state_log_vkey(const struct state *state)
{
    return state->log_vkey;
}

const char *state_host_vkey(const struct state *state)
{
    return state->host_vkey;
}

const char *state_host(const struct state *state)
{
    return state->host;
}

const struct request_list *state_requests(const struct state *state)
{
    return &state->requests;
}

const struct rotations *state_rotations(const struct state *state)
{
    return &state->rotations;
}

const struct peers *state_peers(const struct state *state)
{
    return &state->peers;
}

const struct psks *state_psks(const struct state *state)
{
    return &state->psks;
}

size_t state_keys(const struct state *state)
{
    return state->key_count;
}

const struct state_key *state_key_at(const struct state *state, size_t i)
{
    return i < state->key_count ? &state->keys[i] : NULL;
}

static bool is_last_key(const struct state *state, const char *name, uint64_t generation)
{
    if (state->last_key >= state->key_count)
        return false;
    const struct state_key *key = &state->keys[state->last_key];
    return key->generation == generation && strcmp(key->name, name) == 0;
}

static size_t search_key(const struct state *state, const char *name, uint64_t generation)
{
    size_t low = 0, high = state->key_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct state_key *key = &state->keys[middle];
        int order = strcmp(key->name, name);
        if (order < 0 || (order == 0 && key->generation < generation))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Where the generation stands, or would have to be put.
static size_t key_position(const struct state *state, const char *name, uint64_t generation)
{
    return is_last_key(state, name, generation) ? state->last_key
                                                : search_key(state, name, generation);
}

const struct state_key *state_key_find(const struct state *state, const char *name,
                                       uint64_t generation)
{
    if (is_last_key(state, name, generation))
        return &state->keys[state->last_key];
    size_t i = search_key(state, name, generation);
    if (i == state->key_count || strcmp(state->keys[i].name, name) != 0 ||
        state->keys[i].generation != generation)
        return NULL;
    return &state->keys[i];
}

static const struct state_key *find_in_state(const struct state *state, const char *name,
                                             enum key_state wanted)
{
    for (size_t i = key_position(state, name, 0); i < state->key_count; i++) {
        if (strcmp(state->keys[i].name, name) != 0)
            break;
        if (state->keys[i].state == wanted)
            return &state->keys[i];
    }
    return NULL;
}

const struct state_key *state_key_active(const struct state *state, const char *name)
{
    return find_in_state(state, name, KEY_ACTIVE);
}

const struct state_key *state_key_pre_active(const struct state *state, const char *name)
{
    return find_in_state(state, name, KEY_PRE_ACTIVE);
}

const struct state_key *state_key_current(const struct state *state, const char *name)
{
    const struct state_key *active = state_key_active(state, name);
    return active != NULL ? active : state_key_pre_active(state, name);
}

uint64_t state_key_highest(const struct state *state, const char *name)
{
    size_t after = key_position(state, name, UINT64_MAX);
    if (after == 0 || strcmp(state->keys[after - 1].name, name) != 0)
        return 0;
    return state->keys[after - 1].generation;
}

size_t state_leases(const struct state *state)
{
    return state->lease_count;
}

const struct state_lease *state_lease_first(const struct state *state)
{
    const struct node *node = TAILQ_FIRST(&state->leases);
    return node != NULL ? &node->lease : NULL;
}

const struct state_lease *state_lease_next(const struct state_lease *lease)
{
    const struct node *next = TAILQ_NEXT((const struct node *)lease, link);
    return next != NULL ? &next->lease : NULL;
}

const struct state_lease *state_lease_find(const struct state *state, const char *lease)
{
    struct state_lease wanted;
    memcpy(wanted.lease, lease, strnlen(lease, RECORD_LEASE_MAX) + 1);
    wanted.lease[RECORD_LEASE_MAX] = '\0';
    void *const *found = tfind(&wanted, &state->lease_tree, compare_leases);
    return found != NULL ? *found : NULL;
}

// ---- checking ----

static bool is_about_a_generation(const struct record *record)
{
    return lifecycle_is_about_generation(record->event) && !psks_is_about(record);
}

// Public keys are no secret, so these may take any time.
static bool is_no_key(const uint8_t key[RECORD_KEY_SIZE])
{
    static const uint8_t none[RECORD_KEY_SIZE];
    return memcmp(key, none, sizeof(none)) == 0;
}

static int check_sequence(const struct state *state, const struct record *record, struct error *err)
{
    if (record->seq != state->size)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "seq is %" PRIu64 " where %" PRIu64 " must follow", record->seq,
                         state->size);
    if (record->time_us < state->time_us)
        return error_set(err, ERROR_FAILED_PRECONDITION, "time runs back");
    if ((record->event == RECORD_TOKEN_INITIALISED) != (record->seq == 0))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "token.initialised must be record 0, and no other");
    // The host of record 0 was checked then.
    if (record->seq == 0 ? !name_is_host(record->host) : strcmp(record->host, state->host) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "host is '%s' where '%s' must stand",
                         record->host, state->host);
    return 0;
}

static int check_new_key(const struct state *state, const struct record *record, struct error *err)
{
    if (is_no_key(record->public_key))
        return error_set(err, ERROR_FAILED_PRECONDITION, "public_key is missing");
    if ((record->event == RECORD_KEY_IMPORTED) != (record->purpose == PURPOSE_IMPORTED))
        return error_set(err, ERROR_FAILED_PRECONDITION, "its purpose is not %s's",
                         record_event_name(record->event));
    if (record->generation <= state_key_highest(state, record->key))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "generation %" PRIu64
                         " of key %s is not above the highest before, %" PRIu64,
                         record->generation, record->key, state_key_highest(state, record->key));
    if (state_key_pre_active(state, record->key) != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key %s already has a pre-active generation", record->key);
    return 0;
}

// What every release needs: who, to which key, under which lease.
static int check_lease(const struct state *state, const struct record *record, struct error *err)
{
    if (!record->actor.present || record->lease[0] == '\0' ||
        record->expires_us < record->time_us || is_no_key(record->applier_public_key))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "actor, lease, applier_public_key or a later expires is missing");
    if (state_lease_find(state, record->lease) != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s is open already", record->lease);
    return 0;
}

static int check_grant(const struct state *state, const struct state_key *key,
                       const struct record *record, struct error *err)
{
    if (!lifecycle_may_release(key->state, record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a %s generation may not be released for %s",
                         lifecycle_state_name(key->state),
                         record->reason != 0 ? record_reason_name(record->reason) : "no reason");
    if (key->purpose == PURPOSE_IMPORTED && !lifecycle_may_release_imported(record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "an imported generation may not be released for %s",
                         record_reason_name(record->reason));
    if (check_lease(state, record, err) != 0)
        return -1;
    if (memcmp(record->public_key, key->public_key, sizeof(key->public_key)) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "public_key is not the generation's");
    return 0;
}

static int check_outcome(const struct state *state, const struct record *record, struct error *err)
{
    const struct state_lease *lease = state_lease_find(state, record->lease);
    if (lease == NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s is not open", record->lease);
    if (strcmp(lease->key, record->key) != 0 || lease->generation != record->generation)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "lease %s is of key %s generation %" PRIu64, record->lease, lease->key,
                         lease->generation);
    if ((lease->generation == 0) != (record->purpose == PURPOSE_PRESHARED))
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s is of another purpose",
                         record->lease);
    if (record->event == RECORD_LEASE_EXPIRED && record->time_us < lease->expires_us)
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s has not expired yet",
                         record->lease);
    return 0;
}

static int check_bundle(const struct state_key *key, const struct record *record, struct error *err)
{
    enum record_bundle_state state = lifecycle_bundle_state(key->state);
    const char *says = record_bundle_state_name(record->bundle_state);
    bool early = rotations_is_early_bundle(record) &&
                 (key->state == KEY_PRE_ACTIVE || key->state == KEY_ACTIVE);
    if (record->bundle_state != state && !early)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "bundle_state is %s, but key %s generation %" PRIu64
                         " is %s, whose bundle says %s",
                         says != NULL ? says : "missing", key->name, key->generation,
                         lifecycle_state_name(key->state), record_bundle_state_name(state));
    if (memcmp(record->public_key, key->public_key, sizeof(key->public_key)) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "public_key is not the generation's");
    return 0;
}

static int check_generation(const struct state *state, const struct record *record,
                            struct error *err)
{
    if (!name_is_key(record->key) || record->generation == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "key or generation is missing");
    const struct state_key *key = state_key_find(state, record->key, record->generation);
    enum key_state from = key != NULL ? key->state : KEY_NONE;
    if (lifecycle_next(from, record->event) < 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s is not legal for key %s generation %" PRIu64 ": it is %s",
                         record_event_name(record->event), record->key, record->generation,
                         lifecycle_state_name(from));
    if (lifecycle_needs_approval(from, record->event) && record->request_id[0] == '\0')
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s of key %s generation %" PRIu64 ", which is %s, names no request that "
                         "two operators approved",
                         record_event_name(record->event), record->key, record->generation,
                         lifecycle_state_name(from));
    switch (record->event) {
    case RECORD_KEY_GENERATED:
    case RECORD_KEY_IMPORTED:
        return check_new_key(state, record, err);
    case RECORD_KEY_ACTIVATED:
        if (state_key_active(state, record->key) != NULL)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "key %s already has an active generation", record->key);
        return 0;
    case RECORD_KEY_PUBLISHED:
        return check_bundle(key, record, err);
    case RECORD_RELEASE_GRANTED:
        return check_grant(state, key, record, err);
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        return check_outcome(state, record, err);
    default:
        return 0;
    }
}

// A preshared key's steps; its releases have leases as a private key's have.
static int check_psk(const struct state *state, const struct record *record, struct error *err)
{
    if (state_key_highest(state, record->key) == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "key %s has no generation yet",
                         record->key);
    switch (record->event) {
    case RECORD_RELEASE_GRANTED:
        return check_lease(state, record, err);
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        return check_outcome(state, record, err);
    default:
        return 0;
    }
}

static int check_requested_key(const struct state *state, const struct record *record,
                               struct error *err)
{
    const struct state_key *key = state_key_find(state, record->key, record->generation);
    if (record->operation != OPERATION_KEY_DESTROY || (key != NULL && key->state == KEY_ACTIVE))
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "only the destruction of an active generation is requested; key %s generation "
                     "%" PRIu64 " is %s",
                     record->key, record->generation,
                     lifecycle_state_name(key != NULL ? key->state : KEY_NONE));
}

static int check_rotation_started(const struct state *state, const struct record *record,
                                  struct error *err)
{
    const struct state_key *key = state_key_pre_active(state, record->key);
    if (key != NULL && key->generation == record->generation)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "generation %" PRIu64
                     " of key %s is not its pre-active one: no rotation leads to it",
                     record->generation, record->key);
}

// Handshakes confirm what was on the interface, and only a release brings it there.
static int check_rotation_confirmed(const struct state *state, const struct record *record,
                                    struct error *err)
{
    const struct rotation *rotation = rotations_open(&state->rotations, record->key);
    const struct state_key *key = state_key_find(state, record->key, record->generation);
    if (rotation == NULL || key == NULL || rotation->generation != key->generation ||
        key->released_us >= rotation->started_us)
        return 0; // whether it is the open one at all is rotations_check's to see
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "generation %" PRIu64
                     " of key %s was not released since its rotation started: nothing can have "
                     "confirmed it",
                     record->generation, record->key);
}

// What is about a key as a whole is about one that the log knows.
static int check_whole_key(const struct state *state, const struct record *record,
                           struct error *err)
{
    switch (record->event) {
    case RECORD_ROTATION_STARTED:
        return check_rotation_started(state, record, err);
    case RECORD_ROTATION_CONFIRMED:
        return check_rotation_confirmed(state, record, err);
    case RECORD_KEY_SUSPENDED:
    case RECORD_KEY_RESUMED:
        return state_key_highest(state, record->key) != 0
                   ? 0
                   : error_set(err, ERROR_FAILED_PRECONDITION, "key %s has no generation yet",
                               record->key);
    case RECORD_PEER_LATE:
    case RECORD_PEER_ACKNOWLEDGED:
        return record->peer_generation <= state_key_highest(state, record->key)
                   ? 0
                   : error_set(err, ERROR_FAILED_PRECONDITION,
                               "key %s has no generation %" PRIu64 " that a peer could know of",
                               record->key, record->peer_generation);
    default:
        return 0;
    }
}

// The digest that log.sealed and daemon.stopped bear is that of the state they were written in.
static int check_digest(const struct state *state, const struct record *record, struct error *err)
{
    char digest[65];
    if (record->event == RECORD_DAEMON_STOPPED && record->sha256[0] == '\0')
        return 0;
    if (snapshot_digest(state, digest, err) != 0)
        return -1;
    if (strcmp(record->sha256, digest) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "sha256 is not that of the state which the records before say");
    return 0;
}

// What a snapshot holds as one word: with blanks or a newline in it, two states would have one
// text.
static bool is_word(const char *text)
{
    for (const char *s = text; *s != '\0'; s++)
        if ((unsigned char)*s <= ' ' || *s == 0x7f)
            return false;
    return text[0] != '\0' && strcmp(text, "-") != 0;
}

int state_check(const struct state *state, const struct record *record, struct error *err)
{
    if (record->event == RECORD_NONE || record->event >= RECORD_EVENTS)
        return error_set(err, ERROR_FAILED_PRECONDITION, "event %u is unknown", record->event);
    if (check_sequence(state, record, err) != 0)
        return -1;
    if (record->event == RECORD_TOKEN_INITIALISED &&
        (!is_word(record->log_vkey) || !is_word(record->host_vkey)))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "token.initialised names no log_vkey or no host_vkey");
    if (record->event == RECORD_LOG_KEY_CHANGED && !is_word(record->log_vkey))
        return error_set(err, ERROR_FAILED_PRECONDITION, "log.key-changed names no log_vkey");
    if ((record->event == RECORD_LOG_SEALED || record->event == RECORD_DAEMON_STOPPED) &&
        check_digest(state, record, err) != 0)
        return -1;
    if (is_about_a_generation(record) && check_generation(state, record, err) != 0)
        return -1;
    if (psks_is_about(record) && check_psk(state, record, err) != 0)
        return -1;
    if (record->event == RECORD_APPROVAL_REQUESTED && check_requested_key(state, record, err) != 0)
        return -1;
    if (check_whole_key(state, record, err) != 0 ||
        rotations_check(&state->rotations, record, err) != 0 ||
        peers_check(&state->peers, record, err) != 0 || psks_check(&state->psks, record, err) != 0)
        return -1;
    return request_list_check(&state->requests, record, err);
}

// ---- applying ----

static int make_key_room(struct state *state, struct error *err)
{
    if (state->key_count == state->key_room) {
        size_t room = state->key_room == 0 ? 16 : 2 * state->key_room;
        struct state_key *keys = realloc(state->keys, room * sizeof(*keys));
        if (keys == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu keys", room);
        state->keys = keys;
        state->key_room = room;
    }
    return 0;
}

static int insert_key(struct state *state, const struct record *record, struct error *err)
{
    if (make_key_room(state, err) != 0)
        return -1;
    size_t i = key_position(state, record->key, record->generation);
    memmove(&state->keys[i + 1], &state->keys[i], (state->key_count - i) * sizeof(*state->keys));
    state->key_count++;
    struct state_key *key = &state->keys[i];
    memset(key, 0, sizeof(*key));
    memcpy(key->name, record->key, sizeof(key->name));
    key->generation = record->generation;
    key->purpose = record->purpose;
    memcpy(key->public_key, record->public_key, sizeof(key->public_key));
    key->generated_us = record->time_us;
    return 0;
}

static int insert_lease(struct state *state, const struct state_lease *lease, struct error *err)
{
    struct node *node = malloc(sizeof(*node));
    if (node == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a lease");
    node->lease = *lease;
    if (tsearch(&node->lease, &state->lease_tree, compare_leases) == NULL) {
        free(node);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a lease");
    }
    TAILQ_INSERT_TAIL(&state->leases, node, link);
    state->lease_count++;
    return 0;
}

static int open_lease(struct state *state, const struct record *record, struct error *err)
{
    struct state_lease lease = {.generation = record->generation,
                                .seq = record->seq,
                                .expires_us = record->expires_us,
                                .uid = record->actor.uid,
                                .pid = record->actor.pid};
    memcpy(lease.lease, record->lease, sizeof(lease.lease));
    memcpy(lease.key, record->key, sizeof(lease.key));
    return insert_lease(state, &lease, err);
}

// What must succeed before anything else changes: the allocations.
static int make_room(struct state *state, const struct record *record, struct error *err)
{
    if (rotations_reserve(&state->rotations, record, err) != 0 ||
        peers_reserve(&state->peers, record, err) != 0 ||
        psks_reserve(&state->psks, record, err) != 0)
        return -1;
    switch (record->event) {
    case RECORD_KEY_GENERATED:
    case RECORD_KEY_IMPORTED:
        return insert_key(state, record, err);
    case RECORD_RELEASE_GRANTED:
        return open_lease(state, record, err);
    default:
        return 0;
    }
}

// The lease of a preshared key's release ends.
static void apply_to_psk(struct state *state, const struct record *record)
{
    switch (record->event) {
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        close_lease(state, (struct node *)state_lease_find(state, record->lease));
        break;
    default:
        break;
    }
}

static void apply_to_generation(struct state *state, const struct record *record)
{
    state->last_key = key_position(state, record->key, record->generation);
    struct state_key *key = &state->keys[state->last_key];
    key->state = lifecycle_next(key->state, record->event);
    switch (record->event) {
    case RECORD_KEY_ACTIVATED:
        key->activated_us = record->time_us;
        break;
    case RECORD_KEY_DEACTIVATED:
        key->deactivated_us = record->time_us;
        break;
    case RECORD_RELEASE_GRANTED:
        key->releases++;
        key->released_us = record->time_us;
        break;
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        close_lease(state, (struct node *)state_lease_find(state, record->lease));
        break;
    default:
        break;
    }
}

static bool is_leased(const struct state *state, const struct state_key *key)
{
    const struct node *node;
    TAILQ_FOREACH(node, &state->leases, link)
    if (node->lease.generation == key->generation && strcmp(node->lease.key, key->name) == 0)
        return true;
    return false;
}

// Forgets the destroyed generations of a key that are below its highest and have no open lease.
static void forget_destroyed(struct state *state, const char *name)
{
    // Nothing can have changed for the others when the record was about one that is in use.
    const struct state_key *key = &state->keys[state->last_key];
    if (key->state != KEY_DESTROYED && key->state != KEY_PRE_ACTIVE)
        return;
    size_t i = key_position(state, name, 0);
    while (i + 1 < state->key_count && strcmp(state->keys[i + 1].name, name) == 0) {
        if (state->keys[i].state != KEY_DESTROYED || is_leased(state, &state->keys[i])) {
            i++;
            continue;
        }
        state->key_count--;
        memmove(&state->keys[i], &state->keys[i + 1],
                (state->key_count - i) * sizeof(*state->keys));
    }
}

int state_apply(struct state *state, const struct record *record, struct error *err)
{
    // Looked for once, and found there again by all that follows.
    if (lifecycle_is_about_generation(record->event))
        state->last_key = key_position(state, record->key, record->generation);
    if (state_check(state, record, err) != 0 || make_room(state, record, err) != 0)
        return -1;
    if (record->event == RECORD_TOKEN_INITIALISED) {
        state->initialised = true;
        memcpy(state->host, record->host, sizeof(state->host));
        memcpy(state->host_vkey, record->host_vkey, sizeof(state->host_vkey));
    }
    if (record->event == RECORD_TOKEN_INITIALISED || record->event == RECORD_LOG_KEY_CHANGED)
        memcpy(state->log_vkey, record->log_vkey, sizeof(state->log_vkey));
    if (is_about_a_generation(record)) {
        apply_to_generation(state, record);
        forget_destroyed(state, record->key);
    } else if (psks_is_about(record)) {
        apply_to_psk(state, record);
    }
    request_list_apply(&state->requests, record);
    rotations_apply(&state->rotations, record);
    peers_apply(&state->peers, record);
    psks_apply(&state->psks, record);
    state->size++;
    state->time_us = record->time_us;
    return 0;
}

// ---- restoring ----

void state_restore_head(struct state *state, const struct state_head *head)
{
    state->size = head->size;
    state->time_us = head->time_us;
    state->initialised = head->size > 0;
    memcpy(state->host, head->host, sizeof(state->host));
    memcpy(state->log_vkey, head->log_vkey, sizeof(state->log_vkey));
    memcpy(state->host_vkey, head->host_vkey, sizeof(state->host_vkey));
}

int state_restore_key(struct state *state, const struct state_key *key, struct error *err)
{
    size_t i = key_position(state, key->name, key->generation);
    if (i != state->key_count || state_key_find(state, key->name, key->generation) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT, "key %s generation %" PRIu64 " is misplaced",
                         key->name, key->generation);
    if (make_key_room(state, err) != 0)
        return -1;
    state->keys[state->key_count++] = *key;
    return 0;
}

int state_restore_rotation(struct state *state, const struct rotation *rotation, struct error *err)
{
    const struct state_key *key = state_key_find(state, rotation->key, rotation->generation);
    bool known = rotation->generation == 0
                     ? state_key_highest(state, rotation->key) != 0
                     : key != NULL && (key->state == KEY_PRE_ACTIVE || key->state == KEY_ACTIVE);
    if (!known || (rotation->generation != 0 && rotation->suspended_us != 0))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the rotation of key %s is of no generation that it could be of",
                         rotation->key);
    return rotations_restore(&state->rotations, rotation, err);
}

int state_restore_peer(struct state *state, const struct peer *peer, struct error *err)
{
    return peers_restore(&state->peers, peer, err);
}

int state_restore_psk(struct state *state, const struct psk *psk, struct error *err)
{
    if (state_key_highest(state, psk->key) == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "key %s has no generation", psk->key);
    return psks_restore(&state->psks, psk, err);
}

int state_restore_lease(struct state *state, const struct state_lease *lease, struct error *err)
{
    const struct node *last = TAILQ_LAST(&state->leases, node_list);
    if ((last != NULL && last->lease.seq >= lease->seq) || lease->seq >= state->size ||
        state_lease_find(state, lease->lease) != NULL ||
        (lease->generation != 0 ? state_key_find(state, lease->key, lease->generation) == NULL
                                : state_key_highest(state, lease->key) == 0))
        return error_set(err, ERROR_INVALID_ARGUMENT, "lease %s is misplaced", lease->lease);
    return insert_lease(state, lease, err);
}

int state_restore_requests(struct state *state, const struct request_list *requests,
                           struct error *err)
{
    if (requests->count > REQUESTS_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "more than %d requests", REQUESTS_MAX);
    state->requests = *requests;
    return 0;
}
