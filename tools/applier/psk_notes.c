// SPDX-License-Identifier: Apache-2.0
// Reading and judging a counterpart's notes about a preshared key.
#include "psk_notes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "verified.h"

struct psk_notes {
    char host[HOST_MAX + 1], key[KEY_MAX + 1];
    struct verified *verified;
    struct refusals refusals;
    struct psk_says newest;
};

struct psk_notes *psk_notes_new(const char *host, const char *key)
{
    struct psk_notes *notes = calloc(1, sizeof(*notes));
    if (notes == NULL)
        return NULL;
    notes->verified = verified_new();
    if (notes->verified == NULL) {
        free(notes);
        return NULL;
    }
    snprintf(notes->host, sizeof(notes->host), "%s", host);
    snprintf(notes->key, sizeof(notes->key), "%s", key);
    return notes;
}

void psk_notes_free(struct psk_notes *notes)
{
    if (notes == NULL)
        return;
    verified_free(notes->verified);
    refusals_free(&notes->refusals);
    free(notes);
}

const struct refusals *psk_notes_refusals(const struct psk_notes *notes)
{
    return &notes->refusals;
}

static int refuse(enum refusal_kind kind, char *message, const char *text)
{
    snprintf(message, REFUSAL_MESSAGE_MAX, "%s", text);
    return kind;
}

static int judge_made(const struct psk_note *note, const struct psk_notes_own *own, char *message)
{
    if (own->receive_key == NULL ||
        sodium_memcmp(note->receive_key, own->receive_key, RECORD_KEY_SIZE) != 0)
        return refuse(REFUSAL_MISPLACED, message,
                      "its box is sealed to another receive key than ours");
    if (note->epoch >= own->received)
        return 0;
    snprintf(message, REFUSAL_MESSAGE_MAX,
             "it brings epoch %" PRIu64 ", and %" PRIu64 " was received before: a replay",
             note->epoch, own->received);
    return REFUSAL_OLDER;
}

int psk_notes_judge(const struct psk_note *note, enum psk_note_state state, const char *host,
                    const char *key, const struct psk_notes_own *own, const struct psk_note *newest,
                    char *message)
{
    char time[RECORD_TIME_SIZE] = "?", seen[RECORD_TIME_SIZE] = "?";
    record_time_format(note->time_us, time);
    if (note->state != state || strcmp(note->host, host) != 0 || strcmp(note->key, key) != 0 ||
        strcmp(note->peer, own->host) != 0 || strcmp(note->peer_key, own->key) != 0) {
        snprintf(message, REFUSAL_MESSAGE_MAX,
                 "it says %s, of %s's key %s with %s's key %s: it belongs elsewhere",
                 psk_note_state_name(note->state), note->host, note->key, note->peer,
                 note->peer_key);
        return REFUSAL_MISPLACED;
    }
    if (note->time_us > own->now_us + own->tolerance_us) {
        snprintf(message, REFUSAL_MESSAGE_MAX, "it is of a time to come, %s: compare the clocks",
                 time);
        return REFUSAL_NOT_YET;
    }
    if (newest->state != PSK_NOTE_NONE && note->time_us < newest->time_us) {
        record_time_format(newest->time_us, seen);
        snprintf(message, REFUSAL_MESSAGE_MAX,
                 "it is of %s, and one of %s was here before: a replay", time, seen);
        return REFUSAL_OLDER;
    }
    return state == PSK_NOTE_MADE ? judge_made(note, own, message) : 0;
}

static void take(struct psk_notes *notes, const struct verified_note *found, const char *path,
                 enum psk_note_state state, const struct psk_notes_own *own,
                 struct psk_note *newest)
{
    struct psk_note note;
    struct error err = {.code = ERROR_OK};
    char message[REFUSAL_MESSAGE_MAX];
    int kind = REFUSAL_UNREADABLE;
    if (psk_note_parse(&note, found->text, found->length, &err) != 0)
        refuse(kind, message, err.message);
    else
        kind = psk_notes_judge(&note, state, notes->host, notes->key, own, newest, message);
    if (kind == 0)
        *newest = note;
    else
        refusals_add(&notes->refusals, (enum refusal_kind)kind, path, found->digest, "%s", message);
}

static int look_for(struct psk_notes *notes, enum psk_note_state state, struct registry *registry,
                    const struct trust *trust, const struct psk_notes_own *own,
                    struct psk_note *newest, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1];
    struct verified_note note;
    enum verified_outcome outcome;
    registry_psk_path(path, notes->host, notes->key, psk_note_state_name(state), own->host,
                      own->key);
    if (verified_read(notes->verified, registry, trust, notes->host, path, &note, &outcome,
                      &notes->refusals, err) != 0)
        return -1;
    if (outcome == VERIFIED_GOOD)
        take(notes, &note, path, state, own, newest);
    return 0;
}

int psk_notes_look(struct psk_notes *notes, struct registry *registry, const struct trust *trust,
                   const struct psk_notes_own *own, struct psk_says *says, struct error *err)
{
    struct psk_says *newest = &notes->newest;
    refusals_begin(&notes->refusals);
    int rc = look_for(notes, PSK_NOTE_MADE, registry, trust, own, &newest->made, err);
    if (rc == 0)
        rc = look_for(notes, PSK_NOTE_RECEIVED, registry, trust, own, &newest->received, err);
    if (rc == 0)
        rc = look_for(notes, PSK_NOTE_SET, registry, trust, own, &newest->set, err);
    if (rc == 0)
        verified_sweep(notes->verified);
    *says = *newest;
    return rc;
}
