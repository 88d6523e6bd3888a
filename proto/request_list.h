// SPDX-License-Identifier: Apache-2.0
// Open requests for dangerous operations and the approvals they have: a part of the log's state.
#ifndef PROTO_REQUEST_LIST_H
#define PROTO_REQUEST_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "approval.h"
#include "error.h"
#include "record.h"

#define REQUESTS_MAX  32 // open at a time
#define APPROVALS_MAX 8  // of one request

struct request_approval {
    char operator_name[RECORD_OPERATOR_MAX + 1];
    char key_sha256[65]; // of operator_key, lower-case hex; "" where a uid alone approved
    uint32_t uid;        // of the process that brought the approval
};

// A request that was neither carried out nor has expired.
struct request {
    char id[RECORD_REQUEST_MAX + 1];
    uint32_t operation; // enum record_operation
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint32_t uid; // of who requested it
    int64_t requested_us;
    int64_t expires_us; // 0 for a loss: it is carried out at once
    uint64_t old_size, new_size;
    uint8_t old_root[32], new_root[32];
    size_t approval_count;
    struct request_approval approvals[APPROVALS_MAX];
};

struct request_list {
    size_t count;
    struct request items[REQUESTS_MAX]; // requested first, first
};

const struct request *request_list_find(const struct request_list *list, const char *id);

// Whether approval.requested, approval.given, log.loss-accepted, or a key.destroying that names a
// request, may come next. Pure.
int request_list_check(const struct request_list *list, const struct record *record,
                       struct error *err);
// Applies a record that was checked: whatever has expired by then is dropped, what was carried out
// too.
void request_list_apply(struct request_list *list, const struct record *record);

// The fields of the approval.requested record that the request came from, as far as approval_text
// reads them.
void request_as_record(const struct request *request, const char *host, struct record *record);

#endif
