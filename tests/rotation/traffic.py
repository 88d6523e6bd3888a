# SPDX-License-Identifier: Apache-2.0
"""Traffic through the tunnels while keys rotate, and the exact account of it.

    with Traffic(net, rate=500) as traffic:
        traffic.mark("rotation.1")      # what is sent from here on is of this window
        ...
        account = traffic.finish()      # waits for all that is in flight

Numbered datagrams go both ways between every client and the server; with streams=True a steady TCP stream each way
between the first client and the server too.
"""

import dataclasses
import itertools
import json
import os
import pathlib
import select
import subprocess
import time

from topology import PATIENCE, LaboratoryError, default_builddir, find_program, inside

_run = itertools.count(1)
PORT, STREAM_PORT = 7000, 8000
TAIL = 30  # seconds that what is in flight may take


class Probe:
    """A probe process in an end's namespace, told line by line."""

    def __init__(self, end, mode, *args):
        self.name = f"probe {mode} in {end.netns}"
        self.process = subprocess.Popen(
            [*inside(end.netns), find_program(default_builddir(), "probe"), mode, end.inner, *map(str, args),
             f"--patience={TAIL}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.unread = b""

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, event, timeout=PATIENCE):
        """Waits for the next answer, which is to be EVENT -> the whole of it."""
        end = time.monotonic() + timeout
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not piece:
                raise LaboratoryError(f"{self.name}: {'ended' if ready else f'no {event} within {timeout:g} s'}")
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        said = json.loads(line)
        if said["event"] != event:
            raise LaboratoryError(f"{self.name}: {said['event']} where {event} was to come")
        return said

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()


@dataclasses.dataclass
class Direction:
    """What was sent one way, summed over the clients. gaps: the longest in each window (ms), begin's left out."""

    sent: int = 0
    lost: int = 0
    refused: int = 0
    duplicated: int = 0
    reordered: int = 0
    retransmits: int = 0  # TCP segments that were sent again
    stream_bytes: int = 0  # all of which arrived
    lost_in: dict = dataclasses.field(default_factory=dict)  # {window: lost}, where any
    gaps: list = dataclasses.field(default_factory=list)

    def add_datagrams(self, sender, receiver):
        for said in (sender, receiver):
            if not said["drained"] or not said["exact"]:
                raise LaboratoryError(f"the account is not exact: {said}")
        if receiver["peer_sent"] != sender["sent"]:
            raise LaboratoryError(f"the ends disagree on what was sent: {sender} {receiver}")
        self.sent += sender["sent"]
        self.lost += receiver["lost"]
        self.refused += sender["refused"]
        self.duplicated += receiver["duplicated"]
        self.reordered += receiver["reordered"]
        gaps = []
        for out, into in zip(sender["windows"], receiver["windows"]):
            lost = out["sent"] - into["received"]
            if lost:
                self.lost_in[out["name"]] = self.lost_in.get(out["name"], 0) + lost
            gaps.append(into["gap_ms"])
        self.gaps = [max(pair) for pair in itertools.zip_longest(self.gaps, gaps[1:], fillvalue=0)]


@dataclasses.dataclass
class Account:
    """What became of the traffic. behind_ms: by how much a sender was late at worst: beyond it no pause means anything."""

    to_server: Direction
    to_client: Direction
    behind_ms: float
    late: int  # packets that a probe sent more than 5 ms late
    overflowed: int  # outer packets that found no room in a WireGuard's socket

    @property
    def pauses(self):
        """Milliseconds without a packet, the longest of either direction, for each window after the first."""
        return [max(pair) for pair in itertools.zip_longest(self.to_server.gaps, self.to_client.gaps, fillvalue=0)]

    def as_dict(self):
        return {**dataclasses.asdict(self), "pauses": self.pauses}


class Traffic:
    """Context manager: inside, traffic flows. rate: datagrams a second of each client, each way. stream_rate: 1,000 bytes
    so often a second; 0: all that goes."""

    def __init__(self, net, rate=500, streams=False, stream_rate=100):
        self.net, self.rate, self.streams, self.stream_rate = net, rate, streams, stream_rate
        self.datagrams = []  # (the client's probe, the server's)
        self.to_server, self.to_client = [], []  # streams: (receiver, sender)

    def __enter__(self):
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def _probes(self):
        return [probe for pair in (*self.datagrams, *self.to_server, *self.to_client) for probe in pair]

    def _stream(self, pairs, source, sink, port):
        receiver = Probe(sink, "tcp-receive", f"--port={port}")
        pairs.append((receiver,))
        receiver.answer("ready")
        pairs[-1] = (receiver, Probe(source, "tcp-send", sink.inner, f"--port={port}", f"--rate={self.stream_rate}",
                                     "--size=1000"))
        pairs[-1][1].answer("ready")

    def _begin(self):
        server = self.net.server
        for i, client in enumerate(self.net.clients):
            options = (f"--port={PORT + i}", f"--rate={self.rate}", f"--run={next(_run)}")
            self.datagrams.append((Probe(client, "udp", server.inner, *options),))
            self.datagrams[-1] += (Probe(server, "udp", client.inner, *options),)
        for pair in self.datagrams:
            for probe in pair:
                probe.answer("ready")
        if self.streams:
            self._stream(self.to_server, self.net.clients[0], server, STREAM_PORT)
            self._stream(self.to_client, server, self.net.clients[0], STREAM_PORT)
        self.overflowed = self._overflows()
        self._tell_all("start", "started")

    def _overflows(self):
        """How many datagrams found no room in a socket's buffer, in all the ends' namespaces: also the outer packets that
        WireGuard was too slow to take."""
        count = 0
        for pair in (self.datagrams[0], *((at_client,) for at_client, _ in self.datagrams[1:])):
            for probe in pair:
                names, values = [line.split() for line in pathlib.Path(f"/proc/{probe.process.pid}/net/snmp").read_text()
                                 .splitlines() if line.startswith("Udp:")]
                count += int(values[names.index("RcvbufErrors")])
        return count

    def _tell_all(self, line, event):
        for probe in self._probes:
            probe.tell(line)
        return {probe: probe.answer(event, PATIENCE + TAIL) for probe in self._probes}

    def mark(self, name):
        """Begins a new window, and returns when all probes have."""
        self._tell_all(f"mark {name}", "marked")

    def finish(self):
        """Ends the sending, waits for the tail -> Account."""
        said = self._tell_all("stop", "result")
        account = Account(Direction(), Direction(), 0, 0, self._overflows() - self.overflowed)
        for at_client, at_server in self.datagrams:
            account.to_server.add_datagrams(said[at_client], said[at_server])
            account.to_client.add_datagrams(said[at_server], said[at_client])
            account.behind_ms = max(account.behind_ms, said[at_client]["behind_ms"], said[at_server]["behind_ms"])
            account.late += said[at_client]["behind"] + said[at_server]["behind"]
        for direction, pairs in ((account.to_server, self.to_server), (account.to_client, self.to_client)):
            for receiver, sender in pairs:
                if not said[sender]["drained"] or said[sender]["bytes"] != said[receiver]["bytes"]:
                    raise LaboratoryError(f"a stream did not reach its end: {said[sender]} {said[receiver]}")
                direction.retransmits += said[sender]["retransmits"]
                direction.stream_bytes += said[receiver]["bytes"]
        return account

    def close(self):
        for probe in self._probes:
            probe.close()
