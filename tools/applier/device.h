// SPDX-License-Identifier: Apache-2.0
// One WireGuard interface, of the kernel or of a userspace daemon: find it, read it with its peers,
// change its key and its peers.
#ifndef APPLIER_DEVICE_H
#define APPLIER_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "device_view.h"
#include "error.h"

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
    // The private key itself, clamped, into 32 bytes of guarded memory; all zeros when it has none.
    int (*get_private_key)(const char *interface, uint8_t *private_key, struct error *err);
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

// ---- a device held open ----

// One device, from device_open on. One that is made anew under the same name is another: then every
// function here fails with ERROR_NOT_FOUND, as it does when the device is gone. Not for two threads
// at once. sodium_init must have been called.
struct device;

// Opens `interface`. One socket serves all requests; a userspace daemon may close it after each.
// Returns 0, or -1 with `err` filled as device_ops does.
int device_open(struct device **out, const char *interface, enum device_backend backend,
                struct error *err);
void device_close(struct device *device); // NULL is fine
const char *device_interface(const struct device *device);
// "kernel" or "userspace", for people.
const char *device_backend_name(const struct device *device);

// Reads the whole device (nothing less can be asked for) into a new view, for the caller to free
// with device_view_free. A dump that a change overtook is asked for again. Of the keys in it, the
// private and preshared ones pass through guarded memory only, and are wiped. ERROR_ABORTED where
// it changes faster than it can be read.
int device_read(struct device *device, struct device_view **view, struct error *err);

// What to do to one peer. What is not named stays as it is.
struct device_peer_change {
    uint8_t public_key[DEVICE_KEY_SIZE];
    bool remove;      // take it away; nothing below counts. Fine when it is not there.
    bool update_only; // leave all as it is when there is no such peer; else it is made
    bool set_endpoint;
    union device_endpoint endpoint;
    bool set_keepalive;
    uint16_t keepalive; // seconds, 0: off
    // The preshared key to set, 32 bytes of guarded memory, all zeros to have none. NULL: leave it.
    const uint8_t *preshared;
    // Or the public key of another peer of this device that must be there: this one gets the same
    // preshared key, or none if that one has none. Read just before; not with `preshared`. NULL:
    // no.
    const uint8_t *copy_preshared_from;
    bool replace_allowed_ips; // forget the allowed-ips that it has
    // To add. What another peer of this device has is taken from it.
    const struct device_allowed_ip *allowed_ips;
    size_t allowed_count;
};

struct device_change {
    const uint8_t *private_key; // 32 bytes of guarded memory, set first; NULL: leave it
    const struct device_peer_change *peers;
    size_t peer_count;
};

// Makes the changes, in their order, in one request (the kernel: in several where they need more
// than one netlink attribute holds, 64 KiB, some 500 peers). The request is guarded memory and
// wiped. A request that fails part of the way leaves what came before it done: read the device to
// see. ERROR_INVALID_ARGUMENT for a change that contradicts itself, ERROR_FAILED_PRECONDITION when
// the peer to copy a preshared key from is not there; nothing is changed then.
int device_set(struct device *device, const struct device_change *change, struct error *err);

// Gives each of these peers of `to` the preshared key that the same peer of `from` has, or none
// where that has none; passes over those that either has not. 0, or -1 with `err`.
int device_copy_preshared(struct device *from, struct device *to,
                          const uint8_t (*public_keys)[DEVICE_KEY_SIZE], size_t count,
                          struct error *err);

// Counts since device_open: netlink messages, or UAPI requests and answers.
struct device_messages {
    uint64_t sent, received;
};
struct device_messages device_messages(const struct device *device);

// Milliseconds of the monotonic clock, for deadlines.
int64_t device_now_ms(void);

#endif
