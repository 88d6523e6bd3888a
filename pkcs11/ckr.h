// SPDX-License-Identifier: Apache-2.0
// PKCS#11 return values as words and as custody's error codes.
#ifndef PKCS11_CKR_H
#define PKCS11_CKR_H

#include <stdbool.h>

#include <p11-kit/pkcs11.h>

#include "error.h"

// "CKR_PIN_INCORRECT"; "CKR_VENDOR_DEFINED" from 0x80000000 on, "CKR_?" for a number PKCS#11 does
// not name.
const char *ckr_name(CK_RV rv);
// "the PIN is wrong": what the value means to a person.
const char *ckr_words(CK_RV rv);
// Whether the value says that the token itself went away or broke, so that only a new start can
// help.
bool ckr_is_loss(CK_RV rv);

// Fills `err` with "FUNCTION: words (CKR_NAME, 0xNN)" and the code that fits; returns -1.
int ckr_set(struct error *err, CK_RV rv, const char *function);

#endif
