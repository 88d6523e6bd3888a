// SPDX-License-Identifier: Apache-2.0
// libcustody: handing a private key over to the keeper, past a daemon that cannot open it.
#include "client.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "import_offer.h"
#include "name.h"

#define BOX_SIZE   (crypto_box_SEALBYTES + CUSTODY_KEY_SIZE)
#define STACK_USED 16384 // what libsodium may leave of keys below the caller's frame

// What is to be imported.
struct importing {
    const char *key, *ticket;
    uint8_t public_key[CUSTODY_KEY_SIZE];
    uint64_t generation;   // with a box
    uint8_t box[BOX_SIZE]; // …
    bool boxed;
};

static int ask(struct custody *custody, struct importing *importing, Custody__V1__Response **answer,
               struct error *err)
{
    Custody__V1__ImportKey body = CUSTODY__V1__IMPORT_KEY__INIT;
    Custody__V1__Request request = CUSTODY__V1__REQUEST__INIT;
    body.key = client_string(importing->key);
    body.ticket = client_string(importing->ticket);
    body.public_key = (ProtobufCBinaryData){CUSTODY_KEY_SIZE, importing->public_key};
    if (importing->boxed) {
        body.generation = importing->generation;
        body.box = (ProtobufCBinaryData){BOX_SIZE, importing->box};
    }
    request.body_case = CUSTODY__V1__REQUEST__BODY_IMPORT_KEY;
    request.import_key = &body;
    if (importing->boxed)
        return client_call(custody, &request, CUSTODY__V1__RESPONSE__BODY_KEY, answer, err);
    return client_call_either(custody, &request, CUSTODY__V1__RESPONSE__BODY_IMPORT_OFFER,
                              CUSTODY__V1__RESPONSE__BODY_KEY, answer, err);
}

static int refuse(struct error *err, const char *what)
{
    return error_set(err, ERROR_DATA_LOSS,
                     "the offer to import is refused: %s; the key was not handed over", what);
}

// The offer is believed for the log key's signature alone, and only where it is of that log's host
// and for this very key.
static int check_offer(const struct importing *importing, const Custody__V1__ImportOffer *told,
                       const struct note_key *log_key, struct import_offer *offer,
                       struct error *err)
{
    char origin[NOTE_NAME_MAX + 1];
    size_t length = 0;
    if (note_verify(told->note, strlen(told->note), log_key, 1, &length, NULL, err) != 0 ||
        import_offer_parse(offer, told->note, length, err) != 0) {
        error_prefix(err, "the offer to import is refused");
        if (err != NULL)
            err->code = ERROR_DATA_LOSS;
        return -1;
    }
    name_log_origin(offer->host, origin, sizeof(origin));
    if (strcmp(origin, log_key->name) != 0)
        return refuse(err, "it is of another host than the pinned log key");
    if (strcmp(offer->key, importing->key) != 0 || offer->generation != told->generation ||
        sodium_memcmp(offer->public_key, importing->public_key, CUSTODY_KEY_SIZE) != 0)
        return refuse(err, "it is for another key");
    return 0;
}

static int fill_box(struct importing *importing, const struct import_offer *offer,
                    const uint8_t *private_key, struct error *err)
{
    int rc = crypto_box_seal(importing->box, private_key, CUSTODY_KEY_SIZE, offer->box_key);
    sodium_stackzero(STACK_USED);
    if (rc != 0)
        return refuse(err, "its key is a point of low order");
    importing->generation = offer->generation;
    importing->boxed = true;
    return 0;
}

// The answer to both steps: the generation, which must have the public key that was handed over.
static int take_key(struct custody *custody, const struct importing *importing,
                    Custody__V1__Response *answer, struct custody_key *out,
                    struct custody_error *err)
{
    struct custody_key key;
    struct error error;
    bool sound = client_key(&key, answer->key);
    if (sound && sodium_memcmp(key.public_key, importing->public_key, CUSTODY_KEY_SIZE) != 0) {
        client_free(answer);
        error_set(&error, ERROR_DATA_LOSS, "custodyd imported another key than was handed over");
        return client_fail(&error, err);
    }
    if (sound && out != NULL)
        *out = key;
    return client_finish(custody, answer, sound, err);
}

int custody_key_import(struct custody *custody, const char *key, const char *ticket,
                       const uint8_t *private_key, struct custody_key *out,
                       struct custody_error *err)
{
    struct error error = {.code = ERROR_UNKNOWN};
    struct importing importing = {.key = key, .ticket = ticket};
    struct import_offer offer;
    Custody__V1__Response *answer = NULL;
    if (client_log_key(custody) == NULL) {
        error_set(&error, ERROR_FAILED_PRECONDITION,
                  "no log key is pinned: without one no offer can be checked");
        return client_fail(&error, err);
    }
    crypto_scalarmult_base(importing.public_key, private_key);
    sodium_stackzero(STACK_USED);
    if (ask(custody, &importing, &answer, &error) != 0)
        return client_fail(&error, err);
    if (answer->body_case == CUSTODY__V1__RESPONSE__BODY_KEY)
        return take_key(custody, &importing, answer, out, err);
    int rc = check_offer(&importing, answer->import_offer, client_log_key(custody), &offer, &error);
    client_free(answer);
    answer = NULL;
    if (rc != 0 || fill_box(&importing, &offer, private_key, &error) != 0 ||
        ask(custody, &importing, &answer, &error) != 0)
        return client_fail(&error, err);
    return take_key(custody, &importing, answer, out, err);
}
