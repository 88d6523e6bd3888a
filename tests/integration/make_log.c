// SPDX-License-Identifier: Apache-2.0
// Makes a sound audit-dir of any size, signed with a software key: for tests that alter logs, and
// for logs larger than a token would sign in a test's time.
//
//   make_log [OPTION...] DIR RECORDS
//     --segment=N           records a segment, log.sealed among them (default 1000)
//     --segment-bytes=N     instead: seal a segment once it holds N bytes (64M and the like work)
//     --keys=N              keys that the releases go round (default 1): a larger state and
//     snapshot
//     --rotation            rotate wg0, once in vain and once for good, before the releases; and
//     take part in the
//                           rotation of a counterpart, beta's wg0
//     --unsigned=N          leave the last N records out of the signed head
//     --change-key=INDEX    change the log's key in this record
//     --forge-change        ... signed by the new key in place of the old one
//     --tiles=0|1|2         no tiles, full ones, unfinished ones too (default)
//     --no-snapshots        write no DIR/log/N.snapshot
//     --open-lease          end with a release that has no outcome yet
//     --stale-lease         begin with a release that never gets an outcome
//
// Ten million records in segments of 64 MiB: make_log --segment-bytes=64M --keys=100 DIR 10000000.
// It writes DIR/log, DIR/tile, DIR/checkpoint and the verifier keys DIR/log.vkey (the first),
// DIR/next.vkey (after a change) and DIR/other.vkey (signed nothing). The Ed25519 seeds are 32
// bytes of 1 (log), 2 (next), 3 (host) and 4 (other), so that a test can sign what it forges.
#include <argp.h>
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
#include "merkle.h"
#include "note.h"
#include "record.h"
#include "segment.h"
#include "snapshot.h"
#include "state.h"
#include "tile.h"

#define HOST   "alpha"
#define ORIGIN HOST "/custody/log"
#define CYCLE  6                         // records that a key's life in the log repeats
#define START  INT64_C(1795341600000000) // 2026-11-22T10:00:00Z
#define SECOND INT64_C(1000000)
#define PATH   4096

struct options {
    const char *dir;
    uint64_t records;
    uint64_t segment; // records a segment
    uint64_t bytes;   // bytes a segment; 0: counted in records
    uint64_t keys;
    bool no_snapshots;
    uint64_t unsigned_n; // of them, after the signed head
    uint64_t change_key; // index of a log.key-changed record; 0: none
    bool forge_change;   // and do so without the old key
    bool open_lease;     // the last record grants, and nothing closes it
    bool stale_lease;    // record FIRST grants a lease that nothing ever closes
    bool rotation;
    int tiles; // 0 none, 1 full ones, 2 the unfinished ones too
};

struct signer {
    struct note_key key;
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
};

struct maker {
    struct options options;
    struct signer log;
    struct signer next_log;
    struct signer host;
    struct tile_edge tiles;
    struct state *state; // of the records so far: it checks them, and snapshots are its text
    FILE *segment;       // NULL: the next record begins one
    uint64_t in_segment; // records in it
    uint64_t segment_bytes;
    uint64_t step;        // records that are no log.sealed: what the cycle counts
    uint64_t grant;       // seq of the last release
    uint64_t first;       // records before the first cycle
    uint64_t rotation;    // of them, before the records of --rotation
    struct record record; // the one being made
};

static void fail(const char *what)
{
    fprintf(stderr, "make_log: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void make_signer(struct signer *signer, const char *name, int seed)
{
    uint8_t bytes[crypto_sign_SEEDBYTES], public_key[crypto_sign_PUBLICKEYBYTES];
    memset(bytes, seed, sizeof(bytes));
    crypto_sign_seed_keypair(public_key, signer->secret, bytes);
    if (note_key_make(&signer->key, name, public_key, NULL) != 0)
        abort();
}

static void make_folders(char *path)
{
    for (char *s = strchr(path + 1, '/'); s != NULL; s = strchr(s + 1, '/')) {
        *s = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            fail(path);
        *s = '/';
    }
}

static FILE *create(const struct maker *maker, const char *path)
{
    char full[PATH];
    snprintf(full, sizeof(full), "%s/%s", maker->options.dir, path);
    FILE *file = fopen(full, "w");
    if (file == NULL && errno == ENOENT) {
        make_folders(full);
        file = fopen(full, "w");
    }
    if (file == NULL)
        fail(full);
    return file;
}

static void write_file(const struct maker *maker, const char *path, const void *bytes, size_t size)
{
    FILE *file = create(maker, path);
    if (fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        fail(path);
}

static int on_full_tile(void *context, unsigned level, uint64_t index,
                        const struct merkle_hash *hashes, struct error *err)
{
    char path[TILE_PATH_MAX];
    tile_path(level, index, TILE_WIDTH, path);
    write_file(context, path, hashes, TILE_WIDTH * sizeof(*hashes));
    return 0;
}

static int ignore_tile(void *context, unsigned level, uint64_t index,
                       const struct merkle_hash *hashes, struct error *err)
{
    return 0;
}

static void fill_actor(struct record *record, const char *unit)
{
    record->actor.present = true;
    record->actor.pid = 4242;
    strcpy(record->actor.unit, unit);
    strcpy(record->actor.exe, "/usr/sbin/custody-applier");
}

static void fill_key(struct record *record, uint64_t number, uint64_t generation)
{
    snprintf(record->key, sizeof(record->key), "wg%" PRIu64, number);
    record->generation = generation;
    if (generation != 0)
        memset(record->public_key, (int)(2 + (number + generation - 1) % 254),
               sizeof(record->public_key));
}

// A key's way to its interface: three records.
static void fill_new_key(struct record *record, uint64_t number, uint64_t part)
{
    fill_key(record, number, 1);
    if (part == 0) {
        record->event = RECORD_KEY_GENERATED;
        record->purpose = PURPOSE_WIREGUARD;
    } else if (part == 1) {
        record->event = RECORD_KEY_PUBLISHED;
        record->bundle_state = BUNDLE_PRE_ACTIVE;
        record->not_before_us = record->time_us;
        record->not_after_us = record->time_us + 2592000 * SECOND;
    } else {
        record->event = RECORD_KEY_ACTIVATED;
    }
}

// What --rotation adds, a row a record: of wg0, and for peer.* of beta's wg0.
static const struct step {
    enum record_event event;
    uint64_t generation; // or the peer's
    enum record_reason reason;
} rotation[] = {
    {RECORD_PEER_MOVED, 4, REASON_NONE},
    {RECORD_KEY_GENERATED, 2, REASON_NONE},
    {RECORD_ROTATION_STARTED, 2, REASON_ROTATION},
    {RECORD_KEY_PUBLISHED, 2, REASON_NONE},
    {RECORD_PEER_ACKNOWLEDGED, 2, REASON_NONE},
    {RECORD_RELEASE_GRANTED, 2, REASON_ROTATION},
    {RECORD_RELEASE_FAILED, 2, REASON_NONE},
    {RECORD_ROTATION_ROLLED_BACK, 2, REASON_NONE},
    {RECORD_KEY_DESTROYING, 2, REASON_NONE},
    {RECORD_KEY_DESTROYED, 2, REASON_NONE},
    {RECORD_KEY_PUBLISHED, 2, REASON_NONE},
    {RECORD_KEY_GENERATED, 3, REASON_NONE},
    {RECORD_ROTATION_STARTED, 3, REASON_OPERATOR},
    {RECORD_KEY_PUBLISHED, 3, REASON_NONE},
    {RECORD_PEER_LATE, 3, REASON_NONE},
    {RECORD_RELEASE_GRANTED, 3, REASON_ROTATION},
    {RECORD_RELEASE_APPLIED, 3, REASON_NONE},
    {RECORD_ROTATION_CONFIRMED, 3, REASON_NONE},
    {RECORD_KEY_DEACTIVATED, 1, REASON_NONE},
    {RECORD_KEY_ACTIVATED, 3, REASON_NONE},
    {RECORD_KEY_PUBLISHED, 3, REASON_NONE},
    {RECORD_KEY_REFRESHED, 3, REASON_NONE},
    {RECORD_PEER_STAGED, 5, REASON_NONE},
    {RECORD_PEER_MOVED, 5, REASON_NONE},
    {RECORD_PEER_RETIRED, 4, REASON_NONE},
    {RECORD_KEY_SUSPENDED, 0, REASON_NONE},
    {RECORD_KEY_RESUMED, 0, REASON_NONE},
};
#define ROTATION (sizeof(rotation) / sizeof(*rotation))

static void fill_grant(struct maker *maker, struct record *record, uint64_t generation,
                       enum record_reason reason);
static void fill_outcome(const struct maker *maker, struct record *record, uint64_t generation);

static void fill_peer(struct record *record, uint64_t generation)
{
    strcpy(record->key, "wg0");
    strcpy(record->peer, "beta");
    strcpy(record->peer_key, "wg0");
    record->peer_generation = generation;
    if (record->event == RECORD_PEER_ACKNOWLEDGED)
        record->peer_state = PEER_STAGED;
    else if (record->event != RECORD_PEER_LATE)
        memset(record->peer_public_key, (int)(100 + generation), sizeof(record->peer_public_key));
    if (record->event == RECORD_PEER_STAGED)
        memset(record->move_sha256, 'b', 64);
}

static void fill_bundle(const struct maker *maker, struct record *record)
{
    const struct rotation *before = rotations_find(state_rotations(maker->state), record->key);
    const struct state_key *key = state_key_find(maker->state, record->key, record->generation);
    record->bundle_state = lifecycle_bundle_state(key->state);
    record->not_before_us = record->time_us;
    record->not_after_us = record->time_us + 2592000 * SECOND;
    if (before != NULL)
        memcpy(record->previous, before->bundle_sha256, sizeof(record->previous));
}

static void fill_rotation(struct maker *maker, struct record *record, const struct step *step)
{
    const struct rotation *before = rotations_find(state_rotations(maker->state), "wg0");
    record->event = step->event;
    if (step->event >= RECORD_PEER_STAGED && step->event <= RECORD_PEER_ACKNOWLEDGED) {
        fill_peer(record, step->generation);
        return;
    }
    fill_key(record, 0, step->generation);
    record->reason = step->reason;
    if (step->event == RECORD_KEY_PUBLISHED)
        fill_bundle(maker, record);
    else if (step->event == RECORD_KEY_GENERATED)
        record->purpose = PURPOSE_WIREGUARD;
    else if (step->event == RECORD_KEY_REFRESHED)
        memcpy(record->sha256, before->bundle_sha256, sizeof(record->sha256));
    else if (step->event == RECORD_RELEASE_GRANTED)
        fill_grant(maker, record, step->generation, step->reason);
    else if (step->event == RECORD_RELEASE_APPLIED || step->event == RECORD_RELEASE_FAILED)
        fill_outcome(maker, record, step->generation);
}

// The records before the first cycle.
static void fill_first(struct maker *maker, struct record *record)
{
    uint64_t step = maker->step;
    if (step == 0) {
        record->event = RECORD_TOKEN_INITIALISED;
        record->token.present = true;
        strcpy(record->token.label, "custody");
        strcpy(record->suite, "aes-gcm");
        note_key_format(&maker->log.key, record->log_vkey);
        note_key_format(&maker->host.key, record->host_vkey);
    } else if (step == 1) {
        record->event = RECORD_DAEMON_STARTED;
        strcpy(record->version, "0.1.0");
    } else if (step >= maker->rotation && step < maker->first - 1) {
        fill_rotation(maker, record, &rotation[step - maker->rotation]);
    } else if (step < maker->rotation) {
        fill_new_key(record, (step - 2) / 3, (step - 2) % 3);
    } else {
        record->event = RECORD_POLICY_LOADED;
        memset(record->policy_sha256, 'a', 64);
    }
}

static uint64_t key_number(const struct maker *maker)
{
    return maker->step < maker->first ? 0
                                      : (maker->step - maker->first) / CYCLE % maker->options.keys;
}

// The generation of a key that is active during the cycles.
static uint64_t active(const struct maker *maker, uint64_t number)
{
    return maker->options.rotation && number == 0 ? 3 : 1;
}

static void fill_grant(struct maker *maker, struct record *record, uint64_t generation,
                       enum record_reason reason)
{
    record->event = RECORD_RELEASE_GRANTED;
    fill_actor(record, "custody-applier.service");
    fill_key(record, key_number(maker), generation);
    maker->grant = record->seq;
    snprintf(record->lease, sizeof(record->lease), "%032" PRIx64, maker->grant);
    memset(record->applier_public_key, 7, sizeof(record->applier_public_key));
    record->reason = reason;
    record->expires_us = record->time_us + 10 * SECOND;
}

// A lease's id says which release it is of.
static void fill_outcome(const struct maker *maker, struct record *record, uint64_t generation)
{
    fill_key(record, key_number(maker), generation);
    snprintf(record->lease, sizeof(record->lease), "%032" PRIx64, maker->grant);
}

// Grant, outcome, grant, outcome, denial, a step of the clock: what a day looks like.
static void fill_cycle(struct maker *maker, struct record *record)
{
    uint64_t generation = active(maker, key_number(maker));
    switch ((maker->step - maker->first) % CYCLE) {
    case 0:
    case 2:
        fill_grant(maker, record, generation, REASON_BOOT);
        return;
    case 1:
        record->event = RECORD_RELEASE_APPLIED;
        fill_outcome(maker, record, generation);
        return;
    case 3:
        record->event = RECORD_RELEASE_FAILED;
        fill_outcome(maker, record, generation);
        strcpy(record->detail, "wg0: no such device \"wg0\" \\ Ger\u00e4t");
        return;
    case 4:
        record->event = RECORD_RELEASE_DENIED;
        fill_actor(record, "evil.service");
        strcpy(record->key, "wg0");
        strcpy(record->request, "ReleaseKey");
        record->code = ERROR_PERMISSION_DENIED;
        record->reason = REASON_OPERATOR;
        return;
    default:
        record->event = RECORD_CLOCK_STEPPED;
        strcpy(record->detail, "stepped back by 3 s");
        return;
    }
}

static void fill_key_change(struct maker *maker, struct record *record)
{
    char old_vkey[NOTE_VKEY_MAX], text[NOTE_MAX];
    record->event = RECORD_LOG_KEY_CHANGED;
    note_key_format(&maker->log.key, old_vkey);
    note_key_format(&maker->next_log.key, record->log_vkey);
    int length =
        record_key_change_text(ORIGIN, record->seq, old_vkey, record->log_vkey, text, sizeof(text));
    crypto_sign_detached(record->old_signature, NULL, (const unsigned char *)text,
                         (unsigned long long)length,
                         maker->options.forge_change ? maker->next_log.secret : maker->log.secret);
    crypto_sign_detached(record->new_signature, NULL, (const unsigned char *)text,
                         (unsigned long long)length, maker->next_log.secret);
    maker->log = maker->next_log;
}

static void check(const char *what, uint64_t seq, int result, const struct error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "make_log: record %" PRIu64 ": %s: %s\n", seq, what, err->message);
    exit(EXIT_FAILURE);
}

// log.sealed, and the snapshot that it vouches for.
static void fill_sealed(struct maker *maker, struct record *record)
{
    char name[SNAPSHOT_NAME_SIZE], path[SNAPSHOT_NAME_SIZE + 8];
    size_t length;
    struct error err;
    char *text = snapshot_format(maker->state, &length, &err);
    check("snapshot", record->seq, text != NULL ? 0 : -1, &err);
    record->event = RECORD_LOG_SEALED;
    check("digest", record->seq, snapshot_digest(maker->state, record->sha256, &err), &err);
    snapshot_name(record->seq + 1, name);
    snprintf(path, sizeof(path), "log/%s", name);
    if (!maker->options.no_snapshots)
        write_file(maker, path, text, length);
    free(text);
}

static bool must_seal(const struct maker *maker, uint64_t seq)
{
    const struct options *options = &maker->options;
    if (seq == options->change_key || (options->open_lease && seq == options->records - 1))
        return false;
    return options->bytes > 0 ? maker->segment_bytes >= options->bytes
                              : maker->in_segment + 1 >= options->segment;
}

static void fill(struct maker *maker, struct record *record, uint64_t seq)
{
    const struct options *options = &maker->options;
    memset(record, 0, sizeof(*record));
    record->seq = seq;
    record->time_us = START + (int64_t)seq * SECOND + 123456;
    strcpy(record->host, HOST);
    if (seq > 0 && must_seal(maker, seq)) {
        fill_sealed(maker, record);
        return;
    }
    if (seq > 0 && seq == options->change_key)
        fill_key_change(maker, record);
    else if (maker->step < maker->first)
        fill_first(maker, record);
    else if ((options->stale_lease && maker->step == maker->first) ||
             (options->open_lease && seq == options->records - 1))
        fill_grant(maker, record, active(maker, key_number(maker)), REASON_BOOT);
    else if (options->stale_lease || options->change_key >= maker->first ||
             (options->open_lease && seq == options->records - 2))
        record->event = RECORD_DAEMON_STARTED; // nothing that leans on a neighbour
    else
        fill_cycle(maker, record);
    maker->step++;
}

static void close_segment(struct maker *maker)
{
    if (maker->segment != NULL && fclose(maker->segment) != 0)
        fail("a segment");
    maker->segment = NULL;
}

static void open_segment(struct maker *maker, uint64_t seq)
{
    char name[SEGMENT_NAME_SIZE], path[SEGMENT_NAME_SIZE + 8];
    segment_name(seq, name);
    snprintf(path, sizeof(path), "log/%s", name);
    maker->segment = create(maker, path);
    maker->in_segment = maker->segment_bytes = 0;
}

static void append(struct maker *maker, uint64_t seq)
{
    static char line[RECORD_LINE_MAX + 1];
    struct record *record = &maker->record;
    struct error err;
    size_t length;
    if (maker->segment == NULL)
        open_segment(maker, seq);
    fill(maker, record, seq);
    check("state", seq, state_apply(maker->state, record, &err), &err);
    check("encode", seq, record_encode(record, line, RECORD_LINE_MAX, &length, &err), &err);
    if (seq < maker->options.records - maker->options.unsigned_n) {
        struct merkle_hash leaf = merkle_leaf(line, length);
        tile_edge_append(&maker->tiles, &leaf,
                         maker->options.tiles > 0 ? on_full_tile : ignore_tile, maker, NULL);
    }
    line[length] = '\n';
    if (fwrite(line, 1, length + 1, maker->segment) != length + 1)
        fail("a segment");
    maker->in_segment++;
    maker->segment_bytes += length + 1;
    if (record->event == RECORD_LOG_SEALED)
        close_segment(maker);
}

static void write_last_tiles(struct maker *maker)
{
    for (unsigned level = 0; level < TILE_LEVELS; level++) {
        char path[TILE_PATH_MAX];
        uint64_t index;
        unsigned width = tile_edge_width(&maker->tiles, level, &index);
        if (width == 0)
            continue;
        tile_path(level, index, width, path);
        write_file(maker, path, maker->tiles.hashes[level], width * MERKLE_HASH_SIZE);
    }
}

static void write_key(const struct maker *maker, const char *path, const struct signer *signer)
{
    char vkey[NOTE_VKEY_MAX];
    note_key_format(&signer->key, vkey);
    strcat(vkey, "\n");
    write_file(maker, path, vkey, strlen(vkey));
}

// The right edge of the tree lies in the unfinished tiles.
static int read_edge_tile(void *context, unsigned level, uint64_t index, unsigned width,
                          struct merkle_hash *hashes, struct error *err)
{
    const struct tile_edge *tiles = context;
    memcpy(hashes, tiles->hashes[level], width * sizeof(*hashes));
    return 0;
}

static struct merkle_hash root(struct maker *maker)
{
    struct tile_reader reader = {.read = read_edge_tile, .context = &maker->tiles};
    struct merkle_edge edge;
    if (merkle_edge_read(maker->tiles.size, tile_read_hash, &reader, &edge, NULL) != 0)
        abort();
    return merkle_edge_root(&edge);
}

static void write_checkpoint(struct maker *maker)
{
    struct checkpoint checkpoint = {.origin = ORIGIN, .size = maker->tiles.size};
    char text[CHECKPOINT_TEXT_MAX], note[NOTE_MAX];
    uint8_t signature[NOTE_SIGNATURE_SIZE];
    size_t length;
    checkpoint.root = root(maker);
    size_t text_length = checkpoint_format(&checkpoint, text);
    crypto_sign_detached(signature, NULL, (const unsigned char *)text, text_length,
                         maker->log.secret);
    if (note_format(text, &maker->log.key, signature, note, sizeof(note), &length, NULL) != 0)
        abort();
    write_file(maker, "checkpoint", note, length);
}

static uint64_t number(const char *text, struct argp_state *state)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0')
        argp_error(state, "'%s' is no number", text);
    return value;
}

// A number of bytes, with K, M or G for 1024 of the unit before.
static uint64_t size(const char *text, struct argp_state *state)
{
    char digits[32];
    size_t length = strlen(text);
    const char *unit = length > 0 ? strchr("KMG", text[length - 1]) : NULL;
    snprintf(digits, sizeof(digits), "%.*s", (int)(unit != NULL ? length - 1 : length), text);
    uint64_t value = number(digits, state);
    return unit == NULL ? value : value << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : 30);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 's':
        options->segment = number(arg, state);
        return 0;
    case 'b':
        options->bytes = size(arg, state);
        return 0;
    case 'K':
        options->keys = number(arg, state);
        return 0;
    case 'n':
        options->no_snapshots = true;
        return 0;
    case 'u':
        options->unsigned_n = number(arg, state);
        return 0;
    case 'c':
        options->change_key = number(arg, state);
        return 0;
    case 'f':
        options->forge_change = true;
        return 0;
    case 'R':
        options->rotation = true;
        return 0;
    case 't':
        options->tiles = (int)number(arg, state);
        return 0;
    case 'o':
        options->open_lease = true;
        return 0;
    case 'l':
        options->stale_lease = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            options->dir = arg;
        else if (state->arg_num == 1)
            options->records = number(arg, state);
        else
            argp_usage(state);
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num != 2 || options->segment < 2 || options->keys == 0 ||
            options->unsigned_n > options->records)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"segment", 's', "N", 0, "records a segment (default 1000)", 0},
    {"segment-bytes", 'b', "N", 0, "bytes a segment, in place of records", 0},
    {"keys", 'K', "N", 0, "how many keys (default 1)", 0},
    {"no-snapshots", 'n', NULL, 0, "write no snapshots", 0},
    {"unsigned", 'u', "N", 0, "leave the last N records out of the signed head", 0},
    {"change-key", 'c', "INDEX", 0, "change the log's key in this record", 0},
    {"forge-change", 'f', NULL, 0, "let the new key sign in place of the old one", 0},
    {"rotation", 'R', NULL, 0, "rotate wg0 before the releases", 0},
    {"tiles", 't', "0|1|2", 0, "no tiles, full ones, unfinished ones too (default)", 0},
    {"open-lease", 'o', NULL, 0, "end with a release that has no outcome yet", 0},
    {"stale-lease", 'l', NULL, 0, "begin with a release that never gets an outcome", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "DIR RECORDS",
        .doc = "Makes DIR/log, DIR/checkpoint, DIR/tile and the verifier keys DIR/log.vkey (the "
               "first), DIR/next.vkey (after a change) and DIR/other.vkey (that signed nothing).",
    };
    static struct maker maker = {.options = {.segment = 1000, .keys = 1, .tiles = 2}};
    struct signer other;
    argp_parse(&argp, argc, argv, 0, NULL, &maker.options);
    if (sodium_init() < 0)
        return EXIT_FAILURE;
    make_signer(&maker.log, ORIGIN, 1);
    make_signer(&maker.next_log, ORIGIN, 2);
    make_signer(&maker.host, HOST "/custody/host", 3);
    make_signer(&other, ORIGIN, 4);
    write_key(&maker, "log.vkey", &maker.log);
    write_key(&maker, "next.vkey", &maker.next_log);
    write_key(&maker, "other.vkey", &other);
    maker.rotation = 2 + 3 * maker.options.keys;
    maker.first = maker.rotation + (maker.options.rotation ? ROTATION : 0) + 1;
    maker.state = state_new();
    if (maker.state == NULL)
        return EXIT_FAILURE;
    for (uint64_t seq = 0; seq < maker.options.records; seq++)
        append(&maker, seq);
    close_segment(&maker);
    state_free(maker.state);
    if (maker.options.tiles > 1)
        write_last_tiles(&maker);
    write_checkpoint(&maker);
    return EXIT_SUCCESS;
}
