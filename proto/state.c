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

#include <sodium.h>

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
    struct node_list leases;
    size_t lease_count;
    void *lease_tree; // tsearch's
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

size_t state_keys(const struct state *state)
{
    return state->key_count;
}

const struct state_key *state_key_at(const struct state *state, size_t i)
{
    return i < state->key_count ? &state->keys[i] : NULL;
}

// Where the generation stands, or would have to be put.
static size_t key_position(const struct state *state, const char *name, uint64_t generation)
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

const struct state_key *state_key_find(const struct state *state, const char *name,
                                       uint64_t generation)
{
    size_t i = key_position(state, name, generation);
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
    struct state_lease wanted = {.seq = 0};
    snprintf(wanted.lease, sizeof(wanted.lease), "%s", lease);
    void *const *found = tfind(&wanted, &state->lease_tree, compare_leases);
    return found != NULL ? *found : NULL;
}

// ---- checking ----

static bool is_about_a_generation(enum record_event event)
{
    for (int s = 0; s < KEY_STATES; s++)
        if (lifecycle_next(s, event) >= 0)
            return true;
    return false;
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
    if (!name_is_host(record->host) || (record->seq > 0 && strcmp(record->host, state->host) != 0))
        return error_set(err, ERROR_FAILED_PRECONDITION, "host is '%s' where '%s' must stand",
                         record->host, state->host);
    return 0;
}

static int check_new_key(const struct state *state, const struct record *record, struct error *err)
{
    if (sodium_is_zero(record->public_key, sizeof(record->public_key)))
        return error_set(err, ERROR_FAILED_PRECONDITION, "public_key is missing");
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

static int check_grant(const struct state *state, const struct state_key *key,
                       const struct record *record, struct error *err)
{
    if (!lifecycle_may_release(key->state, record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a %s generation may not be released for %s",
                         lifecycle_state_name(key->state),
                         record->reason != 0 ? record_reason_name(record->reason) : "no reason");
    if (!record->actor.present || record->lease[0] == '\0' ||
        record->expires_us < record->time_us ||
        sodium_is_zero(record->applier_public_key, sizeof(record->applier_public_key)))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "actor, lease, applier_public_key or a later expires is missing");
    if (sodium_memcmp(record->public_key, key->public_key, sizeof(key->public_key)) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "public_key is not the generation's");
    if (state_lease_find(state, record->lease) != NULL)
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s is open already", record->lease);
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
    if (record->event == RECORD_LEASE_EXPIRED && record->time_us < lease->expires_us)
        return error_set(err, ERROR_FAILED_PRECONDITION, "lease %s has not expired yet",
                         record->lease);
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
    switch (record->event) {
    case RECORD_KEY_GENERATED:
    case RECORD_KEY_IMPORTED:
        return check_new_key(state, record, err);
    case RECORD_KEY_ACTIVATED:
        if (state_key_active(state, record->key) != NULL)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "key %s already has an active generation", record->key);
        return 0;
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

int state_check(const struct state *state, const struct record *record, struct error *err)
{
    if (record->event == RECORD_NONE || record->event >= RECORD_EVENTS)
        return error_set(err, ERROR_FAILED_PRECONDITION, "event %u is unknown", record->event);
    if (check_sequence(state, record, err) != 0)
        return -1;
    if (record->event == RECORD_TOKEN_INITIALISED &&
        (record->log_vkey[0] == '\0' || record->host_vkey[0] == '\0'))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "token.initialised names no log_vkey or no host_vkey");
    if (record->event == RECORD_LOG_KEY_CHANGED && record->log_vkey[0] == '\0')
        return error_set(err, ERROR_FAILED_PRECONDITION, "log.key-changed names no log_vkey");
    if (is_about_a_generation(record->event))
        return check_generation(state, record, err);
    return 0;
}

// ---- applying ----

static int insert_key(struct state *state, const struct record *record, struct error *err)
{
    if (state->key_count == state->key_room) {
        size_t room = state->key_room == 0 ? 16 : 2 * state->key_room;
        struct state_key *keys = realloc(state->keys, room * sizeof(*keys));
        if (keys == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu keys", room);
        state->keys = keys;
        state->key_room = room;
    }
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

static int open_lease(struct state *state, const struct record *record, struct error *err)
{
    struct node *node = calloc(1, sizeof(*node));
    if (node == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a lease");
    struct state_lease *lease = &node->lease;
    memcpy(lease->lease, record->lease, sizeof(lease->lease));
    memcpy(lease->key, record->key, sizeof(lease->key));
    lease->generation = record->generation;
    lease->seq = record->seq;
    lease->expires_us = record->expires_us;
    lease->uid = record->actor.uid;
    lease->pid = record->actor.pid;
    if (tsearch(lease, &state->lease_tree, compare_leases) == NULL) {
        free(node);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a lease");
    }
    TAILQ_INSERT_TAIL(&state->leases, node, link);
    state->lease_count++;
    return 0;
}

// What must succeed before anything else changes: the allocations.
static int make_room(struct state *state, const struct record *record, struct error *err)
{
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

static void apply_to_generation(struct state *state, const struct record *record)
{
    struct state_key *key = &state->keys[key_position(state, record->key, record->generation)];
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

int state_apply(struct state *state, const struct record *record, struct error *err)
{
    if (state_check(state, record, err) != 0 || make_room(state, record, err) != 0)
        return -1;
    if (record->event == RECORD_TOKEN_INITIALISED) {
        state->initialised = true;
        memcpy(state->host, record->host, sizeof(state->host));
        memcpy(state->host_vkey, record->host_vkey, sizeof(state->host_vkey));
    }
    if (record->event == RECORD_TOKEN_INITIALISED || record->event == RECORD_LOG_KEY_CHANGED)
        memcpy(state->log_vkey, record->log_vkey, sizeof(state->log_vkey));
    if (is_about_a_generation(record->event))
        apply_to_generation(state, record);
    state->size++;
    state->time_us = record->time_us;
    return 0;
}
