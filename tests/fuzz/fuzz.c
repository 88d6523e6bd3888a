// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share.
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

void fuzz_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

void fuzz_require_refusal(const struct error *err)
{
    REQUIRE(err->code != ERROR_OK);
    REQUIRE(memchr(err->message, '\0', sizeof(err->message)) != NULL);
    REQUIRE(err->message[0] != '\0');
}

uint64_t fuzz_hash(const uint8_t *data, size_t size)
{
    // FNV-1a: it need only differ.
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

void fuzz_flip(void *bytes, size_t size, uint64_t choice)
{
    choice %= 8 * size;
    ((uint8_t *)bytes)[choice / 8] ^= (uint8_t)(1u << choice % 8);
}

uint8_t input_byte(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

uint64_t input_u64(struct input *input)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)input_byte(input) << 8 * i;
    return value;
}

char *input_line(struct input *input)
{
    if (input->left == 0)
        return NULL;
    const uint8_t *end = memchr(input->at, '\n', input->left);
    size_t length = end != NULL ? (size_t)(end - input->at) : input->left;
    char *line = malloc(length + 1);
    if (line == NULL)
        abort();
    memcpy(line, input->at, length);
    line[length] = '\0';
    size_t taken = end != NULL ? length + 1 : length;
    input->at += taken;
    input->left -= taken;
    return line;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    return sodium_init() < 0 ? -1 : 0;
}
