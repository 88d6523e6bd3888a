// SPDX-License-Identifier: Apache-2.0
// The text of a log's signed head (c2sp.org/tlog-checkpoint).
#include "checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "lines.h"

size_t checkpoint_format(const struct checkpoint *checkpoint, char text[CHECKPOINT_TEXT_MAX])
{
    char root[sodium_base64_ENCODED_LEN(MERKLE_HASH_SIZE, sodium_base64_VARIANT_ORIGINAL)];
    sodium_bin2base64(root, sizeof(root), checkpoint->root.bytes, MERKLE_HASH_SIZE,
                      sodium_base64_VARIANT_ORIGINAL);
    return (size_t)snprintf(text, CHECKPOINT_TEXT_MAX, "%s\n%" PRIu64 "\n%s\n", checkpoint->origin,
                            checkpoint->size, root);
}

int checkpoint_parse(struct checkpoint *checkpoint, const char *text, size_t length,
                     struct error *err)
{
    struct lines lines = {.next = text, .left = length};
    struct line line;
    memset(checkpoint, 0, sizeof(*checkpoint));
    if (!lines_next(&lines, &line) || line.length == 0 || line.length > NOTE_NAME_MAX ||
        memchr(line.text, '\0', line.length) != NULL)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the checkpoint's first line must be its origin, 1 to %d bytes",
                         NOTE_NAME_MAX);
    memcpy(checkpoint->origin, line.text, line.length);
    if (!lines_next(&lines, &line) || !line_decimal(&line, &checkpoint->size))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the checkpoint's second line must be the number of records");
    if (!lines_next(&lines, &line) ||
        !line_base64(&line, checkpoint->root.bytes, sizeof(checkpoint->root.bytes)))
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the checkpoint's third line must be the root hash in base64");
    if (lines.left != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "the checkpoint has lines after its root hash; custody signs none");
    return 0;
}

int checkpoint_open(struct checkpoint *checkpoint, const char *note, size_t length,
                    const struct note_key *key, struct error *err)
{
    size_t text_length = 0;
    if (note_verify(note, length, key, 1, &text_length, NULL, err) != 0 ||
        checkpoint_parse(checkpoint, note, text_length, err) != 0)
        return -1;
    if (strcmp(checkpoint->origin, key->name) != 0)
        return error_set(err, ERROR_DATA_LOSS,
                         "the checkpoint is of the log %s, the key that signed it is for %s",
                         checkpoint->origin, key->name);
    return 0;
}
