// SPDX-License-Identifier: Apache-2.0
// Reading the signed texts: lines one after the other, and the values that stand in them.
#ifndef PROTO_LINES_H
#define PROTO_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What is left to read of a text. Borrowed: the text must outlive it.
struct lines {
    const char *next;
    size_t left; // bytes
};

// One line, without its newline; not NUL-terminated.
struct line {
    const char *text;
    size_t length; // bytes
};

// Takes the next line. False, with nothing taken, when no newline is left.
bool lines_next(struct lines *lines, struct line *line);

// Takes the next line, which must begin with `prefix`; `value` is what is left of it. False when it
// does not, or there is none.
bool lines_take(struct lines *lines, const char *prefix, struct line *value);

// Cuts `prefix` off the start of the line; false, with nothing cut, when it does not stand there.
bool line_skip(struct line *line, const char *prefix);

// The line as a string, of fewer than `size` bytes and without a NUL; what it does not fill of
// `text` becomes zero.
bool line_text(const struct line *line, char *text, size_t size);
// Takes the next line as lines_take and line_text do.
bool lines_take_text(struct lines *lines, const char *prefix, char *text, size_t size);
// Whether the line is "-", which stands for what is absent.
bool line_is_dash(const struct line *line);
// The line as `digits` lower-case hex digits; `text` has room for them and a NUL.
bool line_hex(const struct line *line, char *text, size_t digits);

// The line as a decimal number without sign or leading zeroes; false when it is anything else or
// too large.
bool line_decimal(const struct line *line, uint64_t *value);

// The line as canonical base64 (RFC 4648 section 4, padded, unused bits zero) of exactly `size`
// bytes. For all base64 that others send: libsodium's own decoder takes any byte above 0x7f for
// some character of the alphabet (seen with 1.0.18).
bool line_base64(const struct line *line, void *bytes, size_t size);
// The same of any number of bytes up to `room`; `*size` is set.
bool line_base64_any(const struct line *line, void *bytes, size_t room, size_t *size);

#endif
