// SPDX-License-Identifier: Apache-2.0
// The channel between custodyd and the keeper: SOCK_SEQPACKET, fixed structs in host byte order,
// one message a packet. KEEPER beside this file says what each operation promises and what the
// keeper refuses.
#ifndef PKCS11_CHANNEL_H
#define PKCS11_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "merkle.h"
#include "note.h"
#include "psk_note.h"
#include "record.h"

#define KEEPER_MAGIC     0x6b637573u
#define KEEPER_VERSION   3
#define KEEPER_BATCH_MAX 64 // entries a commit
#define KEEPER_LIST_MAX  32 // blobs a LIST answer
#define KEEPER_PROBE_MAX 24
#define KEEPER_BOX_SIZE  80 // crypto_box_seal of a 32-byte key

// Seconds after which the log's disk counts as hanging.
#define KEEPER_DISK_TIMEOUT_S 30

enum keeper_op {
    KEEPER_STATUS = 1, // -> status
    KEEPER_PROBE,      // -> probe
    KEEPER_INIT,       // -> status; creates or finds the objects. Refused once the token holds a
                       // custody-head
    KEEPER_LIST,       // list_request -> list; with this an opening of the log begins: a head that
                       // waits is written into the token first
    KEEPER_GENERATE,   // generate -> generated; seals a new key as custody-new/NAME/GENERATION,
                       // releasable to nobody
    KEEPER_RECEIVE, // receive -> nothing; seals what another host sent as custody-new/…, likewise
    KEEPER_LOG_OPEN, // log_open -> log_opened; must precede the first ENTRY
    KEEPER_ENTRY,    // entry; no answer of its own
    KEEPER_COMMIT, // commit -> a KEEPER_ENTRY answer for each entry whose action is not NONE, then
                   // committed
    KEEPER_OFFER,  // import -> offered; the key that a private key is to be boxed to
    KEEPER_IMPORT, // import -> generated; seals it as custody-new/..., releasable to
                   // nobody
};

// What an entry asks of the keeper besides being committed. The arguments are the record's own
// fields.
enum keeper_action {
    KEEPER_ACTION_NONE = 0,
    KEEPER_ACTION_INIT,  // token.initialised: names the keys the token holds; checked
    KEEPER_ACTION_ADOPT, // key.generated, key.imported: custody-new/… becomes custody-key/…; the
                         // public key is checked
    KEEPER_ACTION_RELEASE,     // release.granted: unsealed (or, a preshared key that was made here,
                               // derived) into a box for applier_public_key
    KEEPER_ACTION_DESTROY,     // key.destroying
    KEEPER_ACTION_PUBLISH,     // key.published: the bundle built from the record, signed with
                               // custody-host
    KEEPER_ACTION_ACKNOWLEDGE, // peer.staged, peer.retired: the acknowledgement, likewise
    KEEPER_ACTION_REFRESH,     // key.refreshed: the freshness note, likewise
    KEEPER_ACTION_PSK_MAKE,    // psk.generated: this host's part, in a box for receive_key, in the
                               // signed note
    KEEPER_ACTION_PSK_TAKE,    // psk.received: what KEEPER_RECEIVE sealed becomes custody-key/…;
                               // the signed note says so
    KEEPER_ACTION_PSK_SET,     // psk.set: the signed note
    KEEPER_ACTION_PSK_DESTROY, // psk.destroyed: of what was received
};

// Whether the token, once restored from a copy, could not be told from one that was not: then it
// does not remember the log across a restore of both.
enum keeper_restore {
    KEEPER_RESTORE_UNKNOWN = 0, // custody does not know this kind of token: its vendor does
    KEEPER_RESTORE_UNNOTICED,   // its objects are files, which can be put back
};

struct keeper_status {
    bool initialised; // it holds every object of `token init`
    bool has_head;
    uint32_t blobs;     // custody-key/…
    uint32_t leftovers; // custody-new/…
    struct record_token token;
    char suite[17];
    uint32_t restore;          // enum keeper_restore
    uint32_t head_interval_ms; // how long custody-head may lag behind what was answered
    char log_vkey[NOTE_VKEY_MAX];
    char host_vkey[NOTE_VKEY_MAX];
    char head[NOTE_MAX]; // the signed checkpoint in the token, NUL-terminated; "" when !has_head
};

struct keeper_probe_check {
    char name[48];
    bool passed;
    bool required;
    char detail[128];
};
struct keeper_probe {
    uint32_t count;
    struct keeper_probe_check checks[KEEPER_PROBE_MAX];
};

struct keeper_blob {
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint32_t purpose;
    bool adopted; // custody-key/…, not custody-new/…
};
struct keeper_list_request {
    uint32_t first; // index in the token's list
};
struct keeper_list {
    uint32_t total;
    uint32_t count; // in this answer
    struct keeper_blob blobs[KEEPER_LIST_MAX];
};

struct keeper_generate {
    char key[KEY_MAX + 1];
    uint64_t generation; // above every generation of this key in the token
    uint32_t purpose;    // PURPOSE_WIREGUARD or PURPOSE_RECEIVE
};
struct keeper_generated {
    uint8_t public_key[RECORD_KEY_SIZE];
};

// An epoch of a link's preshared key, as the other end's note brought it. The key before it must be
// in the token, unless a chain begins (psks.h).
struct keeper_receive {
    char key[KEY_MAX + 1]; // our own
    char peer[HOST_MAX + 1];
    char peer_key[KEY_MAX + 1];
    uint64_t epoch;
    uint64_t receive_generation; // of NAME_RECEIVE_KEY, which the box is sealed to
    uint8_t box[PSK_BOX_SIZE];
};

// A private key that an interface has already (import.h).
struct keeper_import {
    char key[KEY_MAX + 1];
    uint64_t generation; // above every generation of this key in the token
    uint8_t public_key[RECORD_KEY_SIZE];
    uint8_t box[KEEPER_BOX_SIZE]; // IMPORT: crypto_box_seal of the private key to the offer's key
};
struct keeper_offered {
    char note[NOTE_MAX]; // an import offer, signed with custody-log
};

// Where the log stands. The keeper reads the segment itself (DIR/log/FIRST.jsonl, its own read-only
// descriptor), recomputes the root of `size` leaves from `edge` (of the `first` leaves before the
// segment) and its lines, and compares it with the signed head: custodyd's word is believed for
// nothing.
//
// With `accept_loss` the log is opened although it is not the one that the token remembers: at its
// first `size` lines, whatever their root, and without a checkpoint. The one commit that is taken
// then is the four records of loss.h, whose approvals the keeper checks itself.
struct keeper_log_open {
    uint64_t first;            // index of the segment's first record: its name
    char checkpoint[NOTE_MAX]; // the latest signed head, NUL-terminated; "" for an empty log
    uint32_t accept_loss;      // 0 or 1
    uint64_t size;             // of accept_loss
    uint32_t edge_length;      // merkle_edge_length(first)
    uint32_t proof_length; // consistency from the token's head to this one, where that is smaller
                           // and not empty
    struct merkle_hash edge[MERKLE_LEVELS];
    struct merkle_hash proof[MERKLE_PROOF_MAX];
};
struct keeper_log_opened {
    uint64_t size;   // leaves under the signed head
    uint64_t offset; // bytes of the segment that they take; the next entry's line must start there
};

struct keeper_entry {
    uint32_t action;
    struct record record; // seq must be the next leaf's
};
struct keeper_entry_result {
    uint32_t index;               // of the entry in its batch
    uint8_t box[KEEPER_BOX_SIZE]; // RELEASE
    char note[NOTE_MAX];          // PUBLISH, ACKNOWLEDGE, REFRESH, PSK_MAKE, PSK_TAKE, PSK_SET: the
                                  // signed note, NUL-terminated
};

struct keeper_commit {
    uint32_t count; // entries since the last commit
};
struct keeper_committed {
    uint64_t size; // leaves under the new head
    char checkpoint[NOTE_MAX];
};

struct keeper_header {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint64_t id; // chosen by the asker; the answer bears it
};

struct keeper_request {
    struct keeper_header header;
    union {
        struct keeper_list_request list;
        struct keeper_generate generate;
        struct keeper_receive receive;
        struct keeper_import import;
        struct keeper_log_open log_open;
        struct keeper_entry entry;
        struct keeper_commit commit;
    } body;
};

// When code is not ERROR_OK the body does not count. A COMMIT that fails as a whole (a line that is
// not its record's, no durability, no signature) answers with its code at once, without entry
// results: nothing was signed, nothing was done but what cannot hurt, and the log must be opened
// again.
struct keeper_reply {
    struct keeper_header header;
    struct error error;
    union {
        struct keeper_status status;
        struct keeper_probe probe;
        struct keeper_list list;
        struct keeper_generated generated;
        struct keeper_offered offered;
        struct keeper_log_opened log_opened;
        struct keeper_entry_result result;
        struct keeper_committed committed;
    } body;
};

// Bytes of a request or a successful reply for `op` (a failed reply carries no body); 0 for an
// unknown op.
size_t channel_request_size(enum keeper_op op);
size_t channel_reply_size(const struct keeper_reply *reply);

// Send one message; EINTR is retried. Return 0, 1 when the socket is non-blocking and full, -1 with
// `err`.
int channel_send_request(int fd, const struct keeper_request *request, struct error *err);
int channel_send_reply(int fd, const struct keeper_reply *reply, struct error *err);
// Receive one message, whose size, magic, version and op were checked, and whose strings are
// NUL-terminated. Return 0, 1 when the socket is non-blocking and nothing is there, -1 with `err`
// (ERROR_UNAVAILABLE at end of file).
int channel_receive_request(int fd, struct keeper_request *request, struct error *err);
int channel_receive_reply(int fd, struct keeper_reply *reply, struct error *err);

#endif
