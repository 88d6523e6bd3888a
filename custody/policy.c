// SPDX-License-Identifier: Apache-2.0
// Matching callers against grants, and the grants' rates.
#include "policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool policy_matches(const struct config_principal *who, const struct record_actor *actor)
{
    if (!actor->present || who->uid != actor->uid || (who->has_gid && who->gid != actor->gid))
        return false;
    switch (who->unit_kind) {
    case CONFIG_UNIT_ANY:
        return true;
    case CONFIG_UNIT_NONE:
        return actor->unit[0] == '\0';
    case CONFIG_UNIT_EXACT:
        return strcmp(who->unit, actor->unit) == 0;
    }
    return false;
}

static bool any_matches(const struct config_principal *who, size_t count,
                        const struct record_actor *actor)
{
    for (size_t i = 0; i < count; i++)
        if (policy_matches(&who[i], actor))
            return true;
    return false;
}

bool policy_may_see(const struct config_key *key, const struct record_actor *actor)
{
    for (size_t i = 0; i < key->grant_count; i++)
        if (policy_matches(&key->grants[i].who, actor))
            return true;
    return false;
}

bool policy_may_rotate(const struct config_key *key, const struct record_actor *actor)
{
    for (size_t i = 0; i < key->grant_count; i++)
        if ((key->grants[i].reasons & 1u << REASON_ROTATION) &&
            policy_matches(&key->grants[i].who, actor))
            return true;
    return false;
}

unsigned policy_roles(const struct config *config, const struct record_actor *actor)
{
    unsigned roles = POLICY_NOBODY;
    if (any_matches(config->operators, config->operator_count, actor))
        roles |= POLICY_OPERATOR;
    if (any_matches(config->auditors, config->auditor_count, actor))
        roles |= POLICY_AUDITOR;
    for (size_t i = 0; i < config->key_count; i++)
        if (policy_may_see(&config->keys[i], actor))
            roles |= POLICY_APPLIER;
    return roles;
}

bool policy_rate_take(struct policy_rate *rate, uint32_t count, uint32_t seconds, int64_t now_us)
{
    if (rate->filled_us == 0)
        rate->tokens = count;
    else
        rate->tokens += (double)(now_us - rate->filled_us) * count / (seconds * 1e6);
    if (rate->tokens > count)
        rate->tokens = count;
    rate->filled_us = now_us;
    if (rate->tokens < 1)
        return false;
    rate->tokens -= 1;
    return true;
}

// A grant's rate, found again by the names of key and grant when the configuration was read anew.
struct entry {
    char key[KEY_MAX + 1];
    char grant[CONFIG_TITLE_MAX + 1];
    struct policy_rate rate;
};

struct policy_rates {
    struct entry *entries;
    size_t count;
};

struct policy_rates *policy_rates_new(void)
{
    return calloc(1, sizeof(struct policy_rates));
}

void policy_rates_free(struct policy_rates *rates)
{
    if (rates == NULL)
        return;
    free(rates->entries);
    free(rates);
}

// NULL when out of memory.
static struct policy_rate *find_rate(struct policy_rates *rates, const char *key, const char *grant)
{
    for (size_t i = 0; i < rates->count; i++)
        if (strcmp(rates->entries[i].key, key) == 0 && strcmp(rates->entries[i].grant, grant) == 0)
            return &rates->entries[i].rate;
    struct entry *grown = realloc(rates->entries, (rates->count + 1) * sizeof(*grown));
    if (grown == NULL)
        return NULL;
    rates->entries = grown;
    struct entry *entry = &grown[rates->count++];
    memset(entry, 0, sizeof(*entry));
    snprintf(entry->key, sizeof(entry->key), "%s", key);
    snprintf(entry->grant, sizeof(entry->grant), "%s", grant);
    return &entry->rate;
}

int policy_release(const struct config *config, struct policy_rates *rates,
                   const struct record_actor *actor, const char *key_name,
                   enum record_reason reason, int64_t now_us, struct error *err)
{
    const struct config_key *key = config_find_key(config, key_name);
    // An undeclared key and one that is not the caller's get the same answer: names are not given
    // away.
    if (key == NULL || !policy_may_see(key, actor))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "no grant lets uid %u in unit '%s' have key '%s' released: see key \"%s\" "
                         "in the configuration",
                         actor->uid, actor->unit, key_name, key_name);
    bool limited = false;
    for (size_t i = 0; i < key->grant_count; i++) {
        const struct config_grant *grant = &key->grants[i];
        if (!policy_matches(&grant->who, actor) || (grant->reasons & 1u << reason) == 0)
            continue;
        struct policy_rate *rate = find_rate(rates, key->name, grant->who.name);
        if (rate == NULL)
            return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a rate");
        if (policy_rate_take(rate, grant->rate_count, grant->rate_seconds, now_us))
            return 0;
        limited = true;
    }
    if (limited)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "key '%s' was released as often as its grant allows: wait", key_name);
    return error_set(err, ERROR_PERMISSION_DENIED,
                     "key '%s' is not released for %s to uid %u in unit '%s'", key_name,
                     record_reason_name(reason), actor->uid, actor->unit);
}
