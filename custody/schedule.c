// SPDX-License-Identifier: Apache-2.0
// Due times, computed from what the log says.
#include "schedule.h"

#include <inttypes.h>
#include <stdio.h>

#include <sodium.h>

#define SECOND_US    INT64_C(1000000)
#define HOUR_S       3600
#define DOUBLING_MAX 20 // beyond this a quarter of the lifetime is less

int64_t schedule_jitter_us(const char *host, const char *key, uint64_t generation,
                           uint32_t jitter_s)
{
    char text[HOST_MAX + KEY_MAX + 32];
    uint8_t digest[crypto_hash_sha256_BYTES];
    uint64_t number = 0;
    int length = snprintf(text, sizeof(text), "%s\n%s\n%" PRIu64, host, key, generation);
    crypto_hash_sha256(digest, (const uint8_t *)text, (size_t)length);
    for (int i = 0; i < 7; i++)
        number = number << 8 | digest[i];
    return (int64_t)(number % ((uint64_t)jitter_s * SECOND_US + 1));
}

// How long the next rotation waits after `failures` in a row.
static int64_t wait_us(const struct config_key *config, uint32_t failures)
{
    int64_t longest = (config->lifetime_s != 0 ? config->lifetime_s : HOUR_S) * SECOND_US / 4;
    int64_t wait = (config->window_s * SECOND_US)
                   << (failures < DOUBLING_MAX ? failures : DOUBLING_MAX);
    return wait < longest ? wait : longest;
}

int64_t schedule_again_us(const struct config_key *config, const struct rotation *rotation)
{
    if (rotation == NULL || rotation->failures == 0)
        return 0;
    return rotation->ended_us + wait_us(config, rotation->failures);
}

int64_t schedule_rotation_us(const struct config_key *config, const char *host,
                             const struct rotation *rotation, const struct state_key *active)
{
    char warning[CONFIG_WARNING_SIZE];
    if (config->lifetime_s == 0 || active == NULL || config_key_warning(config, warning))
        return 0;
    if (rotation != NULL && (rotation->generation != 0 || rotation->suspended_us != 0))
        return 0;
    int64_t due = active->activated_us + config->lifetime_s * SECOND_US -
                  schedule_jitter_us(host, config->name, active->generation, config->jitter_s);
    int64_t again = schedule_again_us(config, rotation);
    return again > due ? again : due;
}

int64_t schedule_destruction_us(const struct config_key *config, const struct state_key *key)
{
    if (key->state != KEY_DEACTIVATED)
        return 0;
    return key->deactivated_us + config->grace_s * SECOND_US;
}
