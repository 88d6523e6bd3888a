// SPDX-License-Identifier: Apache-2.0
// Views of keys, fetched and shown.
#include "views.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

struct views {
    size_t count;
    struct custody_view *items[];
};

struct views *views_get(struct custody *custody, const struct custody_key *keys, size_t count)
{
    struct views *views = calloc(1, sizeof(*views) + count * sizeof(views->items[0]));
    if (views == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        // Keys come ordered by name. One that is not declared any more has no view.
        bool again = i > 0 && strcmp(keys[i].name, keys[i - 1].name) == 0;
        if (!again &&
            custody_get_view(custody, keys[i].name, &views->items[views->count], NULL) == 0)
            views->count++;
    }
    return views;
}

void views_free(struct views *views)
{
    for (size_t i = 0; i < views_count(views); i++)
        custody_view_free(views->items[i]);
    free(views);
}

size_t views_count(const struct views *views)
{
    return views != NULL ? views->count : 0;
}

const struct custody_view *views_at(const struct views *views, size_t i)
{
    return views->items[i];
}

const struct custody_view *views_find(const struct views *views, const char *key)
{
    for (size_t i = 0; i < views_count(views); i++)
        if (strcmp(views->items[i]->key, key) == 0)
            return views->items[i];
    return NULL;
}

// ---- for people ----

// A name that is too long for its column has a line of its own.
static void print_key_field(const char *key, const char *text, const char *when, const char *failed)
{
    char name[80];
    snprintf(name, sizeof(name), "  %s", key);
    if (strlen(name) >= PRINT_COLUMN) {
        puts(name);
        name[0] = '\0';
    }
    print_field(name, "%s%s%s", text, when, failed);
}

void views_print_line(const struct custody_view *view)
{
    char text[64], when[PRINT_TIME_SIZE], failed[64] = "";
    if (view->rotation_failures > 0)
        snprintf(failed, sizeof(failed), "; %" PRIu32 " rolled back in a row",
                 view->rotation_failures);
    snprintf(text, sizeof(text), "rotating to generation %" PRIu64 " since ",
             view->rotation_generation);
    if (view->rotation_generation != 0)
        print_key_field(view->key, text, print_time(view->rotation_started_us, when), failed);
    else if (view->suspended)
        print_key_field(view->key, "SUSPENDED: not released, not rotated", "", failed);
    else if (view->next_rotation_us != 0)
        print_key_field(view->key, "next rotation ", print_time(view->next_rotation_us, when),
                        failed);
    else
        print_key_field(view->key, "no rotation is due", "", failed);
}

const char *views_peer_state(enum custody_peer_state state)
{
    switch (state) {
    case CUSTODY_PEER_STAGED:
        return "staged";
    case CUSTODY_PEER_MOVED:
        return "moved";
    case CUSTODY_PEER_RETIRED:
        return "retired";
    default:
        return "unknown";
    }
}

// Steps with a counterpart's key, and a counterpart's with ours.
static void peer_step(const struct custody_step *step, char text[VIEWS_STEP_SIZE])
{
    if (strcmp(step->event, "peer.acknowledged") == 0)
        snprintf(text, VIEWS_STEP_SIZE, "acknowledged by %s %s: %s", step->peer, step->peer_key,
                 views_peer_state(step->peer_state));
    else if (strcmp(step->event, "peer.late") == 0)
        snprintf(text, VIEWS_STEP_SIZE, "not waiting for %s %s%s%s", step->peer, step->peer_key,
                 step->detail[0] != '\0' ? ": " : "", step->detail);
    else
        snprintf(text, VIEWS_STEP_SIZE, "%s generation %" PRIu64 " of %s %s here", step->event + 5,
                 step->generation, step->peer, step->peer_key);
}

const char *views_step(const struct custody_step *step, char text[VIEWS_STEP_SIZE])
{
    static const struct {
        const char *event, *words;
    } names[] = {
        {"rotation.started", "started to generation"},
        {"rotation.confirmed", "confirmed: generation"},
        {"rotation.rolled-back", "rolled back: generation"},
        {"key.published", "published: generation"},
        {"key.activated", "active: generation"},
        {"key.deactivated", "deactivated: generation"},
        {"key.revoked", "revoked: generation"},
        {"key.destroyed", "destroyed: generation"},
        {"release.granted", "released: generation"},
        {"release.applied", "applied: generation"},
        {"release.failed", "NOT applied: generation"},
    };
    if (step->peer[0] != '\0') {
        peer_step(step, text);
        return text;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(step->event, names[i].event) != 0)
            continue;
        snprintf(text, VIEWS_STEP_SIZE, "%s %" PRIu64 "%s%s", names[i].words, step->generation,
                 step->detail[0] != '\0' ? ": " : "", step->detail);
        return text;
    }
    snprintf(text, VIEWS_STEP_SIZE, "%s", step->event);
    return text;
}

uint64_t views_print_steps(const struct custody_view *view, uint64_t seq)
{
    char when[PRINT_TIME_SIZE], text[VIEWS_STEP_SIZE];
    for (size_t i = 0; i < view->step_count; i++) {
        const struct custody_step *step = &view->steps[i];
        if (step->seq <= seq)
            continue;
        char clock[9];
        snprintf(clock, sizeof(clock), "%.8s", print_time(step->time_us, when) + 11);
        print_field(clock, "%s", views_step(step, text));
        seq = step->seq;
    }
    fflush(stdout);
    return seq;
}

// ---- JSON ----

static json_t *peer_json(const struct custody_peer *peer)
{
    char base64[PRINT_BASE64_SIZE];
    return json_pack("{so so sI ss ss so so so}", "host", print_json_text(peer->host), "key",
                     print_json_text(peer->key), "generation", (json_int_t)peer->generation,
                     "state", views_peer_state(peer->state), "public_key",
                     print_key(peer->public_key, base64), "staged",
                     print_json_time(peer->staged_us), "moved", print_json_time(peer->moved_us),
                     "retired", print_json_time(peer->retired_us));
}

static json_t *step_json(const struct custody_step *step)
{
    json_t *value = json_pack("{sI so so sI so}", "seq", (json_int_t)step->seq, "time",
                              print_json_time(step->time_us), "event", print_json_text(step->event),
                              "generation", (json_int_t)step->generation, "detail",
                              print_json_text(step->detail));
    if (value != NULL && step->peer[0] != '\0') {
        json_object_set_new(value, "peer", print_json_text(step->peer));
        json_object_set_new(value, "peer_key", print_json_text(step->peer_key));
    }
    if (value != NULL && strcmp(step->event, "peer.acknowledged") == 0)
        json_object_set_new(value, "peer_state", json_string(views_peer_state(step->peer_state)));
    return value;
}

static json_t *rotation_json(const struct custody_view *view)
{
    if (view->rotation_generation == 0)
        return json_null();
    return json_pack("{sI ss so so}", "generation", (json_int_t)view->rotation_generation, "reason",
                     view->rotation_reason == CUSTODY_REASON_OPERATOR ? "OPERATOR" : "ROTATION",
                     "ticket", print_json_text(view->rotation_ticket), "started",
                     print_json_time(view->rotation_started_us));
}

json_t *views_json(const struct custody_view *view)
{
    json_t *generations = json_array(), *peers = json_array(), *steps = json_array();
    for (size_t i = 0; i < view->generation_count; i++)
        json_array_append_new(generations, print_json_key(&view->generations[i]));
    for (size_t i = 0; i < view->peer_count; i++)
        json_array_append_new(peers, peer_json(&view->peers[i]));
    for (size_t i = 0; i < view->step_count; i++)
        json_array_append_new(steps, step_json(&view->steps[i]));
    return json_pack("{so so so so sI sb so so so}", "key", print_json_text(view->key),
                     "generations", generations, "rotation", rotation_json(view), "ended",
                     print_json_time(view->rotation_ended_us), "failures",
                     (json_int_t)view->rotation_failures, "suspended", (int)view->suspended,
                     "next_rotation", print_json_time(view->next_rotation_us), "peers", peers,
                     "steps", steps);
}
