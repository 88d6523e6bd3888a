// SPDX-License-Identifier: Apache-2.0
// Records: one line for each, one record for each line, and everything else refused.
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"

// Bytes of one value in base64, written out (RFC 4648 section 4): 32 of them, and 64.
#define TEN(s)      s s s s s s s s s s
#define B32(g, end) TEN(g) end
#define B64(g, end) TEN(g) TEN(g) g end
#define ONES        B32("AQEB", "AQE=")
#define TWOS        B32("AgIC", "AgI=")
#define THREES      B64("AwMD", "Aw==")
#define FOURS       B64("BAQE", "BA==")
#define DIGEST      "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

#define HEAD                                                                                       \
    "{\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"release.granted\","   \
    "\"host\":\"alpha\""
#define TIME_US INT64_C(1795342272123456)

static uint64_t random_state = 20261122;

// xorshift64*: the same numbers in every run.
static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * UINT64_C(2685821657736338717)) >> 32) % bound;
}

static struct record minimal(void)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.seq = 7;
    record.time_us = TIME_US;
    record.event = RECORD_RELEASE_GRANTED;
    strcpy(record.host, "alpha");
    return record;
}

static struct record whole(void)
{
    struct record r = minimal();
    r.actor = (struct record_actor){.present = true,
                                    .exe_unavailable = true,
                                    .uid = 4294967295,
                                    .gid = 100,
                                    .pid = 42,
                                    .unit = "custody-applier.service",
                                    .exe = "/usr/bin/a \"b\"\\c\n",
                                    .exe_sha256 = DIGEST};
    strcpy(r.key, "wg0");
    r.generation = UINT64_MAX;
    r.purpose = PURPOSE_WIREGUARD;
    memset(r.public_key, 1, sizeof(r.public_key));
    memset(r.applier_public_key, 2, sizeof(r.applier_public_key));
    r.reason = REASON_BOOT;
    strcpy(r.ticket, "OPS-7 \xc3\xbc");
    strcpy(r.lease, "00ff");
    r.expires_us = TIME_US + 10000000;
    r.not_before_us = 1;
    r.not_after_us = INT64_C(253402300799999999);
    strcpy(r.request, "ReleaseKey");
    r.code = ERROR_PERMISSION_DENIED;
    strcpy(r.detail, "\x01\x1f\x7f");
    r.count = 3;
    r.token = (struct record_token){.present = true,
                                    .weak = true,
                                    .label = "custody",
                                    .serial = "849d",
                                    .manufacturer = "SoftHSM project",
                                    .model = "SoftHSM v2"};
    strcpy(r.suite, "aes-gcm");
    strcpy(r.log_vkey, "alpha/custody/log+01020304+AQ==");
    strcpy(r.host_vkey, "alpha/custody/host+01020304+AQ==");
    memset(r.old_signature, 3, sizeof(r.old_signature));
    memset(r.new_signature, 4, sizeof(r.new_signature));
    strcpy(r.version, "0.1.0");
    strcpy(r.policy_sha256, DIGEST);
    r.offset = 1;
    r.length = 2;
    strcpy(r.sha256, "ab");
    return r;
}

static const char whole_line[] = HEAD
    ",\"actor\":{\"uid\":4294967295,\"gid\":100,\"pid\":42,\"unit\":\"custody-applier.service\","
    "\"exe\":\"/usr/bin/a \\\"b\\\"\\\\c\\u000a\",\"exe_sha256\":\"" DIGEST
    "\",\"exe_unavailable\":true},\"key\":\"wg0\",\"generation\":18446744073709551615,"
    "\"purpose\":\"wireguard-private\",\"public_key\":\"" ONES "\",\"applier_public_key\":\"" TWOS
    "\",\"reason\":\"BOOT\",\"ticket\":\"OPS-7 \xc3\xbc\",\"lease\":\"00ff\","
    "\"expires\":\"2026-11-22T10:11:22.123456Z\","
    "\"not_before\":\"1970-01-01T00:00:00.000001Z\","
    "\"not_after\":\"9999-12-31T23:59:59.999999Z\",\"request\":\"ReleaseKey\","
    "\"code\":\"PERMISSION_DENIED\",\"detail\":\"\\u0001\\u001f\x7f\",\"count\":3,"
    "\"token\":{\"label\":\"custody\",\"serial\":\"849d\",\"manufacturer\":\"SoftHSM project\","
    "\"model\":\"SoftHSM v2\",\"weak\":true},\"suite\":\"aes-gcm\","
    "\"log_vkey\":\"alpha/custody/log+01020304+AQ==\","
    "\"host_vkey\":\"alpha/custody/host+01020304+AQ==\",\"old_signature\":\"" THREES
    "\",\"new_signature\":\"" FOURS "\",\"version\":\"0.1.0\",\"policy_sha256\":\"" DIGEST
    "\",\"offset\":1,\"length\":2,\"sha256\":\"ab\"}";

static char line[RECORD_LINE_MAX + 1];

// The record's line, NUL-terminated, in `line`; NULL when it cannot be encoded.
static const char *encode(const struct record *record)
{
    size_t length = 0;
    if (record_encode(record, line, RECORD_LINE_MAX, &length, NULL) != 0)
        return NULL;
    line[length] = '\0';
    return line;
}

static bool parses(const char *text, size_t length)
{
    struct record record;
    struct error err = {.code = ERROR_OK};
    if (record_parse(&record, text, length, &err) == 0)
        return true;
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT(err.message[0] != '\0');
    return false;
}

static void check_both_ways(const struct record *record, const char *expected)
{
    struct record again;
    struct error err;
    const char *encoded = encode(record);
    CU_ASSERT_PTR_NOT_NULL_FATAL(encoded);
    CU_ASSERT_STRING_EQUAL(encoded, expected);
    CU_ASSERT_EQUAL(record_parse(&again, expected, strlen(expected), &err), 0);
    CU_ASSERT_EQUAL(memcmp(&again, record, sizeof(again)), 0);
}

static void test_exact_lines(void)
{
    struct record record = minimal();
    check_both_ways(&record, HEAD "}");
    record = whole();
    check_both_ways(&record, whole_line);
    memset(&record, 0, sizeof(record));
    record.event = RECORD_TOKEN_INITIALISED;
    check_both_ways(&record, "{\"v\":1,\"seq\":0,\"time\":\"1970-01-01T00:00:00.000000Z\","
                             "\"event\":\"token.initialised\",\"host\":\"\"}");
    // An object that is there shows its fields that always stand, however empty.
    record = minimal();
    record.actor.present = record.token.present = true;
    check_both_ways(&record, HEAD ",\"actor\":{\"uid\":0,\"gid\":0,\"pid\":0},"
                                  "\"token\":{\"label\":\"\"}}");
}

// What stands behind HEAD: once as it should be, once with one fault.
static const struct {
    const char *good, *bad;
} faults[] = {
    // order, unknown, duplicate, missing
    {",\"key\":\"a\",\"generation\":1}", ",\"generation\":1,\"key\":\"a\"}"},
    {",\"key\":\"a\"}", ",\"kay\":\"a\"}"},
    {",\"key\":\"a\"}", ",\"key\":\"a\",\"key\":\"a\"}"},
    {",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3}}", ",\"actor\":{\"gid\":2,\"uid\":1,\"pid\":3}}"},
    {",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3}}", ",\"actor\":{\"uid\":1,\"gid\":2}}"},
    {",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3}}", ",\"actor\":{}}"},
    {",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3}}", ",\"actor\":null}"},
    {",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3}}",
     ",\"actor\":{\"uid\":1,\"gid\":2,\"pid\":3,\"key\":\"a\"}}"},
    {",\"token\":{\"label\":\"a\"}}", ",\"token\":{\"serial\":\"a\"}}"},
    // zero or empty, written out
    {",\"key\":\"a\"}", ",\"key\":\"\"}"},
    {",\"generation\":1}", ",\"generation\":0}"},
    {",\"count\":1}", ",\"count\":0}"},
    {",\"sha256\":\"00\"}", ",\"sha256\":\"\"}"},
    {",\"expires\":\"1970-01-01T00:00:00.000001Z\"}",
     ",\"expires\":\"1970-01-01T00:00:00.000000Z\"}"},
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AAAA", "AAA=") "\"}"},
    {",\"token\":{\"label\":\"\",\"weak\":true}}", ",\"token\":{\"label\":\"\",\"weak\":false}}"},
    // numbers
    {",\"generation\":1}", ",\"generation\":01}"},
    {",\"generation\":1}", ",\"generation\":00}"},
    {",\"generation\":1}", ",\"generation\":}"},
    {",\"generation\":1}", ",\"generation\":-1}"},
    {",\"generation\":1}", ",\"generation\":+1}"},
    {",\"generation\":1}", ",\"generation\":1.0}"},
    {",\"generation\":1}", ",\"generation\":1e0}"},
    {",\"generation\":1}", ",\"generation\":\"1\"}"},
    {",\"generation\":18446744073709551615}", ",\"generation\":18446744073709551616}"},
    {",\"generation\":18446744073709551615}", ",\"generation\":99999999999999999999}"},
    {",\"actor\":{\"uid\":4294967295,\"gid\":0,\"pid\":0}}",
     ",\"actor\":{\"uid\":4294967296,\"gid\":0,\"pid\":0}}"},
    // escapes: there is one form for each character
    {",\"key\":\"\\u000a\"}", ",\"key\":\"\\n\"}"},
    {",\"key\":\"\\u000a\"}", ",\"key\":\"\\u000A\"}"},
    {",\"key\":\"\\u000a\"}", ",\"key\":\"\n\"}"},
    {",\"key\":\"\\u0001\"}", ",\"key\":\"\\u0000\"}"},
    {",\"key\":\"\\u001f\"}", ",\"key\":\"\\u0020\"}"},
    {",\"key\":\"\\u001f\"}", ",\"key\":\"\\u001\"}"},
    {",\"key\":\"a\"}", ",\"key\":\"\\u0061\"}"},
    {",\"key\":\"/\"}", ",\"key\":\"\\/\"}"},
    {",\"key\":\"\\\"\"}", ",\"key\":\"\\u0022\"}"},
    {",\"key\":\"\\\\\"}", ",\"key\":\"\\\"}"},
    {",\"key\":\"\\\\\"}", ",\"key\":\"\\"},
    // UTF-8 (RFC 3629)
    {",\"ticket\":\"\xc3\xbc\"}", ",\"ticket\":\"\xc3\"}"},
    {",\"ticket\":\"\xc3\xbc\"}", ",\"ticket\":\"\xbc\"}"},
    {",\"ticket\":\"/\"}", ",\"ticket\":\"\xc0\xaf\"}"},
    {",\"ticket\":\"\xed\x9f\xbf\"}", ",\"ticket\":\"\xed\xa0\x80\"}"},
    {",\"ticket\":\"\xf4\x8f\xbf\xbf\"}", ",\"ticket\":\"\xf4\x90\x80\x80\"}"},
    // strings
    {",\"key\":\"a\"}", ",\"key\":\"a}"},
    {",\"key\":\"a\"}", ",\"key\":a}"},
    {",\"key\":\"a\"}", ",\"key\":'a'}"},
    {",\"lease\":\"00ff\"}", ",\"lease\":\"00fF\"}"},
    {",\"lease\":\"00ff\"}", ",\"lease\":\"0ff\"}"},
    {",\"lease\":\"" TEN("00") "000000000000\"}", ",\"lease\":\"" TEN("00") "00000000000000\"}"},
    {",\"suite\":\"0123456789abcdef\"}", ",\"suite\":\"0123456789abcdefg\"}"},
    {",\"reason\":\"BOOT\"}", ",\"reason\":\"boot\"}"},
    {",\"reason\":\"BOOT\"}", ",\"reason\":\"BOO\"}"},
    {",\"code\":\"NOT_FOUND\"}", ",\"code\":\"OK\"}"},
    {",\"code\":\"NOT_FOUND\"}", ",\"code\":\"LOST\"}"},
    {",\"purpose\":\"receive\"}", ",\"purpose\":\"\"}"},
    // base64
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AQEB", "AQF=") "\"}"},
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AQEB", "AQE") "\"}"},
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AQEB", "AQEB") "\"}"},
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AQEB", "AQ==") "\"}"},
    {",\"public_key\":\"" ONES "\"}", ",\"public_key\":\"" B32("AQEB", "AQE=") "=\"}"},
    {",\"public_key\":\"" B32("++++", "++8=") "\"}",
     ",\"public_key\":\"" B32("----", "--8=") "\"}"},
    {",\"public_key\":\"" B32("AQEB", "AQE=") "\"}",
     ",\"public_key\":\" " B32("AQEB", "AQE=") "\"}"},
    {",\"public_key\":\"" B32("////", "//8=") "\"}",
     ",\"public_key\":\"" B32("____", "__8=") "\"}"},
    {",\"old_signature\":\"" THREES "\"}", ",\"old_signature\":\"" ONES "\"}"},
    // space, and what follows
    {",\"key\":\"a\"}", ", \"key\":\"a\"}"},
    {",\"key\":\"a\"}", ",\"key\": \"a\"}"},
    {",\"key\":\"a\"}", ",\"key\":\"a\" }"},
    {"}", "} "},
    {"}", "}\n"},
    {"}", "}}"},
    {"}", ",}"},
    {"}", ""},
};

static void test_faults(void)
{
    char text[2048];
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        snprintf(text, sizeof(text), HEAD "%s", faults[i].good);
        if (!parses(text, strlen(text)))
            printf("# refused: %s\n", text);
        CU_ASSERT(parses(text, strlen(text)));
        snprintf(text, sizeof(text), HEAD "%s", faults[i].bad);
        if (parses(text, strlen(text)))
            printf("# accepted: %s\n", text);
        CU_ASSERT(!parses(text, strlen(text)));
    }
}

static void test_faults_in_the_head(void)
{
    static const char *const heads[] = {
        "{\"v\":2,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\","
        "\"host\":\"a\"}",
        "{\"v\":01,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\","
        "\"host\":\"a\"}",
        "{\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\",\"host\":"
        "\"a\"}",
        "{\"v\":1,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\",\"host\":\"a\"}",
        "{\"v\":1,\"seq\":07,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\","
        "\"host\":\"a\"}",
        "{\"v\":1,\"seq\":7,\"event\":\"log.stuck\",\"host\":\"a\"}",
        "{\"v\":1,\"seq\":7,\"time\":\"2026-02-30T10:11:12.123456Z\",\"event\":\"log.stuck\","
        "\"host\":\"a\"}",
        "{\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"host\":\"a\"}",
        "{\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.struck\","
        "\"host\":\"a\"}",
        "{\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"\",\"host\":"
        "\"a\"}",
        "{\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\"}",
        " {\"v\":1,\"seq\":7,\"time\":\"2026-11-22T10:11:12.123456Z\",\"event\":\"log.stuck\","
        "\"host\":\"a\"}",
        "",
        "{}",
        "[]",
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        if (parses(heads[i], strlen(heads[i])))
            printf("# accepted: %s\n", heads[i]);
        CU_ASSERT(!parses(heads[i], strlen(heads[i])));
    }
    CU_ASSERT(!parses(HEAD "}", sizeof(HEAD "}"))); // the NUL behind it counts as a byte
    CU_ASSERT(!parses(HEAD ",\"key\":\"a\0b\"}", sizeof(HEAD ",\"key\":\"a\0b\"}") - 1));
}

// A string is refused from its first byte too many on, and taken with its last one.
static void test_overlong(void)
{
    static const struct {
        const char *name;
        size_t max;
    } fields[] = {{"key", KEY_MAX},
                  {"ticket", TICKET_MAX},
                  {"lease", RECORD_LEASE_MAX},
                  {"request", 32},
                  {"detail", DETAIL_MAX},
                  {"suite", 16},
                  {"version", 32},
                  {"sha256", 64},
                  {"policy_sha256", 64},
                  {"host_vkey", NOTE_VKEY_MAX - 1}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char text[2048], value[1024];
        for (size_t more = 0; more <= 2; more++) {
            memset(value, 'a', fields[i].max + more);
            value[fields[i].max + more] = '\0';
            snprintf(text, sizeof(text), HEAD ",\"%s\":\"%s\"}", fields[i].name, value);
            CU_ASSERT_EQUAL(parses(text, strlen(text)), more == 0);
        }
    }
}

static void test_truncated(void)
{
    CU_ASSERT(parses(whole_line, sizeof(whole_line) - 1));
    for (size_t length = 0; length < sizeof(whole_line) - 1; length++) {
        // In memory of just that size, so that a byte read too many is found by a checker.
        char *text = malloc(length + 1);
        CU_ASSERT_PTR_NOT_NULL_FATAL(text);
        memcpy(text, whole_line, length);
        CU_ASSERT(!parses(text, length));
        free(text);
    }
    char *large = calloc(1, RECORD_LINE_MAX + 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(large);
    CU_ASSERT(!parses(large, RECORD_LINE_MAX + 1));
    free(large);
}

// ---- what cannot be encoded ----

static void test_unencodable(void)
{
    struct record r = minimal();
    r.event = RECORD_NONE;
    CU_ASSERT_PTR_NULL(encode(&r));
    r.event = RECORD_EVENTS;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    r.reason = REASONS;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    r.purpose = PURPOSES;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    r.code = 1;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    r.time_us = -1;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    r.expires_us = INT64_MAX;
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    strcpy(r.ticket, "\xff");
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    memset(r.detail, 'a', sizeof(r.detail));
    CU_ASSERT_PTR_NULL(encode(&r));
    r = minimal();
    strcpy(r.lease, "0G");
    CU_ASSERT_PTR_NULL(encode(&r));
    strcpy(r.lease, "000");
    CU_ASSERT_PTR_NULL(encode(&r));
}

static void test_room(void)
{
    struct record r = whole();
    char small[sizeof(whole_line)];
    size_t length = 0;
    for (size_t size = 0; size < sizeof(whole_line) - 1; size++) {
        memset(small, '~', sizeof(small));
        CU_ASSERT_EQUAL(record_encode(&r, small, size, &length, NULL), -1);
        CU_ASSERT_EQUAL(small[size], '~');
    }
    CU_ASSERT_EQUAL(record_encode(&r, small, sizeof(whole_line) - 1, &length, NULL), 0);
    CU_ASSERT_EQUAL(length, sizeof(whole_line) - 1);
}

// ---- properties ----

// Fills `text` with UTF-8 of up to size - 1 bytes, of all lengths of sequences and with what must
// be escaped.
static void random_text(char *text, size_t size)
{
    static const char *const pieces[] = {"a",
                                         "Z",
                                         "0",
                                         "\"",
                                         "\\",
                                         "\x01",
                                         "\x1f",
                                         "\n",
                                         "\x7f",
                                         "\xc2\x80",
                                         "\xdf\xbf",
                                         "\xe0\xa0\x80",
                                         "\xed\x9f\xbf",
                                         "\xef\xbf\xbf",
                                         "\xf0\x90\x80\x80",
                                         "\xf4\x8f\xbf\xbf"};
    size_t wanted = random_below((uint32_t)size), used = 0;
    memset(text, 0, size);
    for (;;) {
        const char *piece = pieces[random_below(sizeof(pieces) / sizeof(pieces[0]))];
        if (used + strlen(piece) > wanted)
            return;
        memcpy(text + used, piece, strlen(piece));
        used += strlen(piece);
    }
}

static void random_hex(char *text, size_t size)
{
    size_t length = 2 * random_below((uint32_t)(size - 1) / 2 + 1);
    memset(text, 0, size);
    for (size_t i = 0; i < length; i++)
        text[i] = "0123456789abcdef"[random_below(16)];
}

static void random_bytes(uint8_t *bytes, size_t size)
{
    bool absent = random_below(2) == 0;
    for (size_t i = 0; i < size; i++)
        bytes[i] = absent ? 0 : (uint8_t)random_below(256);
}

static uint64_t random_u64(void)
{
    uint64_t value = (uint64_t)random_below(UINT32_MAX) << 32 | random_below(UINT32_MAX);
    return random_below(4) == 0 ? 0 : value >> random_below(64);
}

static int64_t random_time(void)
{
    return (int64_t)(random_u64() % UINT64_C(253402300800000000));
}

static void random_sections(struct record *r)
{
    if (random_below(2)) {
        r->actor.present = true;
        r->actor.exe_unavailable = random_below(2);
        r->actor.uid = (uint32_t)random_u64();
        r->actor.gid = (uint32_t)random_u64();
        r->actor.pid = (uint32_t)random_u64();
        random_text(r->actor.unit, sizeof(r->actor.unit));
        random_text(r->actor.exe, sizeof(r->actor.exe));
        random_hex(r->actor.exe_sha256, sizeof(r->actor.exe_sha256));
    }
    if (random_below(2)) {
        r->token.present = true;
        r->token.weak = random_below(2);
        random_text(r->token.label, sizeof(r->token.label));
        random_text(r->token.serial, sizeof(r->token.serial));
        random_text(r->token.manufacturer, sizeof(r->token.manufacturer));
        random_text(r->token.model, sizeof(r->token.model));
    }
}

static struct record random_record(void)
{
    static const uint32_t codes[] = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16};
    struct record r;
    memset(&r, 0, sizeof(r));
    r.seq = random_u64();
    r.time_us = random_time();
    r.event = 1 + random_below(RECORD_EVENTS - 1);
    random_text(r.host, sizeof(r.host));
    random_sections(&r);
    random_text(r.key, sizeof(r.key));
    r.generation = random_u64();
    r.purpose = random_below(PURPOSES);
    random_bytes(r.public_key, sizeof(r.public_key));
    random_bytes(r.applier_public_key, sizeof(r.applier_public_key));
    r.reason = random_below(REASONS);
    random_text(r.ticket, sizeof(r.ticket));
    random_hex(r.lease, sizeof(r.lease));
    r.expires_us = random_time();
    r.not_before_us = random_time();
    r.not_after_us = random_time();
    random_text(r.request, sizeof(r.request));
    r.code = codes[random_below(sizeof(codes) / sizeof(codes[0]))];
    random_text(r.detail, sizeof(r.detail));
    r.count = random_u64();
    random_text(r.suite, sizeof(r.suite));
    random_text(r.log_vkey, sizeof(r.log_vkey));
    random_text(r.host_vkey, sizeof(r.host_vkey));
    random_bytes(r.old_signature, sizeof(r.old_signature));
    random_bytes(r.new_signature, sizeof(r.new_signature));
    random_text(r.version, sizeof(r.version));
    random_hex(r.policy_sha256, sizeof(r.policy_sha256));
    r.offset = random_u64();
    r.length = random_u64();
    random_hex(r.sha256, sizeof(r.sha256));
    return r;
}

static void test_round_trip(void)
{
    static char text[RECORD_LINE_MAX + 1];
    for (int i = 0; i < 2000; i++) {
        struct record record = random_record(), again;
        const char *encoded = encode(&record);
        CU_ASSERT_PTR_NOT_NULL_FATAL(encoded);
        strcpy(text, encoded);
        CU_ASSERT_EQUAL(record_parse(&again, text, strlen(text), NULL), 0);
        CU_ASSERT_EQUAL(memcmp(&record, &again, sizeof(record)), 0);
        encoded = encode(&again);
        CU_ASSERT(encoded != NULL && strcmp(encoded, text) == 0);
    }
}

// Changes, doubles or takes out one byte; returns the new length.
static size_t mutate(char *text, size_t length)
{
    static const char telling[] = "\"\\{}:,019afu \n";
    size_t at = random_below((uint32_t)length);
    switch (random_below(4)) {
    case 0:
        memmove(text + at, text + at + 1, length - at - 1);
        return length - 1;
    case 1:
        memmove(text + at + 1, text + at, length - at);
        return length + 1;
    case 2:
        text[at] = telling[random_below(sizeof(telling) - 1)];
        return length;
    default:
        text[at] = (char)random_below(256);
        return length;
    }
}

// There is one line for each record: whatever parses is what would have been written.
static void test_mutations(void)
{
    static char original[RECORD_LINE_MAX + 2], mutated[RECORD_LINE_MAX + 2];
    unsigned accepted = 0;
    for (int i = 0; i < 40000; i++) {
        if (i % 100 == 0) {
            struct record record = random_record();
            const char *encoded = i % 200 == 0 ? whole_line : encode(&record);
            CU_ASSERT_PTR_NOT_NULL_FATAL(encoded);
            strcpy(original, encoded);
        }
        struct record again;
        size_t length = strlen(original), encoded_length = 0;
        memcpy(mutated, original, length);
        length = mutate(mutated, length);
        if (record_parse(&again, mutated, length, NULL) != 0)
            continue;
        accepted++;
        CU_ASSERT_EQUAL(record_encode(&again, line, RECORD_LINE_MAX, &encoded_length, NULL), 0);
        CU_ASSERT(encoded_length == length && memcmp(line, mutated, length) == 0);
    }
    CU_ASSERT(accepted > 1000); // many a change within a text is another record
}

// A record that is filled again holds nothing of the line before, which may have failed anywhere.
static void test_one_after_the_other(void)
{
    static struct record next;
    size_t used = sizeof(next);
    char text[RECORD_LINE_MAX + 2];
    memset(&next, 0x55, sizeof(next));
    for (int i = 0; i < 20000; i++) {
        struct record record = random_record(), alone;
        const char *encoded = i % 7 == 0 ? whole_line : encode(&record);
        CU_ASSERT_PTR_NOT_NULL_FATAL(encoded);
        size_t length = strlen(strcpy(text, encoded));
        if (i % 3 == 0)
            length = mutate(text, length);
        int result = record_parse(&alone, text, length, NULL);
        CU_ASSERT_EQUAL(record_parse_next(&next, &used, text, length, NULL), result);
        CU_ASSERT_EQUAL(memcmp(&next, &alone, sizeof(next)), 0);
    }
    CU_ASSERT_EQUAL(record_parse_next(&next, &used, text, RECORD_LINE_MAX + 1, NULL), -1);
    CU_ASSERT_EQUAL(record_parse_next(&next, &used, HEAD "}", strlen(HEAD "}"), NULL), 0);
    struct record expected = minimal();
    CU_ASSERT_EQUAL(memcmp(&next, &expected, sizeof(next)), 0);
}

// ---- names, time, text ----

static void test_names(void)
{
    for (uint32_t e = 1; e < RECORD_EVENTS; e++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(record_event_name(e));
        CU_ASSERT_EQUAL(record_event_from_name(record_event_name(e)), e);
    }
    for (uint32_t r = 1; r < REASONS; r++)
        CU_ASSERT_EQUAL(record_reason_from_name(record_reason_name(r)), r);
    for (uint32_t p = 1; p < PURPOSES; p++)
        CU_ASSERT_PTR_NOT_NULL(record_purpose_name(p));
    CU_ASSERT_PTR_NULL(record_event_name(RECORD_NONE));
    CU_ASSERT_PTR_NULL(record_event_name(RECORD_EVENTS));
    CU_ASSERT_PTR_NULL(record_reason_name(REASON_NONE));
    CU_ASSERT_PTR_NULL(record_reason_name(REASONS));
    CU_ASSERT_PTR_NULL(record_purpose_name(PURPOSES));
    CU_ASSERT_EQUAL(record_event_from_name(""), RECORD_NONE);
    CU_ASSERT_EQUAL(record_event_from_name("release.grante"), RECORD_NONE);
    CU_ASSERT_EQUAL(record_event_from_name("release.granted "), RECORD_NONE);
    CU_ASSERT_EQUAL(record_reason_from_name("Boot"), REASON_NONE);
}

static void test_time_values(void)
{
    static const struct {
        int64_t us;
        const char *text;
    } times[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {999999, "1970-01-01T00:00:00.999999Z"},
        {INT64_C(951782400000000), "2000-02-29T00:00:00.000000Z"},
        {INT64_C(1709164799000001), "2024-02-28T23:59:59.000001Z"},
        {INT64_C(2147483648000000), "2038-01-19T03:14:08.000000Z"},
        {INT64_C(4107542400000000), "2100-03-01T00:00:00.000000Z"},
        {TIME_US, "2026-11-22T10:11:12.123456Z"},
        {INT64_C(253402300799999999), "9999-12-31T23:59:59.999999Z"},
    };
    char text[RECORD_TIME_SIZE];
    int64_t us;
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        CU_ASSERT_EQUAL(record_time_format(times[i].us, text), 0);
        CU_ASSERT_STRING_EQUAL(text, times[i].text);
        CU_ASSERT_EQUAL(record_time_parse(times[i].text, strlen(times[i].text), &us), 0);
        CU_ASSERT_EQUAL(us, times[i].us);
    }
    static const int64_t none[] = {-1, INT64_MIN, INT64_C(253402300800000000), INT64_MAX};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        CU_ASSERT_EQUAL(record_time_format(none[i], text), -1);
    for (int i = 0; i < 20000; i++) {
        int64_t wanted = random_time();
        CU_ASSERT_EQUAL(record_time_format(wanted, text), 0);
        CU_ASSERT(record_time_parse(text, strlen(text), &us) == 0 && us == wanted);
    }
}

static void test_time_refused(void)
{
    static const char *const bad[] = {
        "2026-02-29T00:00:00.000000Z",
        "2100-02-29T00:00:00.000000Z",
        "2026-04-31T00:00:00.000000Z",
        "2026-00-01T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z",
        "2026-01-00T00:00:00.000000Z",
        "2026-01-32T00:00:00.000000Z",
        "2026-01-01T24:00:00.000000Z",
        "2026-01-01T00:60:00.000000Z",
        "2026-12-31T23:59:60.000000Z",
        "1969-12-31T23:59:59.999999Z",
        "0000-01-01T00:00:00.000000Z",
        "2026-01-01t00:00:00.000000Z",
        "2026-01-01T00:00:00.000000z",
        "2026-01-01 00:00:00.000000Z",
        "2026-01-01T00:00:00,000000Z",
        "2026-01-01T00:00:00.00000Z",
        "2026-01-01T00:00:00.0000000Z",
        "2026-01-01T00:00:00Z",
        "2026-1-01T00:00:00.0000000Z",
        "2026-01-01T00:00:00.000000+",
        "+026-01-01T00:00:00.000000Z",
        "2026-01-01T-1:00:00.000000Z",
        "2026-01-01T 1:00:00.000000Z",
        "",
        "2026-01-01T00:00:00.000000Z ",
    };
    int64_t us;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(record_time_parse(bad[i], strlen(bad[i]), &us), -1);
}

static void test_key_change_text(void)
{
    static const char expected[] = "custody log key change\nalpha/custody/log\n12\nOLD\nNEW\n";
    char text[sizeof(expected)];
    CU_ASSERT_EQUAL(
        record_key_change_text("alpha/custody/log", 12, "OLD", "NEW", text, sizeof(text)),
        (int)sizeof(expected) - 1);
    CU_ASSERT_STRING_EQUAL(text, expected);
    CU_ASSERT_EQUAL(
        record_key_change_text("alpha/custody/log", 12, "OLD", "NEW", text, sizeof(text) - 1), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"lines, byte for byte", test_exact_lines},
        {"each malformed form is refused", test_faults},
        {"the fields that always stand", test_faults_in_the_head},
        {"a string that is too long", test_overlong},
        {"a line cut off anywhere", test_truncated},
        {"what cannot be encoded", test_unencodable},
        {"room for the line", test_room},
        {"random records come back", test_round_trip},
        {"a changed line is refused, or is another record's own", test_mutations},
        {"one line after the other into one record", test_one_after_the_other},
        {"names of events, reasons and purposes", test_names},
        {"times", test_time_values},
        {"times that are none", test_time_refused},
        {"the text of a change of the log's key", test_key_change_text},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? EXIT_FAILURE : tap_run("record", tests);
}
