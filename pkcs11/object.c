// SPDX-License-Identifier: Apache-2.0
// Objects of the token, with what SoftHSM leaves to its caller: reading back and syncing.
#include "object.h"

#include <stdlib.h>
#include <string.h>

#define FIND_STEP 64

int object_find(struct token *token, CK_ATTRIBUTE *attributes, CK_ULONG count,
                CK_OBJECT_HANDLE *handles, size_t max, size_t *found, struct error *err)
{
    CK_FUNCTION_LIST *p11 = token_module(token);
    CK_SESSION_HANDLE session = token_session(token);
    *found = 0;
    CK_RV rv = p11->C_FindObjectsInit(session, attributes, count);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_FindObjectsInit", err);
    for (;;) {
        CK_OBJECT_HANDLE step[FIND_STEP];
        CK_ULONG got = 0;
        rv = p11->C_FindObjects(session, step, FIND_STEP, &got);
        if (rv != CKR_OK) {
            p11->C_FindObjectsFinal(session);
            return token_fail(token, rv, "C_FindObjects", err);
        }
        if (got == 0)
            break;
        if (got > max - *found) {
            p11->C_FindObjectsFinal(session);
            return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                             "token '%s': more than %zu objects match where at most so many may",
                             token_describe(token)->label, max);
        }
        memcpy(handles + *found, step, got * sizeof(step[0]));
        *found += got;
    }
    rv = p11->C_FindObjectsFinal(session);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_FindObjectsFinal", err);
    return 0;
}

int object_read(struct token *token, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *value,
                size_t size, size_t *length, struct error *err)
{
    CK_ATTRIBUTE attribute = {type, value, (CK_ULONG)size};
    CK_RV rv =
        token_module(token)->C_GetAttributeValue(token_session(token), object, &attribute, 1);
    if (rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE ||
        rv == CKR_BUFFER_TOO_SMALL)
        return 1;
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_GetAttributeValue", err);
    if (attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION || attribute.ulValueLen > size)
        return 1;
    *length = attribute.ulValueLen;
    return 0;
}

// Compares an object's value with what was to be stored.
static int read_back(struct token *token, CK_OBJECT_HANDLE object, const char *label,
                     const void *value, size_t length, struct error *err)
{
    unsigned char *copy = malloc(length + 1);
    if (copy == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    size_t got = 0;
    int result = object_read(token, object, CKA_VALUE, copy, length + 1, &got, err);
    if (result == 1 || (result == 0 && (got != length || memcmp(copy, value, length) != 0)))
        result = error_set(err, ERROR_DATA_LOSS,
                           "token '%s': object %s does not read back as it was stored",
                           token_describe(token)->label, label);
    free(copy);
    return result;
}

int object_create_data(struct token *token, const char *label, const void *value, size_t length,
                       CK_OBJECT_HANDLE *object, struct error *err)
{
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE attributes[] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_APPLICATION, (void *)OBJECT_APPLICATION, sizeof(OBJECT_APPLICATION) - 1},
        {CKA_LABEL, (void *)label, (CK_ULONG)strlen(label)},
        {CKA_VALUE, (void *)value, (CK_ULONG)length},
    };
    CK_OBJECT_HANDLE handle;
    CK_RV rv = token_module(token)->C_CreateObject(
        token_session(token), attributes, sizeof(attributes) / sizeof(attributes[0]), &handle);
    if (rv != CKR_OK) {
        token_fail(token, rv, "C_CreateObject", err);
        return error_prefix(err, "storing %s", label);
    }
    if (token_sync(token, err) != 0 || read_back(token, handle, label, value, length, err) != 0) {
        // What could not be proven stored must not be found later as if it were.
        token_module(token)->C_DestroyObject(token_session(token), handle);
        return -1;
    }
    *object = handle;
    return 0;
}

int object_destroy(struct token *token, CK_OBJECT_HANDLE object, struct error *err)
{
    CK_RV rv = token_module(token)->C_DestroyObject(token_session(token), object);
    if (rv != CKR_OK)
        return token_fail(token, rv, "C_DestroyObject", err);
    return token_sync(token, err);
}
