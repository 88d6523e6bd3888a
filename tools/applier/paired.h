// SPDX-License-Identifier: Apache-2.0
// Keeps the second device of an interface as the interface is, and takes a rotation's packets by
// it.
#ifndef APPLIER_PAIRED_H
#define APPLIER_PAIRED_H

#include "cutover.h"
#include "tended.h"

// Whether rotations of this interface may go by a second device.
bool paired_is_wanted(const struct tended *tended);

// Opens it where it is there and was not.
void paired_find(struct tended *tended);
// Takes the routes back where no rotation needs them there any more, and sets the key that is
// active. What fails is said, and tried again by the next pass.
void paired_tend_key(struct tended *tended, const struct plan_own *own);
// Gives it the peers that the interface has: of each counterpart the key that its host says is
// active, with the allowed-ips, and the one that is staged, without.
void paired_tend_peers(struct tended *tended);
// Closes it; where it is gone, the routes that led there lead to the interface again.
void paired_close(struct tended *tended);

// Makes sure that each of the cutover's counterparts receives and answers by it, and has the routes
// lead there. On failure nothing has changed.
int paired_take(struct tended *tended, const struct cutover *cutover, struct error *err);
// Has the routes lead to the interface again: at once, or, for a counterpart that may have moved
// and must move back, by a pass some seconds later.
void paired_return(struct tended *tended);
void paired_return_later(struct tended *tended);

#endif
