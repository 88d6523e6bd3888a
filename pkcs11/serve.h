// SPDX-License-Identifier: Apache-2.0
// The keeper's sockets: one client at a time, on an inherited descriptor, a path of its own, or
// systemd's socket.
#ifndef PKCS11_SERVE_H
#define PKCS11_SERVE_H

#include <stdbool.h>
#include <sys/types.h>

#include "keeper.h"

#define SERVE_ANYBODY ((uid_t)-1)

// Blocks SIGTERM, SIGINT and SIGHUP and returns a signalfd for them: they end serving between two
// requests, and never within one. To be called before any thread is started. Returns -1 with `err`
// on failure.
int serve_signals(struct error *err);

// Listens on a SOCK_SEQPACKET socket of that path, mode 0600. A socket that nobody listens on any
// more is replaced.
int serve_listen(const char *path, struct error *err);
// Whether a descriptor is a SOCK_SEQPACKET socket, and whether a listening one.
int serve_kind(int fd, bool *listening, struct error *err);

// Serves until a signal comes, or (a connected socket) the client leaves. `client_uid` may be
// SERVE_ANYBODY. Returns KEEPER_GOES_ON at such an orderly end.
enum keeper_outcome serve_client(struct keeper *keeper, int fd, int signals, uid_t client_uid,
                                 struct error *err);
enum keeper_outcome serve_clients(struct keeper *keeper, int listener, int signals,
                                  uid_t client_uid, struct error *err);

#endif
