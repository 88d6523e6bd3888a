// SPDX-License-Identifier: Apache-2.0
// Putting the parts together, and the daemon's life: start, reload, drain.
#include "daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "say.h"
#include "service.h"
#include "watches.h"

#define STATUS_INTERVAL_S 2 // how old what `status` tells of the token may be
#define PUBLISH_DELAY_MS  50
#define DRAIN_S           10   // how long a stop waits for what is in flight
#define OPEN_PATIENCE_MS  2000 // how long the start waits for the audit folder
#define CLOSE_PATIENCE_MS 5000 // how long the end waits for the log's disk

void daemon_set_phase(struct daemon *daemon, enum daemon_phase phase, const char *message)
{
    static const char *const names[] = {
        [DAEMON_CLOSED] = "not serving",
        [DAEMON_UNINITIALISED] = "waiting for token init",
        [DAEMON_SEALED] = "sealed",
        [DAEMON_READY] = "serving",
    };
    bool same = daemon->phase == phase && strcmp(daemon->phase_message, message) == 0;
    daemon->phase = phase;
    daemon->phase_code = ERROR_UNAVAILABLE;
    snprintf(daemon->phase_message, sizeof(daemon->phase_message), "%s", message);
    if (same)
        return;
    say(LOG_NOTICE, "%s%s%s", names[phase], message[0] != '\0' ? ": " : "", message);
    sd_notifyf(0, "STATUS=%s%s%s", names[phase], message[0] != '\0' ? ": " : "", message);
}

void daemon_close(struct daemon *daemon, const struct error *why)
{
    daemon_set_phase(daemon, DAEMON_CLOSED, why->message);
    if (why->code == ERROR_DATA_LOSS)
        daemon->phase_code = why->code;
}

static void on_recorded(void *context, const struct commit_result *result)
{
    (void)context;
    if (!result->recorded)
        say(LOG_WARNING, "%s was not recorded: %s", record_event_name(result->record->event),
            result->error.message);
}

void daemon_record(struct daemon *daemon, const struct record *record)
{
    struct error err;
    if (commit_submit(daemon->commit, record, KEEPER_ACTION_NONE, on_recorded, NULL, &err) != 0)
        say(LOG_WARNING, "%s was not recorded: %s", record_event_name(record->event), err.message);
}

static void stop_if_done(struct daemon *daemon);

// ---- keeper ----

static void on_keeper_ready(void *context, const struct keeper_status *status)
{
    struct daemon *daemon = context;
    daemon->keeper = *status;
    say(LOG_NOTICE, "keeper ready: token '%s' serial %s", status->token.label,
        status->token.serial);
    opening_begin(daemon->opening);
}

static void on_keeper_lost(void *context, const struct error *why)
{
    struct daemon *daemon = context;
    char message[ERROR_MESSAGE_MAX];
    struct error hangs;
    snprintf(message, sizeof(message), "the keeper is gone: %.400s", why->message);
    opening_cancel(daemon->opening);
    commit_close(daemon->commit, why);
    // A disk that hangs takes the keeper along; then it is the disk that people have to look at.
    if (!disk_is_hanging(daemon->disk, &hangs))
        daemon_set_phase(daemon, DAEMON_CLOSED, message);
    stop_if_done(daemon);
}

static void on_keeper_answered(void *context, enum keeper_op op, double seconds, bool ok)
{
    struct daemon *daemon = context;
    metrics_answered(daemon->metrics, op, seconds, ok);
}

static void on_status(void *context, const struct keeper_reply *reply)
{
    struct daemon *daemon = context;
    if (reply != NULL && reply->error.code == ERROR_OK)
        daemon->keeper = reply->body.status;
}

static void ask_status(struct daemon *daemon)
{
    struct keeper_request *request = calloc(1, sizeof(*request));
    if (request != NULL && keeper_link_ready(daemon->link))
        keeper_link_ask(daemon->link, request, KEEPER_STATUS, on_status, daemon, NULL);
    free(request);
    if (daemon->phase == DAEMON_READY)
        projection_refresh(daemon->projection, daemon->state);
    if (daemon->phase == DAEMON_READY && !daemon->stopping)
        commit_look_at_age(daemon->commit);
}

// ---- log ----

static void on_committed(void *context, const struct record *record)
{
    struct daemon *daemon = context;
    projection_feed(daemon->projection, record, 1);
    steps_note(daemon->steps, record);
    watches_note(daemon->watches, record);
    rotation_timer_note(daemon->rotation_timer, record);
    metrics_note(daemon->metrics, record);
    hooks_note(daemon->hooks, record);
}

static struct log_limits log_limits(const struct config *config)
{
    return (struct log_limits){.segment_size = config->log.segment_size,
                               .segment_age = config->log.segment_age_s};
}

static void on_commit_closed(void *context, const struct error *why)
{
    struct daemon *daemon = context;
    daemon_close(daemon, why);
    // A keeper that is gone opens the log again when it is back.
    if (keeper_link_ready(daemon->link)) {
        stuck_begin(daemon->stuck, why);
        opening_retry(daemon->opening);
    }
    stop_if_done(daemon);
}

static void on_looked(void *context, const struct error *why)
{
    struct daemon *daemon = context;
    if (why == NULL || !commit_is_open(daemon->commit))
        return;
    say(LOG_ERR, "the log takes no more records: %s", why->message);
    opening_cancel(daemon->opening);
    commit_close(daemon->commit, why);
    on_commit_closed(daemon, why);
}

static void on_status_timer(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    (void)fd;
    (void)what;
    ask_status(daemon);
    log_look(daemon->log, on_looked, daemon);
}

// Goes on with a stop: what is in flight is answered and recorded, then daemon.stopped is, and when
// the last answer is out the daemon ends.
static void stop_if_done(struct daemon *daemon)
{
    bool open = commit_is_open(daemon->commit);
    if (!daemon->stopping || listener_in_flight(daemon->listener) > 0 ||
        (open && !commit_is_idle(daemon->commit)))
        return;
    if (open && daemon->phase == DAEMON_READY && !daemon->stop_recorded) {
        struct record record = {.event = RECORD_DAEMON_STOPPED};
        daemon->stop_recorded = true;
        denials_flush(daemon->denials);
        daemon_record(daemon, &record);
    } else if (listener_is_drained(daemon->listener)) {
        event_base_loopbreak(daemon->base);
    }
}

static void on_drained(void *context)
{
    stop_if_done(context);
}

static void on_publish_timer(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    (void)fd;
    (void)what;
    log_publish(daemon->log);
    ask_status(daemon); // the head in the token is another by now
}

// Those who read the log from outside get its head and unfinished tiles soon, but not after each
// release.
static void on_commit_idle(void *context)
{
    struct daemon *daemon = context;
    struct timeval delay = {.tv_usec = PUBLISH_DELAY_MS * 1000};
    if (!event_pending(daemon->publish_timer, EV_TIMEOUT, NULL))
        event_add(daemon->publish_timer, &delay);
    stop_if_done(daemon);
}

// ---- signals ----

static void say_warnings(const struct config *config)
{
    char text[CONFIG_WARNING_SIZE];
    for (size_t i = 0; i < config->key_count; i++)
        if (config_key_warning(&config->keys[i], text))
            say(LOG_WARNING, "%s", text);
}

static void on_reload(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    struct error err;
    struct record record = {.event = RECORD_POLICY_LOADED};
    (void)fd;
    (void)what;
    keeper_link_resume(daemon->link);
    if (daemon->phase == DAEMON_SEALED && keeper_link_ready(daemon->link))
        loss_look_again(daemon->loss); // the files may be back
    struct config *config = config_read(daemon->config_path, &err);
    if (config == NULL || hooks_check(config, &err) != 0) {
        say(LOG_ERR, "the configuration stays as it was: %s", err.message);
        config_free(config);
        return;
    }
    if (strcmp(config->host, daemon->config->host) != 0 ||
        strcmp(config->audit_dir, daemon->config->audit_dir) != 0)
        say(LOG_WARNING,
            "host, audit-dir, socket, keeper and metrics take effect at the next start only");
    // What cannot change while the daemon runs stays: the running parts point into it.
    struct config *old = daemon->config;
    config_take_policy(old, config);
    config_free(config);
    listener_configure(daemon->listener, old);
    hooks_configure(daemon->hooks);
    struct log_limits limits = log_limits(old);
    log_set_limits(daemon->log, &limits);
    memcpy(record.policy_sha256, old->sha256, sizeof(record.policy_sha256));
    if (daemon->phase == DAEMON_READY && !daemon->stopping)
        daemon_record(daemon, &record);
    say_warnings(old);
    rotation_timer_look(daemon->rotation_timer);
    say(LOG_NOTICE, "configuration read again");
}

static void on_stop_timer(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    (void)fd;
    (void)what;
    say(LOG_WARNING, "stopping with %u request(s) in flight", listener_in_flight(daemon->listener));
    event_base_loopbreak(daemon->base);
}

static void on_stop(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    struct timeval patience = {.tv_sec = DRAIN_S};
    (void)fd;
    (void)what;
    if (daemon->stopping)
        return;
    daemon->stopping = true;
    sd_notify(0, "STOPPING=1");
    say(LOG_NOTICE, "stopping");
    listener_drain(daemon->listener);
    watches_end(daemon->watches);
    event_add(daemon->stop_timer, &patience);
    stop_if_done(daemon);
}

static void on_child(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    pid_t pid;
    int status;
    (void)fd;
    (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (!hooks_reaped(daemon->hooks, pid, status))
            keeper_link_reaped(daemon->link, pid, status);
}

// ---- life ----

// ---- the log's disk ----

static void on_disk_hangs(void *context, const struct error *why)
{
    struct daemon *daemon = context;
    say(LOG_ERR, "%s", why->message);
    opening_cancel(daemon->opening);
    commit_close(daemon->commit, why);
    stuck_begin(daemon->stuck, why);
    daemon_close(daemon, why);
    stop_if_done(daemon);
}

static void on_disk_back(void *context)
{
    struct daemon *daemon = context;
    if (keeper_link_ready(daemon->link))
        opening_begin(daemon->opening);
}

struct folder_opening {
    struct log *log;
    bool abandoned; // nobody waits any more
    bool failed;
    struct error error;
};

static void open_folder(void *context)
{
    struct folder_opening *folder = context;
    folder->failed = log_files_open(log_files(folder->log), &folder->error) != 0;
}

static void on_folder_open(void *context)
{
    struct folder_opening *folder = context;
    if (folder->abandoned)
        free(folder);
}

// A folder that cannot be had ends the daemon at its start. A disk that hangs does not: the log is
// opened when it is back.
static int open_log(struct daemon *daemon, struct error *err)
{
    struct disk_handlers handlers = {
        .hangs = on_disk_hangs, .back = on_disk_back, .context = daemon};
    daemon->disk = disk_new(daemon->base, &handlers, err);
    if (daemon->disk == NULL)
        return -1;
    struct log_limits limits = log_limits(daemon->config);
    daemon->log = log_new(daemon->config->audit_dir, daemon->disk, &limits, err);
    struct folder_opening *folder = calloc(1, sizeof(*folder));
    if (daemon->log == NULL || folder == NULL) {
        free(folder);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log");
    }
    folder->log = daemon->log;
    if (disk_do(daemon->disk, "opening the folder", open_folder, on_folder_open, folder, err) !=
        0) {
        free(folder);
        return -1;
    }
    folder->abandoned = !disk_wait(daemon->disk, OPEN_PATIENCE_MS);
    if (folder->abandoned)
        return 0;
    int result =
        folder->failed ? error_set(err, folder->error.code, "%s", folder->error.message) : 0;
    free(folder);
    return result;
}

static int make_log_and_keeper(struct daemon *daemon, struct error *err)
{
    struct keeper_link_handlers keeper = {
        .ready = on_keeper_ready,
        .lost = on_keeper_lost,
        .answered = on_keeper_answered,
        .context = daemon,
    };
    struct commit_handlers commit = {.closed = on_commit_closed,
                                     .committed = on_committed,
                                     .idle = on_commit_idle,
                                     .context = daemon};
    if (open_log(daemon, err) != 0)
        return -1;
    daemon->link = keeper_link_new(daemon->base, daemon->config, &keeper, err);
    if (daemon->link == NULL)
        return -1;
    daemon->commit =
        commit_new(daemon->base, daemon->link, daemon->log, daemon->config->host, &commit, err);
    if (daemon->commit == NULL)
        return -1;
    daemon->projection = projection_new(daemon->config->audit_dir, err);
    if (daemon->projection == NULL)
        return -1;
    daemon->loss = loss_new(daemon, err);
    if (daemon->loss == NULL)
        return -1;
    daemon->stuck = stuck_new(daemon, err);
    if (daemon->stuck == NULL)
        return -1;
    daemon->opening = opening_new(daemon, err);
    return daemon->opening != NULL ? 0 : -1;
}

static int make_service(struct daemon *daemon, struct error *err)
{
    struct listener_handlers handlers = {.request = service_request,
                                         .hello = service_hello,
                                         .drained = on_drained,
                                         .context = daemon};
    daemon->denials = denials_new(daemon, err);
    if (daemon->denials == NULL)
        return -1;
    daemon->leases = leases_new(daemon, err);
    if (daemon->leases == NULL)
        return -1;
    daemon->watches = watches_new(daemon, err);
    if (daemon->watches == NULL)
        return -1;
    daemon->rotation_timer = rotation_timer_new(daemon, err);
    if (daemon->rotation_timer == NULL)
        return -1;
    daemon->listener = listener_new(daemon->base, daemon->config, &handlers, err);
    if (daemon->listener == NULL)
        return -1;
    daemon->hooks = hooks_new(daemon, err);
    if (daemon->hooks == NULL)
        return -1;
    daemon->metrics = metrics_new(daemon, err);
    return daemon->metrics != NULL ? 0 : -1;
}

struct daemon *daemon_new(const char *config_path, struct error *err)
{
    struct daemon *daemon = calloc(1, sizeof(*daemon));
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the daemon");
    if (daemon == NULL)
        return NULL;
    daemon->config_path = config_path;
    daemon->started_us = commit_now_us();
    daemon->phase = DAEMON_CLOSED;
    snprintf(daemon->phase_message, sizeof(daemon->phase_message),
             "the keeper has not logged in yet");
    daemon->config = config_read(config_path, err);
    if (daemon->config == NULL)
        goto fail;
    daemon->base = event_base_new();
    daemon->state = state_new();
    daemon->rates = policy_rates_new();
    daemon->steps = steps_new();
    if (daemon->base == NULL || daemon->state == NULL || daemon->rates == NULL ||
        daemon->steps == NULL)
        goto fail;
    daemon->status_timer = event_new(daemon->base, -1, EV_PERSIST, on_status_timer, daemon);
    daemon->publish_timer = evtimer_new(daemon->base, on_publish_timer, daemon);
    daemon->stop_timer = evtimer_new(daemon->base, on_stop_timer, daemon);
    if (daemon->status_timer == NULL || daemon->publish_timer == NULL || daemon->stop_timer == NULL)
        goto fail;
    if (make_log_and_keeper(daemon, err) == 0 && make_service(daemon, err) == 0)
        return daemon;
fail:
    daemon_free(daemon);
    return NULL;
}

int daemon_run(struct daemon *daemon)
{
    static const struct {
        int number;
        event_callback_fn handler;
    } signals[] = {{SIGHUP, on_reload}, {SIGTERM, on_stop}, {SIGINT, on_stop}, {SIGCHLD, on_child}};
    enum { COUNT = sizeof(signals) / sizeof(signals[0]) };
    struct event *events[COUNT] = {NULL};
    struct timeval interval = {.tv_sec = STATUS_INTERVAL_S};
    int result = -1;
    for (size_t i = 0; i < COUNT; i++) {
        events[i] = evsignal_new(daemon->base, signals[i].number, signals[i].handler, daemon);
        if (events[i] == NULL || event_add(events[i], NULL) != 0)
            goto cleanup;
    }
    event_add(daemon->status_timer, &interval);
    say_warnings(daemon->config);
    keeper_link_start(daemon->link);
    sd_notify(0, "READY=1");
    result = event_base_dispatch(daemon->base) < 0 ? -1 : 0;
    if (event_pending(daemon->publish_timer, EV_TIMEOUT, NULL))
        log_publish(daemon->log);
    say(LOG_NOTICE, "stopped");
cleanup:
    for (size_t i = 0; i < COUNT; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    return result;
}

void daemon_free(struct daemon *daemon)
{
    if (daemon == NULL)
        return;
    // A thread that hangs in its disk uses what it uses until the process ends.
    bool hangs = !disk_free(daemon->disk, CLOSE_PATIENCE_MS);
    const struct error ends = {.code = ERROR_UNAVAILABLE, .message = "the daemon stops"};
    // What waits is failed, and so answered, while there still is a listener to answer through.
    if (hangs && daemon->commit != NULL)
        commit_close(daemon->commit, &ends);
    else
        commit_free(daemon->commit);
    daemon->commit = NULL;
    keeper_link_free(daemon->link);
    metrics_free(daemon->metrics);
    hooks_free(daemon->hooks);
    watches_free(daemon->watches);
    listener_free(daemon->listener);
    opening_free(daemon->opening);
    stuck_free(daemon->stuck);
    leases_free(daemon->leases);
    rotation_timer_free(daemon->rotation_timer);
    steps_free(daemon->steps);
    denials_free(daemon->denials);
    projection_free(daemon->projection);
    if (!hangs) {
        log_free(daemon->log);
        loss_free(daemon->loss);
    }
    state_free(daemon->state);
    policy_rates_free(daemon->rates);
    if (daemon->status_timer != NULL)
        event_free(daemon->status_timer);
    if (daemon->publish_timer != NULL)
        event_free(daemon->publish_timer);
    if (daemon->stop_timer != NULL)
        event_free(daemon->stop_timer);
    if (daemon->base != NULL)
        event_base_free(daemon->base);
    config_free(daemon->config);
    free(daemon);
}
