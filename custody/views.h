// SPDX-License-Identifier: Apache-2.0
// All that an applier needs to know of a key, in one answer.
#ifndef CUSTODY_VIEWS_H
#define CUSTODY_VIEWS_H

#include "service.h"

void views_get(struct call *call, const Custody__V1__GetView *request);
// Answers with the view of the key that call->record names.
void views_answer(struct call *call);

#endif
