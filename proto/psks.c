// SPDX-License-Identifier: Apache-2.0
// Which steps with a link's preshared keys may follow which.
#include "psks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "name.h"
#include "psk_note.h"

uint64_t psks_chain_first(uint64_t epoch)
{
    return epoch - (epoch - 1) % PSKS_CHAIN_MAX;
}

void psks_free(struct psks *psks)
{
    free(psks->items);
    memset(psks, 0, sizeof(*psks));
}

static int compare(const struct psk *psk, const char *key, const char *host, const char *peer_key)
{
    int order = strcmp(psk->key, key);
    if (order == 0)
        order = strcmp(psk->host, host);
    return order != 0 ? order : strcmp(psk->peer_key, peer_key);
}

// Where the link stands, or would have to be put.
static size_t position(const struct psks *psks, const char *key, const char *host,
                       const char *peer_key)
{
    size_t low = 0, high = psks->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&psks->items[middle], key, host, peer_key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct psk *psks_find(const struct psks *psks, const char *key, const char *host,
                            const char *peer_key)
{
    size_t i = position(psks, key, host, peer_key);
    return i < psks->count && compare(&psks->items[i], key, host, peer_key) == 0 ? &psks->items[i]
                                                                                 : NULL;
}

static uint64_t highest(const struct psk *psk)
{
    return psk->received != 0 ? psk->received : psk->made;
}

bool psks_has(const struct psk *psk, uint64_t epoch)
{
    return psk != NULL && epoch > 0 && epoch <= highest(psk) && epoch > psk->destroyed;
}

const char *psks_method(const struct psk *psk)
{
    return psk->received != 0 ? "received" : "made";
}

static bool is_release(enum record_event event)
{
    return event == RECORD_RELEASE_GRANTED || event == RECORD_RELEASE_APPLIED ||
           event == RECORD_RELEASE_FAILED || event == RECORD_LEASE_EXPIRED;
}

static bool is_step(enum record_event event)
{
    return event == RECORD_PSK_GENERATED || event == RECORD_PSK_RECEIVED ||
           event == RECORD_PSK_SET || event == RECORD_PSK_DESTROYED;
}

bool psks_is_about(const struct record *record)
{
    return is_step(record->event) ||
           (is_release(record->event) && record->purpose == PURPOSE_PRESHARED);
}

// ---- checking ----

static int fail(const struct record *record, const char *why, struct error *err)
{
    return error_set(
        err, ERROR_FAILED_PRECONDITION, "%s of epoch %" PRIu64 " with key %s of host %s: %s",
        record_event_name(record->event), record->epoch, record->peer_key, record->peer, why);
}

// The same epoch may be made again, to be sent anew; the next once this one is in use.
static int check_generated(const struct psk *psk, const struct record *record, struct error *err)
{
    if (psk->received != 0)
        return fail(record, "the other end makes this link's preshared keys", err);
    if (sodium_is_zero(record->receive_key, sizeof(record->receive_key)))
        return fail(record, "receive_key is missing", err);
    if (record->epoch != psk->made && record->epoch != psk->made + 1)
        return fail(record, "epochs follow one another", err);
    if (record->epoch == psk->made + 1 && psk->set != psk->made)
        return fail(record, "the one before it is not in use", err);
    return 0;
}

// An end that had made one which was never set may still take instead. The same again is fine: its
// note may have been lost.
static int check_received(const struct psk *psk, const struct record *record, struct error *err)
{
    if (psk->received == 0 && psk->set != 0)
        return fail(record, "this end makes this link's preshared keys", err);
    if (record->epoch != psk->received + 1 && !psks_has(psk, record->epoch))
        return fail(record, "epochs follow one another", err);
    if (record->epoch < psk->received)
        return fail(record, "a later one was received", err);
    return 0;
}

// What the next epoch is computed from, and what the maker may go back to, is kept.
static int check_destroyed(const struct psk *psk, const struct record *record, struct error *err)
{
    if (record->epoch <= psk->destroyed)
        return fail(record, "it is destroyed already", err);
    if (record->epoch + 1 >= psk->received || record->epoch >= psk->set)
        return fail(record, "it may be needed still", err);
    return 0;
}

static int check_release(const struct psk *psk, const struct record *record, struct error *err)
{
    if (!psks_has(psk, record->epoch))
        return fail(record, "there is no such epoch", err);
    if (strcmp(record->method, psks_method(psk)) != 0)
        return fail(record, "method does not say whether it was made or received", err);
    return 0;
}

static int check_step(const struct psk *psk, const struct record *record, struct error *err)
{
    switch (record->event) {
    case RECORD_PSK_GENERATED:
        return check_generated(psk, record, err);
    case RECORD_PSK_RECEIVED:
        return check_received(psk, record, err);
    case RECORD_PSK_SET:
        return record->epoch == 0 || psks_has(psk, record->epoch)
                   ? 0
                   : fail(record, "there is no such epoch", err);
    case RECORD_PSK_DESTROYED:
        return check_destroyed(psk, record, err);
    default:
        return check_release(psk, record, err);
    }
}

int psks_check(const struct psks *psks, const struct record *record, struct error *err)
{
    const struct psk none = {0};
    if (!psks_is_about(record) ||
        (is_release(record->event) && record->event != RECORD_RELEASE_GRANTED))
        return 0;
    if (!name_is_key(record->key) || !name_is_host(record->peer) ||
        !name_is_key(record->peer_key) || record->generation != 0 ||
        (record->epoch == 0 && record->event != RECORD_PSK_SET))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "key, peer, peer_key or epoch is missing, or a generation is there");
    const struct psk *psk = psks_find(psks, record->key, record->peer, record->peer_key);
    return check_step(psk != NULL ? psk : &none, record, err);
}

// ---- applying ----

static int make_room(struct psks *psks, struct error *err)
{
    if (psks->count < psks->room)
        return 0;
    size_t room = psks->room == 0 ? 16 : 2 * psks->room;
    struct psk *items = realloc(psks->items, room * sizeof(*items));
    if (items == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu preshared keys",
                         room);
    psks->items = items;
    psks->room = room;
    return 0;
}

int psks_reserve(struct psks *psks, const struct record *record, struct error *err)
{
    return is_step(record->event) ? make_room(psks, err) : 0;
}

// The record's link, which is made where there is none.
static struct psk *take(struct psks *psks, const struct record *record)
{
    size_t i = position(psks, record->key, record->peer, record->peer_key);
    struct psk *psk = &psks->items[i];
    if (i < psks->count && compare(psk, record->key, record->peer, record->peer_key) == 0)
        return psk;
    memmove(psk + 1, psk, (psks->count - i) * sizeof(*psk));
    psks->count++;
    memset(psk, 0, sizeof(*psk));
    memcpy(psk->key, record->key, sizeof(psk->key));
    memcpy(psk->host, record->peer, sizeof(psk->host));
    memcpy(psk->peer_key, record->peer_key, sizeof(psk->peer_key));
    return psk;
}

void psks_apply(struct psks *psks, const struct record *record)
{
    if (!is_step(record->event))
        return;
    struct psk *psk = take(psks, record);
    switch (record->event) {
    case RECORD_PSK_GENERATED:
        if (psk->made != record->epoch)
            psk->made_us = record->time_us;
        psk->made = record->epoch;
        break;
    case RECORD_PSK_RECEIVED:
        psk->made = 0; // given up, if it was one
        psk->made_us = 0;
        if (psk->received != record->epoch)
            psk->received_us = record->time_us;
        psk->received = record->epoch;
        break;
    case RECORD_PSK_SET:
        psk->set = record->epoch;
        psk->set_us = record->time_us;
        break;
    default:
        psk->destroyed = record->epoch;
        break;
    }
}

int psks_restore(struct psks *psks, const struct psk *psk, struct error *err)
{
    bool sound = (psk->made == 0 || psk->received == 0) && psk->set <= highest(psk) &&
                 psk->destroyed <= psk->received;
    if (!sound || position(psks, psk->key, psk->host, psk->peer_key) != psks->count ||
        psks_find(psks, psk->key, psk->host, psk->peer_key) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the preshared key with key %s of host %s is misplaced", psk->peer_key,
                         psk->host);
    if (make_room(psks, err) != 0)
        return -1;
    psks->items[psks->count++] = *psk;
    return 0;
}
