// SPDX-License-Identifier: Apache-2.0
// Which lines of a wg-quick or systemd-networkd configuration custody has made superfluous. The
// file is read into guarded memory, for a private key may be in it, and nothing of it is told but
// numbers of lines.
#ifndef APPLIER_OLD_CONFIG_H
#define APPLIER_OLD_CONFIG_H

#include "error.h"
#include "setup.h"

// Called for each place: lines `first` to `last`, and what to do with them.
typedef void old_config_tell(void *context, const char *file, unsigned first, unsigned last,
                             const char *what);

// Reads a file of wg-quick's (wg-quick(8): [Interface], [Peer]) or a .netdev of systemd-networkd's
// (systemd.netdev(5): [NetDev], [WireGuard], [WireGuardPeer]). Returns 1 when it is about the
// interface, 0 when it is not (a .netdev of another name; no such file), -1 with `err`.
int old_config_wg_quick(const char *path, const struct setup_interface *setup,
                        old_config_tell *tell, void *context, struct error *err);
int old_config_netdev(const char *path, const struct setup_interface *setup, old_config_tell *tell,
                      void *context, struct error *err);

#endif
