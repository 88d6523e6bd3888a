// SPDX-License-Identifier: Apache-2.0
// The blob store in the token.
#include "blobs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

#define PREFIX_KEY "custody-key/"
#define PREFIX_NEW "custody-new/"
#define LABEL_MAX  128 // bytes with the NUL: a prefix, a key's name, '/', 20 digits

struct blobs {
    struct token *token;
    size_t count;
    struct blob list[BLOBS_MAX];
};

static void format_label(char label[LABEL_MAX], const char *key, uint64_t generation, bool adopted)
{
    snprintf(label, LABEL_MAX, "%s%s/%" PRIu64, adopted ? PREFIX_KEY : PREFIX_NEW, key, generation);
}

bool blobs_parse_label(const char *label, struct blob *blob)
{
    memset(blob, 0, sizeof(*blob));
    if (strncmp(label, PREFIX_KEY, strlen(PREFIX_KEY)) == 0)
        blob->adopted = true;
    else if (strncmp(label, PREFIX_NEW, strlen(PREFIX_NEW)) != 0)
        return false;
    const char *key = label + strlen(PREFIX_KEY);
    const char *slash = strchr(key, '/');
    if (slash == NULL || (size_t)(slash - key) > KEY_MAX)
        return false;
    memcpy(blob->key, key, (size_t)(slash - key));
    char *end = NULL;
    blob->generation = strtoull(slash + 1, &end, 10);
    // Only the one way to write it: otherwise two labels could be one blob.
    char again[LABEL_MAX];
    format_label(again, blob->key, blob->generation, blob->adopted);
    return name_is_key(blob->key) && blob->generation > 0 && strcmp(again, label) == 0;
}

static int compare(const struct blob *a, const struct blob *b)
{
    int order = strcmp(a->key, b->key);
    if (order != 0)
        return order;
    if (a->generation != b->generation)
        return a->generation < b->generation ? -1 : 1;
    return (int)b->adopted - (int)a->adopted;
}

static int insert(struct blobs *blobs, const struct blob *blob, struct error *err)
{
    if (blobs->count == BLOBS_MAX)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED,
                         "the token holds %d blobs, which is all that it may", BLOBS_MAX);
    size_t at = blobs->count;
    while (at > 0 && compare(blob, &blobs->list[at - 1]) < 0)
        at--;
    memmove(&blobs->list[at + 1], &blobs->list[at], (blobs->count - at) * sizeof(*blob));
    blobs->list[at] = *blob;
    blobs->count++;
    return 0;
}

static void remove_at(struct blobs *blobs, size_t at)
{
    blobs->count--;
    memmove(&blobs->list[at], &blobs->list[at + 1], (blobs->count - at) * sizeof(blobs->list[0]));
}

// Reads an attribute as a string; "" when the object has none.
static int read_text(struct token *token, CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type,
                     char *text, size_t size, struct error *err)
{
    size_t length = 0;
    int got = object_read(token, handle, type, text, size - 1, &length, err);
    if (got < 0)
        return -1;
    text[got == 0 ? length : 0] = '\0';
    return 0;
}

// Fills in the purpose, or marks the blob torn.
static int inspect_value(struct token *token, struct blob *blob, struct error *err)
{
    uint8_t value[SEALED_MAX];
    size_t length = 0;
    struct sealed sealed;
    int got = object_read(token, blob->handle, CKA_VALUE, value, sizeof(value), &length, err);
    if (got < 0)
        return -1;
    if (got == 1 || sealed_parse(&sealed, value, length, NULL) != 0)
        blob->torn = true;
    else
        blob->purpose = sealed.purpose;
    return 0;
}

// Takes a data object into the list when it is a blob of ours or what a crash left of one.
static int take(struct blobs *blobs, CK_OBJECT_HANDLE handle, struct error *err)
{
    char application[32], label[LABEL_MAX];
    struct blob blob;
    if (read_text(blobs->token, handle, CKA_APPLICATION, application, sizeof(application), err) ||
        read_text(blobs->token, handle, CKA_LABEL, label, sizeof(label), err))
        return -1;
    bool named = blobs_parse_label(label, &blob);
    if (application[0] != '\0' && strcmp(application, OBJECT_APPLICATION) != 0)
        return 0; // somebody else's
    if (!named) {
        if (label[0] != '\0')
            return 0; // custody-head, or somebody else's
        memset(&blob, 0, sizeof(blob));
        blob.torn = true;
    }
    blob.handle = handle;
    if (!blob.torn && inspect_value(blobs->token, &blob, err) != 0)
        return -1;
    return insert(blobs, &blob, err);
}

int blobs_open(struct token *token, struct blobs **out, struct error *err)
{
    int result = -1;
    size_t count = 0;
    struct blobs *blobs = calloc(1, sizeof(*blobs));
    CK_OBJECT_HANDLE *handles = calloc(2 * BLOBS_MAX, sizeof(*handles));
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_ATTRIBUTE attributes[] = {{CKA_CLASS, &class, sizeof(class)}};
    if (blobs == NULL || handles == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        goto cleanup;
    }
    blobs->token = token;
    if (object_find(token, attributes, 1, handles, 2 * BLOBS_MAX, &count, err) != 0)
        goto cleanup;
    for (size_t i = 0; i < count; i++)
        if (take(blobs, handles[i], err) != 0)
            goto cleanup;
    *out = blobs;
    blobs = NULL;
    result = 0;
cleanup:
    free(handles);
    blobs_close(blobs);
    return result;
}

void blobs_close(struct blobs *blobs)
{
    free(blobs);
}

size_t blobs_count(const struct blobs *blobs)
{
    return blobs->count;
}

const struct blob *blobs_at(const struct blobs *blobs, size_t index)
{
    return index < blobs->count ? &blobs->list[index] : NULL;
}

size_t blobs_adopted(const struct blobs *blobs)
{
    size_t adopted = 0;
    for (size_t i = 0; i < blobs->count; i++)
        adopted += blobs->list[i].adopted && !blobs->list[i].torn;
    return adopted;
}

size_t blobs_named(const struct blobs *blobs)
{
    size_t named = 0;
    for (size_t i = 0; i < blobs->count; i++)
        named += blobs->list[i].key[0] != '\0';
    return named;
}

const struct blob *blobs_find(const struct blobs *blobs, const char *key, uint64_t generation,
                              bool adopted)
{
    for (size_t i = 0; i < blobs->count; i++) {
        const struct blob *blob = &blobs->list[i];
        if (blob->generation == generation && blob->adopted == adopted &&
            strcmp(blob->key, key) == 0)
            return blob;
    }
    return NULL;
}

uint64_t blobs_highest(const struct blobs *blobs, const char *key)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < blobs->count; i++)
        if (strcmp(blobs->list[i].key, key) == 0 && blobs->list[i].generation > highest)
            highest = blobs->list[i].generation;
    return highest;
}

size_t blobs_above(const struct blobs *blobs, const char *key, uint64_t generation)
{
    size_t above = 0;
    for (size_t i = 0; i < blobs->count; i++) {
        const struct blob *blob = &blobs->list[i];
        if (blob->adopted && blob->generation > generation && strcmp(blob->key, key) == 0)
            above++;
    }
    return above;
}

int blobs_read(struct blobs *blobs, const struct blob *blob, uint8_t value[SEALED_MAX],
               size_t *length, struct error *err)
{
    int got = blob->torn ? 1
                         : object_read(blobs->token, blob->handle, CKA_VALUE, value, SEALED_MAX,
                                       length, err);
    if (got == 1)
        return error_set(err, ERROR_DATA_LOSS,
                         "the token's object for %s generation %" PRIu64
                         " is torn: a crash left it without its value",
                         blob->key, blob->generation);
    return got;
}

// Stores `value` under a label and takes it into the list.
static int store(struct blobs *blobs, const char *key, uint64_t generation, bool adopted,
                 const uint8_t *value, size_t length, struct error *err)
{
    struct blob blob = {.generation = generation, .adopted = adopted};
    struct sealed sealed;
    if (sealed_parse(&sealed, value, length, err) != 0)
        return -1;
    blob.purpose = sealed.purpose;
    snprintf(blob.key, sizeof(blob.key), "%s", key);
    if (blobs->count == BLOBS_MAX)
        return insert(blobs, &blob, err); // says that it is full
    char label[LABEL_MAX];
    format_label(label, key, generation, adopted);
    if (object_create_data(blobs->token, label, value, length, &blob.handle, err) != 0)
        return -1;
    return insert(blobs, &blob, err);
}

int blobs_create(struct blobs *blobs, const char *key, uint64_t generation, const uint8_t *value,
                 size_t length, struct error *err)
{
    return store(blobs, key, generation, false, value, length, err);
}

// Destroys one listed object, and takes it off the list.
static int destroy_one(struct blobs *blobs, const struct blob *blob, struct error *err)
{
    if (object_destroy(blobs->token, blob->handle, err) != 0)
        return -1;
    remove_at(blobs, (size_t)(blob - blobs->list));
    return 0;
}

int blobs_adopt(struct blobs *blobs, const char *key, uint64_t generation, struct error *err)
{
    const struct blob *fresh = blobs_find(blobs, key, generation, false);
    if (fresh == NULL)
        return error_set(err, ERROR_NOT_FOUND, "the token holds no new key %s generation %" PRIu64,
                         key, generation);
    uint8_t value[SEALED_MAX];
    size_t length = 0;
    if (blobs_read(blobs, fresh, value, &length, err) != 0 ||
        store(blobs, key, generation, true, value, length, err) != 0)
        return -1;
    // The list has moved: look it up again. What stays behind if this fails is a leftover and no
    // harm.
    fresh = blobs_find(blobs, key, generation, false);
    return fresh != NULL ? destroy_one(blobs, fresh, err) : 0;
}

int blobs_destroy(struct blobs *blobs, const char *key, uint64_t generation, struct error *err)
{
    bool found = false;
    for (int adopted = 0; adopted < 2; adopted++) {
        const struct blob *blob;
        while ((blob = blobs_find(blobs, key, generation, adopted != 0)) != NULL) {
            found = true;
            if (destroy_one(blobs, blob, err) != 0)
                return -1;
        }
    }
    if (!found)
        return error_set(err, ERROR_NOT_FOUND, "the token holds no key %s generation %" PRIu64, key,
                         generation);
    return 0;
}
