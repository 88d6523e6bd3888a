// SPDX-License-Identifier: Apache-2.0
// Backoff by the kind of failure, and a sliding window of releases.
#include "retry.h"

int64_t retry_wait_ms(bool costly, unsigned failures, uint32_t random)
{
    int64_t wait = costly ? 5000 : 250, cap = costly ? 300000 : 30000;
    for (unsigned i = 1; i < failures && wait < cap; i++)
        wait *= 2;
    if (wait > cap)
        wait = cap;
    return wait / 2 + (int64_t)(random % (uint32_t)(wait / 2 + 1));
}

// A number of 1 to 6 digits at `*text`, which is moved behind it; 0 when there is none.
static unsigned take_number(const char **text)
{
    unsigned number = 0;
    for (int digits = 0; digits < 6 && **text >= '0' && **text <= '9'; digits++, (*text)++)
        number = number * 10 + (unsigned)(**text - '0');
    return number;
}

int rate_parse(struct rate *rate, const char *text)
{
    unsigned count = take_number(&text), seconds = 0;
    if (*text == '/') {
        text++;
        seconds = take_number(&text);
    }
    if (count < 1 || count > RATE_MAX || seconds < 1 || *text != '\0')
        return -1;
    *rate = (struct rate){.count = count, .per_ms = (int64_t)seconds * 1000};
    return 0;
}

int64_t rate_next_ms(const struct rate *rate, int64_t now_ms)
{
    if (rate->used < rate->count)
        return now_ms;
    int64_t earliest = rate->taken[rate->next] + rate->per_ms;
    return earliest > now_ms ? earliest : now_ms;
}

void rate_take(struct rate *rate, int64_t now_ms)
{
    rate->taken[rate->next] = now_ms;
    rate->next = (rate->next + 1) % rate->count;
    if (rate->used < rate->count)
        rate->used++;
}
