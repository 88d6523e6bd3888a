// SPDX-License-Identifier: Apache-2.0
// Proofs that a log grew out of an older one: the text that C2SP tlog-witness takes, "old SIZE",
// the consistency proof's hashes, an empty line and the newer checkpoint.
#ifndef TOOLS_AUDIT_GROWTH_H
#define TOOLS_AUDIT_GROWTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint.h"
#include "error.h"
#include "merkle.h"
#include "note.h"

#define GROWTH_MAX 8192 // bytes, with the NUL

struct growth {
    uint64_t old_size;
    struct merkle_hash path[MERKLE_PROOF_MAX];
    size_t path_length;
    char checkpoint[NOTE_MAX]; // the signed note, NUL-terminated
    size_t checkpoint_length;
};

// Whether a text begins like such a proof.
bool growth_is(const char *text, size_t length);
int growth_format(const struct growth *growth, char text[GROWTH_MAX], struct error *err);
int growth_parse(struct growth *growth, const char *text, size_t length, struct error *err);
// Checks that the log of `old` grew into that of the proof's checkpoint, signed by `key`; `*now` is
// what that says.
int growth_verify(const struct growth *growth, const struct checkpoint *old,
                  const struct note_key *key, struct checkpoint *now, struct error *err);

#endif
