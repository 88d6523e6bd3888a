// SPDX-License-Identifier: Apache-2.0
// The loop that stays: one thread, driven by links that come and go, signals, and times to try
// again.
#include "run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <sodium.h>

#include "link_watch.h"

#define RUN_NEVER   INT64_MAX
#define RUN_LOOK_MS 60000 // look at the interfaces at least that often, whatever was told

// One interface that is looked after.
struct charge {
    const char *interface, *key;
    bool present, seen_before; // now; ever
    bool told;                 // release even if the interface has the current key
    bool set;                  // has its key, as far as we know
    struct device_identity identity;
    enum custody_reason reason;
    int64_t due_ms;    // when to try; RUN_NEVER: nothing to do
    int64_t held_ms;   // a refusal holds until then, whatever appears
    unsigned failures; // in a row
    struct rate rate;
    struct error last; // said last, so as not to say it again
};

struct round {
    struct apply_settings *settings;
    struct charge *charges;
    size_t count;
    struct link_watch *watch;
    int signals; // signalfd
    bool ready, ended;
};

// ---- what is there ----

static void mark_changed(const char *interface, void *context)
{
    struct round *round = context;
    for (size_t i = 0; i < round->count; i++)
        if (strcmp(round->charges[i].interface, interface) == 0)
            round->charges[i].present = false;
}

static void appeared(struct charge *charge)
{
    int64_t now = device_now_ms();
    charge->reason = charge->seen_before ? CUSTODY_REASON_RESTORE : CUSTODY_REASON_BOOT;
    charge->present = charge->seen_before = true;
    charge->set = false;
    charge->due_ms = charge->held_ms > now ? charge->held_ms : now;
}

static void look(struct round *round)
{
    for (size_t i = 0; i < round->count; i++) {
        struct charge *charge = &round->charges[i];
        struct device_identity identity;
        const struct device_ops *device =
            device_select(round->settings->backend, charge->interface);
        if (device->find(charge->interface, &identity, NULL) != 0) {
            charge->present = charge->set = false;
            charge->due_ms = RUN_NEVER;
        } else if (!charge->present || !device_identity_equal(&identity, &charge->identity)) {
            charge->identity = identity;
            appeared(charge);
        }
    }
}

// ---- doing ----

static void say(struct charge *charge, const struct error *err, int64_t wait_ms)
{
    if (err->code == charge->last.code && strcmp(err->message, charge->last.message) == 0)
        return;
    charge->last = *err;
    fprintf(stderr, "custody-applier: %s: %s; trying again in %.1f s\n", charge->interface,
            err->message, (double)wait_ms / 1000);
}

static void succeeded(struct charge *charge, enum apply_outcome outcome,
                      const struct apply_report *report, const struct error *err)
{
    charge->failures = 0;
    charge->last = (struct error){.code = ERROR_OK};
    charge->due_ms = RUN_NEVER;
    charge->set = true;
    charge->told = false;
    if (outcome == APPLY_CURRENT)
        fprintf(stderr, "custody-applier: %s: has the current generation of key %s already\n",
                charge->interface, charge->key);
    else
        fprintf(stderr,
                "custody-applier: %s: key %s generation %llu set, public key %s, log index %llu, "
                "lease %s%s%s\n",
                charge->interface, charge->key, (unsigned long long)report->generation,
                report->public_key, (unsigned long long)report->log_index, report->lease,
                outcome == APPLY_UNRECORDED ? "; but " : "",
                outcome == APPLY_UNRECORDED ? err->message : "");
}

static void attempt(struct round *round, struct charge *charge)
{
    struct apply_report report;
    struct error err = {.code = ERROR_OK};
    const struct apply_task task = {.interface = charge->interface,
                                    .key = charge->key,
                                    .reason = charge->reason,
                                    .skip_current = !charge->told};
    enum apply_outcome outcome = apply_once(round->settings, &task, &report, &err);
    int64_t now = device_now_ms();
    if (report.asked)
        rate_take(&charge->rate, now);
    if (outcome == APPLY_CONFIRMED || outcome == APPLY_CURRENT || outcome == APPLY_UNRECORDED) {
        succeeded(charge, outcome, &report, &err);
        return;
    }
    bool costly =
        report.asked && err.code != ERROR_UNAVAILABLE && err.code != ERROR_DEADLINE_EXCEEDED;
    int64_t wait = retry_wait_ms(costly, ++charge->failures, randombytes_random());
    charge->due_ms = rate_next_ms(&charge->rate, now + wait);
    if (costly && report.lease[0] == '\0')
        charge->held_ms = charge->due_ms; // the daemon's refusal
    say(charge, &err, charge->due_ms - now);
}

static void attempt_due(struct round *round)
{
    for (size_t i = 0; i < round->count; i++) {
        struct charge *charge = &round->charges[i];
        int64_t now = device_now_ms();
        if (!charge->present || charge->due_ms > now)
            continue;
        charge->due_ms = rate_next_ms(&charge->rate, now);
        if (charge->due_ms <= now)
            attempt(round, charge);
    }
}

// ---- telling ----

static void tell_systemd(struct round *round)
{
    size_t set = 0, missing = 0;
    const struct charge *trouble = NULL;
    for (size_t i = 0; i < round->count; i++) {
        const struct charge *charge = &round->charges[i];
        set += charge->set;
        missing += !charge->present;
        if (charge->present && charge->last.code != ERROR_OK)
            trouble = charge;
    }
    sd_notifyf(0, "%sSTATUS=%zu of %zu interfaces have their key, %zu not there%s%s%s%s",
               round->ready ? "" : "READY=1\n", set, round->count, missing,
               trouble == NULL ? "" : "; ", trouble == NULL ? "" : trouble->interface,
               trouble == NULL ? "" : ": ", trouble == NULL ? "" : trouble->last.message);
    round->ready = true;
}

// ---- waiting ----

static void told_all(struct round *round)
{
    for (size_t i = 0; i < round->count; i++) {
        struct charge *charge = &round->charges[i];
        charge->told = true;
        charge->reason = CUSTODY_REASON_OPERATOR;
        charge->held_ms = 0;
        charge->failures = 0;
        charge->due_ms = device_now_ms();
        charge->last = (struct error){.code = ERROR_OK};
    }
    round->settings->may_list = true;
}

static void take_signals(struct round *round)
{
    struct signalfd_siginfo info;
    while (read(round->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            told_all(round);
        else
            round->ended = true;
    }
}

static int wait_ms(const struct round *round)
{
    int64_t now = device_now_ms(), until = now + RUN_LOOK_MS;
    for (size_t i = 0; i < round->count; i++)
        if (round->charges[i].present && round->charges[i].due_ms < until)
            until = round->charges[i].due_ms;
    return until > now ? (int)(until - now) : 0;
}

static int wait_for_something(struct round *round, struct error *err)
{
    struct pollfd fds[LINK_WATCH_FDS + 1];
    link_watch_fds(round->watch, fds);
    fds[LINK_WATCH_FDS] = (struct pollfd){.fd = round->signals, .events = POLLIN};
    int n = poll(fds, LINK_WATCH_FDS + 1, wait_ms(round));
    if (n < 0 && errno != EINTR)
        return error_set(err, ERROR_INTERNAL, "poll: %s", strerror(errno));
    if (n > 0 && fds[LINK_WATCH_FDS].revents != 0)
        take_signals(round);
    return link_watch_drain(round->watch, mark_changed, round, err);
}

static int open_signals(struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return error_set(err, ERROR_INTERNAL, "sigprocmask: %s", strerror(errno));
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 ? fd : error_set(err, ERROR_INTERNAL, "signalfd: %s", strerror(errno));
}

static struct charge *make_charges(const struct run_target *targets, size_t count,
                                   const struct rate *rate)
{
    struct charge *charges = calloc(count, sizeof *charges);
    for (size_t i = 0; charges != NULL && i < count; i++)
        charges[i] = (struct charge){.interface = targets[i].interface,
                                     .key = targets[i].key,
                                     .due_ms = RUN_NEVER,
                                     .rate = *rate};
    return charges;
}

int run(struct apply_settings *settings, const struct run_target *targets, size_t count,
        const struct rate *rate, struct error *err)
{
    int rc = -1;
    struct round round = {.settings = settings, .count = count, .signals = -1};
    round.charges = make_charges(targets, count, rate);
    if (round.charges == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto cleanup;
    }
    round.signals = open_signals(err);
    if (round.signals < 0 || link_watch_open(&round.watch, err) != 0)
        goto cleanup;
    rc = 0;
    while (rc == 0 && !round.ended) {
        look(&round);
        attempt_due(&round);
        tell_systemd(&round);
        rc = wait_for_something(&round, err);
    }
    sd_notify(0, "STOPPING=1");
cleanup:
    link_watch_close(round.watch);
    if (round.signals >= 0)
        close(round.signals);
    free(round.charges);
    return rc;
}
