// SPDX-License-Identifier: Apache-2.0
// The text of a freshness note: which bundle of a key is the latest, and that it still was at that
// time; signed with custody-host.
#ifndef PROTO_FRESHNESS_H
#define PROTO_FRESHNESS_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define FRESHNESS_TEXT_MAX 512 // bytes, with the NUL

// One "name value" line each, in this order, after a first line "custody freshness v1": host, key,
// generation, bundle (SHA-256 of its text, hex), time (RFC 3339).
struct freshness {
    char host[HOST_MAX + 1];
    char key[KEY_MAX + 1];
    uint64_t generation;
    char bundle_sha256[65]; // bundle_digest
    int64_t time_us;
};

// From the key.refreshed record alone.
void freshness_from_record(struct freshness *freshness, const struct record *record);
// The text that is signed, NUL-terminated. Returns its length, or -1 when the time is out of range.
int freshness_format(const struct freshness *freshness, char text[FRESHNESS_TEXT_MAX]);
// Whether it has a text that freshness_parse takes. ERROR_INVALID_ARGUMENT otherwise.
int freshness_check(const struct freshness *freshness, struct error *err);
// Parses the text of a note that was already verified. Accepts exactly what freshness_format
// produces.
int freshness_parse(struct freshness *freshness, const char *text, size_t length,
                    struct error *err);

#endif
