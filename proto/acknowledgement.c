// SPDX-License-Identifier: Apache-2.0
// The text of an acknowledgement: written from a record, and read strictly.
#include "acknowledgement.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

#define BASE64_SIZE sodium_base64_ENCODED_LEN(RECORD_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)

void acknowledgement_from_record(struct acknowledgement *ack, const struct record *record)
{
    memset(ack, 0, sizeof(*ack));
    memcpy(ack->host, record->host, sizeof(ack->host));
    memcpy(ack->key, record->key, sizeof(ack->key));
    memcpy(ack->peer, record->peer, sizeof(ack->peer));
    memcpy(ack->peer_key, record->peer_key, sizeof(ack->peer_key));
    ack->generation = record->peer_generation;
    memcpy(ack->public_key, record->peer_public_key, sizeof(ack->public_key));
    ack->state = record->event == RECORD_PEER_STAGED    ? PEER_STAGED
                 : record->event == RECORD_PEER_RETIRED ? PEER_RETIRED
                                                        : PEER_NONE;
    memcpy(ack->move_sha256, record->move_sha256, sizeof(ack->move_sha256));
    ack->time_us = record->time_us;
}

int acknowledgement_format(const struct acknowledgement *ack, char text[ACKNOWLEDGEMENT_TEXT_MAX])
{
    char public_key[BASE64_SIZE], time[RECORD_TIME_SIZE];
    const char *state = record_peer_state_name(ack->state);
    if (record_time_format(ack->time_us, time) != 0)
        return -1;
    sodium_bin2base64(public_key, sizeof(public_key), ack->public_key, sizeof(ack->public_key),
                      sodium_base64_VARIANT_ORIGINAL);
    return snprintf(text, ACKNOWLEDGEMENT_TEXT_MAX,
                    "custody acknowledgement v1\n"
                    "host %s\n"
                    "key %s\n"
                    "peer %s\n"
                    "peer-key %s\n"
                    "generation %" PRIu64 "\n"
                    "public-key %s\n"
                    "state %s\n"
                    "move-sha256 %s\n"
                    "time %s\n",
                    ack->host, ack->key, ack->peer, ack->peer_key, ack->generation, public_key,
                    state != NULL ? state : "-",
                    ack->move_sha256[0] != '\0' ? ack->move_sha256 : "-", time);
}

static bool take_host(struct lines *lines, const char *name, char host[HOST_MAX + 1])
{
    return lines_take_text(lines, name, host, HOST_MAX + 1) && name_is_host(host);
}

static bool take_key(struct lines *lines, const char *name, char key[KEY_MAX + 1])
{
    return lines_take_text(lines, name, key, KEY_MAX + 1) && name_is_key(key);
}

static const char *parse_names(struct acknowledgement *ack, struct lines *lines)
{
    struct line value;
    if (!lines_take(lines, "custody acknowledgement v1", &value) || value.length != 0)
        return "custody acknowledgement v1";
    if (!take_host(lines, "host ", ack->host))
        return "host";
    if (!take_key(lines, "key ", ack->key))
        return "key";
    if (!take_host(lines, "peer ", ack->peer))
        return "peer";
    return take_key(lines, "peer-key ", ack->peer_key) ? NULL : "peer-key";
}

static bool take_state(struct lines *lines, uint32_t *state)
{
    char name[16];
    if (!lines_take_text(lines, "state ", name, sizeof(name)))
        return false;
    *state = record_peer_state_from_name(name);
    return *state == PEER_STAGED || *state == PEER_RETIRED;
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct acknowledgement *ack, struct lines *lines)
{
    struct line value;
    const char *wrong = parse_names(ack, lines);
    if (wrong != NULL)
        return wrong;
    if (!lines_take(lines, "generation ", &value) || !line_decimal(&value, &ack->generation) ||
        ack->generation == 0)
        return "generation";
    if (!lines_take(lines, "public-key ", &value) ||
        !line_base64(&value, ack->public_key, sizeof(ack->public_key)) ||
        sodium_is_zero(ack->public_key, sizeof(ack->public_key)))
        return "public-key";
    if (!take_state(lines, &ack->state))
        return "state";
    if (!lines_take(lines, "move-sha256 ", &value) ||
        !(ack->state == PEER_RETIRED ? line_is_dash(&value)
                                     : line_hex(&value, ack->move_sha256, 64)))
        return "move-sha256";
    return lines_take(lines, "time ", &value) &&
                   record_time_parse(value.text, value.length, &ack->time_us) == 0
               ? NULL
               : "time";
}

int acknowledgement_parse(struct acknowledgement *ack, const char *text, size_t length,
                          struct error *err)
{
    memset(ack, 0, sizeof(*ack));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(ack, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the acknowledgement's line \"%s\" is missing, out of place or wrong",
                         wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the acknowledgement has more lines than it should");
    return 0;
}

int acknowledgement_check(const struct acknowledgement *ack, struct error *err)
{
    char text[ACKNOWLEDGEMENT_TEXT_MAX];
    struct acknowledgement read;
    int length = acknowledgement_format(ack, text);
    if (length < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the acknowledgement's time is out of range");
    return acknowledgement_parse(&read, text, (size_t)length, err);
}
