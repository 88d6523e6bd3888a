// SPDX-License-Identifier: Apache-2.0
// Finding, opening and logging in to the token.
#include "token.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p11-kit/p11-kit.h>
#include <p11-kit/uri.h>
#include <sodium.h>

#include "ckr.h"
#include "pin.h"
#include "softhsm.h"
#include "softhsm_sync.h"

#define SLOTS_MAX       256
#define LOCK_TIMEOUT_MS 5000 // how long a keeper before may take to end

struct token {
    CK_FUNCTION_LIST **modules; // p11-kit's list, or NULL where `single` was loaded by path
    CK_FUNCTION_LIST *single;
    CK_FUNCTION_LIST *module; // the one that has the token
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE anchor;  // keeps the login alive while the other session is renewed
    CK_SESSION_HANDLE session; // the one that works
    bool doubtful;
    struct softhsm_sync *sync; // NULL for other tokens
    int lock;                  // keeps other keepers off a SoftHSM token; -1
    struct record_token info;
};

// Copies a blank-padded field of PKCS#11 as a string. What is not printable ASCII becomes '?': it
// goes into records.
static void copy_padded(char *text, size_t size, const unsigned char *field, size_t length)
{
    while (length > 0 && (field[length - 1] == ' ' || field[length - 1] == '\0'))
        length--;
    if (length > size - 1)
        length = size - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = field[i] >= 0x20 && field[i] < 0x7f ? (char)field[i] : '?';
    text[length] = '\0';
}

static void describe(struct record_token *info, const CK_TOKEN_INFO *raw)
{
    memset(info, 0, sizeof(*info));
    info->present = true;
    copy_padded(info->label, sizeof(info->label), raw->label, sizeof(raw->label));
    copy_padded(info->serial, sizeof(info->serial), raw->serialNumber, sizeof(raw->serialNumber));
    copy_padded(info->manufacturer, sizeof(info->manufacturer), raw->manufacturerID,
                sizeof(raw->manufacturerID));
    copy_padded(info->model, sizeof(info->model), raw->model, sizeof(raw->model));
}

static int load_modules(struct token *token, const P11KitUri *uri, struct error *err)
{
    const char *path = p11_kit_uri_get_module_path(uri);
    if (path == NULL) {
        token->modules = p11_kit_modules_load_and_initialize(0);
        if (token->modules == NULL)
            return error_set(err, ERROR_UNAVAILABLE, "p11-kit could not load its modules: %s",
                             p11_kit_message());
        return 0;
    }
    token->single = p11_kit_module_load(path, 0);
    if (token->single == NULL)
        return error_set(err, ERROR_NOT_FOUND, "PKCS#11 module %s: %s", path, p11_kit_message());
    CK_RV rv = p11_kit_module_initialize(token->single);
    if (rv != CKR_OK) {
        p11_kit_module_release(token->single);
        token->single = NULL;
        return error_set(err, ERROR_UNAVAILABLE,
                         "PKCS#11 module %s: C_Initialize: %s (%s); is its configuration "
                         "(SOFTHSM2_CONF) right, and the folder that it names there?",
                         path, ckr_words(rv), ckr_name(rv));
    }
    return 0;
}

// Counts the tokens of `module` that the URI names, and remembers the last of them.
static unsigned find_in_module(struct token *token, CK_FUNCTION_LIST *module, const P11KitUri *uri)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    if (module->C_GetSlotList(CK_TRUE, slots, &count) != CKR_OK)
        return 0;
    unsigned found = 0;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (module->C_GetTokenInfo(slots[i], &info) != CKR_OK)
            continue;
        if (!(info.flags & CKF_TOKEN_INITIALIZED) || !p11_kit_uri_match_token_info(uri, &info))
            continue;
        token->module = module;
        token->slot = slots[i];
        describe(&token->info, &info);
        found++;
    }
    return found;
}

static int find_token(struct token *token, const P11KitUri *uri, const char *text,
                      struct error *err)
{
    unsigned found = 0;
    if (token->single != NULL)
        found = find_in_module(token, token->single, uri);
    for (size_t i = 0; token->modules != NULL && token->modules[i] != NULL; i++)
        found += find_in_module(token, token->modules[i], uri);
    if (found == 1)
        return 0;
    // The URI may hold a pin-source, which is a path and no secret; a PIN was refused before.
    if (found == 0)
        return error_set(err, ERROR_NOT_FOUND,
                         "no token matches %s: is it plugged in, and does the module's "
                         "configuration (SOFTHSM2_CONF) name its folder?",
                         text);
    return error_set(err, ERROR_FAILED_PRECONDITION, "%u tokens match %s: name one by its serial",
                     found, text);
}

// The last try before the PIN locks is a person's: a program that starts again and again must not
// take it.
static int check_tries(struct token *token, struct error *err)
{
    CK_TOKEN_INFO info;
    if (token->module->C_GetTokenInfo(token->slot, &info) != CKR_OK ||
        !(info.flags & (CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED)))
        return 0;
    return error_set(err, ERROR_UNAUTHENTICATED, "token '%s': %s", token->info.label,
                     info.flags & CKF_USER_PIN_LOCKED
                         ? "the PIN is locked: the security officer must set a new one"
                         : "ONE try is left before the PIN locks, and it is not taken: log in once "
                           "with another tool and the right PIN");
}

// What the token's flags say about wrong PINs (PKCS #11 v2.40, CK_TOKEN_INFO).
static const char *tries_left(const struct token *token)
{
    CK_TOKEN_INFO info;
    if (token->module->C_GetTokenInfo(token->slot, &info) != CKR_OK)
        return "the token does not say how many tries are left";
    if (info.flags & CKF_USER_PIN_LOCKED)
        return "the PIN is locked now: the security officer must set a new one";
    if (info.flags & CKF_USER_PIN_FINAL_TRY)
        return "ONE try is left before the PIN locks: correct the PIN file before starting again";
    if (info.flags & CKF_USER_PIN_COUNT_LOW)
        return "the token counts wrong PINs: correct the PIN file before starting again";
    return "correct the PIN file before starting again";
}

static int login(struct token *token, const P11KitUri *uri, struct error *err)
{
    unsigned char *pin = NULL;
    size_t length = 0;
    if (check_tries(token, err) != 0)
        return -1;
    if (pin_read(p11_kit_uri_get_pin_source(uri), &pin, &length, err) != 0) {
        err->code = ERROR_UNAUTHENTICATED; // whatever it was: somebody has to see to the PIN
        return -1;
    }
    // A signal that ended the process in here could leave SoftHSM's token.object empty.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CK_RV rv = token->module->C_Login(token->anchor, CKU_USER, pin, (CK_ULONG)length);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sodium_free(pin);
    if (rv == CKR_OK)
        return 0;
    ckr_set(err, rv, "C_Login");
    if (err->code == ERROR_UNAUTHENTICATED) {
        struct error plain = *err;
        error_set(err, plain.code, "%.200s; %s", plain.message, tries_left(token));
    }
    return error_prefix(err, "token '%s'", token->info.label);
}

// What SoftHSM needs and other tokens do not.
static int take_care(struct token *token, struct error *err)
{
    if (strstr(token->info.manufacturer, "SoftHSM") == NULL)
        return 0;
    token->sync = softhsm_sync_open();
    return softhsm_lock(token->info.serial, LOCK_TIMEOUT_MS, &token->lock, err);
}

static CK_RV open_session(struct token *token, CK_SESSION_HANDLE *session)
{
    return token->module->C_OpenSession(token->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL,
                                        NULL, session);
}

static int open_sessions(struct token *token, struct error *err)
{
    CK_RV rv = open_session(token, &token->anchor);
    if (rv == CKR_OK)
        rv = open_session(token, &token->session);
    if (rv == CKR_OK)
        return 0;
    ckr_set(err, rv, "C_OpenSession");
    return error_prefix(err, "token '%s'", token->info.label);
}

static int parse_uri(const char *text, P11KitUri **uri, struct error *err)
{
    *uri = p11_kit_uri_new();
    if (*uri == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    int code = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, *uri);
    if (code != P11_KIT_URI_OK)
        return error_set(err, ERROR_INVALID_ARGUMENT, "token URI %s: %s", text,
                         p11_kit_uri_message(code));
    if (p11_kit_uri_any_unrecognized(*uri))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "token URI %s: it has an attribute that RFC 7512 does not name", text);
    if (p11_kit_uri_get_pin_value(*uri) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the token URI holds a PIN (pin-value), which every user can read from "
                         "the process list: use pin-source=file:/path, and change the PIN");
    return 0;
}

int token_open(const char *text, struct token **out, struct error *err)
{
    P11KitUri *uri = NULL;
    struct token *token = calloc(1, sizeof(*token));
    if (token == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    token->lock = -1;
    int result = -1;
    if (parse_uri(text, &uri, err) != 0 || load_modules(token, uri, err) != 0 ||
        find_token(token, uri, text, err) != 0 || take_care(token, err) != 0 ||
        open_sessions(token, err) != 0 || login(token, uri, err) != 0)
        goto cleanup;
    *out = token;
    token = NULL;
    result = 0;
cleanup:
    p11_kit_uri_free(uri);
    token_close(token);
    return result;
}

void token_close(struct token *token)
{
    if (token == NULL)
        return;
    if (token->module != NULL && token->anchor != 0) {
        token->module->C_Logout(token->anchor);
        token->module->C_CloseAllSessions(token->slot);
    }
    if (token->modules != NULL)
        p11_kit_modules_finalize_and_release(token->modules);
    if (token->single != NULL) {
        p11_kit_module_finalize(token->single);
        p11_kit_module_release(token->single);
    }
    softhsm_sync_close(token->sync);
    if (token->lock >= 0)
        close(token->lock);
    free(token);
}

CK_FUNCTION_LIST *token_module(const struct token *token)
{
    return token->module;
}

CK_SESSION_HANDLE token_session(const struct token *token)
{
    return token->session;
}

const struct record_token *token_describe(const struct token *token)
{
    return &token->info;
}

void token_renew(struct token *token)
{
    CK_SESSION_HANDLE fresh;
    if (open_session(token, &fresh) == CKR_OK) {
        token->module->C_CloseSession(token->session);
        token->session = fresh;
    }
}

enum keeper_restore token_restore(const struct token *token)
{
    // As the libraries name themselves. openCryptoki keeps the objects of all its tokens in files
    // under /var/lib; tpm2-pkcs11 keeps them in a database, whose age the TPM does not know.
    static const char *const in_files[] = {"openCryptoki", "TPM2.0 Cryptoki",
                                           "NSS Internal Crypto Services"};
    CK_INFO raw;
    char library[sizeof(raw.libraryDescription) + 1];
    if (token->sync != NULL)
        return KEEPER_RESTORE_UNNOTICED;
    if (token->module->C_GetInfo(&raw) != CKR_OK)
        return KEEPER_RESTORE_UNKNOWN;
    copy_padded(library, sizeof(library), raw.libraryDescription, sizeof(raw.libraryDescription));
    for (size_t i = 0; i < sizeof(in_files) / sizeof(in_files[0]); i++)
        if (strcasestr(library, in_files[i]) != NULL)
            return KEEPER_RESTORE_UNNOTICED;
    return KEEPER_RESTORE_UNKNOWN;
}

int token_fail(struct token *token, CK_RV rv, const char *function, struct error *err)
{
    // An operation that failed may be left active in its session, and SoftHSM's is not to be
    // trusted after an error.
    token_renew(token);
    token->doubtful = true;
    ckr_set(err, rv, function);
    return error_prefix(err, "token '%s'", token->info.label);
}

CK_SESSION_HANDLE token_anchor(const struct token *token)
{
    return token->anchor;
}

bool token_doubtful(const struct token *token)
{
    return token->doubtful;
}

void token_trust(struct token *token)
{
    token->doubtful = false;
}

int token_sync(struct token *token, struct error *err)
{
    return softhsm_sync_changes(token->sync, err);
}

int token_random(struct token *token, void *data, size_t length, struct error *err)
{
    CK_RV rv = token->module->C_GenerateRandom(token->session, data, (CK_ULONG)length);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_GenerateRandom", err);
    return 0;
}
