// SPDX-License-Identifier: Apache-2.0
// The disk's thread: order, answers on the event loop, a bound, and a job that does not return.
#include "disk.h"

#include <pthread.h>
#include <stdlib.h>

#include "tap.h"

#define MANY       100
#define PATIENT_MS 30000

static void on_hangs(void *context, const struct error *why)
{
    (void)context;
    (void)why;
}

static void on_back(void *context)
{
    (void)context;
}

static struct disk *make_disk(struct event_base *base)
{
    struct disk_handlers handlers = {.hangs = on_hangs, .back = on_back};
    struct error err;
    struct disk *disk = disk_new(base, &handlers, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(disk);
    return disk;
}

// ---- order ----

struct list {
    pthread_t loop;
    int worked[MANY], done[MANY];
    int work_count, done_count;
};

struct item {
    struct list *list;
    int number;
};

static void work(void *context)
{
    const struct item *item = context;
    CU_ASSERT_FALSE(pthread_equal(pthread_self(), item->list->loop));
    item->list->worked[item->list->work_count++] = item->number;
}

static void done(void *context)
{
    const struct item *item = context;
    CU_ASSERT_TRUE(pthread_equal(pthread_self(), item->list->loop));
    item->list->done[item->list->done_count++] = item->number;
}

static void test_order(void)
{
    struct event_base *base = event_base_new();
    struct disk *disk = make_disk(base);
    struct list list = {.loop = pthread_self()};
    struct item items[MANY];
    struct error err;
    for (int i = 0; i < MANY; i++) {
        items[i] = (struct item){.list = &list, .number = i};
        CU_ASSERT_EQUAL(disk_do(disk, "counting", work, done, &items[i], &err), 0);
    }
    CU_ASSERT_EQUAL(list.done_count, 0); // never from within disk_do
    while (list.done_count < MANY)
        event_base_loop(base, EVLOOP_ONCE);
    for (int i = 0; i < MANY; i++) {
        CU_ASSERT_EQUAL(list.worked[i], i);
        CU_ASSERT_EQUAL(list.done[i], i);
    }
    CU_ASSERT_TRUE(disk_free(disk, PATIENT_MS));
    event_base_free(base);
}

// ---- a job that does not return ----

struct gate {
    pthread_mutex_t lock;
    int passed;
};

static void wait_at_gate(void *context)
{
    struct gate *gate = context;
    pthread_mutex_lock(&gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static void pass(void *context)
{
    struct gate *gate = context;
    gate->passed++;
}

static void test_hanging(void)
{
    struct event_base *base = event_base_new();
    struct disk *disk = make_disk(base);
    struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct error err;
    int queued = 0;
    pthread_mutex_lock(&gate.lock);
    while (queued < 100000 && disk_do(disk, "waiting", wait_at_gate, pass, &gate, &err) == 0)
        queued++;
    CU_ASSERT_TRUE(queued > 0 && queued < 100000); // the queue has an end
    CU_ASSERT_EQUAL(err.code, ERROR_RESOURCE_EXHAUSTED);
    CU_ASSERT_FALSE(disk_wait(disk, 20));
    CU_ASSERT_EQUAL(gate.passed, 0);
    CU_ASSERT_FALSE(disk_is_hanging(disk, &err)); // not yet
    pthread_mutex_unlock(&gate.lock);
    CU_ASSERT_TRUE(disk_wait(disk, PATIENT_MS));
    CU_ASSERT_EQUAL(gate.passed, queued);
    CU_ASSERT_TRUE(disk_free(disk, PATIENT_MS));
    event_base_free(base);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"jobs in order, answers on the loop", test_order},
        {"a job that does not return", test_hanging},
        CU_TEST_INFO_NULL,
    };
    return tap_run("disk", tests);
}
