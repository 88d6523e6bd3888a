// SPDX-License-Identifier: Apache-2.0
// Fuzzes a log's signed head: its text has one form, and it opens with its own log's key only.
#include <string.h>

#include "checkpoint.h"
#include "fuzz.h"
#include "tests/unit/signer.h"

static void require_same(const struct checkpoint *a, const struct checkpoint *b)
{
    REQUIRE(strcmp(a->origin, b->origin) == 0 && a->size == b->size &&
            memcmp(&a->root, &b->root, sizeof(a->root)) == 0);
}

// Signed by the key whose name is the origin, it opens; by another's, or altered, it does not.
static void fuzz_open(const struct checkpoint *checkpoint, const char *text, uint64_t choice)
{
    struct signer signer;
    struct checkpoint opened;
    struct note_key key;
    char note[NOTE_MAX];
    size_t length;
    const uint8_t any[32] = {0};
    if (note_key_make(&key, checkpoint->origin, any, NULL) != 0)
        return;
    signer_make(&signer, checkpoint->origin, 1);
    length = signer_sign(&signer, text, note);
    REQUIRE(checkpoint_open(&opened, note, length, &signer.key, NULL) == 0);
    require_same(checkpoint, &opened);
    fuzz_flip(note, length, choice);
    REQUIRE(checkpoint_open(&opened, note, length, &signer.key, NULL) != 0);
    if (strcmp(checkpoint->origin, "another") == 0)
        return;
    signer_make(&signer, "another", 1);
    length = signer_sign(&signer, text, note);
    REQUIRE(checkpoint_open(&opened, note, length, &signer.key, NULL) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint checkpoint;
    struct error err = {.code = ERROR_OK};
    char text[CHECKPOINT_TEXT_MAX];
    if (checkpoint_parse(&checkpoint, (const char *)data, size, &err) != 0) {
        fuzz_require_refusal(&err);
        return 0;
    }
    REQUIRE(checkpoint_format(&checkpoint, text) == size && memcmp(text, data, size) == 0);
    fuzz_open(&checkpoint, text, fuzz_hash(data, size));
    return 0;
}
