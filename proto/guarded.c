// SPDX-License-Identifier: Apache-2.0
// A few spare pieces of guarded memory: mapping and locking one costs more than opening the box
// that fills it.
#include "guarded.h"

#include <pthread.h>
#include <stddef.h>

#include <sodium.h>

#define SPARES 4 // more are given back to the system

static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct {
    pthread_mutex_t lock;
    size_t count;
    uint8_t *memory[SPARES]; // wiped
} spares = {.lock = PTHREAD_MUTEX_INITIALIZER};

// In a forked child: what the parent locked is not locked here.
static void forget_spares(void)
{
    pthread_mutex_init(&spares.lock, NULL);
    while (spares.count > 0)
        sodium_free(spares.memory[--spares.count]);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget_spares);
}

uint8_t *guarded_take(struct error *err)
{
    uint8_t *memory = NULL;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&spares.lock);
    if (spares.count > 0)
        memory = spares.memory[--spares.count];
    pthread_mutex_unlock(&spares.lock);
    if (memory != NULL)
        return memory;
    memory = sodium_malloc(GUARDED_SIZE);
    // sodium_malloc does not say when it could not lock: then the key might reach a swap device.
    if (memory != NULL && sodium_mlock(memory, GUARDED_SIZE) == 0)
        return memory;
    sodium_free(memory);
    error_set(err, ERROR_RESOURCE_EXHAUSTED,
              "cannot lock memory for a key: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)");
    return NULL;
}

void guarded_give(uint8_t *memory)
{
    if (memory == NULL)
        return;
    sodium_memzero(memory, GUARDED_SIZE);
    pthread_mutex_lock(&spares.lock);
    if (spares.count < SPARES) {
        spares.memory[spares.count++] = memory;
        memory = NULL;
    }
    pthread_mutex_unlock(&spares.lock);
    sodium_free(memory);
}
