// SPDX-License-Identifier: Apache-2.0
// Objects of the token: find, read, create data, destroy.
#ifndef PKCS11_OBJECT_H
#define PKCS11_OBJECT_H

#include <stddef.h>

#include "token.h"

#define OBJECT_APPLICATION "custody" // CKA_APPLICATION of every data object that custody makes

// Finds objects that have all of `count` attributes. Fills up to `max` handles and sets `*found`;
// more than `max` is an error. Costs time for each object in the token (SoftHSM: about 30 us): for
// the start, not for a request.
int object_find(struct token *token, CK_ATTRIBUTE *attributes, CK_ULONG count,
                CK_OBJECT_HANDLE *handles, size_t max, size_t *found, struct error *err);

// Reads one attribute of at most `size` bytes. Returns 0 with `*length`, 1 when the object has no
// such attribute, a larger one or an unreadable one (a torn object), -1 with `err`.
int object_read(struct token *token, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, void *value,
                size_t size, size_t *length, struct error *err);

// Creates a private data object on the token, makes it durable and reads it back.
int object_create_data(struct token *token, const char *label, const void *value, size_t length,
                       CK_OBJECT_HANDLE *object, struct error *err);

// Destroys an object, and makes that durable.
int object_destroy(struct token *token, CK_OBJECT_HANDLE object, struct error *err);

#endif
