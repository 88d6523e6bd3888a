// SPDX-License-Identifier: Apache-2.0
// One timer, set for the lease that was granted first.
#include "leases.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "daemon.h"

struct leases {
    struct daemon *daemon;
    struct event *timer;
    size_t expiring; // lease.expired records on their way
};

static void on_recorded(void *context, const struct commit_result *result)
{
    struct leases *leases = context;
    (void)result;
    if (--leases->expiring == 0)
        leases_watch(leases);
}

static bool expire(struct leases *leases, const struct state_lease *lease)
{
    struct record record = {.event = RECORD_LEASE_EXPIRED,
                            .generation = lease->generation,
                            .purpose = lease->generation == 0 ? PURPOSE_PRESHARED : PURPOSE_NONE};
    struct error err;
    memcpy(record.key, lease->key, sizeof(record.key));
    memcpy(record.lease, lease->lease, sizeof(record.lease));
    if (commit_submit(leases->daemon->commit, &record, KEEPER_ACTION_NONE, on_recorded, leases,
                      &err) != 0)
        return false;
    leases->expiring++;
    return true;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct leases *leases = context;
    int64_t now = commit_now_us();
    (void)fd;
    (void)what;
    // What expires during a stop is recorded at the next start: daemon.stopped comes last.
    if (leases->daemon->phase != DAEMON_READY || leases->daemon->stopping)
        return;
    for (const struct state_lease *lease = state_lease_first(leases->daemon->state); lease != NULL;
         lease = state_lease_next(lease))
        if (lease->expires_us <= now && !expire(leases, lease))
            break;
    leases_watch(leases);
}

void leases_watch(struct leases *leases)
{
    const struct state_lease *first = state_lease_first(leases->daemon->state);
    if (first == NULL || leases->expiring > 0 || event_pending(leases->timer, EV_TIMEOUT, NULL))
        return;
    int64_t wait = first->expires_us - commit_now_us();
    if (wait < 0)
        wait = 0;
    struct timeval time = {.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
    event_add(leases->timer, &time);
}

struct leases *leases_new(struct daemon *daemon, struct error *err)
{
    struct leases *leases = calloc(1, sizeof(*leases));
    if (leases != NULL) {
        leases->daemon = daemon;
        leases->timer = evtimer_new(daemon->base, on_timer, leases);
        if (leases->timer != NULL)
            return leases;
    }
    free(leases);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for leases");
    return NULL;
}

void leases_free(struct leases *leases)
{
    if (leases == NULL)
        return;
    event_free(leases->timer);
    free(leases);
}
