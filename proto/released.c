// SPDX-License-Identifier: Apache-2.0
// libcustody: the checks of a released key, and the guarded memory that it is handed over in.
#include "released.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "guarded.h"
#include "merkle.h"
#include "name.h"
#include "proof.h"
#include "record.h"

#define BOX_SIZE (crypto_box_SEALBYTES + CUSTODY_KEY_SIZE)
// What libsodium's scalar multiplication may leave of the scalar below the caller's frame.
#define STACK_USED 16384

_Static_assert(CUSTODY_KEY_SIZE == GUARDED_SIZE && CUSTODY_KEY_SIZE == crypto_box_SECRETKEYBYTES &&
                   CUSTODY_KEY_SIZE == RECORD_KEY_SIZE,
               "all of them are X25519 keys");

struct custody_released {
    char key[KEY_MAX + 1];
    char lease[RECORD_LEASE_MAX + 1];
    uint64_t generation;
    int64_t expires_us;
    uint8_t public_key[CUSTODY_KEY_SIZE];
    uint8_t *private_key; // guarded; NULL once wiped
    char *record;
    char *receipt;
};

uint8_t *released_ephemeral(uint8_t public_key[CUSTODY_KEY_SIZE], struct error *err)
{
    uint8_t *private_key = guarded_take(err);
    if (private_key != NULL)
        crypto_box_keypair(public_key, private_key);
    sodium_stackzero(STACK_USED);
    return private_key;
}

static int wrong(struct error *err, const char *what)
{
    return error_set(err, ERROR_DATA_LOSS, "the released key is refused: %s", what);
}

// The record's log must be the pinned one: a host's records are in its own log only.
static int check_log(const struct record *record, const struct note_key *log_key, struct error *err)
{
    char origin[NOTE_NAME_MAX + 1];
    name_log_origin(record->host, origin, sizeof(origin));
    if (strcmp(origin, log_key->name) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the released key is refused: its record is of host '%s', but the pinned "
                         "log key is that of '%s'",
                         record->host, log_key->name);
    return 0;
}

static int check_key(const struct record *record, const struct released_request *request,
                     const struct released_answer *answer, struct error *err)
{
    if (record->generation == 0 || record->generation != answer->generation ||
        (request->generation != 0 && request->generation != record->generation))
        return wrong(err, "its record names another generation");
    if (record->purpose != PURPOSE_WIREGUARD && record->purpose != PURPOSE_NONE)
        return wrong(err, "its record names another purpose");
    if (answer->public_key_length != CUSTODY_KEY_SIZE ||
        sodium_memcmp(record->public_key, answer->public_key, CUSTODY_KEY_SIZE) != 0)
        return wrong(err, "its record names another public key");
    return 0;
}

static int check_psk(const struct record *record, const struct released_request *request,
                     const struct released_answer *answer, struct error *err)
{
    if (record->purpose != PURPOSE_PRESHARED || record->generation != 0 ||
        answer->generation != 0 || answer->public_key_length != 0)
        return wrong(err, "its record names another purpose");
    if (strcmp(record->peer, request->peer) != 0 ||
        strcmp(record->peer_key, request->peer_key) != 0)
        return wrong(err, "its record names another link");
    if (record->epoch != request->epoch)
        return wrong(err, "its record names another epoch");
    return 0;
}

static int check_record(const struct record *record, const struct released_request *request,
                        const struct released_answer *answer, struct error *err)
{
    if (record->event != RECORD_RELEASE_GRANTED)
        return wrong(err, "its record is not release.granted");
    if (strcmp(record->key, request->key) != 0)
        return wrong(err, "its record names another key");
    if ((request->peer != NULL ? check_psk(record, request, answer, err)
                               : check_key(record, request, answer, err)) != 0)
        return -1;
    if (sodium_memcmp(record->applier_public_key, request->applier_public_key, CUSTODY_KEY_SIZE) !=
        0)
        return wrong(err, "its record names another applier's key");
    if (record->reason != (uint32_t)request->reason || strcmp(record->ticket, request->ticket) != 0)
        return wrong(err, "its record names another reason or ticket");
    if (record->lease[0] == '\0' || strcmp(record->lease, answer->lease) != 0 ||
        record->expires_us != answer->expires_us)
        return wrong(err, "its record names another lease");
    return 0;
}

// The receipt must prove this very line, at the place the record says it has, under the pinned key.
static int check_receipt(const struct record *record, const struct released_answer *answer,
                         const struct note_key *log_key, struct error *err)
{
    struct merkle_hash leaf = merkle_leaf(answer->record, answer->record_length);
    struct proof *proof = calloc(1, sizeof(*proof));
    int result = -1;
    if (proof == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a receipt");
    if (proof_parse(proof, (const char *)answer->receipt, answer->receipt_length, err) < 0 ||
        proof_verify(proof, &leaf, log_key, err) < 0)
        error_prefix(err, "the released key is refused: its receipt");
    else if (proof->index != record->seq)
        error_set(err, ERROR_DATA_LOSS,
                  "the released key is refused: its receipt is for another place in the log");
    else
        result = 0;
    if (result < 0 && err != NULL)
        err->code = ERROR_DATA_LOSS;
    free(proof);
    return result;
}

// Whether a private key has the public key recorded; it is clamped.
static bool belongs(uint8_t *private_key, const struct released_answer *answer)
{
    uint8_t derived[CUSTODY_KEY_SIZE];
    // RFC 7748 section 5; WireGuard does so too, and the public key is the same either way.
    private_key[0] &= 248;
    private_key[31] &= 127;
    private_key[31] |= 64;
    return crypto_scalarmult_base(derived, private_key) == 0 &&
           sodium_memcmp(derived, answer->public_key, sizeof(derived)) == 0;
}

// Opens the box straight into guarded memory; NULL unless what is in it has the public key
// recorded. A preshared key has none, and nothing to be told by.
static uint8_t *open_box(const struct released_request *request,
                         const struct released_answer *answer, struct error *err)
{
    uint8_t *private_key = guarded_take(err);
    bool sound = false;
    if (private_key == NULL)
        return NULL;
    if (answer->box_length != BOX_SIZE ||
        crypto_box_seal_open(private_key, answer->box, BOX_SIZE, request->applier_public_key,
                             request->applier_private_key) != 0) {
        wrong(err, "its box does not open: it was made for another applier's key, or altered");
        goto cleanup;
    }
    if (request->peer == NULL && !belongs(private_key, answer)) {
        wrong(err, "it does not belong to the public key recorded");
        goto cleanup;
    }
    sound = true;

cleanup:
    sodium_stackzero(STACK_USED);
    if (!sound) {
        guarded_give(private_key);
        private_key = NULL;
    }
    return private_key;
}

static struct custody_released *hand_over(const struct record *record,
                                          const struct released_answer *answer, struct error *err)
{
    struct custody_released *released = calloc(1, sizeof(*released));
    if (released == NULL)
        goto cleanup;
    memcpy(released->key, record->key, sizeof(released->key));
    memcpy(released->lease, record->lease, sizeof(released->lease));
    memcpy(released->public_key, record->public_key, sizeof(released->public_key));
    released->generation = record->generation;
    released->expires_us = record->expires_us;
    released->record = strndup((const char *)answer->record, answer->record_length);
    released->receipt = strndup((const char *)answer->receipt, answer->receipt_length);
    if (released->record != NULL && released->receipt != NULL)
        return released;

cleanup:
    custody_released_free(released);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a released key");
    return NULL;
}

static int check_answer(struct record *record, const struct released_request *request,
                        const struct released_answer *answer, const struct note_key *log_key,
                        struct error *err)
{
    if (answer->record_length > RECORD_LINE_MAX ||
        record_parse(record, (const char *)answer->record, answer->record_length, err) < 0) {
        error_prefix(err, "the released key is refused: its record");
        err->code = ERROR_DATA_LOSS;
        return -1;
    }
    if (check_log(record, log_key, err) < 0 || check_record(record, request, answer, err) < 0)
        return -1;
    return check_receipt(record, answer, log_key, err);
}

int released_open(const struct released_request *request, const struct released_answer *answer,
                  const struct note_key *log_key, struct custody_released **out, struct error *err)
{
    struct error error = {.code = ERROR_UNKNOWN};
    struct custody_released *released = NULL;
    struct record *record = calloc(1, sizeof(*record));
    *out = NULL;
    if (record == NULL)
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory for a record");
    else if (check_answer(record, request, answer, log_key, &error) == 0)
        released = hand_over(record, answer, &error);
    free(record);
    if (released == NULL)
        goto cleanup;
    released->private_key = open_box(request, answer, &error);
    if (released->private_key == NULL)
        goto cleanup;
    *out = released;
    return 0;

cleanup:
    custody_released_free(released);
    return error_set(err, error.code, "%s", error.message);
}

const uint8_t *custody_released_private_key(const struct custody_released *released)
{
    return released->private_key;
}

const uint8_t *custody_released_public_key(const struct custody_released *released)
{
    return released->public_key;
}

const char *custody_released_key(const struct custody_released *released)
{
    return released->key;
}

uint64_t custody_released_generation(const struct custody_released *released)
{
    return released->generation;
}

const char *custody_released_lease(const struct custody_released *released)
{
    return released->lease;
}

int64_t custody_released_expires_us(const struct custody_released *released)
{
    return released->expires_us;
}

const char *custody_released_record(const struct custody_released *released)
{
    return released->record;
}

const char *custody_released_receipt(const struct custody_released *released)
{
    return released->receipt;
}

void custody_released_wipe(struct custody_released *released)
{
    if (released == NULL)
        return;
    guarded_give(released->private_key);
    released->private_key = NULL;
}

void custody_released_free(struct custody_released *released)
{
    if (released == NULL)
        return;
    custody_released_wipe(released);
    free(released->record);
    free(released->receipt);
    free(released);
}
