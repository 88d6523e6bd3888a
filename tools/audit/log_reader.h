// SPDX-License-Identifier: Apache-2.0
// Walking through the log in an audit-dir: segment after segment, line after line, in constant
// memory, whatever the files hold.
#ifndef TOOLS_AUDIT_LOG_READER_H
#define TOOLS_AUDIT_LOG_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "record.h"
#include "segment.h"

// Where a line stands.
struct log_place {
    char segment[SEGMENT_NAME_SIZE]; // the file's name in DIR/log; "" for nowhere
    uint64_t line;                   // from 1; 0 for the file as a whole
};

enum log_item_kind {
    LOG_SEGMENT,    // a segment begins
    LOG_LINE,       // a line
    LOG_UNREADABLE, // a segment that is no regular file or cannot be opened; `why` says so
};

struct log_item {
    enum log_item_kind kind;
    struct log_place place;
    uint64_t first;           // index of the segment's first record, by its name
    bool last;                // no segment follows this one
    struct segment_line line; // LOG_LINE; valid until the next call
    struct error why;         // LOG_UNREADABLE
};

struct log_reader; // opaque

// Opens the log in DIR (DIR/log must be a folder). `*reader` is the caller's to close.
int log_reader_open(const char *dir, struct log_reader **reader, struct error *err);
void log_reader_close(struct log_reader *reader);
// The descriptor of DIR itself; the reader's.
int log_reader_dirfd(const struct log_reader *reader);

// Goes to the beginning of the segment that should hold record `index`.
void log_reader_seek(struct log_reader *reader, uint64_t index);
// The next item. Returns 1 with `item` filled, 0 at the end, -1 with `err` when reading fails.
int log_reader_next(struct log_reader *reader, struct log_item *item, struct error *err);

// Whether a segment begins with record `first`, by its name.
bool log_reader_has(const struct log_reader *reader, uint64_t first);
// The first index of the segment that should hold record `index`; 0 where there is none.
uint64_t log_reader_first(const struct log_reader *reader, uint64_t index);
// The last line of the segment before the one that begins with record `first`: `*length` bytes from
// line[*start] on, without its newline.
#define LOG_TAIL_MAX (RECORD_LINE_MAX + 2)
int log_reader_line_before(const struct log_reader *reader, uint64_t first, char line[LOG_TAIL_MAX],
                           size_t *start, size_t *length, struct error *err);

// Where record `index` should stand, by the segments' names.
void log_reader_place(const struct log_reader *reader, uint64_t index, struct log_place *place);

// Calls `found` for each name in DIR/log that is no segment's.
int log_reader_strays(const struct log_reader *reader,
                      void (*found)(void *context, const char *name), void *context,
                      struct error *err);

#endif
