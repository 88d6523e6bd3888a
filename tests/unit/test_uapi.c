// SPDX-License-Identifier: Apache-2.0
// WireGuard's userspace protocol: the request that sets a key, and answers, true and hostile.
#include <errno.h>
#include <string.h>

#include <sodium.h>

#include "tap.h"
#include "tools/applier/uapi.h"

// RFC 7748 section 6.1: Alice's keys.
static const uint8_t RFC7748_PRIVATE[32] = {
    0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
    0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a};
static const uint8_t RFC7748_PUBLIC[32] = {
    0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a,
    0x0d, 0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a};
#define RFC7748_HEX "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"

// Feeds `text` in pieces of `piece` bytes. Returns what the last call returned.
static int feed(struct uapi_answer *answer, const char *text, size_t piece)
{
    size_t length = strlen(text);
    int rc = 0;
    for (size_t at = 0; at < length && rc == 0; at += piece)
        rc = uapi_answer_take(answer, text + at, length - at < piece ? length - at : piece, NULL);
    return rc;
}

static int outcome(const char *text)
{
    struct uapi_answer *answer = uapi_answer_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
    int rc = feed(answer, text, 5);
    uapi_answer_free(answer);
    return rc;
}

static void builds_request(void)
{
    char request[UAPI_SET_SIZE];
    size_t length = uapi_set_private_key(request, RFC7748_PRIVATE);
    CU_ASSERT_EQUAL(length, strlen(request));
    CU_ASSERT_STRING_EQUAL(request, "set=1\nprivate_key=" RFC7748_HEX "\n\n");
}

static void derives_public_key(void)
{
    static const char text[] = "private_key=" RFC7748_HEX "\nlisten_port=51820\npublic_key="
                               "0000000000000000000000000000000000000000000000000000000000000001\n"
                               "preshared_key=00\nallowed_ip=10.0.0.0/8\nerrno=0\n\n";
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        struct uapi_answer *answer = uapi_answer_new();
        uint8_t public_key[DEVICE_KEY_SIZE];
        CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
        CU_ASSERT_EQUAL(feed(answer, text, piece), 1);
        CU_ASSERT_EQUAL(uapi_answer_errno(answer), 0);
        CU_ASSERT_EQUAL(uapi_answer_public_key(answer, public_key, NULL), 0);
        CU_ASSERT_EQUAL(memcmp(public_key, RFC7748_PUBLIC, sizeof public_key), 0);
        uapi_answer_free(answer);
    }
}

static void no_key_is_zero(void)
{
    static const char *const texts[] = {
        "errno=0\n\n", "listen_port=1\nerrno=0\n\n",
        // Parenthesised: clang takes the two for an element each and a comma forgotten.
        ("private_key=0000000000000000000000000000000000000000000000000000000000000000\n"
         "errno=0\n\n")};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct uapi_answer *answer = uapi_answer_new();
        uint8_t public_key[DEVICE_KEY_SIZE] = {1};
        CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
        CU_ASSERT_EQUAL(feed(answer, texts[i], 64), 1);
        CU_ASSERT_EQUAL(uapi_answer_public_key(answer, public_key, NULL), 0);
        CU_ASSERT(sodium_is_zero(public_key, sizeof public_key));
        uapi_answer_free(answer);
    }
}

static void reads_errno(void)
{
    static const struct {
        const char *text;
        int error;
    } cases[] = {{"errno=0\n\n", 0},
                 {"errno=22\n\n", EINVAL},
                 {"errno=-22\n\n", EINVAL},
                 {"errno=1\n\n", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct uapi_answer *answer = uapi_answer_new();
        CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
        CU_ASSERT_EQUAL(feed(answer, cases[i].text, 3), 1);
        CU_ASSERT_EQUAL(uapi_answer_errno(answer), cases[i].error);
        uapi_answer_free(answer);
    }
}

static void refuses_nonsense(void)
{
    static const char *const texts[] = {
        "\n",
        "listen_port=1\n\n", // no errno
        "nonsense\n",        // no '='
        "errno=\n",          // no number
        "errno=x\n",
        "errno=0x\n",
        "errno=99999999999999999999\n",
        "errno=4096\n",
        "errno=0\n\nx", // more after the end
        "private_key=\n",
        "private_key=77\n",
        "private_key=" RFC7748_HEX "00\n",
        "private_key=zz076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a\n",
        "private_key=" RFC7748_HEX "\nprivate_key=" RFC7748_HEX "\n",
        "public_key=00\nprivate_key=" RFC7748_HEX "\n", // among the peers
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        CU_ASSERT_EQUAL(outcome(texts[i]), -1);
}

static void refuses_endless_line(void)
{
    struct uapi_answer *answer = uapi_answer_new();
    int rc = 0, taken = 0;
    CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
    for (; rc == 0 && taken < 100000; taken++)
        rc = uapi_answer_take(answer, "x", 1, NULL);
    CU_ASSERT_EQUAL(rc, -1);
    CU_ASSERT(taken < 1000);
    uapi_answer_free(answer);
}

static void refuses_nul(void)
{
    static const char bytes[] = "errno=0\0junk\n\n";
    struct uapi_answer *answer = uapi_answer_new();
    CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
    CU_ASSERT_EQUAL(uapi_answer_take(answer, bytes, sizeof bytes - 1, NULL), -1);
    uapi_answer_free(answer);
}

// What is said about a bad answer must not repeat it: a key may stand in it.
static void messages_keep_secrets(void)
{
    struct error err = {.code = ERROR_OK};
    struct uapi_answer *answer = uapi_answer_new();
    static const char text[] = "private_key=77076d0a7318a57d3c16c17251b26645XX\n";
    CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
    CU_ASSERT_EQUAL(uapi_answer_take(answer, text, sizeof text - 1, &err), -1);
    CU_ASSERT_PTR_NULL(strstr(err.message, "7707"));
    uapi_answer_free(answer);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the request that sets a key", builds_request},
        {"the public key of an answer, in pieces of any size (RFC 7748)", derives_public_key},
        {"a device without a key has public key zero", no_key_is_zero},
        {"errno is read, of either sign", reads_errno},
        {"nonsense is refused", refuses_nonsense},
        {"a line without end is refused", refuses_endless_line},
        {"a NUL inside a line is refused", refuses_nul},
        {"what is said about a bad answer does not repeat it", messages_keep_secrets},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? 1 : tap_run("uapi", tests);
}
