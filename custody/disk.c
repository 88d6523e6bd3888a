// SPDX-License-Identifier: Apache-2.0
// One thread, two queues (to do, done) and an eventfd that wakes the event loop.
#include "disk.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX 256 // waiting; what uses the disk waits for its answers, so this many never do

struct job {
    STAILQ_ENTRY(job) link;
    const char *what;
    disk_fn *work, *done;
    void *context;
};
STAILQ_HEAD(job_queue, job);

struct disk {
    struct disk_handlers handlers;
    struct event *finished; // the eventfd is readable
    struct event *watch;    // looks for a job that hangs
    int finished_fd;
    unsigned outstanding; // jobs whose `done` was not called yet; the loop's
    bool hanging;         // the handlers know; the loop's
    pthread_t thread;
    pthread_mutex_t lock; // of all below
    pthread_cond_t wake;
    struct job_queue todo, done;
    const struct job *running;
    int64_t running_since_s;
    bool stop;
};

static int64_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

// ---- the thread ----

static struct job *next_job(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    while (STAILQ_EMPTY(&disk->todo) && !disk->stop)
        pthread_cond_wait(&disk->wake, &disk->lock);
    struct job *job = STAILQ_FIRST(&disk->todo);
    if (job != NULL)
        STAILQ_REMOVE_HEAD(&disk->todo, link);
    disk->running = job;
    disk->running_since_s = now_s();
    pthread_mutex_unlock(&disk->lock);
    return job;
}

static void *run(void *context)
{
    struct disk *disk = context;
    const uint64_t one = 1;
    for (struct job *job = next_job(disk); job != NULL; job = next_job(disk)) {
        job->work(job->context);
        pthread_mutex_lock(&disk->lock);
        disk->running = NULL;
        STAILQ_INSERT_TAIL(&disk->done, job, link);
        pthread_mutex_unlock(&disk->lock);
        // Fails only when the counter is full, and then the loop is awake already.
        while (write(disk->finished_fd, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
    }
    return NULL;
}

// ---- the event loop's side ----

static void finish_jobs(struct disk *disk)
{
    uint64_t count;
    struct job_queue done = STAILQ_HEAD_INITIALIZER(done);
    while (read(disk->finished_fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&disk->lock);
    STAILQ_CONCAT(&done, &disk->done);
    pthread_mutex_unlock(&disk->lock);
    while (!STAILQ_EMPTY(&done)) {
        struct job *job = STAILQ_FIRST(&done);
        STAILQ_REMOVE_HEAD(&done, link);
        disk->outstanding--;
        job->done(job->context);
        free(job);
    }
}

static void look(struct disk *disk)
{
    struct error why;
    bool hanging = disk_is_hanging(disk, &why);
    if (hanging == disk->hanging)
        return;
    disk->hanging = hanging;
    if (hanging)
        disk->handlers.hangs(disk->handlers.context, &why);
    else
        disk->handlers.back(disk->handlers.context);
}

static void on_finished(evutil_socket_t fd, short what, void *context)
{
    struct disk *disk = context;
    (void)fd;
    (void)what;
    finish_jobs(disk);
    if (disk->hanging)
        look(disk);
}

static void on_watch(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    look(context);
}

bool disk_is_hanging(const struct disk *disk, struct error *why)
{
    struct disk *locked = (struct disk *)disk;
    pthread_mutex_lock(&locked->lock);
    int64_t age = disk->running != NULL ? now_s() - disk->running_since_s : 0;
    if (age > DISK_HANGS_S)
        error_set(why, ERROR_UNAVAILABLE,
                  "the log's disk hangs: %s does not return, since %d s and more; this goes on by "
                  "itself when it does",
                  disk->running->what, DISK_HANGS_S);
    pthread_mutex_unlock(&locked->lock);
    return age > DISK_HANGS_S;
}

int disk_do(struct disk *disk, const char *what, disk_fn *work, disk_fn *done, void *context,
            struct error *err)
{
    struct job *job = disk->outstanding < JOBS_MAX ? malloc(sizeof(*job)) : NULL;
    if (job == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "too much waits for the log's disk");
    *job = (struct job){.what = what, .work = work, .done = done, .context = context};
    disk->outstanding++;
    pthread_mutex_lock(&disk->lock);
    STAILQ_INSERT_TAIL(&disk->todo, job, link);
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
    return 0;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool disk_wait(struct disk *disk, int ms)
{
    int64_t end = now_ms() + ms;
    while (disk->outstanding > 0) {
        struct pollfd poll_fd = {.fd = disk->finished_fd, .events = POLLIN};
        int64_t left = end - now_ms();
        if (left <= 0)
            return false;
        if (poll(&poll_fd, 1, (int)left) > 0)
            finish_jobs(disk);
    }
    return true;
}

// ---- life ----

static int start_thread(struct disk *disk, struct error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the event loop's
    int failure = pthread_create(&disk->thread, NULL, run, disk);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure == 0)
        return 0;
    return error_set(err, ERROR_RESOURCE_EXHAUSTED, "a thread for the log's disk: %s",
                     strerror(failure));
}

static void release(struct disk *disk)
{
    if (disk->finished != NULL)
        event_free(disk->finished);
    if (disk->watch != NULL)
        event_free(disk->watch);
    if (disk->finished_fd >= 0)
        close(disk->finished_fd);
    free(disk);
}

struct disk *disk_new(struct event_base *base, const struct disk_handlers *handlers,
                      struct error *err)
{
    struct timeval interval = {.tv_sec = 1};
    struct disk *disk = calloc(1, sizeof(*disk));
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for the log's disk");
    if (disk == NULL)
        return NULL;
    disk->handlers = *handlers;
    STAILQ_INIT(&disk->todo);
    STAILQ_INIT(&disk->done);
    disk->finished_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (disk->finished_fd < 0)
        goto fail;
    disk->finished = event_new(base, disk->finished_fd, EV_READ | EV_PERSIST, on_finished, disk);
    disk->watch = event_new(base, -1, EV_PERSIST, on_watch, disk);
    if (disk->finished == NULL || disk->watch == NULL || event_add(disk->finished, NULL) != 0 ||
        event_add(disk->watch, &interval) != 0)
        goto fail;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->wake, NULL);
    if (start_thread(disk, err) == 0)
        return disk;
fail:
    release(disk);
    return NULL;
}

bool disk_free(struct disk *disk, int ms)
{
    if (disk == NULL)
        return true;
    if (!disk_wait(disk, ms)) {
        event_del(disk->finished);
        event_del(disk->watch);
        return false;
    }
    pthread_mutex_lock(&disk->lock);
    disk->stop = true;
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
    pthread_join(disk->thread, NULL);
    pthread_mutex_destroy(&disk->lock);
    pthread_cond_destroy(&disk->wake);
    release(disk);
    return true;
}
