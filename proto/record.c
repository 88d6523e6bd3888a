// SPDX-License-Identifier: Apache-2.0
// The record's schema as one table, and the encoder and the strict parser that both walk it.
#include "record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "lines.h"

enum kind {
    KIND_U64,
    KIND_U32,
    KIND_TRUE,   // a bool that is only ever written when true
    KIND_TIME,   // int64_t microseconds <-> RFC 3339
    KIND_TEXT,   // NUL-terminated UTF-8
    KIND_HEX,    // the same, of lower-case hex digits
    KIND_BASE64, // `size` bytes, absent when all are zero
    KIND_EVENT,  // the enums by their names
    KIND_REASON,
    KIND_PURPOSE,
    KIND_OPERATION,
    KIND_CODE,
    KIND_OBJECT, // the bool at `offset` says whether it is there
};

struct field {
    const char *name;
    enum kind kind;
    bool always; // stands even when zero or empty
    size_t offset;
    size_t size; // of the member, with the NUL of a text
    const struct field *members;
};

#define MEMBER_SIZE(type, member) sizeof(((struct type *)0)->member)
#define FIELD_(type, kind, always, name, member)                                                   \
    {                                                                                              \
        name, kind, always, offsetof(struct type, member), MEMBER_SIZE(type, member), NULL         \
    }
#define FIELD(kind, name, member)  FIELD_(record, kind, false, name, member)
#define ALWAYS(kind, name, member) FIELD_(record, kind, true, name, member)
#define OBJECT(name, member, table)                                                                \
    {                                                                                              \
        name, KIND_OBJECT, false, offsetof(struct record, member.present), 1, table                \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, KIND_U64, false, 0, 0, NULL                                                          \
    }

static const struct field actor_fields[] = {
    FIELD_(record, KIND_U32, true, "uid", actor.uid),
    FIELD_(record, KIND_U32, true, "gid", actor.gid),
    FIELD_(record, KIND_U32, true, "pid", actor.pid),
    FIELD_(record, KIND_TEXT, false, "unit", actor.unit),
    FIELD_(record, KIND_TEXT, false, "exe", actor.exe),
    FIELD_(record, KIND_HEX, false, "exe_sha256", actor.exe_sha256),
    FIELD_(record, KIND_TRUE, false, "exe_unavailable", actor.exe_unavailable),
    END,
};

static const struct field token_fields[] = {
    FIELD_(record, KIND_TEXT, true, "label", token.label),
    FIELD_(record, KIND_TEXT, false, "serial", token.serial),
    FIELD_(record, KIND_TEXT, false, "manufacturer", token.manufacturer),
    FIELD_(record, KIND_TEXT, false, "model", token.model),
    FIELD_(record, KIND_TRUE, false, "weak", token.weak),
    END,
};

// The order here is the order in the line. PROTOCOL says the same in words.
static const struct field record_fields[] = {
    ALWAYS(KIND_U64, "seq", seq),
    ALWAYS(KIND_TIME, "time", time_us),
    ALWAYS(KIND_EVENT, "event", event),
    ALWAYS(KIND_TEXT, "host", host),
    OBJECT("actor", actor, actor_fields),
    FIELD(KIND_TEXT, "key", key),
    FIELD(KIND_U64, "generation", generation),
    FIELD(KIND_PURPOSE, "purpose", purpose),
    FIELD(KIND_BASE64, "public_key", public_key),
    FIELD(KIND_BASE64, "applier_public_key", applier_public_key),
    FIELD(KIND_REASON, "reason", reason),
    FIELD(KIND_TEXT, "ticket", ticket),
    FIELD(KIND_HEX, "lease", lease),
    FIELD(KIND_TIME, "expires", expires_us),
    FIELD(KIND_TIME, "not_before", not_before_us),
    FIELD(KIND_TIME, "not_after", not_after_us),
    FIELD(KIND_TEXT, "request", request),
    FIELD(KIND_CODE, "code", code),
    FIELD(KIND_TEXT, "detail", detail),
    FIELD(KIND_U64, "count", count),
    OBJECT("token", token, token_fields),
    FIELD(KIND_TEXT, "suite", suite),
    FIELD(KIND_TEXT, "log_vkey", log_vkey),
    FIELD(KIND_TEXT, "host_vkey", host_vkey),
    FIELD(KIND_BASE64, "old_signature", old_signature),
    FIELD(KIND_BASE64, "new_signature", new_signature),
    FIELD(KIND_TEXT, "version", version),
    FIELD(KIND_HEX, "policy_sha256", policy_sha256),
    FIELD(KIND_U64, "offset", offset),
    FIELD(KIND_U64, "length", length),
    FIELD(KIND_HEX, "sha256", sha256),
    FIELD(KIND_HEX, "request_id", request_id),
    FIELD(KIND_OPERATION, "operation", operation),
    FIELD(KIND_TEXT, "operator", operator_name),
    FIELD(KIND_TEXT, "operator_key", operator_key),
    FIELD(KIND_TEXT, "signature", signature),
    FIELD(KIND_U64, "old_size", old_size),
    FIELD(KIND_BASE64, "old_root", old_root),
    FIELD(KIND_U64, "new_size", new_size),
    FIELD(KIND_BASE64, "new_root", new_root),
    END,
};

// ---- names ----

static const char *const event_names[RECORD_EVENTS] = {
    [RECORD_TOKEN_INITIALISED] = "token.initialised",
    [RECORD_TOKEN_OPENED] = "token.opened",
    [RECORD_TOKEN_LOST] = "token.lost",
    [RECORD_TOKEN_REKEYED] = "token.rekeyed",
    [RECORD_LOG_KEY_CHANGED] = "log.key-changed",
    [RECORD_LOG_RECOVERED] = "log.recovered",
    [RECORD_LOG_SEALED] = "log.sealed",
    [RECORD_LOG_STUCK] = "log.stuck",
    [RECORD_DAEMON_STARTED] = "daemon.started",
    [RECORD_DAEMON_STOPPED] = "daemon.stopped",
    [RECORD_POLICY_LOADED] = "policy.loaded",
    [RECORD_CLOCK_STEPPED] = "clock.stepped",
    [RECORD_KEY_GENERATED] = "key.generated",
    [RECORD_KEY_IMPORTED] = "key.imported",
    [RECORD_KEY_PUBLISHED] = "key.published",
    [RECORD_KEY_ACTIVATED] = "key.activated",
    [RECORD_KEY_DEACTIVATED] = "key.deactivated",
    [RECORD_KEY_SUSPENDED] = "key.suspended",
    [RECORD_KEY_REVOKED] = "key.revoked",
    [RECORD_KEY_DESTROYING] = "key.destroying",
    [RECORD_KEY_DESTROYED] = "key.destroyed",
    [RECORD_RELEASE_GRANTED] = "release.granted",
    [RECORD_RELEASE_DENIED] = "release.denied",
    [RECORD_RELEASE_APPLIED] = "release.applied",
    [RECORD_RELEASE_FAILED] = "release.failed",
    [RECORD_LEASE_EXPIRED] = "lease.expired",
    [RECORD_ACCESS_DENIED] = "access.denied",
    [RECORD_APPROVAL_REQUESTED] = "approval.requested",
    [RECORD_APPROVAL_GIVEN] = "approval.given",
    [RECORD_LOG_LOSS_ACCEPTED] = "log.loss-accepted",
};

static const char *const reason_names[REASONS] = {
    [REASON_BOOT] = "BOOT",         [REASON_RESTORE] = "RESTORE",   [REASON_ROTATION] = "ROTATION",
    [REASON_ROLLBACK] = "ROLLBACK", [REASON_OPERATOR] = "OPERATOR",
};

static const char *const purpose_names[PURPOSES] = {
    [PURPOSE_WIREGUARD] = "wireguard-private",
    [PURPOSE_PRESHARED] = "preshared",
    [PURPOSE_RECEIVE] = "receive",
};

static const char *const operation_names[OPERATIONS] = {
    [OPERATION_KEY_DESTROY] = "key.destroy",
    [OPERATION_ACCEPT_LOSS] = "log.accept-loss",
};

static const char *name_at(const char *const *names, uint32_t count, uint32_t i)
{
    return i < count ? names[i] : NULL;
}

// The index of the name of `length` bytes; 0 where there is none.
static uint32_t find_name(const char *const *names, uint32_t count, const char *name, size_t length)
{
    for (uint32_t i = 1; i < count; i++)
        if (names[i] != NULL && strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return i;
    return 0;
}

const char *record_event_name(enum record_event event)
{
    return name_at(event_names, RECORD_EVENTS, event);
}

enum record_event record_event_from_name(const char *name)
{
    return find_name(event_names, RECORD_EVENTS, name, strlen(name));
}

const char *record_reason_name(enum record_reason reason)
{
    return name_at(reason_names, REASONS, reason);
}

enum record_reason record_reason_from_name(const char *name)
{
    return find_name(reason_names, REASONS, name, strlen(name));
}

const char *record_purpose_name(enum record_purpose purpose)
{
    return name_at(purpose_names, PURPOSES, purpose);
}

enum record_purpose record_purpose_from_name(const char *name)
{
    return find_name(purpose_names, PURPOSES, name, strlen(name));
}

const char *record_operation_name(enum record_operation operation)
{
    return name_at(operation_names, OPERATIONS, operation);
}

enum record_operation record_operation_from_name(const char *name)
{
    return find_name(operation_names, OPERATIONS, name, strlen(name));
}

static const char *code_name(uint32_t code)
{
    const char *name = error_code_name(code);
    return strcmp(name, "UNKNOWN") == 0 && code != ERROR_UNKNOWN ? NULL : name;
}

static const char *enum_name(enum kind kind, uint32_t value)
{
    switch (kind) {
    case KIND_EVENT:
        return record_event_name(value);
    case KIND_REASON:
        return record_reason_name(value);
    case KIND_PURPOSE:
        return record_purpose_name(value);
    case KIND_OPERATION:
        return record_operation_name(value);
    default:
        return code_name(value);
    }
}

// The value of an enum's name; 0 where there is none.
static uint32_t enum_value(enum kind kind, const char *name, size_t length)
{
    switch (kind) {
    case KIND_EVENT:
        return find_name(event_names, RECORD_EVENTS, name, length);
    case KIND_REASON:
        return find_name(reason_names, REASONS, name, length);
    case KIND_PURPOSE:
        return find_name(purpose_names, PURPOSES, name, length);
    case KIND_OPERATION:
        return find_name(operation_names, OPERATIONS, name, length);
    default:
        for (uint32_t code = 1; code <= ERROR_UNAUTHENTICATED; code++) {
            const char *known = code_name(code);
            if (known != NULL && strlen(known) == length && memcmp(known, name, length) == 0)
                return code;
        }
        return 0;
    }
}

// ---- time ----

int record_time_format(int64_t time_us, char text[RECORD_TIME_SIZE])
{
    time_t seconds = time_us / 1000000;
    struct tm tm;
    if (time_us < 0 || gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900)
        return -1;
    // The masks say what gmtime_r has just promised, so that the compiler need not fear for the
    // buffer.
    snprintf(text, RECORD_TIME_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ",
             (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
             (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
             (unsigned)tm.tm_sec % 100, (unsigned)(time_us % 1000000));
    return 0;
}

static int two_digits(const char *text)
{
    return (text[0] - '0') * 10 + (text[1] - '0');
}

int record_time_parse(const char *text, size_t length, int64_t *time_us)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    if (length != sizeof(shape) - 1)
        return -1;
    for (size_t i = 0; i < length; i++)
        if (shape[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i])
            return -1;
    struct tm tm = {
        .tm_year = two_digits(text) * 100 + two_digits(text + 2) - 1900,
        .tm_mon = two_digits(text + 5) - 1,
        .tm_mday = two_digits(text + 8),
        .tm_hour = two_digits(text + 11),
        .tm_min = two_digits(text + 14),
        .tm_sec = two_digits(text + 17),
    };
    int64_t micros = 0;
    for (size_t i = 20; i < 26; i++)
        micros = micros * 10 + (text[i] - '0');
    int64_t result = (int64_t)timegm(&tm) * 1000000 + micros;
    // timegm takes 31 February for 3 March; only a real date comes back as it was.
    char again[RECORD_TIME_SIZE];
    if (record_time_format(result, again) != 0 || memcmp(again, text, length) != 0)
        return -1;
    *time_us = result;
    return 0;
}

// ---- encoding ----

struct out {
    char *at;
    size_t left;
    bool full;
};

static void put(struct out *out, const char *bytes, size_t length)
{
    if (length > out->left) {
        out->full = true;
        return;
    }
    memcpy(out->at, bytes, length);
    out->at += length;
    out->left -= length;
}

static void put_text(struct out *out, const char *text)
{
    put(out, text, strlen(text));
}

static void put_u64(struct out *out, uint64_t value)
{
    char digits[24];
    put(out, digits, (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, value));
}

// A JSON string (RFC 8259 section 7) in its one form here: only '"', '\' and control characters are
// escaped.
static void put_string(struct out *out, const char *text)
{
    put(out, "\"", 1);
    for (const char *s = text; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            put(out, "\\", 1);
            put(out, s, 1);
        } else if (c < 0x20) {
            char escape[8];
            put(out, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", c));
        } else {
            put(out, s, 1);
        }
    }
    put(out, "\"", 1);
}

static bool is_absent(const struct field *field, const uint8_t *member)
{
    switch (field->kind) {
    case KIND_TEXT:
    case KIND_HEX:
        return member[0] == '\0';
    default:
        return sodium_is_zero(member, field->size);
    }
}

static bool is_hex(const char *text, size_t length)
{
    return length % 2 == 0 && strspn(text, "0123456789abcdef") == length;
}

static int put_text_value(struct out *out, const struct field *field, const uint8_t *member,
                          struct error *err)
{
    const char *text = (const char *)member;
    size_t length = strnlen(text, field->size);
    if (length == field->size)
        return error_set(err, ERROR_INVALID_ARGUMENT, "record field %s is not terminated",
                         field->name);
    if (!name_is_utf8(text, length))
        return error_set(err, ERROR_INVALID_ARGUMENT, "record field %s is not UTF-8", field->name);
    if (field->kind == KIND_HEX && !is_hex(text, length))
        return error_set(err, ERROR_INVALID_ARGUMENT, "record field %s is not lower-case hex",
                         field->name);
    put_string(out, text);
    return 0;
}

static int put_value(struct out *out, const struct field *field, const uint8_t *member,
                     struct error *err)
{
    uint64_t u64;
    uint32_t u32;
    char text[RECORD_TIME_SIZE];
    char base64[sodium_base64_ENCODED_LEN(NOTE_SIGNATURE_SIZE, sodium_base64_VARIANT_ORIGINAL)];
    switch (field->kind) {
    case KIND_U64:
        memcpy(&u64, member, sizeof(u64));
        put_u64(out, u64);
        return 0;
    case KIND_U32:
        memcpy(&u32, member, sizeof(u32));
        put_u64(out, u32);
        return 0;
    case KIND_TRUE:
        put_text(out, "true");
        return 0;
    case KIND_TIME:
        memcpy(&u64, member, sizeof(u64));
        if (record_time_format((int64_t)u64, text) != 0)
            return error_set(err, ERROR_INVALID_ARGUMENT,
                             "record field %s is no time from 1970 to 9999", field->name);
        put_string(out, text);
        return 0;
    case KIND_BASE64:
        sodium_bin2base64(base64, sizeof(base64), member, field->size,
                          sodium_base64_VARIANT_ORIGINAL);
        put_string(out, base64);
        return 0;
    case KIND_EVENT:
    case KIND_REASON:
    case KIND_PURPOSE:
    case KIND_OPERATION:
    case KIND_CODE:
        memcpy(&u32, member, sizeof(u32));
        if (enum_name(field->kind, u32) == NULL)
            return error_set(err, ERROR_INVALID_ARGUMENT, "record field %s has no name for %u",
                             field->name, u32);
        put_string(out, enum_name(field->kind, u32));
        return 0;
    default:
        return put_text_value(out, field, member, err);
    }
}

static int put_fields(struct out *out, const struct field *fields, const struct record *record,
                      bool first, struct error *err)
{
    const uint8_t *base = (const uint8_t *)record;
    for (const struct field *field = fields; field->name != NULL; field++) {
        const uint8_t *member = base + field->offset;
        if (!field->always && is_absent(field, member))
            continue;
        put_text(out, first ? "\"" : ",\"");
        first = false;
        put_text(out, field->name);
        put_text(out, "\":");
        if (field->kind == KIND_OBJECT) {
            put_text(out, "{");
            if (put_fields(out, field->members, record, true, err) != 0)
                return -1;
            put_text(out, "}");
        } else if (put_value(out, field, member, err) != 0) {
            return -1;
        }
    }
    return 0;
}

int record_encode(const struct record *record, char *line, size_t size, size_t *length,
                  struct error *err)
{
    struct out out = {.at = line, .left = size < RECORD_LINE_MAX ? size : RECORD_LINE_MAX};
    put_text(&out, "{\"v\":1");
    if (put_fields(&out, record_fields, record, false, err) != 0)
        return -1;
    put_text(&out, "}");
    if (out.full)
        return error_set(err, ERROR_INVALID_ARGUMENT, "record is longer than %zu bytes", size);
    *length = (size_t)(out.at - line);
    return 0;
}

// ---- parsing ----

struct in {
    const char *start;
    const char *at;
    const char *end;
    struct error *err;
};

static int malformed(const struct in *in, const char *what, const char *field)
{
    return error_set(in->err, ERROR_INVALID_ARGUMENT, "byte %zu: %s%s%s",
                     (size_t)(in->at - in->start) + 1, what, field != NULL ? " " : "",
                     field != NULL ? field : "");
}

static bool take(struct in *in, const char *literal)
{
    size_t length = strlen(literal);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, literal, length) != 0)
        return false;
    in->at += length;
    return true;
}

// Takes `,"NAME":` (or `"NAME":` for an object's first field).
static bool take_name(struct in *in, const char *name, bool first)
{
    const char *before = in->at;
    if (take(in, first ? "\"" : ",\"") && take(in, name) && take(in, "\":"))
        return true;
    in->at = before;
    return false;
}

static int take_u64(struct in *in, const char *field, uint64_t limit, uint64_t *value)
{
    const char *digits = in->at;
    uint64_t result = 0;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') {
        uint64_t digit = (uint64_t)(*in->at - '0');
        if (result > (limit - digit) / 10)
            return malformed(in, "number too large in", field);
        result = result * 10 + digit;
        in->at++;
    }
    if (in->at == digits || (*digits == '0' && in->at - digits > 1))
        return malformed(in, "no canonical number in", field);
    *value = result;
    return 0;
}

static int take_escape(struct in *in, char *c)
{
    if (take(in, "\\\"")) {
        *c = '"';
        return 0;
    }
    if (take(in, "\\\\")) {
        *c = '\\';
        return 0;
    }
    static const char hex[] = "0123456789abcdef";
    if (!take(in, "\\u00") || in->end - in->at < 2)
        return -1;
    const char *low = memchr(hex, in->at[1], 16);
    if ((in->at[0] != '0' && in->at[0] != '1') || low == NULL)
        return -1;
    *c = (char)((in->at[0] - '0') * 16 + (low - hex));
    in->at += 2;
    return *c == '\0' ? -1 : 0;
}

// A string in the one form that put_string writes, into `text` (room for `size` bytes with the
// NUL).
static int take_string(struct in *in, const char *field, char *text, size_t size, size_t *length)
{
    if (!take(in, "\""))
        return malformed(in, "no string in", field);
    size_t used = 0;
    while (in->at < in->end && *in->at != '"') {
        if (used + 1 >= size)
            return malformed(in, "string too long in", field);
        if (*in->at == '\\') {
            if (take_escape(in, &text[used++]) != 0)
                return malformed(in, "escape of another form in", field);
        } else if ((unsigned char)*in->at < 0x20) {
            return malformed(in, "control character in", field);
        } else {
            text[used++] = *in->at++;
        }
    }
    if (!take(in, "\""))
        return malformed(in, "string without an end in", field);
    text[used] = '\0';
    if (!name_is_utf8(text, used))
        return malformed(in, "string is not UTF-8 in", field);
    *length = used;
    return 0;
}

static int take_base64(struct in *in, const struct field *field, uint8_t *member)
{
    char text[128];
    size_t length;
    if (take_string(in, field->name, text, sizeof(text), &length) != 0)
        return -1;
    struct line line = {.text = text, .length = length};
    if (!line_base64(&line, member, field->size))
        return malformed(in, "no base64 of the right length in", field->name);
    return 0;
}

static int take_enum(struct in *in, const struct field *field, uint8_t *member)
{
    char text[64];
    size_t length;
    if (take_string(in, field->name, text, sizeof(text), &length) != 0)
        return -1;
    uint32_t value = enum_value(field->kind, text, length);
    if (value == 0)
        return malformed(in, "unknown value in", field->name);
    memcpy(member, &value, sizeof(value));
    return 0;
}

static int take_time(struct in *in, const struct field *field, uint8_t *member)
{
    char text[RECORD_TIME_SIZE];
    size_t length;
    int64_t time_us;
    if (take_string(in, field->name, text, sizeof(text), &length) != 0)
        return -1;
    if (record_time_parse(text, length, &time_us) != 0)
        return malformed(in, "no time in", field->name);
    memcpy(member, &time_us, sizeof(time_us));
    return 0;
}

static int take_value(struct in *in, const struct field *field, uint8_t *member)
{
    uint64_t u64;
    uint32_t u32;
    size_t length;
    switch (field->kind) {
    case KIND_U64:
        if (take_u64(in, field->name, UINT64_MAX, &u64) != 0)
            return -1;
        memcpy(member, &u64, sizeof(u64));
        return 0;
    case KIND_U32:
        if (take_u64(in, field->name, UINT32_MAX, &u64) != 0)
            return -1;
        u32 = (uint32_t)u64;
        memcpy(member, &u32, sizeof(u32));
        return 0;
    case KIND_TRUE:
        if (!take(in, "true"))
            return malformed(in, "only true can stand in", field->name);
        *member = true;
        return 0;
    case KIND_TIME:
        return take_time(in, field, member);
    case KIND_BASE64:
        return take_base64(in, field, member);
    case KIND_TEXT:
    case KIND_HEX:
        if (take_string(in, field->name, (char *)member, field->size, &length) != 0)
            return -1;
        if (field->kind == KIND_HEX && !is_hex((const char *)member, length))
            return malformed(in, "no lower-case hex in", field->name);
        return 0;
    default:
        return take_enum(in, field, member);
    }
}

static int take_fields(struct in *in, const struct field *fields, struct record *record, bool first)
{
    uint8_t *base = (uint8_t *)record;
    for (const struct field *field = fields; field->name != NULL; field++) {
        uint8_t *member = base + field->offset;
        if (!take_name(in, field->name, first)) {
            if (field->always)
                return malformed(in, "missing field", field->name);
            continue;
        }
        first = false;
        if (field->kind == KIND_OBJECT) {
            *member = true;
            if (!take(in, "{"))
                return malformed(in, "no object in", field->name);
            if (take_fields(in, field->members, record, true) != 0)
                return -1;
            if (!take(in, "}"))
                return malformed(in, "unknown or misplaced field in", field->name);
            continue;
        }
        if (take_value(in, field, member) != 0)
            return -1;
        // A zero that is written out is another form of the same record, and there is to be only
        // one.
        if (!field->always && is_absent(field, member))
            return malformed(in, "empty value in", field->name);
    }
    return 0;
}

int record_parse(struct record *record, const char *line, size_t length, struct error *err)
{
    memset(record, 0, sizeof(*record));
    if (length > RECORD_LINE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "line of %zu bytes, at most %d are allowed",
                         length, RECORD_LINE_MAX);
    struct in in = {.start = line, .at = line, .end = line + length, .err = err};
    if (!take(&in, "{\"v\":1"))
        return malformed(&in, "no record of version 1", NULL);
    if (take_fields(&in, record_fields, record, false) != 0)
        return -1;
    if (!take(&in, "}"))
        return malformed(&in, "unknown or misplaced field", NULL);
    if (in.at != in.end)
        return malformed(&in, "something follows the record", NULL);
    return 0;
}

int record_key_change_text(const char *origin, uint64_t seq, const char *old_vkey,
                           const char *new_vkey, char *text, size_t size)
{
    int length = snprintf(text, size, "custody log key change\n%s\n%" PRIu64 "\n%s\n%s\n", origin,
                          seq, old_vkey, new_vkey);
    return length < 0 || (size_t)length >= size ? -1 : length;
}
