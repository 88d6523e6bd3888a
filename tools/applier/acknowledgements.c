// SPDX-License-Identifier: Apache-2.0
// Reading and judging a counterpart's acknowledgement.
#include "acknowledgements.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verified.h"

struct acknowledgements {
    char host[HOST_MAX + 1], key[KEY_MAX + 1];
    struct verified *verified;
    struct refusals refusals;
    struct acknowledgement newest; // of the generation that was looked for last; state PEER_NONE
};

struct acknowledgements *acknowledgements_new(const char *host, const char *key)
{
    struct acknowledgements *acknowledgements = calloc(1, sizeof(*acknowledgements));
    if (acknowledgements == NULL)
        return NULL;
    acknowledgements->verified = verified_new();
    if (acknowledgements->verified == NULL) {
        free(acknowledgements);
        return NULL;
    }
    snprintf(acknowledgements->host, sizeof(acknowledgements->host), "%s", host);
    snprintf(acknowledgements->key, sizeof(acknowledgements->key), "%s", key);
    return acknowledgements;
}

void acknowledgements_free(struct acknowledgements *acknowledgements)
{
    if (acknowledgements == NULL)
        return;
    verified_free(acknowledgements->verified);
    refusals_free(&acknowledgements->refusals);
    free(acknowledgements);
}

const struct refusals *acknowledgements_refusals(const struct acknowledgements *acknowledgements)
{
    return &acknowledgements->refusals;
}

static int refuse(enum refusal_kind kind, char *message, const char *text)
{
    snprintf(message, REFUSAL_MESSAGE_MAX, "%s", text);
    return kind;
}

int acknowledgements_judge(const struct acknowledgement *ack, const char *host, const char *key,
                           const struct acknowledgements_own *own,
                           const struct acknowledgement *newest, char *message)
{
    char time[RECORD_TIME_SIZE] = "?", seen[RECORD_TIME_SIZE] = "?";
    record_time_format(ack->time_us, time);
    if (strcmp(ack->host, host) != 0 || strcmp(ack->key, key) != 0) {
        snprintf(message, REFUSAL_MESSAGE_MAX,
                 "it is %s's for its key %s, and lies where that of %s for %s should", ack->host,
                 ack->key, host, key);
        return REFUSAL_MISPLACED;
    }
    if (strcmp(ack->peer, own->host) != 0 || strcmp(ack->peer_key, own->key) != 0 ||
        ack->generation != own->generation) {
        snprintf(message, REFUSAL_MESSAGE_MAX,
                 "it acknowledges generation %" PRIu64 " of %s's key %s, not %" PRIu64 " of ours",
                 ack->generation, ack->peer, ack->peer_key, own->generation);
        return REFUSAL_MISPLACED;
    }
    if (memcmp(ack->public_key, own->public_key, RECORD_KEY_SIZE) != 0)
        return refuse(REFUSAL_KEY_CHANGED, message,
                      "it acknowledges another public key than the one of this generation");
    if (ack->time_us > own->now_us + own->tolerance_us) {
        snprintf(message, REFUSAL_MESSAGE_MAX, "it is of a time to come, %s: compare the clocks",
                 time);
        return REFUSAL_NOT_YET;
    }
    if (newest == NULL || ack->time_us >= newest->time_us)
        return 0;
    record_time_format(newest->time_us, seen);
    snprintf(message, REFUSAL_MESSAGE_MAX, "it is of %s, and one of %s was here before: a replay",
             time, seen);
    return REFUSAL_OLDER;
}

// Begins anew when another generation is asked for.
static void keep_newest(struct acknowledgement *newest, const struct acknowledgements_own *own)
{
    if (newest->generation != own->generation ||
        memcmp(newest->public_key, own->public_key, RECORD_KEY_SIZE) != 0)
        memset(newest, 0, sizeof(*newest));
}

static void take(struct acknowledgements *acknowledgements, const struct verified_note *note,
                 const char *path, const struct acknowledgements_own *own)
{
    struct acknowledgement ack, *newest = &acknowledgements->newest;
    struct error err = {.code = ERROR_OK};
    char message[REFUSAL_MESSAGE_MAX];
    int kind = REFUSAL_UNREADABLE;
    if (acknowledgement_parse(&ack, note->text, note->length, &err) != 0)
        refuse(kind, message, err.message);
    else
        kind = acknowledgements_judge(&ack, acknowledgements->host, acknowledgements->key, own,
                                      newest->state != PEER_NONE ? newest : NULL, message);
    if (kind == 0)
        *newest = ack;
    else
        refusals_add(&acknowledgements->refusals, (enum refusal_kind)kind, path, note->digest, "%s",
                     message);
}

int acknowledgements_look(struct acknowledgements *acknowledgements, struct registry *registry,
                          const struct trust *trust, const struct acknowledgements_own *own,
                          struct acknowledgement *ack, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1];
    struct verified_note note;
    enum verified_outcome outcome;
    keep_newest(&acknowledgements->newest, own);
    refusals_begin(&acknowledgements->refusals);
    registry_ack_path(path, own->host, own->key, own->generation, acknowledgements->host,
                      acknowledgements->key);
    int result = verified_read(acknowledgements->verified, registry, trust, acknowledgements->host,
                               path, &note, &outcome, &acknowledgements->refusals, err);
    if (result == 0 && outcome == VERIFIED_GOOD)
        take(acknowledgements, &note, path, own);
    if (result == 0)
        verified_sweep(acknowledgements->verified);
    *ack = acknowledgements->newest;
    return result;
}
