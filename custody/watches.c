// SPDX-License-Identifier: Apache-2.0
// Watches: a list of calls that wait, and for each key the last record that changed it.
#include "watches.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "policy.h"

#define WATCHES_MAX    256
#define TIMEOUT_MAX_MS 60000

struct watch {
    LIST_ENTRY(watch) link;
    struct watches *watches;
    struct call *call;
    uint64_t after;
    struct event *timer;
};

// The index of the last record that changed a key, plus one.
struct change {
    SLIST_ENTRY(change) link;
    char key[KEY_MAX + 1];
    uint64_t seq;
};

struct watches {
    struct daemon *daemon;
    unsigned count;
    uint64_t begun; // records there were when the log was read last: changes before are not known
    LIST_HEAD(, watch) list;
    SLIST_HEAD(, change) changes;
};

static void answer(struct call *call, bool changed)
{
    Custody__V1__KeysChanged message = CUSTODY__V1__KEYS_CHANGED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    message.seq = log_size(call->daemon->log);
    message.changed = changed;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEYS_CHANGED;
    response.keys_changed = &message;
    call_answer(call, &response);
}

// Takes a watch off the list; its call is to be answered.
static struct call *end_watch(struct watch *watch)
{
    struct call *call = watch->call;
    LIST_REMOVE(watch, link);
    watch->watches->count--;
    event_free(watch->timer);
    free(watch);
    return call;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    answer(end_watch(context), false);
}

// ---- changes ----

// Whether the record leaves a key other than it was, for those who look at views. A denial and a
// finding do not: whoever reported it would only wake itself.
static bool is_change(const struct record *record)
{
    switch (record->event) {
    case RECORD_RELEASE_DENIED:
    case RECORD_ACCESS_DENIED:
    case RECORD_NOTE_REJECTED:
    case RECORD_REGISTRY_STALE:
    case RECORD_REGISTRY_FRESH:
    case RECORD_DRIFT_FOUND:
    case RECORD_DRIFT_CLEARED:
    case RECORD_KEY_REFRESHED:
        return false;
    default:
        return record->key[0] != '\0';
    }
}

static struct change *find_change(const struct watches *watches, const char *key)
{
    struct change *change;
    SLIST_FOREACH(change, &watches->changes, link)
    if (strcmp(change->key, key) == 0)
        return change;
    return NULL;
}

static bool may_see(const struct call *call, const char *key)
{
    const struct config_key *config = config_find_key(call->daemon->config, key);
    return (call->roles & (POLICY_OPERATOR | POLICY_AUDITOR)) ||
           (config != NULL && policy_may_see(config, &call->actor));
}

void watches_note(struct watches *watches, const struct record *record)
{
    struct watch *watch, *next;
    if (!is_change(record))
        return;
    struct change *change = find_change(watches, record->key);
    if (change == NULL) {
        change = calloc(1, sizeof(*change));
        if (change == NULL) {
            watches->begun = record->seq + 1; // whoever asks about before is told to look
            watches_restart(watches);
            return;
        }
        memcpy(change->key, record->key, sizeof(change->key));
        SLIST_INSERT_HEAD(&watches->changes, change, link);
    }
    change->seq = record->seq + 1;
    for (watch = LIST_FIRST(&watches->list); watch != NULL; watch = next) {
        next = LIST_NEXT(watch, link);
        if (watch->after <= record->seq && may_see(watch->call, record->key))
            answer(end_watch(watch), true);
    }
}

// ---- asking ----

static bool has_changed(const struct watches *watches, const struct call *call, uint64_t after)
{
    const struct change *change;
    if (after < watches->begun || after > log_size(watches->daemon->log))
        return true;
    SLIST_FOREACH(change, &watches->changes, link)
    if (change->seq > after && may_see(call, change->key))
        return true;
    return false;
}

// Those whose client has gone make room.
static void drop_gone(struct watches *watches)
{
    struct watch *watch, *next;
    for (watch = LIST_FIRST(&watches->list); watch != NULL; watch = next) {
        next = LIST_NEXT(watch, link);
        if (!connection_is_open(watch->call->connection))
            answer(end_watch(watch), false);
    }
}

static int add(struct watches *watches, struct call *call, uint64_t after, uint32_t timeout_ms,
               struct error *err)
{
    struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    if (watches->count == WATCHES_MAX)
        drop_gone(watches);
    if (watches->count == WATCHES_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "%d watches are open already: try again later", WATCHES_MAX);
    struct watch *watch = calloc(1, sizeof(*watch));
    if (watch != NULL)
        watch->timer = evtimer_new(watches->daemon->base, on_timer, watch);
    if (watch == NULL || watch->timer == NULL) {
        free(watch);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a watch");
    }
    watch->watches = watches;
    watch->call = call;
    watch->after = after;
    LIST_INSERT_HEAD(&watches->list, watch, link);
    watches->count++;
    event_add(watch->timer, &timeout);
    return 0;
}

void watches_add(struct call *call, const Custody__V1__WatchKeys *request)
{
    struct watches *watches = call->daemon->watches;
    struct error err;
    if (request->timeout_ms > TIMEOUT_MAX_MS)
        error_set(&err, ERROR_INVALID_ARGUMENT, "timeout_ms is %u: it must be at most %d",
                  request->timeout_ms, TIMEOUT_MAX_MS);
    else if (has_changed(watches, call, request->after)) {
        answer(call, true);
        return;
    } else if (add(watches, call, request->after, request->timeout_ms, &err) == 0)
        return;
    call_fail(call, &err);
}

// ---- all of them ----

void watches_restart(struct watches *watches)
{
    watches->begun = log_size(watches->daemon->log);
    while (!LIST_EMPTY(&watches->list))
        answer(end_watch(LIST_FIRST(&watches->list)), true);
}

void watches_end(struct watches *watches)
{
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "the daemon is stopping");
    while (!LIST_EMPTY(&watches->list))
        call_fail(end_watch(LIST_FIRST(&watches->list)), &err);
}

struct watches *watches_new(struct daemon *daemon, struct error *err)
{
    struct watches *watches = calloc(1, sizeof(*watches));
    if (watches == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for watches");
        return NULL;
    }
    watches->daemon = daemon;
    LIST_INIT(&watches->list);
    SLIST_INIT(&watches->changes);
    return watches;
}

void watches_free(struct watches *watches)
{
    if (watches == NULL)
        return;
    watches_end(watches);
    while (!SLIST_EMPTY(&watches->changes)) {
        struct change *change = SLIST_FIRST(&watches->changes);
        SLIST_REMOVE_HEAD(&watches->changes, link);
        free(change);
    }
    free(watches);
}
