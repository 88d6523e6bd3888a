// SPDX-License-Identifier: Apache-2.0
// The userspace protocol's lines about a WireGuard device with its peers: read into a view, and
// written from a change; pure.
#ifndef APPLIER_UAPI_PEERS_H
#define APPLIER_UAPI_PEERS_H

#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "error.h"
#include "preshared.h"

// Reads the lines of an answer, one after the other; peers are appended to `view`. (The device's
// own key is no line for this: see uapi_answer_public_key.)
struct uapi_view {
    struct device_view *view;
    struct preshared *wanted; // filled in for the peers it names; may be NULL
    uint8_t *key;             // DEVICE_KEY_SIZE bytes of guarded memory, to pass keys through
    struct device_peer *peer; // the one the lines are about; NULL before the first
};
// A uapi_line (uapi.h). Values are never repeated in messages.
int uapi_read_view(const char *name, const char *value, void *view /* struct uapi_view * */,
                   struct error *err);

// Bytes that hold the request for `change`, with a NUL.
size_t uapi_change_size(const struct device_change *change);
// Writes it into `request` (guarded memory of that size, for the caller to wipe). Returns its
// length. Whoever is to have its preshared key copied must have it in `preshared` by now.
size_t uapi_put_change(char *request, size_t size, const struct device_change *change);

#endif
