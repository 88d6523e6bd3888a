// SPDX-License-Identifier: Apache-2.0
// One timer for all that is due; it looks again each minute, whatever the clock did meanwhile.
#include "rotation_timer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "daemon.h"
#include "generation.h"
#include "keys.h"
#include "preshared.h"
#include "rotation.h"
#include "say.h"
#include "schedule.h"

#define LOOK_US  INT64_C(60000000) // a clock that is set does not move timers: look again
#define RETRY_US INT64_C(10000000) // after a failure
#define BEGUN_US INT64_C(1000000)  // while a rotation is being begun

struct rotation_timer {
    struct daemon *daemon;
    struct event *timer;
    bool busy; // what was due is being done
};

static void wait_for(struct rotation_timer *timer, int64_t wait_us)
{
    struct timeval time = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};
    event_add(timer->timer, &time);
}

void rotation_timer_look(struct rotation_timer *timer)
{
    wait_for(timer, 0);
}

void rotation_timer_note(struct rotation_timer *timer, const struct record *record)
{
    switch (record->event) {
    case RECORD_KEY_ACTIVATED:
    case RECORD_KEY_DEACTIVATED:
    case RECORD_KEY_REVOKED:
    case RECORD_KEY_RESUMED:
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
        if (!timer->busy)
            rotation_timer_look(timer);
        return;
    default:
        return;
    }
}

static void done(struct rotation_timer *timer, const char *what, const struct error *why)
{
    timer->busy = false;
    if (why != NULL)
        say(LOG_WARNING, "%s: %s", what, why->message);
    wait_for(timer, why != NULL ? RETRY_US : 0);
}

static void on_begun(void *context, const struct error *why)
{
    done(context, "a rotation that is due could not be started", why);
}

// Returns whether it is under way.
static bool begin(struct rotation_timer *timer, const char *key, enum record_reason reason)
{
    struct record wanted = {.reason = reason};
    struct error err;
    memcpy(wanted.key, key, strlen(key) + 1);
    timer->busy = true;
    if (rotation_begin(timer->daemon, &wanted, on_begun, timer, &err) != 0)
        on_begun(timer, &err);
    return true;
}

static void on_received_made(void *context, const struct record *generated, const struct error *why)
{
    (void)generated;
    done(context, "the key that preshared keys are received with could not be made", why);
}

static bool make_receive_key(struct rotation_timer *timer)
{
    struct record wanted = {.key = NAME_RECEIVE_KEY};
    struct error err;
    timer->busy = true;
    if (generation_make(timer->daemon, &wanted, on_received_made, timer, &err) != 0)
        on_received_made(timer, NULL, &err);
    return true;
}

static void on_destroyed(void *context, const struct error *why)
{
    done(context, "a generation whose grace is over could not be destroyed", why);
}

static bool destroy(struct rotation_timer *timer, const struct state_key *key)
{
    struct error err;
    timer->busy = true;
    if (keys_destroy_by_itself(timer->daemon, key, "its grace period is over", on_destroyed, timer,
                               &err) != 0)
        on_destroyed(timer, &err);
    return true;
}

// The earlier of two times, 0 being none.
static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

// Does the first thing that is due; returns false where that is nothing, and then sets `*next` to
// when the next will be, 0 for never.
static bool do_first(struct rotation_timer *timer, int64_t now, int64_t *next)
{
    struct daemon *daemon = timer->daemon;
    const struct config *config = daemon->config;
    const struct rotations *rotations = state_rotations(daemon->state);
    *next = 0;
    if (preshared_lacks_receive_key(daemon))
        return make_receive_key(timer);
    for (size_t i = 0; i < config->key_count; i++) {
        const char *name = config->keys[i].name;
        const struct rotation *rotation = rotations_find(rotations, name);
        bool replacement = rotation_lacks_replacement(daemon->state, name);
        int64_t due = replacement ? schedule_again_us(&config->keys[i], rotation)
                                  : schedule_rotation_us(&config->keys[i], config->host, rotation,
                                                         state_key_active(daemon->state, name));
        if ((replacement || due != 0) && due <= now)
            return begin(timer, name, replacement ? REASON_OPERATOR : REASON_ROTATION);
        *next = earlier(*next, due);
    }
    for (size_t i = 0; i < state_keys(daemon->state); i++) {
        const struct state_key *key = state_key_at(daemon->state, i);
        const struct config_key *policy = config_find_key(config, key->name);
        int64_t due = policy != NULL ? schedule_destruction_us(policy, key) : 0;
        if (due != 0 && due <= now)
            return destroy(timer, key);
        *next = earlier(*next, due);
    }
    return false;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct rotation_timer *timer = context;
    struct daemon *daemon = timer->daemon;
    int64_t now = commit_now_us(), next;
    (void)fd;
    (void)what;
    if (timer->busy)
        return;
    if (daemon->phase != DAEMON_READY || daemon->stopping) {
        wait_for(timer, LOOK_US); // sooner when the log is open again
        return;
    }
    if (daemon->beginning > 0) {
        wait_for(timer, BEGUN_US); // by somebody else
        return;
    }
    if (do_first(timer, now, &next))
        return;
    wait_for(timer, next != 0 && next - now < LOOK_US ? next - now : LOOK_US);
}

struct rotation_timer *rotation_timer_new(struct daemon *daemon, struct error *err)
{
    struct rotation_timer *timer = calloc(1, sizeof(*timer));
    if (timer != NULL) {
        timer->daemon = daemon;
        timer->timer = evtimer_new(daemon->base, on_timer, timer);
        if (timer->timer != NULL)
            return timer;
    }
    free(timer);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the rotations' timer");
    return NULL;
}

void rotation_timer_free(struct rotation_timer *timer)
{
    if (timer == NULL)
        return;
    event_free(timer->timer);
    free(timer);
}
