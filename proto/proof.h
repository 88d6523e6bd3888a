// SPDX-License-Identifier: Apache-2.0
// Receipts: c2sp.org/tlog-proof, an inclusion proof and the signed checkpoint that it leads to,
// checkable offline.
#ifndef PROTO_PROOF_H
#define PROTO_PROOF_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"
#include "note.h"

#define PROOF_MAX 8192 // bytes of a receipt, with the NUL

struct proof {
    uint64_t index; // of the leaf
    struct merkle_hash path[MERKLE_PROOF_MAX];
    size_t path_length;
    char checkpoint[NOTE_MAX]; // the signed note, NUL-terminated
    size_t checkpoint_length;
};

// Writes the receipt, NUL-terminated; `*length` without the NUL.
int proof_format(const struct proof *proof, char *text, size_t size, size_t *length,
                 struct error *err);
// Parses one (need not be NUL-terminated). An `extra` line is accepted and ignored: it is not
// authenticated.
int proof_parse(struct proof *proof, const char *text, size_t length, struct error *err);
// Checks that `leaf` is in the log whose checkpoints `key` signs, at proof->index.
int proof_verify(const struct proof *proof, const struct merkle_hash *leaf,
                 const struct note_key *key, struct error *err);

#endif
