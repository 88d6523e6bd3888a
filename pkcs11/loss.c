// SPDX-License-Identifier: Apache-2.0
// Judging the records of an accepted loss.
#include "loss.h"

#include <inttypes.h>
#include <string.h>

#include "approval.h"

#define BATCH (APPROVALS_NEEDED + 2) // the request, the approvals, what was approved

static int check_shape(const struct keeper_entry *entries, uint32_t count, struct error *err)
{
    static const enum record_event events[BATCH] = {RECORD_APPROVAL_REQUESTED,
                                                    RECORD_APPROVAL_GIVEN, RECORD_APPROVAL_GIVEN,
                                                    RECORD_LOG_LOSS_ACCEPTED};
    bool fits = count == BATCH;
    for (uint32_t i = 0; fits && i < count; i++)
        fits = entries[i].record.event == events[i] && entries[i].action == KEEPER_ACTION_NONE &&
               strcmp(entries[i].record.request_id, entries[0].record.request_id) == 0;
    if (fits)
        return 0;
    return error_set(err, ERROR_PERMISSION_DENIED,
                     "a log that lacks what the token remembers takes one request, two approvals "
                     "and log.loss-accepted, and nothing else");
}

static int check_head(const struct loss_head *head, uint64_t size, const uint8_t root[32],
                      const char *whose, struct error *err)
{
    if (head->size == size && memcmp(head->root.bytes, root, sizeof(head->root.bytes)) == 0)
        return 0;
    return error_set(err, ERROR_PERMISSION_DENIED,
                     "the loss that was approved is of another head than %s, of %" PRIu64
                     " records",
                     whose, head->size);
}

static int check_heads(const struct loss *loss, const struct record *record, struct error *err)
{
    if (check_head(&loss->remembered, record->old_size, record->old_root, "the token's", err) != 0)
        return -1;
    return check_head(&loss->found, record->new_size, record->new_root, "that of the lines", err);
}

static int check_approval(const struct loss *loss, const struct record *requested,
                          const struct record *given, struct error *err)
{
    if (given->signature[0] == '\0') {
        if (loss->by_uid && given->actor.present && given->operator_key[0] == '\0')
            return 0;
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "operator %s has not signed, and this keeper was not started with "
                         "--approve-by-uid",
                         given->operator_name);
    }
    const char *name = operators_name(loss->operators, given->operator_key);
    if (name == NULL || strcmp(name, given->operator_name) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "the key that signed for operator %s is not in the operators' file as "
                         "theirs",
                         given->operator_name);
    return approval_verify(requested, given, err);
}

static bool differ(const struct record *one, const struct record *other)
{
    if (strcmp(one->operator_name, other->operator_name) == 0)
        return false;
    // A signature and a uid could be one person's: two of a kind are wanted.
    if ((one->signature[0] == '\0') != (other->signature[0] == '\0'))
        return false;
    return one->signature[0] != '\0' ? strcmp(one->operator_key, other->operator_key) != 0
                                     : one->actor.uid != other->actor.uid;
}

int loss_check(const struct loss *loss, const struct keeper_entry *entries, uint32_t count,
               struct error *err)
{
    char id[RECORD_REQUEST_MAX + 1];
    if (check_shape(entries, count, err) != 0)
        return -1;
    const struct record *requested = &entries[0].record;
    if (requested->operation != OPERATION_ACCEPT_LOSS || approval_loss_id(requested, id) != 0 ||
        strcmp(id, requested->request_id) != 0)
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "the request's id is not the one that follows from the two heads");
    if (check_heads(loss, requested, err) != 0 ||
        check_heads(loss, &entries[BATCH - 1].record, err) != 0)
        return -1;
    for (uint32_t i = 1; i <= APPROVALS_NEEDED; i++)
        if (check_approval(loss, requested, &entries[i].record, err) != 0)
            return error_prefix(err, "approval %u", (unsigned)i);
    if (!differ(&entries[1].record, &entries[2].record))
        return error_set(err, ERROR_PERMISSION_DENIED,
                         "both approvals are of one operator, key or uid: it takes two different "
                         "ones");
    return 0;
}
