# SPDX-License-Identifier: Apache-2.0
"""What the system has for all processes together, and many hosts on one machine need more of."""

import contextlib
import pathlib

INOTIFY = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
# Bytes for a socket that asks for none. Debian 12's wireguard-go does not ask; later ones ask for 7 MiB by themselves.
SOCKET = pathlib.Path("/proc/sys/net/core/rmem_default")
SOCKET_ENOUGH = 7 << 20


@contextlib.contextmanager
def at_least(needed):
    """{limit: number}: inside, each is at least so high where that is permitted; then what it was."""
    before = {}
    try:
        for limit, number in needed.items():
            with contextlib.suppress(OSError):
                value = limit.read_text()
                if int(value) < number:
                    limit.write_text(str(number))
                    before[limit] = value
        yield
    finally:
        for limit, value in before.items():
            with contextlib.suppress(OSError):
                limit.write_text(value)
