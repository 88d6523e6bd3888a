// SPDX-License-Identifier: Apache-2.0
// Who may approve, as the auditor has pinned it: a list like ssh's allowed_signers, "NAME TYPE
// BASE64" a line.
#ifndef TOOLS_AUDIT_OPERATORS_H
#define TOOLS_AUDIT_OPERATORS_H

#include "error.h"
#include "record.h"

struct operators; // opaque

// Empty lines and those that begin with '#' are passed over; a comment may follow the key. NULL
// with `err` on failure.
struct operators *operators_read(const char *path, struct error *err);
void operators_free(struct operators *operators);

// Whether the approval is by the key that is pinned for the operator whom it names.
int operators_check(const struct operators *operators, const struct record *given,
                    struct error *err);

#endif
