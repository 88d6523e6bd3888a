// SPDX-License-Identifier: Apache-2.0
// The canonical text of a state: each kind of line, and every text that is not one refused.
#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"

#define K1 "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
#define K2 "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
#define T0 "2026-11-22T10:00:00.000000Z"
#define T1 "2026-11-22T10:00:01.250000Z"
#define D1 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

#define HEAD                                                                                       \
    "custody state v1\nsize 99\ntime " T1 "\nhost alpha\nlog-vkey log+1\nhost-vkey host+1\n"
#define KEY_A1  "key a 1 deactivated wireguard-private " K1 " " T0 " " T0 " " T1 " 3 " T1 "\n"
#define KEY_A2  "key a 2 active wireguard-private " K2 " " T0 " " T1 " - 0 -\n"
#define KEY_A10 "key a 10 pre-active - " K2 " " T0 " - - 0 -\n"
#define KEY_B1  "key b 1 destroyed preshared " K1 " " T0 " - - 18446744073709551615 " T1 "\n"
#define ROTATION_A                                                                                 \
    "rotation a 10 OPERATOR " T1 " " T0 " 4294967295 2 - 2 active " D1 " CHG-7 of  today \n"
#define ROTATION_B "rotation b 0 - - - 0 0 " T1 " 0 - - -\n"
#define PEER_1     "peer a beta wg1 9 staged " K1 " " T0 " " T0 " -\n"
#define PEER_2     "peer a beta wg1 10 moved " K2 " - " T1 " -\n"
#define PEER_3     "peer a beta wg1 11 retired " K1 " - - " T1 "\n"
#define PEER_4     "peer a gamma.example wg1 18446744073709551615 moved " K2 " - " T1 " -\n"
#define LEASE_1    "lease 01 a 2 9 " T1 " 0 4294967295\n"
#define LEASE_2    "lease 00 b 1 10 " T0 " 1000 1\n"
#define REQUEST_1  "request 0a key.destroy a 2 7 " T0 " " T1 " 0 - 0 -\n"
#define REQUEST_2  "request 0b log.accept-loss - 0 0 " T0 " - 120 " K1 " 90 " K2 "\n"
#define GIVEN_1    "approval " D1 " 7 Ann of the first shift\n"
#define GIVEN_2    "approval - 8 bob\n"
#define WHOLE                                                                                      \
    HEAD KEY_A1 KEY_A2 KEY_A10 KEY_B1 ROTATION_A ROTATION_B PEER_1 PEER_2 PEER_3 PEER_4 LEASE_1    \
        LEASE_2 REQUEST_1 GIVEN_1 GIVEN_2 REQUEST_2 GIVEN_2

static const char whole[] = WHOLE;
static const char empty[] = "custody state v1\nsize 0\ntime -\nhost -\nlog-vkey -\nhost-vkey -\n";

// The state that the text says, whose text is the same to the byte; NULL when it is refused.
static struct state *parse(const char *text, size_t length)
{
    struct error err = {.message = ""};
    size_t again_length = 0;
    struct state *state = snapshot_parse(text, length, &err);
    if (state == NULL) {
        CU_ASSERT(err.message[0] != '\0');
        return NULL;
    }
    char *again = snapshot_format(state, &again_length, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(again);
    CU_ASSERT_EQUAL(again_length, length);
    CU_ASSERT(again_length == length && memcmp(again, text, length) == 0);
    free(again);
    return state;
}

static void refuses(const char *what, const char *text)
{
    struct state *state = parse(text, strlen(text));
    CU_ASSERT_PTR_NULL(state);
    if (state != NULL)
        printf("# taken: %s\n", what);
    state_free(state);
}

// ---- what is taken ----

static void test_whole(void)
{
    struct state *state = parse(whole, strlen(whole));
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    CU_ASSERT_EQUAL(state_size(state), 99);
    CU_ASSERT_TRUE(state_initialised(state));
    CU_ASSERT_STRING_EQUAL(state_host(state), "alpha");
    CU_ASSERT_STRING_EQUAL(state_log_vkey(state), "log+1");
    CU_ASSERT_EQUAL(state_keys(state), 4);
    CU_ASSERT_EQUAL(state_key_highest(state, "a"), 10);
    const struct state_key *key = state_key_find(state, "a", 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(key);
    CU_ASSERT_EQUAL(key->state, KEY_DEACTIVATED);
    CU_ASSERT_EQUAL(key->purpose, PURPOSE_WIREGUARD);
    CU_ASSERT_EQUAL(key->public_key[31], 1);
    CU_ASSERT_EQUAL(key->released_us - key->activated_us, 1250000);
    CU_ASSERT_EQUAL(state_key_active(state, "a")->generation, 2);
    const struct rotation *rotation = rotations_open(state_rotations(state), "a");
    CU_ASSERT_PTR_NOT_NULL_FATAL(rotation);
    CU_ASSERT_STRING_EQUAL(rotation->ticket, "CHG-7 of  today ");
    CU_ASSERT(rotation->generation == 10 && rotation->confirmed == 2);
    CU_ASSERT_EQUAL(rotation->failures, UINT32_MAX);
    CU_ASSERT_EQUAL(rotation->started_us - rotation->ended_us, 1250000);
    CU_ASSERT_EQUAL(rotation->bundle_state, BUNDLE_ACTIVE);
    CU_ASSERT_STRING_EQUAL(rotation->bundle_sha256, D1);
    CU_ASSERT(rotations_find(state_rotations(state), "b")->suspended_us != 0);
    CU_ASSERT_EQUAL(state_peers(state)->count, 4);
    CU_ASSERT_EQUAL(peers_current(state_peers(state), "a", "beta", "wg1")->generation, 10);
    CU_ASSERT_EQUAL(state_leases(state), 2);
    CU_ASSERT_EQUAL(state_lease_first(state)->pid, UINT32_MAX);
    CU_ASSERT_EQUAL(state_lease_find(state, "00")->seq, 10);
    const struct request_list *requests = state_requests(state);
    CU_ASSERT_EQUAL(requests->count, 2);
    CU_ASSERT_EQUAL(requests->items[0].approval_count, 2);
    CU_ASSERT_STRING_EQUAL(requests->items[0].approvals[0].operator_name, "Ann of the first shift");
    CU_ASSERT_EQUAL(requests->items[1].old_size, 120);
    state_free(state);
}

static void test_empty(void)
{
    struct state *state = parse(empty, strlen(empty));
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    CU_ASSERT_FALSE(state_initialised(state));
    CU_ASSERT_EQUAL(state_size(state), 0);
    state_free(state);
}

static void test_digest(void)
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    char expected[65], got[65];
    struct state *state = parse(whole, strlen(whole));
    CU_ASSERT_PTR_NOT_NULL_FATAL(state);
    crypto_hash_sha256(digest, (const uint8_t *)whole, strlen(whole));
    sodium_bin2hex(expected, sizeof(expected), digest, sizeof(digest));
    CU_ASSERT_EQUAL(snapshot_digest(state, got, NULL), 0);
    CU_ASSERT_STRING_EQUAL(got, expected);
    state_free(state);
}

static void test_name(void)
{
    char name[SNAPSHOT_NAME_SIZE];
    snapshot_name(42, name);
    CU_ASSERT_STRING_EQUAL(name, "000000000042.snapshot");
}

// ---- what is refused ----

static void test_other_orders(void)
{
    refuses("keys out of order", HEAD KEY_A2 KEY_A1);
    refuses("generations in the order of their digits", HEAD KEY_A1 KEY_A10 KEY_A2);
    refuses("a key twice", HEAD KEY_A1 KEY_A1);
    refuses("leases out of order", HEAD KEY_A2 KEY_B1 LEASE_2 LEASE_1);
    refuses("a lease twice", HEAD KEY_A2 LEASE_1 LEASE_1);
    refuses("a lease before its key", HEAD LEASE_1 KEY_A2);
    refuses("a lease of no key", HEAD KEY_A1 LEASE_1);
    refuses("a key after the leases", HEAD KEY_A2 LEASE_1 KEY_B1);
    refuses("a rotation before its key", HEAD ROTATION_A KEY_A1 KEY_A2 KEY_A10);
    refuses("a rotation of no key", HEAD KEY_A1 ROTATION_B);
    refuses("a rotation to no generation", HEAD KEY_A1 KEY_A2 ROTATION_A);
    refuses("rotations out of order", HEAD KEY_A1 KEY_A2 KEY_A10 KEY_B1 ROTATION_B ROTATION_A);
    refuses("a rotation twice", HEAD KEY_B1 ROTATION_B ROTATION_B);
    refuses("peers out of order", HEAD KEY_A2 PEER_2 PEER_1);
    refuses("generations of peers in the order of their digits", HEAD KEY_A2 PEER_3 PEER_1);
    refuses("a peer twice", HEAD KEY_A2 PEER_1 PEER_1);
    refuses("a peer before the rotations", HEAD KEY_B1 PEER_1 ROTATION_B);
    refuses("a lease before the peers", HEAD KEY_A2 LEASE_1 PEER_1);
    refuses("a request before the leases", HEAD KEY_A2 REQUEST_1 LEASE_1);
    refuses("an approval of nothing", HEAD KEY_A2 GIVEN_1);
    refuses("a head later", KEY_A1 HEAD);
    refuses("a head twice", HEAD HEAD);
    refuses("no head", KEY_A1);
    refuses("nothing", "");
}

static void test_other_forms(void)
{
    refuses("another version",
            "custody state v2\nsize 0\ntime -\nhost -\nlog-vkey -\nhost-vkey -\n");
    refuses("CRLF", HEAD "key a 2 active - " K2 " " T0 " - - 0 -\r\n");
    refuses("an empty line", HEAD "\n" KEY_A1);
    refuses("an empty last line", HEAD KEY_A1 "\n");
    refuses("no last newline", HEAD "key a 2 active - " K2 " " T0 " - - 0 -");
    refuses("an unknown line", HEAD "peer a\n");
    refuses("two blanks", HEAD "key a  2 active - " K2 " " T0 " - - 0 -\n");
    refuses("a blank at the end", HEAD "key a 2 active - " K2 " " T0 " - - 0 - \n");
    refuses("a field too few", HEAD "key a 2 active - " K2 " " T0 " - - 0\n");
    refuses("a field too many", HEAD "key a 2 active - " K2 " " T0 " - - 0 - -\n");
    refuses("a leading zero", HEAD "key a 02 active - " K2 " " T0 " - - 0 -\n");
    refuses("a sign", HEAD "key a +2 active - " K2 " " T0 " - - 0 -\n");
    refuses("65 bits", HEAD "key a 18446744073709551616 active - " K2 " " T0 " - - 0 -\n");
    refuses("33 bits", HEAD KEY_A2 "lease 01 a 2 9 " T1 " 4294967296 1\n");
    refuses("generation 0", HEAD "key a 0 active - " K2 " " T0 " - - 0 -\n");
    refuses("state none", HEAD "key a 2 none - " K2 " " T0 " - - 0 -\n");
    refuses("no such state", HEAD "key a 2 asleep - " K2 " " T0 " - - 0 -\n");
    refuses("no such purpose", HEAD "key a 2 active ssh " K2 " " T0 " - - 0 -\n");
    refuses("no key's name", HEAD "key a/b 2 active - " K2 " " T0 " - - 0 -\n");
    refuses("a short public key", HEAD "key a 2 active - AgIC " T0 " - - 0 -\n");
    refuses("a time in another form",
            HEAD "key a 2 active - " K2 " 2026-11-22T10:00:00Z - - 0 -\n");
    refuses("1970 in place of absent",
            HEAD "key a 2 active - " K2 " " T0 " 1970-01-01T00:00:00.000000Z - 0 -\n");
    refuses("a rotation to what has ended",
            HEAD KEY_A1 "rotation a 1 ROTATION " T1 " - 0 0 - 0 - - -\n");
    refuses("a rotation that is held",
            HEAD KEY_A10 "rotation a 10 ROTATION " T1 " - 0 0 " T1 " 0 - - -\n");
    refuses("no such bundle state", HEAD KEY_B1 "rotation b 0 - - - 0 0 - 1 gone " D1 " -\n");
    refuses("a short digest", HEAD KEY_B1 "rotation b 0 - - - 0 0 - 1 active abcd -\n");
    refuses("no ticket", HEAD KEY_B1 "rotation b 0 - - - 0 0 - 0 - -\n");
    refuses("two with the allowed-ips",
            HEAD KEY_A2 PEER_2 "peer a beta wg1 12 moved " K2 " - " T1 " -\n");
    refuses("a peer in no state", HEAD KEY_A2 "peer a beta wg1 9 - " K1 " - - -\n");
    refuses("no host", HEAD KEY_A2 "peer a - wg1 9 staged " K1 " - - -\n");
    refuses("a lease from the future", HEAD KEY_A2 "lease 01 a 2 99 " T1 " 0 1\n");
    refuses("no such operation", HEAD KEY_A2 "request 0a key.copy a 2 7 " T0 " " T1 " 0 - 0 -\n");
}

// Too many of what is bounded must neither be taken nor written past the end.
static void test_too_many(void)
{
    static char text[64 * 1024];
    size_t used = (size_t)snprintf(text, sizeof(text), HEAD KEY_A2);
    for (int i = 0; i <= REQUESTS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "request %02x key.destroy a 2 7 " T0 " " T1 " 0 - 0 -\n", i);
    refuses("too many requests", text);
    used = (size_t)snprintf(text, sizeof(text), HEAD KEY_A2 REQUEST_1);
    for (int i = 0; i <= APPROVALS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "approval - %d o%d\n", i, i);
    refuses("too many approvals", text);
}

// Whatever byte is changed, added, or lost, the text is refused, or is the text of another state.
static void test_every_byte(void)
{
    static const char bytes[] = {' ', '\n', '0', '9', 'a', '-', '=', '\0', '\r', '\x7f', '\xff'};
    char text[sizeof(whole) + 1];
    size_t length = strlen(whole);
    for (size_t i = 0; i < length; i++) {
        for (size_t b = 0; b < sizeof(bytes); b++) {
            memcpy(text, whole, sizeof(whole));
            text[i] = bytes[b];
            state_free(parse(text, length));
            memcpy(text + i + 1, whole + i, length - i);
            state_free(parse(text, length + 1));
        }
        memcpy(text, whole, i);
        memcpy(text + i, whole + i + 1, length - i - 1);
        state_free(parse(text, length - 1));
        struct state *cut = parse(whole, i);
        CU_ASSERT(cut == NULL || whole[i - 1] == '\n');
        state_free(cut);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a state with all there is", test_whole},
        {"the state of no record", test_empty},
        {"the digest is the text's", test_digest},
        {"the file's name", test_name},
        {"another order is refused", test_other_orders},
        {"another form is refused", test_other_forms},
        {"too many are refused", test_too_many},
        {"every byte changed, added, lost, cut", test_every_byte},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? EXIT_FAILURE : tap_run("snapshot", tests);
}
