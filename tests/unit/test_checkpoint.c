// SPDX-License-Identifier: Apache-2.0
// Checkpoints: the text of c2sp.org/tlog-checkpoint's example, and what must be refused.
#include "checkpoint.h"

#include <string.h>

#include "signer.h"
#include "tap.h"

#define ORIGIN  "example.com/behind-the-sofa"
#define ROOT    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
#define EXAMPLE ORIGIN "\n20852163\n" ROOT "\n"

static int parse(const char *text, struct checkpoint *checkpoint)
{
    struct error err;
    return checkpoint_parse(checkpoint, text, strlen(text), &err);
}

static void test_example(void)
{
    struct checkpoint checkpoint;
    CU_ASSERT_EQUAL(parse(EXAMPLE, &checkpoint), 0);
    CU_ASSERT_STRING_EQUAL(checkpoint.origin, ORIGIN);
    CU_ASSERT_EQUAL(checkpoint.size, 20852163);
    CU_ASSERT(checkpoint.root.bytes[0] == 0x0a && checkpoint.root.bytes[31] == 0x62);
    char text[CHECKPOINT_TEXT_MAX];
    CU_ASSERT_EQUAL(checkpoint_format(&checkpoint, text), strlen(EXAMPLE));
    CU_ASSERT_STRING_EQUAL(text, EXAMPLE);
}

static void test_bounds(void)
{
    struct checkpoint checkpoint = {.size = UINT64_MAX}, again;
    memset(checkpoint.origin, 'o', NOTE_NAME_MAX);
    char text[CHECKPOINT_TEXT_MAX];
    size_t length = checkpoint_format(&checkpoint, text);
    CU_ASSERT(length < sizeof(text) && length == strlen(text));
    CU_ASSERT_EQUAL(checkpoint_parse(&again, text, length, NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &checkpoint, sizeof(again)), 0);
    CU_ASSERT_EQUAL(parse("o\n0\n" ROOT "\n", &checkpoint), 0);
}

static void test_malformed(void)
{
    static const char *const bad[] = {
        "",
        "\n",
        ORIGIN,
        ORIGIN "\n",
        ORIGIN "\n1",
        ORIGIN "\n1\n",
        ORIGIN "\n1\n" ROOT,
        "\n1\n" ROOT "\n",
        ORIGIN "\n\n" ROOT "\n",
        ORIGIN "\n01\n" ROOT "\n",
        ORIGIN "\n-1\n" ROOT "\n",
        ORIGIN "\n0x1\n" ROOT "\n",
        ORIGIN "\n1 \n" ROOT "\n",
        ORIGIN "\n18446744073709551616\n" ROOT "\n",
        ORIGIN "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n",
        ORIGIN "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        ORIGIN "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxqw==\n",
        ORIGIN "\n1\n\n",
        ORIGIN "\n1\n" ROOT "\n\n",
        ORIGIN "\n1\n" ROOT "\nextension\n",
        ORIGIN "\r\n1\r\n" ROOT "\r\n",
    };
    struct checkpoint checkpoint;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CU_ASSERT_EQUAL(parse(bad[i], &checkpoint), -1);
    char text[CHECKPOINT_TEXT_MAX];
    memset(text, 'o', sizeof(text));
    memcpy(text + NOTE_NAME_MAX + 1, "\n1\n" ROOT "\n", strlen(ROOT) + 4);
    CU_ASSERT_EQUAL(checkpoint_parse(&checkpoint, text, NOTE_NAME_MAX + strlen(ROOT) + 5, NULL),
                    -1);
}

static void test_open(void)
{
    struct signer log, other, stranger;
    signer_make(&log, ORIGIN, 1);
    signer_make(&other, "example.com/other", 1);
    signer_make(&stranger, ORIGIN, 2);
    char note[NOTE_MAX];
    struct checkpoint checkpoint;
    size_t length = signer_sign(&log, EXAMPLE, note);
    CU_ASSERT_EQUAL(checkpoint_open(&checkpoint, note, length, &log.key, NULL), 0);
    CU_ASSERT_EQUAL(checkpoint.size, 20852163);
    CU_ASSERT_EQUAL(checkpoint_open(&checkpoint, note, length, &stranger.key, NULL), -1);
    CU_ASSERT_EQUAL(checkpoint_open(&checkpoint, note, length, &other.key, NULL), -1);
    // Rightly signed, but a checkpoint of another log, and no checkpoint at all.
    length = signer_sign(&other, EXAMPLE, note);
    struct error err;
    CU_ASSERT_EQUAL(checkpoint_open(&checkpoint, note, length, &other.key, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    length = signer_sign(&log, "custody bundle v1\n", note);
    CU_ASSERT_EQUAL(checkpoint_open(&checkpoint, note, length, &log.key, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the example of C2SP", test_example},
        {"the longest and the shortest", test_bounds},
        {"malformed texts are refused", test_malformed},
        {"opening signed ones", test_open},
        CU_TEST_INFO_NULL,
    };
    return tap_run("checkpoint", tests);
}
