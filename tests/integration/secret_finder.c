// SPDX-License-Identifier: Apache-2.0
// secret_finder pid PID | folder DIR: looks for a 32-byte private key, given on standard input in
// base64, in all memory of a process or all files under a folder. Exit: 0 it is nowhere, 1 it was
// found, 2 the search could not be done.
//
// Looked for are windows of 12 bytes of the key's bytes 1 to 30 (which clamping does not touch),
// every 4 bytes raw and as hex in either case, and at every offset as base64 in both alphabets: so
// any 16 bytes of the key in a row are found, however they lie. What is printed names the place and
// the form, never the key.
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#define KEY_SIZE     32
#define WINDOW       12
#define PATTERN_MIN  WINDOW
#define PATTERN_MAX  (2 * WINDOW)
#define PATTERNS_MAX 64
#define PIECE        (1 << 20) // bytes looked through at a time

enum exit_status { EXIT_NOWHERE = 0, EXIT_FOUND = 1, EXIT_CANNOT = 2 };

struct pattern {
    const char *form;
    size_t length;
    char bytes[PATTERN_MAX + 1];
};

static struct pattern patterns[PATTERNS_MAX];
static size_t pattern_count;
static bool begins[1 << 16]; // whether a pattern begins with these two bytes
static bool found, trouble;
static unsigned places; // files or mappings looked through
static uint64_t bytes_seen;

// ---- the patterns ----

static struct pattern *new_pattern(const char *form, size_t length)
{
    if (pattern_count == PATTERNS_MAX)
        abort();
    struct pattern *pattern = &patterns[pattern_count++];
    pattern->form = form;
    pattern->length = length;
    return pattern;
}

static void make_raw_and_hex(const uint8_t *window)
{
    memcpy(new_pattern("raw", WINDOW)->bytes, window, WINDOW);
    struct pattern *lower = new_pattern("hex", 2 * WINDOW);
    sodium_bin2hex(lower->bytes, sizeof lower->bytes, window, WINDOW);
    struct pattern *upper = new_pattern("HEX", 2 * WINDOW);
    for (size_t i = 0; i < upper->length; i++)
        upper->bytes[i] = (char)toupper((unsigned char)lower->bytes[i]);
}

static void make_base64(const uint8_t *window)
{
    struct pattern *standard = new_pattern("base64", WINDOW * 4 / 3);
    sodium_bin2base64(standard->bytes, sizeof standard->bytes, window, WINDOW,
                      sodium_base64_VARIANT_ORIGINAL);
    struct pattern *safe = new_pattern("base64url", WINDOW * 4 / 3);
    sodium_bin2base64(safe->bytes, sizeof safe->bytes, window, WINDOW,
                      sodium_base64_VARIANT_URLSAFE);
    if (strcmp(standard->bytes, safe->bytes) == 0)
        pattern_count--;
}

static bool make_patterns(void)
{
    char line[64];
    uint8_t key[KEY_SIZE];
    size_t length = 0;
    ssize_t n = read(STDIN_FILENO, line, sizeof line);
    if (n <= 0 ||
        sodium_base642bin(key, sizeof key, line, (size_t)n, "\n", &length, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        length != KEY_SIZE)
        return false;
    for (size_t at = 1; at + WINDOW < KEY_SIZE; at += 4)
        make_raw_and_hex(key + at);
    for (size_t at = 1; at + WINDOW < KEY_SIZE; at++)
        make_base64(key + at);
    for (size_t i = 0; i < pattern_count; i++)
        begins[(uint8_t)patterns[i].bytes[0] << 8 | (uint8_t)patterns[i].bytes[1]] = true;
    return true;
}

// ---- looking ----

// One pass for all patterns: few places have two bytes that begin any of them.
static void look_through(const char *place, uint64_t offset, const char *bytes, size_t length)
{
    for (size_t at = 0; at + PATTERN_MIN <= length; at++) {
        if (!begins[(uint8_t)bytes[at] << 8 | (uint8_t)bytes[at + 1]])
            continue;
        for (size_t i = 0; i < pattern_count; i++) {
            if (length - at < patterns[i].length ||
                memcmp(bytes + at, patterns[i].bytes, patterns[i].length) != 0)
                continue;
            printf("found: %s in %s at 0x%" PRIx64 "\n", patterns[i].form, place, offset + at);
            found = true;
        }
    }
}

// Looks through [begin, end) of `fd` in pieces that overlap by a pattern. Returns false when
// nothing could be read.
static bool look_at(int fd, const char *place, uint64_t begin, uint64_t end)
{
    static char piece[PIECE + PATTERN_MAX];
    size_t kept = 0;
    bool any = false;
    for (uint64_t at = begin; at < end;) {
        size_t want = end - at < PIECE ? (size_t)(end - at) : PIECE;
        ssize_t n = pread(fd, piece + kept, want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        any = true;
        bytes_seen += (uint64_t)n;
        look_through(place, at - kept, piece, kept + (size_t)n);
        size_t have = kept + (size_t)n;
        kept = have < PATTERN_MAX ? have : PATTERN_MAX;
        memmove(piece, piece + have - kept, kept);
        at += (uint64_t)n;
    }
    places += any;
    return any;
}

// ---- where ----

static void look_at_process(const char *pid)
{
    char path[64], line[4096 + 128];
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    if (maps == NULL || mem < 0) {
        fprintf(stderr, "secret_finder: process %s: %s\n", pid, strerror(errno));
        trouble = true;
    }
    while (!trouble && fgets(line, sizeof line, maps) != NULL) {
        uint64_t begin, end;
        char access[5];
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &begin, &end, access) != 3)
            continue;
        // Also what its owner may not read now (a guarded key): the kernel lets a tracer. A page
        // that nobody may read has nothing in it.
        bool readable = look_at(mem, line, begin, end);
        if (!readable && access[0] == 'r' && strstr(line, "[vvar") == NULL &&
            strstr(line, "[vsyscall]") == NULL) {
            fprintf(stderr, "secret_finder: cannot read %s: %s\n", line, strerror(errno));
            trouble = true;
        }
    }
    if (maps != NULL)
        fclose(maps);
    if (mem >= 0)
        close(mem);
}

static int look_at_file(const char *path, const struct stat *status, int type, struct FTW *where)
{
    if (type == FTW_DNR || type == FTW_NS) {
        fprintf(stderr, "secret_finder: cannot read %s\n", path);
        trouble = true;
    }
    if (type != FTW_F || !S_ISREG(status->st_mode))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        fprintf(stderr, "secret_finder: %s: %s\n", path, strerror(errno));
        trouble = true;
        return 0;
    }
    look_at(fd, path, 0, INT64_MAX);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "pid") != 0 && strcmp(argv[1], "folder") != 0)) {
        fputs("usage: secret_finder pid PID | folder DIR, the key in base64 on standard input\n",
              stderr);
        return EXIT_CANNOT;
    }
    if (sodium_init() < 0 || !make_patterns()) {
        fputs("secret_finder: standard input is no key in base64\n", stderr);
        return EXIT_CANNOT;
    }
    if (strcmp(argv[1], "pid") == 0)
        look_at_process(argv[2]);
    else if (nftw(argv[2], look_at_file, 32, FTW_PHYS) != 0)
        trouble = true;
    printf("looked through %" PRIu64 " bytes in %u places\n", bytes_seen, places);
    if (found)
        return EXIT_FOUND;
    return trouble || places == 0 ? EXIT_CANNOT : EXIT_NOWHERE;
}
