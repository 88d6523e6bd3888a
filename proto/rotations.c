// SPDX-License-Identifier: Apache-2.0
// Rotations, holds and bundles of a key: what may be recorded of them, and in which order.
#include "rotations.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bundle.h"

void rotations_free(struct rotations *rotations)
{
    free(rotations->items);
    memset(rotations, 0, sizeof(*rotations));
}

// Where the key stands, or would have to be put.
static size_t position(const struct rotations *rotations, const char *key)
{
    size_t low = 0, high = rotations->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(rotations->items[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct rotation *rotations_find(const struct rotations *rotations, const char *key)
{
    size_t i = position(rotations, key);
    return i < rotations->count && strcmp(rotations->items[i].key, key) == 0 ? &rotations->items[i]
                                                                             : NULL;
}

const struct rotation *rotations_open(const struct rotations *rotations, const char *key)
{
    const struct rotation *rotation = rotations_find(rotations, key);
    return rotation != NULL && rotation->generation != 0 ? rotation : NULL;
}

// ---- checking ----

static int check_not_held(const struct rotation *rotation, const struct record *record,
                          struct error *err)
{
    if (rotation->suspended_us == 0)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION, "%s of key %s, which an operator suspended",
                     record_event_name(record->event), record->key);
}

static int check_none_open(const struct rotation *rotation, const struct record *record,
                           struct error *err)
{
    if (rotation->generation == 0)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "%s of key %s while its rotation to generation %" PRIu64 " is open",
                     record_event_name(record->event), record->key, rotation->generation);
}

static int check_started(const struct rotation *rotation, const struct record *record,
                         struct error *err)
{
    if (record->reason != REASON_ROTATION && record->reason != REASON_OPERATOR)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a rotation's reason is ROTATION or OPERATOR");
    // With a newline in it the ticket could forge a line of the snapshot, where "-" stands for
    // none.
    if (!name_is_ticket(record->ticket) || strcmp(record->ticket, "-") == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "a ticket is one line, and not '-'");
    if (check_not_held(rotation, record, err) != 0)
        return -1;
    return check_none_open(rotation, record, err);
}

static int check_ended(const struct rotation *rotation, const struct record *record,
                       struct error *err)
{
    if (rotation->generation == record->generation && record->generation != 0)
        return 0;
    if (rotation->generation == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s of key %s, of which no rotation is open",
                         record_event_name(record->event), record->key);
    return error_set(
        err, ERROR_FAILED_PRECONDITION,
        "%s of key %s to generation %" PRIu64 ", but the open rotation is to generation %" PRIu64,
        record_event_name(record->event), record->key, record->generation, rotation->generation);
}

static int check_held(const struct rotation *rotation, const struct record *record,
                      struct error *err)
{
    bool held = rotation->suspended_us != 0;
    if (record->generation != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION, "%s is about a key, not a generation",
                         record_event_name(record->event));
    if (record->event == RECORD_KEY_SUSPENDED && held)
        return error_set(err, ERROR_FAILED_PRECONDITION, "key %s is suspended already",
                         record->key);
    if (record->event == RECORD_KEY_RESUMED)
        return held ? 0
                    : error_set(err, ERROR_FAILED_PRECONDITION, "key %s is not suspended",
                                record->key);
    return check_none_open(rotation, record, err);
}

// The record says all that its bundle does, so that its text must be a bundle's.
bool rotations_is_early_bundle(const struct record *record)
{
    return record->event == RECORD_KEY_PUBLISHED && record->bundle_state == BUNDLE_NONE &&
           record->previous[0] == '\0' && record->address[0] == '\0';
}

static int check_published(const struct rotation *rotation, const struct record *record,
                           struct error *err)
{
    struct bundle bundle;
    if (rotations_is_early_bundle(record)) {
        if (rotation->bundle_generation == 0)
            return 0;
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "bundle_state is missing, though an earlier bundle of key %s has one",
                         record->key);
    }
    bundle_from_record(&bundle, record);
    if (bundle_check(&bundle, err) != 0)
        return -1;
    if (strcmp(record->previous, rotation->bundle_sha256) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "previous is not the digest of the bundle of key %s published last, "
                         "generation %" PRIu64,
                         record->key, rotation->bundle_generation);
    return 0;
}

static int check_refreshed(const struct rotation *rotation, const struct record *record,
                           struct error *err)
{
    if (rotation->bundle_generation != 0 && record->generation == rotation->bundle_generation &&
        strcmp(record->sha256, rotation->bundle_sha256) == 0)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION,
                     "generation and sha256 are not those of the bundle of key %s published last, "
                     "generation %" PRIu64,
                     record->key, rotation->bundle_generation);
}

// A generation that a rotation leads to ends only with the rotation.
static int check_not_target(const struct rotation *rotation, const struct record *record,
                            struct error *err)
{
    return rotation->generation == record->generation ? check_none_open(rotation, record, err) : 0;
}

int rotations_check(const struct rotations *rotations, const struct record *record,
                    struct error *err)
{
    static const struct rotation none;
    const struct rotation *rotation = rotations_find(rotations, record->key);
    if (rotation == NULL)
        rotation = &none;
    switch (record->event) {
    case RECORD_ROTATION_STARTED:
        return check_started(rotation, record, err);
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
        return check_ended(rotation, record, err);
    case RECORD_KEY_SUSPENDED:
    case RECORD_KEY_RESUMED:
        return check_held(rotation, record, err);
    case RECORD_KEY_PUBLISHED:
        return check_published(rotation, record, err);
    case RECORD_KEY_REFRESHED:
        return check_refreshed(rotation, record, err);
    case RECORD_RELEASE_GRANTED:
        return check_not_held(rotation, record, err);
    case RECORD_KEY_DEACTIVATED: // or the one that the rotation leads to could take its place
        return check_none_open(rotation, record, err);
    case RECORD_KEY_REVOKED:
    case RECORD_KEY_DESTROYING:
        return check_not_target(rotation, record, err);
    default:
        return 0;
    }
}

// ---- applying ----

static bool adds(enum record_event event)
{
    return event == RECORD_ROTATION_STARTED || event == RECORD_KEY_SUSPENDED ||
           event == RECORD_KEY_PUBLISHED;
}

static int make_room(struct rotations *rotations, struct error *err)
{
    if (rotations->count < rotations->room)
        return 0;
    size_t room = rotations->room == 0 ? 16 : 2 * rotations->room;
    struct rotation *items = realloc(rotations->items, room * sizeof(*items));
    if (items == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for %zu rotations", room);
    rotations->items = items;
    rotations->room = room;
    return 0;
}

int rotations_reserve(struct rotations *rotations, const struct record *record, struct error *err)
{
    return adds(record->event) ? make_room(rotations, err) : 0;
}

// The key's, which is made where there is none.
static struct rotation *take(struct rotations *rotations, const char *key)
{
    size_t i = position(rotations, key);
    struct rotation *rotation = &rotations->items[i];
    if (i < rotations->count && strcmp(rotation->key, key) == 0)
        return rotation;
    memmove(rotation + 1, rotation, (rotations->count - i) * sizeof(*rotation));
    rotations->count++;
    memset(rotation, 0, sizeof(*rotation));
    memcpy(rotation->key, key, strlen(key) + 1);
    return rotation;
}

static void start(struct rotation *rotation, const struct record *record)
{
    rotation->generation = record->generation;
    rotation->reason = record->reason;
    memcpy(rotation->ticket, record->ticket, sizeof(rotation->ticket));
    rotation->started_us = record->time_us;
}

static void end(struct rotation *rotation, const struct record *record)
{
    if (record->event == RECORD_ROTATION_CONFIRMED) {
        rotation->confirmed = record->generation;
        rotation->failures = 0;
    } else if (rotation->failures < UINT32_MAX) {
        rotation->failures++;
    }
    rotation->generation = 0;
    rotation->reason = REASON_NONE;
    memset(rotation->ticket, 0, sizeof(rotation->ticket));
    rotation->started_us = 0;
    rotation->ended_us = record->time_us;
}

static void publish(struct rotation *rotation, const struct record *record)
{
    struct bundle bundle;
    bundle_from_record(&bundle, record);
    rotation->bundle_generation = record->generation;
    rotation->bundle_state = record->bundle_state;
    bundle_digest(&bundle, rotation->bundle_sha256);
}

void rotations_apply(struct rotations *rotations, const struct record *record)
{
    switch (record->event) {
    case RECORD_ROTATION_STARTED:
        start(take(rotations, record->key), record);
        break;
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
        end(take(rotations, record->key), record);
        break;
    case RECORD_KEY_SUSPENDED:
        take(rotations, record->key)->suspended_us = record->time_us;
        break;
    case RECORD_KEY_RESUMED:
        take(rotations, record->key)->suspended_us = 0;
        break;
    case RECORD_KEY_PUBLISHED:
        if (!rotations_is_early_bundle(record))
            publish(take(rotations, record->key), record);
        break;
    default:
        break;
    }
}

int rotations_restore(struct rotations *rotations, const struct rotation *rotation,
                      struct error *err)
{
    if (position(rotations, rotation->key) != rotations->count)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the rotation of key %s is misplaced",
                         rotation->key);
    if (make_room(rotations, err) != 0)
        return -1;
    rotations->items[rotations->count++] = *rotation;
    return 0;
}
