// SPDX-License-Identifier: Apache-2.0
// Counterparts' keys on our interface: staged, moved to when they take over, retired.
#ifndef APPLIER_COUNTERPARTS_H
#define APPLIER_COUNTERPARTS_H

#include "tended.h"

// Reads what each counterpart says and carries out what follows. `*yield` names the counterpart
// that our own rotation gives way to, or is NULL. -1 with `err` for the first failure; the others
// were carried on with.
int counterparts_tend(struct tended *tended, const char **yield, struct error *err);
// Tells the journal and the log of refused notes that were not told before.
void counterparts_tell_refusals(struct tended *tended, const struct tended_peer *peer,
                                const struct refusals *refusals);
// Reads what each counterpart says, and does nothing about it. -1 when the registry is gone.
int counterparts_read(struct tended *tended, struct error *err);
// Makes the counterpart's peer what it should be: there, with its allowed-ips and its keepalive.
// `public_key`: its generation that has them by the log.
int counterparts_repair(struct tended *tended, const struct tended_peer *peer,
                        const uint8_t *public_key, struct error *err);
// Looks at the handshakes in tended->there: whichever generation shook hands last has the
// allowed-ips.
int counterparts_follow(struct tended *tended, struct error *err);
// Answers or takes one datagram, which came by `moves`.
void counterparts_datagram(struct tended *tended, struct moves *moves, const struct move *move,
                           const union device_endpoint *from);
// Sends once more what may have been lost. Returns when to call it again, INT64_MAX: no need.
int64_t counterparts_repeat(struct tended *tended);

union device_endpoint counterparts_endpoint(const struct setup_endpoint *configured);
// A counterpart's public key that has the allowed-ips by our log; NULL: none yet.
const uint8_t *counterparts_key(const struct tended *tended, const struct tended_peer *peer);
// Where it takes move datagrams; false where it does not.
bool counterparts_move_address(const struct tended_peer *peer, union device_endpoint *address);

#endif
