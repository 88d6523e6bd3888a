// SPDX-License-Identifier: Apache-2.0
// libcustody: asking for a key, with an ephemeral key pair of our own that lives no longer than the
// call.
#include "client.h"

#include <sodium.h>
#include <stdint.h>

#include "connection.h"
#include "record.h"
#include "guarded.h"
#include "released.h"

_Static_assert(CUSTODY_REASON_BOOT == (int)REASON_BOOT &&
                   CUSTODY_REASON_OPERATOR == (int)REASON_OPERATOR &&
                   CUSTODY_REASON_BOOT == (int)CUSTODY__V1__REASON__BOOT &&
                   CUSTODY_REASON_OPERATOR == (int)CUSTODY__V1__REASON__OPERATOR,
               "reasons have the same numbers here, on the wire and in records");

static int ask(struct custody *custody, const struct released_request *wanted,
               Custody__V1__Response **answer, struct error *err)
{
    Custody__V1__ReleaseKey body = CUSTODY__V1__RELEASE_KEY__INIT;
    body.key = client_string(wanted->key);
    body.generation = wanted->generation;
    body.reason = (Custody__V1__Reason)wanted->reason;
    body.ticket = client_string(wanted->ticket);
    // protobuf-c only reads it.
    body.applier_public_key.data = (uint8_t *)wanted->applier_public_key;
    body.applier_public_key.len = CUSTODY_KEY_SIZE;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_RELEASE_KEY;
    request.release_key = &body;
    return client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_RELEASED_KEY, answer, err);
}

static int receive(struct custody *custody, const struct released_request *wanted,
                   const Custody__V1__ReleasedKey *told, struct custody_released **out,
                   struct error *err)
{
    struct released_answer answer = {
        .lease = told->lease,
        .expires_us = told->expires_us,
        .generation = told->generation,
        .public_key = told->public_key.data,
        .public_key_length = told->public_key.len,
        .box = told->box.data,
        .box_length = told->box.len,
        .record = told->record.data,
        .record_length = told->record.len,
        .receipt = told->receipt.data,
        .receipt_length = told->receipt.len,
    };
    return released_open(wanted, &answer, client_log_key(custody), out, err);
}

static int ask_preshared(struct custody *custody, const struct released_request *wanted,
                         Custody__V1__Response **answer, struct error *err)
{
    Custody__V1__ReleasePsk body = CUSTODY__V1__RELEASE_PSK__INIT;
    body.key = client_string(wanted->key);
    body.peer = client_string(wanted->peer);
    body.peer_key = client_string(wanted->peer_key);
    body.epoch = wanted->epoch;
    body.reason = (Custody__V1__Reason)wanted->reason;
    body.applier_public_key.data = (uint8_t *)wanted->applier_public_key;
    body.applier_public_key.len = CUSTODY_KEY_SIZE;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    request.body_case = CUSTODY__V1__REQUEST__BODY_RELEASE_PSK;
    request.release_psk = &body;
    return client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_RELEASED_KEY, answer, err);
}

// `wanted` lacks our ephemeral key only.
static int release(struct custody *custody, struct released_request *wanted,
                   struct custody_released **out, struct custody_error *err)
{
    struct error error = {.code = ERROR_UNKNOWN};
    uint8_t applier_public_key[CUSTODY_KEY_SIZE];
    uint8_t *applier_private_key = NULL;
    Custody__V1__Response *answer = NULL;
    *out = NULL;
    if (client_log_key(custody) == NULL) {
        error_set(&error, ERROR_FAILED_PRECONDITION,
                  "no log key is pinned: without one no receipt can be checked");
        goto cleanup;
    }
    applier_private_key = released_ephemeral(applier_public_key, &error);
    if (applier_private_key == NULL)
        goto cleanup;
    wanted->applier_public_key = applier_public_key;
    wanted->applier_private_key = applier_private_key;
    if ((wanted->peer != NULL ? ask_preshared(custody, wanted, &answer, &error)
                              : ask(custody, wanted, &answer, &error)) == 0)
        receive(custody, wanted, answer->released_key, out, &error);

cleanup:
    guarded_give(applier_private_key);
    client_free(answer);
    return *out != NULL ? 0 : client_fail(&error, err);
}

int custody_release(struct custody *custody, const char *key, uint64_t generation,
                    enum custody_reason reason, const char *ticket, struct custody_released **out,
                    struct custody_error *err)
{
    struct released_request wanted = {.key = key,
                                      .generation = generation,
                                      .reason = reason,
                                      .ticket = ticket != NULL ? ticket : ""};
    return release(custody, &wanted, out, err);
}

int custody_psk_release(struct custody *custody, const struct custody_link *link, uint64_t epoch,
                        enum custody_reason reason, struct custody_released **out,
                        struct custody_error *err)
{
    struct released_request wanted = {.key = link->key,
                                      .peer = link->peer,
                                      .peer_key = link->peer_key,
                                      .epoch = epoch,
                                      .reason = reason,
                                      .ticket = ""};
    return release(custody, &wanted, out, err);
}
