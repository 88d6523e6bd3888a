// SPDX-License-Identifier: Apache-2.0
// The thread that writes state.db, and the queue to it.
//
// The thread applies the records to a state of its own and, now and then, has projection_db bring
// the database from the text it holds to that state's. What the database of an earlier life holds
// is made a state too, carried on by the records that came after it, and compared.
#include "projection.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catch_up.h"
#include "projection_db.h"
#include "say.h"
#include "snapshot.h"

#define QUEUE_MAX     2048        // records; a copy is some 5 kB
#define WAKE_AT       1024        // as many do not wait for the time of the next write
#define DELAY_MS      100         // from the first record to its being written
#define INTERVAL_MS   250         // between writes, but at least
#define INTERVAL_RATE 10          // times what the last write took
#define RETRY_LAST_MS (60 * 1000) // after failures; each wait is twice the one before
#define STOP_S        3

struct text {
    char *bytes; // NULL: none
    size_t length;
};

struct queue {
    struct record *records; // QUEUE_MAX
    size_t count;
};

struct projection {
    char *dir;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;

    // Shared, under the lock.
    struct queue queue;
    struct text base;   // a state to go on from; the queue's records follow
    uint64_t committed; // records that are
    bool begun;
    bool behind;     // records were dropped,
    bool wants_base; // and the thread has noticed
    bool waits;      // for the first record, with no time set
    bool stopping;
    char set_aside[PROJECTION_WARNING_SIZE]; // warnings
    char failed[PROJECTION_WARNING_SIZE];

    // The thread's own.
    struct queue taken;
    struct state *state;      // NULL: records are waited for that can be applied to one
    uint64_t writable;        // `committed`, as last seen
    struct projection_db *db; // NULL: not open; when it is, it says
    struct text written;
    bool dirty; // `state` is ahead of `written`
    bool said_behind;
    int64_t next_ms;
    int64_t retry_ms; // 0: the last write went well
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void text_clear(struct text *text)
{
    free(text->bytes);
    *text = (struct text){NULL, 0};
}

// ---- the loop's side ----

static void set_base(struct projection *projection, struct text base)
{
    text_clear(&projection->base);
    projection->base = base;
    projection->queue.count = 0;
    projection->behind = projection->wants_base = false;
    pthread_cond_signal(&projection->wake);
}

void projection_begin(struct projection *projection, const struct state *state)
{
    struct error err;
    struct text base;
    base.bytes = snapshot_format(state, &base.length, &err);
    pthread_mutex_lock(&projection->lock);
    projection->begun = true;
    projection->committed = state_size(state);
    if (base.bytes != NULL)
        set_base(projection, base);
    else
        projection->behind = true;
    pthread_mutex_unlock(&projection->lock);
}

void projection_feed(struct projection *projection, const struct record *records, size_t count)
{
    pthread_mutex_lock(&projection->lock);
    struct queue *queue = &projection->queue;
    if (projection->begun && count > 0)
        projection->committed = records[count - 1].seq + 1;
    if (count > QUEUE_MAX - queue->count)
        projection->behind = true;
    if (projection->begun && !projection->behind) {
        memcpy(&queue->records[queue->count], records, count * sizeof(*records));
        queue->count += count;
    }
    // A thread that has nothing to write waits without a time: it must hear of dropped records,
    // too.
    bool dropped = projection->behind && !projection->wants_base;
    if (projection->waits || queue->count >= WAKE_AT || dropped)
        pthread_cond_signal(&projection->wake);
    projection->waits = false;
    pthread_mutex_unlock(&projection->lock);
}

bool projection_refresh(struct projection *projection, const struct state *state)
{
    struct error err;
    struct text base;
    pthread_mutex_lock(&projection->lock);
    bool wanted = projection->wants_base;
    pthread_mutex_unlock(&projection->lock);
    if (!wanted || (base.bytes = snapshot_format(state, &base.length, &err)) == NULL)
        return false;
    pthread_mutex_lock(&projection->lock);
    set_base(projection, base);
    pthread_mutex_unlock(&projection->lock);
    return true;
}

void projection_warning(struct projection *projection, char text[PROJECTION_WARNING_SIZE])
{
    pthread_mutex_lock(&projection->lock);
    const char *warning =
        projection->failed[0] != '\0' ? projection->failed : projection->set_aside;
    snprintf(text, PROJECTION_WARNING_SIZE, "%s", warning);
    pthread_mutex_unlock(&projection->lock);
}

// ---- the thread: trouble ----

static void set_warning(struct projection *projection, char warning[PROJECTION_WARNING_SIZE],
                        const char *text)
{
    pthread_mutex_lock(&projection->lock);
    snprintf(warning, PROJECTION_WARNING_SIZE, "%s", text);
    pthread_mutex_unlock(&projection->lock);
}

static void close_db(struct projection *projection)
{
    projection_db_close(projection->db);
    projection->db = NULL;
    text_clear(&projection->written);
}

// Tries again later; says so the first time.
static void put_off(struct projection *projection, const struct error *why)
{
    char text[PROJECTION_WARNING_SIZE];
    close_db(projection);
    if (projection->retry_ms == 0) {
        say(LOG_WARNING, "state.db is not written for now; releases go on: %s", why->message);
        snprintf(text, sizeof(text), "state.db is not up to date: %.200s", why->message);
        set_warning(projection, projection->failed, text);
    }
    projection->retry_ms = projection->retry_ms == 0 ? 1000 : 2 * projection->retry_ms;
    if (projection->retry_ms > RETRY_LAST_MS)
        projection->retry_ms = RETRY_LAST_MS;
    projection->next_ms = now_ms() + projection->retry_ms;
}

static void note_success(struct projection *projection)
{
    if (projection->retry_ms == 0)
        return;
    say(LOG_NOTICE, "state.db is written again");
    projection->retry_ms = 0;
    set_warning(projection, projection->failed, "");
}

// The database is kept for whoever wants to know what became of it. A new one takes its place.
static int set_aside(struct projection *projection, const struct error *why, struct error *err)
{
    char name[PROJECTION_DB_NAME_SIZE], text[PROJECTION_WARNING_SIZE];
    close_db(projection);
    if (projection_db_set_aside(projection->dir, name, err) != 0)
        return -1;
    say(LOG_WARNING, "state.db was set aside as %s and is made anew from the log: %s", name,
        why->message);
    snprintf(text, sizeof(text), "state.db was set aside as %s: %.180s", name, why->message);
    set_warning(projection, projection->set_aside, text);
    projection->db = projection_db_open(projection->dir, err);
    return projection->db != NULL ? 0 : -1;
}

// ---- the thread: what is there already ----

// The state that the database says, NULL with ERROR_DATA_LOSS when it says none of this log.
static struct state *parse_loaded(const struct projection *projection, const struct text *loaded,
                                  struct error *err)
{
    struct state *state = snapshot_parse(loaded->bytes, loaded->length, err);
    if (state == NULL) {
        if (err->code == ERROR_INVALID_ARGUMENT)
            err->code = ERROR_DATA_LOSS;
        return NULL;
    }
    if (strcmp(state_host(state), state_host(projection->state)) != 0)
        error_set(err, ERROR_DATA_LOSS, "it is of host '%s', the log of '%s'", state_host(state),
                  state_host(projection->state));
    else if (state_size(state) > state_size(projection->state))
        error_set(err, ERROR_DATA_LOSS, "it holds %" PRIu64 " records, the log %" PRIu64,
                  state_size(state), state_size(projection->state));
    else
        return state;
    state_free(state);
    return NULL;
}

static int compare(const struct state *state, const struct state *with, uint64_t size,
                   struct error *err)
{
    char has[65], wants[65];
    if (snapshot_digest(state, has, err) != 0 || snapshot_digest(with, wants, err) != 0)
        return -1;
    if (strcmp(has, wants) == 0)
        return 0;
    return error_set(err, ERROR_DATA_LOSS,
                     "it is not what the log says after %" PRIu64 " records: sha256 %s, not %s",
                     size, has, wants);
}

// Compares what the database holds with the log, and remembers it in `written`. -1 with
// ERROR_DATA_LOSS when it must be set aside, with ERROR_NOT_FOUND when it is only to be written
// anew.
static int check_loaded(struct projection *projection, struct error *err)
{
    struct text loaded;
    loaded.bytes = projection_db_load(projection->db, &loaded.length, err);
    if (loaded.bytes == NULL)
        return -1;
    struct state *state = parse_loaded(projection, &loaded, err);
    int result = -1;
    if (state != NULL) {
        uint64_t size = state_size(state);
        result = catch_up(projection->dir, state, state_size(projection->state), err);
        if (result == 0)
            result = compare(state, projection->state, size, err);
    }
    state_free(state);
    text_clear(&projection->written);
    if (result == 0)
        projection->written = loaded;
    else
        text_clear(&loaded);
    return result;
}

// Opens the database and finds out what it says. Where that is of no use, `written` stays NULL, and
// all of it is written anew.
static int open_db(struct projection *projection, struct error *err)
{
    struct error why;
    projection->db = projection_db_open(projection->dir, &why);
    if (projection->db != NULL && check_loaded(projection, &why) == 0)
        return 0;
    if (why.code == ERROR_DATA_LOSS)
        return set_aside(projection, &why, err);
    if (projection->db != NULL && why.code == ERROR_NOT_FOUND)
        return 0;
    *err = why;
    return -1;
}

// ---- the thread: writing ----

static int store(struct projection *projection, struct text *text, struct error *err)
{
    struct text *written = &projection->written;
    if (projection->db != NULL && !projection_db_is_in_place(projection->db)) {
        say(LOG_WARNING, "state.db was deleted or replaced under the daemon; it is looked at anew");
        close_db(projection);
    }
    if (projection->db == NULL && open_db(projection, err) != 0)
        return -1;
    if (projection_db_store(projection->db, written->bytes, written->length, text->bytes,
                            text->length, err) == 0)
        goto stored;
    // Damage may show only when the damaged page is needed.
    struct error why = *err;
    if (why.code != ERROR_DATA_LOSS || set_aside(projection, &why, err) != 0 ||
        projection_db_store(projection->db, NULL, 0, text->bytes, text->length, err) != 0)
        return -1;
stored:
    text_clear(written);
    *written = *text;
    *text = (struct text){NULL, 0};
    return 0;
}

static void write_now(struct projection *projection)
{
    struct error err;
    struct text text;
    int64_t begin = now_ms();
    text.bytes = snapshot_format(projection->state, &text.length, &err);
    if (text.bytes == NULL || store(projection, &text, &err) != 0) {
        put_off(projection, &err);
    } else {
        int64_t end = now_ms(), wait = INTERVAL_RATE * (end - begin);
        projection->dirty = false;
        projection->next_ms = end + (wait > INTERVAL_MS ? wait : INTERVAL_MS);
        note_success(projection);
    }
    text_clear(&text);
}

// What is not committed yet is not written: a crash might take it back.
static bool is_writable(const struct projection *projection)
{
    return projection->dirty && projection->state != NULL &&
           state_size(projection->state) <= projection->writable;
}

// ---- the thread: following the log ----

static void forget_state(struct projection *projection, const char *why)
{
    if (!projection->said_behind)
        say(LOG_NOTICE, "state.db has fallen behind the log and catches up later: %s", why);
    projection->said_behind = true;
    state_free(projection->state);
    projection->state = NULL;
}

static void lose_track(struct projection *projection, const char *why)
{
    forget_state(projection, why);
    pthread_mutex_lock(&projection->lock);
    projection->behind = projection->wants_base = true;
    pthread_mutex_unlock(&projection->lock);
}

static void apply_taken(struct projection *projection)
{
    struct error err;
    for (size_t i = 0; i < projection->taken.count && projection->state != NULL; i++) {
        const struct record *record = &projection->taken.records[i];
        projection->dirty = true;
        if (record->seq < state_size(projection->state))
            continue; // the base knew it already
        if (state_apply(projection->state, record, &err) != 0)
            lose_track(projection, err.message);
    }
    projection->taken.count = 0;
}

// The database of an earlier life is compared at once, before later records may blur what was wrong
// with it.
static void take_base(struct projection *projection, struct text *base)
{
    struct error err;
    state_free(projection->state);
    projection->state = snapshot_parse(base->bytes, base->length, &err);
    text_clear(base);
    projection->dirty = true;
    if (projection->state == NULL)
        lose_track(projection, err.message);
    else if (projection->db == NULL && is_writable(projection) && open_db(projection, &err) != 0)
        put_off(projection, &err);
}

// Takes what is there for the thread. Called with the lock; returns without it.
static void take(struct projection *projection)
{
    struct queue queue = projection->queue;
    struct text base = projection->base;
    bool fell_behind = projection->behind && !projection->wants_base;
    projection->queue = projection->taken;
    projection->taken = queue;
    projection->base = (struct text){NULL, 0};
    projection->wants_base = projection->behind;
    projection->writable = projection->committed;
    pthread_mutex_unlock(&projection->lock);
    bool was_dirty = projection->dirty;
    if (base.bytes != NULL)
        take_base(projection, &base);
    apply_taken(projection);
    if (fell_behind)
        forget_state(projection, "records came faster than they could be written");
    if (!was_dirty && projection->dirty && projection->next_ms < now_ms() + DELAY_MS)
        projection->next_ms = now_ms() + DELAY_MS;
}

static struct timespec time_of(int64_t ms)
{
    return (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
}

// Waits, with the lock, until there is something to take, or time to write.
static void wait_for_work(struct projection *projection)
{
    struct timespec until = time_of(projection->next_ms);
    bool timed = is_writable(projection);
    while (!projection->stopping && projection->base.bytes == NULL &&
           projection->queue.count < (timed ? WAKE_AT : 1) &&
           projection->behind == projection->wants_base) {
        projection->waits = !timed;
        if (!timed)
            pthread_cond_wait(&projection->wake, &projection->lock);
        else if (pthread_cond_timedwait(&projection->wake, &projection->lock, &until) == ETIMEDOUT)
            break;
    }
    projection->waits = false;
}

static void *run(void *context)
{
    struct projection *projection = context;
    for (bool stopping = false; !stopping;) {
        pthread_mutex_lock(&projection->lock);
        wait_for_work(projection);
        stopping = projection->stopping;
        take(projection);
        if (is_writable(projection) && (stopping || now_ms() >= projection->next_ms))
            write_now(projection);
    }
    close_db(projection);
    return NULL;
}

// ---- life ----

// The thread must not be the one that a signal interrupts.
static int start(struct projection *projection, struct error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&projection->thread, NULL, run, projection);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0 ? 0
                      : error_set(err, ERROR_RESOURCE_EXHAUSTED, "no thread for state.db: %s",
                                  strerror(error));
}

static void destroy(struct projection *projection)
{
    state_free(projection->state);
    text_clear(&projection->base);
    free(projection->queue.records);
    free(projection->taken.records);
    free(projection->dir);
    pthread_cond_destroy(&projection->wake);
    pthread_mutex_destroy(&projection->lock);
    free(projection);
}

struct projection *projection_new(const char *audit_dir, struct error *err)
{
    struct projection *projection = calloc(1, sizeof(*projection));
    pthread_condattr_t attributes;
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the queue to state.db");
    if (projection == NULL)
        return NULL;
    pthread_mutex_init(&projection->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&projection->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    projection->dir = strdup(audit_dir);
    // Pages that no record was ever copied to cost nothing.
    projection->queue.records = calloc(QUEUE_MAX, sizeof(struct record));
    projection->taken.records = calloc(QUEUE_MAX, sizeof(struct record));
    if (projection->dir != NULL && projection->queue.records != NULL &&
        projection->taken.records != NULL && start(projection, err) == 0)
        return projection;
    destroy(projection);
    return NULL;
}

void projection_free(struct projection *projection)
{
    struct timespec until;
    if (projection == NULL)
        return;
    pthread_mutex_lock(&projection->lock);
    projection->stopping = true;
    pthread_cond_signal(&projection->wake);
    pthread_mutex_unlock(&projection->lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_S;
    if (pthread_timedjoin_np(projection->thread, NULL, &until) == 0)
        destroy(projection);
    else // it hangs in a folder that does, and goes with the process
        say(LOG_WARNING, "state.db is not written to its end: its folder does not answer");
}
