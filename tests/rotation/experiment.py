# SPDX-License-Identifier: Apache-2.0
"""The cells of the loss table: each so many rotations by one method, under traffic, on one kind of device."""

import dataclasses
import itertools
import sys
import tempfile
import time

from custody import Custody, CustodyPair
from held import HandHeld
from rotator import RolledBack
from topology import LaboratoryError, Topology
from traffic import Traffic
from usual import Naive, UsualScript

# The methods that can be asked for: {name: class}. A new one is entered here.
METHODS = {rotator.name: rotator for rotator in (Naive, UsualScript, HandHeld, Custody, CustodyPair)}
ATTEMPTS = 3
STOOD_STILL = 200  # ms that a sender was late: more is no measure of anything
ROLLED_BACK = 100  # of so many rotations one may be: it is repeated, and its packets count
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


class Bench:
    """Context manager: a net on which cells of one method, kind and number of clients are measured, one after another."""

    def __init__(self, cell):
        self.rotator = METHODS[cell.method]()
        self.dir = tempfile.TemporaryDirectory(prefix="custody-rotation-")
        self.net = Topology(self.dir.name, kind=cell.kind, clients=cell.clients, before_up=self.rotator.before_up)

    def __enter__(self):
        try:
            self.net.__enter__()
            self.rotator.begin(self.net)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.rotator.end()
        self.net.close()
        self.dir.cleanup()

    def measure(self, cell):
        """Does what the cell says -> a dict of the cell's fields, "account" (traffic.Account) and "seconds"."""
        began = time.monotonic()
        self.net.set_rtt(cell.rtt)
        with Traffic(self.net, rate=cell.rate, streams=True) as traffic:
            rolled_back = self._rotate_all(cell, traffic)
            account = traffic.finish()
        return {**dataclasses.asdict(cell), "loses_none": self.rotator.loses_none, "account": account.as_dict(),
                "rolled_back": rolled_back, "seconds": time.monotonic() - began}

    def _rotate_all(self, cell, traffic):
        """As many rotations as the cell says -> why each of those was that were rolled back beside them."""
        end = self.net.server if cell.key == "server" else self.net.clients[0]
        number, rolled_back = 0, []
        while number < cell.rotations:
            before = end.device.public_key()
            traffic.mark(f"rotation.{number + len(rolled_back) + 1}")
            try:
                self.rotator.rotate(end)
                number += 1
                if end.device.public_key() in (before, None):
                    raise LaboratoryError(f"{self.rotator.name}: rotation {number} changed no key")
            except RolledBack as e:
                rolled_back.append(str(e).splitlines()[0])
                if len(rolled_back) * ROLLED_BACK > cell.rotations:
                    raise
            time.sleep(BETWEEN)
        return rolled_back

    def attempt(self, cell):
        """measure(), again while it is undecided, ATTEMPTS times at most -> its dict with "attempts"."""
        for attempts in range(1, ATTEMPTS + 1):
            result = {**self.measure(cell), "attempts": attempts}
            if not _undecided(result):
                break
        return result


def measure(cell):
    """Bench.measure on a net of its own."""
    with Bench(cell) as bench:
        return bench.measure(cell)


def _undecided(result):
    """Whether packets were lost by a method that promises otherwise, and this machine is to be suspected: no more than found
    no room in a WireGuard's socket (a processor that was taken from wireguard-go for a moment does that; a release that
    bursts does it too, but then every time), or a sender stood still."""
    account = result["account"]
    lost = account["to_server"]["lost"] + account["to_client"]["lost"]
    return result["loses_none"] and lost > 0 and (lost <= account["overflowed"] or account["behind_ms"] > STOOD_STILL)


def attempt_all(cells):
    """Yields Bench.attempt's dict for each cell, in their order; where it failed, {"failure": what}. Neighbours that can
    share a net do; after a failure there is a new one."""
    for _, group in itertools.groupby(cells, lambda cell: (cell.method, cell.kind, cell.clients)):
        left = list(group)
        while left:
            yield from _attempt_until_failure(left)


def _attempt_until_failure(left):
    """The same for cells that share a net, until one fails; takes them from the list."""
    try:
        with Bench(left[0]) as bench:
            while left:
                result = bench.attempt(left[0])
                left.pop(0)
                yield result
    except Exception as e:  # whatever it is, the other cells are still to be measured
        if not left:
            print(f"experiment: taking the net away: {type(e).__name__}: {e}", file=sys.stderr)
            return
        yield {**dataclasses.asdict(left.pop(0)), "failure": f"{type(e).__name__}: {e}"}


def attempt(cell):
    """attempt_all's dict for one cell."""
    result, = attempt_all([cell])
    return result
