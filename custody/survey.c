// SPDX-License-Identifier: Apache-2.0
// Going through the log's records from the first, with the hash tiles beside them as witnesses.
#include "survey.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segment.h"
#include "state.h"
#include "tile.h"

// Called for each line; 0 goes on, 1 ends without an error, -1 with `err`.
typedef int line_fn(void *context, uint64_t segment, uint64_t number,
                    const struct segment_line *line, struct error *err);
// Called before a segment's first line.
typedef int segment_fn(void *context, uint64_t segment, struct error *err);

static int open_log_folder(const char *dir, struct error *err)
{
    char path[4096 + 8];
    snprintf(path, sizeof(path), "%s/log", dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT)
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, strerror(errno));
    return fd;
}

static int walk_segment(int folder, uint64_t segment, line_fn *take, void *context,
                        struct error *err)
{
    char name[SEGMENT_NAME_SIZE];
    struct segment_line line;
    segment_name(segment, name);
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "log segment %s: %s", name, strerror(errno));
    struct segment_reader *reader = segment_reader_new(fd, 0);
    int result = reader != NULL
                     ? 0
                     : error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    for (uint64_t number = 1; result == 0; number++) {
        int more = segment_reader_next(reader, &line, err);
        if (more != 1) {
            result = more;
            break;
        }
        result = take(context, segment, number, &line, err);
    }
    segment_reader_free(reader);
    close(fd);
    return result;
}

// Goes through all lines of all segments.
static int walk(const char *dir, segment_fn *begin, line_fn *take, void *context, struct error *err)
{
    uint64_t *firsts = NULL;
    size_t count = 0;
    struct error why = {.code = ERROR_OK};
    int folder = open_log_folder(dir, &why);
    if (folder < 0) {
        if (why.code == ERROR_OK)
            return 0; // no folder, no records
        *err = why;
        return -1;
    }
    int result = segment_list(folder, &firsts, &count, err);
    for (size_t i = 0; i < count && result == 0; i++) {
        result = begin != NULL ? begin(context, firsts[i], err) : 0;
        if (result == 0)
            result = walk_segment(folder, firsts[i], take, context, err);
    }
    free(firsts);
    close(folder);
    return result < 0 ? -1 : 0;
}

// ---- the survey ----

struct going {
    const char *dir;
    const struct checkpoint *remembered;
    struct survey *survey;
    struct state *state;
    struct merkle_edge edge;
    struct merkle_hash root_there; // at the remembered size, where the log is as long
    struct merkle_edge before;     // the attempt that may stand at the end
    // The tiles' word: level 0, the one that is being compared.
    uint64_t tile;
    unsigned tile_width; // hashes that it has; 0 = none
    struct merkle_hash hashes[TILE_WIDTH];
};

static uint64_t remembered_size(const struct going *going)
{
    return going->remembered != NULL ? going->remembered->size : 0;
}

// Reads the widest tile of leaves that there is at that place.
static void read_tile(struct going *going, uint64_t index)
{
    char path[4096 + TILE_PATH_MAX + 2], name[TILE_PATH_MAX];
    going->tile = index;
    going->tile_width = 0;
    for (unsigned width = TILE_WIDTH; width > 0; width--) {
        tile_path(0, index, width, name);
        snprintf(path, sizeof(path), "%s/%s", going->dir, name);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        ssize_t got = read(fd, going->hashes, width * sizeof(going->hashes[0]));
        close(fd);
        if (got == (ssize_t)(width * sizeof(going->hashes[0]))) {
            going->tile_width = width;
            return;
        }
    }
}

// Whether the tiles beside the log have another leaf at this place.
static bool tiles_differ(struct going *going, uint64_t index, const struct merkle_hash *leaf)
{
    if (index >= remembered_size(going))
        return false;
    if (index / TILE_WIDTH != going->tile || index == 0)
        read_tile(going, index / TILE_WIDTH);
    unsigned place = (unsigned)(index % TILE_WIDTH);
    return place < going->tile_width && memcmp(&going->hashes[place], leaf, sizeof(*leaf)) != 0;
}

static void note(struct going *going, const char *text)
{
    if (going->survey->what[0] == '\0')
        snprintf(going->survey->what, sizeof(going->survey->what), "%s", text);
}

// A line that is not the next record: the log ends before it.
static int end_at(struct going *going, uint64_t segment, uint64_t number, const char *why)
{
    char text[ERROR_MESSAGE_MAX];
    uint64_t next = state_size(going->state);
    if (next < remembered_size(going)) {
        snprintf(text, sizeof(text),
                 "record %" PRIu64 " (%.200s/log/%012" PRIu64 ".jsonl:%" PRIu64
                 ") is not the one that was signed: %.150s",
                 next, going->dir, segment, number, why);
        note(going, text);
    }
    return 1;
}

static bool is_attempt(const struct going *going, const struct record *record)
{
    static const uint8_t nothing[32];
    const uint8_t *root = going->remembered != NULL ? going->remembered->root.bytes : nothing;
    struct merkle_hash empty = merkle_empty_root();
    if (going->remembered == NULL)
        root = empty.bytes;
    return record->event == RECORD_APPROVAL_REQUESTED &&
           record->operation == OPERATION_ACCEPT_LOSS &&
           record->old_size == remembered_size(going) &&
           memcmp(record->old_root, root, sizeof(record->old_root)) == 0;
}

// The run of records of one attempt that ends with the log's last.
static void follow_attempt(struct going *going, const struct record *record,
                           const struct merkle_edge *before)
{
    static const enum record_event next[] = {RECORD_APPROVAL_GIVEN, RECORD_APPROVAL_GIVEN,
                                             RECORD_LOG_LOSS_ACCEPTED};
    struct survey *survey = going->survey;
    if (is_attempt(going, record)) {
        survey->attempt = 0;
        going->before = *before;
    } else if (survey->attempt == 0 || survey->attempt == SURVEY_ATTEMPT ||
               record->event != next[survey->attempt - 1] ||
               strcmp(record->request_id, survey->attempted[0].request_id) != 0) {
        survey->attempt = 0;
        return;
    }
    survey->attempted[survey->attempt++] = *record;
}

static int take_line(void *context, uint64_t segment, uint64_t number,
                     const struct segment_line *line, struct error *err)
{
    struct going *going = context;
    struct record record;
    struct error why;
    char text[ERROR_MESSAGE_MAX];
    uint64_t index = state_size(going->state);
    (void)err;
    if (!line->complete)
        return end_at(going, segment, number, "the line is not complete");
    if (record_parse(&record, line->text, line->length, &why) != 0)
        return end_at(going, segment, number, why.message);
    if (record.seq > index) {
        snprintf(text, sizeof(text), "here stands record %" PRIu64 "; what is missing begins here",
                 record.seq);
        return end_at(going, segment, number, text);
    }
    if (state_apply(going->state, &record, &why) != 0)
        return end_at(going, segment, number, why.message);
    struct merkle_hash leaf = merkle_leaf(line->text, line->length);
    if (tiles_differ(going, index, &leaf)) {
        snprintf(text, sizeof(text),
                 "record %" PRIu64 " (%.200s/log/%012" PRIu64 ".jsonl:%" PRIu64
                 ") is not the one that was signed",
                 index, going->dir, segment, number);
        note(going, text);
    }
    struct merkle_edge before = going->edge;
    merkle_edge_append(&going->edge, &leaf);
    if (going->edge.size == remembered_size(going))
        going->root_there = merkle_edge_root(&going->edge);
    follow_attempt(going, &record, &before);
    return 0;
}

static int begin_segment(void *context, uint64_t segment, struct error *err)
{
    struct going *going = context;
    char text[ERROR_MESSAGE_MAX];
    uint64_t next = state_size(going->state);
    (void)err;
    if (segment == next)
        return 0;
    snprintf(text, sizeof(text),
             "the log in %.300s has no record %" PRIu64 ": its next segment begins with %" PRIu64,
             going->dir, next, segment);
    note(going, text);
    return 1;
}

// What is said where no single line is to blame, or beside it.
static void judge(struct going *going)
{
    struct survey *survey = going->survey;
    char text[ERROR_MESSAGE_MAX];
    uint64_t remembered = remembered_size(going), there = survey->size;
    char holds[32];
    if (there > 0)
        snprintf(holds, sizeof(holds), "%" PRIu64, there);
    else
        snprintf(holds, sizeof(holds), "none");
    if (remembered == 0) {
        snprintf(text, sizeof(text),
                 "the log in %.300s holds %" PRIu64
                 " records, but the token remembers none: its custody-head is missing",
                 going->dir, there);
        note(going, text);
    } else if (there < remembered) {
        snprintf(text, sizeof(text),
                 "the token remembers %" PRIu64 " records, the log in %.300s holds %s: record%s "
                 "%" PRIu64,
                 remembered, going->dir, holds, remembered - there > 1 ? "s" : "", there);
        size_t used = strlen(text);
        if (remembered - there > 1)
            snprintf(text + used, sizeof(text) - used, " to %" PRIu64 " are missing",
                     remembered - 1);
        else
            snprintf(text + used, sizeof(text) - used, " is missing");
        note(going, text);
    } else if (memcmp(&going->root_there, &going->remembered->root, sizeof(going->root_there)) !=
               0) {
        snprintf(text, sizeof(text),
                 "the first %" PRIu64
                 " records of the log in %.300s are not those that were signed: their root is "
                 "another, and no tile beside them tells which one was changed",
                 remembered, going->dir);
        note(going, text);
    } else {
        // The tiles are wrong, and the log is right.
        survey->what[0] = '\0';
    }
}

int survey_log(const char *dir, const struct checkpoint *remembered, struct survey *survey,
               struct error *err)
{
    memset(survey, 0, sizeof(*survey));
    struct going *going = calloc(1, sizeof(*going));
    if (going == NULL || (going->state = state_new()) == NULL) {
        free(going);
        return error_set(err, ERROR_RESOURCE_EXHAUSTED, "out of memory to read the log");
    }
    going->dir = dir;
    going->remembered = remembered;
    going->survey = survey;
    int result = walk(dir, begin_segment, take_line, going, err);
    if (result == 0) {
        if (survey->attempt > 0)
            going->edge = going->before;
        survey->size = going->edge.size;
        survey->root = merkle_edge_root(&going->edge);
        judge(going);
    }
    state_free(going->state);
    free(going);
    return result;
}

// ---- one request ----

struct search {
    const char *id;
    struct record *requested;
    bool found;
};

static int take_if_requested(void *context, uint64_t segment, uint64_t number,
                             const struct segment_line *line, struct error *err)
{
    struct search *search = context;
    struct record record;
    (void)segment;
    (void)number;
    (void)err;
    if (memmem(line->text, line->length, search->id, strlen(search->id)) != NULL &&
        record_parse(&record, line->text, line->length, NULL) == 0 &&
        record.event == RECORD_APPROVAL_REQUESTED && strcmp(record.request_id, search->id) == 0) {
        *search->requested = record;
        search->found = true;
    }
    return 0;
}

int survey_find_request(const char *dir, const char *id, struct record *requested,
                        struct error *err)
{
    struct search search = {.id = id, .requested = requested};
    if (walk(dir, NULL, take_if_requested, &search, err) != 0)
        return -1;
    return search.found ? 0 : error_set(err, ERROR_NOT_FOUND, "the log holds no request %s", id);
}
