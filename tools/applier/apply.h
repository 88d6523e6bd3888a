// SPDX-License-Identifier: Apache-2.0
// One release from beginning to end: ask for the key, set it, read the device back, report what
// came of it.
#ifndef APPLIER_APPLY_H
#define APPLIER_APPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "custody.h"
#include "device.h"
#include "error.h"

#define APPLY_PUBLIC_KEY_TEXT 45 // base64 of 32 bytes, with the NUL
#define APPLY_LEASE_TEXT      64

// Where the daemon is and how its answers are checked. The strings are the caller's.
struct apply_settings {
    const char *socket;        // NULL: CUSTODY_SOCKET
    const char *log_vkey_file; // its first line: the log's verifier key
    enum device_backend backend;
    bool may_list; // ask for the key's current generation before a release; cleared once the daemon
                   // denies it
};

struct apply_task {
    const char *interface, *key;
    uint64_t generation; // 0: the current one
    enum custody_reason reason;
    const char *ticket; // may be NULL
    bool
        skip_current; // release nothing when the interface already has the key's current generation
};

enum apply_outcome {
    APPLY_CONFIRMED,   // set, read back, recorded
    APPLY_CURRENT,     // skipped: the interface has it already
    APPLY_UNRECORDED,  // set and read back, but the daemon could not be told
    APPLY_FAILED,      // refused by the daemon or the device, or what was read back is another key
    APPLY_UNREACHABLE, // no daemon
    APPLY_NO_DEVICE,   // no such interface, or none of WireGuard
};

// What happened, for people.
struct apply_report {
    const char *backend; // "kernel" or "userspace"
    bool asked;          // a release was asked for: it counts against the policy's rate
    char
        public_key[APPLY_PUBLIC_KEY_TEXT]; // of the released key, base64; "" when none was released
    char lease[APPLY_LEASE_TEXT];
    uint64_t generation;
    uint64_t log_index; // of release.granted
};

// Does `task`. `report` is always filled as far as it came; `err` for every outcome but the first
// two. The private key is wiped before the outcome is reported; a failure of any step closes the
// lease as failed.
enum apply_outcome apply_once(struct apply_settings *settings, const struct apply_task *task,
                              struct apply_report *report, struct error *err);

#endif
