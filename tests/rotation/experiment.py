# SPDX-License-Identifier: Apache-2.0
"""One cell of the loss table: so many rotations by one method, under traffic, on one kind of device."""

import dataclasses
import tempfile
import time

from custody import Custody
from held import HandHeld
from topology import LaboratoryError, Topology
from traffic import Traffic
from usual import Naive, UsualScript

# The methods that can be asked for: {name: class}. A new one is entered here.
METHODS = {rotator.name: rotator for rotator in (Naive, UsualScript, HandHeld, Custody)}
ATTEMPTS = 3
BETWEEN = 0.1  # seconds of undisturbed traffic after each rotation


@dataclasses.dataclass
class Cell:
    """What is measured. key: whose key rotates, "client" or "server". rtt: ms. rate: datagrams a second each way."""

    method: str
    kind: str
    key: str
    rtt: int = 0
    rotations: int = 25
    rate: int = 500
    clients: int = 1


def _rotate_all(cell, net, rotator, traffic):
    end = net.server if cell.key == "server" else net.clients[0]
    for i in range(cell.rotations):
        before = end.device.public_key()
        traffic.mark(f"rotation.{i + 1}")
        rotator.rotate(end)
        if end.device.public_key() in (before, None):
            raise LaboratoryError(f"{rotator.name}: rotation {i + 1} changed no key")
        time.sleep(BETWEEN)


def measure(cell):
    """Does what the cell says -> a dict of the cell's fields, "account" (traffic.Account) and "seconds"."""
    rotator, began = METHODS[cell.method](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="custody-rotation-") as dir, \
            Topology(dir, kind=cell.kind, clients=cell.clients, rtt=cell.rtt, before_up=rotator.before_up) as net:
        try:
            rotator.begin(net)
            with Traffic(net, rate=cell.rate, streams=True) as traffic:
                _rotate_all(cell, net, rotator, traffic)
                account = traffic.finish()
        finally:
            rotator.end()
    return {**dataclasses.asdict(cell), "loses_none": rotator.loses_none, "account": account.as_dict(),
            "seconds": time.monotonic() - began}


def _undecided(result):
    """Whether packets were lost by a method that promises otherwise, but no more than found no room in a WireGuard's
    socket: a processor that was taken from wireguard-go for a moment does that. (A release that bursts does it too, but
    then every time.)"""
    account = result["account"]
    lost = account["to_server"]["lost"] + account["to_client"]["lost"]
    return result["loses_none"] and 0 < lost <= account["overflowed"]


def attempt(cell):
    """measure(), again while it is undecided, ATTEMPTS times at most -> its dict with "attempts"; or, when it failed,
    {"failure": what}."""
    try:
        for attempts in range(1, ATTEMPTS + 1):
            result = {**measure(cell), "attempts": attempts}
            if not _undecided(result):
                break
        return result
    except Exception as e:  # whatever it is, the other cells are still to be measured
        return {**dataclasses.asdict(cell), "failure": f"{type(e).__name__}: {e}"}
