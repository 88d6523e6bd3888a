// SPDX-License-Identifier: Apache-2.0
// The text of a log's signed head: C2SP tlog-checkpoint (origin, tree size, root hash; no extension
// lines).
#ifndef PROTO_CHECKPOINT_H
#define PROTO_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"
#include "note.h"

#define CHECKPOINT_TEXT_MAX 256 // bytes, with the NUL

struct checkpoint {
    char origin[NOTE_NAME_MAX + 1];
    uint64_t size; // leaves
    struct merkle_hash root;
};

// The text that is signed, NUL-terminated. Returns its length without the NUL.
size_t checkpoint_format(const struct checkpoint *checkpoint, char text[CHECKPOINT_TEXT_MAX]);
// Parses the text of a note that was already verified. Extension lines are an error: custody signs
// none.
int checkpoint_parse(struct checkpoint *checkpoint, const char *text, size_t length,
                     struct error *err);
// Verifies a whole note with `key` (see note_verify) and parses it; the origin must equal the key's
// name.
int checkpoint_open(struct checkpoint *checkpoint, const char *note, size_t length,
                    const struct note_key *key, struct error *err);

#endif
