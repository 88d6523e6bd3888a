// SPDX-License-Identifier: Apache-2.0
// custodyctl status: the daemon, its token and its log at a glance.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "print.h"
#include "views.h"

static json_t *status_json(const struct custody_status *status)
{
    json_t *warnings = json_array();
    for (size_t i = 0; i < status->warning_count; i++)
        json_array_append_new(warnings, print_json_text(status->warnings[i]));
    return json_pack(
        "{so so so sb sb so sb so sI sI so so so so sI sI sI so sb sI sI ss so}", "host",
        print_json_text(status->host), "version", print_json_text(status->version), "started",
        print_json_time(status->started_us), "initialised", (int)status->initialised,
        "keeper_ready", (int)status->keeper_ready, "keeper_message",
        print_json_text(status->keeper_message), "log_ready", (int)status->log_ready, "log_message",
        print_json_text(status->log_message), "log_size", (json_int_t)status->log_size, "head_size",
        (json_int_t)status->head_size, "log_root", print_json_text(status->log_root), "log_vkey",
        print_json_text(status->log_vkey), "host_vkey", print_json_text(status->host_vkey), "token",
        print_json_token(&status->token), "leases", (json_int_t)status->leases, "connections",
        (json_int_t)status->connections, "keys", (json_int_t)status->keys, "warnings", warnings,
        "sealed", (int)status->sealed, "head_lag", (json_int_t)status->head_lag, "head_interval_ms",
        (json_int_t)status->head_interval_ms, "restore",
        status->restore_unnoticed ? "unnoticed" : "unknown", "approvals",
        print_json_text(status->approvals));
}

// How far back an attacker could set the log without the token's noticing.
static void print_head(const struct custody_status *status)
{
    print_field("unprotected", "%" PRIu64 " records now; at most those of the last %u ms",
                status->head_lag, status->head_interval_ms);
    print_field("restore", "%s",
                status->restore_unnoticed
                    ? "an older copy of this token and of the log, put back together, goes "
                      "UNNOTICED: its objects are files"
                    : "whether an older copy of this token can be put back is not known to "
                      "custody: ask the vendor");
}

static void print_rotations(const struct views *views)
{
    if (views_count(views) > 0)
        puts("keys");
    for (size_t i = 0; i < views_count(views); i++)
        views_print_line(views_at(views, i));
}

static json_t *rotations_json(const struct views *views)
{
    json_t *list = json_array();
    for (size_t i = 0; i < views_count(views); i++) {
        const struct custody_view *view = views_at(views, i);
        json_array_append_new(
            list, json_pack("{so so sI sb so}", "key", print_json_text(view->key), "generation",
                            view->rotation_generation != 0
                                ? json_integer((json_int_t)view->rotation_generation)
                                : json_null(),
                            "failures", (json_int_t)view->rotation_failures, "suspended",
                            (int)view->suspended, "next_rotation",
                            print_json_time(view->next_rotation_us)));
    }
    return list;
}

// Those that can be had: none while the log is not open.
static struct views *fetch_views(struct ctl *ctl, const struct custody_status *status)
{
    struct custody_key *keys = NULL;
    size_t count = 0;
    if (!status->log_ready || custody_list_keys(ctl->custody, NULL, &keys, &count, NULL) < 0)
        return NULL;
    struct views *views = views_get(ctl->custody, keys, count);
    free(keys);
    return views;
}

static void status_print(const struct custody_status *status, const struct views *views)
{
    char started[PRINT_TIME_SIZE];
    print_field("host", "%s", status->host);
    print_field("daemon", "custodyd %s, since %s", status->version,
                print_time(status->started_us, started));
    print_ready("keeper", status->keeper_ready, status->keeper_message);
    print_field("token", "%s",
                status->initialised ? "initialised"
                                    : "not initialised: run 'custodyctl token init'");
    if (status->token.label[0] != '\0')
        print_field("", "'%s', %s, serial %s, %u sealed keys", status->token.label,
                    status->token.model, status->token.serial, status->token.blobs);
    if (status->sealed)
        print_field("log", "SEALED: %s", status->log_message);
    else
        print_ready("log", status->log_ready, status->log_message);
    print_field("", "%" PRIu64 " records signed, %" PRIu64 " under the head in the token",
                status->log_size, status->head_size);
    print_head(status);
    print_field("approvals", "%s",
                strcmp(status->approvals, "uids") == 0 ? "two operators' uids (the weaker mode)"
                                                       : "two operators' signatures");
    print_field("generations", "%u", status->keys);
    print_field("open leases", "%u", status->leases);
    print_field("connections", "%u", status->connections);
    print_rotations(views);
    print_long("log root", status->log_root);
    print_long("log key", status->log_vkey);
    print_long("host key", status->host_vkey);
    for (size_t i = 0; i < status->warning_count; i++)
        print_field("WARNING", "%s", status->warnings[i]);
}

#define WATCH_S 2

static enum ctl_exit show_once(struct ctl *ctl)
{
    struct custody_status status;
    struct custody_error err;
    if (custody_status(ctl->custody, &status, &err) < 0)
        return ctl_fail(ctl, &err);
    struct views *views = fetch_views(ctl, &status);
    json_t *value = ctl->json ? status_json(&status) : NULL;
    enum ctl_exit result = CTL_OK;
    if (value != NULL)
        json_object_set_new(value, "rotations", rotations_json(views));
    if (ctl->json)
        result = ctl_written(ctl, print_json(value));
    else
        status_print(&status, views);
    views_free(views);
    return result;
}

enum ctl_exit status_show(struct ctl *ctl)
{
    bool screen = ctl->watch && !ctl->json && isatty(STDOUT_FILENO);
    for (;;) {
        if (screen)
            fputs("\033[H\033[2J", stdout);
        enum ctl_exit result = show_once(ctl);
        if (result != CTL_OK || !ctl->watch)
            return result;
        if (!ctl->json && !screen)
            putchar('\n');
        if (fflush(stdout) != 0)
            return ctl_fail_here(ctl, "the output could not be written");
        sleep(WATCH_S);
    }
}
