// SPDX-License-Identifier: Apache-2.0
// Fuzzes what operators sign: two lines, each a request; equal texts are of equal requests, and an
// approval of one approves nothing else.
#include <stdlib.h>
#include <string.h>

#include "approval.h"
#include "fuzz.h"
#include "name.h"
#include "ssh_signer.h"

// A request that the log's state would take, as far as its text goes; false when the line is none.
static bool read_request(const char *line, struct record *record)
{
    return line != NULL && record_parse(record, line, strlen(line), NULL) == 0 &&
           name_is_host(record->host) && strlen(record->request_id) == RECORD_REQUEST_MAX &&
           (record->operation != OPERATION_KEY_DESTROY || name_is_key(record->key));
}

static bool is_same(const struct record *a, const struct record *b)
{
    if (strcmp(a->host, b->host) != 0 || strcmp(a->request_id, b->request_id) != 0 ||
        a->operation != b->operation)
        return false;
    if (a->operation == OPERATION_KEY_DESTROY)
        return strcmp(a->key, b->key) == 0 && a->generation == b->generation &&
               a->expires_us == b->expires_us;
    return a->old_size == b->old_size && a->new_size == b->new_size &&
           memcmp(a->old_root, b->old_root, sizeof(a->old_root)) == 0 &&
           memcmp(a->new_root, b->new_root, sizeof(a->new_root)) == 0;
}

static void approve(const struct record *requested, struct record *given)
{
    static struct ssh_signer signer;
    char text[APPROVAL_TEXT_MAX];
    if (signer.blob_size == 0)
        ssh_signer_make(&signer, 5);
    int length = approval_text(requested, text);
    memset(given, 0, sizeof(*given));
    given->event = RECORD_APPROVAL_GIVEN;
    strcpy(given->request_id, requested->request_id);
    strcpy(given->operator_key, signer.public_key);
    ssh_signer_sign(&signer, APPROVAL_NAMESPACE, text, (size_t)length, given->signature);
}

static void fuzz_two(const struct record *a, const struct record *b, uint64_t choice)
{
    char text_a[APPROVAL_TEXT_MAX], text_b[APPROVAL_TEXT_MAX];
    struct record given;
    int length_a = approval_text(a, text_a), length_b = approval_text(b, text_b);
    if (length_a < 0 || length_b < 0)
        return;
    REQUIRE((size_t)length_a == strlen(text_a) && text_a[length_a - 1] == '\n');
    REQUIRE((strcmp(text_a, text_b) == 0) == is_same(a, b));
    approve(a, &given);
    REQUIRE(approval_verify(a, &given, NULL) == 0);
    REQUIRE((approval_verify(b, &given, NULL) == 0) == is_same(a, b));
    fuzz_flip(given.signature, strlen(given.signature), choice);
    REQUIRE(approval_verify(a, &given, NULL) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct record a, b;
    char id[RECORD_REQUEST_MAX + 1];
    char *first = input_line(&input), *second = input_line(&input);
    if (read_request(first, &a)) {
        if (a.operation != OPERATION_NONE && approval_loss_id(&a, id) == 0)
            REQUIRE(strlen(id) == RECORD_REQUEST_MAX);
        if (read_request(second, &b))
            fuzz_two(&a, &b, fuzz_hash(data, size));
        fuzz_two(&a, &a, fuzz_hash(data, size));
    }
    free(first);
    free(second);
    return 0;
}
