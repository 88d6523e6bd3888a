// SPDX-License-Identifier: Apache-2.0
// Reads and writes WireGuard's userspace protocol: lines "name=value", ended by an empty line.
#include "uapi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#define UAPI_LINE_MAX 255 // bytes; the longest line that makes sense is a key's in hex

#define STACK_OF_SCALAR_MULTIPLICATION                                                             \
    8192 // bytes to wipe after it: libsodium leaves the scalar's digits there

struct uapi_answer {
    char line[UAPI_LINE_MAX + 1];
    size_t length; // of the line so far
    uint8_t private_key[DEVICE_KEY_SIZE];
    int error; // the device's errno=; -1 before it was told
    bool in_peers, has_private_key, ended;
    uapi_line *hook; // may be NULL
    void *context;
};

size_t uapi_set_private_key(char request[UAPI_SET_SIZE], const uint8_t private_key[DEVICE_KEY_SIZE])
{
    static const char head[] = "set=1\nprivate_key=";
    size_t length = sizeof head - 1;
    memcpy(request, head, length);
    sodium_bin2hex(request + length, 2 * DEVICE_KEY_SIZE + 1, private_key, DEVICE_KEY_SIZE);
    length += 2 * DEVICE_KEY_SIZE;
    memcpy(request + length, "\n\n", 3);
    return length + 2;
}

struct uapi_answer *uapi_answer_new(void)
{
    // Rounded up: sodium_malloc ends its blocks at a page's end, so an odd size would lie
    // unaligned.
    struct uapi_answer *answer = sodium_malloc((sizeof *answer + 63) & ~(size_t)63);
    if (answer != NULL)
        uapi_answer_clear(answer);
    return answer;
}

void uapi_answer_clear(struct uapi_answer *answer)
{
    sodium_memzero(answer, sizeof *answer);
    answer->error = -1;
}

void uapi_answer_tell(struct uapi_answer *answer, uapi_line *hook, void *context)
{
    answer->hook = hook;
    answer->context = context;
}

void uapi_answer_free(struct uapi_answer *answer)
{
    sodium_free(answer);
}

static int take_private_key(struct uapi_answer *answer, const char *hex, struct error *err)
{
    size_t length = 0;
    if (answer->in_peers || answer->has_private_key)
        return error_set(err, ERROR_DATA_LOSS, "UAPI: a private key where none belongs");
    if (strlen(hex) != 2 * DEVICE_KEY_SIZE ||
        sodium_hex2bin(answer->private_key, DEVICE_KEY_SIZE, hex, 2 * DEVICE_KEY_SIZE, NULL,
                       &length, NULL) != 0 ||
        length != DEVICE_KEY_SIZE)
        return error_set(err, ERROR_DATA_LOSS, "UAPI: a private key that is not %d hex digits",
                         2 * DEVICE_KEY_SIZE);
    answer->has_private_key = true;
    return 0;
}

static int take_errno(struct uapi_answer *answer, const char *text, struct error *err)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    // wireguard-go answers negated values, wireguard's other daemons positive ones.
    if (end == text || *end != '\0' || errno != 0 || value < -4095 || value > 4095)
        return error_set(err, ERROR_DATA_LOSS, "UAPI: an errno that is no number");
    answer->error = (int)labs(value);
    return 0;
}

// One whole line, in answer->line, NUL-terminated; an empty one ends the answer. Messages never
// show the line itself.
static int take_line(struct uapi_answer *answer, struct error *err)
{
    char *value = strchr(answer->line, '=');
    if (answer->length == 0) {
        if (answer->error < 0)
            return error_set(err, ERROR_DATA_LOSS, "UAPI: an answer without errno");
        answer->ended = true;
        return 0;
    }
    if (value == NULL || strlen(answer->line) != answer->length)
        return error_set(err, ERROR_DATA_LOSS, "UAPI: a line that is not NAME=VALUE");
    *value++ = '\0';
    if (strcmp(answer->line, "private_key") == 0)
        return take_private_key(answer, value, err);
    if (strcmp(answer->line, "errno") == 0)
        return take_errno(answer, value, err);
    if (strcmp(answer->line, "public_key") == 0)
        answer->in_peers = true;
    return answer->hook == NULL ? 0 : answer->hook(answer->line, value, answer->context, err);
}

int uapi_answer_take(struct uapi_answer *answer, const char *bytes, size_t length,
                     struct error *err)
{
    for (size_t i = 0; i < length; i++) {
        if (answer->ended)
            return error_set(err, ERROR_DATA_LOSS, "UAPI: more after the end of an answer");
        if (bytes[i] != '\n') {
            if (answer->length >= UAPI_LINE_MAX)
                return error_set(err, ERROR_DATA_LOSS, "UAPI: a line of more than %d bytes",
                                 UAPI_LINE_MAX);
            answer->line[answer->length++] = bytes[i];
            continue;
        }
        answer->line[answer->length] = '\0';
        int rc = take_line(answer, err);
        sodium_memzero(answer->line, sizeof answer->line);
        answer->length = 0;
        if (rc != 0)
            return -1;
    }
    return answer->ended ? 1 : 0;
}

int uapi_answer_errno(const struct uapi_answer *answer)
{
    return answer->error;
}

int uapi_answer_public_key(const struct uapi_answer *answer, uint8_t public_key[DEVICE_KEY_SIZE],
                           struct error *err)
{
    memset(public_key, 0, DEVICE_KEY_SIZE);
    if (!answer->has_private_key || sodium_is_zero(answer->private_key, DEVICE_KEY_SIZE))
        return 0;
    int rc = crypto_scalarmult_base(public_key, answer->private_key);
    sodium_stackzero(STACK_OF_SCALAR_MULTIPLICATION);
    return rc == 0 ? 0
                   : error_set(err, ERROR_DATA_LOSS, "UAPI: a private key without a public one");
}

void uapi_answer_private_key(const struct uapi_answer *answer, uint8_t *private_key)
{
    if (answer->has_private_key)
        memcpy(private_key, answer->private_key, DEVICE_KEY_SIZE);
    else
        memset(private_key, 0, DEVICE_KEY_SIZE);
}
