// SPDX-License-Identifier: Apache-2.0
// state.db: a state's canonical text (snapshot.h) as tables of SQLite, a row a line and a column a
// value, for those who want to ask.
#ifndef CUSTODY_PROJECTION_DB_H
#define CUSTODY_PROJECTION_DB_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"

struct projection_db; // opaque; of one thread

// Opens DIR/state.db, makes it when it is not there, and has SQLite check it. NULL with `err`:
// ERROR_DATA_LOSS when it is damaged or no such database, else what may be over the next time.
struct projection_db *projection_db_open(const char *dir, struct error *err);
void projection_db_close(struct projection_db *db);

// The text that the database says, NUL-terminated, the caller's to free(); `*length` without the
// NUL. NULL with `err`: ERROR_NOT_FOUND when nothing was ever stored, ERROR_DATA_LOSS when it is
// damaged. Whether the text is one of a state is for snapshot_parse to find.
char *projection_db_load(struct projection_db *db, size_t *length, struct error *err);

// Makes the database say `text`, in one transaction that touches only the rows in which it differs
// from `before`, which is what it says now; NULL: nobody knows, so every row is written anew.
int projection_db_store(struct projection_db *db, const char *before, size_t before_length,
                        const char *text, size_t length, struct error *err);

// Whether DIR/state.db still is the file that was opened.
bool projection_db_is_in_place(const struct projection_db *db);

// Renames DIR/state.db, which nobody may have open, to the first free DIR/state.db.bad-N, whose
// name goes to `name`.
#define PROJECTION_DB_NAME_SIZE 32
int projection_db_set_aside(const char *dir, char name[PROJECTION_DB_NAME_SIZE], struct error *err);

#endif
