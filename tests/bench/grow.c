// SPDX-License-Identifier: Apache-2.0
// Makes the log of a stopped custodyd long: appends releases with their outcomes, sealed segments
// and snapshots, writes the tiles, and has the token sign the head, so that custodyd can be started
// on it.
//
// usage: grow TOKEN-URI AUDIT-DIR RECORDS KEPT-FILE KEPT-BEFORE
// KEPT-FILE gets a checkpoint of the tree as it was KEPT-BEFORE records before its end.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sodium.h>

#include "checkpoint.h"
#include "note.h"
#include "record.h"
#include "segment.h"
#include "snapshot.h"
#include "state.h"
#include "tile.h"
#include "token.h"

#define SEGMENT_BYTES (16 << 20)
#define LOG_KEY       "custody-log-1"
#define LEASE_US      10000000

static const char *dir;
static struct state *state;
static struct tile_edge tiles;
static FILE *segment;
static uint64_t segment_bytes;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "grow: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void check(int result, const char *what, const struct error *err)
{
    if (result != 0)
        fail(what, err->message);
}

// ---- files ----

static FILE *open_file(const char *path, const char *mode)
{
    char full[4096];
    snprintf(full, sizeof(full), "%s/%s", dir, path);
    FILE *file = fopen(full, mode);
    for (char *s = full + strlen(dir) + 1; file == NULL && (s = strchr(s, '/')) != NULL; s++) {
        *s = '\0';
        mkdir(full, 0750);
        *s = '/';
        file = fopen(full, mode);
    }
    if (file == NULL)
        fail(full, strerror(errno));
    return file;
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = open_file(path, "w");
    if (fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        fail(path, strerror(errno));
}

static int write_tile(void *context, unsigned level, uint64_t index,
                      const struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, TILE_WIDTH, path);
    write_file(path, hashes, TILE_WIDTH * sizeof(*hashes));
    return 0;
}

static void take_leaf(const char *line, size_t length)
{
    struct error err;
    struct merkle_hash leaf = merkle_leaf(line, length);
    check(tile_edge_append(&tiles, &leaf, write_tile, NULL, &err), "tile", &err);
}

static void open_segment(uint64_t first, const char *mode)
{
    char name[SEGMENT_NAME_SIZE], path[SEGMENT_NAME_SIZE + 8];
    segment_name(first, name);
    snprintf(path, sizeof(path), "log/%s", name);
    segment = open_file(path, mode);
    segment_bytes = 0;
}

// ---- what is there ----

static void take_line(const struct segment_line *line)
{
    struct record record;
    struct error err;
    check(record_parse(&record, line->text, line->length, &err), "log", &err);
    check(state_apply(state, &record, &err), "log", &err);
    take_leaf(line->text, line->length);
}

// The log of a daemon that has only begun: its one segment.
static void read_log(void)
{
    struct segment_line line;
    struct error err;
    int more;
    open_segment(0, "r+");
    struct segment_reader *reader = segment_reader_new(fileno(segment), 0);
    if (reader == NULL)
        fail("log", "out of memory");
    while ((more = segment_reader_next(reader, &line, &err)) == 1)
        take_line(&line);
    check(more, "log", &err);
    segment_reader_free(reader);
    fseek(segment, 0, SEEK_END);
    segment_bytes = (uint64_t)ftell(segment);
}

// ---- what is added ----

static void append(struct record *record)
{
    static char line[RECORD_LINE_MAX + 1];
    struct error err;
    size_t length;
    check(state_apply(state, record, &err), "state", &err);
    check(record_encode(record, line, RECORD_LINE_MAX, &length, &err), "record", &err);
    take_leaf(line, length);
    line[length] = '\n';
    if (fwrite(line, 1, length + 1, segment) != length + 1)
        fail("log", strerror(errno));
    segment_bytes += length + 1;
}

static struct record next(enum record_event event)
{
    struct record record;
    memset(&record, 0, sizeof(record));
    record.seq = state_size(state);
    record.time_us = state_time_us(state) + 1;
    record.event = event;
    snprintf(record.host, sizeof(record.host), "%s", state_host(state));
    return record;
}

static void seal(void)
{
    char name[SNAPSHOT_NAME_SIZE], path[SNAPSHOT_NAME_SIZE + 8];
    size_t length;
    struct error err;
    char *text = snapshot_format(state, &length, &err);
    struct record record = next(RECORD_LOG_SEALED);
    check(text != NULL ? 0 : -1, "snapshot", &err);
    check(snapshot_digest(state, record.sha256, &err), "snapshot", &err);
    snapshot_name(record.seq + 1, name);
    snprintf(path, sizeof(path), "log/%s", name);
    write_file(path, text, length);
    free(text);
    append(&record);
    if (fclose(segment) != 0)
        fail("log", strerror(errno));
    open_segment(record.seq + 1, "w");
}

static void append_release(const struct state_key *key)
{
    struct record grant = next(RECORD_RELEASE_GRANTED);
    grant.actor = (struct record_actor){.present = true, .pid = 4242};
    snprintf(grant.actor.unit, sizeof(grant.actor.unit), "custody-applier.service");
    snprintf(grant.actor.exe, sizeof(grant.actor.exe), "/usr/sbin/custody-applier");
    memcpy(grant.key, key->name, sizeof(grant.key));
    grant.generation = key->generation;
    memcpy(grant.public_key, key->public_key, sizeof(grant.public_key));
    memset(grant.applier_public_key, 7, sizeof(grant.applier_public_key));
    grant.reason = REASON_RESTORE;
    snprintf(grant.lease, sizeof(grant.lease), "%032" PRIx64, grant.seq);
    grant.expires_us = grant.time_us + LEASE_US;
    append(&grant);
    struct record applied = next(RECORD_RELEASE_APPLIED);
    memcpy(applied.key, grant.key, sizeof(applied.key));
    applied.generation = grant.generation;
    memcpy(applied.lease, grant.lease, sizeof(applied.lease));
    append(&applied);
}

// ---- the head ----

static int read_edge_tile(void *context, unsigned level, uint64_t index, unsigned width,
                          struct merkle_hash *hashes, struct error *err)
{
    memcpy(hashes, tiles.hashes[level], width * sizeof(*hashes));
    return 0;
}

static void sign(struct token *token, char note[NOTE_MAX], size_t *length)
{
    struct tile_reader reader = {.read = read_edge_tile};
    struct checkpoint head = {.size = tiles.size};
    struct merkle_edge edge;
    struct note_key key;
    char text[CHECKPOINT_TEXT_MAX];
    uint8_t signature[TOKEN_SIGNATURE_SIZE];
    struct error err;
    check(merkle_edge_read(tiles.size, tile_read_hash, &reader, &edge, &err), "tree", &err);
    head.root = merkle_edge_root(&edge);
    name_log_origin(state_host(state), head.origin, sizeof(head.origin));
    size_t text_length = checkpoint_format(&head, text);
    check(note_key_parse(&key, state_log_vkey(state), &err), "log-vkey", &err);
    check(token_sign(token, text, text_length, signature, &err), "token", &err);
    check(note_format(text, &key, signature, note, NOTE_MAX, length, &err), "checkpoint", &err);
}

static void write_last_tiles(void)
{
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        char path[TILE_PATH_MAX];
        uint64_t index;
        unsigned width = tile_edge_width(&tiles, level, &index);
        if (width == 0)
            continue;
        tile_path(level, index, width, path);
        write_file(path, tiles.hashes[level], width * MERKLE_HASH_SIZE);
    }
}

static void write_kept(const char *path, const char *note, size_t length)
{
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(note, 1, length, file) != length || fclose(file) != 0)
        fail(path, strerror(errno));
}

int main(int argc, char **argv)
{
    struct token *token;
    struct error err;
    char note[NOTE_MAX];
    size_t length;
    if (argc != 6 || sodium_init() < 0 || (state = state_new()) == NULL)
        fail("usage", "grow TOKEN-URI AUDIT-DIR RECORDS KEPT-FILE KEPT-BEFORE");
    uint64_t records = strtoull(argv[3], NULL, 10), kept = strtoull(argv[5], NULL, 10);
    bool is_kept = false;
    dir = argv[2];
    check(token_open_key(argv[1], LOG_KEY, &token, &err), "token", &err);
    read_log();
    const struct state_key *key = state_key_at(state, 0);
    if (key == NULL)
        fail("log", "it has no key to release");
    for (uint64_t size = tiles.size; size < records; size = tiles.size) {
        if (!is_kept && size + kept >= records) {
            sign(token, note, &length);
            write_kept(argv[4], note, length);
            is_kept = true;
        }
        if (segment_bytes >= SEGMENT_BYTES)
            seal();
        append_release(key);
    }
    if (fclose(segment) != 0)
        fail("log", strerror(errno));
    write_last_tiles();
    sign(token, note, &length);
    write_file("checkpoint", note, length);
    token_close(token);
    state_free(state);
    return EXIT_SUCCESS;
}
