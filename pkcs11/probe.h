// SPDX-License-Identifier: Apache-2.0
// Tries everything that custody asks of a token by doing it: the list of mechanisms that a token
// gives is not believed.
#ifndef PKCS11_PROBE_H
#define PKCS11_PROBE_H

#include "channel.h"
#include "keys.h"
#include "token.h"

// Fills `probe`. Keys are session objects made as the real ones are; where `keys` is given (an
// initialised token), the real ones must refuse to leave as well. Leaves nothing behind.
void probe_run(struct token *token, const struct keys *keys, struct keeper_probe *probe);

#endif
