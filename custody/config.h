// SPDX-License-Identifier: Apache-2.0
// custodyd's configuration file: what the daemon is, where its parts are, and who may do what.
// Default deny.
#ifndef CUSTODY_CONFIG_H
#define CUSTODY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "name.h"
#include "operators.h"
#include "record.h"

#define CONFIG_TITLE_MAX 63 // bytes of a section's name, without the NUL

enum config_unit {
    CONFIG_UNIT_EXACT, // the caller must be in just this systemd unit
    CONFIG_UNIT_NONE,  // … in no unit
    CONFIG_UNIT_ANY,   // … anywhere
};

// Who a section is about.
struct config_principal {
    char name[CONFIG_TITLE_MAX + 1];
    uid_t uid;
    bool has_gid;
    gid_t gid;
    enum config_unit unit_kind;
    char unit[RECORD_UNIT_MAX + 1];
};

// Who may have a key released, for which reasons, how often.
struct config_grant {
    struct config_principal who;
    uint32_t reasons;      // bit 1 << enum record_reason
    uint32_t rate_count;   // releases
    uint32_t rate_seconds; // in this time
};

struct config_key {
    char name[KEY_MAX + 1];
    uint32_t not_after_s; // how long a published bundle is good for
    uint32_t lifetime_s;  // from activation to the next rotation; 0: none by schedule
    uint32_t grace_s;     // how long a deactivated generation may come back; then it is destroyed
    uint32_t window_s;    // in which a rotation is confirmed, else it is rolled back
    uint32_t jitter_s;    // a rotation comes up to so much earlier
    uint32_t psk_lifetime_s; // of preshared keys; 0: they are not rotated
    struct config_grant *grants;
    size_t grant_count;
};

// A program that is run for each record of these events.
struct config_hook {
    char name[CONFIG_TITLE_MAX + 1];
    char **command; // its arguments, the first an absolute path; NULL at the end
    bool events[RECORD_EVENTS];
    char *user; // it runs as; NULL: as the daemon itself
    uid_t uid;  // of `user`
    gid_t gid;
    uint32_t timeout_s;
};

struct config {
    char host[HOST_MAX + 1];
    char *audit_dir;
    uint32_t lease_s;
    bool approvals_by_uid;    // operators approve by their uid alone: the weaker mode
    char *operators_file;     // of their pinned SSH keys; NULL: none
    struct operators *pinned; // what it holds
    struct {
        char *path;
        mode_t mode;
        char *group; // NULL: as it comes
    } socket;
    struct {
        char *socket;  // of a keeper that runs by itself; or NULL
        char *program; // the keeper to start; or NULL
        char *token;   // its token's URI
        uint32_t releases_per_second;
        uint32_t timeout_s;
        uint32_t head_interval_ms; // passed on to a keeper that is started
    } keeper;
    struct {
        uint32_t connections_per_uid;
        uint32_t connections;
        uint32_t requests_in_flight; // on one connection
        uint32_t idle_s;
    } limits;
    struct {
        uint64_t segment_size; // bytes; a segment that has as many is closed
        uint32_t segment_age_s;
    } log;
    struct config_principal *operators;
    size_t operator_count;
    struct config_principal *auditors;
    size_t auditor_count;
    struct {
        char *socket;   // answers GET /metrics; NULL: none
        char *textfile; // for node_exporter; NULL: none
        uint32_t interval_s;
    } metrics;
    struct config_hook *hooks;
    size_t hook_count;
    struct config_key *keys;
    size_t key_count;
    char sha256[65]; // of the file, lower-case hex
};

// Reads and checks the file; an unknown option, a bad value and a duplicate each name file and
// line. NULL with `err` on failure; else the caller's to free.
struct config *config_read(const char *path, struct error *err);
void config_free(struct config *config);

// Moves what may change while the daemon runs (keys, operators, auditors, hooks, limits, log,
// lease, and the digest) from `fresh` into `config`; `fresh` is left with what `config` had of
// these, to be freed.
void config_take_policy(struct config *config, struct config *fresh);

// What is allowed, but can hardly be meant: a key that has a lifetime and no grant for ROTATION.
// False where nothing is; else `text` says what.
#define CONFIG_WARNING_SIZE 256
bool config_key_warning(const struct config_key *key, char text[CONFIG_WARNING_SIZE]);

// NULL where the key is not declared.
const struct config_key *config_find_key(const struct config *config, const char *name);

#endif
