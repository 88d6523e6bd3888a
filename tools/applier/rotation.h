// SPDX-License-Identifier: Apache-2.0
// Our own key: set when the interface lacks it, and replaced: published, acknowledged, cut over,
// confirmed or rolled back.
#ifndef APPLIER_ROTATION_H
#define APPLIER_ROTATION_H

#include "tended.h"

// Sees to it that the interface has the key that it should have.
int rotation_set_key(struct tended *tended, const struct plan_own *own, struct error *err);
// Goes on with the rotation that is open: waits for acknowledgements, then cuts over. `yield`: the
// counterpart that it gives way to, or NULL.
int rotation_go_on(struct tended *tended, const char *yield, struct error *err);
// The interface has the next key already, from a process before this one: is it confirmed?
int rotation_take_over(struct tended *tended, struct error *err);
// The interface has what replaces a compromised key: ends that rotation once the counterparts have
// shaken hands under it, or at the end of the window.
int rotation_replaced(struct tended *tended, struct error *err);
// Takes counterparts' signed word that they have dropped compromised keys of ours.
int rotation_take_drops(struct tended *tended, struct error *err);
// Ends the open rotation: it cannot be carried out.
int rotation_give_up(struct tended *tended, const char *why, struct error *err);
// Puts keepalives back to what is configured, some time after a cutover.
int rotation_settle(struct tended *tended, struct error *err);
// How a rotation is done on this interface: "hold" or "poll".
const char *rotation_method(const struct tended *tended);

#endif
