// SPDX-License-Identifier: Apache-2.0
// What a command that ends needs to look at interfaces as the running applier does: configuration,
// trust, registry, custodyd. It holds no packets and listens to no datagrams.
#ifndef APPLIER_SESSION_H
#define APPLIER_SESSION_H

#include "apply.h"
#include "custody.h"
#include "error.h"
#include "registry.h"
#include "setup.h"
#include "tended.h"
#include "trust.h"

enum session_status {
    SESSION_OK = 0,
    SESSION_WRONG = 2,       // the configuration
    SESSION_UNREACHABLE = 3, // custodyd, or it refuses
    SESSION_NO_DEVICE = 4,
};

struct session {
    struct apply_settings settings;
    struct setup *setup;
    struct trust *trust;
    struct registry *registry; // NULL: none configured
    struct custody *custody;
    char log_vkey[NOTE_VKEY_MAX];
    struct tended_world world;
};

// Reads `path` and what it names, and connects. `given`: what the command line says goes first.
// Whatever is returned, session_close.
enum session_status session_open(struct session *session, const char *path,
                                 const struct apply_settings *given, struct error *err);
void session_close(struct session *session);

// The interface, read with its key's view, for tended_free; NULL with `*status` and `err`.
struct tended *session_look(struct session *session, const struct setup_interface *setup,
                            enum session_status *status, struct error *err);

#endif
