// SPDX-License-Identifier: Apache-2.0
// Signed notes (c2sp.org/signed-note): keys, what is signed, and checking what others send.
#include "note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

#define ED25519  0x01            // the signature type's identifier byte
#define ID_SIZE  4               // bytes of a key id
#define DASH     "\xe2\x80\x94 " // an em dash and a space begin a signature line
#define KEY_SIZE 32
#define BASE64_MAX                                                                                 \
    sodium_base64_ENCODED_LEN(ID_SIZE + NOTE_SIGNATURE_SIZE, sodium_base64_VARIANT_ORIGINAL)

// Decodes the character at `*at` of valid UTF-8 and moves on.
static uint32_t next_character(const unsigned char **at)
{
    uint32_t c = *(*at)++;
    if (c < 0x80)
        return c;
    unsigned more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    c &= 0x3fu >> more;
    while (more-- > 0)
        c = c << 6 | (*(*at)++ & 0x3fu);
    return c;
}

// Unicode's White_Space property, beyond what a control character already is.
static bool is_space(uint32_t c)
{
    return c == ' ' || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0);
}

static bool is_name(const char *name, size_t length)
{
    if (length == 0 || length > NOTE_NAME_MAX || !name_is_utf8(name, length))
        return false;
    const unsigned char *at = (const unsigned char *)name;
    const unsigned char *end = at + length;
    while (at < end) {
        uint32_t c = next_character(&at);
        if (c == '+' || is_space(c) || is_control(c))
            return false;
    }
    return true;
}

// The key id that the specification recommends and Go's sumdb/note requires.
static uint32_t key_id(const char *name, const uint8_t public_key[KEY_SIZE])
{
    static const uint8_t separator[2] = {'\n', ED25519};
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, (const uint8_t *)name, strlen(name));
    crypto_hash_sha256_update(&state, separator, sizeof(separator));
    crypto_hash_sha256_update(&state, public_key, KEY_SIZE);
    crypto_hash_sha256_final(&state, hash);
    return (uint32_t)hash[0] << 24 | (uint32_t)hash[1] << 16 | (uint32_t)hash[2] << 8 | hash[3];
}

static int make_key(struct note_key *key, const char *name, size_t length,
                    const uint8_t public_key[KEY_SIZE], struct error *err)
{
    if (!is_name(name, length))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a key's name must be 1 to %d bytes of UTF-8 without spaces, control "
                         "characters and '+'",
                         NOTE_NAME_MAX);
    memset(key, 0, sizeof(*key));
    memcpy(key->name, name, length);
    memcpy(key->public_key, public_key, KEY_SIZE);
    key->id = key_id(key->name, public_key);
    return 0;
}

int note_key_make(struct note_key *key, const char *name, const uint8_t public_key[32],
                  struct error *err)
{
    return make_key(key, name, strnlen(name, NOTE_NAME_MAX + 1), public_key, err);
}

static bool is_padding(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// Eight lower-case hex digits.
static bool parse_id(const struct line *hex, uint32_t *id)
{
    if (hex->length != 2 * ID_SIZE)
        return false;
    *id = 0;
    for (size_t i = 0; i < hex->length; i++) {
        char c = hex->text[i];
        if (c >= '0' && c <= '9')
            *id = *id << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            *id = *id << 4 | (uint32_t)(c - 'a' + 10);
        else
            return false;
    }
    return true;
}

// Cuts the part before the first `separator` off `rest` into `part`.
static bool cut(struct line *rest, char separator, struct line *part)
{
    const char *at = rest->length == 0 ? NULL : memchr(rest->text, separator, rest->length);
    if (at == NULL)
        return false;
    part->text = rest->text;
    part->length = (size_t)(at - rest->text);
    rest->text = at + 1;
    rest->length -= part->length + 1;
    return true;
}

static int parse_key(struct note_key *key, struct line rest, struct error *err)
{
    struct line name;
    struct line hex;
    uint32_t id = 0;
    uint8_t encoded[1 + KEY_SIZE];
    if (!cut(&rest, '+', &name) || !cut(&rest, '+', &hex) || !parse_id(&hex, &id) ||
        !line_base64(&rest, encoded, sizeof(encoded)))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "this is not a verifier key: it must read NAME+ID+BASE64, ID being 8 "
                         "lower-case hex digits and BASE64 a type byte and 32 bytes");
    if (encoded[0] != ED25519)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the verifier key is of type %u: custody knows Ed25519 (type 1) only",
                         encoded[0]);
    if (make_key(key, name.text, name.length, encoded + 1, err) != 0)
        return -1;
    if (key->id != id)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the verifier key is damaged: its id reads %08x, its name and key make "
                         "it %08x; take it again from where it was published",
                         id, key->id);
    return 0;
}

int note_key_parse(struct note_key *key, const char *vkey, struct error *err)
{
    struct line line = {.text = vkey, .length = strlen(vkey)};
    while (line.length > 0 && is_padding(line.text[0])) {
        line.text++;
        line.length--;
    }
    while (line.length > 0 && is_padding(line.text[line.length - 1]))
        line.length--;
    return parse_key(key, line, err);
}

// Reads the start of a regular file: anything else could make us wait for ever.
static ssize_t read_start(const char *path, char *text, size_t size, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, ERROR_NOT_FOUND, "%s: %s", path, strerror(errno));
    struct stat status;
    ssize_t used = -1;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s: not a regular file", path);
        goto cleanup;
    }
    do
        used = read(fd, text, size);
    while (used < 0 && errno == EINTR);
    if (used < 0)
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
cleanup:
    close(fd);
    return used;
}

int note_key_read(struct note_key *key, const char *path, struct error *err)
{
    char text[NOTE_VKEY_MAX + 1];
    ssize_t used = read_start(path, text, sizeof(text) - 1, err);
    if (used < 0)
        return -1;
    text[used] = '\0';
    char *end = strchr(text, '\n');
    if (end != NULL)
        *end = '\0';
    else if ((size_t)used == sizeof(text) - 1)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "%s: the first line is too long for a verifier key", path);
    if (note_key_parse(key, text, err) != 0)
        return error_prefix(err, "%s", path);
    return 0;
}

void note_key_format(const struct note_key *key, char vkey[NOTE_VKEY_MAX])
{
    uint8_t encoded[1 + KEY_SIZE] = {ED25519};
    memcpy(encoded + 1, key->public_key, KEY_SIZE);
    char base64[sodium_base64_ENCODED_LEN(sizeof(encoded), sodium_base64_VARIANT_ORIGINAL)];
    sodium_bin2base64(base64, sizeof(base64), encoded, sizeof(encoded),
                      sodium_base64_VARIANT_ORIGINAL);
    snprintf(vkey, NOTE_VKEY_MAX, "%s+%08x+%s", key->name, key->id, base64);
}

// Whether the bytes may stand in a note: UTF-8 without control characters but newlines.
static bool is_note_text(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 && text[i] != '\n')
            return false;
    return name_is_utf8(text, length);
}

int note_format(const char *text, const struct note_key *key,
                const uint8_t signature[NOTE_SIGNATURE_SIZE], char *note, size_t size,
                size_t *length, struct error *err)
{
    size_t text_length = strlen(text);
    if (text_length == 0 || text[text_length - 1] != '\n' || !is_note_text(text, text_length))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "a note's text must be UTF-8 lines, the last one ended by a newline");
    uint8_t signed_by[ID_SIZE + NOTE_SIGNATURE_SIZE] = {(uint8_t)(key->id >> 24),
                                                        (uint8_t)(key->id >> 16),
                                                        (uint8_t)(key->id >> 8), (uint8_t)key->id};
    memcpy(signed_by + ID_SIZE, signature, NOTE_SIGNATURE_SIZE);
    char base64[BASE64_MAX];
    sodium_bin2base64(base64, sizeof(base64), signed_by, sizeof(signed_by),
                      sodium_base64_VARIANT_ORIGINAL);
    int used = snprintf(note, size, "%s\n" DASH "%s %s\n", text, key->name, base64);
    if (used < 0 || (size_t)used >= size)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the signed note needs %d bytes and has room for %zu", used + 1, size);
    *length = (size_t)used;
    return 0;
}

// Where the signatures begin: after the last empty line. 0 when the note has none.
static size_t find_signatures(const char *note, size_t length)
{
    for (size_t i = length; i >= 2; i--)
        if (note[i - 1] == '\n' && note[i - 2] == '\n')
            return i;
    return 0;
}

// A signature line, taken apart.
struct signature {
    struct line name;
    uint32_t id;
    uint8_t bytes[NOTE_MAX]; // of the signature alone
    size_t length;
};

static bool parse_signature(struct line line, struct signature *signature)
{
    if (!line_skip(&line, DASH) || !cut(&line, ' ', &signature->name) ||
        !is_name(signature->name.text, signature->name.length))
        return false;
    uint8_t decoded[NOTE_MAX];
    size_t size = 0;
    if (!line_base64_any(&line, decoded, sizeof(decoded), &size) || size <= ID_SIZE)
        return false;
    signature->id = (uint32_t)decoded[0] << 24 | (uint32_t)decoded[1] << 16 |
                    (uint32_t)decoded[2] << 8 | decoded[3];
    signature->length = size - ID_SIZE;
    memcpy(signature->bytes, decoded + ID_SIZE, signature->length);
    return true;
}

static bool is_by(const struct signature *signature, const struct note_key *key)
{
    return signature->id == key->id && signature->name.length == strlen(key->name) &&
           memcmp(signature->name.text, key->name, signature->name.length) == 0;
}

static bool is_right(const struct signature *signature, const struct note_key *key,
                     const char *text, size_t length)
{
    return signature->length == NOTE_SIGNATURE_SIZE &&
           crypto_sign_verify_detached(signature->bytes, (const unsigned char *)text, length,
                                       key->public_key) == 0;
}

// Checks one signature line against each key; `*found` counts those that signed.
static int verify_line(struct line line, const char *text, size_t text_length,
                       const struct note_key *keys, size_t count, bool *signed_by, size_t *found,
                       struct error *err)
{
    struct signature signature;
    if (!parse_signature(line, &signature))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the note is malformed: a signature line must be an em dash, a key's "
                         "name and base64");
    for (size_t i = 0; i < count; i++) {
        if (!is_by(&signature, &keys[i]))
            continue;
        if (!is_right(&signature, &keys[i], text, text_length))
            return error_set(err, ERROR_DATA_LOSS,
                             "the signature by %s (key id %08x) is wrong: the note was altered, "
                             "or another key signed it",
                             keys[i].name, keys[i].id);
        if (signed_by != NULL)
            signed_by[i] = true;
        ++*found;
    }
    return 0;
}

// Finds the text and the signatures of a note.
static int split_note(const char *note, size_t length, size_t *text_length, struct lines *lines,
                      struct error *err)
{
    if (length >= NOTE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the note is longer than %d bytes",
                         NOTE_MAX - 1);
    size_t at = find_signatures(note, length);
    // The text's own newline precedes the empty line, so it cannot be empty itself.
    if (at == 0 || at == length || note[length - 1] != '\n')
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the note is malformed: it must be lines of text, an empty line and "
                         "signature lines");
    if (!is_note_text(note, length))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the note is malformed: it is not UTF-8 or has control characters");
    *text_length = at - 1;
    *lines = (struct lines){.next = note + at, .left = length - at};
    return 0;
}

int note_verify(const char *note, size_t length, const struct note_key *keys, size_t count,
                size_t *text_length, bool *signed_by, struct error *err)
{
    size_t text = 0;
    struct lines lines;
    if (split_note(note, length, &text, &lines, err) != 0)
        return -1;
    for (size_t i = 0; signed_by != NULL && i < count; i++)
        signed_by[i] = false;
    size_t found = 0;
    size_t signatures = 0;
    struct line line;
    while (lines_next(&lines, &line)) {
        if (++signatures > NOTE_SIGNATURES_MAX)
            return error_set(err, ERROR_INVALID_ARGUMENT, "the note has more than %d signatures",
                             NOTE_SIGNATURES_MAX);
        if (verify_line(line, note, text, keys, count, signed_by, &found, err) != 0)
            return -1;
    }
    if (found == 0)
        return error_set(err, ERROR_DATA_LOSS, "the note is not signed by %s (key id %08x)%s",
                         count > 0 ? keys[0].name : "anybody we know", count > 0 ? keys[0].id : 0,
                         count > 1 ? " nor by another key that is known" : "");
    *text_length = text;
    return 0;
}
