// SPDX-License-Identifier: Apache-2.0
// The text of a key bundle: what a host states about one of its keys, signed with custody-host.
#ifndef PROTO_BUNDLE_H
#define PROTO_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define BUNDLE_TEXT_MAX 1024 // bytes, with the NUL

// One "name value" line each, in this order, after a first line "custody bundle v1": host, key,
// generation, state, public-key (base64), receive-key (base64), address, port, peers, not-before
// (RFC 3339), not-after (RFC 3339), previous (SHA-256 of the text of this key's bundle before,
// hex).
// "-" stands for an absent receive-key, address, port or previous. An address is IPv4 or IPv6 as
// inet_ntop(3) writes it.
struct bundle {
    char host[HOST_MAX + 1];
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint32_t state; // enum record_bundle_state
    uint8_t public_key[RECORD_KEY_SIZE];
    uint8_t receive_key[RECORD_KEY_SIZE]; // X25519; all zeros: takes no preshared keys
    char address[RECORD_ADDRESS_MAX + 1]; // inside the tunnel; "" where it takes no move datagrams
    uint32_t port;                        // UDP, 0 without an address
    uint64_t peers; // that the interface has: who has more makes preshared keys
    int64_t not_before_us;
    int64_t not_after_us;
    char previous[65]; // bundle_digest of the one before; "" for the first
};

// The bundle that a key.published record announces: built from the record alone.
void bundle_from_record(struct bundle *bundle, const struct record *record);
// The text that is signed, NUL-terminated. Returns its length, or -1 when a time is out of range.
int bundle_format(const struct bundle *bundle, char text[BUNDLE_TEXT_MAX]);
// Whether the bundle has a text that bundle_parse takes. ERROR_INVALID_ARGUMENT otherwise.
int bundle_check(const struct bundle *bundle, struct error *err);
// SHA-256 of the text, lower-case hex: what `previous` and freshness notes name it by. "" where the
// bundle has no text.
void bundle_digest(const struct bundle *bundle, char sha256[65]);
// Parses the text of a note that was already verified. Accepts exactly what bundle_format produces.
int bundle_parse(struct bundle *bundle, const char *text, size_t length, struct error *err);

#endif
