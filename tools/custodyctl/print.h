// SPDX-License-Identifier: Apache-2.0
// Output for people, within 80 columns, and for programs, as JSON.
#ifndef CUSTODYCTL_PRINT_H
#define CUSTODYCTL_PRINT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "custody.h"

#define PRINT_COLUMN      16 // where a field's value begins
#define PRINT_TIME_SIZE   32
#define PRINT_BASE64_SIZE 45 // of a public key, with the NUL

// "name            value", further lines indented below the value; a line is broken only at a
// space.
void print_field(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A name on a line of its own and the value below it, unbroken, so that it can be copied.
void print_long(const char *name, const char *value);
// A part of the daemon: "ready", or why it is not.
void print_ready(const char *name, bool ready, const char *why_not);
// "2026-11-22 10:11:12 UTC"; "never" for 0. Returns `text`.
const char *print_time(int64_t time_us, char text[PRINT_TIME_SIZE]);
// Base64 as wg(8) writes it. Returns `text`.
const char *print_key(const uint8_t key[CUSTODY_KEY_SIZE], char text[PRINT_BASE64_SIZE]);

// A string for JSON, whatever its bytes; a time as RFC 3339, null for 0.
json_t *print_json_text(const char *text);
json_t *print_json_time(int64_t time_us);
json_t *print_json_token(const struct custody_token_info *token);
json_t *print_json_key(const struct custody_key *key);
// Writes `value` (which it takes over; NULL is an error) and a newline to stdout. 0, or -1 when
// that failed.
int print_json(json_t *value);

#endif
