// SPDX-License-Identifier: Apache-2.0
// Records for people and programs: rows of a table that fits 80 columns, and CSV.
#ifndef TOOLS_AUDIT_RECORD_PRINT_H
#define TOOLS_AUDIT_RECORD_PRINT_H

#include <stddef.h>

#include "record.h"

enum print_form {
    PRINT_TABLE,
    PRINT_JSON, // the lines themselves
    PRINT_CSV,  // RFC 4180
};

// The first row, where the form has one.
void record_print_head(enum print_form form);
// A record, and the line that it was parsed from.
void record_print(enum print_form form, const struct record *record, const char *line,
                  size_t length);

#endif
