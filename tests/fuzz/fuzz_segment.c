// SPDX-License-Identifier: Apache-2.0
// Fuzzes the reader of segments and their names: every byte comes once, and in its line.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "segment.h"

#define CHOICES 3 // bytes before the segment's own: how often it is repeated, and where to begin

// A file that holds the bytes `times` times over, so that short inputs cross the reader's buffer
// too.
static int make_file(const uint8_t *data, size_t size, unsigned times)
{
    int fd = memfd_create("segment", MFD_CLOEXEC);
    if (fd < 0)
        abort();
    for (unsigned i = 0; i < times; i++)
        if (write(fd, data, size) != (ssize_t)size)
            abort();
    return fd;
}

static char *read_back(int fd, size_t size)
{
    char *text = malloc(size + 1);
    if (text == NULL || pread(fd, text, size, 0) != (ssize_t)size)
        abort();
    return text;
}

static void require_lines(struct segment_reader *reader, const char *text, size_t size, size_t at)
{
    struct segment_line line;
    struct error err;
    int got;
    while ((got = segment_reader_next(reader, &line, &err)) == 1) {
        const char *newline = memchr(text + at, '\n', size - at);
        size_t length = newline != NULL ? (size_t)(newline - text) - at : size - at;
        REQUIRE(at < size && line.offset == at);
        REQUIRE(line.complete == (newline != NULL && length <= RECORD_LINE_MAX));
        REQUIRE(line.length == (length <= RECORD_LINE_MAX ? length : RECORD_LINE_MAX));
        REQUIRE(memcmp(line.text, text + at, line.length) == 0);
        at = line.complete ? at + length + 1 : size;
    }
    REQUIRE(got == 0 && at == size);
    REQUIRE(segment_reader_next(reader, &line, &err) == 0);
}

static void fuzz_name(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    char name[SEGMENT_NAME_SIZE];
    uint64_t first = input_u64(&input), again = 0;
    segment_name(first, name);
    REQUIRE(segment_name_parse(name, &again) && again == first);
    input = (struct input){data, size};
    char *text = input_line(&input);
    if (text != NULL && segment_name_parse(text, &first)) {
        segment_name(first, name);
        REQUIRE(strcmp(name, text) == 0);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_name(data, size);
    if (size <= CHOICES)
        return 0;
    unsigned times = 1 + data[0] % 64;
    size_t total = times * (size - CHOICES);
    size_t offset = ((size_t)data[1] << 8 | data[2]) % (total + 1);
    int fd = make_file(data + CHOICES, size - CHOICES, times);
    char *text = read_back(fd, total);
    struct segment_reader *reader = segment_reader_new(fd, offset);
    if (reader == NULL)
        abort();
    require_lines(reader, text, total, offset);
    segment_reader_free(reader);
    free(text);
    close(fd);
    return 0;
}
