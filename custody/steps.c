// SPDX-License-Identifier: Apache-2.0
// The steps of each key, in a ring.
#include "steps.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct list {
    SLIST_ENTRY(list) link;
    char key[KEY_MAX + 1];
    size_t first, count;
    struct step items[STEPS_MAX];
};

struct steps {
    SLIST_HEAD(, list) lists; // of the keys that a rotation was begun for
};

struct steps *steps_new(void)
{
    struct steps *steps = calloc(1, sizeof(*steps));
    if (steps != NULL)
        SLIST_INIT(&steps->lists);
    return steps;
}

void steps_free(struct steps *steps)
{
    if (steps == NULL)
        return;
    while (!SLIST_EMPTY(&steps->lists)) {
        struct list *list = SLIST_FIRST(&steps->lists);
        SLIST_REMOVE_HEAD(&steps->lists, link);
        free(list);
    }
    free(steps);
}

static struct list *find(const struct steps *steps, const char *key)
{
    struct list *list;
    SLIST_FOREACH(list, &steps->lists, link)
    if (strcmp(list->key, key) == 0)
        return list;
    return NULL;
}

static bool is_step(enum record_event event)
{
    switch (event) {
    case RECORD_ROTATION_STARTED:
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
    case RECORD_KEY_PUBLISHED:
    case RECORD_KEY_ACTIVATED:
    case RECORD_KEY_DEACTIVATED:
    case RECORD_KEY_REVOKED:
    case RECORD_KEY_SUSPENDED:
    case RECORD_KEY_DESTROYED:
    case RECORD_RELEASE_GRANTED:
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_PEER_STAGED:
    case RECORD_PEER_MOVED:
    case RECORD_PEER_RETIRED:
    case RECORD_PEER_LATE:
    case RECORD_PEER_ACKNOWLEDGED:
        return true;
    default:
        return false;
    }
}

// A revocation begins what the rotation to its replacement goes on with: a counterpart may have
// dropped the key before that.
static bool begins(const struct list *list, enum record_event event)
{
    if (event == RECORD_KEY_REVOKED)
        return true;
    if (event != RECORD_ROTATION_STARTED)
        return false;
    bool revoked = list->count > 0 && list->items[list->first].event == RECORD_KEY_REVOKED;
    for (size_t i = 0; revoked && i < list->count; i++)
        revoked = list->items[(list->first + i) % STEPS_MAX].event != RECORD_ROTATION_STARTED;
    return !revoked;
}

// A key that never rotated has no list; where there is no memory for one, nobody sees its steps.
static struct list *list_for(struct steps *steps, const struct record *record)
{
    struct list *list = find(steps, record->key);
    if (list == NULL &&
        (record->event == RECORD_ROTATION_STARTED || record->event == RECORD_KEY_REVOKED)) {
        list = calloc(1, sizeof(*list));
        if (list == NULL)
            return NULL;
        memcpy(list->key, record->key, sizeof(list->key));
        SLIST_INSERT_HEAD(&steps->lists, list, link);
    }
    if (list != NULL && begins(list, record->event))
        list->count = 0;
    return list;
}

// Cuts at the end of a character.
static void copy_detail(char out[STEPS_DETAIL_MAX + 1], const char *detail)
{
    size_t length = strnlen(detail, STEPS_DETAIL_MAX + 1);
    if (length > STEPS_DETAIL_MAX) {
        length = STEPS_DETAIL_MAX;
        while (length > 0 && ((unsigned char)detail[length] & 0xC0) == 0x80)
            length--;
    }
    memcpy(out, detail, length);
    out[length] = '\0';
}

void steps_note(struct steps *steps, const struct record *record)
{
    bool counts = is_step(record->event) && record->purpose != PURPOSE_PRESHARED;
    struct list *list = counts ? list_for(steps, record) : NULL;
    if (list == NULL)
        return;
    if (list->count == STEPS_MAX) {
        list->first = (list->first + 1) % STEPS_MAX;
        list->count--;
    }
    struct step *step = &list->items[(list->first + list->count++) % STEPS_MAX];
    memset(step, 0, sizeof(*step));
    step->seq = record->seq;
    step->time_us = record->time_us;
    step->event = (enum record_event)record->event;
    step->generation = record->peer[0] != '\0' ? record->peer_generation : record->generation;
    memcpy(step->peer, record->peer, sizeof(step->peer));
    memcpy(step->peer_key, record->peer_key, sizeof(step->peer_key));
    step->peer_state = record->peer_state;
    copy_detail(step->detail, record->detail);
}

size_t steps_count(const struct steps *steps, const char *key)
{
    const struct list *list = find(steps, key);
    return list != NULL ? list->count : 0;
}

const struct step *steps_at(const struct steps *steps, const char *key, size_t i)
{
    const struct list *list = find(steps, key);
    return list != NULL && i < list->count ? &list->items[(list->first + i) % STEPS_MAX] : NULL;
}
