// SPDX-License-Identifier: Apache-2.0
// Reads the token's PIN from a file into guarded memory.
#ifndef PKCS11_PIN_H
#define PKCS11_PIN_H

#include <stddef.h>

#include "error.h"

#define PIN_MAX 256 // bytes

// Reads the PIN from `source` (RFC 7512 pin-source: "file:/path" or "/path"), or where `source` is
// NULL from $CREDENTIALS_DIRECTORY/token-pin. One newline at its end is not part of it. `*pin` is
// sodium_malloc'd and not NUL-terminated: free it with sodium_free, which wipes it. Refuses a file
// that other users may read.
int pin_read(const char *source, unsigned char **pin, size_t *length, struct error *err);

#endif
