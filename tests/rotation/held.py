# SPDX-License-Identifier: Apache-2.0
"""A held rotation done by hand: outgoing packets wait above WireGuard while the counterparts change
over. It proves that the laboratory can read 0 lost; custody-applier does the same steps, faster and on its own."""

import json
import subprocess
import time

from device import PLUG_BUFFER, PLUG_RELEASE_INDEFINITE, Peer
from rotator import Rotator
from topology import HOLD_LIMIT, PATIENCE, Key, LaboratoryError
from stack import wait_for

GRACE = 0.15  # seconds that packets of the old sessions may still be on their way, the round trip apart
SETTLING = 0.005  # seconds
OPEN = f"rate 10gbit burst 1mb limit {HOLD_LIMIT}"
SHUT = f"rate 8bit burst 1600 limit {HOLD_LIMIT}"


class Plug:
    """Holds by sch_plug, which has requests for it."""

    attach = (("add", f"plug limit {HOLD_LIMIT}"), ("change", "plug release_indefinite"))  # it begins blocked

    @staticmethod
    def hold(end):
        end.device.plug(PLUG_BUFFER)
        # A packet that was let through just before may still be on its way into WireGuard, on another processor. Were the
        # key replaced under it, it would wait there and leave with the new session, before the counterpart has moved.
        time.sleep(SETTLING)

    @staticmethod
    def release(end):
        end.device.plug(PLUG_RELEASE_INDEFINITE)


class Tbf:
    """Holds by sch_tbf at a rate of nothing, where there is no sch_plug. The traffic itself uses up what the bucket
    still lets through, and wakes the queue after the release."""

    attach = (("add", f"tbf {OPEN}"),)

    @classmethod
    def hold(cls, end):
        tc_change(end, f"tbf {SHUT}")
        wait_for(lambda: cls._holds(end), f"{end.interface} holding packets", PATIENCE, 0.001)
        time.sleep(SETTLING)

    @staticmethod
    def _holds(end):
        """Whether packets wait, and wireguard-go has read all that were let through before: one that it reads after the
        key was replaced would leave with the new session, before the counterpart has moved."""
        qdisc = json.loads(end.run("tc", "-s", "-j", "qdisc", "show", "dev", end.interface, "root").stdout)[0]
        link = json.loads(end.run("ip", "-s", "-j", "link", "show", "dev", end.interface).stdout)[0]["stats64"]["tx"]
        return qdisc["backlog"] > 0 and link["packets"] + link["dropped"] >= qdisc["packets"]

    @staticmethod
    def release(end):
        tc_change(end, f"tbf {OPEN}")


def tc_change(end, words):
    """Changes the root qdisc of an end's device."""
    end.run("tc", "qdisc", "change", "dev", end.interface, "root", *words.split())


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
            lines = "\n".join(f"qdisc {word} dev {end.interface} root {options}" for word, options in qdisc.attach)
            if subprocess.run(["tc", "-n", end.netns, "-batch", "-"], input=lines + "\n", capture_output=True, text=True,
                              timeout=PATIENCE).returncode == 0:
                self.qdiscs[end] = qdisc
                return
        raise LaboratoryError("this kernel has neither sch_plug nor sch_tbf")

    def rotate(self, end):
        old, new, others = end.key, Key(), self.net.counterparts(end)
        for other in others:
            other.device.set(Peer(new.public, endpoint=other.device.peers()[old.public].endpoint))
        qdisc, began = self.qdiscs[end], time.monotonic()
        qdisc.hold(end)
        try:
            self._change_over(end, new, others)
        finally:
            qdisc.release(end)
        self.held_ms.append((time.monotonic() - began) * 1000)
        time.sleep(GRACE + self.net.rtt / 1000)
        end.device.set(*(Peer(other.key.public, keepalive=0) for other in others))
        for other in others:
            other.device.set(Peer(old.public, remove=True))

    def _change_over(self, end, new, others):
        end.set_key(new, *(Peer(other.key.public, keepalive=25) for other in others))
        for other in others:
            wait_for(lambda: other.handshake_with(new.public), f"{other.interface}: a handshake under the new key",
                     PATIENCE, 0.002)
            other.device.set(Peer(new.public, allowed_ips=[self.net.inner_prefix(end)]))
