// SPDX-License-Identifier: Apache-2.0
// What each backend does for a device that is held open; device.c chooses one.
#ifndef APPLIER_DEVICE_BACKEND_H
#define APPLIER_DEVICE_BACKEND_H

#include "device.h"
#include "error.h"
#include "preshared.h"

struct device_session; // each backend's own

struct device_backend_ops {
    const struct device_ops *device;
    int (*open)(struct device_session **out, const char *interface,
                const struct device_identity *identity, struct error *err);
    void (*close)(struct device_session *session); // NULL is fine
    // Fills `view`, which is new, and `wanted` (may be NULL).
    int (*read)(struct device_session *session, struct device_view *view, struct preshared *wanted,
                struct error *err);
    // The change is sound, and none of its preshared keys is still to be copied.
    int (*set)(struct device_session *session, const struct device_change *change,
               struct error *err);
    struct device_messages (*messages)(const struct device_session *session);
};

extern const struct device_backend_ops device_backend_kernel;
extern const struct device_backend_ops device_backend_userspace;

#endif
