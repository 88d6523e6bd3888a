// SPDX-License-Identifier: Apache-2.0
// What may be requested, approved and carried out, and in which order.
#include "request_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

static bool is_open(const struct request *request, int64_t time_us)
{
    return request->expires_us == 0 || request->expires_us >= time_us;
}

static size_t position(const struct request_list *list, const char *id)
{
    size_t i = 0;
    while (i < list->count && strcmp(list->items[i].id, id) != 0)
        i++;
    return i;
}

const struct request *request_list_find(const struct request_list *list, const char *id)
{
    size_t i = position(list, id);
    return i < list->count ? &list->items[i] : NULL;
}

static void key_digest(const struct record *given, char hex[65])
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    hex[0] = '\0';
    if (given->operator_key[0] == '\0')
        return;
    crypto_hash_sha256(digest, (const uint8_t *)given->operator_key, strlen(given->operator_key));
    sodium_bin2hex(hex, 65, digest, sizeof(digest));
}

// ---- checking ----

static int check_loss(const struct record *record, struct error *err)
{
    char id[RECORD_REQUEST_MAX + 1];
    if (record->expires_us != 0 || record->new_size != record->seq)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "a loss is requested for the log as it is at this record, %" PRIu64
                         ", and does not expire",
                         record->seq);
    if (approval_loss_id(record, id) != 0 || strcmp(id, record->request_id) != 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "request_id is not the one that follows from the two heads");
    return 0;
}

static int check_requested(const struct request_list *list, const struct record *record,
                           struct error *err)
{
    size_t open = 0;
    if (strlen(record->request_id) != RECORD_REQUEST_MAX || !record->actor.present)
        return error_set(err, ERROR_FAILED_PRECONDITION, "request_id or actor is missing");
    for (size_t i = 0; i < list->count; i++) {
        if (!is_open(&list->items[i], record->time_us))
            continue;
        open++;
        if (strcmp(list->items[i].id, record->request_id) == 0)
            return error_set(err, ERROR_FAILED_PRECONDITION, "request %s is open already",
                             record->request_id);
    }
    if (open == REQUESTS_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "%d requests wait for approval already: let some expire", REQUESTS_MAX);
    switch (record->operation) {
    case OPERATION_KEY_DESTROY:
        if (!name_is_key(record->key) || record->generation == 0 ||
            record->expires_us <= record->time_us)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "key, generation or a later expires is missing");
        return 0;
    case OPERATION_ACCEPT_LOSS:
        return check_loss(record, err);
    default:
        return error_set(err, ERROR_FAILED_PRECONDITION, "operation is missing");
    }
}

static const struct request *find_open(const struct request_list *list, const struct record *record,
                                       struct error *err)
{
    const struct request *request = request_list_find(list, record->request_id);
    if (request != NULL && is_open(request, record->time_us))
        return request;
    error_set(err, ERROR_FAILED_PRECONDITION, "request %s is not open", record->request_id);
    return NULL;
}

static int check_given(const struct request_list *list, const struct record *record,
                       struct error *err)
{
    char digest[65];
    const struct request *request = find_open(list, record, err);
    if (request == NULL)
        return -1;
    if (record->operator_name[0] == '\0' || !record->actor.present ||
        (record->signature[0] == '\0') != (record->operator_key[0] == '\0'))
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "operator or actor is missing, or signature without operator_key");
    // With a newline in it the name could forge a line of the snapshot, where "-" stands for none.
    if (!name_is_ticket(record->operator_name) || strcmp(record->operator_name, "-") == 0)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "an operator's name is one line, and not '-'");
    key_digest(record, digest);
    for (size_t i = 0; i < request->approval_count; i++) {
        const struct request_approval *other = &request->approvals[i];
        bool same_key = digest[0] != '\0' && strcmp(other->key_sha256, digest) == 0;
        bool same_uid =
            digest[0] == '\0' && other->key_sha256[0] == '\0' && other->uid == record->actor.uid;
        if (strcmp(other->operator_name, record->operator_name) == 0 || same_key || same_uid)
            return error_set(err, ERROR_FAILED_PRECONDITION,
                             "operator %s has approved request %s already: it takes %d different "
                             "ones",
                             record->operator_name, request->id, APPROVALS_NEEDED);
    }
    if (request->approval_count == APPROVALS_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "request %s has %d approvals already",
                         request->id, APPROVALS_MAX);
    return 0;
}

static bool is_same_operation(const struct request *request, const struct record *record)
{
    if (record->event == RECORD_KEY_DESTROYING)
        return request->operation == OPERATION_KEY_DESTROY &&
               strcmp(request->key, record->key) == 0 && request->generation == record->generation;
    return request->operation == OPERATION_ACCEPT_LOSS && request->old_size == record->old_size &&
           request->new_size == record->new_size &&
           memcmp(request->old_root, record->old_root, sizeof(record->old_root)) == 0 &&
           memcmp(request->new_root, record->new_root, sizeof(record->new_root)) == 0;
}

static int check_carried_out(const struct request_list *list, const struct record *record,
                             struct error *err)
{
    const struct request *request = find_open(list, record, err);
    if (request == NULL)
        return -1;
    if (!is_same_operation(request, record))
        return error_set(err, ERROR_FAILED_PRECONDITION, "request %s was for something else",
                         request->id);
    if (request->approval_count < APPROVALS_NEEDED)
        return error_set(err, ERROR_FAILED_PRECONDITION,
                         "request %s has %zu of the %d approvals that it needs", request->id,
                         request->approval_count, APPROVALS_NEEDED);
    return 0;
}

int request_list_check(const struct request_list *list, const struct record *record,
                       struct error *err)
{
    switch (record->event) {
    case RECORD_APPROVAL_REQUESTED:
        return check_requested(list, record, err);
    case RECORD_APPROVAL_GIVEN:
        return check_given(list, record, err);
    case RECORD_LOG_LOSS_ACCEPTED:
        return check_carried_out(list, record, err);
    case RECORD_KEY_DESTROYING:
        return record->request_id[0] != '\0' ? check_carried_out(list, record, err) : 0;
    default:
        return 0;
    }
}

// ---- applying ----

static void drop(struct request_list *list, size_t i)
{
    if (i >= list->count)
        return;
    list->count--;
    memmove(&list->items[i], &list->items[i + 1], (list->count - i) * sizeof(list->items[0]));
}

static void drop_expired(struct request_list *list, int64_t time_us)
{
    for (size_t i = list->count; i > 0; i--)
        if (!is_open(&list->items[i - 1], time_us))
            drop(list, i - 1);
}

static void add(struct request_list *list, const struct record *record)
{
    struct request *request = &list->items[list->count++];
    memset(request, 0, sizeof(*request));
    memcpy(request->id, record->request_id, sizeof(request->id));
    request->operation = record->operation;
    memcpy(request->key, record->key, sizeof(request->key));
    request->generation = record->generation;
    request->uid = record->actor.uid;
    request->requested_us = record->time_us;
    request->expires_us = record->expires_us;
    request->old_size = record->old_size;
    request->new_size = record->new_size;
    memcpy(request->old_root, record->old_root, sizeof(request->old_root));
    memcpy(request->new_root, record->new_root, sizeof(request->new_root));
}

static void approve(struct request_list *list, const struct record *record)
{
    struct request *request = &list->items[position(list, record->request_id)];
    struct request_approval *approval = &request->approvals[request->approval_count++];
    memcpy(approval->operator_name, record->operator_name, sizeof(approval->operator_name));
    key_digest(record, approval->key_sha256);
    approval->uid = record->actor.uid;
}

void request_list_apply(struct request_list *list, const struct record *record)
{
    switch (record->event) {
    case RECORD_APPROVAL_REQUESTED:
        drop_expired(list, record->time_us);
        add(list, record);
        break;
    case RECORD_APPROVAL_GIVEN:
        approve(list, record);
        break;
    case RECORD_LOG_LOSS_ACCEPTED:
    case RECORD_KEY_DESTROYING:
        drop(list,
             record->request_id[0] != '\0' ? position(list, record->request_id) : list->count);
        break;
    default:
        break;
    }
}

void request_as_record(const struct request *request, const char *host, struct record *record)
{
    memset(record, 0, sizeof(*record));
    record->event = RECORD_APPROVAL_REQUESTED;
    snprintf(record->host, sizeof(record->host), "%s", host);
    memcpy(record->request_id, request->id, sizeof(record->request_id));
    record->operation = request->operation;
    memcpy(record->key, request->key, sizeof(record->key));
    record->generation = request->generation;
    record->expires_us = request->expires_us;
    record->old_size = request->old_size;
    record->new_size = request->new_size;
    memcpy(record->old_root, request->old_root, sizeof(record->old_root));
    memcpy(record->new_root, request->new_root, sizeof(record->new_root));
}
