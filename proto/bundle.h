// SPDX-License-Identifier: Apache-2.0
// The text of a key bundle: what a host states about one of its keys, signed with custody-host.
#ifndef PROTO_BUNDLE_H
#define PROTO_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define BUNDLE_TEXT_MAX 1024 // bytes, with the NUL

// One "name value" line each, in this order, after a first line "custody bundle v1":
// host, key, generation, public-key (base64), not-before (RFC 3339), not-after (RFC 3339).
struct bundle {
    char host[HOST_MAX + 1];
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint8_t public_key[RECORD_KEY_SIZE];
    int64_t not_before_us;
    int64_t not_after_us;
};

// The bundle that a key.published record announces: built from the record alone.
void bundle_from_record(struct bundle *bundle, const struct record *record);
// The text that is signed, NUL-terminated. Returns its length, or -1 when a time is out of range.
int bundle_format(const struct bundle *bundle, char text[BUNDLE_TEXT_MAX]);
// Parses the text of a note that was already verified. Accepts exactly what bundle_format produces.
int bundle_parse(struct bundle *bundle, const char *text, size_t length, struct error *err);

#endif
