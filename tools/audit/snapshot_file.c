// SPDX-License-Identifier: Apache-2.0
// Reading snapshots.
#include "snapshot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

void snapshot_file_path(uint64_t next, char path[SNAPSHOT_FILE_PATH])
{
    char name[SNAPSHOT_NAME_SIZE];
    snapshot_name(next, name);
    snprintf(path, SNAPSHOT_FILE_PATH, "log/%s", name);
}

bool snapshot_file_parse(const char *name, uint64_t *next)
{
    char again[SNAPSHOT_NAME_SIZE];
    if (name[0] < '0' || name[0] > '9')
        return false;
    *next = strtoull(name, NULL, 10);
    snapshot_name(*next, again);
    return strcmp(name, again) == 0;
}

static int read_exactly(int fd, char *text, size_t size, struct error *err)
{
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, text + used, size - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_DATA_LOSS, "it cannot be read: %s",
                             n < 0 ? strerror(errno) : "it became shorter");
        used += (size_t)n;
    }
    return 0;
}

// The file's text and its digest; the caller's to free. NULL with `err` on failure.
static char *read_snapshot(int dirfd, uint64_t next, size_t *length, char sha256[65],
                           struct error *err)
{
    char path[SNAPSHOT_FILE_PATH], *text = NULL;
    struct stat status;
    uint8_t digest[crypto_hash_sha256_BYTES];
    snapshot_file_path(next, path);
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_DATA_LOSS,
                  "it cannot be opened: %s", strerror(errno));
        return NULL;
    }
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > SNAPSHOT_TEXT_MAX) {
        error_set(err, ERROR_DATA_LOSS, "it is no regular file of at most %d bytes",
                  SNAPSHOT_TEXT_MAX);
        goto cleanup;
    }
    *length = (size_t)status.st_size;
    text = malloc(*length + 1);
    if (text == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for it");
        goto cleanup;
    }
    if (read_exactly(fd, text, *length, err) != 0) {
        free(text);
        text = NULL;
        goto cleanup;
    }
    crypto_hash_sha256(digest, (const uint8_t *)text, *length);
    sodium_bin2hex(sha256, 65, digest, sizeof(digest));
cleanup:
    close(fd);
    return text;
}

static char *read_vouched(int dirfd, uint64_t next, const char *sha256, size_t *length,
                          struct error *err)
{
    char digest[65];
    char *text = read_snapshot(dirfd, next, length, digest, err);
    if (text == NULL || strcmp(digest, sha256) == 0)
        return text;
    error_set(err, ERROR_DATA_LOSS,
              "the snapshot is not the one that log.sealed before it vouches for");
    free(text);
    return NULL;
}

int snapshot_file_check(int dirfd, uint64_t next, const char *sha256, struct error *err)
{
    size_t length;
    char *text = read_vouched(dirfd, next, sha256, &length, err);
    free(text);
    return text != NULL ? 0 : -1;
}

struct state *snapshot_file_state(int dirfd, const struct record *sealed, struct error *err)
{
    size_t length;
    char *text = read_vouched(dirfd, sealed->seq + 1, sealed->sha256, &length, err);
    if (text == NULL)
        return NULL;
    struct state *state = snapshot_parse(text, length, err);
    free(text);
    if (state != NULL && state_apply(state, sealed, err) != 0) {
        state_free(state);
        return NULL;
    }
    return state;
}
