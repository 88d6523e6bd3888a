// SPDX-License-Identifier: Apache-2.0
// libcustody: the client's side of custodyd's protocol. Blocking calls with a deadline, opaque
// types; not thread-safe (one connection a thread). Every function that can fail returns 0, or -1
// with `err` filled (which may be NULL).
#ifndef CUSTODY_H
#define CUSTODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUSTODY_API      __attribute__((visibility("default")))
#define CUSTODY_SOCKET   "/run/custody/custody.sock"
#define CUSTODY_KEY_SIZE 32

// gRPC's names and numbers; the same as on the wire.
enum custody_code {
    CUSTODY_OK = 0,
    CUSTODY_UNKNOWN = 2,
    CUSTODY_INVALID_ARGUMENT = 3,
    CUSTODY_DEADLINE_EXCEEDED = 4,
    CUSTODY_NOT_FOUND = 5,
    CUSTODY_ALREADY_EXISTS = 6,
    CUSTODY_PERMISSION_DENIED = 7,
    CUSTODY_RESOURCE_EXHAUSTED = 8,
    CUSTODY_FAILED_PRECONDITION = 9,
    CUSTODY_ABORTED = 10,
    CUSTODY_INTERNAL = 13,
    CUSTODY_UNAVAILABLE = 14,
    CUSTODY_DATA_LOSS = 15, // an answer that does not hold what it must: a receipt that does not
                            // verify, a wrong key
    CUSTODY_UNAUTHENTICATED = 16,
};

struct custody_error {
    enum custody_code code;
    char message[512];
};
// "PERMISSION_DENIED".
CUSTODY_API const char *custody_code_name(enum custody_code code);

struct custody; // a connection

struct custody_options {
    const char *socket;   // path; NULL: CUSTODY_SOCKET
    const char *log_vkey; // the log's verifier key, pinned; NULL: custody_release refuses
    const char *client;   // name and version, for people; may be NULL
    int timeout_ms;       // for each call, from its start; 0: 10,000
};

// Connects and says hello. `*out` is the caller's to close.
CUSTODY_API int custody_connect(const struct custody_options *options, struct custody **out,
                                struct custody_error *err);
// Closes and frees; NULL is fine.
CUSTODY_API void custody_close(struct custody *custody);
// The host id and the log's verifier key as the daemon tells them (the latter is not verified);
// live until custody_close.
CUSTODY_API const char *custody_host(const struct custody *custody);
CUSTODY_API const char *custody_told_log_vkey(const struct custody *custody);

// Why a key is asked for.
enum custody_reason {
    CUSTODY_REASON_BOOT = 1,
    CUSTODY_REASON_RESTORE = 2,
    CUSTODY_REASON_ROTATION = 3,
    CUSTODY_REASON_ROLLBACK = 4,
    CUSTODY_REASON_OPERATOR = 5,
};

struct custody_released; // a released key, its private half in guarded memory

// Asks for generation `generation` (0: the active one, else the pre-active) of `key`. The answer is
// handed over only after these were checked: the receipt's signature and proof against the pinned
// log key, that the record it proves names this key, generation and our own ephemeral key, and that
// the private key opened has the public key recorded.
CUSTODY_API int custody_release(struct custody *custody, const char *key, uint64_t generation,
                                enum custody_reason reason, const char *ticket,
                                struct custody_released **out, struct custody_error *err);
// The private key, 32 bytes, clamped, in memory from sodium_malloc: readable until
// custody_released_wipe. NULL after.
CUSTODY_API const uint8_t *custody_released_private_key(const struct custody_released *released);
CUSTODY_API const uint8_t *custody_released_public_key(const struct custody_released *released);
CUSTODY_API const char *custody_released_key(const struct custody_released *released);
CUSTODY_API uint64_t custody_released_generation(const struct custody_released *released);
CUSTODY_API const char *custody_released_lease(const struct custody_released *released);
CUSTODY_API int64_t custody_released_expires_us(const struct custody_released *released);
// The record's line and its receipt (tlog-proof), NUL-terminated text.
CUSTODY_API const char *custody_released_record(const struct custody_released *released);
CUSTODY_API const char *custody_released_receipt(const struct custody_released *released);
// Wipes and frees the private key only: call it as soon as the key is set.
CUSTODY_API void custody_released_wipe(struct custody_released *released);
CUSTODY_API void custody_released_free(struct custody_released *released);

// Closes the lease: the key was set and read back, or not (`detail` says why; may be NULL). Durable
// on return.
CUSTODY_API int custody_report_outcome(struct custody *custody, const char *lease, bool applied,
                                       const char *detail, struct custody_error *err);

struct custody_token_info {
    char label[33], serial[17], manufacturer[33], model[17], suite[17];
    uint32_t blobs;     // sealed blobs the token holds
    uint32_t leftovers; // of those, never recorded as generated
};

struct custody_status {
    char host[64], version[33];
    bool initialised, keeper_ready, log_ready;
    char keeper_message[512], log_message[512]; // why not ready; "" when it is
    uint64_t log_size, head_size;               // records signed; size of the head in the token
    char log_root[64];                          // base64
    char log_vkey[256], host_vkey[256];
    struct custody_token_info token;
    uint32_t leases, connections, keys;
    int64_t started_us;
    size_t warning_count;
    char warnings[8][256];
    bool sealed;               // token and log disagree: log_message says where
    uint64_t head_lag;         // records signed that the head in the token does not cover
    uint32_t head_interval_ms; // how long it may lag: within this a restored log goes unnoticed
    bool restore_unnoticed;    // the token can be put back with the log; false: custody cannot tell
    char approvals[16];        // "signatures", or "uids", which is the weaker
};
CUSTODY_API int custody_status(struct custody *custody, struct custody_status *status,
                               struct custody_error *err);

enum custody_key_state {
    CUSTODY_KEY_PRE_ACTIVE = 1,
    CUSTODY_KEY_ACTIVE = 2,
    CUSTODY_KEY_DEACTIVATED = 3,
    CUSTODY_KEY_COMPROMISED = 4,
    CUSTODY_KEY_DESTROYING = 5,
    CUSTODY_KEY_DESTROYED = 6,
};
CUSTODY_API const char *custody_key_state_name(enum custody_key_state state);

struct custody_key {
    char name[64];
    uint64_t generation;
    enum custody_key_state state;
    uint8_t public_key[CUSTODY_KEY_SIZE];
    int64_t generated_us, activated_us, deactivated_us,
        released_us; // microseconds since 1970 UTC; 0 = never
    uint64_t releases;
    bool imported; // it was on an interface before custody was there
};

// Generations of `key`, or of all keys when NULL. `*keys` is an array of `*count` for the caller to
// free().
CUSTODY_API int custody_list_keys(struct custody *custody, const char *key,
                                  struct custody_key **keys, size_t *count,
                                  struct custody_error *err);

// ---- operators ----
struct custody_token_initialised {
    struct custody_token_info token;
    char log_vkey[256], host_vkey[256];
    bool already;
};
CUSTODY_API int custody_token_init(struct custody *custody, struct custody_token_initialised *out,
                                   struct custody_error *err);

struct custody_probe_check {
    char name[48];
    bool passed, required;
    char detail[128];
};
// `*checks` is an array for the caller to free().
CUSTODY_API int custody_token_probe(struct custody *custody, struct custody_probe_check **checks,
                                    size_t *count, struct custody_error *err);
CUSTODY_API int custody_key_generate(struct custody *custody, const char *key, const char *ticket,
                                     struct custody_key *out, struct custody_error *err);
// Takes over `private_key`, 32 bytes of guarded memory, clamped, that an interface has already: as
// the key's active generation, to be rotated off. It leaves this process only boxed to a key of the
// keeper's, which was made for this once and is signed by the pinned log key. The same again is
// fine.
CUSTODY_API int custody_key_import(struct custody *custody, const char *key, const char *ticket,
                                   const uint8_t *private_key, struct custody_key *out,
                                   struct custody_error *err);
// `bundle` (room for `size` bytes, 4,096 suffice) becomes the signed note. `address` (inside the
// tunnel, may be NULL) and `port` are where this host takes move datagrams; `peers` is how many
// counterparts the interface has.
CUSTODY_API int custody_key_publish(struct custody *custody, const char *key, uint64_t generation,
                                    const char *ticket, const char *address, uint16_t port,
                                    uint64_t peers, char *bundle, size_t size,
                                    struct custody_error *err);

// A dangerous operation that waits for two operators' approvals, or has them.
struct custody_request {
    char id[33];                      // hex digits
    char operation[32];               // "key.destroy", "log.accept-loss"
    char text[1024];                  // what operators sign: ssh-keygen -Y sign -n custody-approval
    char key[64];                     // of key.destroy
    uint64_t generation;              // …
    uint32_t uid;                     // of who requested it
    int64_t requested_us, expires_us; // microseconds since 1970 UTC; 0 = it does not expire
    uint64_t old_size, new_size; // of log.accept-loss: records the token remembers, and there are
    unsigned needed;             // so many approvals
    size_t operator_count;       // so many has it
    char operators[8][64];       // from these
};

// Destroys a generation: 0 with `out` filled. An active one is destroyed only under a request that
// two operators approved, `request_id`; where that is NULL, the request is made instead: returns 1
// with `request` filled.
CUSTODY_API int custody_key_destroy(struct custody *custody, const char *key, uint64_t generation,
                                    const char *ticket, const char *request_id,
                                    struct custody_key *out, struct custody_request *request,
                                    struct custody_error *err);

// The request `id`, or all that are open when NULL. `*requests` is an array of `*count` for the
// caller to free().
CUSTODY_API int custody_list_requests(struct custody *custody, const char *id,
                                      struct custody_request **requests, size_t *count,
                                      struct custody_error *err);
// Approves a request: `signature` is the base64 inside of what ssh-keygen -Y sign writes; NULL
// approves by uid alone, where that is configured. `name` (64 bytes) becomes the operator's.
CUSTODY_API int custody_approve(struct custody *custody, const char *id, const char *signature,
                                struct custody_request *request, char name[64],
                                struct custody_error *err);
// Goes on with a log that lacks what the token remembers: 0 when that was done, 1 when it needs
// approvals first. `request` is filled when 1 is returned; else its sizes are.
CUSTODY_API int custody_accept_loss(struct custody *custody, struct custody_request *request,
                                    struct custody_error *err);

// ---- rotation ----

enum custody_bundle_state {
    CUSTODY_BUNDLE_PRE_ACTIVE = 1,
    CUSTODY_BUNDLE_ACTIVE = 2,
    CUSTODY_BUNDLE_COMPROMISED = 3,
    CUSTODY_BUNDLE_DESTROYED = 4,
};

enum custody_peer_state {
    CUSTODY_PEER_STAGED = 1,
    CUSTODY_PEER_MOVED = 2,
    CUSTODY_PEER_RETIRED = 3,
    CUSTODY_PEER_LATE = 4,
    CUSTODY_PEER_ACKNOWLEDGED = 5,
};

// One generation of a counterpart's key, as the log tells of it.
struct custody_peer {
    char host[64], key[64];
    uint64_t generation;
    enum custody_peer_state state; // STAGED, MOVED or RETIRED
    uint8_t public_key[CUSTODY_KEY_SIZE];
    int64_t staged_us, moved_us, retired_us; // 0 = never
};

// A link's preshared keys, by epochs from 1 on; 0 = none.
struct custody_psk {
    char host[64], key[64];               // the other end
    uint64_t made, received;              // the highest epoch that this end made, or was sent
    uint64_t set;                         // the epoch on the interface
    int64_t made_us, received_us, set_us; // 0 = never
    int64_t due_us;                       // when the one after `made` is due; 0 = none is
};

// A record about the rotation that began last, as far as custodyd has seen it since it was started.
struct custody_step {
    uint64_t seq;
    int64_t time_us;
    char event[32];      // of the record: "peer.acknowledged"
    uint64_t generation; // of the key, or in peer.* of the counterpart's
    char peer[64], peer_key[64];
    enum custody_peer_state peer_state; // in peer.acknowledged; else 0
    char detail[512];
};

// All that an applier needs to know of a key.
struct custody_view {
    char key[64];
    // Those that are not destroyed, by number; of deactivated ones the latest 128.
    struct custody_key *generations;
    size_t generation_count;
    struct custody_peer *peers; // by host, key, number
    size_t peer_count;
    struct custody_psk *psks; // by host, key
    size_t psk_count;
    bool has_receive_key; // this key takes preshared keys, sealed to
    uint8_t receive_key[CUSTODY_KEY_SIZE];
    // The rotation: generation 0 = none is open.
    uint64_t rotation_generation;
    enum custody_reason rotation_reason;
    char rotation_ticket[128];
    int64_t rotation_started_us, rotation_ended_us;
    uint32_t rotation_failures;
    bool suspended;
    uint64_t bundle_generation; // published last; 0 = none
    enum custody_bundle_state bundle_state;
    char bundle_sha256[65];
    // The policy, in seconds; lifetime 0: no schedule.
    uint32_t lifetime_s, grace_s, window_s, jitter_s, psk_lifetime_s, not_after_s;
    int64_t next_rotation_us;   // 0 = none is due ever
    uint64_t seq;               // for custody_watch
    struct custody_step *steps; // oldest first
    size_t step_count;
};
CUSTODY_API int custody_get_view(struct custody *custody, const char *key,
                                 struct custody_view **out, struct custody_error *err);
CUSTODY_API void custody_view_free(struct custody_view *view);

// Asks to be told of the next change after `after` (a view's seq), without waiting: the answer
// comes on the connection's descriptor. One watch at a time; other calls may be made meanwhile. It
// is answered after a minute at the latest, also where nothing has changed.
CUSTODY_API int custody_watch(struct custody *custody, uint64_t after, struct custody_error *err);
// For poll(): readable when custody_watch_take may have something that it had not when it was
// called last. A call that was made in between may have read the watch's answer already: call
// custody_watch_take once more before waiting. -1 once the connection is lost.
CUSTODY_API int custody_fd(const struct custody *custody);
// 1 when something has changed (then ask for views and watch again), 2 when the watch ended without
// (then watch again), 0 when it is not answered yet or none is open, -1 when the connection is lost
// or custodyd refused to watch. Never blocks.
CUSTODY_API int custody_watch_take(struct custody *custody, struct custody_error *err);

// How the open rotation ended. Durable on return; asking again what was done already is fine.
CUSTODY_API int custody_end_rotation(struct custody *custody, const char *key, uint64_t generation,
                                     bool confirmed, const char *method, const char *detail,
                                     struct custody_error *err);

// A step with a counterpart's key, or (LATE, ACKNOWLEDGED) a counterpart's step with ours.
struct custody_peer_step {
    const char *key; // ours
    enum custody_peer_state state;
    const char *peer, *peer_key;
    uint64_t generation;                  // of peer_key; of ours with LATE and ACKNOWLEDGED
    const uint8_t *public_key;            // 32 bytes; NULL with LATE and ACKNOWLEDGED
    const char *move_sha256;              // STAGED: lower-case hex
    enum custody_peer_state acknowledged; // ACKNOWLEDGED: STAGED, MOVED or RETIRED
    const char *detail;                   // may be NULL
};
// `note` (room for `size` bytes, 4,096 suffice; may be NULL) becomes the signed acknowledgement
// after STAGED and RETIRED, else "".
CUSTODY_API int custody_record_peer(struct custody *custody, const struct custody_peer_step *step,
                                    char *note, size_t size, struct custody_error *err);
// A signed freshness note about the bundle published last.
CUSTODY_API int custody_key_refresh(struct custody *custody, const char *key, char *note,
                                    size_t size, struct custody_error *err);

enum custody_finding {
    CUSTODY_NOTE_REJECTED = 1,
    CUSTODY_REGISTRY_STALE = 2,
    CUSTODY_REGISTRY_FRESH = 3,
    CUSTODY_DRIFT_FOUND = 4,
    CUSTODY_DRIFT_CLEARED = 5,
};
// For the log: what an applier found. `peer` and `peer_key` may be NULL.
CUSTODY_API int custody_record_finding(struct custody *custody, const char *key,
                                       enum custody_finding finding, const char *peer,
                                       const char *peer_key, const char *detail,
                                       struct custody_error *err);

// ---- preshared keys ----

// A link: our key, and the other end's host and key.
struct custody_link {
    const char *key, *peer, *peer_key;
};
#define CUSTODY_BOX_SIZE 80

// Makes epoch `epoch` of the link's preshared key (the latest again, or the one after it when that
// is due); `note` (room for `size` bytes, 4,096 suffice) becomes the signed note that brings the
// other end its part, sealed to its `receive_key` (32 bytes).
CUSTODY_API int custody_psk_make(struct custody *custody, const struct custody_link *link,
                                 uint64_t epoch, const uint8_t *receive_key, char *note,
                                 size_t size, struct custody_error *err);
// Has what such a note brought (its box, CUSTODY_BOX_SIZE bytes) sealed in this host's token; the
// note must have been verified. `note` becomes the signed word that it was received.
CUSTODY_API int custody_psk_take(struct custody *custody, const struct custody_link *link,
                                 uint64_t epoch, const uint8_t *box, char *note, size_t size,
                                 struct custody_error *err);
// Asks for the link's preshared key of that epoch, as custody_release does for a private key:
// checked alike, its lease closed by custody_report_outcome. It is custody_released_private_key's
// 32 bytes; generation and public key are 0.
CUSTODY_API int custody_psk_release(struct custody *custody, const struct custody_link *link,
                                    uint64_t epoch, enum custody_reason reason,
                                    struct custody_released **out, struct custody_error *err);
// Records that the epoch (0: none) is on the interface; `note` becomes the signed word of that.
CUSTODY_API int custody_psk_set(struct custody *custody, const struct custody_link *link,
                                uint64_t epoch, const char *detail, char *note, size_t size,
                                struct custody_error *err);

// Operators'.
// `reason`: in words, for the record; may be NULL.
CUSTODY_API int custody_key_rotate(struct custody *custody, const char *key, const char *ticket,
                                   const char *reason, struct custody_view **out,
                                   struct custody_error *err);
CUSTODY_API int custody_key_suspend(struct custody *custody, const char *key, const char *ticket,
                                    struct custody_view **out, struct custody_error *err);
CUSTODY_API int custody_key_resume(struct custody *custody, const char *key, const char *ticket,
                                   struct custody_view **out, struct custody_error *err);
// Generation 0: the active one. The view shows the replacement.
CUSTODY_API int custody_key_revoke(struct custody *custody, const char *key, uint64_t generation,
                                   const char *ticket, struct custody_view **out,
                                   struct custody_error *err);

#ifdef __cplusplus
}
#endif

#endif
