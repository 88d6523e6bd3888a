// SPDX-License-Identifier: Apache-2.0
// Beginning in the middle of a log.
#include "kept_head.h"

#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "snapshot_file.h"

// Reads the log.sealed before record `first` and checks that the stored tiles have its leaf.
static int read_sealed(const struct log_reader *reader, uint64_t first,
                       const struct merkle_hash *root, struct record *sealed, struct error *err)
{
    size_t at, length;
    char *line = malloc(LOG_TAIL_MAX);
    int result = -1;
    if (line == NULL)
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (log_reader_line_before(reader, first, line, &at, &length, err) != 0 ||
        record_parse(sealed, line + at, length, err) != 0)
        goto cleanup;
    if (sealed->event != RECORD_LOG_SEALED || sealed->seq + 1 != first) {
        error_set(err, ERROR_NOT_FOUND, "no log.sealed ends the segment before");
        goto cleanup;
    }
    struct merkle_hash leaf = merkle_leaf(line + at, length);
    result = log_tree_stored_leaf(log_reader_dirfd(reader), first - 1, first, &leaf, root, err);
cleanup:
    free(line);
    return result;
}

int kept_head_start(struct log_reader *reader, const struct checkpoint *kept, struct log_tree *tree,
                    struct kept_start *start, struct error *err)
{
    struct record sealed;
    start->state = NULL;
    start->first = log_reader_first(reader, kept->size);
    if (start->first == 0)
        return 0;
    if (log_tree_begin(tree, start->first, err) != 0)
        return -1;
    struct merkle_hash root = log_tree_root(tree);
    if (read_sealed(reader, start->first, &root, &sealed, err) != 0)
        return -1;
    start->state = snapshot_file_state(log_reader_dirfd(reader), &sealed, err);
    if (start->state == NULL)
        return -1;
    log_reader_seek(reader, start->first);
    return 0;
}
