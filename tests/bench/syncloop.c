// SPDX-License-Identifier: Apache-2.0
// What appending costs at least: batches of lines written to a file and made durable, one after the
// other, and nothing else.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "timing.h"

#define BYTES_MAX (1 << 22) // of a batch

static void fail(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static size_t number(const char *text)
{
    char *end;
    size_t value = strtoul(text, &end, 10);
    if (*text < '1' || *text > '9' || *end != '\0') {
        fprintf(stderr, "syncloop: '%s' is no number from 1 on\n", text);
        exit(EXIT_FAILURE);
    }
    return value;
}

// usage: syncloop FILE RECORDS BATCH BYTES: so many records of BYTES each, BATCH at a time. Prints
// records a second.
int main(int argc, char **argv)
{
    static char bytes[BYTES_MAX];
    if (argc != 5) {
        fprintf(stderr, "usage: syncloop FILE RECORDS BATCH BYTES\n");
        return EXIT_FAILURE;
    }
    size_t records = number(argv[2]), batch = number(argv[3]), size = number(argv[4]);
    if (batch > BYTES_MAX / size) {
        fprintf(stderr, "syncloop: a batch of more than %d bytes\n", BYTES_MAX);
        return EXIT_FAILURE;
    }
    memset(bytes, 'x', sizeof(bytes));
    int fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(argv[1]);
    int64_t begin = timing_now();
    for (size_t done = 0; done < records; done += batch) {
        size_t length = (records - done < batch ? records - done : batch) * size;
        if (write(fd, bytes, length) != (ssize_t)length)
            fail("write");
        if (fdatasync(fd) != 0)
            fail("fdatasync");
    }
    printf("%.1f\n", (double)records * 1e9 / (double)(timing_now() - begin));
    return EXIT_SUCCESS;
}
