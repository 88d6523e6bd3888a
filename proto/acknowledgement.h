// SPDX-License-Identifier: Apache-2.0
// The text of an acknowledgement: what a host states about a counterpart's key, signed with
// custody-host.
#ifndef PROTO_ACKNOWLEDGEMENT_H
#define PROTO_ACKNOWLEDGEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define ACKNOWLEDGEMENT_TEXT_MAX 1024 // bytes, with the NUL

// One "name value" line each, in this order, after a first line "custody acknowledgement v1": host,
// key, peer, peer-key, generation, public-key (base64), state ("staged" or "retired"), move-sha256
// (hex; "-" when retired), time (RFC 3339).
struct acknowledgement {
    char host[HOST_MAX + 1]; // who acknowledges,
    char key[KEY_MAX + 1];   // for its interface of this key,
    char peer[HOST_MAX + 1]; // that this host's
    char peer_key[KEY_MAX + 1];
    uint64_t generation; // of peer_key
    uint8_t public_key[RECORD_KEY_SIZE];
    uint32_t state;       // PEER_STAGED or PEER_RETIRED
    char move_sha256[65]; // of the secret whose showing says that the allowed-ips moved; "" when
                          // retired
    int64_t time_us;
};

// From the peer.staged or peer.retired record alone.
void acknowledgement_from_record(struct acknowledgement *ack, const struct record *record);
// The text that is signed, NUL-terminated. Returns its length, or -1 when the time is out of range.
int acknowledgement_format(const struct acknowledgement *ack, char text[ACKNOWLEDGEMENT_TEXT_MAX]);
// Whether it has a text that acknowledgement_parse takes. ERROR_INVALID_ARGUMENT otherwise.
int acknowledgement_check(const struct acknowledgement *ack, struct error *err);
// Parses the text of a note that was already verified. Accepts exactly what acknowledgement_format
// produces.
int acknowledgement_parse(struct acknowledgement *ack, const char *text, size_t length,
                          struct error *err);

#endif
