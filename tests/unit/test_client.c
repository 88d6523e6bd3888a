// SPDX-License-Identifier: Apache-2.0
// libcustody against a peer in this process that answers well, or wrong in one way at a time: a
// released key is handed over only with its proof, nothing hangs, and nothing the peer sends does
// harm.
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "checkpoint.h"
#include "custody.h"
#include "custody.pb-c.h"
#include "frame.h"
#include "merkle.h"
#include "note.h"
#include "proof.h"
#include "record.h"
#include "tap.h"

#define ORIGIN "alpha/custody/log"

// The one thing that the peer does wrong.
enum twist {
    GOOD,
    BYTE_BY_BYTE,
    BOX_FOR_ANOTHER,
    BOX_SHORT,
    BOX_OF_ANOTHER_KEY,
    RECORD_ANOTHER_EVENT,
    RECORD_ANOTHER_KEY,
    RECORD_ANOTHER_GENERATION,
    RECORD_ANOTHER_APPLIER,
    RECORD_ANOTHER_REASON,
    RECORD_ANOTHER_TICKET,
    RECORD_ANOTHER_LEASE,
    RECORD_ANOTHER_HOST,
    RECORD_ANOTHER_PUBLIC_KEY,
    RECORD_CUT,
    RECORD_ALTERED,
    RECEIPT_OF_ANOTHER_RECORD,
    RECEIPT_AT_ANOTHER_INDEX,
    RECEIPT_ANOTHER_SIGNER,
    RECEIPT_ANOTHER_ORIGIN,
    RECEIPT_CUT,
    RECEIPT_MISSING,
    REFUSED,
    REFUSED_UNKNOWN_CODE,
    CONNECTION_ERROR,
    ANOTHER_ID,
    ANOTHER_BODY,
    NO_BODY,
    NOT_PROTOBUF,
    FRAME_TOO_LONG,
    FRAME_EMPTY,
    FRAME_CUT,
    CLOSED,
    SILENT,
    LATE,
};

struct peer {
    char folder[32];
    char path[64];
    int listener;
    pthread_t thread;
    enum twist twist;
    uint64_t watch_id;         // of the watch that is not answered yet
    bool unchanged;            // what a watch is answered
    unsigned changes;          // so often its state changes after the first part of a view was told
    uint64_t as_of;            // records of its state
    bool empty_part, disorder; // what is wrong with the parts of a view
    struct note_key log_key, other_key;
    unsigned char log_secret[64], other_secret[64];
    uint8_t private_key[32], public_key[32];
};

static const char lease[] = "00112233445566778899aabbccddeeff";
static const int64_t granted_us = INT64_C(1795342272123456), expires_us = INT64_C(1795342282123456);

static bool read_all(int fd, uint8_t *data, size_t length)
{
    while (length > 0) {
        ssize_t n = read(fd, data, length);
        if (n <= 0)
            return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

static Custody__V1__Request *read_request(int fd)
{
    uint8_t header[FRAME_HEADER_SIZE];
    if (!read_all(fd, header, sizeof(header)))
        return NULL;
    size_t length = (size_t)header[1] << 16 | (size_t)header[2] << 8 | header[3];
    uint8_t *message = malloc(length);
    Custody__V1__Request *request = NULL;
    if (read_all(fd, message, length))
        request = custody__v1__request__unpack(NULL, length, message);
    free(message);
    return request;
}

static void write_all(int fd, const uint8_t *data, size_t length, size_t step)
{
    for (size_t at = 0; at < length; at += step)
        if (send(fd, data + at, at + step < length ? step : length - at, MSG_NOSIGNAL) < 0)
            return;
}

static void write_response(int fd, const Custody__V1__Response *response, size_t step)
{
    size_t length = custody__v1__response__get_packed_size(response);
    uint8_t *frame = malloc(FRAME_HEADER_SIZE + length);
    frame_header(length, frame, NULL);
    custody__v1__response__pack(response, frame + FRAME_HEADER_SIZE);
    write_all(fd, frame, FRAME_HEADER_SIZE + length, step);
    free(frame);
}

static void fill_record(const struct peer *peer, const Custody__V1__ReleaseKey *asked,
                        struct record *record)
{
    memset(record, 0, sizeof(*record));
    record->seq = 1;
    record->time_us = granted_us;
    record->event =
        peer->twist == RECORD_ANOTHER_EVENT ? RECORD_RELEASE_DENIED : RECORD_RELEASE_GRANTED;
    strcpy(record->host, peer->twist == RECORD_ANOTHER_HOST ? "beta" : "alpha");
    strcpy(record->key, peer->twist == RECORD_ANOTHER_KEY ? "wg1" : asked->key);
    record->generation = peer->twist == RECORD_ANOTHER_GENERATION ? 4 : 3;
    record->purpose = PURPOSE_WIREGUARD;
    memcpy(record->public_key, peer->public_key, 32);
    record->public_key[0] ^= peer->twist == RECORD_ANOTHER_PUBLIC_KEY;
    memcpy(record->applier_public_key, asked->applier_public_key.data, 32);
    record->applier_public_key[0] ^= peer->twist == RECORD_ANOTHER_APPLIER;
    record->reason =
        peer->twist == RECORD_ANOTHER_REASON ? REASON_ROLLBACK : (uint32_t)asked->reason;
    strcpy(record->ticket, peer->twist == RECORD_ANOTHER_TICKET ? "other" : asked->ticket);
    strcpy(record->lease, lease);
    record->lease[0] = peer->twist == RECORD_ANOTHER_LEASE ? 'f' : record->lease[0];
    record->expires_us = expires_us;
}

// The log has two leaves: something, and the record.
static size_t make_receipt(const struct peer *peer, const char *line, size_t length, char *text)
{
    struct merkle_hash first = merkle_leaf("first", 5);
    struct merkle_hash second = merkle_leaf(line, length);
    if (peer->twist == RECEIPT_OF_ANOTHER_RECORD)
        second = merkle_leaf("second", 6);
    struct proof proof = {.index = 1, .path_length = 1};
    proof.path[0] = first;
    struct checkpoint head = {.size = 2, .root = merkle_node(&first, &second)};
    if (peer->twist == RECEIPT_AT_ANOTHER_INDEX) {
        proof.index = 0;
        head.root = merkle_node(&second, &first);
    }
    strcpy(head.origin, peer->twist == RECEIPT_ANOTHER_ORIGIN ? "beta/custody/log" : ORIGIN);
    char head_text[CHECKPOINT_TEXT_MAX];
    size_t head_length = checkpoint_format(&head, head_text);
    bool other = peer->twist == RECEIPT_ANOTHER_SIGNER;
    uint8_t signature[NOTE_SIGNATURE_SIZE];
    crypto_sign_detached(signature, NULL, (const uint8_t *)head_text, head_length,
                         other ? peer->other_secret : peer->log_secret);
    note_format(head_text, other ? &peer->other_key : &peer->log_key, signature, proof.checkpoint,
                sizeof(proof.checkpoint), &proof.checkpoint_length, NULL);
    size_t receipt_length = 0;
    proof_format(&proof, text, PROOF_MAX, &receipt_length, NULL);
    return receipt_length;
}

static void make_box(const struct peer *peer, const Custody__V1__ReleaseKey *asked, uint8_t *box)
{
    uint8_t key[32], other_public[32], other_private[32];
    memcpy(key, peer->private_key, 32);
    key[5] ^= peer->twist == BOX_OF_ANOTHER_KEY;
    crypto_box_keypair(other_public, other_private);
    crypto_box_seal(box, key, 32,
                    peer->twist == BOX_FOR_ANOTHER ? other_public : asked->applier_public_key.data);
}

static void answer_release(const struct peer *peer, int fd, const Custody__V1__Request *request)
{
    struct record record;
    static char line[RECORD_LINE_MAX];
    char receipt[PROOF_MAX];
    uint8_t box[80], public_key[32];
    size_t line_length = 0;
    const Custody__V1__ReleaseKey *asked = request->release_key;
    fill_record(peer, asked, &record);
    record_encode(&record, line, sizeof(line), &line_length, NULL);
    size_t receipt_length = make_receipt(peer, line, line_length, receipt);
    make_box(peer, asked, box);
    memcpy(public_key, peer->public_key, 32);
    line[line_length - 2] ^= peer->twist == RECORD_ALTERED;

    Custody__V1__ReleasedKey released = CUSTODY__V1__RELEASED_KEY__INIT;
    released.lease = (char *)lease;
    released.expires_us = expires_us;
    released.generation = 3;
    released.public_key = (ProtobufCBinaryData){32, public_key};
    released.box = (ProtobufCBinaryData){peer->twist == BOX_SHORT ? 79 : 80, box};
    released.record =
        (ProtobufCBinaryData){line_length - (peer->twist == RECORD_CUT), (uint8_t *)line};
    size_t cut = peer->twist == RECEIPT_CUT       ? 20
                 : peer->twist == RECEIPT_MISSING ? receipt_length
                                                  : 0;
    released.receipt = (ProtobufCBinaryData){receipt_length - cut, (uint8_t *)receipt};
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.id = request->id;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_RELEASED_KEY;
    response.released_key = &released;
    write_response(fd, &response, peer->twist == BYTE_BY_BYTE ? 1 : 4096);
}

static void answer_refusal(const struct peer *peer, int fd, const Custody__V1__Request *request)
{
    Custody__V1__OutcomeRecorded outcome = CUSTODY__V1__OUTCOME_RECORDED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.id = request->id + (peer->twist == ANOTHER_ID);
    if (peer->twist == REFUSED || peer->twist == CONNECTION_ERROR ||
        peer->twist == REFUSED_UNKNOWN_CODE) {
        response.id = peer->twist == CONNECTION_ERROR ? 0 : request->id;
        response.code =
            peer->twist == REFUSED_UNKNOWN_CODE ? 99 : CUSTODY__V1__CODE__PERMISSION_DENIED;
        response.message = (char *)"key 'wg0': \x1b[31muid 1000 has no grant";
    } else if (peer->twist != NO_BODY) {
        response.body_case = CUSTODY__V1__RESPONSE__BODY_OUTCOME_RECORDED;
        response.outcome_recorded = &outcome;
    }
    write_response(fd, &response, 4096);
}

static void answer_nonsense(const struct peer *peer, int fd)
{
    static const uint8_t too_long[] = {0, 1, 0, 1, 'x'}, empty[] = {0, 0, 0, 0};
    static const uint8_t not_protobuf[] = {0, 0, 0, 3, 0xff, 0xff, 0xff};
    static const uint8_t cut[] = {0, 0, 0, 30, 8, 2};
    switch (peer->twist) {
    case FRAME_TOO_LONG:
        write_all(fd, too_long, sizeof(too_long), 100);
        break;
    case FRAME_EMPTY:
        write_all(fd, empty, sizeof(empty), 100);
        break;
    case NOT_PROTOBUF:
        write_all(fd, not_protobuf, sizeof(not_protobuf), 100);
        break;
    default:
        write_all(fd, cut, sizeof(cut), 100);
        break;
    }
}

// Waits until the client hangs up.
static void await_end(int fd)
{
    uint8_t byte;
    while (read(fd, &byte, 1) > 0)
        continue;
}

static void answer_status(int fd, const Custody__V1__Request *request)
{
    char *warnings[] = {(char *)"first", (char *)"second"};
    Custody__V1__Status status = CUSTODY__V1__STATUS__INIT;
    Custody__V1__TokenInfo token = CUSTODY__V1__TOKEN_INFO__INIT;
    token.label = (char *)"custody";
    status.host = (char *)"alpha";
    status.log_size = 7;
    status.token = &token;
    status.n_warnings = 2;
    status.warnings = warnings;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.id = request->id;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_STATUS;
    response.status = &status;
    write_response(fd, &response, 4096);
}

static void answer_list(int fd, const Custody__V1__Request *request, size_t key_length)
{
    static uint8_t public_key[40] = {9};
    Custody__V1__Key keys[2] = {CUSTODY__V1__KEY__INIT, CUSTODY__V1__KEY__INIT};
    Custody__V1__Key *pointers[2] = {&keys[0], &keys[1]};
    for (size_t i = 0; i < 2; i++) {
        keys[i].name = (char *)"wg0";
        keys[i].generation = i + 1;
        keys[i].state =
            i == 0 ? CUSTODY__V1__KEY_STATE__ACTIVE : CUSTODY__V1__KEY_STATE__PRE_ACTIVE;
        keys[i].public_key = (ProtobufCBinaryData){i == 0 ? 32 : key_length, public_key};
    }
    Custody__V1__KeyList list = CUSTODY__V1__KEY_LIST__INIT;
    list.n_keys = 2;
    list.keys = pointers;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    response.id = request->id;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY_LIST;
    response.key_list = &list;
    write_response(fd, &response, 4096);
}

// Five counterparts, two in a part.
static void answer_view(struct peer *peer, int fd, const Custody__V1__Request *request)
{
    enum { ALL = 5, PART = 2 };
    static uint8_t public_key[32];
    static const char *const hosts[ALL] = {"a", "b", "c", "d", "e"};
    Custody__V1__Peer peers[ALL];
    Custody__V1__Peer *pointers[ALL];
    Custody__V1__Rotation rotation = CUSTODY__V1__ROTATION__INIT;
    Custody__V1__KeyView view = CUSTODY__V1__KEY_VIEW__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    uint64_t from = request->get_view->peers_from;
    response.id = request->id;
    if (from != 0 && request->get_view->as_of != peer->as_of) {
        response.code = CUSTODY__V1__CODE__ABORTED;
        write_response(fd, &response, 4096);
        return;
    }
    view.key = request->get_view->key;
    view.as_of = peer->as_of;
    view.rotation = from == 0 ? &rotation : NULL;
    for (uint64_t i = from; i < ALL && view.n_peers < PART && !(from > 0 && peer->empty_part);
         i++) {
        custody__v1__peer__init(&peers[i]);
        peers[i].host = (char *)hosts[peer->disorder ? i % PART : i];
        peers[i].key = (char *)"wg0";
        peers[i].generation = peer->as_of;
        peers[i].public_key = (ProtobufCBinaryData){sizeof public_key, public_key};
        pointers[view.n_peers++] = &peers[i];
    }
    view.peers = pointers;
    view.more_peers = from + view.n_peers < ALL;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEY_VIEW;
    response.key_view = &view;
    if (from == PART && peer->changes > 0) { // nearly at the end
        peer->changes--;
        peer->as_of++;
    }
    write_response(fd, &response, 4096);
}

// A watch is answered when the next request has come, before that one.
static void answer_watch(struct peer *peer, int fd)
{
    Custody__V1__KeysChanged changed = CUSTODY__V1__KEYS_CHANGED__INIT;
    Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
    if (peer->watch_id == 0)
        return;
    response.id = peer->watch_id;
    peer->watch_id = 0;
    response.body_case = CUSTODY__V1__RESPONSE__BODY_KEYS_CHANGED;
    response.keys_changed = &changed;
    changed.changed = !peer->unchanged;
    if (peer->twist == REFUSED) {
        response.body_case = CUSTODY__V1__RESPONSE__BODY__NOT_SET;
        response.code = CUSTODY__V1__CODE__RESOURCE_EXHAUSTED;
        response.message = (char *)"too many watches";
    }
    write_response(fd, &response, 4096);
}

static bool answer(struct peer *peer, int fd, const Custody__V1__Request *request)
{
    if (request->body_case == CUSTODY__V1__REQUEST__BODY_WATCH_KEYS) {
        peer->watch_id = request->id;
        return peer->twist != CLOSED;
    }
    answer_watch(peer, fd);
    if (request->body_case == CUSTODY__V1__REQUEST__BODY_GET_STATUS) {
        answer_status(fd, request);
        return true;
    }
    if (request->body_case == CUSTODY__V1__REQUEST__BODY_GET_VIEW) {
        answer_view(peer, fd, request);
        return true;
    }
    if (request->body_case == CUSTODY__V1__REQUEST__BODY_LIST_KEYS) {
        answer_list(fd, request, peer->twist == ANOTHER_BODY ? 31 : 32);
        return true;
    }
    if (peer->twist < REFUSED) {
        answer_release(peer, fd, request);
        return true;
    }
    if (peer->twist < NOT_PROTOBUF) {
        answer_refusal(peer, fd, request);
        return true;
    }
    if (peer->twist < CLOSED)
        answer_nonsense(peer, fd);
    if (peer->twist == LATE) {
        nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
        answer_release(peer, fd, request);
    }
    if (peer->twist == SILENT || peer->twist == LATE)
        await_end(fd);
    return false;
}

static void *serve(void *context)
{
    struct peer *peer = context;
    int fd = accept(peer->listener, NULL, NULL);
    Custody__V1__Request *request;
    bool more = true;
    while (more && (request = read_request(fd)) != NULL) {
        if (request->body_case == CUSTODY__V1__REQUEST__BODY_HELLO) {
            Custody__V1__HelloAnswer hello = CUSTODY__V1__HELLO_ANSWER__INIT;
            hello.version = 1;
            hello.host = (char *)"alpha";
            Custody__V1__Response response = CUSTODY__V1__RESPONSE__INIT;
            response.id = request->id;
            response.body_case = CUSTODY__V1__RESPONSE__BODY_HELLO;
            response.hello = &hello;
            write_response(fd, &response, 4096);
        } else {
            more = answer(peer, fd, request);
        }
        custody__v1__request__free_unpacked(request, NULL);
    }
    close(fd);
    return NULL;
}

static void peer_start(struct peer *peer, enum twist twist)
{
    memset(peer, 0, sizeof(*peer));
    peer->twist = twist;
    strcpy(peer->folder, "/tmp/custody-client-XXXXXX");
    if (sodium_init() < 0 || mkdtemp(peer->folder) == NULL)
        abort();
    snprintf(peer->path, sizeof(peer->path), "%s/socket", peer->folder);
    uint8_t public_key[32];
    crypto_sign_keypair(public_key, peer->log_secret);
    note_key_make(&peer->log_key, ORIGIN, public_key, NULL);
    crypto_sign_keypair(public_key, peer->other_secret);
    note_key_make(&peer->other_key, ORIGIN, public_key, NULL);
    randombytes_buf(peer->private_key, 32);
    crypto_scalarmult_base(peer->public_key, peer->private_key);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, peer->path);
    peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(peer->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(peer->listener, 0) < 0)
        abort();
}

static void peer_end(struct peer *peer)
{
    close(peer->listener);
    unlink(peer->path);
    rmdir(peer->folder);
}

// Connects to a peer with `twist`. NULL and `err` when that fails.
static struct custody *connect_to(struct peer *peer, enum twist twist, int timeout_ms,
                                  struct custody_error *err)
{
    struct custody *custody = NULL;
    char vkey[NOTE_VKEY_MAX];
    peer_start(peer, twist);
    note_key_format(&peer->log_key, vkey);
    // Signals are for the client's thread: the peer inherits a mask that keeps them out.
    sigset_t alarm_only, before;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm_only, &before);
    pthread_create(&peer->thread, NULL, serve, peer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    struct custody_options options = {
        .socket = peer->path, .log_vkey = vkey, .client = "test", .timeout_ms = timeout_ms};
    if (custody_connect(&options, &custody, err) < 0)
        CU_FAIL("no connection to the peer");
    return custody;
}

static void disconnect(struct peer *peer, struct custody *custody)
{
    custody_close(custody);
    pthread_join(peer->thread, NULL);
    peer_end(peer);
}

// The code that a release ends with when the peer does `twist`; its message stays in `err`.
static enum custody_code release_from(enum twist twist, int timeout_ms, struct custody_error *err)
{
    struct peer peer;
    struct custody_released *released = (struct custody_released *)&peer;
    memset(err, 0, sizeof(*err));
    struct custody *custody = connect_to(&peer, twist, timeout_ms, err);
    int result = custody_release(custody, "wg0", 0, CUSTODY_REASON_BOOT, "T-1", &released, err);
    if (result == 0) {
        CU_ASSERT_EQUAL(memcmp(custody_released_public_key(released), peer.public_key, 32), 0);
        custody_released_free(released);
    } else {
        CU_ASSERT_PTR_NULL(released);
    }
    disconnect(&peer, custody);
    return result == 0 ? CUSTODY_OK : err->code;
}

static void test_good(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_released *released = NULL;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    CU_ASSERT_STRING_EQUAL(custody_host(custody), "alpha");
    CU_ASSERT_EQUAL_FATAL(
        custody_release(custody, "wg0", 3, CUSTODY_REASON_BOOT, NULL, &released, &err), 0);
    CU_ASSERT_STRING_EQUAL(custody_released_key(released), "wg0");
    CU_ASSERT_EQUAL(custody_released_generation(released), 3);
    CU_ASSERT_STRING_EQUAL(custody_released_lease(released), lease);
    CU_ASSERT_EQUAL(custody_released_expires_us(released), expires_us);
    uint8_t clamped[32];
    memcpy(clamped, peer.private_key, 32);
    clamped[0] &= 248;
    clamped[31] = (clamped[31] & 127) | 64;
    CU_ASSERT_EQUAL(memcmp(custody_released_private_key(released), clamped, 32), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(custody_released_record(released), "\"release.granted\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(custody_released_receipt(released), ORIGIN));
    custody_released_wipe(released);
    CU_ASSERT_PTR_NULL(custody_released_private_key(released));
    custody_released_wipe(released);
    custody_released_free(released);
    disconnect(&peer, custody);
}

static void test_slow_answer(void)
{
    struct custody_error err;
    CU_ASSERT_EQUAL(release_from(BYTE_BY_BYTE, 5000, &err), CUSTODY_OK);
}

// Every way in which the proof, the record or the box can be wrong is refused as such, and said.
static void test_refused_keys(void)
{
    static const struct {
        enum twist twist;
        const char *word;
    } cases[] = {
        {BOX_FOR_ANOTHER, "box"},
        {BOX_SHORT, "box"},
        {BOX_OF_ANOTHER_KEY, "public key recorded"},
        {RECORD_ANOTHER_EVENT, "release.granted"},
        {RECORD_ANOTHER_KEY, "another key"},
        {RECORD_ANOTHER_GENERATION, "generation"},
        {RECORD_ANOTHER_APPLIER, "applier"},
        {RECORD_ANOTHER_REASON, "reason"},
        {RECORD_ANOTHER_TICKET, "ticket"},
        {RECORD_ANOTHER_LEASE, "lease"},
        {RECORD_ANOTHER_HOST, "host 'beta'"},
        {RECORD_ANOTHER_PUBLIC_KEY, "public key"},
        {RECORD_CUT, "record"},
        {RECORD_ALTERED, "re"},
        {RECEIPT_OF_ANOTHER_RECORD, "receipt"},
        {RECEIPT_AT_ANOTHER_INDEX, "receipt"},
        {RECEIPT_ANOTHER_SIGNER, "receipt"},
        {RECEIPT_ANOTHER_ORIGIN, "receipt"},
        {RECEIPT_CUT, "receipt"},
        {RECEIPT_MISSING, "receipt"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct custody_error err;
        enum custody_code code = release_from(cases[i].twist, 5000, &err);
        CU_ASSERT_EQUAL(code, CUSTODY_DATA_LOSS);
        CU_ASSERT_PTR_NOT_NULL(strstr(err.message, cases[i].word));
        if (code != CUSTODY_DATA_LOSS || strstr(err.message, cases[i].word) == NULL)
            printf("# case %zu: %s: %s\n", i, custody_code_name(code), err.message);
    }
}

static void test_another_generation_than_asked(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_released *released = NULL;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    CU_ASSERT_EQUAL(custody_release(custody, "wg0", 2, CUSTODY_REASON_BOOT, NULL, &released, &err),
                    -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_DATA_LOSS);
    CU_ASSERT_PTR_NULL(released);
    disconnect(&peer, custody);
}

static void test_refusal(void)
{
    struct custody_error err;
    CU_ASSERT_EQUAL(release_from(REFUSED, 5000, &err), CUSTODY_PERMISSION_DENIED);
    // A terminal is not to obey what the daemon's message holds.
    CU_ASSERT_STRING_EQUAL(err.message, "key 'wg0': ?[31muid 1000 has no grant");
    CU_ASSERT_EQUAL(release_from(REFUSED_UNKNOWN_CODE, 5000, &err), CUSTODY_UNKNOWN);
    CU_ASSERT_EQUAL(release_from(CONNECTION_ERROR, 5000, &err), CUSTODY_PERMISSION_DENIED);
}

// A refusal leaves the connection usable; what puts the ends out of step does not.
static void test_next_call(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_released *released = NULL;
    struct custody_status status;
    struct custody *custody = connect_to(&peer, REFUSED, 5000, &err);
    CU_ASSERT_EQUAL(custody_release(custody, "wg0", 0, CUSTODY_REASON_BOOT, "", &released, &err),
                    -1);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
    disconnect(&peer, custody);

    custody = connect_to(&peer, ANOTHER_ID, 5000, &err);
    CU_ASSERT_EQUAL(custody_release(custody, "wg0", 0, CUSTODY_REASON_BOOT, "", &released, &err),
                    -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_DATA_LOSS);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "connect again"));
    disconnect(&peer, custody);
}

static void test_nonsense(void)
{
    struct custody_error err;
    static const enum twist nonsense[] = {ANOTHER_ID,   ANOTHER_BODY,   NO_BODY,
                                          NOT_PROTOBUF, FRAME_TOO_LONG, FRAME_EMPTY};
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++)
        CU_ASSERT_EQUAL(release_from(nonsense[i], 5000, &err), CUSTODY_DATA_LOSS);
    CU_ASSERT_EQUAL(release_from(FRAME_CUT, 5000, &err), CUSTODY_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "middle of an answer"));
    CU_ASSERT_EQUAL(release_from(CLOSED, 5000, &err), CUSTODY_UNAVAILABLE);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_silence(void)
{
    struct custody_error err;
    double start = seconds();
    CU_ASSERT_EQUAL(release_from(SILENT, 100, &err), CUSTODY_DEADLINE_EXCEEDED);
    double took = seconds() - start;
    CU_ASSERT_TRUE(took > 0.09);
    CU_ASSERT_TRUE(took < 5);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

// Signals that interrupt each wait neither end a call nor stretch its deadline.
static void test_interrupted(void)
{
    struct custody_error err;
    struct sigaction action = {.sa_handler = on_alarm}, before;
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &often, NULL);
    enum custody_code late = release_from(LATE, 5000, &err);
    double start = seconds();
    enum custody_code silent = release_from(SILENT, 100, &err);
    double took = seconds() - start;
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    CU_ASSERT_EQUAL(late, CUSTODY_OK);
    CU_ASSERT_EQUAL(silent, CUSTODY_DEADLINE_EXCEEDED);
    CU_ASSERT_TRUE(took < 5);
}

static enum custody_code connect_code(const char *path, struct custody_error *err)
{
    struct custody *custody = (struct custody *)err;
    struct custody_options options = {.socket = path, .timeout_ms = 200};
    int result = custody_connect(&options, &custody, err);
    CU_ASSERT_EQUAL(result, -1);
    CU_ASSERT_PTR_NULL(custody);
    return err->code;
}

static void test_unreachable(void)
{
    struct custody_error err;
    struct peer peer;
    char path[200];
    memset(path, 'a', sizeof(path));
    path[199] = '\0';
    CU_ASSERT_EQUAL(connect_code(path, &err), CUSTODY_INVALID_ARGUMENT);
    CU_ASSERT_EQUAL(connect_code("", &err), CUSTODY_INVALID_ARGUMENT);
    CU_ASSERT_EQUAL(connect_code("/nonexistent/socket", &err), CUSTODY_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "/nonexistent/socket"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "is custodyd running?"));
    peer_start(&peer, GOOD);
    close(peer.listener);
    CU_ASSERT_EQUAL(connect_code(peer.path, &err), CUSTODY_UNAVAILABLE);
    peer_end(&peer);
}

// A daemon that has stopped accepting: its backlog is full, and connecting would wait for ever.
static void test_backlog_full(void)
{
    struct custody_error err;
    struct peer peer;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int waiting[16], count = 0;
    peer_start(&peer, GOOD);
    strcpy(address.sun_path, peer.path);
    for (bool full = false; !full && count < 16; count++) {
        waiting[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        full = connect(waiting[count], (struct sockaddr *)&address, sizeof(address)) < 0;
    }
    CU_ASSERT_EQUAL(errno, EAGAIN);
    double start = seconds();
    CU_ASSERT_EQUAL(connect_code(peer.path, &err), CUSTODY_DEADLINE_EXCEEDED);
    CU_ASSERT_TRUE(seconds() - start < 5);
    while (count > 0)
        close(waiting[--count]);
    peer_end(&peer);
}

static void test_pinning(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody *custody = NULL;
    struct custody_released *released = NULL;
    struct custody_options options = {.socket = "/nonexistent", .log_vkey = "alpha+1234+AAAA"};
    CU_ASSERT_EQUAL(custody_connect(&options, &custody, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "pinned"));
    // Without a pinned key no release is even asked for.
    peer_start(&peer, GOOD);
    pthread_create(&peer.thread, NULL, serve, &peer);
    options = (struct custody_options){.socket = peer.path, .timeout_ms = 5000};
    CU_ASSERT_EQUAL_FATAL(custody_connect(&options, &custody, &err), 0);
    CU_ASSERT_EQUAL(custody_release(custody, "wg0", 0, CUSTODY_REASON_BOOT, "", &released, &err),
                    -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_FAILED_PRECONDITION);
    CU_ASSERT_PTR_NULL(released);
    disconnect(&peer, custody);
}

static void test_status_and_list(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_status status;
    struct custody_key *keys = NULL;
    size_t count = 0;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
    CU_ASSERT_STRING_EQUAL(status.host, "alpha");
    CU_ASSERT_STRING_EQUAL(status.token.label, "custody");
    CU_ASSERT_EQUAL(status.log_size, 7);
    CU_ASSERT_EQUAL(status.warning_count, 2);
    CU_ASSERT_STRING_EQUAL(status.warnings[1], "second");
    CU_ASSERT_EQUAL_FATAL(custody_list_keys(custody, NULL, &keys, &count, &err), 0);
    CU_ASSERT_EQUAL_FATAL(count, 2);
    CU_ASSERT_EQUAL(keys[1].generation, 2);
    CU_ASSERT_STRING_EQUAL(custody_key_state_name(keys[1].state), "pre-active");
    free(keys);
    disconnect(&peer, custody);
    // A public key of 31 bytes is none.
    custody = connect_to(&peer, ANOTHER_BODY, 5000, &err);
    CU_ASSERT_EQUAL(custody_list_keys(custody, NULL, &keys, &count, &err), -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_DATA_LOSS);
    CU_ASSERT_PTR_NULL(keys);
    disconnect(&peer, custody);
}

static void test_request_too_long(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_key key;
    struct custody_status status;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    char *ticket = malloc(70000);
    memset(ticket, 't', 70000);
    ticket[69999] = '\0';
    CU_ASSERT_EQUAL(custody_key_generate(custody, "wg0", ticket, &key, &err), -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_INVALID_ARGUMENT);
    free(ticket);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
    disconnect(&peer, custody);
}

static void test_watch(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_status status;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 0); // none is open
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), 0);
        CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 0);
        CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), -1); // one at a time
        CU_ASSERT_EQUAL(err.code, CUSTODY_FAILED_PRECONDITION);
        // Its answer comes before that of another call, which gets its own all the same.
        CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
        CU_ASSERT_EQUAL(status.log_size, 7);
        CU_ASSERT(custody_fd(custody) >= 0);
        CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), -1); // it is to be taken first
        CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 1);
        CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 0);
    }
    disconnect(&peer, custody);
}

static void test_watch_refused(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_status status;
    struct custody *custody = connect_to(&peer, REFUSED, 5000, &err);
    CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), 0);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_RESOURCE_EXHAUSTED);
    CU_ASSERT_STRING_EQUAL(err.message, "too many watches");
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0); // the connection is sound
    disconnect(&peer, custody);
}

static void test_watch_over_an_end(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody *custody = connect_to(&peer, CLOSED, 5000, &err);
    CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), 0);
    struct pollfd poll_fd = {.fd = custody_fd(custody), .events = POLLIN};
    CU_ASSERT_EQUAL(poll(&poll_fd, 1, 5000), 1);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), -1);
    CU_ASSERT_EQUAL(err.code, CUSTODY_UNAVAILABLE);
    CU_ASSERT_EQUAL(custody_fd(custody), -1);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), -1);
    disconnect(&peer, custody);
}

static void test_watch_without_change(void)
{
    struct peer peer;
    struct custody_error err;
    struct custody_status status;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    peer.unchanged = true;
    CU_ASSERT_EQUAL(custody_watch(custody, 5, &err), 0);
    CU_ASSERT_EQUAL(custody_status(custody, &status, &err), 0);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 2);
    CU_ASSERT_EQUAL(custody_watch_take(custody, &err), 0);
    disconnect(&peer, custody);
}

static void test_view_in_parts(void)
{
    static const unsigned changes[] = {0, 1, 3};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct peer peer;
        struct custody_error err;
        struct custody_view *view = NULL;
        struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
        peer.as_of = 7;
        peer.changes = changes[i];
        CU_ASSERT_EQUAL_FATAL(custody_get_view(custody, "wg0", &view, &err), 0);
        CU_ASSERT_EQUAL_FATAL(view->peer_count, 5);
        // All are of one state, and each is there once.
        for (size_t j = 0; j < 5; j++) {
            CU_ASSERT_EQUAL(view->peers[j].host[0], (char)('a' + j));
            CU_ASSERT_EQUAL(view->peers[j].generation, 7 + changes[i]);
        }
        custody_view_free(view);
        disconnect(&peer, custody);
    }
}

static enum custody_code view_code(unsigned changes, bool empty_part, bool disorder)
{
    struct peer peer;
    struct custody_error err;
    struct custody_view *view = NULL;
    struct custody *custody = connect_to(&peer, GOOD, 5000, &err);
    peer.changes = changes;
    peer.empty_part = empty_part;
    peer.disorder = disorder;
    CU_ASSERT_EQUAL(custody_get_view(custody, "wg0", &view, &err), -1);
    CU_ASSERT_PTR_NULL(view);
    disconnect(&peer, custody);
    return err.code;
}

static void test_view_that_never_ends(void)
{
    CU_ASSERT_EQUAL(view_code(1000000, false, false), CUSTODY_ABORTED);
    CU_ASSERT_EQUAL(view_code(0, true, false), CUSTODY_DATA_LOSS);
    CU_ASSERT_EQUAL(view_code(0, false, true), CUSTODY_DATA_LOSS);
}

int main(void)
{
    static CU_TestInfo tests[] = {
        {"a release whose proof holds is handed over", test_good},
        {"an answer may come byte by byte", test_slow_answer},
        {"a key without its proof is not handed over", test_refused_keys},
        {"nor one of another generation than asked", test_another_generation_than_asked},
        {"a refusal is told in the daemon's words", test_refusal},
        {"which connections can be used on", test_next_call},
        {"nonsense ends the connection", test_nonsense},
        {"silence ends at the deadline", test_silence},
        {"signals do no harm", test_interrupted},
        {"nobody there", test_unreachable},
        {"a daemon that accepts nobody", test_backlog_full},
        {"the log key must be pinned", test_pinning},
        {"status and lists", test_status_and_list},
        {"a request that is too long is not sent", test_request_too_long},
        {"a watch is answered while other calls go on", test_watch},
        {"a watch that is refused", test_watch_refused},
        {"a watch whose connection ends", test_watch_over_an_end},
        {"a watch that ends without a change", test_watch_without_change},
        {"a view in parts is of one state", test_view_in_parts},
        {"a view whose parts make no sense", test_view_that_never_ends},
        CU_TEST_INFO_NULL,
    };
    return tap_run("client", tests);
}
