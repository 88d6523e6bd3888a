// SPDX-License-Identifier: Apache-2.0
// One interruption at a time: since when, why, and whether the log knows.
#include "stuck.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "say.h"

#define ROOM_INTERVAL_S 2 // how often a full disk is looked at

struct stuck {
    struct daemon *daemon;
    struct event *room_timer;
    bool on;
    bool recorded; // log.stuck is in the log, or on its way there
    bool full;
    int64_t since_us;
    struct error why;
};

static void on_room(void *context, const struct error *why)
{
    struct stuck *stuck = context;
    struct timeval interval = {.tv_sec = ROOM_INTERVAL_S};
    if (!stuck->full)
        return; // the log was closed since
    if (why != NULL) {
        event_add(stuck->room_timer, &interval);
        return;
    }
    stuck->full = false;
    opening_go_on(stuck->daemon->opening);
}

static void on_room_timer(evutil_socket_t fd, short what, void *context)
{
    struct stuck *stuck = context;
    struct error err;
    (void)fd;
    (void)what;
    if (stuck->full && log_make_room(stuck->daemon->log, on_room, stuck, &err) != 0)
        on_room(stuck, &err);
}

struct stuck *stuck_new(struct daemon *daemon, struct error *err)
{
    struct stuck *stuck = calloc(1, sizeof(*stuck));
    if (stuck != NULL) {
        stuck->daemon = daemon;
        stuck->room_timer = evtimer_new(daemon->base, on_room_timer, stuck);
        if (stuck->room_timer != NULL)
            return stuck;
    }
    free(stuck);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log's interruptions");
    return NULL;
}

void stuck_free(struct stuck *stuck)
{
    if (stuck == NULL)
        return;
    event_free(stuck->room_timer);
    free(stuck);
}

void stuck_begin(struct stuck *stuck, const struct error *why)
{
    if (stuck->on)
        return;
    stuck->on = true;
    stuck->recorded = false;
    stuck->since_us = commit_now_us();
    stuck->why = *why;
}

void stuck_stop_waiting(struct stuck *stuck)
{
    stuck->full = false;
    event_del(stuck->room_timer);
}

bool stuck_is_on(const struct stuck *stuck)
{
    return stuck->on;
}

// A path in the message may be cut, or no UTF-8 to begin with.
static void make_utf8(char *text)
{
    if (name_is_utf8(text, strlen(text)))
        return;
    for (; *text != '\0'; text++)
        if ((unsigned char)*text >= 0x80)
            *text = '?';
}

// What took the reserve's room was quicker: the record is made when there is room again.
static void on_stuck_recorded(void *context, const struct commit_result *result)
{
    struct stuck *stuck = context;
    if (result->recorded)
        return;
    say(LOG_WARNING, "log.stuck was not recorded yet: %s", result->error.message);
    stuck->recorded = false;
}

static void record(struct stuck *stuck, enum record_event event, const char *verb, bool ended)
{
    struct error err;
    struct record record = {
        .event = event, .not_before_us = stuck->since_us, .not_after_us = commit_now_us()};
    char since[RECORD_TIME_SIZE] = "-", until[RECORD_TIME_SIZE] = "-";
    record_time_format(stuck->since_us, since);
    record_time_format(record.not_after_us, until);
    snprintf(record.detail, sizeof(record.detail),
             "releases %s stopped from %s%s%s because: %.360s", verb, since, ended ? " to " : " on",
             ended ? until : "", stuck->why.message);
    make_utf8(record.detail);
    if (event != RECORD_LOG_STUCK) {
        daemon_record(stuck->daemon, &record);
        return;
    }
    stuck->recorded = commit_submit(stuck->daemon->commit, &record, KEEPER_ACTION_NONE,
                                    on_stuck_recorded, stuck, &err) == 0;
}

void stuck_wait_for_room(struct stuck *stuck)
{
    struct timeval interval = {.tv_sec = ROOM_INTERVAL_S};
    struct error why;
    error_set(&why, ERROR_UNAVAILABLE,
              "the log's disk is full (%s): make room in %s, and records and releases go on by "
              "themselves",
              strerror(ENOSPC), stuck->daemon->config->audit_dir);
    stuck_begin(stuck, &why);
    stuck->full = true;
    event_add(stuck->room_timer, &interval);
    daemon_close(stuck->daemon, &why);
    if (!stuck->recorded)
        record(stuck, RECORD_LOG_STUCK, "are", false);
}

void stuck_end(struct stuck *stuck)
{
    if (!stuck->on)
        return;
    if (!stuck->recorded)
        record(stuck, RECORD_LOG_STUCK, "were", true);
    record(stuck, RECORD_LOG_RECOVERED, "were", true);
    say(LOG_NOTICE, "the log is written again; it was not because: %s", stuck->why.message);
    stuck->on = false;
}
