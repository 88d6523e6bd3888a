// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share: saying what must hold, and taking a target's input apart.
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

// libFuzzer calls it with each input; `data` is a block of exactly `size` bytes.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
// And this once, before the first.
int LLVMFuzzerInitialize(int *argc, char ***argv);

// Ends the process, so that libFuzzer keeps the input.
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_failed(#condition, __FILE__, __LINE__);                                           \
    } while (0)
_Noreturn void fuzz_failed(const char *condition, const char *file, int line);

// A refusal says what is wrong, and where its words end.
void fuzz_require_refusal(const struct error *err);

// A number that the whole input decides, for targets whose input is the text itself and has no room
// for choices.
uint64_t fuzz_hash(const uint8_t *data, size_t size);

// Flips the bit number `choice` (modulo how many there are).
void fuzz_flip(void *bytes, size_t size, uint64_t choice);

// What is left of an input that is taken apart.
struct input {
    const uint8_t *at;
    size_t left;
};
uint8_t input_byte(struct input *input); // 0 when nothing is left
uint64_t input_u64(struct input *input); // little-endian; a short rest counts as if zeroes followed
// The bytes up to the next newline (taken too) or the end, NUL-terminated, for the caller to free.
// NULL when nothing is left.
char *input_line(struct input *input);

#endif
