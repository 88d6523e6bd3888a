// SPDX-License-Identifier: Apache-2.0
// One WireGuard interface: find it, set its private key, read its public key back; by the kernel or
// a userspace daemon.
#ifndef APPLIER_DEVICE_H
#define APPLIER_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "error.h"

#define DEVICE_KEY_SIZE 32
#define DEVICE_NAME_MAX 15 // bytes of an interface's name, without the NUL (IFNAMSIZ - 1)

enum device_backend {
    DEVICE_AUTO,      // userspace if the interface's UAPI socket exists, else kernel
    DEVICE_KERNEL,    // generic netlink, family "wireguard"
    DEVICE_USERSPACE, // UAPI socket /var/run/wireguard/INTERFACE.sock
};

// Tells one device from a later one of the same name: interface index, or the socket's inode and
// birth.
struct device_identity {
    uint64_t number;
    struct timespec made;
};

// Called for each device; the name lives during the call only.
typedef void device_found(const char *interface, void *context);

// What a backend can do. Functions return 0, or -1 with `err` filled: ERROR_NOT_FOUND where no such
// device exists, ERROR_PERMISSION_DENIED, ERROR_DEADLINE_EXCEEDED, ERROR_DATA_LOSS for an answer
// that makes no sense.
struct device_ops {
    const char *name; // for people

    // Whether the interface is there now; cheap, asks nothing of the device itself.
    int (*find)(const char *interface, struct device_identity *identity, struct error *err);
    // Sets the 32-byte private key (taken from guarded memory, copied only into guarded memory,
    // wiped).
    int (*set_private_key)(const char *interface, const uint8_t private_key[DEVICE_KEY_SIZE],
                           struct error *err);
    // The public key of the private key in use now; all zeros when the device has none.
    int (*get_public_key)(const char *interface, uint8_t public_key[DEVICE_KEY_SIZE],
                          struct error *err);
    // Calls `found` for each WireGuard device of this backend.
    int (*list)(device_found *found, void *context, struct error *err);
};

extern const struct device_ops device_kernel;
extern const struct device_ops device_userspace;

// The backend that serves `interface`; for DEVICE_AUTO decided anew at each call.
const struct device_ops *device_select(enum device_backend backend, const char *interface);
// "auto", "kernel", "userspace"; -1 for what is none.
int device_backend_from_name(const char *name);

// Whether `interface` may be an interface's name: 1..15 bytes, no '/', ':' or white space, not "."
// or "..".
bool device_name_is_valid(const char *interface);
bool device_identity_equal(const struct device_identity *a, const struct device_identity *b);
// Writes "wg0, wg1" (or "none") of `ops` into `text`, cut to `size`: for messages.
void device_describe_all(const struct device_ops *ops, char *text, size_t size);

// Milliseconds of the monotonic clock, for deadlines.
int64_t device_now_ms(void);

#endif
