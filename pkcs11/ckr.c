// SPDX-License-Identifier: Apache-2.0
// The table of PKCS#11 return values (PKCS #11 v2.40 and v3.0, section "Function return values").
#include "ckr.h"

#include <stddef.h>

struct ckr {
    CK_RV rv;
    const char *name;
    const char *words;
    enum error_code code;
};

#define ROW(rv, words, code)                                                                       \
    {                                                                                              \
        rv, #rv, words, code                                                                       \
    }

static const struct ckr table[] = {
    ROW(CKR_OK, "all is well", ERROR_OK),
    ROW(CKR_CANCEL, "the operation was cancelled", ERROR_ABORTED),
    ROW(CKR_HOST_MEMORY, "this machine is out of memory", ERROR_RESOURCE_EXHAUSTED),
    ROW(CKR_SLOT_ID_INVALID, "the slot is gone", ERROR_UNAVAILABLE),
    ROW(CKR_GENERAL_ERROR, "the module failed without saying why", ERROR_INTERNAL),
    ROW(CKR_FUNCTION_FAILED, "the module could not do it", ERROR_INTERNAL),
    ROW(CKR_ARGUMENTS_BAD, "the module refuses the arguments", ERROR_INTERNAL),
    ROW(CKR_NEED_TO_CREATE_THREADS, "the module wants threads of its own", ERROR_INTERNAL),
    ROW(CKR_CANT_LOCK, "the module cannot lock", ERROR_INTERNAL),
    ROW(CKR_ATTRIBUTE_READ_ONLY, "the attribute cannot be changed", ERROR_INTERNAL),
    ROW(CKR_ATTRIBUTE_SENSITIVE, "the attribute is kept secret", ERROR_PERMISSION_DENIED),
    ROW(CKR_ATTRIBUTE_TYPE_INVALID, "the object has no such attribute", ERROR_DATA_LOSS),
    ROW(CKR_ATTRIBUTE_VALUE_INVALID, "the token refuses an attribute's value", ERROR_INTERNAL),
    ROW(CKR_ACTION_PROHIBITED, "the token's policy prohibits it", ERROR_PERMISSION_DENIED),
    ROW(CKR_DATA_INVALID, "the token refuses the data", ERROR_INTERNAL),
    ROW(CKR_DATA_LEN_RANGE, "the token refuses the data's length", ERROR_INTERNAL),
    ROW(CKR_DEVICE_ERROR, "the token or its slot has a fault", ERROR_UNAVAILABLE),
    ROW(CKR_DEVICE_MEMORY, "the token is full", ERROR_RESOURCE_EXHAUSTED),
    ROW(CKR_DEVICE_REMOVED, "the token was removed", ERROR_UNAVAILABLE),
    ROW(CKR_ENCRYPTED_DATA_INVALID, "the sealed data is not authentic", ERROR_DATA_LOSS),
    ROW(CKR_ENCRYPTED_DATA_LEN_RANGE, "the sealed data has a wrong length", ERROR_DATA_LOSS),
    ROW(CKR_FUNCTION_CANCELED, "the operation was cancelled", ERROR_ABORTED),
    ROW(CKR_FUNCTION_NOT_SUPPORTED, "the module does not offer it", ERROR_FAILED_PRECONDITION),
    ROW(CKR_KEY_HANDLE_INVALID, "the key is gone from the token", ERROR_UNAVAILABLE),
    ROW(CKR_KEY_SIZE_RANGE, "the token refuses the key's size", ERROR_FAILED_PRECONDITION),
    ROW(CKR_KEY_TYPE_INCONSISTENT, "the key is of another type", ERROR_INTERNAL),
    ROW(CKR_KEY_FUNCTION_NOT_PERMITTED, "the key may not be used for that",
        ERROR_PERMISSION_DENIED),
    ROW(CKR_KEY_NOT_WRAPPABLE, "the key may not be wrapped", ERROR_PERMISSION_DENIED),
    ROW(CKR_KEY_UNEXTRACTABLE, "the key may not leave the token", ERROR_PERMISSION_DENIED),
    ROW(CKR_MECHANISM_INVALID, "the token does not offer the mechanism", ERROR_FAILED_PRECONDITION),
    ROW(CKR_MECHANISM_PARAM_INVALID, "the token refuses the mechanism's parameters",
        ERROR_INTERNAL),
    ROW(CKR_OBJECT_HANDLE_INVALID, "the object is gone from the token", ERROR_UNAVAILABLE),
    ROW(CKR_OPERATION_ACTIVE, "another operation is still active", ERROR_INTERNAL),
    ROW(CKR_OPERATION_NOT_INITIALIZED, "the operation was not begun", ERROR_INTERNAL),
    ROW(CKR_PIN_INCORRECT, "the PIN is wrong", ERROR_UNAUTHENTICATED),
    ROW(CKR_PIN_INVALID, "the PIN has characters that the token refuses", ERROR_UNAUTHENTICATED),
    ROW(CKR_PIN_LEN_RANGE, "the PIN is too short or too long", ERROR_UNAUTHENTICATED),
    ROW(CKR_PIN_EXPIRED, "the PIN has expired", ERROR_UNAUTHENTICATED),
    ROW(CKR_PIN_LOCKED, "the PIN is locked", ERROR_UNAUTHENTICATED),
    ROW(CKR_SESSION_CLOSED, "the session was closed", ERROR_UNAVAILABLE),
    ROW(CKR_SESSION_COUNT, "the token has no session left", ERROR_RESOURCE_EXHAUSTED),
    ROW(CKR_SESSION_HANDLE_INVALID, "the session is gone", ERROR_UNAVAILABLE),
    ROW(CKR_SESSION_READ_ONLY, "the session may only read", ERROR_INTERNAL),
    ROW(CKR_SIGNATURE_INVALID, "the signature is wrong", ERROR_DATA_LOSS),
    ROW(CKR_SIGNATURE_LEN_RANGE, "the signature has a wrong length", ERROR_DATA_LOSS),
    ROW(CKR_TEMPLATE_INCOMPLETE, "the token wants more attributes", ERROR_INTERNAL),
    ROW(CKR_TEMPLATE_INCONSISTENT, "the token refuses these attributes together", ERROR_INTERNAL),
    ROW(CKR_TOKEN_NOT_PRESENT, "there is no token in the slot", ERROR_UNAVAILABLE),
    ROW(CKR_TOKEN_NOT_RECOGNIZED, "the token is not recognised", ERROR_UNAVAILABLE),
    ROW(CKR_TOKEN_WRITE_PROTECTED, "the token may only be read", ERROR_FAILED_PRECONDITION),
    ROW(CKR_USER_ALREADY_LOGGED_IN, "already logged in", ERROR_INTERNAL),
    ROW(CKR_USER_NOT_LOGGED_IN, "not logged in", ERROR_UNAVAILABLE),
    ROW(CKR_USER_PIN_NOT_INITIALIZED, "the token has no user PIN yet", ERROR_FAILED_PRECONDITION),
    ROW(CKR_RANDOM_NO_RNG, "the token has no random numbers", ERROR_FAILED_PRECONDITION),
    ROW(CKR_DOMAIN_PARAMS_INVALID, "the token does not offer the curve", ERROR_FAILED_PRECONDITION),
    ROW(CKR_CURVE_NOT_SUPPORTED, "the token does not offer the curve", ERROR_FAILED_PRECONDITION),
    ROW(CKR_BUFFER_TOO_SMALL, "the buffer is too small", ERROR_INTERNAL),
    ROW(CKR_CRYPTOKI_NOT_INITIALIZED, "the module is not initialised", ERROR_UNAVAILABLE),
    ROW(CKR_CRYPTOKI_ALREADY_INITIALIZED, "the module is initialised already", ERROR_INTERNAL),
    ROW(CKR_MUTEX_BAD, "the module's locking is broken", ERROR_INTERNAL),
    ROW(CKR_FIPS_SELF_TEST_FAILED, "the module's self-test failed", ERROR_UNAVAILABLE),
    ROW(CKR_LIBRARY_LOAD_FAILED, "the module could not load a library", ERROR_UNAVAILABLE),
    ROW(CKR_FUNCTION_REJECTED, "the token rejected the request", ERROR_PERMISSION_DENIED),
};

static const struct ckr *lookup(CK_RV rv)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].rv == rv)
            return &table[i];
    return NULL;
}

const char *ckr_name(CK_RV rv)
{
    const struct ckr *row = lookup(rv);
    if (row != NULL)
        return row->name;
    return rv >= CKR_VENDOR_DEFINED ? "CKR_VENDOR_DEFINED" : "CKR_?";
}

const char *ckr_words(CK_RV rv)
{
    const struct ckr *row = lookup(rv);
    if (row != NULL)
        return row->words;
    return rv >= CKR_VENDOR_DEFINED ? "an error of the module's own" : "an error without a name";
}

bool ckr_is_loss(CK_RV rv)
{
    switch (rv) {
    case CKR_SLOT_ID_INVALID:
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_SESSION_CLOSED:
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_USER_NOT_LOGGED_IN:
    case CKR_CRYPTOKI_NOT_INITIALIZED:
        return true;
    default:
        return false;
    }
}

int ckr_set(struct error *err, CK_RV rv, const char *function)
{
    const struct ckr *row = lookup(rv);
    return error_set(err, row != NULL && rv != CKR_OK ? row->code : ERROR_INTERNAL,
                     "%s: %s (%s, 0x%lx)", function, ckr_words(rv), ckr_name(rv),
                     (unsigned long)rv);
}
