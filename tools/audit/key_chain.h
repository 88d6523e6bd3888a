// SPDX-License-Identifier: Apache-2.0
// Which log key is to be believed: the auditor's pinned one, and those that it handed over to by
// log.key-changed records that both the old and the new key signed.
#ifndef TOOLS_AUDIT_KEY_CHAIN_H
#define TOOLS_AUDIT_KEY_CHAIN_H

#include "error.h"
#include "note.h"
#include "record.h"

// Checks a log.key-changed record against the key in force before it (`old_vkey`, as records say):
// both signatures must be right. `*next` is the new key.
int key_chain_check(const struct record *record, const char *old_vkey, struct note_key *next,
                    struct error *err);

// Follows the log in DIR from `pinned` to the last key that it handed over to; `*key` is that one,
// or `pinned` itself when the log has no change that begins there.
int key_chain_follow(const char *dir, const struct note_key *pinned, struct note_key *key,
                     struct error *err);

#endif
