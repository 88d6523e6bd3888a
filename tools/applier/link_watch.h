// SPDX-License-Identifier: Apache-2.0
// Tells when interfaces may have come, gone or been set up: rtnetlink for the kernel's, inotify for
// userspace daemons' sockets.
#ifndef APPLIER_LINK_WATCH_H
#define APPLIER_LINK_WATCH_H

#include <poll.h>

#include "error.h"

#define LINK_WATCH_FDS 2

struct link_watch;

// Opens both watches. `*out` is the caller's to close.
int link_watch_open(struct link_watch **out, struct error *err);
void link_watch_close(struct link_watch *watch);
// Fills what to poll for.
void link_watch_fds(const struct link_watch *watch, struct pollfd fds[LINK_WATCH_FDS]);

// Called for an interface that went away (one of the same name may be there again by now) or was
// set up: what is known of it may be true no more.
typedef void link_watch_changed(const char *interface, void *context);
// Takes all that has come, without waiting; then the caller looks at its interfaces. What was lost
// (a full queue) shows in that look. Returns -1 when a watch is broken for good.
int link_watch_drain(struct link_watch *watch, link_watch_changed *changed, void *context,
                     struct error *err);

#endif
