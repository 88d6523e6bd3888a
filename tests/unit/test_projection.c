// SPDX-License-Identifier: Apache-2.0
// Random histories, legal and not: the live state, state.db, the rebuild from record 0 and the one
// from any snapshot are the same text, byte for byte, and what is refused changes nothing.
#include "state.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "approval.h"
#include "projection.h"
#include "projection_db.h"
#include "snapshot.h"
#include "tap.h"

#define HOST       "alpha"
#define HISTORIES  300
#define OPERATIONS 200 // tried in each
#define DAEMONS    20  // histories that are fed to the projection's thread
#define SEED       20261126

// ---- chance ----

static uint64_t random_state;

// xorshift64*
static uint32_t below(uint32_t bound)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 32) % bound;
}

static void random_hex(char text[33])
{
    for (int i = 0; i < 32; i++)
        text[i] = "0123456789abcdef"[below(16)];
    text[32] = '\0';
}

static void random_bytes(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)below(256);
}

// ---- what the next record may be ----

static const enum record_event events[] = {
    RECORD_KEY_GENERATED,      RECORD_KEY_GENERATED,      RECORD_KEY_IMPORTED,
    RECORD_KEY_PUBLISHED,      RECORD_KEY_ACTIVATED,      RECORD_KEY_ACTIVATED,
    RECORD_KEY_DEACTIVATED,    RECORD_KEY_SUSPENDED,      RECORD_KEY_REVOKED,
    RECORD_KEY_DESTROYING,     RECORD_KEY_DESTROYING,     RECORD_KEY_DESTROYED,
    RECORD_KEY_DESTROYED,      RECORD_RELEASE_GRANTED,    RECORD_RELEASE_GRANTED,
    RECORD_RELEASE_GRANTED,    RECORD_RELEASE_APPLIED,    RECORD_RELEASE_FAILED,
    RECORD_LEASE_EXPIRED,      RECORD_RELEASE_DENIED,     RECORD_APPROVAL_REQUESTED,
    RECORD_APPROVAL_REQUESTED, RECORD_APPROVAL_GIVEN,     RECORD_APPROVAL_GIVEN,
    RECORD_APPROVAL_GIVEN,     RECORD_LOG_LOSS_ACCEPTED,  RECORD_LOG_SEALED,
    RECORD_DAEMON_STARTED,     RECORD_DAEMON_STOPPED,     RECORD_POLICY_LOADED,
    RECORD_LOG_KEY_CHANGED,    RECORD_TOKEN_INITIALISED,  RECORD_CLOCK_STEPPED,
    RECORD_KEY_RESUMED,        RECORD_KEY_REFRESHED,      RECORD_KEY_PUBLISHED,
    RECORD_ROTATION_STARTED,   RECORD_ROTATION_STARTED,   RECORD_ROTATION_STARTED,
    RECORD_ROTATION_CONFIRMED, RECORD_ROTATION_CONFIRMED, RECORD_ROTATION_ROLLED_BACK,
    RECORD_PEER_STAGED,        RECORD_PEER_STAGED,        RECORD_PEER_MOVED,
    RECORD_PEER_MOVED,         RECORD_PEER_RETIRED,       RECORD_PEER_LATE,
    RECORD_PEER_ACKNOWLEDGED,  RECORD_NOTE_REJECTED,      RECORD_REGISTRY_STALE,
    RECORD_REGISTRY_FRESH,     RECORD_DRIFT_FOUND,        RECORD_DRIFT_CLEARED,
};
#define EVENTS (sizeof(events) / sizeof(*events))

static void fill_actor(struct record *r)
{
    r->actor.present = true;
    r->actor.uid = below(4);
    r->actor.gid = 7;
    r->actor.pid = 1 + below(1000);
}

static void fill_some_key(struct record *r, const struct state *state)
{
    static const char *const names[] = {"a", "b", "wg-home_2"};
    if (state_keys(state) > 0 && below(8) > 0) {
        const struct state_key *key = state_key_at(state, below((uint32_t)state_keys(state)));
        snprintf(r->key, sizeof(r->key), "%s", key->name);
        r->generation = key->generation;
        memcpy(r->public_key, key->public_key, sizeof(r->public_key));
        return;
    }
    snprintf(r->key, sizeof(r->key), "%s", names[below(3)]);
    r->generation = 1 + below(5);
}

static void fill_new_key(struct record *r, const struct state *state)
{
    fill_some_key(r, state);
    r->generation = state_key_highest(state, r->key) + below(3);
    r->purpose = below(PURPOSES);
    random_bytes(r->public_key, sizeof(r->public_key));
}

static const struct rotation *some_rotation(const struct state *state)
{
    const struct rotations *rotations = state_rotations(state);
    return rotations->count > 0 ? &rotations->items[below((uint32_t)rotations->count)] : NULL;
}

static void fill_grant(struct record *r, const struct state *state)
{
    fill_some_key(r, state);
    const struct rotation *rotation = some_rotation(state);
    const struct state_key *key =
        rotation != NULL ? state_key_find(state, rotation->key, rotation->generation) : NULL;
    if (key != NULL && below(3) == 0) { // what a rotation leads to
        memcpy(r->key, key->name, sizeof(r->key));
        memcpy(r->public_key, key->public_key, sizeof(r->public_key));
        r->generation = key->generation;
    }
    fill_actor(r);
    random_hex(r->lease);
    r->reason = 1 + below(REASONS - 1);
    r->expires_us = r->time_us + below(30);
    random_bytes(r->applier_public_key, sizeof(r->applier_public_key));
}

static void fill_outcome(struct record *r, const struct state *state)
{
    const struct state_lease *lease = state_lease_first(state);
    for (uint32_t i = below(4); i > 0 && lease != NULL && state_lease_next(lease) != NULL; i--)
        lease = state_lease_next(lease);
    if (lease == NULL) {
        fill_some_key(r, state);
        random_hex(r->lease);
        return;
    }
    snprintf(r->lease, sizeof(r->lease), "%s", lease->lease);
    snprintf(r->key, sizeof(r->key), "%s", lease->key);
    r->generation = lease->generation;
}

static const struct request *some_request(const struct state *state)
{
    const struct request_list *list = state_requests(state);
    return list->count > 0 ? &list->items[below((uint32_t)list->count)] : NULL;
}

static void fill_request(struct record *r, const struct state *state)
{
    fill_actor(r);
    if (below(4) == 0) {
        r->operation = OPERATION_ACCEPT_LOSS;
        r->new_size = r->seq;
        r->old_size = r->seq + 1 + below(9);
        random_bytes(r->old_root, sizeof(r->old_root));
        random_bytes(r->new_root, sizeof(r->new_root));
        approval_loss_id(r, r->request_id);
        return;
    }
    r->operation = OPERATION_KEY_DESTROY;
    random_hex(r->request_id);
    r->expires_us = r->time_us + below(60);
    fill_some_key(r, state);
    const struct state_key *active = state_key_active(state, r->key);
    if (active != NULL)
        r->generation = active->generation;
    memset(r->public_key, 0, sizeof(r->public_key));
}

static void fill_approval(struct record *r, const struct state *state)
{
    static const char *const operators[] = {"ann", "bob b.", "Zo\xc3\xab of the second shift", "-",
                                            "a\nlease 01"};
    const struct request *request = some_request(state);
    fill_actor(r);
    if (request != NULL)
        memcpy(r->request_id, request->id, sizeof(r->request_id));
    else
        random_hex(r->request_id);
    uint32_t who = below(5);
    snprintf(r->operator_name, sizeof(r->operator_name), "%s", operators[who]);
    if (below(3) == 0)
        return;
    snprintf(r->operator_key, sizeof(r->operator_key), "ssh-ed25519 AAAA%u", who);
    snprintf(r->signature, sizeof(r->signature), "U1NIU0lH");
}

static void fill_carried_out(struct record *r, const struct state *state)
{
    const struct request *request = some_request(state);
    uint64_t seq = r->seq;
    int64_t time_us = r->time_us;
    enum record_event event = r->event;
    if (request == NULL || below(3) == 0) {
        if (event == RECORD_KEY_DESTROYING)
            fill_some_key(r, state);
        return;
    }
    request_as_record(request, HOST, r);
    r->seq = seq;
    r->time_us = time_us;
    r->event = event;
    r->operation = 0;
    r->expires_us = 0;
}

// About the key that a rotation is of, mostly, so that what is open ends.
static void fill_rotated_key(struct record *r, const struct state *state)
{
    static const char *const tickets[] = {"", "CHG-7", "the 7th  of May ", "-", "a\nkey b"};
    const struct rotation *rotation = below(4) > 0 ? some_rotation(state) : NULL;
    fill_some_key(r, state);
    memset(r->public_key, 0, sizeof(r->public_key));
    if (rotation != NULL) {
        memcpy(r->key, rotation->key, sizeof(r->key));
        r->generation = rotation->generation;
    }
    const struct state_key *next = state_key_pre_active(state, r->key);
    if (r->event == RECORD_ROTATION_STARTED) {
        r->reason = below(8) > 0 ? REASON_ROTATION : below(REASONS);
        snprintf(r->ticket, sizeof(r->ticket), "%s", tickets[below(5)]);
        r->generation = next != NULL ? next->generation : r->generation;
    }
    if (r->event == RECORD_KEY_SUSPENDED || r->event == RECORD_KEY_RESUMED)
        r->generation = below(8) > 0 ? 0 : r->generation;
    if (r->event == RECORD_KEY_REFRESHED && rotation != NULL) {
        r->generation = rotation->bundle_generation;
        memcpy(r->sha256, rotation->bundle_sha256, sizeof(r->sha256));
    }
}

static void fill_bundle(struct record *r, const struct state *state)
{
    fill_some_key(r, state);
    const struct state_key *key = state_key_find(state, r->key, r->generation);
    const struct rotation *rotation = rotations_find(state_rotations(state), r->key);
    r->bundle_state = key != NULL ? lifecycle_bundle_state(key->state) : below(BUNDLE_STATES);
    r->not_before_us = r->time_us;
    r->not_after_us = r->time_us + below(8);
    if (below(2) == 0) {
        snprintf(r->address, sizeof(r->address), "10.0.0.%u", below(300));
        r->port = below(70000);
        random_bytes(r->receive_key, sizeof(r->receive_key));
    }
    if (rotation != NULL && below(8) > 0)
        memcpy(r->previous, rotation->bundle_sha256, sizeof(r->previous));
}

// A step with a generation that is known or the next one, whose public key follows from its number.
static void fill_peer(struct record *r, const struct state *state)
{
    static const char *const hosts[] = {"beta", "gamma.example", "Delta"};
    const struct peers *peers = state_peers(state);
    fill_some_key(r, state);
    memset(r->public_key, 0, sizeof(r->public_key));
    r->generation = 0;
    snprintf(r->peer, sizeof(r->peer), "%s", hosts[below(8) == 0 ? 2 : below(2)]);
    snprintf(r->peer_key, sizeof(r->peer_key), "wg%u", below(2));
    r->peer_generation = below(12) == 0 ? UINT64_MAX : 1 + below(5);
    if (peers->count > 0 && below(4) > 0) {
        const struct peer *peer = &peers->items[below((uint32_t)peers->count)];
        memcpy(r->key, peer->key, sizeof(r->key));
        memcpy(r->peer, peer->host, sizeof(r->peer));
        memcpy(r->peer_key, peer->peer_key, sizeof(r->peer_key));
        r->peer_generation = peer->generation + below(3);
    }
    memset(r->peer_public_key, (int)(1 + r->peer_generation % 250), sizeof(r->peer_public_key));
    r->peer_public_key[0] += below(16) == 0;
    r->peer_state = r->event == RECORD_PEER_ACKNOWLEDGED ? below(PEER_STATES) : 0;
    if (r->event == RECORD_PEER_STAGED && below(16) > 0)
        for (int i = 0; i < 2; i++)
            random_hex(r->move_sha256 + 32 * i);
}

static void fill_vkeys(struct record *r)
{
    snprintf(r->log_vkey, sizeof(r->log_vkey), "log+%u", below(1000));
    if (r->event == RECORD_TOKEN_INITIALISED)
        snprintf(r->host_vkey, sizeof(r->host_vkey), "host+1");
}

static void fill_event(struct record *r, const struct state *state)
{
    switch (r->event) {
    case RECORD_TOKEN_INITIALISED:
    case RECORD_LOG_KEY_CHANGED:
        fill_vkeys(r);
        return;
    case RECORD_KEY_GENERATED:
    case RECORD_KEY_IMPORTED:
        fill_new_key(r, state);
        return;
    case RECORD_RELEASE_GRANTED:
        fill_grant(r, state);
        return;
    case RECORD_RELEASE_APPLIED:
    case RECORD_RELEASE_FAILED:
    case RECORD_LEASE_EXPIRED:
        fill_outcome(r, state);
        return;
    case RECORD_APPROVAL_REQUESTED:
        fill_request(r, state);
        return;
    case RECORD_APPROVAL_GIVEN:
        fill_approval(r, state);
        return;
    case RECORD_KEY_DESTROYING:
    case RECORD_LOG_LOSS_ACCEPTED:
        fill_carried_out(r, state);
        return;
    case RECORD_KEY_PUBLISHED:
        fill_bundle(r, state);
        return;
    case RECORD_KEY_SUSPENDED:
    case RECORD_KEY_RESUMED:
    case RECORD_KEY_REFRESHED:
    case RECORD_ROTATION_STARTED:
    case RECORD_ROTATION_CONFIRMED:
    case RECORD_ROTATION_ROLLED_BACK:
        fill_rotated_key(r, state);
        return;
    case RECORD_PEER_STAGED:
    case RECORD_PEER_MOVED:
    case RECORD_PEER_RETIRED:
    case RECORD_PEER_LATE:
    case RECORD_PEER_ACKNOWLEDGED:
        fill_peer(r, state);
        return;
    case RECORD_DAEMON_STOPPED:
    case RECORD_LOG_SEALED:
        if (r->event == RECORD_LOG_SEALED || below(2) == 0)
            snapshot_digest(state, r->sha256, NULL);
        return;
    default:
        if (r->event >= RECORD_KEY_GENERATED && r->event <= RECORD_KEY_DESTROYED)
            fill_some_key(r, state);
    }
}

static void fill(struct record *r, const struct state *state)
{
    memset(r, 0, sizeof(*r));
    r->seq = state_size(state);
    r->time_us = state_time_us(state) + below(4) + (below(20) == 0 ? 40 : 0) + 1;
    r->event = r->seq == 0 ? RECORD_TOKEN_INITIALISED : events[below(EVENTS)];
    strcpy(r->host, HOST);
    fill_event(r, state);
}

// What no state may take, whatever the record was.
static void make_illegal(struct record *r, const struct state *state)
{
    switch (below(6)) {
    case 0:
        r->seq += 1 + below(3);
        return;
    case 1:
        r->seq--;
        return;
    case 2:
        r->time_us = state_time_us(state) - 1;
        return;
    case 3:
        strcpy(r->host, "beta");
        return;
    case 4:
        r->event = RECORD_RELEASE_APPLIED;
        random_hex(r->lease);
        return;
    default:
        r->event = RECORD_LOG_SEALED;
        memset(r->sha256, '0', 64);
    }
}

// ---- a history ----

struct history {
    struct state *state;
    size_t count;
    struct record records[OPERATIONS]; // as they were parsed from their lines
    char *texts[OPERATIONS + 1];       // of the state after so many records
    FILE *segment;                     // their lines
};

static char *text_of(const struct state *state)
{
    size_t length;
    char *text = snapshot_format(state, &length, NULL);
    if (text == NULL)
        abort();
    return text;
}

static void take(struct history *history, const struct record *record)
{
    char line[RECORD_LINE_MAX + 1];
    size_t length;
    struct error err = {.message = ""};
    CU_ASSERT_EQUAL_FATAL(record_encode(record, line, sizeof(line), &length, &err), 0);
    CU_ASSERT_EQUAL_FATAL(record_parse(&history->records[history->count], line, length, &err), 0);
    history->texts[++history->count] = text_of(history->state);
    if (history->segment != NULL)
        fprintf(history->segment, "%.*s\n", (int)length, line);
}

// state_check and state_apply agree, and nothing changes where they refuse.
static void attempt(struct history *history, bool illegal)
{
    struct record record;
    struct error err;
    fill(&record, history->state);
    if (illegal)
        make_illegal(&record, history->state);
    int checked = state_check(history->state, &record, &err);
    int applied = state_apply(history->state, &record, &err);
    CU_ASSERT_EQUAL(checked, applied);
    if (applied == 0) {
        CU_ASSERT_FALSE(illegal);
        take(history, &record);
        return;
    }
    char *text = text_of(history->state);
    CU_ASSERT_STRING_EQUAL(text, history->texts[history->count]);
    free(text);
}

static void make_history(struct history *history, const char *log_dir)
{
    char path[256];
    memset(history, 0, sizeof(*history));
    history->state = state_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(history->state);
    history->texts[0] = text_of(history->state);
    if (log_dir != NULL) {
        snprintf(path, sizeof(path), "%s/000000000000.jsonl", log_dir);
        history->segment = fopen(path, "w");
        CU_ASSERT_PTR_NOT_NULL_FATAL(history->segment);
    }
    for (int i = 0; i < OPERATIONS; i++)
        attempt(history, i > 0 && below(8) == 0);
    if (history->segment != NULL)
        fclose(history->segment);
}

static void free_history(struct history *history)
{
    for (size_t i = 0; i <= history->count; i++)
        free(history->texts[i]);
    state_free(history->state);
}

// ---- rebuilding ----

// The state after `from` records, as its text has it, carried on to the end: every text on the way
// is the live one's.
static void rebuild(const struct history *history, size_t from)
{
    struct error err = {.message = ""};
    struct state *state =
        from == 0 ? state_new()
                  : snapshot_parse(history->texts[from], strlen(history->texts[from]), &err);
    CU_ASSERT_PTR_NOT_NULL(state);
    if (state == NULL) {
        printf("# %s\n%s", err.message, history->texts[from]);
        return;
    }
    for (size_t i = from; i < history->count; i++) {
        CU_ASSERT_EQUAL(state_apply(state, &history->records[i], &err), 0);
        char *text = text_of(state);
        CU_ASSERT_STRING_EQUAL(text, history->texts[i + 1]);
        free(text);
    }
    state_free(state);
}

// ---- state.db ----

static char dir[] = "/tmp/custody-projection-XXXXXX";

// From text to text in random strides.
static void store(struct projection_db *db, const struct history *history)
{
    const char *before = NULL;
    for (size_t i = 1 + below(20); i <= history->count; i += 1 + below(40)) {
        const char *text = history->texts[i];
        struct error err = {.message = ""};
        size_t length;
        int stored = projection_db_store(db, before, before != NULL ? strlen(before) : 0, text,
                                         strlen(text), &err);
        CU_ASSERT_EQUAL(stored, 0);
        char *loaded = projection_db_load(db, &length, &err);
        CU_ASSERT_PTR_NOT_NULL_FATAL(loaded);
        CU_ASSERT_EQUAL(length, strlen(text));
        CU_ASSERT_STRING_EQUAL(loaded, text);
        free(loaded);
        before = text;
    }
}

// A history that never gets to an event proves nothing about it.
static void check_variety(const size_t happened[RECORD_EVENTS])
{
    for (size_t i = 0; i < EVENTS; i++) {
        CU_ASSERT(happened[events[i]] > 0);
        if (happened[events[i]] == 0)
            printf("# %s never came\n", record_event_name(events[i]));
    }
}

static void test_histories(void)
{
    static struct history history;
    size_t happened[RECORD_EVENTS] = {0};
    struct error err = {.message = ""};
    size_t records = 0;
    struct projection_db *db = projection_db_open(dir, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(db);
    for (int i = 0; i < HISTORIES; i++) {
        make_history(&history, NULL);
        rebuild(&history, 0);
        rebuild(&history, 1 + below((uint32_t)history.count));
        store(db, &history);
        records += history.count;
        for (size_t j = 0; j < history.count; j++)
            happened[history.records[j].event]++;
        free_history(&history);
    }
    projection_db_close(db);
    printf("# %d histories of %zu records\n", HISTORIES, records);
    check_variety(happened);
}

// ---- the thread ----

static void remove_databases(void)
{
    char pattern[64];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "%s/state.db*", dir);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
        globfree(&found);
    }
}

static bool is_there(const char *name)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return stat(path, &st) == 0;
}

// One life of a daemon: it begins with `from` records in the log and commits those up to `to`.
static void live(const struct history *history, size_t from, size_t to)
{
    struct error err = {.message = ""};
    struct state *state = snapshot_parse(history->texts[from], strlen(history->texts[from]), &err);
    struct projection *projection = projection_new(dir, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    CU_ASSERT_PTR_NOT_NULL_FATAL(projection);
    projection_begin(projection, state);
    while (from < to) {
        size_t count = 1 + below(8);
        count = count > to - from ? to - from : count;
        projection_feed(projection, &history->records[from], count);
        from += count;
    }
    projection_free(projection);
    state_free(state);
}

static void says(const char *text)
{
    struct error err = {.message = ""};
    size_t length;
    struct projection_db *db = projection_db_open(dir, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(db);
    char *loaded = projection_db_load(db, &length, &err);
    CU_ASSERT_PTR_NOT_NULL(loaded);
    if (loaded != NULL)
        CU_ASSERT_STRING_EQUAL(loaded, text);
    free(loaded);
    projection_db_close(db);
}

static void test_lives(void)
{
    static struct history history;
    char log_dir[64];
    snprintf(log_dir, sizeof(log_dir), "%s/log", dir);
    CU_ASSERT_EQUAL_FATAL(mkdir(log_dir, 0700), 0);
    for (int i = 0; i < DAEMONS; i++) {
        remove_databases();
        make_history(&history, log_dir);
        size_t n = history.count, first = 1 + below((uint32_t)n), killed, second;
        live(&history, 1 + below((uint32_t)first), first);
        says(history.texts[first]);
        // The next life's database is behind: the life before was killed.
        killed = first + below((uint32_t)(n - first + 1));
        second = killed + below((uint32_t)(n - killed + 1));
        live(&history, killed, second);
        says(history.texts[second]);
        CU_ASSERT_FALSE(is_there("state.db.bad-1"));
        // It is ahead: the log of an older day was put back.
        if (second > 1) {
            live(&history, second - 1, n);
            says(history.texts[n]);
            CU_ASSERT_TRUE(is_there("state.db.bad-1"));
        }
        free_history(&history);
    }
}

static int64_t in_ms(const struct timespec *time)
{
    return time->tv_sec * INT64_C(1000) + time->tv_nsec / 1000000;
}

// Until the thread has written what it was given, and no more for half a second: it has nothing to
// do then.
static void await_written(void)
{
    char path[96];
    struct stat status = {0};
    struct timespec now;
    bool quiet = false;
    snprintf(path, sizeof(path), "%s/state.db-wal", dir);
    for (int i = 0; i < 6000 && !quiet; i++) {
        usleep(10000);
        clock_gettime(CLOCK_REALTIME, &now);
        quiet = stat(path, &status) == 0 && status.st_size > 0 &&
                in_ms(&now) > in_ms(&status.st_mtim) + 500;
    }
    CU_ASSERT_TRUE(quiet);
}

// More than the queue holds is dropped, and made up for by projection_refresh; also when the thread
// waits.
static void flood(bool waiting)
{
    static struct history history;
    struct error err;
    remove_databases();
    make_history(&history, NULL);
    struct state *state = snapshot_parse(history.texts[1], strlen(history.texts[1]), &err);
    struct record *flood = calloc(10000, sizeof(*flood));
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    CU_ASSERT_PTR_NOT_NULL_FATAL(flood);
    struct projection *projection = projection_new(dir, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(projection);
    projection_begin(projection, state);
    if (waiting)
        await_written();
    for (int i = 0; i < 10000; i++) {
        struct record *r = &flood[i];
        r->seq = state_size(state);
        r->time_us = state_time_us(state);
        r->event = RECORD_CLOCK_STEPPED;
        strcpy(r->host, HOST);
        CU_ASSERT_EQUAL_FATAL(state_apply(state, r, &err), 0);
    }
    projection_feed(projection, flood, 10000);
    char *text = text_of(state);
    // The thread notices soon that it lacks something; what it is given then is written by the end.
    // (It keeps its database locked: nobody can look meanwhile.)
    bool given = false;
    for (int i = 0; i < 6000 && !given; i++) {
        given = projection_refresh(projection, state);
        usleep(10000);
    }
    CU_ASSERT_TRUE(given);
    projection_free(projection);
    size_t length;
    struct projection_db *db = projection_db_open(dir, &err);
    char *loaded = db != NULL ? projection_db_load(db, &length, &err) : NULL;
    CU_ASSERT_TRUE(loaded != NULL && strcmp(loaded, text) == 0);
    free(loaded);
    projection_db_close(db);
    free(text);
    free(flood);
    state_free(state);
    free_history(&history);
}

static void test_flood(void)
{
    flood(false);
    flood(true);
}

static void remove_dir(void)
{
    char path[64];
    remove_databases();
    snprintf(path, sizeof(path), "%s/log/000000000000.jsonl", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/log", dir);
    rmdir(path);
    rmdir(dir);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"live state, state.db and both rebuilds are the same", test_histories},
        {"state.db carries on over lives, and is set aside when it is ahead", test_lives},
        {"records that were dropped are made up for", test_flood},
        CU_TEST_INFO_NULL,
    };
    const char *seed = getenv("CUSTODY_SEED");
    random_state = seed != NULL ? strtoull(seed, NULL, 10) : SEED;
    printf("# seed %" PRIu64 " (CUSTODY_SEED)\n", random_state);
    if (random_state == 0 || sodium_init() < 0 || mkdtemp(dir) == NULL)
        return EXIT_FAILURE;
    int result = tap_run("projection", tests);
    remove_dir();
    return result;
}
