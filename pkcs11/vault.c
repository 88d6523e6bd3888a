// SPDX-License-Identifier: Apache-2.0
// Taking stock of the token, initialising it, and making keys.
#include "vault.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "probe.h"

// Sets up the signers once all keys are there.
static int take_keys(struct vault *vault, struct error *err)
{
    vault->initialised = keys_complete(&vault->keys);
    if (!vault->initialised)
        return 0;
    char name[NOTE_NAME_MAX + 1];
    name_log_origin(vault->host, name, sizeof(name));
    if (sign_setup(&vault->log, &vault->keys, KEYS_LOG, name, err) != 0)
        return -1;
    name_host_key(vault->host, name, sizeof(name));
    return sign_setup(&vault->host_signer, &vault->keys, KEYS_HOST, name, err);
}

int vault_open(struct vault *vault, const char *host, const char *uri, struct error *err)
{
    memset(vault, 0, sizeof(*vault));
    snprintf(vault->host, sizeof(vault->host), "%s", host);
    if (token_open(uri, &vault->token, err) != 0)
        return -1;
    if (keys_find(vault->token, &vault->keys, err) != 0 || take_keys(vault, err) != 0 ||
        seal_open(vault->token, &vault->keys, vault->host, &vault->seal, err) != 0 ||
        blobs_open(vault->token, &vault->blobs, err) != 0 ||
        head_load(vault->token, vault->initialised ? &vault->log.verifier : NULL, &vault->head,
                  err) != 0) {
        vault_close(vault);
        return -1;
    }
    return 0;
}

void vault_close(struct vault *vault)
{
    blobs_close(vault->blobs);
    seal_close(vault->seal);
    token_close(vault->token);
    memset(vault, 0, sizeof(*vault));
}

void vault_status(const struct vault *vault, struct keeper_status *status)
{
    memset(status, 0, sizeof(*status));
    status->initialised = vault->initialised;
    status->has_head = vault->head.present;
    status->blobs = (uint32_t)blobs_adopted(vault->blobs);
    status->leftovers = (uint32_t)blobs_count(vault->blobs) - status->blobs;
    status->token = *token_describe(vault->token);
    status->restore = token_restore(vault->token);
    snprintf(status->suite, sizeof(status->suite), "%s",
             sealed_suite_name(seal_suite(vault->seal)));
    if (vault->initialised) {
        note_key_format(&vault->log.verifier, status->log_vkey);
        note_key_format(&vault->host_signer.verifier, status->host_vkey);
    }
    if (vault->head.present)
        memcpy(status->head, vault->head.note, sizeof(status->head));
}

void vault_list(const struct vault *vault, uint32_t first, struct keeper_list *list)
{
    memset(list, 0, sizeof(*list));
    size_t total = blobs_count(vault->blobs);
    list->total = (uint32_t)total;
    for (size_t i = first; i < total && list->count < KEEPER_LIST_MAX; i++) {
        const struct blob *blob = blobs_at(vault->blobs, i);
        struct keeper_blob *out = &list->blobs[list->count++];
        memcpy(out->key, blob->key, sizeof(out->key));
        out->generation = blob->generation;
        out->purpose = blob->purpose;
        out->adopted = blob->adopted && !blob->torn;
    }
}

int vault_init(struct vault *vault, struct error *err)
{
    const char *label = token_describe(vault->token)->label;
    if (vault->head.present)
        return error_set(err, ERROR_ALREADY_EXISTS,
                         "token '%s' is in use: it remembers a log of %" PRIu64
                         " records; initialise another token instead",
                         label, vault->head.checkpoint.size);
    // An object without a name is a leftover of the probe's, and no sealed key.
    if (vault->head.objects > 0 || blobs_named(vault->blobs) > 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "token '%s' holds sealed keys or a log's head, but not every key that "
                         "they need: restore the token, do not initialise it",
                         label);
    struct keeper_probe probe;
    probe_run(vault->token, NULL, &probe);
    for (uint32_t i = 0; i < probe.count; i++)
        if (probe.checks[i].required && !probe.checks[i].passed)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "token '%s' cannot be used: %s: %s (custodyctl token probe shows all)",
                             label, probe.checks[i].name, probe.checks[i].detail);
    // Keys that are there already are what an initialisation left that was never recorded.
    vault->initialised = false;
    if (keys_create(vault->token, &vault->keys, err) != 0)
        return -1;
    return take_keys(vault, err);
}

// Whether the token may take a new key of that name.
static int check_new(const struct vault *vault, const char *key, uint64_t generation,
                     struct error *err)
{
    if (!vault->initialised)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the token is not initialised: run custodyctl token init");
    if (!name_is_key(key) || generation == 0 || generation > INT64_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a new key needs a valid name and a generation from 1 on");
    uint64_t highest = blobs_highest(vault->blobs, key);
    if (generation <= highest)
        return error_set(err, ERROR_ALREADY_EXISTS,
                         "the token holds %s generation %" PRIu64 ", and generations only rise",
                         key, highest);
    size_t leftovers = blobs_count(vault->blobs) - blobs_adopted(vault->blobs);
    if (leftovers >= VAULT_LEFTOVERS_MAX)
        return error_set(
            err, ERROR_RESOURCE_EXHAUSTED,
            "the token holds %zu new keys that were never recorded: destroy them first", leftovers);
    return 0;
}

static int check_generate(const struct vault *vault, const struct keeper_generate *request,
                          struct error *err)
{
    bool receives = strcmp(request->key, NAME_RECEIVE_KEY) == 0;
    if (request->purpose != (receives ? PURPOSE_RECEIVE : PURPOSE_WIREGUARD) ||
        (name_is_reserved(request->key) && !receives))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "keys of that purpose are not made under that name");
    return check_new(vault, request->key, request->generation, err);
}

int vault_check_import(const struct vault *vault, const struct keeper_import *request,
                       struct error *err)
{
    if (sodium_is_zero(request->public_key, sizeof(request->public_key)))
        return error_set(err, ERROR_INVALID_ARGUMENT, "an import needs a public key");
    // Who has custodyd could else have a key imported that he knows, in place of one that he does
    // not.
    for (size_t i = 0; i < blobs_count(vault->blobs); i++) {
        const struct blob *blob = blobs_at(vault->blobs, i);
        if (blob->adopted && blob->purpose == PURPOSE_WIREGUARD &&
            strcmp(blob->key, request->key) == 0)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "the token made %s generation %" PRIu64
                             ": nothing is imported in the place of a key that it made",
                             blob->key, blob->generation);
    }
    return check_new(vault, request->key, request->generation, err);
}

int vault_unseal(struct vault *vault, const struct blob *blob, uint8_t public_key[RECORD_KEY_SIZE],
                 struct error *err)
{
    uint8_t value[SEALED_MAX];
    size_t length = 0;
    if (blobs_read(vault->blobs, blob, value, &length, err) != 0 ||
        seal_unwrap(vault->seal, blob->key, blob->generation, value, length, err) != 0)
        return error_prefix(err, "%s generation %" PRIu64, blob->key, blob->generation);
    crypto_scalarmult_base(public_key, seal_key(vault->seal));
    return 0;
}

// A key that was made for just this and never recorded, as after a crash in between. It was never
// released: so it serves as well as a new one.
static const struct blob *find_leftover(const struct vault *vault,
                                        const struct keeper_generate *request)
{
    if (!vault->initialised || blobs_find(vault->blobs, request->key, request->generation, true))
        return NULL;
    const struct blob *left = blobs_find(vault->blobs, request->key, request->generation, false);
    bool fits = left != NULL && !left->torn && left->purpose == request->purpose &&
                blobs_above(vault->blobs, request->key, request->generation) == 0;
    return fits ? left : NULL;
}

static int take_leftover(struct vault *vault, const struct blob *left,
                         uint8_t public_key[RECORD_KEY_SIZE], struct error *err)
{
    int result = vault_unseal(vault, left, public_key, err);
    seal_wipe(vault->seal);
    return result;
}

// Seals what is in the seal's buffer, stores it, and from there on believes the token alone: what
// cannot be unsealed is found out now. Leaves the buffer for the caller to wipe.
static int seal_new(struct vault *vault, const char *key, uint64_t generation, uint32_t purpose,
                    const uint8_t public_key[RECORD_KEY_SIZE], struct error *err)
{
    uint8_t sealed[SEALED_MAX], again[RECORD_KEY_SIZE];
    size_t length = 0;
    if (seal_wrap(vault->seal, key, generation, purpose, sealed, &length, err) != 0)
        return -1;
    seal_wipe(vault->seal);
    if (blobs_create(vault->blobs, key, generation, sealed, length, err) != 0)
        return -1;
    const struct blob *blob = blobs_find(vault->blobs, key, generation, false);
    if (blob == NULL || vault_unseal(vault, blob, again, err) != 0)
        return -1;
    if (sodium_memcmp(again, public_key, sizeof(again)) != 0)
        return error_set(err, ERROR_DATA_LOSS, "the new key does not unseal to what was sealed");
    return 0;
}

int vault_generate(struct vault *vault, const struct keeper_generate *request,
                   uint8_t public_key[RECORD_KEY_SIZE], struct error *err)
{
    const struct blob *left = find_leftover(vault, request);
    if (left != NULL)
        return take_leftover(vault, left, public_key, err);
    if (check_generate(vault, request, err) != 0)
        return -1;
    int result = -1;
    if (seal_make_key(vault->seal, err) == 0) {
        crypto_scalarmult_base(public_key, seal_key(vault->seal));
        result =
            seal_new(vault, request->key, request->generation, request->purpose, public_key, err);
    }
    seal_wipe(vault->seal);
    return result;
}

// Opens the box into the seal's buffer.
static int open_box(struct vault *vault, const struct keeper_import *request,
                    const uint8_t box_key[RECORD_KEY_SIZE], const uint8_t *secret,
                    struct error *err)
{
    uint8_t public_key[RECORD_KEY_SIZE];
    uint8_t *key = seal_key(vault->seal);
    if (crypto_box_seal_open(key, request->box, sizeof(request->box), box_key, secret) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the box does not open: it is not to the key that was offered last");
    // RFC 7748 section 5, as WireGuard does; the public key is the same either way.
    key[0] &= 248;
    key[31] &= 127;
    key[31] |= 64;
    if (crypto_scalarmult_base(public_key, key) != 0 ||
        sodium_memcmp(public_key, request->public_key, sizeof(public_key)) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the private key in the box is not that of the public key offered for");
    return 0;
}

int vault_import(struct vault *vault, const struct keeper_import *request,
                 const uint8_t box_key[RECORD_KEY_SIZE], const uint8_t *secret, struct error *err)
{
    if (vault_check_import(vault, request, err) != 0)
        return -1;
    int result = open_box(vault, request, box_key, secret, err);
    if (result == 0)
        result = seal_new(vault, request->key, request->generation, PURPOSE_IMPORTED,
                          request->public_key, err);
    seal_wipe(vault->seal);
    return result;
}

bool vault_works(struct vault *vault, struct error *err)
{
    if (!token_doubtful(vault->token))
        return true;
    if (vault->initialised && seal_try(vault->seal, err) != 0)
        return false;
    token_trust(vault->token);
    return true;
}

int vault_check_initialised(const struct vault *vault, const struct record *record,
                            struct error *err)
{
    struct keeper_status now;
    vault_status(vault, &now);
    const char *wrong = NULL;
    if (strcmp(record->log_vkey, now.log_vkey) != 0)
        wrong = "another log key";
    else if (strcmp(record->host_vkey, now.host_vkey) != 0)
        wrong = "another host key";
    else if (strcmp(record->suite, now.suite) != 0)
        wrong = "another sealing suite";
    else if (!record->token.present || record->token.weak != now.token.weak ||
             strcmp(record->token.label, now.token.label) != 0 ||
             strcmp(record->token.serial, now.token.serial) != 0 ||
             strcmp(record->token.manufacturer, now.token.manufacturer) != 0 ||
             strcmp(record->token.model, now.token.model) != 0)
        wrong = "another token";
    if (wrong == NULL)
        return 0;
    return error_set(err, ERROR_FAILED_PRECONDITION, "it names %s than the token has", wrong);
}
