// SPDX-License-Identifier: Apache-2.0
// custody-audit export: the log as C2SP tlog-tiles lays one out, for readers who know nothing of
// ours: hash tiles, entry bundles and the checkpoint.
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit.h"
#include "dir_argument.h"
#include "head.h"
#include "log_walk.h"
#include "merkle.h"
#include "record.h"
#include "tile.h"

#define PATH_SIZE 4096

struct export
{
    const char *out;
    struct tile_edge tiles;
    struct merkle_edge edge;
    FILE *bundle;  // of entries: each two bytes of length, big-endian, and the line
    uint64_t size; // of the signed head
};

// ---- files ----

static void make_folders(char *path)
{
    for (char *s = strchr(path + 1, '/'); s != NULL; s = strchr(s + 1, '/')) {
        *s = '\0';
        mkdir(path, 0777); // what is missing shows when the file is opened
        *s = '/';
    }
}

static FILE *create(const struct export *export, const char *path, struct error *err)
{
    char full[PATH_SIZE];
    if (snprintf(full, sizeof(full), "%s/%s", export->out, path) >= (int)sizeof(full)) {
        error_set(err, ERROR_INVALID_ARGUMENT, "%s is too long a path", export->out);
        return NULL;
    }
    FILE *file = fopen(full, "wxe");
    if (file == NULL && errno == ENOENT) {
        make_folders(full);
        file = fopen(full, "wxe");
    }
    if (file == NULL)
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", full, strerror(errno));
    return file;
}

static int finish(FILE *file, const char *what, struct error *err)
{
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return error_set(err, ERROR_UNAVAILABLE, "%s cannot be written: %s", what, strerror(errno));
    return 0;
}

static int write_file(const struct export *export, const char *path, const void *bytes, size_t size,
                      struct error *err)
{
    FILE *file = create(export, path, err);
    if (file == NULL)
        return -1;
    fwrite(bytes, 1, size, file);
    return finish(file, path, err);
}

// ---- tiles ----

static int on_full_tile(void *context, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, TILE_WIDTH, path);
    return write_file(context, path, hashes, TILE_WIDTH * sizeof(*hashes), err);
}

static int write_last_tiles(const struct export *export, struct error *err)
{
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        char path[TILE_PATH_MAX];
        uint64_t index;
        unsigned width = tile_edge_width(&export->tiles, level, &index);
        tile_path(level, index, width, path);
        if (width > 0 && write_file(export, path, export->tiles.hashes[level],
                                    width * MERKLE_HASH_SIZE, err) != 0)
            return -1;
    }
    return 0;
}

// "tile/entries/x001/234.p/5": as a tile of level 0, but for the level.
static void bundle_path(uint64_t index, unsigned width, char path[TILE_PATH_MAX + 8])
{
    char tile[TILE_PATH_MAX];
    tile_path(0, index, width, tile);
    snprintf(path, TILE_PATH_MAX + 8, "tile/entries/%s", tile + strlen("tile/0/"));
}

static int write_entry(struct export *export, const struct segment_line *line, struct error *err)
{
    uint64_t index = export->edge.size;
    if (index % TILE_WIDTH == 0) {
        char path[TILE_PATH_MAX + 8];
        unsigned width = tile_width(0, index / TILE_WIDTH, export->size);
        bundle_path(index / TILE_WIDTH, width, path);
        export->bundle = create(export, path, err);
        if (export->bundle == NULL)
            return -1;
    }
    const uint8_t length[2] = {(uint8_t)(line->length >> 8), (uint8_t)line->length};
    fwrite(length, 1, sizeof(length), export->bundle);
    fwrite(line->text, 1, line->length, export->bundle);
    if ((index + 1) % TILE_WIDTH != 0 && index + 1 != export->size)
        return 0;
    FILE *bundle = export->bundle;
    export->bundle = NULL;
    return finish(bundle, "a bundle of entries", err);
}

static int write_record(void *context, const struct segment_line *line, struct error *err)
{
    struct export *export = context;
    struct merkle_hash leaf = merkle_leaf(line->text, line->length);
    if (write_entry(export, line, err) != 0)
        return -1;
    merkle_edge_append(&export->edge, &leaf);
    return tile_edge_append(&export->tiles, &leaf, on_full_tile, export, err);
}

// The checkpoint is written last, and only when the records are those that were signed.
static int run(const char *dir, struct export *export, struct error *err)
{
    struct log_reader *reader;
    struct head head;
    struct checkpoint checkpoint;
    int result = -1;
    if (log_reader_open(dir, &reader, err) != 0)
        return -1;
    if (head_read(log_reader_dirfd(reader), "checkpoint", &head, err) != 0 ||
        head_peek(&head, &checkpoint, err) != 0)
        goto cleanup;
    export->size = checkpoint.size;
    if (log_walk_lines(reader, export->size, write_record, export, err) != 0 ||
        write_last_tiles(export, err) != 0)
        goto cleanup;
    struct merkle_hash root = merkle_edge_root(&export->edge);
    if (memcmp(&root, &checkpoint.root, sizeof(root)) != 0) {
        error_set(err, ERROR_DATA_LOSS,
                  "the records are not those that were signed, so no checkpoint was written; "
                  "\"custody-audit verify\" tells where");
        goto cleanup;
    }
    result = write_file(export, "checkpoint", head.note, head.length, err);
cleanup:
    if (export->bundle != NULL)
        fclose(export->bundle);
    log_reader_close(reader);
    return result;
}

struct options {
    const char *dir;
    const char *out;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 't':
        options->out = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->out == NULL)
            argp_error(state, "--tiles=OUT is missing");
        return 0;
    default:
        return dir_argument(key, arg, state, &options->dir);
    }
}

static const struct argp_option argp_options[] = {
    {"tiles", 't', "OUT", 0, "the folder to write; it must not hold an export already", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int audit_export(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR",
        .doc = "Writes the signed records of the log in DIR as C2SP tlog-tiles: hash tiles, entry "
               "bundles and the checkpoint.\v"
               "Exit status: 0 written, 1 the log is not what was signed, 2 it could not be "
               "written.",
    };
    struct options options = {.dir = NULL};
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct error err = {.message = "out of memory"};
    struct export *export = calloc(1, sizeof(*export));
    int result = -1;
    if (export != NULL) {
        export->out = options.out;
        result = run(options.dir, export, &err);
    }
    free(export);
    if (result == 0)
        return AUDIT_SOUND;
    fprintf(stderr, "%s: %s\n", argv[0], err.message);
    return err.code == ERROR_DATA_LOSS ? AUDIT_FINDINGS : AUDIT_FAILED;
}
