// SPDX-License-Identifier: Apache-2.0
// The record's schema as one table, and the encoder and the strict parser that both walk it.
#include "record.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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
    KIND_PEER_STATE,
    KIND_BUNDLE_STATE,
    KIND_CODE,
    KIND_OBJECT, // the bool at `offset` says whether it is there
};

struct field {
    char name[20]; // in the row, as most rows are passed over by its first byte
    uint8_t name_length;
    enum kind kind;
    bool always; // stands even when zero or empty
    size_t offset;
    size_t size; // of the member, with the NUL of a text
    const struct field *members;
};

#define MEMBER_SIZE(type, member) sizeof(((struct type *)0)->member)
#define FIELD_(type, kind, always, name, member)                                                   \
    {                                                                                              \
        name, sizeof(name) - 1, kind, always, offsetof(struct type, member),                       \
            MEMBER_SIZE(type, member), NULL                                                        \
    }
#define FIELD(kind, name, member)  FIELD_(record, kind, false, name, member)
#define ALWAYS(kind, name, member) FIELD_(record, kind, true, name, member)
#define OBJECT(name, member, table)                                                                \
    {                                                                                              \
        name, sizeof(name) - 1, KIND_OBJECT, false, offsetof(struct record, member.present), 1,    \
            table                                                                                  \
    }
#define END                                                                                        \
    {                                                                                              \
        "", 0, KIND_U64, false, 0, 0, NULL                                                         \
    }

// In each table those that always stand come first.
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
    FIELD(KIND_TEXT, "peer", peer),
    FIELD(KIND_TEXT, "peer_key", peer_key),
    FIELD(KIND_U64, "peer_generation", peer_generation),
    FIELD(KIND_BASE64, "peer_public_key", peer_public_key),
    FIELD(KIND_PEER_STATE, "peer_state", peer_state),
    FIELD(KIND_BUNDLE_STATE, "bundle_state", bundle_state),
    FIELD(KIND_BASE64, "receive_key", receive_key),
    FIELD(KIND_TEXT, "address", address),
    FIELD(KIND_U32, "port", port),
    FIELD(KIND_HEX, "previous", previous),
    FIELD(KIND_HEX, "move_sha256", move_sha256),
    FIELD(KIND_TEXT, "method", method),
    FIELD(KIND_U64, "epoch", epoch),
    END,
};

// ---- names ----

// A name and its length: most of what a parser compares differs in that already.
struct name {
    const char *text;
    size_t length;
};
#define NAME(text)                                                                                 \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }

static const struct name event_names[RECORD_EVENTS] = {
    [RECORD_TOKEN_INITIALISED] = NAME("token.initialised"),
    [RECORD_TOKEN_OPENED] = NAME("token.opened"),
    [RECORD_TOKEN_LOST] = NAME("token.lost"),
    [RECORD_TOKEN_REKEYED] = NAME("token.rekeyed"),
    [RECORD_LOG_KEY_CHANGED] = NAME("log.key-changed"),
    [RECORD_LOG_RECOVERED] = NAME("log.recovered"),
    [RECORD_LOG_SEALED] = NAME("log.sealed"),
    [RECORD_LOG_STUCK] = NAME("log.stuck"),
    [RECORD_DAEMON_STARTED] = NAME("daemon.started"),
    [RECORD_DAEMON_STOPPED] = NAME("daemon.stopped"),
    [RECORD_POLICY_LOADED] = NAME("policy.loaded"),
    [RECORD_CLOCK_STEPPED] = NAME("clock.stepped"),
    [RECORD_KEY_GENERATED] = NAME("key.generated"),
    [RECORD_KEY_IMPORTED] = NAME("key.imported"),
    [RECORD_KEY_PUBLISHED] = NAME("key.published"),
    [RECORD_KEY_ACTIVATED] = NAME("key.activated"),
    [RECORD_KEY_DEACTIVATED] = NAME("key.deactivated"),
    [RECORD_KEY_SUSPENDED] = NAME("key.suspended"),
    [RECORD_KEY_REVOKED] = NAME("key.revoked"),
    [RECORD_KEY_DESTROYING] = NAME("key.destroying"),
    [RECORD_KEY_DESTROYED] = NAME("key.destroyed"),
    [RECORD_RELEASE_GRANTED] = NAME("release.granted"),
    [RECORD_RELEASE_DENIED] = NAME("release.denied"),
    [RECORD_RELEASE_APPLIED] = NAME("release.applied"),
    [RECORD_RELEASE_FAILED] = NAME("release.failed"),
    [RECORD_LEASE_EXPIRED] = NAME("lease.expired"),
    [RECORD_ACCESS_DENIED] = NAME("access.denied"),
    [RECORD_APPROVAL_REQUESTED] = NAME("approval.requested"),
    [RECORD_APPROVAL_GIVEN] = NAME("approval.given"),
    [RECORD_LOG_LOSS_ACCEPTED] = NAME("log.loss-accepted"),
    [RECORD_KEY_RESUMED] = NAME("key.resumed"),
    [RECORD_KEY_REFRESHED] = NAME("key.refreshed"),
    [RECORD_ROTATION_STARTED] = NAME("rotation.started"),
    [RECORD_ROTATION_CONFIRMED] = NAME("rotation.confirmed"),
    [RECORD_ROTATION_ROLLED_BACK] = NAME("rotation.rolled-back"),
    [RECORD_PEER_STAGED] = NAME("peer.staged"),
    [RECORD_PEER_MOVED] = NAME("peer.moved"),
    [RECORD_PEER_RETIRED] = NAME("peer.retired"),
    [RECORD_PEER_LATE] = NAME("peer.late"),
    [RECORD_PEER_ACKNOWLEDGED] = NAME("peer.acknowledged"),
    [RECORD_NOTE_REJECTED] = NAME("note.rejected"),
    [RECORD_REGISTRY_STALE] = NAME("registry.stale"),
    [RECORD_REGISTRY_FRESH] = NAME("registry.fresh"),
    [RECORD_DRIFT_FOUND] = NAME("drift.found"),
    [RECORD_DRIFT_CLEARED] = NAME("drift.cleared"),
    [RECORD_PSK_GENERATED] = NAME("psk.generated"),
    [RECORD_PSK_RECEIVED] = NAME("psk.received"),
    [RECORD_PSK_SET] = NAME("psk.set"),
    [RECORD_PSK_DESTROYED] = NAME("psk.destroyed"),
};

static const struct name reason_names[REASONS] = {
    [REASON_BOOT] = NAME("BOOT"),         [REASON_RESTORE] = NAME("RESTORE"),
    [REASON_ROTATION] = NAME("ROTATION"), [REASON_ROLLBACK] = NAME("ROLLBACK"),
    [REASON_OPERATOR] = NAME("OPERATOR"),
};

static const struct name purpose_names[PURPOSES] = {
    [PURPOSE_WIREGUARD] = NAME("wireguard-private"),
    [PURPOSE_PRESHARED] = NAME("preshared"),
    [PURPOSE_RECEIVE] = NAME("receive"),
    [PURPOSE_IMPORTED] = NAME("wireguard-imported"),
};

static const struct name operation_names[OPERATIONS] = {
    [OPERATION_KEY_DESTROY] = NAME("key.destroy"),
    [OPERATION_ACCEPT_LOSS] = NAME("log.accept-loss"),
};

static const struct name peer_state_names[PEER_STATES] = {
    [PEER_STAGED] = NAME("staged"),
    [PEER_MOVED] = NAME("moved"),
    [PEER_RETIRED] = NAME("retired"),
};

static const struct name bundle_state_names[BUNDLE_STATES] = {
    [BUNDLE_PRE_ACTIVE] = NAME("pre-active"),
    [BUNDLE_ACTIVE] = NAME("active"),
    [BUNDLE_COMPROMISED] = NAME("compromised"),
    [BUNDLE_DESTROYED] = NAME("destroyed"),
};

// memcmp without the call, for what is mostly shorter than a call takes.
static inline bool is_same(const char *a, const char *b, size_t length)
{
    uint64_t x[2], y[2];
    uint32_t u[2], v[2];
    if (length > 16)
        return memcmp(a, b, length) == 0;
    if (length >= 8) { // two words that overlap
        memcpy(&x[0], a, 8);
        memcpy(&x[1], a + length - 8, 8);
        memcpy(&y[0], b, 8);
        memcpy(&y[1], b + length - 8, 8);
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
    if (length >= 4) {
        memcpy(&u[0], a, 4);
        memcpy(&u[1], a + length - 4, 4);
        memcpy(&v[0], b, 4);
        memcpy(&v[1], b + length - 4, 4);
        return ((u[0] ^ v[0]) | (u[1] ^ v[1])) == 0;
    }
    // One to three: the first, the middle one (or the last) and the last.
    return length == 0 ||
           (a[0] == b[0] && a[length / 2] == b[length / 2] && a[length - 1] == b[length - 1]);
}

static const char *name_at(const struct name *names, uint32_t count, uint32_t i)
{
    return i < count ? names[i].text : NULL;
}

// The index of the name of `length` bytes; 0 where there is none.
static uint32_t find_name(const struct name *names, uint32_t count, const char *name, size_t length)
{
    for (uint32_t i = 1; i < count; i++)
        if (names[i].length == length && is_same(names[i].text, name, length))
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

const char *record_peer_state_name(enum record_peer_state state)
{
    return name_at(peer_state_names, PEER_STATES, state);
}

enum record_peer_state record_peer_state_from_name(const char *name)
{
    return find_name(peer_state_names, PEER_STATES, name, strlen(name));
}

const char *record_bundle_state_name(enum record_bundle_state state)
{
    return name_at(bundle_state_names, BUNDLE_STATES, state);
}

enum record_bundle_state record_bundle_state_from_name(const char *name)
{
    return find_name(bundle_state_names, BUNDLE_STATES, name, strlen(name));
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
    case KIND_PEER_STATE:
        return record_peer_state_name(value);
    case KIND_BUNDLE_STATE:
        return record_bundle_state_name(value);
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
    case KIND_PEER_STATE:
        return find_name(peer_state_names, PEER_STATES, name, length);
    case KIND_BUNDLE_STATE:
        return find_name(bundle_state_names, BUNDLE_STATES, name, length);
    default:
        for (uint32_t code = 1; code <= ERROR_UNAUTHENTICATED; code++) {
            const char *known = error_code_name(code);
            if (known[0] == name[0] && strlen(known) == length &&
                memcmp(known, name, length) == 0 && code_name(code) != NULL)
                return code;
        }
        return 0;
    }
}

// ---- time ----

#define DAY_SECONDS INT64_C(86400)

static void put_digits(char *text, int64_t value, int count)
{
    while (count-- > 0) {
        text[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

// The proleptic Gregorian calendar in eras of 400 years that begin in March, so that the leap day
// is a year's last. (libc's conversions take longer than all the rest of a record.)
int record_time_format(int64_t time_us, char text[RECORD_TIME_SIZE])
{
    static const char shape[] = "0000-00-00T00:00:00.000000Z";
    int64_t seconds = time_us / 1000000;
    int64_t days = seconds / DAY_SECONDS + 719468; // since the first of March of the year 0
    int64_t rest = seconds % DAY_SECONDS;
    int64_t day = days % 146097; // of the era
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    int64_t month = (5 * day + 2) / 153; // from March
    year += days / 146097 * 400 + (month >= 10 ? 1 : 0);
    if (time_us < 0 || year > 9999)
        return -1;
    memcpy(text, shape, sizeof(shape));
    put_digits(text, year, 4);
    put_digits(text + 5, month < 10 ? month + 3 : month - 9, 2);
    put_digits(text + 8, day - (153 * month + 2) / 5 + 1, 2);
    put_digits(text + 11, rest / 3600, 2);
    put_digits(text + 14, rest / 60 % 60, 2);
    put_digits(text + 17, rest % 60, 2);
    put_digits(text + 20, time_us % 1000000, 6);
    return 0;
}

// Two decimal digits; above 99 for anything else.
static unsigned two_digits(const char *text)
{
    unsigned tens = (unsigned)(text[0] - '0'), ones = (unsigned)(text[1] - '0');
    return tens > 9 || ones > 9 ? 100 : 10 * tens + ones;
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const unsigned days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

int record_time_parse(const char *text, size_t length, int64_t *time_us)
{
    // "dddd-dd-ddTdd:dd:dd.ddddddZ"
    if (length != RECORD_TIME_SIZE - 1 || text[4] != '-' || text[7] != '-' || text[10] != 'T' ||
        text[13] != ':' || text[16] != ':' || text[19] != '.' || text[26] != 'Z')
        return -1;
    unsigned century = two_digits(text), year = 100 * century + two_digits(text + 2);
    unsigned month = two_digits(text + 5), day = two_digits(text + 8);
    unsigned hour = two_digits(text + 11), minute = two_digits(text + 14);
    unsigned second = two_digits(text + 17), high = two_digits(text + 20);
    unsigned middle = two_digits(text + 22), low = two_digits(text + 24);
    if (century > 99 || two_digits(text + 2) > 99 || year < 1970 || month < 1 || month > 12 ||
        day < 1 || day > month_days(year, month) || hour > 23 || minute > 59 || second > 59 ||
        high > 99 || middle > 99 || low > 99)
        return -1;
    int64_t y = (int64_t)year - (month > 2 ? 0 : 1), m = month > 2 ? month - 3 : month + 9;
    int64_t days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
    int64_t seconds = days * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    *time_us = seconds * 1000000 + high * 10000 + middle * 100 + low;
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
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    put(out, digits + at, sizeof(digits) - at);
}

// A JSON string (RFC 8259 section 7) in its one form here: only '"', '\' and control characters are
// escaped.
static void put_string(struct out *out, const char *text)
{
    put(out, "\"", 1);
    while (*text != '\0') {
        // What needs no escape goes at once.
        size_t plain = 0;
        unsigned char c;
        while ((c = (unsigned char)text[plain]) >= 0x20 && c != '"' && c != '\\')
            plain++;
        put(out, text, plain);
        text += plain;
        if (c == '\0')
            break;
        text++;
        char escape[8] = {'\\', (char)c};
        if (c == '"' || c == '\\')
            put(out, escape, 2);
        else
            put(out, escape, (size_t)snprintf(escape, sizeof(escape), "\\u%04x", c));
    }
    put(out, "\"", 1);
}

// Nothing in a record is secret, so this may end early.
static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static bool is_absent(const struct field *field, const uint8_t *member)
{
    switch (field->kind) {
    case KIND_TEXT:
    case KIND_HEX:
        return member[0] == '\0';
    default:
        return is_zero(member, field->size);
    }
}

// The lower-case hex digits that come first.
static inline size_t hex_run(const char *text, size_t left)
{
    static const bool digits[256] = {
        ['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true, ['5'] = true,
        ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true, ['a'] = true, ['b'] = true,
        ['c'] = true, ['d'] = true, ['e'] = true, ['f'] = true,
    };
    size_t length = 0;
    while (length < left && digits[(unsigned char)text[length]])
        length++;
    return length;
}

static bool is_hex(const char *text, size_t length)
{
    return hex_run(text, length) == length && length % 2 == 0;
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
    case KIND_PEER_STATE:
    case KIND_BUNDLE_STATE:
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
    for (const struct field *field = fields; field->name[0] != '\0'; field++) {
        const uint8_t *member = base + field->offset;
        if (!field->always && is_absent(field, member))
            continue;
        put_text(out, first ? "\"" : ",\"");
        first = false;
        put(out, field->name, field->name_length);
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
    size_t used; // bytes of the record, from its first on, that were written to
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

// The first byte of the name that comes next, if one does.
static char next_name(const struct in *in, bool first)
{
    size_t before = first ? 1 : 2;
    return (size_t)(in->end - in->at) > before ? in->at[before] : '\0';
}

// Takes `,"NAME":` (or `"NAME":` for an object's first field). Most fields of the table are absent
// from a line, and nearly all of those are told by one byte.
static bool take_name(struct in *in, const struct field *field, bool first)
{
    const char *at = in->at;
    size_t left = (size_t)(in->end - at), before = first ? 1 : 2;
    if (left < before + field->name_length + 2 || at[before] != field->name[0] ||
        (!first && at[0] != ',') || at[before - 1] != '"')
        return false;
    at += before;
    if (!is_same(at, field->name, field->name_length))
        return false;
    at += field->name_length;
    if (at[0] != '"' || at[1] != ':')
        return false;
    in->at = at + 2;
    return true;
}

static int take_u64(struct in *in, const char *field, uint64_t limit, uint64_t *value)
{
    const char *digits = in->at, *at = digits, *end = in->end;
    uint64_t result = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        // 19 digits always fit into 64 bits.
        if (at - digits >= 19 && result > (UINT64_MAX - digit) / 10)
            return malformed(in, "number too large in", field);
        result = result * 10 + digit;
    }
    in->at = at;
    if (result > limit)
        return malformed(in, "number too large in", field);
    if (at == digits || (*digits == '0' && at - digits > 1))
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

// The bytes up to the next that ends the string, begins an escape or may not stand in it. `*high`
// collects the bits of all: without the eighth they are UTF-8.
#define HIGH_BITS UINT64_C(0x8080808080808080)
static inline size_t plain_run(const char *text, size_t left, uint64_t *high)
{
    const uint64_t ones = UINT64_MAX / 255, tops = ones << 7;
    size_t length = 0;
    // Eight at a time: a byte's top bit is set where it is 0, or becomes so where it is below 0x20.
    while (left - length >= 8) {
        uint64_t word;
        memcpy(&word, text + length, sizeof(word));
        word = le64toh(word);
        uint64_t quote = word ^ (ones * '"'), escape = word ^ (ones * '\\');
        uint64_t stop = ((quote - ones) & ~quote) | ((escape - ones) & ~escape) |
                        ((word - ones * 0x20) & ~word);
        if ((stop & tops) != 0) {
            // The first that is set is right: only above one can a borrow have set another.
            unsigned before = (unsigned)__builtin_ctzll(stop & tops) / 8;
            *high |= word & ~(UINT64_MAX << 8 * before);
            return length + before;
        }
        *high |= word;
        length += 8;
    }
    for (; length < left; length++) {
        unsigned char c = (unsigned char)text[length];
        if (c == '"' || c == '\\' || c < 0x20)
            break;
        *high |= c;
    }
    return length;
}

// Any string in the one form that put_string writes, into `text` (room for `size` bytes with the
// NUL).
static int take_any_string(struct in *in, const char *field, char *text, size_t size,
                           size_t *length)
{
    if (in->at == in->end || *in->at != '"')
        return malformed(in, "no string in", field);
    in->at++;
    size_t used = 0;
    uint64_t high = 0;
    for (;;) {
        size_t left = (size_t)(in->end - in->at), room = size - 1 - used;
        size_t plain = plain_run(in->at, left, &high);
        size_t fits = plain < room ? plain : room;
        memcpy(text + used, in->at, fits);
        used += fits;
        in->at += fits;
        if (in->at == in->end)
            return malformed(in, "string without an end in", field);
        if (*in->at == '"')
            break;
        if (used + 1 >= size)
            return malformed(in, "string too long in", field);
        if (*in->at != '\\')
            return malformed(in, "control character in", field);
        if (take_escape(in, &text[used++]) != 0)
            return malformed(in, "escape of another form in", field);
    }
    in->at++;
    text[used] = '\0';
    if ((high & HIGH_BITS) != 0 && !name_is_utf8(text, used))
        return malformed(in, "string is not UTF-8 in", field);
    *length = used;
    return 0;
}

// The same; nearly all strings need no more than to be copied.
static inline int take_string(struct in *in, const char *field, char *text, size_t size,
                              size_t *length)
{
    uint64_t high = 0;
    size_t left = (size_t)(in->end - in->at);
    size_t plain = left > 1 && in->at[0] == '"' ? plain_run(in->at + 1, left - 1, &high) : 0;
    if (plain == 0 || plain >= size || plain + 1 >= left || in->at[plain + 1] != '"' ||
        (high & HIGH_BITS) != 0)
        return take_any_string(in, field, text, size, length);
    memcpy(text, in->at + 1, plain);
    text[plain] = '\0';
    in->at += plain + 2;
    *length = plain;
    return 0;
}

// Whether quotes stand around the next `length` bytes. What is known to hold no escape is read
// where it stands; anything else goes through take_string, which finds out what is wrong with it.
static bool is_quoted(const struct in *in, size_t length)
{
    return (size_t)(in->end - in->at) >= length + 2 && in->at[0] == '"' &&
           in->at[length + 1] == '"';
}

static int take_hex(struct in *in, const struct field *field, char *text)
{
    size_t length, left = (size_t)(in->end - in->at);
    size_t run = left > 1 ? hex_run(in->at + 1, left - 1) : 0;
    if (run > 0 && run < field->size && run % 2 == 0 && is_quoted(in, run)) {
        memcpy(text, in->at + 1, run);
        text[run] = '\0';
        in->at += run + 2;
        return 0;
    }
    if (take_string(in, field->name, text, field->size, &length) != 0)
        return -1;
    return is_hex(text, length) ? 0 : malformed(in, "no lower-case hex in", field->name);
}

static int take_base64(struct in *in, const struct field *field, uint8_t *member)
{
    char text[128];
    size_t length = (field->size + 2) / 3 * 4;
    struct line quoted = {.text = in->at + 1, .length = length};
    if (is_quoted(in, length) && line_base64(&quoted, member, field->size)) {
        in->at += length + 2;
        return 0;
    }
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
    size_t left = (size_t)(in->end - in->at), near = left < sizeof(text) ? left : sizeof(text);
    const char *quote = near > 1 ? memchr(in->at + 1, '"', near - 1) : NULL;
    size_t length = quote != NULL ? (size_t)(quote - in->at) - 1 : 0;
    uint32_t value = is_quoted(in, length) ? enum_value(field->kind, in->at + 1, length) : 0;
    if (value != 0) {
        memcpy(member, &value, sizeof(value));
        in->at += length + 2;
        return 0;
    }
    if (take_string(in, field->name, text, sizeof(text), &length) != 0)
        return -1;
    return malformed(in, "unknown value in", field->name);
}

static int take_time(struct in *in, const struct field *field, uint8_t *member)
{
    char text[RECORD_TIME_SIZE];
    size_t length = sizeof(text) - 1;
    int64_t time_us;
    if (is_quoted(in, length) && record_time_parse(in->at + 1, length, &time_us) == 0) {
        memcpy(member, &time_us, sizeof(time_us));
        in->at += length + 2;
        return 0;
    }
    if (take_string(in, field->name, text, sizeof(text), &length) != 0)
        return -1;
    return malformed(in, "no time in", field->name);
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
        return take_string(in, field->name, (char *)member, field->size, &length);
    case KIND_HEX:
        return take_hex(in, field, (char *)member);
    default:
        return take_enum(in, field, member);
    }
}

static int take_fields(struct in *in, const struct field *fields, struct record *record, bool first)
{
    uint8_t *base = (uint8_t *)record;
    char next = next_name(in, first);
    for (const struct field *field = fields; field->name[0] != '\0'; field++) {
        if (field->name[0] != next && !field->always)
            continue;
        uint8_t *member = base + field->offset;
        if (!take_name(in, field, first)) {
            if (field->always)
                return malformed(in, "missing field", field->name);
            continue;
        }
        first = false;
        if (in->used < field->offset + field->size)
            in->used = field->offset + field->size;
        if (field->kind == KIND_OBJECT) {
            *member = true;
            if (!take(in, "{"))
                return malformed(in, "no object in", field->name);
            if (take_fields(in, field->members, record, true) != 0)
                return -1;
            if (!take(in, "}"))
                return malformed(in, "unknown or misplaced field in", field->name);
        } else if (take_value(in, field, member) != 0) {
            return -1;
        } else if (!field->always && is_absent(field, member)) {
            // A zero that is written out is another form of the same record, and there is to be
            // only one.
            return malformed(in, "empty value in", field->name);
        }
        // Nothing can follow but what may be absent.
        if (in->at < in->end && *in->at == '}' && !field[1].always)
            break;
        next = next_name(in, first);
    }
    return 0;
}

static int take_record(struct in *in, struct record *record)
{
    if (!take(in, "{\"v\":1"))
        return malformed(in, "no record of version 1", NULL);
    if (take_fields(in, record_fields, record, false) != 0)
        return -1;
    if (!take(in, "}"))
        return malformed(in, "unknown or misplaced field", NULL);
    if (in->at != in->end)
        return malformed(in, "something follows the record", NULL);
    return 0;
}

int record_parse_next(struct record *record, size_t *used, const char *line, size_t length,
                      struct error *err)
{
    memset(record, 0, *used);
    *used = 0;
    if (length > RECORD_LINE_MAX)
        return error_set(err, ERROR_INVALID_ARGUMENT, "line of %zu bytes, at most %d are allowed",
                         length, RECORD_LINE_MAX);
    struct in in = {.start = line, .at = line, .end = line + length, .err = err};
    int result = take_record(&in, record);
    *used = in.used;
    return result;
}

int record_parse(struct record *record, const char *line, size_t length, struct error *err)
{
    size_t used = sizeof(*record);
    return record_parse_next(record, &used, line, length, err);
}

int record_key_change_text(const char *origin, uint64_t seq, const char *old_vkey,
                           const char *new_vkey, char *text, size_t size)
{
    int length = snprintf(text, size, "custody log key change\n%s\n%" PRIu64 "\n%s\n%s\n", origin,
                          seq, old_vkey, new_vkey);
    return length < 0 || (size_t)length >= size ? -1 : length;
}
