// SPDX-License-Identifier: Apache-2.0
// The thread that calls fdatasync: it touches nothing but its descriptor, and never the token.
#include "durable.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREAD_STACK (256 * 1024) // bytes

struct durable {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake; // for the thread: work, or the end
    pthread_cond_t done; // for the caller
    int fd;              // -1 when there is no work; the thread's own duplicate
    bool busy;
    bool ending;
    int failure; // errno of the last call, 0
};

static void *run(void *context)
{
    struct durable *durable = context;
    pthread_mutex_lock(&durable->lock);
    while (!durable->ending) {
        if (durable->fd < 0) {
            pthread_cond_wait(&durable->wake, &durable->lock);
            continue;
        }
        int fd = durable->fd;
        durable->fd = -1;
        pthread_mutex_unlock(&durable->lock);
        // EINTR says nothing about what was written; and an error is never retried: the kernel may
        // have dropped the pages.
        int failure = fdatasync(fd) == 0 ? 0 : errno;
        close(fd);
        pthread_mutex_lock(&durable->lock);
        durable->failure = failure;
        durable->busy = false;
        pthread_cond_signal(&durable->done);
    }
    pthread_mutex_unlock(&durable->lock);
    return NULL;
}

static int start_thread(struct durable *durable)
{
    pthread_attr_t attributes;
    pthread_condattr_t clock;
    pthread_mutex_init(&durable->lock, NULL);
    pthread_cond_init(&durable->wake, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&durable->done, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    // Signals are the main thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_create(&durable->thread, &attributes, run, durable);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failure;
}

int durable_start(struct durable **out, struct error *err)
{
    struct durable *durable = calloc(1, sizeof(*durable));
    if (durable == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    durable->fd = -1;
    int failure = start_thread(durable);
    if (failure != 0) {
        free(durable);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "cannot start a thread: %s",
                         strerror(failure));
    }
    *out = durable;
    return 0;
}

void durable_stop(struct durable *durable)
{
    if (durable == NULL)
        return;
    pthread_mutex_lock(&durable->lock);
    durable->ending = true;
    bool busy = durable->busy;
    pthread_cond_signal(&durable->wake);
    pthread_mutex_unlock(&durable->lock);
    if (busy) {
        pthread_detach(durable->thread); // the process ends, and its memory with it
        return;
    }
    pthread_join(durable->thread, NULL);
    pthread_cond_destroy(&durable->done);
    pthread_cond_destroy(&durable->wake);
    pthread_mutex_destroy(&durable->lock);
    free(durable);
}

int durable_begin(struct durable *durable, int fd, struct error *err)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "the log: fcntl: %s", strerror(errno));
    int result = 0;
    pthread_mutex_lock(&durable->lock);
    if (durable->busy) {
        close(own);
        result =
            error_set(err, ERROR_UNAVAILABLE, "the log's disk still hangs in an earlier fdatasync");
    } else {
        durable->busy = true;
        durable->failure = 0;
        durable->fd = own;
        pthread_cond_signal(&durable->wake);
    }
    pthread_mutex_unlock(&durable->lock);
    // A kernel that wakes the thread on this processor would let it wait until we do (measured: all
    // of the unsealing that was to overlap the disk).
    sched_yield();
    return result;
}

int durable_wait(struct durable *durable, int timeout_ms, struct error *err)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int late = 0;
    pthread_mutex_lock(&durable->lock);
    while (durable->busy && late == 0)
        late = pthread_cond_timedwait(&durable->done, &durable->lock, &until);
    bool busy = durable->busy;
    int failure = durable->failure;
    pthread_mutex_unlock(&durable->lock);
    if (busy)
        return error_set(err, ERROR_DEADLINE_EXCEEDED,
                         "the log's disk hangs: fdatasync has not returned for %d s",
                         timeout_ms / 1000);
    if (failure != 0)
        return error_set(err, ERROR_UNAVAILABLE, "the log cannot be made durable: fdatasync: %s",
                         strerror(failure));
    return 0;
}
