// SPDX-License-Identifier: Apache-2.0
// Coalescing of denials and findings over a window of time.
#include "denials.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "daemon.h"

#define WINDOW_S  10
#define KINDS_MAX 64 // different denials told apart in a window; the last place takes all others

struct kind {
    struct record record;
    uint64_t more; // since the record was written
};

struct denials {
    struct daemon *daemon;
    struct event *window;
    size_t count;
    struct kind kinds[KINDS_MAX];
};

static bool same_kind(const struct record *a, const struct record *b)
{
    return a->event == b->event && a->actor.uid == b->actor.uid && a->code == b->code &&
           strcmp(a->request, b->request) == 0 && strcmp(a->key, b->key) == 0 &&
           strcmp(a->peer, b->peer) == 0 && strcmp(a->peer_key, b->peer_key) == 0;
}

static void end_window(struct denials *denials)
{
    for (size_t i = 0; i < denials->count; i++) {
        struct kind *kind = &denials->kinds[i];
        if (kind->more == 0)
            continue;
        // The record stands for the last of them; `count` says how many more there were.
        kind->record.count = kind->more - 1;
        daemon_record(denials->daemon, &kind->record);
    }
    denials->count = 0;
}

static void on_window(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    end_window(context);
}

void denials_note(struct denials *denials, const struct record *record)
{
    for (size_t i = 0; i < denials->count; i++) {
        if (!same_kind(&denials->kinds[i].record, record))
            continue;
        denials->kinds[i].record = *record;
        denials->kinds[i].more++;
        return;
    }
    if (denials->count == 0) {
        struct timeval window = {.tv_sec = WINDOW_S};
        event_add(denials->window, &window);
    }
    if (denials->count == KINDS_MAX) {
        struct kind *others = &denials->kinds[KINDS_MAX - 1];
        others->record = *record;
        others->more++;
        snprintf(others->record.detail, sizeof(others->record.detail),
                 "and others: too many kinds to tell apart");
        return;
    }
    denials->kinds[denials->count++] = (struct kind){.record = *record};
    daemon_record(denials->daemon, record);
}

void denials_flush(struct denials *denials)
{
    event_del(denials->window);
    end_window(denials);
}

struct denials *denials_new(struct daemon *daemon, struct error *err)
{
    struct denials *denials = calloc(1, sizeof(*denials));
    if (denials != NULL) {
        denials->daemon = daemon;
        denials->window = evtimer_new(daemon->base, on_window, denials);
        if (denials->window != NULL)
            return denials;
    }
    free(denials);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for denials");
    return NULL;
}

void denials_free(struct denials *denials)
{
    if (denials == NULL)
        return;
    event_free(denials->window);
    free(denials);
}
