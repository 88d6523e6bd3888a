// SPDX-License-Identifier: Apache-2.0
// Lines to rows and back.
#include "projection_db.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "lines.h"

#define FORMAT      2 // PRAGMA user_version, once something was stored
#define BUSY_MS     1000
#define FIELDS_MAX  12
#define ASIDE_MAX   99 // then the last name is used again
#define HEAD_LINES  6
#define PATH_LENGTH (PATH_MAX + PROJECTION_DB_NAME_SIZE + 8) // and "-wal"

// What is never larger than a log has records is an INTEGER; 64 bits without a sign do not fit one.
static const char schema[] =
    "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS keys(name TEXT, generation INTEGER, state TEXT, purpose TEXT,"
    " public_key TEXT, generated TEXT, activated TEXT, deactivated TEXT, releases INTEGER,"
    " released TEXT, PRIMARY KEY(name, generation)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS rotations(key TEXT PRIMARY KEY, generation INTEGER, reason TEXT,"
    " started TEXT, ended TEXT, failures INTEGER, confirmed INTEGER, suspended TEXT,"
    " bundle_generation INTEGER, bundle_state TEXT, bundle_sha256 TEXT, ticket TEXT) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS peers(key TEXT, host TEXT, peer_key TEXT, generation TEXT,"
    " state TEXT, public_key TEXT, staged TEXT, moved TEXT, retired TEXT,"
    " PRIMARY KEY(key, host, peer_key, generation)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS psks(key TEXT, host TEXT, peer_key TEXT, made TEXT, received TEXT,"
    " epoch_set TEXT, destroyed TEXT, made_time TEXT, received_time TEXT, set_time TEXT,"
    " PRIMARY KEY(key, host, peer_key)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS leases(lease TEXT, key TEXT, generation INTEGER,"
    " seq INTEGER PRIMARY KEY, expires TEXT, uid INTEGER, pid INTEGER);"
    "CREATE TABLE IF NOT EXISTS requests(id TEXT, operation TEXT, key TEXT, generation INTEGER,"
    " uid INTEGER, requested TEXT, expires TEXT, old_size TEXT, old_root TEXT, new_size TEXT,"
    " new_root TEXT, place INTEGER PRIMARY KEY);"
    "CREATE TABLE IF NOT EXISTS approvals(operator_key_sha256 TEXT, uid INTEGER, operator TEXT,"
    " request INTEGER, place INTEGER, PRIMARY KEY(request, place)) WITHOUT ROWID;";

enum query {
    BEGIN,
    COMMIT,
    ROLLBACK,
    READ_FORMAT,
    READ_META,
    READ_KEYS,
    READ_ROTATIONS,
    READ_PEERS,
    READ_PSKS,
    READ_LEASES,
    READ_REQUESTS,
    READ_APPROVALS,
    PUT_META,
    PUT_KEY,
    PUT_ROTATION,
    PUT_PEER,
    PUT_PSK,
    PUT_LEASE,
    PUT_REQUEST,
    PUT_APPROVAL,
    DELETE_KEY,
    DELETE_ROTATION,
    DELETE_PEER,
    DELETE_PSK,
    DELETE_LEASE,
    CLEAR_META,
    CLEAR_KEYS,
    CLEAR_ROTATIONS,
    CLEAR_PEERS,
    CLEAR_PSKS,
    CLEAR_LEASES,
    CLEAR_REQUESTS,
    CLEAR_APPROVALS,
    QUERIES
};

static const char *const texts[QUERIES] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [READ_FORMAT] = "PRAGMA user_version",
    [READ_META] = "SELECT value FROM meta WHERE name = ?1",
    [READ_KEYS] = "SELECT name, generation, state, purpose, public_key, generated, activated,"
                  " deactivated, releases, released FROM keys ORDER BY name, generation",
    [READ_ROTATIONS] = "SELECT key, generation, reason, started, ended, failures, confirmed,"
                       " suspended, bundle_generation, bundle_state, bundle_sha256, ticket"
                       " FROM rotations ORDER BY key",
    [READ_PEERS] = "SELECT key, host, peer_key, generation, state, public_key, staged, moved,"
                   " retired FROM peers ORDER BY key, host, peer_key, length(generation),"
                   " generation",
    [READ_PSKS] = "SELECT key, host, peer_key, made, received, epoch_set, destroyed, made_time,"
                  " received_time, set_time FROM psks ORDER BY key, host, peer_key",
    [READ_LEASES] = "SELECT lease, key, generation, seq, expires, uid, pid FROM leases"
                    " ORDER BY seq",
    [READ_REQUESTS] = "SELECT id, operation, key, generation, uid, requested, expires, old_size,"
                      " old_root, new_size, new_root FROM requests ORDER BY place",
    [READ_APPROVALS] = "SELECT operator_key_sha256, uid, operator FROM approvals"
                       " WHERE request = ?1 ORDER BY place",
    [PUT_META] = "REPLACE INTO meta VALUES(?1, ?2)",
    [PUT_KEY] = "REPLACE INTO keys VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [PUT_ROTATION] = "REPLACE INTO rotations VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,"
                     " ?12)",
    [PUT_PEER] = "REPLACE INTO peers VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [PUT_PSK] = "REPLACE INTO psks VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    [PUT_LEASE] = "REPLACE INTO leases VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [PUT_REQUEST] = "INSERT INTO requests VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,"
                    " (SELECT count(*) FROM requests))",
    [PUT_APPROVAL] = "INSERT INTO approvals VALUES(?1, ?2, ?3, (SELECT max(place) FROM requests),"
                     " (SELECT count(*) FROM approvals))",
    [DELETE_KEY] = "DELETE FROM keys WHERE name = ?1 AND generation = ?2",
    [DELETE_ROTATION] = "DELETE FROM rotations WHERE key = ?1",
    [DELETE_PEER] = "DELETE FROM peers WHERE key = ?1 AND host = ?2 AND peer_key = ?3"
                    " AND generation = ?4",
    [DELETE_PSK] = "DELETE FROM psks WHERE key = ?1 AND host = ?2 AND peer_key = ?3",
    [DELETE_LEASE] = "DELETE FROM leases WHERE lease = ?1 AND seq = ?4",
    [CLEAR_META] = "DELETE FROM meta",
    [CLEAR_KEYS] = "DELETE FROM keys",
    [CLEAR_ROTATIONS] = "DELETE FROM rotations",
    [CLEAR_PEERS] = "DELETE FROM peers",
    [CLEAR_PSKS] = "DELETE FROM psks",
    [CLEAR_LEASES] = "DELETE FROM leases",
    [CLEAR_REQUESTS] = "DELETE FROM requests",
    [CLEAR_APPROVALS] = "DELETE FROM approvals",
};

static const char *const head_names[HEAD_LINES - 1] = {"size", "time", "host", "log-vkey",
                                                       "host-vkey"};

struct projection_db {
    char path[PATH_LENGTH];
    sqlite3 *handle;
    sqlite3_stmt *queries[QUERIES];
    dev_t device;
    ino_t inode;
};

// ---- SQLite's calls ----

static int fail(const struct projection_db *db, struct error *err)
{
    int result = sqlite3_errcode(db->handle);
    // SQLITE_ERROR is what a database of other tables than ours gives: the queries are constant.
    bool damaged = result == SQLITE_CORRUPT || result == SQLITE_NOTADB || result == SQLITE_ERROR ||
                   result == SQLITE_MISMATCH || result == SQLITE_CONSTRAINT;
    return error_set(err, damaged ? ERROR_DATA_LOSS : ERROR_UNAVAILABLE, "%.300s: %.200s", db->path,
                     sqlite3_errmsg(db->handle));
}

// One step of a query: 1 with a row, 0 when it is done, -1.
static int step(struct projection_db *db, enum query query, struct error *err)
{
    int result = sqlite3_step(db->queries[query]);
    if (result == SQLITE_ROW)
        return 1;
    if (result != SQLITE_DONE)
        fail(db, err);
    sqlite3_reset(db->queries[query]);
    return result == SQLITE_DONE ? 0 : -1;
}

static int run(struct projection_db *db, enum query query, struct error *err)
{
    return step(db, query, err) == 0 ? 0 : -1;
}

static int execute(struct projection_db *db, const char *sql, struct error *err)
{
    return sqlite3_exec(db->handle, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(db, err);
}

// ---- opening ----

static int make_path(const char *dir, const char *name, char path[PATH_LENGTH], struct error *err)
{
    int n = snprintf(path, PATH_LENGTH, "%s/%s", dir, name);
    return n < PATH_LENGTH - 8
               ? 0
               : error_set(err, ERROR_INVALID_ARGUMENT, "%.300s…: the path is too long", dir);
}

// A write-ahead log whose database is gone belongs to nothing.
static void remove_orphans(const char *dir)
{
    char path[PATH_LENGTH];
    struct stat st;
    if (make_path(dir, "state.db", path, NULL) != 0 || stat(path, &st) == 0 || errno != ENOENT)
        return;
    strcat(path, "-wal");
    unlink(path);
    memcpy(path + strlen(path) - 3, "shm", 3);
    unlink(path);
}

// The file may have been made by anybody who can write to the folder: nothing in it is run.
static void distrust(sqlite3 *handle)
{
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
}

static int check_integrity(struct projection_db *db, struct error *err)
{
    sqlite3_stmt *check;
    if (sqlite3_prepare_v2(db->handle, "PRAGMA integrity_check(1)", -1, &check, NULL) != SQLITE_OK)
        return fail(db, err);
    int result = sqlite3_step(check) == SQLITE_ROW ? 0 : fail(db, err);
    const char *word = result == 0 ? (const char *)sqlite3_column_text(check, 0) : NULL;
    if (result == 0 && (word == NULL || strcmp(word, "ok") != 0))
        result = error_set(err, ERROR_DATA_LOSS, "%.300s: %.200s", db->path,
                           word != NULL ? word : "no answer to integrity_check");
    sqlite3_finalize(check);
    return result;
}

// The projection can be had again at any time: that it is consistent is enough, and SQLite promises
// that of WAL with synchronous=NORMAL, which does not wait for the disk at each transaction. It is
// locked for as long as it is open, so that the WAL's index is in memory and not in a mapped file:
// where a disk is full that copies on write (btrfs under a quota: seen), storing into such a
// mapping kills the process by SIGBUS.
static int prepare(struct projection_db *db, struct error *err)
{
    struct stat st;
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    distrust(db->handle);
    if (execute(db,
                "PRAGMA mmap_size=0; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
                "PRAGMA synchronous=NORMAL;"
                "PRAGMA journal_size_limit=1048576",
                err) != 0 ||
        check_integrity(db, err) != 0 || execute(db, schema, err) != 0)
        return -1;
    for (int i = 0; i < QUERIES; i++)
        if (sqlite3_prepare_v3(db->handle, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &db->queries[i],
                               NULL) != SQLITE_OK)
            return fail(db, err);
    if (stat(db->path, &st) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "%.300s: %s", db->path, strerror(errno));
    db->device = st.st_dev;
    db->inode = st.st_ino;
    return 0;
}

struct projection_db *projection_db_open(const char *dir, struct error *err)
{
    struct projection_db *db = calloc(1, sizeof(*db));
    if (db == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for state.db");
        return NULL;
    }
    if (make_path(dir, "state.db", db->path, err) != 0) {
        free(db);
        return NULL;
    }
    remove_orphans(dir);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(db->path, &db->handle, flags, NULL) != SQLITE_OK) {
        if (db->handle != NULL)
            fail(db, err);
        else
            error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory for state.db");
    } else if (prepare(db, err) == 0) {
        return db;
    }
    projection_db_close(db);
    return NULL;
}

void projection_db_close(struct projection_db *db)
{
    if (db == NULL)
        return;
    for (int i = 0; i < QUERIES; i++)
        sqlite3_finalize(db->queries[i]);
    sqlite3_close(db->handle);
    free(db);
}

bool projection_db_is_in_place(const struct projection_db *db)
{
    struct stat st;
    return stat(db->path, &st) == 0 && st.st_dev == db->device && st.st_ino == db->inode;
}

// ---- reading ----

// A row as a line: the kind and the columns, "-" for what is absent.
static void print_row(FILE *out, const char *kind, sqlite3_stmt *row)
{
    fputs(kind, out);
    for (int i = 0; i < sqlite3_column_count(row); i++) {
        const void *text = sqlite3_column_text(row, i);
        int length = sqlite3_column_bytes(row, i);
        putc(' ', out);
        fwrite(text != NULL ? text : "-", 1, text != NULL ? (size_t)length : 1, out);
    }
    putc('\n', out);
}

static int print_head(struct projection_db *db, FILE *out, struct error *err)
{
    sqlite3_stmt *query = db->queries[READ_META];
    fputs("custody state v1\n", out);
    for (size_t i = 0; i < sizeof(head_names) / sizeof(*head_names); i++) {
        sqlite3_bind_text(query, 1, head_names[i], -1, SQLITE_STATIC);
        int more = step(db, READ_META, err);
        if (more < 0)
            return -1;
        if (more == 0)
            return error_set(err, ERROR_DATA_LOSS, "%.300s: table meta has no %s", db->path,
                             head_names[i]);
        print_row(out, head_names[i], query);
        sqlite3_reset(query);
    }
    return 0;
}

static int print_rows(struct projection_db *db, enum query query, const char *kind, FILE *out,
                      struct error *err)
{
    int more;
    while ((more = step(db, query, err)) == 1)
        print_row(out, kind, db->queries[query]);
    return more;
}

static int print_requests(struct projection_db *db, FILE *out, struct error *err)
{
    int more;
    for (sqlite3_int64 place = 0; (more = step(db, READ_REQUESTS, err)) == 1; place++) {
        print_row(out, "request", db->queries[READ_REQUESTS]);
        sqlite3_bind_int64(db->queries[READ_APPROVALS], 1, place);
        if (print_rows(db, READ_APPROVALS, "approval", out, err) == 0)
            continue;
        sqlite3_reset(db->queries[READ_REQUESTS]);
        return -1;
    }
    return more;
}

static int print_all(struct projection_db *db, FILE *out, struct error *err)
{
    if (step(db, READ_FORMAT, err) != 1)
        return -1;
    int format = sqlite3_column_int(db->queries[READ_FORMAT], 0);
    sqlite3_reset(db->queries[READ_FORMAT]);
    if (format == 0)
        return error_set(err, ERROR_NOT_FOUND, "%.300s holds nothing yet", db->path);
    if (format != FORMAT)
        return error_set(err, ERROR_DATA_LOSS, "%.300s: format %d is not known", db->path, format);
    if (print_head(db, out, err) != 0 || print_rows(db, READ_KEYS, "key", out, err) != 0 ||
        print_rows(db, READ_ROTATIONS, "rotation", out, err) != 0 ||
        print_rows(db, READ_PEERS, "peer", out, err) != 0 ||
        print_rows(db, READ_PSKS, "psk", out, err) != 0 ||
        print_rows(db, READ_LEASES, "lease", out, err) != 0)
        return -1;
    return print_requests(db, out, err);
}

char *projection_db_load(struct projection_db *db, size_t *length, struct error *err)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);
    if (out == NULL) {
        error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read state.db");
        return NULL;
    }
    int result = print_all(db, out, err);
    bool short_of_memory = ferror(out) != 0;
    if ((fclose(out) != 0 || short_of_memory) && result == 0)
        result = error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read state.db");
    if (result == 0)
        return text;
    free(text);
    return NULL;
}

// ---- writing ----

// A text cut where its kinds of lines change.
struct sections {
    struct lines head, keys, rotations, peers, psks, leases, requests;
};

static struct lines cut(struct lines *lines, size_t count, const char *prefix)
{
    struct lines section = *lines, rest = *lines;
    struct line line;
    while (count-- > 0 && lines_next(&rest, &line) && line_skip(&line, prefix))
        *lines = rest;
    section.left -= lines->left;
    return section;
}

static struct sections cut_sections(const char *text, size_t length)
{
    struct lines lines = {.next = text, .left = length};
    struct sections sections;
    sections.head = cut(&lines, HEAD_LINES, "");
    sections.keys = cut(&lines, SIZE_MAX, "key ");
    sections.rotations = cut(&lines, SIZE_MAX, "rotation ");
    sections.peers = cut(&lines, SIZE_MAX, "peer ");
    sections.psks = cut(&lines, SIZE_MAX, "psk ");
    sections.leases = cut(&lines, SIZE_MAX, "lease ");
    sections.requests = lines;
    return sections;
}

struct row {
    struct line line;
    struct line fields[FIELDS_MAX];
};

// The next line and its fields behind the kind; the last field may hold blanks.
static bool next_row(struct lines *lines, size_t fields, struct row *row)
{
    if (!lines_next(lines, &row->line))
        return false;
    struct line rest = row->line;
    for (size_t i = 0; i <= fields; i++) {
        const char *blank = i < fields ? memchr(rest.text, ' ', rest.length) : NULL;
        struct line field = rest;
        if (blank != NULL)
            field.length = (size_t)(blank - rest.text);
        if (i > 0)
            row->fields[i - 1] = field;
        size_t used = field.length + (blank != NULL);
        rest.text += used;
        rest.length -= used;
    }
    return true;
}

// Binds what the query has places for; numbers become such by their column.
static int put_row(struct projection_db *db, enum query query, const struct row *row,
                   struct error *err)
{
    sqlite3_stmt *statement = db->queries[query];
    for (int i = 0; i < sqlite3_bind_parameter_count(statement); i++) {
        const struct line *field = &row->fields[i];
        int bound = field->length == 1 && field->text[0] == '-'
                        ? sqlite3_bind_null(statement, i + 1)
                        : sqlite3_bind_text(statement, i + 1, field->text, (int)field->length,
                                            SQLITE_STATIC);
        if (bound != SQLITE_OK)
            return fail(db, err);
    }
    return run(db, query, err);
}

static int compare_lines(const struct line *a, const struct line *b)
{
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter);
    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

// Decimal numbers without leading zeroes.
static int compare_numbers(const struct line *a, const struct line *b)
{
    return a->length != b->length ? (a->length > b->length) - (a->length < b->length)
                                  : compare_lines(a, b);
}

static int compare_keys(const struct row *a, const struct row *b)
{
    int order = compare_lines(&a->fields[0], &b->fields[0]);
    return order != 0 ? order : compare_numbers(&a->fields[1], &b->fields[1]);
}

static int compare_rotations(const struct row *a, const struct row *b)
{
    return compare_lines(&a->fields[0], &b->fields[0]);
}

static int compare_peers(const struct row *a, const struct row *b)
{
    int order = 0;
    for (int i = 0; i < 3 && order == 0; i++)
        order = compare_lines(&a->fields[i], &b->fields[i]);
    return order != 0 ? order : compare_numbers(&a->fields[3], &b->fields[3]);
}

static int compare_psks(const struct row *a, const struct row *b)
{
    int order = 0;
    for (int i = 0; i < 3 && order == 0; i++)
        order = compare_lines(&a->fields[i], &b->fields[i]);
    return order;
}

static int compare_leases(const struct row *a, const struct row *b)
{
    return compare_numbers(&a->fields[3], &b->fields[3]);
}

// A kind of rows that stand in one order both before and after.
struct kind {
    size_t fields;
    int (*compare)(const struct row *a, const struct row *b);
    enum query put, delete;
};

static int merge(struct projection_db *db, const struct kind *kind, struct lines before,
                 struct lines after, struct error *err)
{
    struct row old, new;
    bool is_old = next_row(&before, kind->fields, &old);
    bool is_new = next_row(&after, kind->fields, &new);
    while (is_old || is_new) {
        int order = !is_new ? -1 : !is_old ? 1 : kind->compare(&old, &new);
        if (order < 0 && put_row(db, kind->delete, &old, err) != 0)
            return -1;
        if ((order > 0 || (order == 0 && compare_lines(&old.line, &new.line) != 0)) &&
            put_row(db, kind->put, &new, err) != 0)
            return -1;
        if (order <= 0)
            is_old = next_row(&before, kind->fields, &old);
        if (order >= 0)
            is_new = next_row(&after, kind->fields, &new);
    }
    return 0;
}

static int put_head(struct projection_db *db, struct lines head, struct error *err)
{
    struct line line;
    lines_next(&head, &line); // the text's name
    for (size_t i = 0; lines_next(&head, &line) && i < HEAD_LINES - 1; i++) {
        struct row row = {.fields = {{head_names[i], strlen(head_names[i])}, line}};
        line_skip(&row.fields[1], head_names[i]);
        line_skip(&row.fields[1], " ");
        if (put_row(db, PUT_META, &row, err) != 0)
            return -1;
    }
    return 0;
}

// Few, and their order counts: all or nothing.
static int put_requests(struct projection_db *db, struct lines before, struct lines after,
                        struct error *err)
{
    struct row row;
    if (before.left == after.left && memcmp(before.next, after.next, after.left) == 0)
        return 0;
    if (run(db, CLEAR_APPROVALS, err) != 0 || run(db, CLEAR_REQUESTS, err) != 0)
        return -1;
    while (after.left > 0) {
        bool is_request = strncmp(after.next, "request ", 8) == 0;
        if (!next_row(&after, is_request ? 11 : 3, &row) ||
            put_row(db, is_request ? PUT_REQUEST : PUT_APPROVAL, &row, err) != 0)
            return -1;
    }
    return 0;
}

static int clear(struct projection_db *db, struct error *err)
{
    for (enum query query = CLEAR_META; query <= CLEAR_APPROVALS; query++)
        if (run(db, query, err) != 0)
            return -1;
    char format[64];
    snprintf(format, sizeof(format), "PRAGMA user_version = %d", FORMAT);
    return execute(db, format, err);
}

static int put_all(struct projection_db *db, const struct sections *before,
                   const struct sections *after, struct error *err)
{
    static const struct kind keys = {10, compare_keys, PUT_KEY, DELETE_KEY};
    static const struct kind rotations = {12, compare_rotations, PUT_ROTATION, DELETE_ROTATION};
    static const struct kind peers = {9, compare_peers, PUT_PEER, DELETE_PEER};
    static const struct kind psks = {10, compare_psks, PUT_PSK, DELETE_PSK};
    static const struct kind leases = {7, compare_leases, PUT_LEASE, DELETE_LEASE};
    if (put_head(db, after->head, err) != 0 ||
        merge(db, &keys, before->keys, after->keys, err) != 0 ||
        merge(db, &rotations, before->rotations, after->rotations, err) != 0 ||
        merge(db, &peers, before->peers, after->peers, err) != 0 ||
        merge(db, &psks, before->psks, after->psks, err) != 0 ||
        merge(db, &leases, before->leases, after->leases, err) != 0)
        return -1;
    return put_requests(db, before->requests, after->requests, err);
}

int projection_db_store(struct projection_db *db, const char *before, size_t before_length,
                        const char *text, size_t length, struct error *err)
{
    const struct sections none = {.requests = {.next = ""}};
    struct sections old = before != NULL ? cut_sections(before, before_length) : none;
    struct sections new = cut_sections(text, length);
    if (run(db, BEGIN, err) != 0)
        return -1;
    if ((before != NULL || clear(db, err) == 0) && put_all(db, &old, &new, err) == 0 &&
        run(db, COMMIT, err) == 0)
        return 0;
    run(db, ROLLBACK, NULL); // SQLite may have done so already
    return -1;
}

// ---- setting aside ----

static int move_aside(const char *dir, const char *name, struct error *err)
{
    char from[PATH_LENGTH], to[PATH_LENGTH];
    if (make_path(dir, "state.db", from, err) != 0 || make_path(dir, name, to, err) != 0)
        return -1;
    if (rename(from, to) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "%.300s: rename: %s", from, strerror(errno));
    // What SQLite had not yet brought into the database belongs to it; its index does not.
    strcat(from, "-wal");
    strcat(to, "-wal");
    if (rename(from, to) != 0 && errno != ENOENT)
        return error_set(err, ERROR_UNAVAILABLE, "%.300s: rename: %s", from, strerror(errno));
    memcpy(from + strlen(from) - 3, "shm", 3);
    if (unlink(from) != 0 && errno != ENOENT)
        return error_set(err, ERROR_UNAVAILABLE, "%.300s: %s", from, strerror(errno));
    return 0;
}

int projection_db_set_aside(const char *dir, char name[PROJECTION_DB_NAME_SIZE], struct error *err)
{
    char path[PATH_LENGTH];
    struct stat st;
    for (int number = 1; number <= ASIDE_MAX; number++) {
        snprintf(name, PROJECTION_DB_NAME_SIZE, "state.db.bad-%d", number);
        if (make_path(dir, name, path, err) != 0)
            return -1;
        if (lstat(path, &st) != 0 && errno == ENOENT)
            break;
    }
    return move_aside(dir, name, err);
}
