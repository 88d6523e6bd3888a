// SPDX-License-Identifier: Apache-2.0
// Who is at the other end of a connection: attested by the kernel, not by what the peer says.
#ifndef CUSTODY_CALLER_H
#define CUSTODY_CALLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "record.h"

struct caller; // opaque: one connection's peer

// Takes the peer's uid, gid and pid from the socket (SO_PEERCRED, as they were at connect) and
// holds on to the process: by a pidfd (SO_PEERPIDFD, Linux 6.5), or by its pid and start time where
// the kernel has none. Fails when the peer is gone already. NULL with `err` on failure; else the
// caller's to free.
struct caller *caller_new(int socket, struct error *err);
void caller_free(struct caller *caller);

uid_t caller_uid(const struct caller *caller);
bool caller_has_pidfd(const struct caller *caller);

// Who the peer is now, for policy and for the record: unit, executable and its digest are read from
// /proc, and counted only when it is certain that they are this process's and not a later one's
// with the same pid. What of the executable cannot be read sets actor->exe_unavailable. Fails
// (ERROR_UNAUTHENTICATED) when the process is gone or its unit cannot be read.
int caller_attest(struct caller *caller, struct record_actor *actor, struct error *err);

// ---- pure parts ----

// The systemd unit in the text of /proc/PID/cgroup: the first path element that is no slice, on the
// unified hierarchy's line ("0::/…") when it names one, else on that of the hierarchy named
// systemd. A process may make groups below its unit's, but none above, so elements after the first
// count for nothing. "" when it is in no unit. Returns -1 for a path outside our own cgroup
// namespace and for a unit's name that is too long.
int caller_parse_unit(const char *cgroup, char unit[RECORD_UNIT_MAX + 1]);

// Field 22 of /proc/PID/stat, the start time in clock ticks since boot; the command's name may hold
// anything.
int caller_parse_start_time(const char *stat, uint64_t *ticks);

#endif
