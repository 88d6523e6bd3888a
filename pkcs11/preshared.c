// SPDX-License-Identifier: Apache-2.0
// Deriving, receiving and opening preshared keys; each lies in guarded memory, and no longer than
// the call.
#include "preshared.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "psks.h"

#define LABEL      "custody preshared key v1"
#define TEXT_MAX   512 // bytes of what a part is derived from
#define NAME_HEX   40
#define SCRATCH    (3 * SEAL_KEY_SIZE) // two keys, and what a module may write behind one
#define STACK_USED 65536               // bytes that a module or libsodium may leave something in

_Static_assert(crypto_auth_hmacsha256_BYTES == SEAL_KEY_SIZE &&
                   crypto_auth_hmacsha256_KEYBYTES == SEAL_KEY_SIZE,
               "HMAC-SHA256 takes and gives keys of one size");
_Static_assert(PSK_BOX_SIZE == SEAL_KEY_SIZE + crypto_box_SEALBYTES, "a box holds one key");

// ---- names ----

// Appends a part behind its length, 4 bytes, big-endian.
static size_t put(uint8_t *out, size_t used, const void *part, size_t length)
{
    for (int i = 0; i < 4; i++)
        out[used + (size_t)i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(out + used + 4, part, length);
    return used + 4 + length;
}

static size_t put_text(uint8_t *out, size_t used, const char *text)
{
    return put(out, used, text, strlen(text));
}

static size_t put_number(uint8_t *out, size_t used, uint64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    return put(out, used, bytes, sizeof(bytes));
}

void preshared_name(const char *key, const char *peer, const char *peer_key, char name[KEY_MAX + 1])
{
    uint8_t text[TEXT_MAX], digest[crypto_hash_sha256_BYTES];
    char hex[2 * sizeof(digest) + 1];
    size_t length = put_text(text, put_text(text, put_text(text, 0, key), peer), peer_key);
    crypto_hash_sha256(digest, text, length);
    sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
    snprintf(name, KEY_MAX + 1, "_psk.%.*s", NAME_HEX, hex);
}

static void name_of(const struct record *record, char name[KEY_MAX + 1])
{
    preshared_name(record->key, record->peer, record->peer_key, name);
}

static int check_link(const char *key, const char *peer, const char *peer_key, uint64_t epoch,
                      struct error *err)
{
    if (name_is_key(key) && name_is_host(peer) && name_is_key(peer_key) && epoch > 0 &&
        epoch <= INT64_MAX)
        return 0;
    return error_set(err, ERROR_INVALID_ARGUMENT,
                     "a preshared key needs key, peer, peer_key and an epoch from 1 on");
}

// ---- deriving what is made here ----

// T of one epoch, by the token.
static int derive_part(struct vault *vault, const struct record *record, uint64_t epoch,
                       uint8_t part[SEAL_KEY_SIZE], struct error *err)
{
    CK_FUNCTION_LIST *p11 = token_module(vault->token);
    CK_MECHANISM mechanism = {CKM_SHA256_HMAC, NULL, 0};
    CK_ULONG got = SEAL_KEY_SIZE;
    uint8_t text[TEXT_MAX];
    size_t length = put_text(text, 0, LABEL);
    length = put_number(text, length, KEYS_NUMBER);
    length = put_text(text, length, vault->host);
    length = put_text(text, length, record->key);
    length = put_text(text, length, record->peer);
    length = put_text(text, length, record->peer_key);
    length = put_number(text, length, epoch);
    CK_RV rv = p11->C_SignInit(token_session(vault->token), &mechanism, vault->keys.deriving);
    if (rv == CKR_OK)
        rv = p11->C_Sign(token_session(vault->token), text, (CK_ULONG)length, part, &got);
    if (rv != CKR_OK)
        return token_fail(vault->token, rv, "C_Sign (SHA256-HMAC)", err);
    if (got != SEAL_KEY_SIZE)
        return error_set(err, ERROR_INTERNAL, "C_Sign (SHA256-HMAC) gave %lu bytes, not %d",
                         (unsigned long)got, SEAL_KEY_SIZE);
    return 0;
}

static uint8_t *take_scratch(struct error *err)
{
    uint8_t *scratch = sodium_malloc(SCRATCH);
    if (scratch == NULL)
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "no guarded memory for a preshared key");
    else
        sodium_memzero(scratch, SCRATCH);
    return scratch;
}

static void give_scratch(uint8_t *scratch)
{
    sodium_free(scratch); // wipes
    sodium_stackzero(STACK_USED);
}

// `key` becomes the next of its chain.
static void chain(uint8_t key[SEAL_KEY_SIZE], const uint8_t part[SEAL_KEY_SIZE])
{
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, key, SEAL_KEY_SIZE);
    crypto_auth_hmacsha256_update(&state, part, SEAL_KEY_SIZE);
    crypto_auth_hmacsha256_final(&state, key);
    sodium_memzero(&state, sizeof(state));
}

int preshared_send(struct vault *vault, const struct record *record, uint8_t box[PSK_BOX_SIZE],
                   struct error *err)
{
    if (check_link(record->key, record->peer, record->peer_key, record->epoch, err) != 0)
        return -1;
    uint8_t *part = take_scratch(err);
    if (part == NULL)
        return -1;
    int done = derive_part(vault, record, record->epoch, part, err);
    if (done == 0 && crypto_box_seal(box, part, SEAL_KEY_SIZE, record->receive_key) != 0)
        done = error_set(err, ERROR_INVALID_ARGUMENT,
                         "the other end's receive key is a point of low order");
    give_scratch(part);
    return done;
}

// The chain from its beginning to the record's epoch: at most PSKS_CHAIN_MAX derivations.
static int derive(struct vault *vault, const struct record *record, struct error *err)
{
    uint8_t *key = seal_key(vault->seal);
    uint8_t *part = take_scratch(err);
    int done = part != NULL ? 0 : -1;
    sodium_memzero(key, SEAL_KEY_SIZE);
    for (uint64_t epoch = psks_chain_first(record->epoch); done == 0 && epoch <= record->epoch;
         epoch++) {
        done = derive_part(vault, record, epoch, part, err);
        if (done == 0)
            chain(key, part);
    }
    give_scratch(part);
    return done;
}

// ---- what is taken ----

static int unseal(struct vault *vault, const char *name, uint64_t generation, uint32_t purpose,
                  bool adopted, struct error *err)
{
    uint8_t value[SEALED_MAX];
    size_t length = 0;
    const struct blob *blob = blobs_find(vault->blobs, name, generation, adopted);
    if (blob == NULL)
        return error_set(err, ERROR_NOT_FOUND, "the token holds no %s %" PRIu64, name, generation);
    if (blob->purpose != purpose)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "%s %" PRIu64 " is sealed for another purpose", name, generation);
    if (blobs_read(vault->blobs, blob, value, &length, err) != 0)
        return -1;
    return seal_unwrap(vault->seal, name, generation, value, length, err);
}

// Opens the box into `part`.
static int open_box(struct vault *vault, const struct keeper_receive *request,
                    uint8_t part[SEAL_KEY_SIZE], struct error *err)
{
    uint8_t public_key[RECORD_KEY_SIZE];
    if (unseal(vault, NAME_RECEIVE_KEY, request->receive_generation, PURPOSE_RECEIVE, true, err) !=
        0)
        return -1;
    crypto_scalarmult_base(public_key, seal_key(vault->seal));
    int done = 0;
    if (crypto_box_seal_open(part, request->box, sizeof(request->box), public_key,
                             seal_key(vault->seal)) != 0)
        done = error_set(err, ERROR_PERMISSION_DENIED,
                         "the box does not open with this host's receive key: it is another's");
    seal_wipe(vault->seal);
    return done;
}

// The key before this epoch's into the seal's buffer: zeros where a chain begins.
static int open_previous(struct vault *vault, const char *name, uint64_t epoch, struct error *err)
{
    if (epoch != psks_chain_first(epoch))
        return unseal(vault, name, epoch - 1, PURPOSE_PRESHARED, true, err);
    sodium_memzero(seal_key(vault->seal), SEAL_KEY_SIZE);
    return 0;
}

// One that was received and never recorded makes room.
static int make_place(struct vault *vault, const char *name, uint64_t epoch, struct error *err)
{
    if (blobs_find(vault->blobs, name, epoch, true) != NULL)
        return error_set(err, ERROR_ALREADY_EXISTS, "the token holds epoch %" PRIu64 " already",
                         epoch);
    if (blobs_find(vault->blobs, name, epoch, false) != NULL)
        return blobs_destroy(vault->blobs, name, epoch, err);
    if (blobs_count(vault->blobs) - blobs_adopted(vault->blobs) >= VAULT_LEFTOVERS_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "the token holds too many new keys that were never recorded: destroy them "
                         "first");
    return 0;
}

int preshared_receive(struct vault *vault, const struct keeper_receive *request, struct error *err)
{
    char name[KEY_MAX + 1];
    uint8_t sealed[SEALED_MAX];
    size_t length = 0;
    int done = -1;
    if (!vault->initialised)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "the token is not initialised: run custodyctl token init");
    if (check_link(request->key, request->peer, request->peer_key, request->epoch, err) != 0)
        return -1;
    preshared_name(request->key, request->peer, request->peer_key, name);
    uint8_t *part = take_scratch(err);
    if (part == NULL)
        return -1;
    if (make_place(vault, name, request->epoch, err) == 0 &&
        open_box(vault, request, part, err) == 0 &&
        open_previous(vault, name, request->epoch, err) == 0) {
        chain(seal_key(vault->seal), part);
        done =
            seal_wrap(vault->seal, name, request->epoch, PURPOSE_PRESHARED, sealed, &length, err);
    }
    seal_wipe(vault->seal);
    give_scratch(part);
    return done == 0 ? blobs_create(vault->blobs, name, request->epoch, sealed, length, err) : -1;
}

int preshared_adopt(struct vault *vault, const struct record *record, struct error *err)
{
    char name[KEY_MAX + 1];
    name_of(record, name);
    // Done already where a crash came between the adoption and its answer.
    bool again = blobs_find(vault->blobs, name, record->epoch, true) != NULL;
    int done = unseal(vault, name, record->epoch, PURPOSE_PRESHARED, again, err);
    seal_wipe(vault->seal);
    if (done != 0 || again)
        return done;
    if (blobs_adopt(vault->blobs, name, record->epoch, err) == 0 ||
        blobs_find(vault->blobs, name, record->epoch, true) != NULL)
        return 0; // what was not removed besides is a leftover
    // Not this key's fault but the token's: it can be done later.
    if (err != NULL)
        err->code = ERROR_UNAVAILABLE;
    return -1;
}

int preshared_open(struct vault *vault, const struct record *record, unsigned releasable,
                   struct error *err)
{
    char name[KEY_MAX + 1];
    if (check_link(record->key, record->peer, record->peer_key, record->epoch, err) != 0)
        return -1;
    if (strcmp(record->method, "made") == 0)
        return derive(vault, record, err);
    if (strcmp(record->method, "received") != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a preshared key's release says whether it was made or received");
    name_of(record, name);
    if (blobs_above(vault->blobs, name, record->epoch) >= releasable)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "epoch %" PRIu64 " is not among the %u highest in the token, which alone "
                         "are released",
                         record->epoch, releasable);
    return unseal(vault, name, record->epoch, PURPOSE_PRESHARED, true, err);
}

bool preshared_holds(const struct vault *vault, const struct record *record)
{
    char name[KEY_MAX + 1];
    name_of(record, name);
    return blobs_find(vault->blobs, name, record->epoch, true) != NULL ||
           blobs_find(vault->blobs, name, record->epoch, false) != NULL;
}

int preshared_destroy(struct vault *vault, const struct record *record, struct error *err)
{
    char name[KEY_MAX + 1];
    name_of(record, name);
    if (!preshared_holds(vault, record))
        return 0;
    if (blobs_destroy(vault->blobs, name, record->epoch, err) == 0)
        return 0;
    if (err != NULL)
        err->code = ERROR_UNAVAILABLE; // the record is not signed before it is done
    return -1;
}
