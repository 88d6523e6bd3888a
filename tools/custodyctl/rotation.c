// SPDX-License-Identifier: Apache-2.0
// custodyctl key rotate, suspend, resume, revoke, history: keys as a whole.
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"
#include "print.h"
#include "views.h"

// ---- waiting for changes ----

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Replaces `*view` by the one after the next change. `until_ms` is on the monotonic clock, -1 for
// no end. Returns 1, 0 when the time was over first, -1 after a failure was told.
static int next_view(struct ctl *ctl, struct custody_view **view, int64_t until_ms)
{
    struct custody_error err;
    struct custody_view *fresh;
    int answered = 0;
    if (custody_watch(ctl->custody, (*view)->seq, &err) < 0)
        goto fail;
    while (answered == 0) {
        struct pollfd poll_fd = {.fd = custody_fd(ctl->custody), .events = POLLIN};
        int64_t left = until_ms < 0 ? -1 : until_ms - now_ms();
        if (until_ms >= 0 && left <= 0)
            return 0;
        if (poll(&poll_fd, 1, left > INT32_MAX ? INT32_MAX : (int)left) < 0 && errno != EINTR) {
            ctl_fail_here(ctl, "poll: %s", strerror(errno));
            return -1;
        }
        answered = custody_watch_take(ctl->custody, &err);
    }
    if (answered < 0 || custody_get_view(ctl->custody, (*view)->key, &fresh, &err) < 0)
        goto fail;
    custody_view_free(*view);
    *view = fresh;
    return 1;
fail:
    ctl_fail(ctl, &err);
    ctl_fail_here(ctl, "what was begun goes on without this: custodyctl key history %s",
                  (*view)->key);
    return -1;
}

// ---- what the steps say ----

static bool is_step(const struct custody_step *step, const char *event, uint64_t generation)
{
    return strcmp(step->event, event) == 0 && step->generation == generation;
}

static bool has_step(const struct custody_view *view, const char *event, uint64_t generation)
{
    for (size_t i = 0; i < view->step_count; i++)
        if (is_step(&view->steps[i], event, generation))
            return true;
    return false;
}

static enum custody_key_state state_of(const struct custody_view *view, uint64_t generation)
{
    for (size_t i = 0; i < view->generation_count; i++)
        if (view->generations[i].generation == generation)
            return view->generations[i].state;
    return CUSTODY_KEY_DESTROYED;
}

// Whether the rotation to `generation`, which is over, was confirmed. Its end may have been seen by
// a custodyd that was restarted since: then the generation's state tells.
static bool was_confirmed(const struct custody_view *view, uint64_t generation)
{
    if (has_step(view, "rotation.rolled-back", generation))
        return false;
    return has_step(view, "rotation.confirmed", generation) ||
           state_of(view, generation) == CUSTODY_KEY_ACTIVE;
}

// Whether the rotation to `generation` is over, and that in the log: the view may be ahead of it.
static bool is_over(const struct custody_view *view, uint64_t generation)
{
    if (view->rotation_generation == generation)
        return false;
    return !has_step(view, "rotation.started", generation) || // another has begun since
           has_step(view, "rotation.confirmed", generation) ||
           has_step(view, "rotation.rolled-back", generation);
}

// Whether a counterpart has acknowledged that it did that with our generation.
static bool has_acknowledged(const struct custody_view *view, const char *host, const char *key,
                             enum custody_peer_state state, uint64_t generation)
{
    for (size_t i = 0; i < view->step_count; i++) {
        const struct custody_step *step = &view->steps[i];
        if (is_step(step, "peer.acknowledged", generation) && step->peer_state == state &&
            strcmp(step->peer, host) == 0 && strcmp(step->peer_key, key) == 0)
            return true;
    }
    return false;
}

// The next counterpart on our interface from `*i` on; NULL at the end.
static const struct custody_peer *next_counterpart(const struct custody_view *view, size_t *i)
{
    while (*i < view->peer_count)
        if (view->peers[(*i)++].state == CUSTODY_PEER_MOVED)
            return &view->peers[*i - 1];
    return NULL;
}

// The counterparts that have (or have not) acknowledged, as "beta wg0, gamma wg0".
static char *list_counterparts(const struct custody_view *view, enum custody_peer_state state,
                               uint64_t generation, bool acknowledged)
{
    char *list = NULL;
    size_t size = 0, i = 0;
    const struct custody_peer *peer;
    FILE *out = open_memstream(&list, &size);
    if (out == NULL)
        return NULL;
    const char *separator = "";
    while ((peer = next_counterpart(view, &i)) != NULL) {
        if (has_acknowledged(view, peer->host, peer->key, state, generation) != acknowledged)
            continue;
        fprintf(out, "%s%s %s", separator, peer->host, peer->key);
        separator = ", ";
    }
    fclose(out);
    return list;
}

static json_t *counterparts_json(const struct custody_view *view, enum custody_peer_state state,
                                 uint64_t generation, bool acknowledged)
{
    json_t *list = json_array();
    const struct custody_peer *peer;
    size_t i = 0;
    while ((peer = next_counterpart(view, &i)) != NULL)
        if (has_acknowledged(view, peer->host, peer->key, state, generation) == acknowledged)
            json_array_append_new(list, json_pack("{so so}", "host", print_json_text(peer->host),
                                                  "key", print_json_text(peer->key)));
    return list;
}

// ---- rotating ----

static void print_end(const struct custody_view *view, uint64_t generation, bool confirmed)
{
    char *by = list_counterparts(view, CUSTODY_PEER_MOVED, generation, true);
    char *not_by = list_counterparts(view, CUSTODY_PEER_MOVED, generation, false);
    bool any = by != NULL && by[0] != '\0', others = not_by != NULL && not_by[0] != '\0';
    if (confirmed)
        printf("%s generation %" PRIu64 " is active, confirmed by: %s\n", view->key, generation,
               any ? by : "nobody that said so");
    else
        printf("%s was rolled back: generation %" PRIu64 " is withdrawn, and the key before it is "
               "in use.\n",
               view->key, generation);
    if (others && confirmed)
        printf("Not confirmed by: %s\n", not_by);
    free(by);
    free(not_by);
}

static enum ctl_exit tell_end(struct ctl *ctl, const struct custody_view *view, uint64_t generation)
{
    bool confirmed = was_confirmed(view, generation);
    enum ctl_exit result = confirmed ? CTL_OK : CTL_FAILED;
    if (!ctl->json) {
        print_end(view, generation, confirmed);
        return result;
    }
    json_t *value = views_json(view);
    if (value != NULL) {
        json_object_set_new(value, "result", json_string(confirmed ? "confirmed" : "rolled-back"));
        json_object_set_new(value, "confirmed_by",
                            counterparts_json(view, CUSTODY_PEER_MOVED, generation, true));
        json_object_set_new(value, "not_confirmed_by",
                            counterparts_json(view, CUSTODY_PEER_MOVED, generation, false));
    }
    enum ctl_exit written = ctl_written(ctl, print_json(value));
    return written != CTL_OK ? written : result;
}

// The generation that the rotation leads to which was begun last: it may have ended before its
// start was answered.
static uint64_t begun_last(const struct custody_view *view)
{
    uint64_t generation = 0;
    for (size_t i = 0; i < view->step_count; i++)
        if (strcmp(view->steps[i].event, "rotation.started") == 0)
            generation = view->steps[i].generation;
    return generation != 0 ? generation : view->rotation_generation;
}

// Shows each step until the rotation has ended.
static enum ctl_exit follow_rotation(struct ctl *ctl, struct custody_view **view)
{
    uint64_t generation = begun_last(*view), seen = 0;
    for (;;) {
        if (!ctl->json)
            seen = views_print_steps(*view, seen);
        if (is_over(*view, generation))
            return tell_end(ctl, *view, generation);
        if (next_view(ctl, view, -1) < 0)
            return CTL_FAILED;
    }
}

static enum ctl_exit tell_started(struct ctl *ctl, const struct custody_view *view)
{
    if (ctl->json)
        return ctl_written(ctl, print_json(views_json(view)));
    printf("A rotation of %s to generation %" PRIu64 " has begun. The applier carries it out:\n"
           "'custodyctl key history %s' shows how far it is.\n",
           view->key, begun_last(view), view->key);
    return CTL_OK;
}

enum ctl_exit key_rotate(struct ctl *ctl)
{
    struct custody_view *view = NULL;
    struct custody_error err;
    if (custody_key_rotate(ctl->custody, ctl->arguments[0], ctl->ticket, ctl->reason, &view, &err) <
        0)
        return ctl_fail(ctl, &err);
    enum ctl_exit result = ctl->wait ? follow_rotation(ctl, &view) : tell_started(ctl, view);
    custody_view_free(view);
    return result;
}

// ---- an operator's hold ----

enum ctl_exit key_suspend(struct ctl *ctl)
{
    struct custody_view *view = NULL;
    struct custody_error err;
    enum ctl_exit result = CTL_OK;
    if (custody_key_suspend(ctl->custody, ctl->arguments[0], ctl->ticket, &view, &err) < 0)
        return ctl_fail(ctl, &err);
    if (ctl->json)
        result = ctl_written(ctl, print_json(views_json(view)));
    else
        printf("%s is suspended: it is neither released nor rotated until\n"
               "'custodyctl key resume %s'.\n"
               "The interface keeps the key that it has: nothing is cleared.\n",
               view->key, view->key);
    custody_view_free(view);
    return result;
}

enum ctl_exit key_resume(struct ctl *ctl)
{
    struct custody_view *view = NULL;
    struct custody_error err;
    enum ctl_exit result = CTL_OK;
    if (custody_key_resume(ctl->custody, ctl->arguments[0], ctl->ticket, &view, &err) < 0)
        return ctl_fail(ctl, &err);
    if (ctl->json)
        result = ctl_written(ctl, print_json(views_json(view)));
    else
        printf("%s is released and rotated again.\n", view->key);
    custody_view_free(view);
    return result;
}

// ---- revoking ----

static bool all_dropped(const struct custody_view *view, uint64_t generation)
{
    const struct custody_peer *peer;
    size_t i = 0;
    while ((peer = next_counterpart(view, &i)) != NULL)
        if (!has_acknowledged(view, peer->host, peer->key, CUSTODY_PEER_RETIRED, generation))
            return false;
    return true;
}

static void print_revoked(const struct custody_view *view, uint64_t generation)
{
    char *dropped = list_counterparts(view, CUSTODY_PEER_RETIRED, generation, true);
    char *not_yet = list_counterparts(view, CUSTODY_PEER_RETIRED, generation, false);
    printf("%s generation %" PRIu64 " is revoked, for good.\n", view->key, generation);
    if (view->rotation_generation != 0)
        printf("Generation %" PRIu64 " replaces it; the applier carries that out.\n",
               view->rotation_generation);
    print_field("dropped by", "%s", dropped != NULL && dropped[0] != '\0' ? dropped : "nobody yet");
    if (not_yet != NULL && not_yet[0] != '\0')
        print_field("NOT dropped by", "%s", not_yet);
    free(dropped);
    free(not_yet);
}

static enum ctl_exit tell_revoked(struct ctl *ctl, const struct custody_view *view,
                                  uint64_t generation)
{
    if (!ctl->json) {
        print_revoked(view, generation);
        return CTL_OK;
    }
    json_t *value = views_json(view);
    if (value != NULL) {
        json_object_set_new(value, "revoked", json_integer((json_int_t)generation));
        json_object_set_new(value, "dropped_by",
                            counterparts_json(view, CUSTODY_PEER_RETIRED, generation, true));
        json_object_set_new(value, "not_dropped_by",
                            counterparts_json(view, CUSTODY_PEER_RETIRED, generation, false));
    }
    return ctl_written(ctl, print_json(value));
}

// Shows each step until the replacement is in and all have dropped the revoked one, or the time of
// --timeout is over.
static enum ctl_exit follow_revocation(struct ctl *ctl, struct custody_view **view,
                                       uint64_t generation)
{
    int64_t until_ms = now_ms() + ctl->timeout_ms;
    uint64_t seen = 0;
    bool done = false;
    for (int more = 1; more > 0 && !done;) {
        if (!ctl->json)
            seen = views_print_steps(*view, seen);
        done = (*view)->rotation_generation == 0 && all_dropped(*view, generation);
        if (!done)
            more = next_view(ctl, view, until_ms);
        if (more < 0)
            return CTL_FAILED;
    }
    enum ctl_exit told = tell_revoked(ctl, *view, generation);
    return told == CTL_OK && !done ? CTL_FAILED : told;
}

// The generation that is meant: before it is revoked it can still be told.
static int choose_generation(struct ctl *ctl, uint64_t *generation)
{
    struct custody_view *view = NULL;
    struct custody_error err;
    *generation = ctl->generation;
    if (*generation != 0)
        return 0;
    if (custody_get_view(ctl->custody, ctl->arguments[0], &view, &err) < 0) {
        ctl_fail(ctl, &err);
        return -1;
    }
    for (size_t i = 0; i < view->generation_count; i++)
        if (view->generations[i].state == CUSTODY_KEY_ACTIVE)
            *generation = view->generations[i].generation;
    custody_view_free(view);
    if (*generation != 0)
        return 0;
    ctl_fail_here(ctl, "key '%s' has no active generation: --generation says which",
                  ctl->arguments[0]);
    return -1;
}

enum ctl_exit key_revoke(struct ctl *ctl)
{
    struct custody_view *view = NULL;
    struct custody_error err;
    uint64_t generation;
    if (choose_generation(ctl, &generation) < 0)
        return CTL_FAILED;
    if (custody_key_revoke(ctl->custody, ctl->arguments[0], generation, ctl->ticket, &view, &err) <
        0)
        return ctl_fail(ctl, &err);
    enum ctl_exit result =
        ctl->wait ? follow_revocation(ctl, &view, generation) : tell_revoked(ctl, view, generation);
    custody_view_free(view);
    return result;
}

// ---- history ----

static void print_generations(const struct custody_key *keys, size_t count)
{
    char generated[PRINT_TIME_SIZE], activated[PRINT_TIME_SIZE];
    printf("%3s  %-11s  %-23s  %-23s\n", "GEN", "STATE", "GENERATED", "ACTIVATED");
    for (size_t i = 0; i < count; i++)
        printf("%3" PRIu64 "  %-11s  %-23s  %s\n", keys[i].generation,
               custody_key_state_name(keys[i].state), print_time(keys[i].generated_us, generated),
               print_time(keys[i].activated_us, activated));
}

static void print_counterparts(const struct custody_view *view)
{
    char when[PRINT_TIME_SIZE];
    for (size_t i = 0; i < view->peer_count; i++) {
        const struct custody_peer *peer = &view->peers[i];
        int64_t since = peer->state == CUSTODY_PEER_RETIRED ? peer->retired_us
                        : peer->state == CUSTODY_PEER_MOVED ? peer->moved_us
                                                            : peer->staged_us;
        print_field(i == 0 ? "counterparts" : "", "%s %s generation %" PRIu64 " %s since %s",
                    peer->host, peer->key, peer->generation, views_peer_state(peer->state),
                    print_time(since, when));
    }
}

static void print_history(const struct custody_view *view, const struct custody_key *keys,
                          size_t count)
{
    char when[PRINT_TIME_SIZE];
    print_generations(keys, count);
    putchar('\n');
    views_print_line(view);
    print_field("last rotation", "%s%s", view->rotation_ended_us != 0 ? "ended " : "",
                print_time(view->rotation_ended_us, when));
    if (view->bundle_generation != 0)
        print_field("bundle", "generation %" PRIu64 " was published last", view->bundle_generation);
    print_counterparts(view);
    if (view->step_count > 0)
        printf("\nThe rotation that began last:\n");
    views_print_steps(view, 0);
    printf("\nThe log knows the rest: custody-audit query AUDIT-DIR --key=%s\n", view->key);
}

enum ctl_exit key_history(struct ctl *ctl)
{
    struct custody_view *view = NULL;
    struct custody_key *keys = NULL;
    struct custody_error err;
    size_t count = 0;
    enum ctl_exit result = CTL_OK;
    if (custody_get_view(ctl->custody, ctl->arguments[0], &view, &err) < 0 ||
        custody_list_keys(ctl->custody, ctl->arguments[0], &keys, &count, &err) < 0)
        result = ctl_fail(ctl, &err);
    else if (!ctl->json)
        print_history(view, keys, count);
    else
        result = ctl_written(ctl, print_json(views_json(view)));
    free(keys);
    custody_view_free(view);
    return result;
}
