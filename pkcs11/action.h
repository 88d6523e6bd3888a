// SPDX-License-Identifier: Apache-2.0
// What a record may ask of the keeper, and the doing of it. Everything that is done is named by the
// record itself.
#ifndef PKCS11_ACTION_H
#define PKCS11_ACTION_H

#include <stdbool.h>

#include "channel.h"
#include "pace.h"
#include "vault.h"

// Whether `record` may be signed at all, and whether the action is the one that its event allows. A
// failure is the whole commit's.
int action_check(const struct vault *vault, const struct keeper_entry *entry, struct error *err);

// Whether the action changes the token. Such a one waits until its record is durable and signed.
bool action_changes(enum keeper_action action);
// Whether it is done, once its record is durable, before that is signed: what is signed then was
// done.
bool action_precedes(enum keeper_action action);
// Whether the token must hold the new head before what the record stands for is done or answered.
bool action_needs_head(enum record_event event);

// Does it. A failure is this entry's alone: its record stands all the same. `now_us` is a monotonic
// clock's.
int action_perform(struct vault *vault, struct pace *pace, int64_t now_us,
                   const struct keeper_entry *entry, struct keeper_entry_result *result,
                   struct error *err);

#endif
