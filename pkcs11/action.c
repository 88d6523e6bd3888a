// SPDX-License-Identifier: Apache-2.0
// Release, publish, acknowledge, refresh, adopt, destroy, and a preshared key's steps: each takes
// its arguments from the record and from nowhere else.
#include "action.h"

#include <inttypes.h>
#include <string.h>

#include <sodium.h>

#include "acknowledgement.h"
#include "bundle.h"
#include "freshness.h"
#include "lifecycle.h"
#include "preshared.h"
#include "psk_note.h"

#define RELEASABLE 2 // the highest generations of a key in the token

_Static_assert(KEEPER_BOX_SIZE == SEAL_KEY_SIZE + crypto_box_SEALBYTES, "a box holds one key");

// The events under which each action is done: one, or either of two.
static const struct {
    const char *name;
    enum record_event event, or_event;
} actions[] = {
    [KEEPER_ACTION_INIT] = {"INIT", RECORD_TOKEN_INITIALISED, RECORD_NONE},
    [KEEPER_ACTION_ADOPT] = {"ADOPT", RECORD_KEY_GENERATED, RECORD_KEY_IMPORTED},
    [KEEPER_ACTION_RELEASE] = {"RELEASE", RECORD_RELEASE_GRANTED, RECORD_NONE},
    [KEEPER_ACTION_DESTROY] = {"DESTROY", RECORD_KEY_DESTROYING, RECORD_NONE},
    [KEEPER_ACTION_PUBLISH] = {"PUBLISH", RECORD_KEY_PUBLISHED, RECORD_NONE},
    [KEEPER_ACTION_ACKNOWLEDGE] = {"ACKNOWLEDGE", RECORD_PEER_STAGED, RECORD_PEER_RETIRED},
    [KEEPER_ACTION_REFRESH] = {"REFRESH", RECORD_KEY_REFRESHED, RECORD_NONE},
    [KEEPER_ACTION_PSK_MAKE] = {"PSK_MAKE", RECORD_PSK_GENERATED, RECORD_NONE},
    [KEEPER_ACTION_PSK_TAKE] = {"PSK_TAKE", RECORD_PSK_RECEIVED, RECORD_NONE},
    [KEEPER_ACTION_PSK_SET] = {"PSK_SET", RECORD_PSK_SET, RECORD_NONE},
    [KEEPER_ACTION_PSK_DESTROY] = {"PSK_DESTROY", RECORD_PSK_DESTROYED, RECORD_NONE},
};
#define ACTIONS (sizeof(actions) / sizeof(actions[0]))

static int check_fits(const struct keeper_entry *entry, struct error *err)
{
    if (entry->action == KEEPER_ACTION_NONE)
        return 0;
    if (entry->action >= ACTIONS)
        return error_set(err, ERROR_INVALID_ARGUMENT, "action %u is unknown",
                         (unsigned)entry->action);
    enum record_event event = entry->record.event, other = actions[entry->action].or_event;
    if (event == actions[entry->action].event || (other != RECORD_NONE && event == other))
        return 0;
    const char *name = record_event_name(event);
    return error_set(err, ERROR_PERMISSION_DENIED, "%s is done under %s%s%s, not under %s",
                     actions[entry->action].name, record_event_name(actions[entry->action].event),
                     other != RECORD_NONE ? " or " : "",
                     other != RECORD_NONE ? record_event_name(other) : "",
                     name != NULL ? name : "an unknown event");
}

// Whether the token holds any object of that name.
static bool holds(const struct vault *vault, const struct record *record)
{
    return blobs_find(vault->blobs, record->key, record->generation, true) != NULL ||
           blobs_find(vault->blobs, record->key, record->generation, false) != NULL;
}

int action_check(const struct vault *vault, const struct keeper_entry *entry, struct error *err)
{
    const struct record *record = &entry->record;
    bool first = record->seq == 0;
    if (first != (record->event == RECORD_TOKEN_INITIALISED))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "record 0 must be token.initialised, and no other may be");
    if (first && vault_check_initialised(vault, record, err) != 0)
        return -1;
    if (record->event == RECORD_LOG_KEY_CHANGED)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a change of the log's key is not offered by this keeper");
    if (record->event == RECORD_KEY_DESTROYED && holds(vault, record))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "it says that %s generation %" PRIu64
                         " is destroyed, but the token still holds it",
                         record->key, record->generation);
    if (record->event == RECORD_PSK_DESTROYED && entry->action != KEEPER_ACTION_PSK_DESTROY &&
        preshared_holds(vault, record))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "it says that epoch %" PRIu64
                         " of a preshared key is destroyed, but the token still holds it",
                         record->epoch);
    return check_fits(entry, err);
}

bool action_changes(enum keeper_action action)
{
    return action == KEEPER_ACTION_DESTROY || action_precedes(action);
}

bool action_precedes(enum keeper_action action)
{
    return action == KEEPER_ACTION_ADOPT || action == KEEPER_ACTION_PSK_TAKE ||
           action == KEEPER_ACTION_PSK_DESTROY;
}

bool action_needs_head(enum record_event event)
{
    switch (event) {
    case RECORD_TOKEN_INITIALISED:
    case RECORD_POLICY_LOADED:
    case RECORD_KEY_REVOKED:
    case RECORD_KEY_DESTROYING:
    case RECORD_APPROVAL_REQUESTED:
    case RECORD_APPROVAL_GIVEN:
    case RECORD_LOG_LOSS_ACCEPTED:
        return true;
    default:
        return false;
    }
}

// Unseals the record's key into the seal's buffer, and makes sure that it is the one the record
// names.
static int unseal_named(struct vault *vault, const struct blob *blob, const struct record *record,
                        struct error *err)
{
    uint8_t public_key[RECORD_KEY_SIZE];
    if (vault_unseal(vault, blob, public_key, err) != 0)
        return -1;
    if (sodium_memcmp(public_key, record->public_key, sizeof(public_key)) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s generation %" PRIu64
                         " in the token has another public key than the record names",
                         record->key, record->generation);
    return 0;
}

static const struct blob *find_adopted(struct vault *vault, const struct record *record,
                                       struct error *err)
{
    const struct blob *blob = blobs_find(vault->blobs, record->key, record->generation, true);
    if (blob == NULL)
        error_set(err, ERROR_NOT_FOUND, "the token holds no key %s generation %" PRIu64 "%s",
                  record->key, record->generation,
                  holds(vault, record) ? " that was recorded as generated" : "");
    return blob;
}

// To whom, and under what.
static int check_recipient(const struct record *record, struct error *err)
{
    if (record->lease[0] == '\0')
        return error_set(err, ERROR_INVALID_ARGUMENT, "a release needs a lease in its record");
    if (sodium_is_zero(record->applier_public_key, sizeof(record->applier_public_key)))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a release needs the applier's public key in its record");
    return 0;
}

// What can be refused without touching the key.
static int check_release(struct vault *vault, const struct blob *blob, const struct record *record,
                         struct error *err)
{
    if (check_recipient(record, err) != 0)
        return -1;
    bool imported = blob->purpose == PURPOSE_IMPORTED;
    if (imported && !lifecycle_may_release_imported((enum record_reason)record->reason))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s generation %" PRIu64 " was imported: it is released for BOOT, RESTORE "
                         "and ROLLBACK alone",
                         record->key, record->generation);
    if ((blob->purpose != PURPOSE_WIREGUARD && !imported) ||
        (record->purpose != PURPOSE_NONE && record->purpose != blob->purpose))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s generation %" PRIu64 " is sealed for another purpose", record->key,
                         record->generation);
    if (blobs_above(vault->blobs, record->key, record->generation) >= RELEASABLE)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "%s generation %" PRIu64
                         " is not among the %d highest in the token, which alone are released",
                         record->key, record->generation, RELEASABLE);
    return 0;
}

static int take_pace(struct pace *pace, int64_t now_us, struct error *err)
{
    if (pace_take(pace, now_us))
        return 0;
    return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                     "the keeper lets out %" PRIu64 " keys a second and no more", pace->per_second);
}

static int release(struct vault *vault, struct pace *pace, int64_t now_us,
                   const struct record *record, struct keeper_entry_result *result,
                   struct error *err)
{
    int done = -1;
    if (record->purpose == PURPOSE_PRESHARED) {
        if (check_recipient(record, err) == 0 && take_pace(pace, now_us, err) == 0)
            done = preshared_open(vault, record, RELEASABLE, err);
    } else {
        const struct blob *blob = find_adopted(vault, record, err);
        if (blob != NULL && check_release(vault, blob, record, err) == 0 &&
            take_pace(pace, now_us, err) == 0)
            done = unseal_named(vault, blob, record, err);
    }
    if (done == 0 && crypto_box_seal(result->box, seal_key(vault->seal), SEAL_KEY_SIZE,
                                     record->applier_public_key) != 0)
        done = error_set(err, ERROR_INVALID_ARGUMENT,
                         "the applier's public key is a point of low order");
    seal_wipe(vault->seal);
    return done;
}

// ---- what custody-host signs: texts that follow from the record, each of its own form ----

static int sign(struct vault *vault, const char *text, struct keeper_entry_result *result,
                struct error *err)
{
    size_t length = 0;
    return sign_note(&vault->host_signer, vault->token, text, result->note, &length, err);
}

// Others are told to use a key only when the token holds it.
static int check_held(struct vault *vault, const struct record *record, struct error *err)
{
    const struct blob *blob = find_adopted(vault, record, err);
    if (blob == NULL)
        return -1;
    int done = unseal_named(vault, blob, record, err);
    seal_wipe(vault->seal);
    return done;
}

static int publish(struct vault *vault, const struct record *record,
                   struct keeper_entry_result *result, struct error *err)
{
    struct bundle bundle;
    char text[BUNDLE_TEXT_MAX];
    bundle_from_record(&bundle, record);
    if (bundle_check(&bundle, err) != 0 || bundle_format(&bundle, text) < 0)
        return -1;
    bool usable = bundle.state == BUNDLE_PRE_ACTIVE || bundle.state == BUNDLE_ACTIVE;
    if (usable && check_held(vault, record, err) != 0)
        return -1;
    return sign(vault, text, result, err);
}

static int acknowledge(struct vault *vault, const struct record *record,
                       struct keeper_entry_result *result, struct error *err)
{
    struct acknowledgement ack;
    char text[ACKNOWLEDGEMENT_TEXT_MAX];
    acknowledgement_from_record(&ack, record);
    if (acknowledgement_check(&ack, err) != 0 || acknowledgement_format(&ack, text) < 0)
        return -1;
    return sign(vault, text, result, err);
}

static int refresh(struct vault *vault, const struct record *record,
                   struct keeper_entry_result *result, struct error *err)
{
    struct freshness freshness;
    char text[FRESHNESS_TEXT_MAX];
    freshness_from_record(&freshness, record);
    if (freshness_check(&freshness, err) != 0 || freshness_format(&freshness, text) < 0)
        return -1;
    return sign(vault, text, result, err);
}

// The note of a preshared key's step; the box is of psk.generated.
static int tell_psk(struct vault *vault, const struct record *record, const uint8_t *box,
                    struct keeper_entry_result *result, struct error *err)
{
    struct psk_note note;
    char text[PSK_NOTE_TEXT_MAX];
    psk_note_from_record(&note, record);
    if (box != NULL)
        memcpy(note.box, box, sizeof(note.box));
    if (psk_note_check(&note, err) != 0 || psk_note_format(&note, text) < 0)
        return -1;
    return sign(vault, text, result, err);
}

static int make_psk(struct vault *vault, struct pace *pace, int64_t now_us,
                    const struct record *record, struct keeper_entry_result *result,
                    struct error *err)
{
    uint8_t box[PSK_BOX_SIZE];
    if (take_pace(pace, now_us, err) != 0 || preshared_send(vault, record, box, err) != 0)
        return -1;
    return tell_psk(vault, record, box, result, err);
}

// ---- what changes the token ----

static int take_psk(struct vault *vault, const struct record *record,
                    struct keeper_entry_result *result, struct error *err)
{
    if (preshared_adopt(vault, record, err) != 0)
        return -1;
    return tell_psk(vault, record, NULL, result, err);
}

static int adopt(struct vault *vault, const struct record *record, struct error *err)
{
    // Done already where a crash came between the adoption and its answer.
    const struct blob *blob = blobs_find(vault->blobs, record->key, record->generation, true);
    bool again = blob != NULL;
    if (!again)
        blob = blobs_find(vault->blobs, record->key, record->generation, false);
    if (blob == NULL)
        return error_set(err, ERROR_NOT_FOUND, "the token holds no new key %s generation %" PRIu64,
                         record->key, record->generation);
    if (blob->purpose != record->purpose ||
        (record->event == RECORD_KEY_IMPORTED) != (blob->purpose == PURPOSE_IMPORTED))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s generation %" PRIu64 " is sealed for another purpose than the record "
                         "names",
                         record->key, record->generation);
    int done = unseal_named(vault, blob, record, err);
    seal_wipe(vault->seal);
    if (done != 0 || again)
        return done;
    if (blobs_adopt(vault->blobs, record->key, record->generation, err) == 0 ||
        blobs_find(vault->blobs, record->key, record->generation, true) != NULL)
        return 0; // what was not removed besides is a leftover
    // Not this key's fault but the token's: it can be done later.
    if (err != NULL)
        err->code = ERROR_UNAVAILABLE;
    return -1;
}

int action_perform(struct vault *vault, struct pace *pace, int64_t now_us,
                   const struct keeper_entry *entry, struct keeper_entry_result *result,
                   struct error *err)
{
    const struct record *record = &entry->record;
    switch ((enum keeper_action)entry->action) {
    case KEEPER_ACTION_NONE:
    case KEEPER_ACTION_INIT: // action_check has compared the record with the token
        return 0;
    case KEEPER_ACTION_ADOPT:
        return adopt(vault, record, err);
    case KEEPER_ACTION_RELEASE:
        return release(vault, pace, now_us, record, result, err);
    case KEEPER_ACTION_DESTROY:
        return blobs_destroy(vault->blobs, record->key, record->generation, err);
    case KEEPER_ACTION_PUBLISH:
        return publish(vault, record, result, err);
    case KEEPER_ACTION_ACKNOWLEDGE:
        return acknowledge(vault, record, result, err);
    case KEEPER_ACTION_REFRESH:
        return refresh(vault, record, result, err);
    case KEEPER_ACTION_PSK_MAKE:
        return make_psk(vault, pace, now_us, record, result, err);
    case KEEPER_ACTION_PSK_TAKE:
        return take_psk(vault, record, result, err);
    case KEEPER_ACTION_PSK_SET:
        return tell_psk(vault, record, NULL, result, err);
    case KEEPER_ACTION_PSK_DESTROY:
        return preshared_destroy(vault, record, err);
    }
    return error_set(err, ERROR_INVALID_ARGUMENT, "action %u is unknown", (unsigned)entry->action);
}
