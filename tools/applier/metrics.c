// SPDX-License-Identifier: Apache-2.0
// The applier's families of metrics, and where they go; custody-applier(8) lists them.
#include "metrics.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counterparts.h"
#include "scrape.h"

#define READ_AGAIN_MS 5000 // a scrape reads no device more often than that
#define STACK_SIZE    (64 * 1024)
#define LABELS        OPENMETRICS_LABELS

// ---- families ----

// A number told of an interface, or of one of its counterparts. False: nothing to tell.
typedef bool interface_value(const struct tended *tended, double *value);
typedef bool peer_value(const struct tended *tended, const struct tended_peer *peer, double *value);

static double age_of(int64_t then_us)
{
    int64_t age = tended_now_us() - then_us;
    return then_us == 0 ? INFINITY : age > 0 ? (double)age / 1e6 : 0;
}

static bool is_present(const struct tended *tended, double *value)
{
    *value = tended->present;
    return true;
}

static bool pass_age(const struct tended *tended, double *value)
{
    *value = (double)(device_now_ms() - tended->passed_ms) / 1000;
    return tended->passed_ms != 0;
}

static bool pass_failures(const struct tended *tended, double *value)
{
    *value = tended->failures;
    return true;
}

static bool last_hold(const struct tended *tended, double *value)
{
    *value = (double)tended->counts.held_ms / 1000;
    return tended->counts.has_held;
}

static bool drift(const struct tended *tended, double *value)
{
    *value = tended->counts.drift;
    return tended->counts.knows_drift;
}

static bool handshake_age(const struct tended *tended, const struct tended_peer *peer,
                          double *value)
{
    const uint8_t *key =
        tended->view != NULL && tended->there != NULL ? counterparts_key(tended, peer) : NULL;
    const struct device_peer *there = key != NULL ? device_view_peer(tended->there, key) : NULL;
    *value = there == NULL ? INFINITY
                           : age_of(there->latest_handshake.tv_sec * INT64_C(1000000) +
                                    there->latest_handshake.tv_nsec / 1000);
    return tended->present;
}

static bool generation(const struct tended *tended, const struct tended_peer *peer, double *value)
{
    const struct custody_peer *current =
        tended->view != NULL ? plan_current(tended->view, peer->setup->host, peer->setup->key)
                             : NULL;
    *value = current != NULL ? (double)current->generation : 0;
    return tended->view != NULL;
}

static bool leftovers(const struct tended *tended, const struct tended_peer *peer, double *value)
{
    if (tended->view == NULL)
        return false;
    *value = plan_leftovers(tended->view, &peer->says, peer->setup->host, peer->setup->key);
    return true;
}

static bool fresh_age(const struct tended *tended, const struct tended_peer *peer, double *value)
{
    *value = age_of(peer->says.fresh.time_us);
    return tended->world->registry != NULL;
}

static bool is_stale(const struct tended *tended, const struct tended_peer *peer, double *value)
{
    *value = peer->says.stale;
    return tended->world->registry != NULL && tended->passed_ms != 0;
}

static const struct {
    const char *name, *unit, *help;
    interface_value *of_interface;
    peer_value *of_peer;
} families[] = {
    {"custody_applier_interface_present", NULL, "1: the interface is there.", is_present, NULL},
    {"custody_applier_last_pass_age_seconds", "seconds",
     "Since the interface, its key and its counterparts were looked at last.", pass_age, NULL},
    {"custody_applier_pass_failures", NULL, "Looks in a row, up to now, that failed.",
     pass_failures, NULL},
    {"custody_applier_last_hold_seconds", "seconds",
     "For how long outgoing packets waited in the last rotation that held them.", last_hold, NULL},
    {"custody_applier_drift", NULL,
     "Differences between the log, the signed bundles and the interface.", drift, NULL},
    {"custody_applier_handshake_age_seconds", "seconds",
     "Since the counterpart's latest handshake; +Inf: never.", NULL, handshake_age},
    {"custody_applier_counterpart_generation", NULL,
     "The counterpart's generation that has the allowed-ips; 0: none.", NULL, generation},
    {"custody_applier_leftover_peers", NULL,
     "Generations staged on the interface that the counterpart does not announce any more.", NULL,
     leftovers},
    {"custody_applier_freshness_age_seconds", "seconds",
     "Since the counterpart signed its newest freshness note; +Inf: none was ever seen.", NULL,
     fresh_age},
    {"custody_applier_stale", NULL, "1: nothing new of the counterpart is staged.", NULL, is_stale},
};

static void put_family(struct openmetrics *text, const struct metrics_source *source, size_t f)
{
    double value;
    openmetrics_family(text, OPENMETRICS_GAUGE, families[f].name, families[f].unit,
                       families[f].help);
    for (size_t i = 0; i < source->count; i++) {
        const struct tended *tended = source->tended[i];
        const char *name = tended->setup->name;
        if (families[f].of_interface != NULL && families[f].of_interface(tended, &value))
            openmetrics_sample(text, LABELS("interface", name), value);
        for (size_t p = 0; families[f].of_peer != NULL && p < tended->peer_count; p++)
            if (families[f].of_peer(tended, &tended->peers[p], &value))
                openmetrics_sample(text,
                                   LABELS("interface", name, "host", tended->peers[p].setup->host,
                                          "key", tended->peers[p].setup->key),
                                   value);
    }
}

static void put_process(struct openmetrics *text, const struct tended_world *world)
{
    openmetrics_family(text, OPENMETRICS_GAUGE, "custody_applier_build_info", NULL,
                       "1: which custody-applier this is, and of which host.");
    openmetrics_sample(text, LABELS("host", world->own_host, "version", PACKAGE_VERSION), 1);
    openmetrics_family(text, OPENMETRICS_GAUGE, "custody_applier_custodyd_reachable", NULL,
                       "1: custodyd is connected to.");
    openmetrics_sample(text, NULL, world->custody != NULL);
    openmetrics_family(text, OPENMETRICS_GAUGE, "custody_applier_registry_reachable", NULL,
                       "1: the registry can be read.");
    if (world->registry != NULL)
        openmetrics_sample(text, NULL, !world->registry_gone);
}

static void put_counters(struct openmetrics *text, const struct metrics_source *source)
{
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_applier_rotations", NULL,
                       "Rotations of our own keys that ended, by outcome.");
    for (size_t i = 0; i < source->count; i++) {
        const struct tended *tended = source->tended[i];
        openmetrics_sample(text, LABELS("interface", tended->setup->name, "outcome", "confirmed"),
                           (double)tended->counts.confirmed);
        openmetrics_sample(text, LABELS("interface", tended->setup->name, "outcome", "rolled-back"),
                           (double)tended->counts.rolled_back);
    }
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_applier_device_requests", NULL,
                       "Messages sent to the interface's WireGuard since it was found.");
    for (size_t i = 0; i < source->count; i++)
        if (source->tended[i]->device != NULL)
            openmetrics_sample(text, LABELS("interface", source->tended[i]->setup->name),
                               (double)device_messages(source->tended[i]->device).sent);
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_applier_refused_notes", NULL,
                       "Different notes in the registry that were not believed, by kind.");
    for (size_t i = 0; i < source->count; i++)
        for (unsigned kind = 1; kind < REFUSAL_KINDS; kind++)
            openmetrics_sample(text,
                               LABELS("interface", source->tended[i]->setup->name, "kind",
                                      refusal_kind_name(kind)),
                               (double)source->tended[i]->counts.refused[kind]);
}

char *metrics_text(const struct metrics_source *source, enum openmetrics_format format,
                   size_t *length)
{
    struct openmetrics text;
    int64_t now = device_now_ms();
    for (size_t i = 0; i < source->count; i++) {
        struct tended *tended = source->tended[i];
        struct error unimportant; // the next pass finds out, and says so
        if (tended->present && now > tended->read_ms + READ_AGAIN_MS && now > tended->hot_until_ms)
            (void)tended_read(tended, &unimportant);
    }
    openmetrics_begin(&text, format);
    put_process(&text, source->world);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        put_family(&text, source, f);
    put_counters(&text, source);
    return openmetrics_end(&text, length);
}

// ---- the file, written by a thread: its disk may hang ----

struct writing {
    char *path, *text;
    size_t length;
    atomic_bool ended;
    bool failed;
    struct error error;
};

struct metrics {
    const struct metrics_source *source;
    struct scrape *scrape; // NULL: none
    char *textfile;        // NULL: none
    int64_t interval_ms, due_ms;
    struct writing *writing; // NULL: none is under way
    char told[ERROR_MESSAGE_MAX];
};

static void *write_file(void *context)
{
    struct writing *writing = context;
    writing->failed =
        scrape_write_file(writing->path, writing->text, writing->length, &writing->error) != 0;
    atomic_store(&writing->ended, true);
    return NULL;
}

static void writing_free(struct writing *writing)
{
    free(writing->path);
    free(writing->text);
    free(writing);
}

static void complain(struct metrics *metrics, const char *why)
{
    if (strcmp(metrics->told, why) != 0)
        fprintf(stderr, "%s\n", why);
    snprintf(metrics->told, sizeof metrics->told, "%s", why);
}

// Whether the one before is over.
static bool take_written(struct metrics *metrics)
{
    struct writing *writing = metrics->writing;
    if (writing == NULL)
        return true;
    if (!atomic_load(&writing->ended)) {
        complain(metrics, "the metrics' file: its disk hangs");
        return false;
    }
    if (writing->failed)
        complain(metrics, writing->error.message);
    else
        metrics->told[0] = '\0';
    writing_free(writing);
    metrics->writing = NULL;
    return true;
}

// Signals are blocked in the whole process, so the thread takes none.
static bool start_thread(struct writing *writing)
{
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    bool started = pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0 &&
                   pthread_attr_setstacksize(&attributes, STACK_SIZE) == 0 &&
                   pthread_create(&thread, &attributes, write_file, writing) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

static void start_writing(struct metrics *metrics)
{
    struct writing *writing = take_written(metrics) ? calloc(1, sizeof *writing) : NULL;
    if (writing == NULL)
        return; // the next time
    writing->path = strdup(metrics->textfile);
    writing->text = metrics_text(metrics->source, OPENMETRICS_PROMETHEUS, &writing->length);
    if (writing->path != NULL && writing->text != NULL && start_thread(writing))
        metrics->writing = writing;
    else
        writing_free(writing);
}

// ---- life ----

static char *render(void *context, enum openmetrics_format format, size_t *length)
{
    const struct metrics *metrics = context;
    return metrics_text(metrics->source, format, length);
}

struct metrics *metrics_open(const struct setup *setup, const struct metrics_source *source,
                             struct error *err)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for metrics");
        return NULL;
    }
    metrics->source = source;
    metrics->interval_ms = setup->metrics_interval_s * INT64_C(1000);
    if (setup->metrics_textfile != NULL) {
        metrics->textfile = strdup(setup->metrics_textfile);
        if (metrics->textfile == NULL) {
            error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for metrics");
            goto fail;
        }
    }
    if (setup->metrics_socket == NULL)
        return metrics;
    metrics->scrape = scrape_open(setup->metrics_socket, render, metrics, err);
    if (metrics->scrape != NULL)
        return metrics;
fail:
    metrics_close(metrics);
    return NULL;
}

void metrics_close(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    scrape_close(metrics->scrape);
    // What is still being written is the thread's, until the process ends.
    if (metrics->writing != NULL && atomic_load(&metrics->writing->ended))
        writing_free(metrics->writing);
    free(metrics->textfile);
    free(metrics);
}

int metrics_fd(const struct metrics *metrics)
{
    return metrics != NULL && metrics->scrape != NULL ? scrape_fd(metrics->scrape) : -1;
}

int64_t metrics_due_ms(const struct metrics *metrics)
{
    return metrics != NULL && metrics->textfile != NULL ? metrics->due_ms : INT64_MAX;
}

void metrics_work(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    if (metrics->scrape != NULL)
        scrape_work(metrics->scrape);
    int64_t now = device_now_ms();
    if (metrics->textfile == NULL || now < metrics->due_ms)
        return;
    metrics->due_ms = now + metrics->interval_ms;
    start_writing(metrics);
}
