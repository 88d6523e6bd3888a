// SPDX-License-Identifier: Apache-2.0
// The exact text that operators sign when they approve a dangerous operation, and the check of
// their signatures.
#ifndef PROTO_APPROVAL_H
#define PROTO_APPROVAL_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define APPROVAL_NAMESPACE "custody-approval" // what `ssh-keygen -Y sign -n` is given
#define APPROVAL_TEXT_MAX  1024               // bytes, with the NUL
#define APPROVALS_NEEDED   2                  // by different operators

// One "name value" line each, after a first line "custody approval v1":
//   key.destroy:      host, request, operation, key, generation, expires (RFC 3339)
//   log.accept-loss:  host, request, operation, old-size, old-root (base64), new-size, new-root
// `requested` is an approval.requested record (or what will be one): host, request_id, operation
// and the operation's own fields are read. Returns the length without the NUL, or -1 for an
// operation that is none or a time out of range.
int approval_text(const struct record *requested, char text[APPROVAL_TEXT_MAX]);

// The request_id of an accepted loss follows from its text without the request line (first 16 bytes
// of SHA-256, hex): signatures over it outlive a restart of the daemon, which can record nothing
// before the loss is accepted.
int approval_loss_id(const struct record *requested, char request_id[RECORD_REQUEST_MAX + 1]);

// Whether `given`'s signature is one by its operator_key over the text of `requested`.
int approval_verify(const struct record *requested, const struct record *given, struct error *err);

#endif
