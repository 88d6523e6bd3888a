// SPDX-License-Identifier: Apache-2.0
// Publishes bundles and freshness notes.
#include "own_notes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "bundle.h"

#define NOTES (sizeof((struct tended *)0)->notes / sizeof((struct tended *)0)->notes[0])

static struct tended_note *find_note(struct tended *tended, uint64_t generation)
{
    for (size_t i = 0; i < NOTES; i++)
        if (tended->notes[i].generation == generation)
            return &tended->notes[i];
    return NULL;
}

// The place for a note of `generation`: its own, else the lowest generation's.
static struct tended_note *make_place(struct tended *tended, uint64_t generation)
{
    struct tended_note *place = find_note(tended, generation);
    for (size_t i = 0; place == NULL && i < NOTES; i++)
        if (tended->notes[i].generation == 0)
            place = &tended->notes[i];
    if (place == NULL) {
        place = &tended->notes[0];
        for (size_t i = 1; i < NOTES; i++)
            if (tended->notes[i].generation < place->generation)
                place = &tended->notes[i];
    }
    return place;
}

// The text part of a note of ours: what stands before its signature.
static int parse_own(const char *note, struct bundle *bundle)
{
    const char *end = strstr(note, "\n\n");
    if (end == NULL)
        return -1;
    return bundle_parse(bundle, note, (size_t)(end - note) + 1, NULL);
}

// Whether the note still is what we would say: the state, where we take move datagrams, how many
// peers there are, what preshared keys are sealed to, and half of its time left.
static bool is_right(const struct tended *tended, const struct bundle *bundle,
                     enum record_bundle_state state)
{
    const struct setup_interface *setup = tended->setup;
    bool takes = setup->move_address.family != 0;
    int64_t lasts = bundle->not_after_us - bundle->not_before_us;
    return bundle->state == state &&
           strcmp(bundle->address, takes ? setup->move_address.text : "") == 0 &&
           bundle->port == (takes ? setup->move_port : 0) && bundle->peers == setup->peer_count &&
           (tended->view->has_receive_key
                ? memcmp(bundle->receive_key, tended->view->receive_key, RECORD_KEY_SIZE) == 0
                : sodium_is_zero(bundle->receive_key, RECORD_KEY_SIZE)) &&
           tended_now_us() < bundle->not_after_us - lasts / 2;
}

static int sign(struct tended *tended, uint64_t generation, enum record_bundle_state state,
                struct error *err)
{
    struct custody_error theirs = {0};
    struct tended_note *note = make_place(tended, generation);
    struct bundle bundle;
    bool takes = tended->setup->move_address.family != 0;
    note->generation = 0;
    if (custody_key_publish(tended->world->custody, tended->setup->key, generation, NULL,
                            takes ? tended->setup->move_address.text : NULL,
                            takes ? tended->setup->move_port : 0, tended->setup->peer_count,
                            note->text, sizeof note->text, &theirs) != 0)
        return tended_from_library(tended, &theirs, "having a bundle signed", err);
    if (parse_own(note->text, &bundle) != 0 || bundle.generation != generation ||
        bundle.state != state)
        return error_set(err, ERROR_ABORTED,
                         "key '%s': the bundle signed of generation %" PRIu64
                         " says something else than was asked for: it changed meanwhile",
                         tended->setup->key, generation);
    note->generation = generation;
    tended_tell(tended, "generation %" PRIu64 " published as %s", generation,
                record_bundle_state_name(state));
    tended->dirty = true;
    return 0;
}

// What is there and signed by us is taken over after a restart, so that nothing is signed twice.
static void adopt(struct tended *tended, uint64_t generation, const char *found)
{
    struct note_key key;
    struct bundle bundle;
    size_t length;
    const char *vkey = tended->world->own_host_vkey;
    if (find_note(tended, generation) != NULL || vkey[0] == '\0' ||
        note_key_parse(&key, vkey, NULL) != 0 ||
        note_verify(found, strlen(found), &key, 1, &length, NULL, NULL) != 0 ||
        bundle_parse(&bundle, found, length, NULL) != 0 || bundle.generation != generation ||
        strcmp(bundle.host, tended->world->own_host) != 0 ||
        strcmp(bundle.key, tended->setup->key) != 0)
        return;
    struct tended_note *note = make_place(tended, generation);
    note->generation = generation;
    snprintf(note->text, sizeof note->text, "%s", found);
}

// One generation's bundle.
static int tend_bundle(struct tended *tended, uint64_t generation, enum record_bundle_state state,
                       struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1], found[NOTE_MAX] = "";
    size_t length = 0;
    struct bundle bundle;
    registry_bundle_path(path, tended->world->own_host, tended->setup->key, generation);
    int rc = registry_get(tended->world->registry, path, found, &length, err);
    if (rc != 0 && err->code != ERROR_NOT_FOUND && err->code != ERROR_DATA_LOSS)
        return -1;
    if (rc == 0)
        adopt(tended, generation, found);
    struct tended_note *note = find_note(tended, generation);
    if (note == NULL || parse_own(note->text, &bundle) != 0 || !is_right(tended, &bundle, state)) {
        if (tended->world->custody == NULL)
            return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
        if (sign(tended, generation, state, err) != 0)
            return -1;
        note = find_note(tended, generation);
    }
    if (strcmp(found, note->text) == 0)
        return 0;
    return registry_put(tended->world->registry, path, note->text, strlen(note->text), err);
}

// A bundle in the registry whose generation has ended: said to be withdrawn while it is above the
// active one, taken away when it is below.
static int tend_ended(struct tended *tended, uint64_t generation, struct error *err)
{
    char path[REGISTRY_PATH_MAX + 1];
    const struct custody_key *active = plan_in_state(tended->view, CUSTODY_KEY_ACTIVE);
    if (plan_bundle_state(tended->view, generation) == BUNDLE_DESTROYED) {
        if (tend_bundle(tended, generation, BUNDLE_DESTROYED, err) == 0)
            return 0;
        if (err->code != ERROR_NOT_FOUND)
            return -1; // else: forgotten by the log, too
    } else if (active == NULL || generation > active->generation ||
               plan_generation(tended->view, generation) != NULL) {
        return 0;
    }
    registry_bundle_path(path, tended->world->own_host, tended->setup->key, generation);
    return registry_remove(tended->world->registry, path, err);
}

static int tend_all_ended(struct tended *tended, struct error *err)
{
    char folder[REGISTRY_PATH_MAX + 1];
    struct registry_names names = {0};
    uint64_t generation;
    registry_folder(folder, tended->world->own_host, tended->setup->key);
    int rc = registry_list(tended->world->registry, folder, "bundle-", &names, err);
    for (size_t i = 0; rc == 0 && i < names.count; i++)
        if (registry_bundle_name(names.items[i], &generation))
            rc = tend_ended(tended, generation, err);
    registry_names_free(&names);
    return rc;
}

static int refresh(struct tended *tended, struct error *err)
{
    char note[NOTE_MAX], path[REGISTRY_PATH_MAX + 1];
    struct custody_error theirs = {0};
    int64_t now = tended_now_us();
    if (tended->view->bundle_generation == 0 || now < tended->fresh_due_us)
        return 0;
    if (tended->world->custody == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "custodyd is not reached");
    if (custody_key_refresh(tended->world->custody, tended->setup->key, note, sizeof note,
                            &theirs) != 0)
        return tended_from_library(tended, &theirs, "having a freshness note signed", err);
    registry_fresh_path(path, tended->world->own_host, tended->setup->key);
    if (registry_put(tended->world->registry, path, note, strlen(note), err) != 0)
        return -1;
    tended->fresh_due_us = now + tended->world->setup->fresh_interval_s * INT64_C(1000000);
    return 0;
}

int own_notes_tend(struct tended *tended, struct error *err)
{
    for (size_t i = 0; i < tended->view->generation_count; i++) {
        uint64_t generation = tended->view->generations[i].generation;
        enum record_bundle_state state = plan_bundle_state(tended->view, generation);
        if (state != BUNDLE_NONE && state != BUNDLE_DESTROYED &&
            tend_bundle(tended, generation, state, err) != 0)
            return -1;
    }
    if (tend_all_ended(tended, err) != 0 || refresh(tended, err) != 0)
        return -1;
    int64_t due_ms = device_now_ms() + (tended->fresh_due_us - tended_now_us()) / 1000 + 1;
    if (tended->fresh_due_us != 0 && due_ms < tended->due_ms)
        tended->due_ms = due_ms;
    return 0;
}
