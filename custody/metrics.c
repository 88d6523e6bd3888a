// SPDX-License-Identifier: Apache-2.0
// Where metrics go: a socket that the event loop serves, and a file that a thread of its own
// writes.
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "daemon.h"
#include "disk.h"
#include "metrics_text.h"
#include "say.h"
#include "scrape.h"

#define CLOSE_PATIENCE_MS 1000

struct metrics {
    struct daemon *daemon;
    struct metrics_counts counts;
    struct scrape *scrape;
    struct event *scraped; // the socket has something to do
    struct disk *disk;     // that the file is on: it may hang by itself
    struct event *timer;   // writes the file
    bool writing;
    char told[ERROR_MESSAGE_MAX]; // why the file could not be written, said last
};

// A file on its way to the disk.
struct writing {
    struct metrics *metrics;
    char *path, *text;
    size_t length;
    bool failed;
    struct error error;
};

static char *render(void *context, enum openmetrics_format format, size_t *length)
{
    const struct metrics *metrics = context;
    return metrics_text(&metrics->counts, metrics->daemon, format, length);
}

static void on_scraped(evutil_socket_t fd, short what, void *context)
{
    struct metrics *metrics = context;
    (void)fd;
    (void)what;
    scrape_work(metrics->scrape);
}

// ---- the file ----

static void complain(struct metrics *metrics, const struct error *why)
{
    if (strcmp(metrics->told, why->message) != 0)
        say(LOG_WARNING, "%s", why->message);
    memcpy(metrics->told, why->message, sizeof(metrics->told));
}

static void writing_free(struct writing *writing)
{
    free(writing->path);
    free(writing->text);
    free(writing);
}

// In the thread.
static void write_file(void *context)
{
    struct writing *writing = context;
    writing->failed =
        scrape_write_file(writing->path, writing->text, writing->length, &writing->error) != 0;
}

static void on_written(void *context)
{
    struct writing *writing = context;
    struct metrics *metrics = writing->metrics;
    metrics->writing = false;
    if (writing->failed)
        complain(metrics, &writing->error);
    else
        metrics->told[0] = '\0';
    writing_free(writing);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct metrics *metrics = context;
    struct error err;
    (void)fd;
    (void)what;
    struct writing *writing = metrics->writing ? NULL : calloc(1, sizeof(*writing));
    if (writing == NULL)
        return; // the next time
    writing->metrics = metrics;
    writing->path = strdup(metrics->daemon->config->metrics.textfile);
    writing->text = render(metrics, OPENMETRICS_PROMETHEUS, &writing->length);
    metrics->writing =
        writing->path != NULL && writing->text != NULL &&
        disk_do(metrics->disk, "writing the metrics", write_file, on_written, writing, &err) == 0;
    if (!metrics->writing)
        writing_free(writing);
}

static void on_hangs(void *context, const struct error *why)
{
    struct metrics *metrics = context;
    struct error err;
    (void)why; // which speaks of the log's disk
    error_set(&err, ERROR_UNAVAILABLE, "metrics file %s: its disk hangs",
              metrics->daemon->config->metrics.textfile);
    complain(metrics, &err);
}

static void on_back(void *context)
{
    (void)context;
}

static int open_file(struct metrics *metrics, struct error *err)
{
    struct event_base *base = metrics->daemon->base;
    struct timeval interval = {.tv_sec = metrics->daemon->config->metrics.interval_s}, soon = {0};
    struct disk_handlers handlers = {.hangs = on_hangs, .back = on_back, .context = metrics};
    metrics->disk = disk_new(base, &handlers, err);
    if (metrics->disk == NULL)
        return -1;
    metrics->timer = event_new(base, -1, EV_PERSIST, on_timer, metrics);
    if (metrics->timer == NULL || event_add(metrics->timer, &interval) != 0 ||
        event_base_once(base, -1, EV_TIMEOUT, on_timer, metrics, &soon) != 0)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the metrics' timer");
    return 0;
}

// ---- life ----

static int open_socket(struct metrics *metrics, struct error *err)
{
    metrics->scrape = scrape_open(metrics->daemon->config->metrics.socket, render, metrics, err);
    if (metrics->scrape == NULL)
        return -1;
    metrics->scraped = event_new(metrics->daemon->base, scrape_fd(metrics->scrape),
                                 EV_READ | EV_PERSIST, on_scraped, metrics);
    if (metrics->scraped == NULL || event_add(metrics->scraped, NULL) != 0)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the metrics' socket");
    return 0;
}

struct metrics *metrics_new(struct daemon *daemon, struct error *err)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for metrics");
        return NULL;
    }
    metrics->daemon = daemon;
    if ((daemon->config->metrics.socket == NULL || open_socket(metrics, err) == 0) &&
        (daemon->config->metrics.textfile == NULL || open_file(metrics, err) == 0))
        return metrics;
    metrics_free(metrics);
    return NULL;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    if (metrics->scraped != NULL)
        event_free(metrics->scraped);
    scrape_close(metrics->scrape);
    if (metrics->timer != NULL)
        event_free(metrics->timer);
    // A thread that hangs uses what it uses until the process ends; none of it is ours.
    if (metrics->disk != NULL)
        disk_free(metrics->disk, CLOSE_PATIENCE_MS);
    metrics_counts_clear(&metrics->counts);
    free(metrics);
}

void metrics_note(struct metrics *metrics, const struct record *record)
{
    metrics_count_record(&metrics->counts, metrics->daemon, record);
}

void metrics_answered(struct metrics *metrics, enum keeper_op op, double seconds, bool ok)
{
    metrics_count_answer(&metrics->counts, op, seconds, ok, commit_now_us());
}
