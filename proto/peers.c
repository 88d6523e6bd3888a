// SPDX-License-Identifier: Apache-2.0
// Which steps with a counterpart's key may follow which: staged, moved to, retired.
#include "peers.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "acknowledgement.h"
#include "name.h"

void peers_free(struct peers *peers)
{
    free(peers->items);
    memset(peers, 0, sizeof(*peers));
}

static int compare_counterpart(const struct peer *peer, const char *key, const char *host,
                               const char *peer_key)
{
    int order = strcmp(peer->key, key);
    if (order == 0)
        order = strcmp(peer->host, host);
    return order != 0 ? order : strcmp(peer->peer_key, peer_key);
}

// Where the generation stands, or would have to be put.
static size_t position(const struct peers *peers, const char *key, const char *host,
                       const char *peer_key, uint64_t generation)
{
    size_t low = 0, high = peers->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct peer *peer = &peers->items[middle];
        int order = compare_counterpart(peer, key, host, peer_key);
        if (order < 0 || (order == 0 && peer->generation < generation))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct peer *peers_find(const struct peers *peers, const char *key, const char *host,
                              const char *peer_key, uint64_t generation)
{
    size_t i = position(peers, key, host, peer_key, generation);
    if (i == peers->count || peers->items[i].generation != generation ||
        compare_counterpart(&peers->items[i], key, host, peer_key) != 0)
        return NULL;
    return &peers->items[i];
}

// A counterpart's generations stand together: the first of them, and how many.
struct span {
    struct peer *first;
    size_t count;
};

static struct span find_span(const struct peers *peers, const char *key, const char *host,
                             const char *peer_key)
{
    size_t i = position(peers, key, host, peer_key, 0), count = 0;
    struct span span = {peers->items != NULL ? peers->items + i : NULL, 0};
    while (i + count < peers->count &&
           compare_counterpart(&peers->items[i + count], key, host, peer_key) == 0)
        count++;
    span.count = count;
    return span;
}

static struct peer *current_of(struct span span)
{
    for (size_t i = 0; i < span.count; i++)
        if (span.first[i].state == PEER_MOVED)
            return &span.first[i];
    return NULL;
}

const struct peer *peers_current(const struct peers *peers, const char *key, const char *host,
                                 const char *peer_key)
{
    return current_of(find_span(peers, key, host, peer_key));
}

// The first place whose key is not below `key`; where `past`, not below or equal.
static size_t key_position(const struct peers *peers, const char *key, bool past)
{
    size_t low = 0, high = peers->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(peers->items[middle].key, key);
        if (order < 0 || (past && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct peer_span peers_of(const struct peers *peers, const char *key)
{
    size_t first = key_position(peers, key, false), end = key_position(peers, key, true);
    return (struct peer_span){first < end ? &peers->items[first] : NULL, end - first};
}

// ---- checking ----

// What an unknown generation may not be below: the current one, or, where none has the allowed-ips,
// the highest that once had them and is retired. Lower ones were retired and forgotten.
static uint64_t floor_of(struct span span)
{
    const struct peer *current = current_of(span);
    uint64_t floor = 0;
    for (size_t i = 0; i < span.count && current == NULL; i++)
        if (span.first[i].state == PEER_RETIRED && span.first[i].moved_us != 0)
            floor = span.first[i].generation;
    return current != NULL ? current->generation : floor;
}

// `other` is a generation that `why` ends with, 0 where it ends with none.
static int fail(const struct record *record, const char *why, uint64_t other, struct error *err)
{
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "%s of key %s of host %s to generation %" PRIu64 ", %s%.0" PRIu64,
                     record_event_name(record->event), record->peer_key, record->peer,
                     record->peer_generation, why, other);
}

static int check_staged(struct span span, const struct peer *peer, const struct record *record,
                        struct error *err)
{
    const struct peer *current = current_of(span);
    if (peer != NULL && peer->state == PEER_RETIRED)
        return fail(record, "which is retired", 0, err);
    if (current != NULL && record->peer_generation < current->generation)
        return fail(record, "which is below the current one, ", current->generation, err);
    if (peer == NULL && record->peer_generation < floor_of(span))
        return fail(record, "which is below a retired one, ", floor_of(span), err);
    return 0;
}

static int check_moved(struct span span, const struct peer *peer, const struct record *record,
                       struct error *err)
{
    const struct peer *current = current_of(span);
    if (peer != NULL && peer->state == PEER_RETIRED)
        return fail(record, "which is retired", 0, err);
    if (peer == NULL && current != NULL)
        return fail(record, "which was never staged; the current one is ", current->generation,
                    err);
    if (peer == NULL && record->peer_generation < floor_of(span))
        return fail(record, "which is below a retired one, ", floor_of(span), err);
    return 0;
}

static int check_step(const struct peers *peers, const struct record *record, struct error *err)
{
    struct span span = find_span(peers, record->key, record->peer, record->peer_key);
    const struct peer *peer =
        peers_find(peers, record->key, record->peer, record->peer_key, record->peer_generation);
    if (sodium_is_zero(record->peer_public_key, sizeof(record->peer_public_key)))
        return error_set(err, ERROR_FAILED_PRECONDITION, "peer_public_key is missing");
    if (peer != NULL &&
        memcmp(peer->public_key, record->peer_public_key, sizeof(peer->public_key)) != 0)
        return fail(record, "which had another public key before", 0, err);
    switch (record->event) {
    case RECORD_PEER_STAGED:
        return check_staged(span, peer, record, err);
    case RECORD_PEER_MOVED:
        return check_moved(span, peer, record, err);
    default:
        return peer != NULL && peer->state == PEER_RETIRED
                   ? fail(record, "which is retired already", 0, err)
                   : 0;
    }
}

static int check_acknowledgement(const struct record *record, struct error *err)
{
    struct acknowledgement ack;
    acknowledgement_from_record(&ack, record);
    return acknowledgement_check(&ack, err);
}

int peers_check(const struct peers *peers, const struct record *record, struct error *err)
{
    if (record->event < RECORD_PEER_STAGED || record->event > RECORD_PEER_ACKNOWLEDGED)
        return 0;
    if (!name_is_key(record->key) || !name_is_host(record->peer) ||
        !name_is_key(record->peer_key) || record->peer_generation == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key, peer, peer_key or peer_generation is missing");
    switch (record->event) {
    case RECORD_PEER_LATE:
        return 0;
    case RECORD_PEER_ACKNOWLEDGED:
        return record->peer_state != PEER_NONE && record->peer_state < PEER_STATES
                   ? 0
                   : error_set(err, ERROR_FAILED_PRECONDITION, "peer_state is missing");
    default:
        if (check_step(peers, record, err) != 0)
            return -1;
        return record->event == RECORD_PEER_MOVED ? 0 : check_acknowledgement(record, err);
    }
}

// ---- applying ----

static bool adds(enum record_event event)
{
    return event == RECORD_PEER_STAGED || event == RECORD_PEER_MOVED ||
           event == RECORD_PEER_RETIRED;
}

static int make_room(struct peers *peers, struct error *err)
{
    if (peers->count < peers->room)
        return 0;
    size_t room = peers->room == 0 ? 16 : 2 * peers->room;
    struct peer *items = realloc(peers->items, room * sizeof(*items));
    if (items == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu peers", room);
    peers->items = items;
    peers->room = room;
    return 0;
}

int peers_reserve(struct peers *peers, const struct record *record, struct error *err)
{
    return adds(record->event) ? make_room(peers, err) : 0;
}

// The record's generation, which is made where there is none.
static struct peer *take(struct peers *peers, const struct record *record)
{
    size_t i =
        position(peers, record->key, record->peer, record->peer_key, record->peer_generation);
    struct peer *peer = &peers->items[i];
    if (peers_find(peers, record->key, record->peer, record->peer_key, record->peer_generation) !=
        NULL)
        return peer;
    memmove(peer + 1, peer, (peers->count - i) * sizeof(*peer));
    peers->count++;
    memset(peer, 0, sizeof(*peer));
    memcpy(peer->key, record->key, sizeof(peer->key));
    memcpy(peer->host, record->peer, sizeof(peer->host));
    memcpy(peer->peer_key, record->peer_key, sizeof(peer->peer_key));
    peer->generation = record->peer_generation;
    memcpy(peer->public_key, record->peer_public_key, sizeof(peer->public_key));
    return peer;
}

// Drops the retired ones below the generation that was moved to.
static void forget_retired(struct peers *peers, const struct record *record)
{
    struct span span = find_span(peers, record->key, record->peer, record->peer_key);
    size_t i = (size_t)(span.first - peers->items);
    for (size_t left = span.count; left > 0; left--) {
        if (peers->items[i].state != PEER_RETIRED ||
            peers->items[i].generation > record->peer_generation) {
            i++;
            continue;
        }
        peers->count--;
        memmove(&peers->items[i], &peers->items[i + 1], (peers->count - i) * sizeof(struct peer));
    }
}

static void move(struct peers *peers, const struct record *record)
{
    struct peer *peer = take(peers, record);
    struct peer *before = current_of(find_span(peers, record->key, record->peer, record->peer_key));
    if (before != NULL)
        before->state = PEER_STAGED;
    peer->state = PEER_MOVED;
    peer->moved_us = record->time_us;
    forget_retired(peers, record);
}

void peers_apply(struct peers *peers, const struct record *record)
{
    struct peer *peer;
    switch (record->event) {
    case RECORD_PEER_STAGED:
        peer = take(peers, record);
        if (peer->state != PEER_MOVED) // staged anew, it keeps the allowed-ips
            peer->state = PEER_STAGED;
        peer->staged_us = record->time_us;
        break;
    case RECORD_PEER_MOVED:
        move(peers, record);
        break;
    case RECORD_PEER_RETIRED:
        peer = take(peers, record);
        peer->state = PEER_RETIRED;
        peer->retired_us = record->time_us;
        break;
    default:
        break;
    }
}

int peers_restore(struct peers *peers, const struct peer *peer, struct error *err)
{
    size_t i = position(peers, peer->key, peer->host, peer->peer_key, peer->generation);
    bool second = peer->state == PEER_MOVED &&
                  peers_current(peers, peer->key, peer->host, peer->peer_key) != NULL;
    if (i != peers->count || second)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "key %s of host %s generation %" PRIu64 " is misplaced", peer->peer_key,
                         peer->host, peer->generation);
    if (make_room(peers, err) != 0)
        return -1;
    peers->items[peers->count++] = *peer;
    return 0;
}
