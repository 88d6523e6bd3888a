// SPDX-License-Identifier: Apache-2.0
// A state as text and back.
#include "snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "merkle.h"

#define FIRST_LINE  "custody state v1"
#define FIELDS_MAX  12 // of a line
#define BASE64_SIZE sodium_base64_ENCODED_LEN(32, sodium_base64_VARIANT_ORIGINAL)

void snapshot_name(uint64_t next, char name[SNAPSHOT_NAME_SIZE])
{
    snprintf(name, SNAPSHOT_NAME_SIZE, "%012" PRIu64 ".snapshot", next);
}

// ---- formatting ----

static const char *or_dash(const char *text)
{
    return text[0] != '\0' ? text : "-";
}

static const char *time_text(int64_t time_us, char text[RECORD_TIME_SIZE])
{
    return time_us == 0 || record_time_format(time_us, text) != 0 ? "-" : text;
}

static const char *base64_text(const uint8_t bytes[32], char text[BASE64_SIZE])
{
    if (sodium_is_zero(bytes, 32))
        return "-";
    return sodium_bin2base64(text, BASE64_SIZE, bytes, 32, sodium_base64_VARIANT_ORIGINAL);
}

static void format_head(FILE *out, const struct state *state)
{
    char time[RECORD_TIME_SIZE];
    fprintf(out, FIRST_LINE "\nsize %" PRIu64 "\ntime %s\nhost %s\nlog-vkey %s\nhost-vkey %s\n",
            state_size(state), time_text(state_time_us(state), time), or_dash(state_host(state)),
            or_dash(state_log_vkey(state)), or_dash(state_host_vkey(state)));
}

static void format_key(FILE *out, const struct state_key *key)
{
    char generated[RECORD_TIME_SIZE], activated[RECORD_TIME_SIZE], deactivated[RECORD_TIME_SIZE];
    char released[RECORD_TIME_SIZE], public_key[BASE64_SIZE];
    const char *purpose = record_purpose_name(key->purpose);
    fprintf(out, "key %s %" PRIu64 " %s %s %s %s %s %s %" PRIu64 " %s\n", key->name,
            key->generation, lifecycle_state_name(key->state), purpose != NULL ? purpose : "-",
            base64_text(key->public_key, public_key), time_text(key->generated_us, generated),
            time_text(key->activated_us, activated), time_text(key->deactivated_us, deactivated),
            key->releases, time_text(key->released_us, released));
}

static void format_rotation(FILE *out, const struct rotation *rotation)
{
    char started[RECORD_TIME_SIZE], ended[RECORD_TIME_SIZE], suspended[RECORD_TIME_SIZE];
    const char *reason = record_reason_name(rotation->reason);
    const char *bundle_state = record_bundle_state_name(rotation->bundle_state);
    fprintf(out,
            "rotation %s %" PRIu64 " %s %s %s %" PRIu32 " %" PRIu64 " %s %" PRIu64 " %s %s %s\n",
            rotation->key, rotation->generation, reason != NULL ? reason : "-",
            time_text(rotation->started_us, started), time_text(rotation->ended_us, ended),
            rotation->failures, rotation->confirmed, time_text(rotation->suspended_us, suspended),
            rotation->bundle_generation, bundle_state != NULL ? bundle_state : "-",
            or_dash(rotation->bundle_sha256), or_dash(rotation->ticket));
}

static void format_peer(FILE *out, const struct peer *peer)
{
    char staged[RECORD_TIME_SIZE], moved[RECORD_TIME_SIZE], retired[RECORD_TIME_SIZE];
    char public_key[BASE64_SIZE];
    fprintf(out, "peer %s %s %s %" PRIu64 " %s %s %s %s %s\n", peer->key, peer->host,
            peer->peer_key, peer->generation, record_peer_state_name(peer->state),
            base64_text(peer->public_key, public_key), time_text(peer->staged_us, staged),
            time_text(peer->moved_us, moved), time_text(peer->retired_us, retired));
}

static void format_psk(FILE *out, const struct psk *psk)
{
    char made[RECORD_TIME_SIZE], received[RECORD_TIME_SIZE], set[RECORD_TIME_SIZE];
    fprintf(out, "psk %s %s %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %s %s\n",
            psk->key, psk->host, psk->peer_key, psk->made, psk->received, psk->set, psk->destroyed,
            time_text(psk->made_us, made), time_text(psk->received_us, received),
            time_text(psk->set_us, set));
}

static void format_lease(FILE *out, const struct state_lease *lease)
{
    char expires[RECORD_TIME_SIZE];
    fprintf(out, "lease %s %s %" PRIu64 " %" PRIu64 " %s %u %u\n", lease->lease, lease->key,
            lease->generation, lease->seq, time_text(lease->expires_us, expires), lease->uid,
            lease->pid);
}

static void format_request(FILE *out, const struct request *request)
{
    char requested[RECORD_TIME_SIZE], expires[RECORD_TIME_SIZE];
    char old_root[BASE64_SIZE], new_root[BASE64_SIZE];
    fprintf(out, "request %s %s %s %" PRIu64 " %u %s %s %" PRIu64 " %s %" PRIu64 " %s\n",
            request->id, record_operation_name(request->operation), or_dash(request->key),
            request->generation, request->uid, time_text(request->requested_us, requested),
            time_text(request->expires_us, expires), request->old_size,
            base64_text(request->old_root, old_root), request->new_size,
            base64_text(request->new_root, new_root));
    for (size_t i = 0; i < request->approval_count; i++) {
        const struct request_approval *approval = &request->approvals[i];
        fprintf(out, "approval %s %u %s\n", or_dash(approval->key_sha256), approval->uid,
                approval->operator_name);
    }
}

char *snapshot_format(const struct state *state, size_t *length, struct error *err)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (out == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a snapshot");
        return NULL;
    }
    format_head(out, state);
    for (size_t i = 0; i < state_keys(state); i++)
        format_key(out, state_key_at(state, i));
    for (size_t i = 0; i < state_rotations(state)->count; i++)
        format_rotation(out, &state_rotations(state)->items[i]);
    for (size_t i = 0; i < state_peers(state)->count; i++)
        format_peer(out, &state_peers(state)->items[i]);
    for (size_t i = 0; i < state_psks(state)->count; i++)
        format_psk(out, &state_psks(state)->items[i]);
    for (const struct state_lease *lease = state_lease_first(state); lease != NULL;
         lease = state_lease_next(lease))
        format_lease(out, lease);
    for (size_t i = 0; i < state_requests(state)->count; i++)
        format_request(out, &state_requests(state)->items[i]);
    int failed = ferror(out);
    if (fclose(out) == 0 && !failed)
        return text;
    free(text);
    error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a snapshot");
    return NULL;
}

int snapshot_digest(const struct state *state, char sha256[65], struct error *err)
{
    size_t length;
    uint8_t digest[crypto_hash_sha256_BYTES];
    char *text = snapshot_format(state, &length, err);
    if (text == NULL)
        return -1;
    crypto_hash_sha256(digest, (const uint8_t *)text, length);
    sodium_bin2hex(sha256, 65, digest, sizeof(digest));
    free(text);
    return 0;
}

// ---- parsing ----

// A line cut at its blanks.
struct fields {
    size_t count;
    struct line items[FIELDS_MAX];
};

static bool split(struct line line, size_t want, struct fields *fields)
{
    fields->count = 0;
    while (fields->count < want) {
        struct line *field = &fields->items[fields->count++];
        const char *blank = fields->count < want ? memchr(line.text, ' ', line.length) : NULL;
        *field = line;
        if (blank == NULL)
            break;
        field->length = (size_t)(blank - line.text);
        line.length -= field->length + 1;
        line.text = blank + 1;
    }
    return fields->count == want;
}

// "" for a dash; line_text takes it as it stands.
static bool text_field(const struct line *field, char *text, size_t size)
{
    const struct line empty = {.text = field->text, .length = 0};
    return line_text(line_is_dash(field) ? &empty : field, text, size);
}

static bool hex_field(const struct line *field, char text[65])
{
    return line_is_dash(field) ? text_field(field, text, 65) : line_hex(field, text, 64);
}

static bool u32_field(const struct line *field, uint32_t *value)
{
    uint64_t wide;
    if (!line_decimal(field, &wide) || wide > UINT32_MAX)
        return false;
    *value = (uint32_t)wide;
    return true;
}

static bool time_field(const struct line *field, int64_t *time_us)
{
    *time_us = 0;
    return line_is_dash(field) || record_time_parse(field->text, field->length, time_us) == 0;
}

static bool base64_field(const struct line *field, uint8_t bytes[32])
{
    memset(bytes, 0, 32);
    return line_is_dash(field) || line_base64(field, bytes, 32);
}

static bool parse_key(const struct fields *f, struct state_key *key)
{
    char name[64];
    memset(key, 0, sizeof(*key));
    if (!text_field(&f->items[0], key->name, sizeof(key->name)) || !name_is_key(key->name) ||
        !line_decimal(&f->items[1], &key->generation) || key->generation == 0 ||
        !text_field(&f->items[2], name, sizeof(name)))
        return false;
    key->state = lifecycle_state_from_name(name);
    if (key->state == KEY_NONE || !text_field(&f->items[3], name, sizeof(name)))
        return false;
    key->purpose = record_purpose_from_name(name);
    return base64_field(&f->items[4], key->public_key) &&
           time_field(&f->items[5], &key->generated_us) &&
           time_field(&f->items[6], &key->activated_us) &&
           time_field(&f->items[7], &key->deactivated_us) &&
           line_decimal(&f->items[8], &key->releases) &&
           time_field(&f->items[9], &key->released_us);
}

static bool parse_rotation(const struct fields *f, struct rotation *rotation)
{
    char name[64];
    memset(rotation, 0, sizeof(*rotation));
    if (!text_field(&f->items[0], rotation->key, sizeof(rotation->key)) ||
        !line_decimal(&f->items[1], &rotation->generation) ||
        !text_field(&f->items[2], name, sizeof(name)))
        return false;
    rotation->reason = record_reason_from_name(name);
    if (!time_field(&f->items[3], &rotation->started_us) ||
        !time_field(&f->items[4], &rotation->ended_us) ||
        !u32_field(&f->items[5], &rotation->failures) ||
        !line_decimal(&f->items[6], &rotation->confirmed) ||
        !time_field(&f->items[7], &rotation->suspended_us) ||
        !line_decimal(&f->items[8], &rotation->bundle_generation) ||
        !text_field(&f->items[9], name, sizeof(name)))
        return false;
    rotation->bundle_state = record_bundle_state_from_name(name);
    return hex_field(&f->items[10], rotation->bundle_sha256) &&
           text_field(&f->items[11], rotation->ticket, sizeof(rotation->ticket));
}

static bool parse_peer(const struct fields *f, struct peer *peer)
{
    char name[64];
    memset(peer, 0, sizeof(*peer));
    if (!text_field(&f->items[0], peer->key, sizeof(peer->key)) || !name_is_key(peer->key) ||
        !text_field(&f->items[1], peer->host, sizeof(peer->host)) || !name_is_host(peer->host) ||
        !text_field(&f->items[2], peer->peer_key, sizeof(peer->peer_key)) ||
        !name_is_key(peer->peer_key) || !line_decimal(&f->items[3], &peer->generation) ||
        peer->generation == 0 || !text_field(&f->items[4], name, sizeof(name)))
        return false;
    peer->state = record_peer_state_from_name(name);
    return peer->state != PEER_NONE && base64_field(&f->items[5], peer->public_key) &&
           time_field(&f->items[6], &peer->staged_us) &&
           time_field(&f->items[7], &peer->moved_us) && time_field(&f->items[8], &peer->retired_us);
}

static bool parse_psk(const struct fields *f, struct psk *psk)
{
    memset(psk, 0, sizeof(*psk));
    return text_field(&f->items[0], psk->key, sizeof(psk->key)) && name_is_key(psk->key) &&
           text_field(&f->items[1], psk->host, sizeof(psk->host)) && name_is_host(psk->host) &&
           text_field(&f->items[2], psk->peer_key, sizeof(psk->peer_key)) &&
           name_is_key(psk->peer_key) && line_decimal(&f->items[3], &psk->made) &&
           line_decimal(&f->items[4], &psk->received) && line_decimal(&f->items[5], &psk->set) &&
           line_decimal(&f->items[6], &psk->destroyed) && time_field(&f->items[7], &psk->made_us) &&
           time_field(&f->items[8], &psk->received_us) && time_field(&f->items[9], &psk->set_us);
}

static bool parse_lease(const struct fields *f, struct state_lease *lease)
{
    memset(lease, 0, sizeof(*lease));
    return text_field(&f->items[0], lease->lease, sizeof(lease->lease)) &&
           text_field(&f->items[1], lease->key, sizeof(lease->key)) &&
           line_decimal(&f->items[2], &lease->generation) &&
           line_decimal(&f->items[3], &lease->seq) &&
           time_field(&f->items[4], &lease->expires_us) && u32_field(&f->items[5], &lease->uid) &&
           u32_field(&f->items[6], &lease->pid);
}

static bool parse_request(const struct fields *f, struct request *request)
{
    char name[64];
    memset(request, 0, sizeof(*request));
    if (!text_field(&f->items[0], request->id, sizeof(request->id)) ||
        !text_field(&f->items[1], name, sizeof(name)))
        return false;
    request->operation = record_operation_from_name(name);
    return request->operation != OPERATION_NONE &&
           text_field(&f->items[2], request->key, sizeof(request->key)) &&
           line_decimal(&f->items[3], &request->generation) &&
           u32_field(&f->items[4], &request->uid) &&
           time_field(&f->items[5], &request->requested_us) &&
           time_field(&f->items[6], &request->expires_us) &&
           line_decimal(&f->items[7], &request->old_size) &&
           base64_field(&f->items[8], request->old_root) &&
           line_decimal(&f->items[9], &request->new_size) &&
           base64_field(&f->items[10], request->new_root);
}

static bool parse_approval(const struct fields *f, struct request_approval *approval)
{
    memset(approval, 0, sizeof(*approval));
    return text_field(&f->items[0], approval->key_sha256, sizeof(approval->key_sha256)) &&
           u32_field(&f->items[1], &approval->uid) &&
           line_text(&f->items[2], approval->operator_name, sizeof(approval->operator_name));
}

// Takes "NAME VALUE" of the head, in its order.
static bool take_head_line(struct lines *lines, const char *name, struct line *value)
{
    return lines_next(lines, value) && line_skip(value, name) && line_skip(value, " ");
}

static bool parse_head(struct lines *lines, struct state_head *head)
{
    struct line line;
    memset(head, 0, sizeof(*head));
    return lines_next(lines, &line) && line_skip(&line, FIRST_LINE) && line.length == 0 &&
           take_head_line(lines, "size", &line) && line_decimal(&line, &head->size) &&
           take_head_line(lines, "time", &line) && time_field(&line, &head->time_us) &&
           take_head_line(lines, "host", &line) &&
           text_field(&line, head->host, sizeof(head->host)) &&
           (head->size == 0 ? head->host[0] == '\0' : name_is_host(head->host)) &&
           take_head_line(lines, "log-vkey", &line) &&
           text_field(&line, head->log_vkey, sizeof(head->log_vkey)) &&
           take_head_line(lines, "host-vkey", &line) &&
           text_field(&line, head->host_vkey, sizeof(head->host_vkey));
}

// One line after the head. What is out of place or of another form is found when the whole is
// formatted again.
static bool parse_line(struct line line, struct state *state, struct request_list *requests,
                       struct error *err)
{
    struct fields fields;
    struct state_key key;
    struct rotation rotation;
    struct peer peer;
    struct psk psk;
    struct state_lease lease;
    if (line_skip(&line, "key "))
        return split(line, 10, &fields) && parse_key(&fields, &key) &&
               state_restore_key(state, &key, err) == 0;
    if (line_skip(&line, "rotation "))
        return split(line, 12, &fields) && parse_rotation(&fields, &rotation) &&
               state_restore_rotation(state, &rotation, err) == 0;
    if (line_skip(&line, "peer "))
        return split(line, 9, &fields) && parse_peer(&fields, &peer) &&
               state_restore_peer(state, &peer, err) == 0;
    if (line_skip(&line, "psk "))
        return split(line, 10, &fields) && parse_psk(&fields, &psk) &&
               state_restore_psk(state, &psk, err) == 0;
    if (line_skip(&line, "lease "))
        return split(line, 7, &fields) && parse_lease(&fields, &lease) &&
               state_restore_lease(state, &lease, err) == 0;
    if (line_skip(&line, "request "))
        return requests->count < REQUESTS_MAX && split(line, 11, &fields) &&
               parse_request(&fields, &requests->items[requests->count]) && ++requests->count > 0;
    if (!line_skip(&line, "approval ") || requests->count == 0)
        return false;
    struct request *request = &requests->items[requests->count - 1];
    return request->approval_count < APPROVALS_MAX && split(line, 3, &fields) &&
           parse_approval(&fields, &request->approvals[request->approval_count]) &&
           ++request->approval_count > 0;
}

static int parse_lines(struct lines *lines, struct state *state, struct error *err)
{
    struct line line;
    struct state_head head;
    struct request_list *requests = calloc(1, sizeof(*requests));
    int result = -1;
    if (requests == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a snapshot");
    if (!parse_head(lines, &head)) {
        error_set(err, ERROR_INVALID_ARGUMENT,
                  "snapshot: its first lines are not those of a state");
        goto cleanup;
    }
    state_restore_head(state, &head);
    for (uint64_t number = 7; lines_next(lines, &line); number++) {
        struct error why = {.message = "malformed"};
        if (!parse_line(line, state, requests, &why)) {
            error_set(err, ERROR_INVALID_ARGUMENT, "snapshot line %" PRIu64 ": %.400s", number,
                      why.message);
            goto cleanup;
        }
    }
    result = state_restore_requests(state, requests, err);
cleanup:
    free(requests);
    return result;
}

// There is one text for a state: whatever else was parsed well is refused here.
static int check_canonical(const struct state *state, const char *text, size_t length,
                           struct error *err)
{
    size_t again_length;
    char *again = snapshot_format(state, &again_length, err);
    if (again == NULL)
        return -1;
    bool same = again_length == length && memcmp(again, text, length) == 0;
    free(again);
    return same ? 0 : error_set(err, ERROR_INVALID_ARGUMENT, "snapshot: not in its canonical form");
}

struct state *snapshot_parse(const char *text, size_t length, struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    if (length > SNAPSHOT_TEXT_MAX) {
        error_set(err, ERROR_INVALID_ARGUMENT, "snapshot of %zu bytes: too long", length);
        return NULL;
    }
    struct state *state = state_new();
    if (state == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for a snapshot");
        return NULL;
    }
    if (parse_lines(&lines, state, err) == 0 && check_canonical(state, text, length, err) == 0)
        return state;
    state_free(state);
    return NULL;
}
