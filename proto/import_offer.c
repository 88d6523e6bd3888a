// SPDX-License-Identifier: Apache-2.0
// The text of an offer to import a private key: written, and read strictly.
#include "import_offer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"
#include "name.h"

#define BASE64_SIZE sodium_base64_ENCODED_LEN(RECORD_KEY_SIZE, sodium_base64_VARIANT_ORIGINAL)

int import_offer_format(const struct import_offer *offer, char text[IMPORT_OFFER_TEXT_MAX])
{
    char public_key[BASE64_SIZE], box_key[BASE64_SIZE];
    sodium_bin2base64(public_key, sizeof(public_key), offer->public_key, RECORD_KEY_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    sodium_bin2base64(box_key, sizeof(box_key), offer->box_key, RECORD_KEY_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    return snprintf(text, IMPORT_OFFER_TEXT_MAX,
                    "custody import offer v1\n"
                    "host %s\n"
                    "key %s\n"
                    "generation %" PRIu64 "\n"
                    "public-key %s\n"
                    "box-key %s\n",
                    offer->host, offer->key, offer->generation, public_key, box_key);
}

// The name of the first line that is wrong, or NULL.
static const char *parse_lines(struct import_offer *offer, struct lines *lines)
{
    struct line value;
    if (!lines_take(lines, "custody import offer v1", &value) || value.length != 0)
        return "custody import offer v1";
    if (!lines_take_text(lines, "host ", offer->host, sizeof(offer->host)) ||
        !name_is_host(offer->host))
        return "host";
    if (!lines_take_text(lines, "key ", offer->key, sizeof(offer->key)) || !name_is_key(offer->key))
        return "key";
    if (!lines_take(lines, "generation ", &value) || !line_decimal(&value, &offer->generation) ||
        offer->generation == 0)
        return "generation";
    if (!lines_take(lines, "public-key ", &value) ||
        !line_base64(&value, offer->public_key, sizeof(offer->public_key)))
        return "public-key";
    return lines_take(lines, "box-key ", &value) &&
                   line_base64(&value, offer->box_key, sizeof(offer->box_key))
               ? NULL
               : "box-key";
}

int import_offer_parse(struct import_offer *offer, const char *text, size_t length,
                       struct error *err)
{
    memset(offer, 0, sizeof(*offer));
    struct lines lines = {.next = text, .left = length};
    const char *wrong = parse_lines(offer, &lines);
    if (wrong != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the import offer's line \"%s\" is missing, out of place or wrong", wrong);
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the import offer has more lines than it should");
    return 0;
}
