// SPDX-License-Identifier: Apache-2.0
// A ring of batches between the thread that reads and those that hash. The reader hashes too when
// it would otherwise have to wait.
#include "leaf_hasher.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum stage {
    BATCH_FREE,    // the reader's
    BATCH_READY,   // waits to be hashed
    BATCH_CLAIMED, // being hashed
    BATCH_HASHED,
};

struct slot {
    enum stage stage;
    struct leaf_batch batch;
};

struct leaf_hasher {
    leaf_done_fn *done;
    void *context;
    uint64_t next; // position of the next line
    size_t size;   // of the ring
    size_t fill;   // slot that is being filled
    size_t oldest; // slot that has to be handed over next
    bool stopping;
    unsigned threads;
    pthread_t *ids;
    pthread_mutex_t mutex;
    pthread_cond_t ready;  // a batch waits, or it is over
    pthread_cond_t hashed; // a batch is done
    struct slot *slots;
};

// The root over a whole tile. Overwrites nothing of the leaves.
static struct merkle_hash tile_root(const struct merkle_hash leaves[TILE_WIDTH])
{
    struct merkle_hash nodes[TILE_WIDTH / 2];
    for (unsigned i = 0; i < TILE_WIDTH / 2; i++)
        nodes[i] = merkle_node(&leaves[2 * i], &leaves[2 * i + 1]);
    for (unsigned count = TILE_WIDTH / 2; count > 1; count /= 2)
        for (unsigned i = 0; i < count / 2; i++)
            nodes[i] = merkle_node(&nodes[2 * i], &nodes[2 * i + 1]);
    return nodes[0];
}

static void hash_batch(struct leaf_batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        const struct leaf_line *line = &batch->lines[i];
        batch->leaves[i] =
            merkle_leaf_in_place(batch->text + line->offset - 1, (size_t)line->length + 1);
    }
    if (batch->count == TILE_WIDTH)
        batch->root = tile_root(batch->leaves);
}

// ---- the threads ----

// The ready batch that is furthest along, or NULL. The mutex is held.
static struct slot *find_ready(struct leaf_hasher *hasher)
{
    for (size_t i = 0; i < hasher->size; i++) {
        struct slot *slot = &hasher->slots[(hasher->oldest + i) % hasher->size];
        if (slot->stage == BATCH_READY)
            return slot;
    }
    return NULL;
}

// Hashes a batch that was found ready. The mutex is held, but not while it hashes.
static void work_on(struct leaf_hasher *hasher, struct slot *slot)
{
    slot->stage = BATCH_CLAIMED;
    pthread_mutex_unlock(&hasher->mutex);
    hash_batch(&slot->batch);
    pthread_mutex_lock(&hasher->mutex);
    slot->stage = BATCH_HASHED;
    pthread_cond_signal(&hasher->hashed);
}

static void *run_thread(void *argument)
{
    struct leaf_hasher *hasher = argument;
    pthread_mutex_lock(&hasher->mutex);
    while (!hasher->stopping) {
        struct slot *slot = find_ready(hasher);
        if (slot != NULL)
            work_on(hasher, slot);
        else
            pthread_cond_wait(&hasher->ready, &hasher->mutex);
    }
    pthread_mutex_unlock(&hasher->mutex);
    return NULL;
}

struct leaf_hasher *leaf_hasher_new(unsigned jobs, uint64_t first, leaf_done_fn *done,
                                    void *context, struct error *err)
{
    struct leaf_hasher *hasher = calloc(1, sizeof(*hasher));
    if (hasher == NULL)
        goto no_memory;
    hasher->done = done;
    hasher->context = context;
    hasher->next = first;
    hasher->size = jobs > 1 ? jobs + 2 : 1;
    hasher->slots = calloc(hasher->size, sizeof(*hasher->slots));
    hasher->ids = calloc(jobs, sizeof(*hasher->ids));
    if (hasher->slots == NULL || hasher->ids == NULL) {
        free(hasher->slots);
        free(hasher->ids);
        free(hasher);
        goto no_memory;
    }
    pthread_mutex_init(&hasher->mutex, NULL);
    pthread_cond_init(&hasher->ready, NULL);
    pthread_cond_init(&hasher->hashed, NULL);
    // With fewer threads than wanted it only takes longer.
    while (hasher->threads + 1 < jobs &&
           pthread_create(&hasher->ids[hasher->threads], NULL, run_thread, hasher) == 0)
        hasher->threads++;
    return hasher;
no_memory:
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to hash with %u jobs", jobs);
    return NULL;
}

void leaf_hasher_free(struct leaf_hasher *hasher)
{
    if (hasher == NULL)
        return;
    pthread_mutex_lock(&hasher->mutex);
    hasher->stopping = true;
    pthread_cond_broadcast(&hasher->ready);
    pthread_mutex_unlock(&hasher->mutex);
    for (unsigned i = 0; i < hasher->threads; i++)
        pthread_join(hasher->ids[i], NULL);
    pthread_cond_destroy(&hasher->ready);
    pthread_cond_destroy(&hasher->hashed);
    pthread_mutex_destroy(&hasher->mutex);
    free(hasher->slots);
    free(hasher->ids);
    free(hasher);
}

// ---- the reader's side ----

// Waits until the oldest batch is hashed, hashing meanwhile, and hands it over.
static int take_oldest(struct leaf_hasher *hasher, struct error *err)
{
    struct slot *slot = &hasher->slots[hasher->oldest];
    pthread_mutex_lock(&hasher->mutex);
    while (slot->stage != BATCH_HASHED) {
        struct slot *ready = find_ready(hasher);
        if (ready != NULL)
            work_on(hasher, ready);
        else
            pthread_cond_wait(&hasher->hashed, &hasher->mutex);
    }
    pthread_mutex_unlock(&hasher->mutex);
    int result = hasher->done(hasher->context, &slot->batch, err);
    slot->batch.count = 0;
    slot->batch.used = 0;
    pthread_mutex_lock(&hasher->mutex);
    slot->stage = BATCH_FREE;
    pthread_mutex_unlock(&hasher->mutex);
    hasher->oldest = (hasher->oldest + 1) % hasher->size;
    return result;
}

static int submit(struct leaf_hasher *hasher, struct error *err)
{
    pthread_mutex_lock(&hasher->mutex);
    hasher->slots[hasher->fill].stage = BATCH_READY;
    pthread_cond_signal(&hasher->ready);
    pthread_mutex_unlock(&hasher->mutex);
    hasher->fill = (hasher->fill + 1) % hasher->size;
    // Only the reader hands over, so only it sees a ring that is full.
    return hasher->fill == hasher->oldest ? take_oldest(hasher, err) : 0;
}

int leaf_hasher_add(struct leaf_hasher *hasher, const char *text, const struct leaf_line *line,
                    struct error *err)
{
    struct leaf_batch *batch = &hasher->slots[hasher->fill].batch;
    if (batch->count > 0 && batch->used + 1 + line->length + MERKLE_PADDING > sizeof(batch->text)) {
        if (submit(hasher, err) != 0)
            return -1;
        batch = &hasher->slots[hasher->fill].batch;
    }
    if (batch->count == 0) {
        batch->first = hasher->next;
        batch->in_step = true;
    }
    struct leaf_line *added = &batch->lines[batch->count++];
    *added = *line;
    added->offset = (uint32_t)batch->used + 1;
    batch->text[batch->used] = 0;
    memcpy(batch->text + added->offset, text, line->length);
    batch->used += 1 + (size_t)line->length + MERKLE_PADDING;
    batch->in_step = batch->in_step && line->index == hasher->next;
    hasher->next++;
    return hasher->next % TILE_WIDTH == 0 ? submit(hasher, err) : 0;
}

int leaf_hasher_finish(struct leaf_hasher *hasher, struct error *err)
{
    if (hasher->slots[hasher->fill].batch.count > 0 && submit(hasher, err) != 0)
        return -1;
    while (hasher->slots[hasher->oldest].batch.count > 0)
        if (take_oldest(hasher, err) != 0)
            return -1;
    return 0;
}
