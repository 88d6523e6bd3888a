// SPDX-License-Identifier: Apache-2.0
// The text of an approval, made from the record of the request alone.
#include "approval.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "merkle.h"
#include "sshsig.h"

#define ROOT_TEXT sodium_base64_ENCODED_LEN(MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL)

static int operation_lines(const struct record *requested, char *text, size_t size)
{
    char time[RECORD_TIME_SIZE], old_root[ROOT_TEXT], new_root[ROOT_TEXT];
    switch (requested->operation) {
    case OPERATION_KEY_DESTROY:
        if (record_time_format(requested->expires_us, time) != 0)
            return -1;
        return snprintf(text, size, "key %s\ngeneration %" PRIu64 "\nexpires %s\n", requested->key,
                        requested->generation, time);
    case OPERATION_ACCEPT_LOSS:
        sodium_bin2base64(old_root, sizeof(old_root), requested->old_root, MERKLE_HASH_SIZE,
                          sodium_base64_VARIANT_ORIGINAL);
        sodium_bin2base64(new_root, sizeof(new_root), requested->new_root, MERKLE_HASH_SIZE,
                          sodium_base64_VARIANT_ORIGINAL);
        return snprintf(text, size,
                        "old-size %" PRIu64 "\nold-root %s\nnew-size %" PRIu64 "\nnew-root %s\n",
                        requested->old_size, old_root, requested->new_size, new_root);
    default:
        return -1;
    }
}

// With an empty id the request line is left out.
static int format(const struct record *requested, const char *id, char text[APPROVAL_TEXT_MAX])
{
    char lines[APPROVAL_TEXT_MAX / 2];
    int length = operation_lines(requested, lines, sizeof(lines));
    if (length < 0 || (size_t)length >= sizeof(lines))
        return -1;
    length =
        snprintf(text, APPROVAL_TEXT_MAX, "custody approval v1\nhost %s\n%s%s%soperation %s\n%s",
                 requested->host, id[0] != '\0' ? "request " : "", id, id[0] != '\0' ? "\n" : "",
                 record_operation_name(requested->operation), lines);
    return length < 0 || length >= APPROVAL_TEXT_MAX ? -1 : length;
}

int approval_text(const struct record *requested, char text[APPROVAL_TEXT_MAX])
{
    return format(requested, requested->request_id, text);
}

int approval_loss_id(const struct record *requested, char request_id[RECORD_REQUEST_MAX + 1])
{
    char text[APPROVAL_TEXT_MAX];
    uint8_t digest[crypto_hash_sha256_BYTES];
    int length = format(requested, "", text);
    if (length < 0)
        return -1;
    crypto_hash_sha256(digest, (const uint8_t *)text, (unsigned long long)length);
    sodium_bin2hex(request_id, RECORD_REQUEST_MAX + 1, digest, RECORD_REQUEST_MAX / 2);
    return 0;
}

int approval_verify(const struct record *requested, const struct record *given, struct error *err)
{
    char text[APPROVAL_TEXT_MAX];
    int length = approval_text(requested, text);
    if (length < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "request %s has no text to approve",
                         requested->request_id);
    if (strcmp(requested->request_id, given->request_id) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the approval is of request %s, not of %s",
                         given->request_id, requested->request_id);
    return sshsig_verify(given->operator_key, APPROVAL_NAMESPACE, text, (size_t)length,
                         given->signature, err);
}
