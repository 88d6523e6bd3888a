// SPDX-License-Identifier: Apache-2.0
// Changes of the log's key.
#include "key_chain.h"

#include <stdbool.h>
#include <string.h>

#include <sodium.h>

#include "log_walk.h"

static bool is_signed(const uint8_t signature[NOTE_SIGNATURE_SIZE], const char *text, int length,
                      const struct note_key *key)
{
    return crypto_sign_verify_detached(signature, (const unsigned char *)text,
                                       (unsigned long long)length, key->public_key) == 0;
}

int key_chain_check(const struct record *record, const char *old_vkey, struct note_key *next,
                    struct error *err)
{
    char origin[NOTE_NAME_MAX + 1], text[NOTE_MAX];
    struct note_key old;
    if (note_key_parse(&old, old_vkey, err) != 0)
        return error_prefix(err, "the log key before the change");
    if (note_key_parse(next, record->log_vkey, err) != 0)
        return error_prefix(err, "the log key after the change");
    name_log_origin(record->host, origin, sizeof(origin));
    if (strcmp(next->name, origin) != 0)
        return error_set(err, ERROR_DATA_LOSS, "the new log key is for %s, this is the log %s",
                         next->name, origin);
    int length =
        record_key_change_text(origin, record->seq, old_vkey, record->log_vkey, text, sizeof(text));
    if (length < 0)
        return error_set(err, ERROR_DATA_LOSS, "the key change is too long to have been signed");
    if (!is_signed(record->old_signature, text, length, &old))
        return error_set(err, ERROR_DATA_LOSS,
                         "the change of the log's key is not signed by the key before, %s",
                         old_vkey);
    if (!is_signed(record->new_signature, text, length, next))
        return error_set(err, ERROR_DATA_LOSS,
                         "the change of the log's key is not signed by the new key, %s",
                         record->log_vkey);
    return 0;
}

static int follow_change(void *context, const struct record *record,
                         const struct segment_line *line, struct error *err)
{
    struct note_key *key = context, next;
    char vkey[NOTE_VKEY_MAX];
    if (record->event != RECORD_LOG_KEY_CHANGED)
        return 0;
    note_key_format(key, vkey);
    if (key_chain_check(record, vkey, &next, NULL) == 0)
        *key = next;
    return 0;
}

int key_chain_follow(const char *dir, const struct note_key *pinned, struct note_key *key,
                     struct error *err)
{
    struct log_walk_counts counts;
    *key = *pinned;
    return log_walk(dir, 0, NULL, follow_change, key, &counts, err);
}
