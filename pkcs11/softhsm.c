// SPDX-License-Identifier: Apache-2.0
// SoftHSM's folder: C_Login truncates and rewrites token.object, so a kill in between leaves it
// empty and the token lost.
#include "softhsm.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OBJECT       "token.object"
#define OBJECT_NEW   "token.object.mending"
#define LOCK_STEP_MS 50
#define OBJECT_MAX   65536 // bytes; a real one has a few hundred

// Opens the configuration where SoftHSM looks for it (softhsm2.conf(5)).
static FILE *open_configuration(void)
{
    const char *named = getenv("SOFTHSM2_CONF");
    if (named != NULL)
        return fopen(named, "re");
    const char *home = getenv("HOME");
    char path[PATH_MAX];
    if (home != NULL && snprintf(path, sizeof(path), "%s/.config/softhsm2/softhsm2.conf", home) <
                            (int)sizeof(path)) {
        FILE *file = fopen(path, "re");
        if (file != NULL)
            return file;
    }
    return fopen("/etc/softhsm/softhsm2.conf", "re");
}

// The value of "directories.tokendir = PATH" in `line`, trimmed in place, or NULL.
static char *tokendir_of(char *line)
{
    static const char name[] = "directories.tokendir";
    while (isspace((unsigned char)*line))
        line++;
    if (strncmp(line, name, sizeof(name) - 1) != 0)
        return NULL;
    char *value = line + sizeof(name) - 1;
    while (isspace((unsigned char)*value))
        value++;
    if (*value != '=')
        return NULL;
    value++;
    while (isspace((unsigned char)*value))
        value++;
    size_t length = strlen(value);
    while (length > 0 && isspace((unsigned char)value[length - 1]))
        value[--length] = '\0';
    return length > 0 ? value : NULL;
}

int softhsm_folder_open(void)
{
    FILE *file = open_configuration();
    if (file == NULL)
        return -1;
    int folder = -1;
    char line[PATH_MAX + 64];
    while (folder < 0 && fgets(line, sizeof(line), file) != NULL) {
        const char *path = tokendir_of(line);
        if (path != NULL)
            folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    fclose(file);
    return folder;
}

static int write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t step = write(fd, data, length);
        if (step < 0 && errno == EINTR)
            continue;
        if (step <= 0)
            return -1;
        data += step;
        length -= (size_t)step;
    }
    return 0;
}

// Reads the provisioning copy. Returns its length, 0 when there is none or it is empty, -1 on
// error.
static ssize_t read_copy(int token, char *data, size_t size)
{
    int fd = openat(token, SOFTHSM_COPY, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    ssize_t got;
    do
        got = read(fd, data, size);
    while (got < 0 && errno == EINTR);
    int saved = errno;
    close(fd);
    errno = saved;
    return got;
}

static int replace_object(int token, const char *data, size_t length)
{
    int fd = openat(token, OBJECT_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int failed = write_all(fd, data, length) != 0 || fsync(fd) != 0;
    if (close(fd) != 0 || failed)
        return -1;
    if (renameat(token, OBJECT_NEW, token, OBJECT) != 0)
        return -1;
    return fsync(token);
}

// Whether a file holds nothing but zeros: a power cut may keep a file's new length without its
// bytes.
static bool is_zeros(int token, const char *name)
{
    char data[OBJECT_MAX];
    int fd = openat(token, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got;
    do
        got = read(fd, data, sizeof(data));
    while (got < 0 && errno == EINTR);
    close(fd);
    for (ssize_t i = 0; i < got; i++)
        if (data[i] != 0)
            return false;
    return got > 0;
}

// Whether the token in this folder lost its token.object, or has one without content.
static bool is_emptied(int token)
{
    struct stat info;
    if (fstatat(token, OBJECT, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT;
    return S_ISREG(info.st_mode) && (info.st_size == 0 || is_zeros(token, OBJECT));
}

// Returns 1 when the token in folder `name` was mended, 0 when it needed nothing or has no copy, -1
// with `err`.
static int mend_one(int folder, const char *name, struct error *err)
{
    int token = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (token < 0)
        return 0;
    int result = 0;
    if (is_emptied(token)) {
        char data[OBJECT_MAX];
        ssize_t length = read_copy(token, data, sizeof(data));
        if (length > 0)
            result = replace_object(token, data, (size_t)length) == 0 ? 1 : -1;
        if (length < 0 || result < 0)
            result = error_set(err, ERROR_UNAVAILABLE,
                               "SoftHSM token %s: its " OBJECT " is empty and cannot be put back "
                               "from " SOFTHSM_COPY ": %s",
                               name, strerror(errno));
    }
    close(token);
    return result;
}

int softhsm_mend(char *notice, size_t size, struct error *err)
{
    notice[0] = '\0';
    int folder = softhsm_folder_open();
    if (folder < 0)
        return 0;
    DIR *list = fdopendir(folder);
    if (list == NULL) {
        close(folder);
        return error_set(err, ERROR_UNAVAILABLE, "SoftHSM's tokens folder: %s", strerror(errno));
    }
    int mended = 0;
    const struct dirent *entry;
    while (mended >= 0 && (entry = readdir(list)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        int step = mend_one(folder, entry->d_name, err);
        if (step < 0) {
            mended = -1;
        } else if (step > 0) {
            mended++;
            snprintf(notice, size,
                     "SoftHSM token %s: a crash had emptied its " OBJECT
                     "; put back from the copy made at provisioning",
                     entry->d_name);
        }
    }
    closedir(list);
    return mended;
}

// Whether a token's folder, named by a UUID, is that of the serial number: its last digits.
static bool is_folder_of(const char *name, const char *serial)
{
    char digits[64];
    size_t count = 0;
    for (; *name != '\0' && count < sizeof(digits) - 1; name++)
        if (*name != '-')
            digits[count++] = *name;
    digits[count] = '\0';
    size_t length = strlen(serial);
    return length > 0 && count > length && strcmp(digits + count - length, serial) == 0;
}

// Opens the folder of the token with this serial number. Returns -1 when there is none.
static int open_token_folder(const char *serial)
{
    int folder = softhsm_folder_open();
    DIR *list = folder < 0 ? NULL : fdopendir(folder);
    if (list == NULL) {
        if (folder >= 0)
            close(folder);
        return -1;
    }
    int token = -1;
    const struct dirent *entry;
    while (token < 0 && (entry = readdir(list)) != NULL)
        if (is_folder_of(entry->d_name, serial))
            token = openat(folder, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    closedir(list);
    return token;
}

int softhsm_lock(const char *serial, int timeout_ms, int *lock, struct error *err)
{
    *lock = open_token_folder(serial);
    if (*lock < 0)
        return 0;
    const struct timespec pause = {.tv_nsec = LOCK_STEP_MS * 1000000L};
    for (int waited = 0; flock(*lock, LOCK_EX | LOCK_NB) != 0; waited += LOCK_STEP_MS) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= timeout_ms) {
            close(*lock);
            *lock = -1;
            return error_set(
                err, ERROR_UNAVAILABLE,
                "another keeper uses the SoftHSM token %s, and two would destroy it: end "
                "that one first",
                serial);
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}
