// SPDX-License-Identifier: Apache-2.0
// Which numbers arrived, one bit each, and what of each window.
#include "account.h"

#include <stdlib.h>
#include <string.h>

#define BITS 64

struct account {
    uint64_t *seen; // a bit for each number
    uint64_t words; // in `seen`
    struct account_window *windows;
    uint32_t windows_used, windows_room;
    uint64_t received, duplicated, reordered;
    uint64_t highest;
    int64_t last;
};

struct account *account_new(void)
{
    return calloc(1, sizeof(struct account));
}

void account_free(struct account *account)
{
    if (account == NULL)
        return;
    free(account->seen);
    free(account->windows);
    free(account);
}

// Makes `*array` hold element `index`, its new elements zeros; `*room` counts elements.
static bool reach(void **array, size_t size, uint64_t index, uint64_t *room)
{
    if (index < *room)
        return true;
    uint64_t wanted = *room == 0 ? 64 : *room;
    while (wanted <= index)
        wanted *= 2;
    char *bigger = realloc(*array, wanted * size);
    if (bigger == NULL)
        return false;
    memset(bigger + *room * size, 0, (wanted - *room) * size);
    *array = bigger;
    *room = wanted;
    return true;
}

static bool reach_window(struct account *account, uint32_t window)
{
    uint64_t room = account->windows_room;
    void *windows = account->windows;

    if (window >= ACCOUNT_WINDOWS_MAX || !reach(&windows, sizeof(*account->windows), window, &room))
        return false;
    account->windows = windows;
    account->windows_room = (uint32_t)room;
    if (window >= account->windows_used)
        account->windows_used = window + 1;
    return true;
}

static bool reach_number(struct account *account, uint64_t number)
{
    void *seen = account->seen;

    if (number >= ACCOUNT_NUMBERS_MAX ||
        !reach(&seen, sizeof(*account->seen), number / BITS, &account->words))
        return false;
    account->seen = seen;
    return true;
}

static void count_gap(const struct account *account, struct account_window *in, int64_t now)
{
    if (account->last != 0 && now - account->last > in->longest_gap)
        in->longest_gap = now - account->last;
}

bool account_take(struct account *account, uint64_t number, uint32_t window, int64_t sent,
                  int64_t now)
{
    if (!reach_number(account, number) || !reach_window(account, window))
        return false;
    uint64_t *word = &account->seen[number / BITS], bit = UINT64_C(1) << number % BITS;
    struct account_window *in = &account->windows[window];

    if (*word & bit) {
        account->duplicated++;
        return true;
    }
    *word |= bit;
    account->received++;
    in->received++;
    if (number < account->highest)
        account->reordered++;
    else
        account->highest = number;
    count_gap(account, in, now);
    if (now - sent > in->longest_delay)
        in->longest_delay = now - sent;
    account->last = now;
    return true;
}

void account_end(struct account *account, uint32_t window, int64_t now)
{
    if (reach_window(account, window))
        count_gap(account, &account->windows[window], now);
}

uint64_t account_received(const struct account *account)
{
    return account->received;
}

uint64_t account_duplicated(const struct account *account)
{
    return account->duplicated;
}

uint64_t account_reordered(const struct account *account)
{
    return account->reordered;
}

int64_t account_last(const struct account *account)
{
    return account->last;
}

struct account_window account_window(const struct account *account, uint32_t window)
{
    if (window >= account->windows_used)
        return (struct account_window){0};
    return account->windows[window];
}
