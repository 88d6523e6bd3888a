// SPDX-License-Identifier: Apache-2.0
// Segments, the files of the log: their names (LOG DIR/NNNNNNNNNNNN.jsonl, by first index), and
// reading their lines.
#ifndef PROTO_SEGMENT_H
#define PROTO_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "record.h"

#define SEGMENT_NAME_SIZE 32 // with the NUL

// "000000000042.jsonl".
void segment_name(uint64_t first, char name[SEGMENT_NAME_SIZE]);
// The first index that a file name says; false for a name that is no segment's.
bool segment_name_parse(const char *name, uint64_t *first);

// The first indexes of the segments in the folder `dirfd`, ascending: `*firsts` is an array of
// `*count` for the caller to free(). Files that are no segments are passed over; an empty folder
// gives 0.
int segment_list(int dirfd, uint64_t **firsts, size_t *count, struct error *err);

// A line as it stands in a segment.
struct segment_line {
    const char *text; // without the newline; valid until the next call
    size_t length;
    uint64_t offset; // of its first byte in the file
    bool complete;   // a newline ends it; only the file's last line may lack one
};

struct segment_reader; // opaque; reads with a constant buffer

// Reads the segment open at `fd` (which stays the caller's, and is read with pread only) from byte
// `offset` on. Returns NULL when out of memory.
struct segment_reader *segment_reader_new(int fd, uint64_t offset);
void segment_reader_free(struct segment_reader *reader);
// The next line. Returns 1 with `line` filled, 0 at the end, -1 with `err` when reading fails. A
// line longer than RECORD_LINE_MAX comes cut, with `complete` false, as the file's last: nothing
// can be read after it.
int segment_reader_next(struct segment_reader *reader, struct segment_line *line,
                        struct error *err);

#endif
