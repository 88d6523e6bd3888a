// SPDX-License-Identifier: Apache-2.0
// Counting, and the families of metrics; custodyd.conf(5) lists them.
#include "metrics_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "hooks.h"
#include "schedule.h"
#include "token_service.h"

#define SECONDS(us) ((double)(us) / 1e6)
#define LABELS      OPENMETRICS_LABELS

static const double hsm_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                    0.25,  0.5,    1,     2.5,  5,     10};

static const char *const op_names[METRICS_OPS] = {
    [KEEPER_STATUS] = "status", [KEEPER_PROBE] = "probe",       [KEEPER_INIT] = "init",
    [KEEPER_LIST] = "list",     [KEEPER_GENERATE] = "generate", [KEEPER_LOG_OPEN] = "log-open",
    [KEEPER_COMMIT] = "commit",
};

// ---- counting ----

static struct metrics_key *find_key(const struct metrics_counts *counts, const char *key)
{
    for (size_t i = 0; i < counts->key_count; i++)
        if (strcmp(counts->keys[i].key, key) == 0)
            return &counts->keys[i];
    return NULL;
}

// NULL when out of memory: then that is not counted.
static struct metrics_key *take_key(struct metrics_counts *counts, const char *key)
{
    struct metrics_key *known = find_key(counts, key);
    if (known != NULL)
        return known;
    if (counts->key_count == counts->key_room) {
        size_t room = counts->key_room == 0 ? 8 : 2 * counts->key_room;
        struct metrics_key *grown = realloc(counts->keys, room * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        counts->keys = grown;
        counts->key_room = room;
    }
    known = &counts->keys[counts->key_count++];
    memset(known, 0, sizeof(*known));
    snprintf(known->key, sizeof(known->key), "%s", key);
    return known;
}

// All the counterparts of a key, as the log knows them, have to confirm that they dropped it.
static void begin_revocation(struct metrics_key *key, const struct daemon *daemon,
                             const struct record *record)
{
    const struct peers *peers = state_peers(daemon->state);
    key->revoked = record->generation;
    key->unconfirmed_count = 0;
    for (size_t i = 0; i < peers->count; i++) {
        const struct peer *peer = &peers->items[i];
        bool again = key->unconfirmed_count > 0 &&
                     strcmp(key->unconfirmed[key->unconfirmed_count - 1], peer->host) == 0;
        if (strcmp(peer->key, record->key) != 0 || peer->state == PEER_RETIRED || again)
            continue;
        if (key->unconfirmed_count == key->unconfirmed_room) {
            size_t room = key->unconfirmed_room == 0 ? 8 : 2 * key->unconfirmed_room;
            void *grown = realloc(key->unconfirmed, room * sizeof(key->unconfirmed[0]));
            if (grown == NULL)
                return;
            key->unconfirmed = grown;
            key->unconfirmed_room = room;
        }
        snprintf(key->unconfirmed[key->unconfirmed_count++], sizeof(key->unconfirmed[0]), "%s",
                 peer->host);
    }
}

static void note_confirmation(struct metrics_key *key, const struct record *record)
{
    if (record->peer_state != PEER_RETIRED || record->peer_generation != key->revoked)
        return;
    for (size_t i = 0; i < key->unconfirmed_count; i++)
        if (strcmp(key->unconfirmed[i], record->peer) == 0) {
            memmove(key->unconfirmed[i], key->unconfirmed[key->unconfirmed_count - 1],
                    sizeof(key->unconfirmed[0]));
            key->unconfirmed_count--;
            return;
        }
}

static void count_denial(struct metrics_counts *counts, const struct record *record)
{
    uint64_t more = 1 + record->count;
    size_t i = 0;
    while (i < counts->denied_kinds && strcmp(counts->denied[i].request, record->request) != 0)
        i++;
    if (i == METRICS_REQUESTS_MAX)
        return;
    if (i == counts->denied_kinds) {
        memcpy(counts->denied[i].request, record->request, sizeof(counts->denied[i].request));
        counts->denied_kinds++;
    }
    counts->denied[i].count += more;
}

void metrics_count_record(struct metrics_counts *counts, const struct daemon *daemon,
                          const struct record *record)
{
    struct metrics_key *key = NULL;
    if (record->event < RECORD_EVENTS) {
        counts->records[record->event]++;
        counts->occurrences[record->event] += 1 + record->count;
    }
    if (record->key[0] != '\0' && record->event != RECORD_RELEASE_DENIED &&
        record->event != RECORD_ACCESS_DENIED)
        key = take_key(counts, record->key);
    switch (record->event) {
    case RECORD_RELEASE_DENIED:
    case RECORD_ACCESS_DENIED:
        count_denial(counts, record);
        return;
    case RECORD_ROTATION_STARTED:
        if (key != NULL)
            key->started++;
        return;
    case RECORD_ROTATION_CONFIRMED:
        if (key != NULL)
            key->confirmed++;
        return;
    case RECORD_ROTATION_ROLLED_BACK:
        if (key != NULL)
            key->rolled_back++;
        return;
    case RECORD_KEY_REVOKED:
        if (key != NULL)
            begin_revocation(key, daemon, record);
        return;
    case RECORD_PEER_ACKNOWLEDGED:
        if (key != NULL)
            note_confirmation(key, record);
        return;
    default:
        return;
    }
}

void metrics_count_answer(struct metrics_counts *counts, enum keeper_op op, double seconds, bool ok,
                          int64_t now_us)
{
    if (op >= METRICS_OPS || op_names[op] == NULL)
        return;
    if (!ok) {
        counts->hsm_failures[op]++;
        return;
    }
    counts->hsm[op].bounds = hsm_bounds;
    counts->hsm[op].bound_count = sizeof(hsm_bounds) / sizeof(hsm_bounds[0]);
    openmetrics_observe(&counts->hsm[op], seconds);
    if (op != KEEPER_STATUS) // which the keeper answers by itself
        counts->hsm_success_us = now_us;
}

void metrics_counts_clear(struct metrics_counts *counts)
{
    for (size_t i = 0; i < counts->key_count; i++)
        free(counts->keys[i].unconfirmed);
    free(counts->keys);
    memset(counts, 0, sizeof(*counts));
}

// ---- families ----

static void gauge(struct openmetrics *text, const char *name, const char *unit, const char *help,
                  double value)
{
    openmetrics_family(text, OPENMETRICS_GAUGE, name, unit, help);
    openmetrics_sample(text, NULL, value);
}

static void put_daemon(struct openmetrics *text, const struct daemon *daemon)
{
    openmetrics_family(text, OPENMETRICS_GAUGE, "custody_build_info", NULL,
                       "1: which custodyd this is, and of which host.");
    openmetrics_sample(text, LABELS("host", daemon->config->host, "version", PACKAGE_VERSION), 1);
    gauge(text, "custody_start_time_seconds", "seconds", "When custodyd was started.",
          SECONDS(daemon->started_us));
    gauge(text, "custody_connections", NULL, "Clients that are connected.",
          listener_connections(daemon->listener));
    gauge(text, "custody_leases_open", NULL, "Releases whose outcome is not known yet.",
          (double)state_leases(daemon->state));
}

static void put_log(struct openmetrics *text, const struct daemon *daemon)
{
    gauge(text, "custody_log_ready", NULL, "1: records are taken and releases are served.",
          daemon->phase == DAEMON_READY);
    gauge(text, "custody_log_stuck", NULL,
          "1: nothing can be recorded, for the log's disk is full or fails.",
          stuck_is_on(daemon->stuck));
    gauge(text, "custody_log_sealed", NULL,
          "1: token and log disagree, and nothing is served until operators have seen to it.",
          daemon->phase == DAEMON_SEALED);
    gauge(text, "custody_log_records", NULL, "Records under the signed head.",
          (double)log_size(daemon->log));
    gauge(text, "custody_log_segment_bytes", "bytes", "Size of the segment that is written.",
          (double)log_segment_bytes(daemon->log));
    gauge(text, "custody_head_lag_records", NULL,
          "Records that the head in the token does not cover.",
          (double)token_service_head_lag(daemon));
    gauge(text, "custody_head_interval_seconds", "seconds",
          "For how long the head in the token may lag.",
          (double)daemon->keeper.head_interval_ms / 1000);
}

static void put_hsm(struct openmetrics *text, const struct metrics_counts *counts,
                    const struct daemon *daemon)
{
    gauge(text, "custody_keeper_ready", NULL, "1: the keeper has logged in to the token.",
          keeper_link_ready(daemon->link));
    gauge(text, "custody_token_sealed_keys", NULL, "Sealed keys that the token holds.",
          daemon->keeper.blobs);
    gauge(text, "custody_hsm_last_success_timestamp_seconds", "seconds",
          "When the token did last what was asked of it; 0: not since custodyd was started.",
          SECONDS(counts->hsm_success_us));
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_hsm_failures", NULL,
                       "What was asked of the keeper and failed, or was lost with it.");
    for (size_t op = 0; op < METRICS_OPS; op++)
        if (op_names[op] != NULL)
            openmetrics_sample(text, LABELS("operation", op_names[op]),
                               (double)counts->hsm_failures[op]);
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "custody_hsm_operation_duration_seconds",
                       "seconds",
                       "How long the keeper took to answer, the disk's part of a commit included.");
    for (size_t op = 0; op < METRICS_OPS; op++)
        if (counts->hsm[op].bounds != NULL)
            openmetrics_histogram(text, LABELS("operation", op_names[op]), &counts->hsm[op]);
}

static void put_releases(struct openmetrics *text, const struct metrics_counts *counts)
{
    const struct {
        const char *outcome;
        uint64_t count;
    } releases[] = {
        {"granted", counts->records[RECORD_RELEASE_GRANTED]},
        {"denied", counts->occurrences[RECORD_RELEASE_DENIED]},
        {"applied", counts->records[RECORD_RELEASE_APPLIED]},
        {"failed", counts->records[RECORD_RELEASE_FAILED]},
        {"expired", counts->records[RECORD_LEASE_EXPIRED]},
    };
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_releases", NULL,
                       "Releases of keys, by what became of them; a granted one is counted again "
                       "when its outcome is known.");
    for (size_t i = 0; i < sizeof(releases) / sizeof(releases[0]); i++)
        openmetrics_sample(text, LABELS("outcome", releases[i].outcome), (double)releases[i].count);
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_denials", NULL,
                       "Requests that were refused for lack of a role or a grant, by request.");
    for (size_t i = 0; i < counts->denied_kinds; i++)
        openmetrics_sample(text, LABELS("request", counts->denied[i].request),
                           (double)counts->denied[i].count);
}

static void put_records(struct openmetrics *text, const struct metrics_counts *counts)
{
    static const enum record_event findings[] = {RECORD_NOTE_REJECTED, RECORD_REGISTRY_STALE,
                                                 RECORD_REGISTRY_FRESH, RECORD_DRIFT_FOUND,
                                                 RECORD_DRIFT_CLEARED};
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_records", NULL,
                       "Records committed, by event.");
    // From 0 on, so that a rate sees the first one.
    for (unsigned event = RECORD_NONE + 1; event < RECORD_EVENTS; event++)
        openmetrics_sample(text, LABELS("event", record_event_name(event)),
                           (double)counts->records[event]);
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_findings", NULL,
                       "What appliers found, by the event that records it.");
    for (size_t i = 0; i < sizeof(findings) / sizeof(findings[0]); i++)
        openmetrics_sample(text, LABELS("finding", record_event_name(findings[i])),
                           (double)counts->occurrences[findings[i]]);
}

// ---- keys ----

// What is told of a declared key, one number each. NULL labels apart, all are gauges.
struct key_facts {
    const struct config_key *config;
    const struct state_key *active;  // NULL: none
    const struct rotation *rotation; // NULL: none ever
    const struct metrics_key *counts;
    const struct daemon *daemon;
    int64_t now_us;
    unsigned generations[KEY_STATES]; // how many are in each state
};

// The facts of all declared keys, in the configuration's order, for the caller to free(). NULL when
// out of memory.
static struct key_facts *gather_facts(const struct metrics_counts *counts,
                                      const struct daemon *daemon)
{
    size_t count = daemon->config->key_count;
    struct key_facts *facts = calloc(count + 1, sizeof(*facts));
    for (size_t i = 0; facts != NULL && i < count; i++) {
        const struct config_key *config = &daemon->config->keys[i];
        facts[i] = (struct key_facts){
            .config = config,
            .active = state_key_active(daemon->state, config->name),
            .rotation = rotations_find(state_rotations(daemon->state), config->name),
            .counts = find_key(counts, config->name),
            .daemon = daemon,
            .now_us = commit_now_us(),
        };
    }
    // The state has its generations ordered by name.
    struct key_facts *last = NULL;
    for (size_t k = 0; facts != NULL && k < state_keys(daemon->state); k++) {
        const struct state_key *key = state_key_at(daemon->state, k);
        if (last == NULL || strcmp(last->config->name, key->name) != 0) {
            const struct config_key *config = config_find_key(daemon->config, key->name);
            last = config != NULL ? &facts[config - daemon->config->keys] : NULL;
        }
        if (last != NULL)
            last->generations[key->state]++;
    }
    return facts;
}

// Each returns whether there is anything to tell.
typedef bool key_value(const struct key_facts *facts, double *value);

static bool key_generation(const struct key_facts *facts, double *value)
{
    *value = facts->active != NULL ? (double)facts->active->generation : 0;
    return true;
}

static bool key_age(const struct key_facts *facts, double *value)
{
    if (facts->active == NULL)
        return false;
    int64_t age = facts->now_us - facts->active->activated_us;
    *value = SECONDS(age > 0 ? age : 0);
    return true;
}

static bool key_lifetime(const struct key_facts *facts, double *value)
{
    *value = facts->config->lifetime_s;
    return facts->config->lifetime_s > 0;
}

static bool key_next_rotation(const struct key_facts *facts, double *value)
{
    int64_t next = schedule_rotation_us(facts->config, facts->daemon->config->host, facts->rotation,
                                        facts->active);
    *value = SECONDS(next);
    return next != 0;
}

static bool key_suspended(const struct key_facts *facts, double *value)
{
    *value = facts->rotation != NULL && facts->rotation->suspended_us != 0;
    return true;
}

static bool key_rotation_open(const struct key_facts *facts, double *value)
{
    bool open = facts->rotation != NULL && facts->rotation->generation != 0;
    int64_t since = open ? facts->now_us - facts->rotation->started_us : 0;
    *value = SECONDS(since > 0 ? since : 0);
    return true;
}

static bool key_window(const struct key_facts *facts, double *value)
{
    *value = facts->config->window_s;
    return true;
}

static bool key_failures(const struct key_facts *facts, double *value)
{
    *value = facts->rotation != NULL ? facts->rotation->failures : 0;
    return true;
}

static bool key_unconfirmed(const struct key_facts *facts, double *value)
{
    *value = facts->counts != NULL ? (double)facts->counts->unconfirmed_count : 0;
    return true;
}

static const struct {
    const char *name, *unit, *help;
    key_value *value;
} key_families[] = {
    {"custody_key_generation", NULL, "The active generation of a key; 0: none is active.",
     key_generation},
    {"custody_key_age_seconds", "seconds", "For how long the active generation has been active.",
     key_age},
    {"custody_key_lifetime_seconds", "seconds", "How old policy lets a generation become.",
     key_lifetime},
    {"custody_key_next_rotation_timestamp_seconds", "seconds",
     "When the next rotation is due by schedule.", key_next_rotation},
    {"custody_key_suspended", NULL, "1: an operator holds the key.", key_suspended},
    {"custody_rotation_open_seconds", "seconds",
     "For how long a rotation has been open; 0: none is.", key_rotation_open},
    {"custody_rotation_window_seconds", "seconds",
     "In which a rotation is to be confirmed, else it is rolled back.", key_window},
    {"custody_rotation_failures", NULL,
     "Rotations rolled back since the last one that was confirmed.", key_failures},
    {"custody_revocation_unconfirmed_counterparts", NULL,
     "Counterparts that have not said, since custodyd was started, that they dropped the "
     "generation that was revoked.",
     key_unconfirmed},
};

static void put_key_gauges(struct openmetrics *text, const struct key_facts *facts, size_t count)
{
    for (size_t f = 0; f < sizeof(key_families) / sizeof(key_families[0]); f++) {
        openmetrics_family(text, OPENMETRICS_GAUGE, key_families[f].name, key_families[f].unit,
                           key_families[f].help);
        for (size_t i = 0; i < count; i++) {
            double value;
            if (key_families[f].value(&facts[i], &value))
                openmetrics_sample(text, LABELS("key", facts[i].config->name), value);
        }
    }
}

static void put_generations(struct openmetrics *text, const struct key_facts *facts, size_t count)
{
    openmetrics_family(text, OPENMETRICS_GAUGE, "custody_key_generations", NULL,
                       "Generations of a key, by state.");
    for (size_t i = 0; i < count; i++)
        for (unsigned state = KEY_PRE_ACTIVE; state < KEY_DESTROYED; state++)
            openmetrics_sample(
                text, LABELS("key", facts[i].config->name, "state", lifecycle_state_name(state)),
                facts[i].generations[state]);
}

static void put_rotations(struct openmetrics *text, const struct key_facts *facts, size_t count)
{
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_rotations_started", NULL,
                       "Rotations that were begun.");
    for (size_t i = 0; i < count; i++)
        openmetrics_sample(text, LABELS("key", facts[i].config->name),
                           facts[i].counts != NULL ? (double)facts[i].counts->started : 0);
    openmetrics_family(text, OPENMETRICS_COUNTER, "custody_rotations", NULL,
                       "Rotations that ended, by outcome.");
    for (size_t i = 0; i < count; i++) {
        const struct metrics_key *key = facts[i].counts;
        const char *name = facts[i].config->name;
        openmetrics_sample(text, LABELS("key", name, "outcome", "confirmed"),
                           key != NULL ? (double)key->confirmed : 0);
        openmetrics_sample(text, LABELS("key", name, "outcome", "rolled-back"),
                           key != NULL ? (double)key->rolled_back : 0);
    }
}

char *metrics_text(const struct metrics_counts *counts, const struct daemon *daemon,
                   enum openmetrics_format format, size_t *length)
{
    struct openmetrics text;
    struct key_facts *facts = gather_facts(counts, daemon);
    size_t count = daemon->config->key_count;
    if (facts == NULL)
        return NULL;
    openmetrics_begin(&text, format);
    put_daemon(&text, daemon);
    put_log(&text, daemon);
    put_hsm(&text, counts, daemon);
    put_releases(&text, counts);
    put_records(&text, counts);
    put_key_gauges(&text, facts, count);
    put_generations(&text, facts, count);
    put_rotations(&text, facts, count);
    hooks_put_metrics(daemon->hooks, &text);
    free(facts);
    return openmetrics_end(&text, length);
}
