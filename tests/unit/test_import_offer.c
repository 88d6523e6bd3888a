// SPDX-License-Identifier: Apache-2.0
// Offers to import a key: the one text that an offer has, read back, and every other refused.
#include "import_offer.h"

#include <string.h>

#include "checkpoint.h"
#include "tap.h"

#define HEAD   "custody import offer v1\n"
#define HOST   "host alpha\n"
#define KEY    "key wg0\n"
#define NUMBER "generation 7\n"
#define PUBLIC "public-key AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
#define BOX    "box-key AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
#define TEXT   HEAD HOST KEY NUMBER PUBLIC BOX

static void test_round_trip(void)
{
    struct import_offer offer = {.host = "alpha", .key = "wg0", .generation = 7}, again;
    char text[IMPORT_OFFER_TEXT_MAX];
    offer.public_key[0] = 1;
    offer.box_key[0] = 2;
    CU_ASSERT_EQUAL(import_offer_format(&offer, text), (int)strlen(TEXT));
    CU_ASSERT_STRING_EQUAL(text, TEXT);
    CU_ASSERT_EQUAL(import_offer_parse(&again, text, strlen(text), NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &offer, sizeof(offer)), 0);
    memset(offer.host, 'h', HOST_MAX);
    memset(offer.key, 'k', KEY_MAX);
    offer.generation = UINT64_MAX;
    CU_ASSERT(import_offer_format(&offer, text) < IMPORT_OFFER_TEXT_MAX);
    CU_ASSERT_EQUAL(import_offer_parse(&again, text, strlen(text), NULL), 0);
}

static void test_refused(void)
{
    static const char *const bad[] = {
        "",
        "custody import offer v2\n" HOST KEY NUMBER PUBLIC BOX,
        HEAD KEY HOST NUMBER PUBLIC BOX,
        HEAD HOST NUMBER PUBLIC BOX,
        HEAD "host Alpha\n" KEY NUMBER PUBLIC BOX,
        HEAD HOST "key -\n" NUMBER PUBLIC BOX,
        HEAD HOST KEY "generation 0\n" PUBLIC BOX,
        HEAD HOST KEY NUMBER "public-key -\n" BOX,
        HEAD HOST KEY NUMBER PUBLIC "box-key AgA=\n",
        TEXT "\n",
        TEXT BOX,
    };
    struct import_offer offer;
    struct error err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CU_ASSERT_EQUAL(import_offer_parse(&offer, bad[i], strlen(bad[i]), &err), -1);
        CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    }
    for (size_t length = 0; length < strlen(TEXT); length++)
        CU_ASSERT_EQUAL(import_offer_parse(&offer, TEXT, length, NULL), -1);
}

// One key signs both: neither may pass for the other.
static void test_no_checkpoint(void)
{
    struct checkpoint checkpoint = {.origin = "alpha/custody/log", .size = 7};
    struct import_offer offer;
    char text[CHECKPOINT_TEXT_MAX];
    checkpoint_format(&checkpoint, text);
    CU_ASSERT_EQUAL(import_offer_parse(&offer, text, strlen(text), NULL), -1);
    CU_ASSERT_EQUAL(checkpoint_parse(&checkpoint, TEXT, strlen(TEXT), NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"an offer's text", test_round_trip},
        {"every other text is refused", test_refused},
        {"an offer is no checkpoint", test_no_checkpoint},
        CU_TEST_INFO_NULL,
    };
    return tap_run("import offer", tests);
}
