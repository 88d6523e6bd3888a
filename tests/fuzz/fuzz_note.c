// SPDX-License-Identifier: Apache-2.0
// Fuzzes signed notes and verifier keys: what verifies has one form, and nothing altered verifies.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "fuzz.h"
#include "note.h"
#include "tests/unit/signer.h"

#define SIGNERS 2

static const struct signer *signers(void)
{
    static struct signer made[SIGNERS];
    if (made[0].key.name[0] == '\0') {
        signer_make(&made[0], "alpha/custody/log", 1);
        signer_make(&made[1], "alpha/custody/host", 3);
    }
    return made;
}

// The signature in the last line of a note that verified.
static bool last_signature(const char *note, size_t length, uint8_t signature[NOTE_SIGNATURE_SIZE])
{
    uint8_t bytes[4 + NOTE_SIGNATURE_SIZE];
    size_t size = 0;
    const char *blank = memrchr(note, ' ', length);
    if (blank == NULL ||
        sodium_base642bin(bytes, sizeof(bytes), blank + 1, (size_t)(note + length - blank) - 2,
                          NULL, &size, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
        size != sizeof(bytes))
        return false;
    memcpy(signature, bytes + 4, NOTE_SIGNATURE_SIZE);
    return true;
}

// A note of one signature is what note_format makes of its parts.
static void require_one_form(const char *note, size_t length, size_t text_length,
                             const struct note_key *key)
{
    char text[NOTE_MAX], again[NOTE_MAX];
    uint8_t signature[NOTE_SIGNATURE_SIZE];
    size_t again_length = 0;
    if (memchr(note + text_length + 1, '\n', length - text_length - 1) != note + length - 1)
        return;
    memcpy(text, note, text_length);
    text[text_length] = '\0';
    REQUIRE(last_signature(note, length, signature));
    REQUIRE(note_format(text, key, signature, again, sizeof(again), &again_length, NULL) == 0);
    REQUIRE(again_length == length && memcmp(again, note, length) == 0);
}

static void fuzz_verify(const char *note, size_t length)
{
    const struct signer *made = signers();
    const struct note_key keys[SIGNERS] = {made[0].key, made[1].key};
    bool signed_by[SIGNERS] = {false, false};
    size_t text_length = 0;
    struct error err = {.code = ERROR_OK};
    if (note_verify(note, length, keys, SIGNERS, &text_length, signed_by, &err) != 0) {
        fuzz_require_refusal(&err);
        return;
    }
    REQUIRE(signed_by[0] || signed_by[1]);
    REQUIRE(text_length > 0 && text_length < length && note[text_length - 1] == '\n' &&
            note[text_length] == '\n');
    require_one_form(note, length, text_length, signed_by[0] ? &keys[0] : &keys[1]);
}

// Signs the input, and alters what was signed.
static void fuzz_alter(const uint8_t *data, size_t size)
{
    const struct signer *signer = &signers()[0];
    char text[NOTE_MAX], note[NOTE_MAX];
    size_t length = 0, text_length = 0;
    uint64_t choice = fuzz_hash(data, size);
    uint8_t signature[NOTE_SIGNATURE_SIZE] = {0};
    if (size >= sizeof(text) || memchr(data, '\0', size) != NULL)
        return;
    memcpy(text, data, size);
    text[size] = '\0';
    if (note_format(text, &signer->key, signature, note, sizeof(note), &length, NULL) != 0)
        return;
    length = signer_sign(signer, text, note);
    REQUIRE(note_verify(note, length, &signer->key, 1, &text_length, NULL, NULL) == 0);
    REQUIRE(text_length == size && memcmp(note, text, size) == 0);
    REQUIRE(note_verify(note, length - 1 - choice % (length - 1), &signer->key, 1, &text_length,
                        NULL, NULL) != 0);
    fuzz_flip(note, length, choice);
    REQUIRE(note_verify(note, length, &signer->key, 1, &text_length, NULL, NULL) != 0);
}

// A verifier key has one form, but for white space around it.
static void fuzz_vkey(const uint8_t *data, size_t size)
{
    struct note_key key;
    struct error err = {.code = ERROR_OK};
    char again[NOTE_VKEY_MAX];
    char *text = malloc(size + 1);
    if (text == NULL)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    if (note_key_parse(&key, text, &err) != 0) {
        fuzz_require_refusal(&err);
    } else {
        const char *start = text + strspn(text, " \t\r\n");
        note_key_format(&key, again);
        REQUIRE(strncmp(start, again, strlen(again)) == 0);
        REQUIRE(strspn(start + strlen(again), " \t\r\n") == strlen(start + strlen(again)));
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_verify((const char *)data, size);
    fuzz_alter(data, size);
    fuzz_vkey(data, size);
    return 0;
}
