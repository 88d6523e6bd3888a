# SPDX-License-Identifier: Apache-2.0
"""Rotations as they are done today, by hand on two machines, one after the other: what custody is compared with."""

import time

from device import Peer
from rotator import Rotator
from topology import Key


class Naive(Rotator):
    """The key is replaced, and `skew` seconds later the counterparts are told. The handshake that begins in between is
    answered by nobody and comes again after 5 s."""

    name = "naive"

    def __init__(self, skew=0.1):
        super().__init__()
        self.skew = skew

    def rotate(self, end):
        old, new = end.key, Key()
        end.set_key(new)
        time.sleep(self.skew)
        for other in self.net.counterparts(end):
            other.device.set(Peer(old.public, remove=True), self.net.peer(end, new.public))
        self.net.wait_confirmed(end)


class UsualScript(Rotator):
    """The usual script, add before remove: the new peer is added, the key set, and the old peer removed after a look
    whether it works. `skew` is the time from one machine to the other: a second by hand. The order is the better one
    for each side's key: a client's is first added at the server, a server's first set at the server (a client that
    turned first would knock in vain and wait 5 s)."""

    name = "usual"

    def __init__(self, skew=1.0):
        super().__init__()
        self.skew = skew

    def rotate(self, end):
        old, new = end.key, Key()
        if end is not self.net.server:
            self._add(end, new)
            time.sleep(self.skew)
            end.set_key(new)
        else:
            end.set_key(new)
            time.sleep(self.skew)
            self._add(end, new)
        self.net.wait_confirmed(end)
        for other in self.net.counterparts(end):
            other.device.set(Peer(old.public, remove=True))

    def _add(self, end, key):
        for other in self.net.counterparts(end):
            other.device.set(self.net.peer(end, key.public))
