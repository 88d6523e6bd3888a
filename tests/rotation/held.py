# SPDX-License-Identifier: Apache-2.0
"""A held rotation done by hand, with wg(8) and tc(8): outgoing packets wait above WireGuard while the counterparts change
over. It proves that the laboratory can read 0 lost; custody-applier does the same steps, faster and on its own."""

import time

from rotator import Rotator
from topology import HOLD_LIMIT, PATIENCE, Key, LaboratoryError
from stack import wait_for

GRACE = 0.15  # seconds that packets of the old sessions may still be on their way, the round trip apart
OPEN = f"rate 10gbit burst 1mb limit {HOLD_LIMIT}"
SHUT = f"rate 8bit burst 1600 limit {HOLD_LIMIT}"


class Plug:
    """Holds by sch_plug, which has commands for it."""

    attach = ("root plug", "root plug release_indefinite")  # it begins blocked
    limit = f"root plug limit {HOLD_LIMIT}"

    @staticmethod
    def hold(end):
        end.shell.run(f"tc qdisc change dev {end.interface} root plug block")

    @staticmethod
    def release(end):
        end.shell.run(f"tc qdisc change dev {end.interface} root plug release_indefinite")


class Tbf:
    """Holds by sch_tbf at a rate of nothing, where there is no sch_plug. The traffic itself uses up what the bucket
    still lets through, and wakes the queue after the release."""

    attach = (f"root tbf {OPEN}",)

    @classmethod
    def hold(cls, end):
        end.shell.run(f"tc qdisc change dev {end.interface} root tbf {SHUT}")
        wait_for(lambda: cls._held(end), f"{end.interface} holding packets", PATIENCE, 0.001)

    @staticmethod
    def _held(end):
        said = end.shell.run(f"tc -s qdisc show dev {end.interface} root")
        return " backlog 0b" not in said

    @staticmethod
    def release(end):
        end.shell.run(f"tc qdisc change dev {end.interface} root tbf {OPEN}")


class HandHeld(Rotator):
    """Stage everywhere, hold, one message with the new key and keepalives that force the handshakes, each counterpart
    moves the allowed-ips on its handshake, release, and after a grace period remove the old peer."""

    name = "hand-held"
    loses_none = True

    def __init__(self):
        super().__init__()
        self.held_ms = []  # how long each hold took
        self.qdiscs = {}  # {end: Plug or Tbf}

    def before_up(self, end):
        # Attached while the device is down: on a live one it would lose packets.
        for qdisc in (Plug, Tbf):
            first, *rest = qdisc.attach
            if end.run("tc", "qdisc", "add", "dev", end.interface, *first.split(), check=False).returncode == 0:
                for words in rest:
                    end.run("tc", "qdisc", "change", "dev", end.interface, *words.split())
                self.qdiscs[end] = qdisc
                return
        raise LaboratoryError("this kernel has neither sch_plug nor sch_tbf")

    def rotate(self, end):
        old, new, others = end.key, Key(), self.net.counterparts(end)
        for other in others:
            endpoint = other.endpoints()[old.public]
            other.set("peer", new.public, "endpoint", endpoint)
        qdisc, began = self.qdiscs[end], time.monotonic()
        qdisc.hold(end)
        try:
            self._change_over(end, new, others)
        finally:
            qdisc.release(end)
        self.held_ms.append((time.monotonic() - began) * 1000)
        time.sleep(GRACE + self.net.rtt / 1000)
        end.set(*self._keepalive(others, 0))
        for other in others:
            other.set("peer", old.public, "remove")

    def _keepalive(self, others, seconds):
        return [word for other in others for word in ("peer", other.key.public, "persistent-keepalive", str(seconds))]

    def _change_over(self, end, new, others):
        end.set_key(new, *self._keepalive(others, 25))
        for other in others:
            wait_for(lambda: other.handshakes().get(new.public, 0) != 0, f"{other.interface}: a handshake under the new key",
                     PATIENCE, 0.002)
            other.set("peer", new.public, "allowed-ips", self.net.inner_prefix(end))
