// SPDX-License-Identifier: Apache-2.0
// The audit log's record: its fields, and the one JSON line that each record is, byte for byte.
//
// A line is compact JSON with the fields of struct record in one fixed order, absent ones left out.
// One table in record.c drives both directions, so the encoder and the strict parser cannot drift
// apart: what record_parse accepts, record_encode gives back to the byte.
#ifndef PROTO_RECORD_H
#define PROTO_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "name.h"
#include "note.h"

#define RECORD_VERSION   1
#define RECORD_LINE_MAX  65535 // bytes, without the newline
#define RECORD_LEASE_MAX 32    // lower-case hex digits
#define RECORD_UNIT_MAX  255
#define RECORD_EXE_MAX   511
#define RECORD_KEY_SIZE  32 // X25519 public keys

#define RECORD_ADDRESS_MAX 45 // characters of an IPv4 or IPv6 address
#define RECORD_METHOD_MAX  15

#define RECORD_REQUEST_MAX      32  // lower-case hex digits
#define RECORD_OPERATOR_MAX     63  // bytes of an operator's name in the configuration
#define RECORD_OPERATOR_KEY_MAX 383 // "TYPE BASE64" of an SSH public key
#define RECORD_SIGNATURE_MAX    767 // base64 of an SSH signature (PROTOCOL.sshsig)

enum record_event {
    RECORD_NONE = 0,
    RECORD_TOKEN_INITIALISED, // record 0, and no other
    RECORD_TOKEN_OPENED,
    RECORD_TOKEN_LOST,
    RECORD_TOKEN_REKEYED,
    RECORD_LOG_KEY_CHANGED,
    RECORD_LOG_RECOVERED,
    RECORD_LOG_SEALED,
    RECORD_LOG_STUCK,
    RECORD_DAEMON_STARTED,
    RECORD_DAEMON_STOPPED,
    RECORD_POLICY_LOADED,
    RECORD_CLOCK_STEPPED,
    RECORD_KEY_GENERATED,
    RECORD_KEY_IMPORTED,
    RECORD_KEY_PUBLISHED,
    RECORD_KEY_ACTIVATED,
    RECORD_KEY_DEACTIVATED,
    RECORD_KEY_SUSPENDED,
    RECORD_KEY_REVOKED,
    RECORD_KEY_DESTROYING,
    RECORD_KEY_DESTROYED,
    RECORD_RELEASE_GRANTED,
    RECORD_RELEASE_DENIED,
    RECORD_RELEASE_APPLIED,
    RECORD_RELEASE_FAILED,
    RECORD_LEASE_EXPIRED,
    RECORD_ACCESS_DENIED, // any request but a release
    RECORD_APPROVAL_REQUESTED,
    RECORD_APPROVAL_GIVEN,
    RECORD_LOG_LOSS_ACCEPTED,    // the log goes on without records that the token remembers
    RECORD_KEY_RESUMED,          // the operator's hold is over
    RECORD_KEY_REFRESHED,        // a freshness note was signed
    RECORD_ROTATION_STARTED,     // to this generation
    RECORD_ROTATION_CONFIRMED,   // by a new handshake with each required peer
    RECORD_ROTATION_ROLLED_BACK, // the generation before is on the interface again
    RECORD_PEER_STAGED,  // a counterpart's new public key is a second peer, without allowed-ips
    RECORD_PEER_MOVED,   // the allowed-ips are that peer's now
    RECORD_PEER_RETIRED, // the peer was removed
    RECORD_PEER_LATE,    // a counterpart that a rotation does not wait for
    RECORD_PEER_ACKNOWLEDGED, // a counterpart's signed word about our key
    RECORD_NOTE_REJECTED,     // what the registry holds is not what its host would have signed now
    RECORD_REGISTRY_STALE,    // a counterpart's freshness note is too old
    RECORD_REGISTRY_FRESH,    // and is not any more
    RECORD_DRIFT_FOUND,       // the interface is not what log and bundles say
    RECORD_DRIFT_CLEARED,
    RECORD_PSK_GENERATED, // an epoch of a link's preshared key, made here and sent to the other end
    RECORD_PSK_RECEIVED,  // … made by the other end, and sealed in this token
    RECORD_PSK_SET,       // … is on the interface
    RECORD_PSK_DESTROYED, // … received once, is not in the token any more
    RECORD_EVENTS         // how many there are
};

// Why a key is asked for. NONE where a record has no reason.
enum record_reason {
    REASON_NONE = 0,
    REASON_BOOT,     // the interface has no key yet
    REASON_RESTORE,  // the interface appeared again
    REASON_ROTATION, // a new generation takes over
    REASON_ROLLBACK, // the generation before comes back
    REASON_OPERATOR, // a person asked
    REASONS
};

enum record_purpose {
    PURPOSE_NONE = 0,
    PURPOSE_WIREGUARD, // "wireguard-private"
    PURPOSE_PRESHARED, // "preshared"
    PURPOSE_RECEIVE,   // "receive"
    PURPOSE_IMPORTED,  // "wireguard-imported": was on an interface before custody was there
    PURPOSES
};

// What two operators have to approve.
enum record_operation {
    OPERATION_NONE = 0,
    OPERATION_KEY_DESTROY, // "key.destroy": of an active generation
    OPERATION_ACCEPT_LOSS, // "log.accept-loss"
    OPERATIONS
};

// Who caused the record. Absent (present = false) where the daemon did so by itself.
struct record_actor {
    bool present;
    bool exe_unavailable; // the executable could not be read (another uid's, a path too long, not
                          // UTF-8)
    uint32_t uid;
    uint32_t gid;
    uint32_t pid;
    char unit[RECORD_UNIT_MAX + 1]; // "" when in no systemd unit
    char exe[RECORD_EXE_MAX + 1];
    char exe_sha256[65]; // lower-case hex
};

// How far a host is with a counterpart's generation.
enum record_peer_state {
    PEER_NONE = 0,
    PEER_STAGED,  // "staged": a peer without allowed-ips
    PEER_MOVED,   // "moved": the peer with the allowed-ips
    PEER_RETIRED, // "retired": removed from the interface
    PEER_STATES
};

// What a bundle says of its generation: the lifecycle's words (SP 800-57), as far as others need
// them.
enum record_bundle_state {
    BUNDLE_NONE = 0,
    BUNDLE_PRE_ACTIVE,  // "pre-active": stage it
    BUNDLE_ACTIVE,      // "active": the key in use
    BUNDLE_COMPROMISED, // "compromised": remove it at once
    BUNDLE_DESTROYED,   // "destroyed": withdrawn, or past its grace
    BUNDLE_STATES
};

// The token, in token.initialised.
struct record_token {
    bool present;
    bool weak; // it gave away what it should keep, and the configuration allowed that
    char label[33];
    char serial[17];
    char manufacturer[33];
    char model[17];
};

// A record. Fixed size, no pointers: it crosses the keeper's channel as it is. Clear it whole
// (memset) before filling. A field that is zero or empty is absent from the line, but for seq,
// time, event and host, which always stand.
struct record {
    uint64_t seq;    // index of the leaf in the tree
    int64_t time_us; // microseconds since 1970 UTC
    uint32_t event;  // enum record_event
    char host[HOST_MAX + 1];
    struct record_actor actor;
    char key[KEY_MAX + 1];
    uint64_t generation;
    uint32_t purpose; // enum record_purpose
    uint8_t public_key[RECORD_KEY_SIZE];
    uint8_t applier_public_key[RECORD_KEY_SIZE];
    uint32_t reason; // enum record_reason
    char ticket[TICKET_MAX + 1];
    char lease[RECORD_LEASE_MAX + 1];
    int64_t expires_us;    // of the lease
    int64_t not_before_us; // of a bundle
    int64_t not_after_us;
    char request[33]; // what was denied: the name of the protocol's request, e.g. "ReleaseKey"
    uint32_t code;    // enum error_code of a denial or failure
    char detail[DETAIL_MAX + 1];
    uint64_t count; // how many denials a coalesced record stands for, beyond the first.
                    // key.published: how many peers the interface has
    struct record_token token;
    char suite[17]; // sealing suite
    char log_vkey[NOTE_VKEY_MAX];
    char host_vkey[NOTE_VKEY_MAX];
    uint8_t old_signature[NOTE_SIGNATURE_SIZE]; // log.key-changed: by the key before, and by the
                                                // new one, over the
    uint8_t new_signature[NOTE_SIGNATURE_SIZE]; // text of record_key_change_text
    char version[33];                           // of the software, in daemon.started
    char policy_sha256[65];                     // of the configuration file, in policy.loaded
    uint64_t offset; // log.recovered: where in the segment the bytes set aside began,
    uint64_t length; // how many they were,
    char sha256[65]; // and their digest; lower-case hex. log.sealed, daemon.stopped: of the
                     // snapshot of the state before the record (snapshot.h).
                     // key.refreshed: of the text of the bundle published last
    char request_id[RECORD_REQUEST_MAX + 1];     // approval.*, and what was done with the approvals
    uint32_t operation;                          // enum record_operation, in approval.requested
    char operator_name[RECORD_OPERATOR_MAX + 1]; // approval.given: who approves,
    char operator_key[RECORD_OPERATOR_KEY_MAX + 1]; // by which SSH key ("TYPE BASE64"),
    char signature[RECORD_SIGNATURE_MAX + 1]; // and its signature over approval_text; both absent
                                              // where a uid alone approves
    uint64_t old_size;                        // a loss: the head that the token remembers,
    uint8_t old_root[32];
    uint64_t new_size; // and that of the log that is there
    uint8_t new_root[32];
    char peer[HOST_MAX + 1];    // peer.*, and others about one: the counterpart's host,
    char peer_key[KEY_MAX + 1]; // the key on that host, and its generation; `key` is ours
    uint64_t peer_generation;   // (in peer.acknowledged, peer.late: of our own key)
    uint8_t peer_public_key[RECORD_KEY_SIZE];
    uint32_t peer_state;                  // enum record_peer_state, in peer.acknowledged
    uint32_t bundle_state;                // enum record_bundle_state, in key.published
    uint8_t receive_key[RECORD_KEY_SIZE]; // X25519: what preshared keys are sealed to
    char address[RECORD_ADDRESS_MAX + 1]; // where the host takes move datagrams inside the tunnel,
    uint32_t port;                        // UDP
    char previous[65];    // SHA-256 of the text of the bundle before, lower-case hex
    char move_sha256[65]; // peer.staged: of the secret that will tell of the move; lower-case hex
    char method[RECORD_METHOD_MAX + 1]; // rotation.confirmed, rolled-back: "hold", "pair", "poll".
                                        // A preshared key's release: "made", "received"
    uint64_t epoch;                     // of a preshared key
};

// Encodes `record` as one line without its newline into `line` (room for `size` bytes;
// RECORD_LINE_MAX is enough; not NUL-terminated). Sets `*length`. Fails on a string that is not
// UTF-8, an unknown event, and a lack of room.
int record_encode(const struct record *record, char *line, size_t size, size_t *length,
                  struct error *err);

// Parses a line (without its newline). Accepts exactly what record_encode produces.
int record_parse(struct record *record, const char *line, size_t length, struct error *err);
// The same for one line after the other into the same record, of which only what the line before
// filled has to be cleared: the first `*used` bytes (sizeof(struct record) before the first line).
int record_parse_next(struct record *record, size_t *used, const char *line, size_t length,
                      struct error *err);

// "release.granted" and back; NULL and RECORD_NONE for what is none.
const char *record_event_name(enum record_event event);
enum record_event record_event_from_name(const char *name);
const char *record_reason_name(enum record_reason reason);
enum record_reason record_reason_from_name(const char *name);
const char *record_purpose_name(enum record_purpose purpose);
enum record_purpose record_purpose_from_name(const char *name);
const char *record_operation_name(enum record_operation operation);
enum record_operation record_operation_from_name(const char *name);
const char *record_peer_state_name(enum record_peer_state state);
enum record_peer_state record_peer_state_from_name(const char *name);
const char *record_bundle_state_name(enum record_bundle_state state);
enum record_bundle_state record_bundle_state_from_name(const char *name);

// RFC 3339 in UTC with microseconds, "2026-11-22T10:11:12.123456Z", and back. Years 1970 to 9999.
#define RECORD_TIME_SIZE 28 // with the NUL
int record_time_format(int64_t time_us, char text[RECORD_TIME_SIZE]);
int record_time_parse(const char *text, size_t length, int64_t *time_us);

// The text that both keys sign when the log's key changes: "custody log key
// change\nORIGIN\nSEQ\nOLD VKEY\nNEW VKEY\n", SEQ being the record's own. Returns its length
// without the NUL, or -1 when `size` is too small.
int record_key_change_text(const char *origin, uint64_t seq, const char *old_vkey,
                           const char *new_vkey, char *text, size_t size);

#endif
