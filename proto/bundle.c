// SPDX-License-Identifier: Apache-2.0
// The text of a key bundle: written from a record, and read strictly.
#include "bundle.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

#define BASE64_SIZE sodium_base64_ENCODED_LEN(RECORD_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)
#define PORT_SIZE   12

void bundle_from_record(struct bundle *bundle, const struct record *record)
{
    memset(bundle, 0, sizeof(*bundle));
    memcpy(bundle->host, record->host, sizeof(bundle->host));
    memcpy(bundle->key, record->key, sizeof(bundle->key));
    bundle->generation = record->generation;
    bundle->state = record->bundle_state;
    memcpy(bundle->public_key, record->public_key, sizeof(bundle->public_key));
    memcpy(bundle->receive_key, record->receive_key, sizeof(bundle->receive_key));
    memcpy(bundle->address, record->address, sizeof(bundle->address));
    bundle->port = record->port;
    bundle->peers = record->count;
    bundle->not_before_us = record->not_before_us;
    bundle->not_after_us = record->not_after_us;
    memcpy(bundle->previous, record->previous, sizeof(bundle->previous));
}

// ---- writing ----

static const char *or_dash(const char *text)
{
    return text[0] != '\0' ? text : "-";
}

static const char *base64(const uint8_t key[RECORD_KEY_SIZE], char text[BASE64_SIZE])
{
    return sodium_bin2base64(text, BASE64_SIZE, key, RECORD_KEY_SIZE,
                             sodium_base64_VARIANT_ORIGINAL);
}

int bundle_format(const struct bundle *bundle, char text[BUNDLE_TEXT_MAX])
{
    char public_key[BASE64_SIZE], receive_key[BASE64_SIZE] = "-", port[PORT_SIZE] = "-";
    char not_before[RECORD_TIME_SIZE], not_after[RECORD_TIME_SIZE];
    const char *state = record_bundle_state_name(bundle->state);
    if (record_time_format(bundle->not_before_us, not_before) != 0 ||
        record_time_format(bundle->not_after_us, not_after) != 0)
        return -1;
    if (!sodium_is_zero(bundle->receive_key, RECORD_KEY_SIZE))
        base64(bundle->receive_key, receive_key);
    if (bundle->port != 0)
        snprintf(port, sizeof(port), "%" PRIu32, bundle->port);
    return snprintf(text, BUNDLE_TEXT_MAX,
                    "custody bundle v1\n"
                    "host %s\n"
                    "key %s\n"
                    "generation %" PRIu64 "\n"
                    "state %s\n"
                    "public-key %s\n"
                    "receive-key %s\n"
                    "address %s\n"
                    "port %s\n"
                    "peers %" PRIu64 "\n"
                    "not-before %s\n"
                    "not-after %s\n"
                    "previous %s\n",
                    bundle->host, bundle->key, bundle->generation, state != NULL ? state : "-",
                    base64(bundle->public_key, public_key), receive_key, or_dash(bundle->address),
                    port, bundle->peers, not_before, not_after, or_dash(bundle->previous));
}

void bundle_digest(const struct bundle *bundle, char sha256[65])
{
    char text[BUNDLE_TEXT_MAX];
    uint8_t digest[crypto_hash_sha256_BYTES];
    int length = bundle_format(bundle, text);
    memset(sha256, 0, 65);
    if (length < 0)
        return;
    crypto_hash_sha256(digest, (const uint8_t *)text, (size_t)length);
    sodium_bin2hex(sha256, 65, digest, sizeof(digest));
}

// ---- reading ----

static bool take_time(struct lines *lines, const char *name, int64_t *time_us)
{
    struct line value;
    return lines_take(lines, name, &value) &&
           record_time_parse(value.text, value.length, time_us) == 0;
}

static bool take_public_key(struct lines *lines, uint8_t key[RECORD_KEY_SIZE])
{
    struct line value;
    return lines_take(lines, "public-key ", &value) && line_base64(&value, key, RECORD_KEY_SIZE) &&
           !sodium_is_zero(key, RECORD_KEY_SIZE);
}

static bool take_receive_key(struct lines *lines, uint8_t key[RECORD_KEY_SIZE])
{
    struct line value;
    if (!lines_take(lines, "receive-key ", &value))
        return false;
    return line_is_dash(&value) ||
           (line_base64(&value, key, RECORD_KEY_SIZE) && !sodium_is_zero(key, RECORD_KEY_SIZE));
}

// As inet_ntop writes it, so that an address has one text.
static bool is_address(const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    char again[INET6_ADDRSTRLEN];
    for (int family = AF_INET;; family = AF_INET6) {
        if (inet_pton(family, text, bytes) == 1)
            return inet_ntop(family, bytes, again, sizeof(again)) != NULL &&
                   strcmp(text, again) == 0;
        if (family == AF_INET6)
            return false;
    }
}

// The line, "" for a dash.
static bool take_address(struct lines *lines, char address[RECORD_ADDRESS_MAX + 1])
{
    if (!lines_take_text(lines, "address ", address, RECORD_ADDRESS_MAX + 1))
        return false;
    if (strcmp(address, "-") != 0)
        return is_address(address);
    memset(address, 0, RECORD_ADDRESS_MAX + 1);
    return true;
}

static bool take_port(struct lines *lines, bool wanted, uint32_t *port)
{
    struct line value;
    uint64_t number = 0;
    if (!lines_take(lines, "port ", &value))
        return false;
    if (!wanted)
        return line_is_dash(&value);
    if (!line_decimal(&value, &number) || number == 0 || number > UINT16_MAX)
        return false;
    *port = (uint32_t)number;
    return true;
}

static bool take_state(struct lines *lines, uint32_t *state)
{
    char name[16];
    if (!lines_take_text(lines, "state ", name, sizeof(name)))
        return false;
    *state = record_bundle_state_from_name(name);
    return *state != BUNDLE_NONE;
}

static bool take_previous(struct lines *lines, char previous[65])
{
    struct line value;
    return lines_take(lines, "previous ", &value) &&
           (line_is_dash(&value) || line_hex(&value, previous, 64));
}

static const char *parse_name(struct bundle *bundle, struct lines *lines)
{
    struct line value;
    if (!lines_take(lines, "custody bundle v1", &value) || value.length != 0)
        return "custody bundle v1";
    if (!lines_take_text(lines, "host ", bundle->host, sizeof(bundle->host)) ||
        !name_is_host(bundle->host))
        return "host";
    if (!lines_take_text(lines, "key ", bundle->key, sizeof(bundle->key)) ||
        !name_is_key(bundle->key))
        return "key";
    if (!lines_take(lines, "generation ", &value) || !line_decimal(&value, &bundle->generation) ||
        bundle->generation == 0)
        return "generation";
    return take_state(lines, &bundle->state) ? NULL : "state";
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct bundle *bundle, struct lines *lines)
{
    struct line value;
    const char *wrong = parse_name(bundle, lines);
    if (wrong != NULL)
        return wrong;
    if (!take_public_key(lines, bundle->public_key))
        return "public-key";
    if (!take_receive_key(lines, bundle->receive_key))
        return "receive-key";
    if (!take_address(lines, bundle->address))
        return "address";
    if (!take_port(lines, bundle->address[0] != '\0', &bundle->port))
        return "port";
    if (!lines_take(lines, "peers ", &value) || !line_decimal(&value, &bundle->peers))
        return "peers";
    if (!take_time(lines, "not-before ", &bundle->not_before_us))
        return "not-before";
    if (!take_time(lines, "not-after ", &bundle->not_after_us) ||
        bundle->not_after_us <= bundle->not_before_us)
        return "not-after";
    return take_previous(lines, bundle->previous) ? NULL : "previous";
}

int bundle_parse(struct bundle *bundle, const char *text, size_t length, struct error *err)
{
    memset(bundle, 0, sizeof(*bundle));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(bundle, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the bundle's line \"%s\" is missing, out of place or wrong", wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the bundle has more lines than it should");
    return 0;
}

int bundle_check(const struct bundle *bundle, struct error *err)
{
    char text[BUNDLE_TEXT_MAX];
    struct bundle read;
    int length = bundle_format(bundle, text);
    if (length < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the bundle's times are out of range");
    return bundle_parse(&read, text, (size_t)length, err);
}
