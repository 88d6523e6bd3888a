# SPDX-License-Identifier: Apache-2.0
"""A WireGuard server and its clients, each in a network namespace of its own, around a bridge; and what can befall them.

    with Topology(dir, kind="userspace", clients=1, rtt=20) as net:
        net.connect()
        net.server, net.clients[0]          # End of tests/integration/tunnel.py, with a key
        net.block(net.clients[0])           # faults

kind: "kernel" for the kernel's devices, "userspace" for wireguard-go. rtt: milliseconds that the outer packets take
there and back, by netem, or where the kernel has none by tests/rotation/delay_line at the server's port. Inner addresses
are 10.66.0.N, the server's 10.66.0.1. Everything is gone when the context ends, whatever happened in it.
"""

import itertools
import os
import pathlib
import signal
import subprocess
import sys

import nacl.public
from nacl.encoding import Base64Encoder

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from stack import default_builddir, find_program, inside, wait_for  # noqa: E402
from tunnel import UAPI, End, ip, kernel_has_wireguard, missing  # noqa: E402,F401

from device import Kernel, Peer, Userspace  # noqa: E402

_serial = itertools.count()
CLIENTS_MAX = 250
PATIENCE = 60  # seconds: an emulated processor is slow
HOLD_LIMIT = 4 << 20  # bytes that may be held


class LaboratoryError(Exception):
    """The laboratory itself failed; nothing is said of what it measures."""


class Key:
    """A WireGuard key pair of the laboratory, in base64; or what is known of another's: its public half."""

    def __init__(self, public=None):
        self.private, self.public = None, public
        if public is None:
            self._generate()

    def _generate(self):
        private = nacl.public.PrivateKey.generate()
        self.private = private.encode(Base64Encoder).decode()
        self.public = private.public_key.encode(Base64Encoder).decode()


class LabEnd(End):
    """An end with a key of the laboratory's. `device` is what its WireGuard is configured by."""

    def __init__(self, name, host, dir):
        super().__init__(name, next(_serial), f"192.0.2.{host}", f"10.66.0.{host}", dir)
        self.key = Key()
        self.device = None
        self.port_device = f"p{host}"  # the veth's other side, on the bridge

    def make_device(self, kernel):
        if not kernel:
            super().make_device(kernel)
            self.device = self.device or Userspace(UAPI / f"{self.interface}.sock")
            return
        # As End does it, with fewer programs.
        ip_batch(f"link add {self.interface} type wireguard", f"addr add {self.inner}/24 dev {self.interface}", netns=self.netns)
        self.device = self.device or Kernel(self.netns, self.interface)
        self.device.set(port=self.port)
        self.before_up(self)
        ip_batch(f"link set {self.interface} up", netns=self.netns)

    def set_key(self, key, *peers):
        """Sets the private key and peers, in one request."""
        self.device.set(*peers, private=key.private)
        self.key = key

    def handshake_with(self, public):
        """Seconds since 1970 of the latest handshake with that peer, 0 without one."""
        peer = self.device.peers().get(public)
        return peer.handshake if peer else 0


def has_qdisc(kind, *options):
    """Whether this kernel has the queueing discipline: tried in a namespace of its own."""
    netns = f"custody-q{os.getpid()}-{next(_serial)}"
    ip("netns", "add", netns)
    try:
        ip("-n", netns, "link", "add", "va", "type", "veth", "peer", "name", "vb")
        return subprocess.run(["tc", "-n", netns, "qdisc", "add", "dev", "va", "root", kind, *options],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE).returncode == 0
    finally:
        ip("netns", "del", netns)


def ip_batch(*lines, netns=None):
    """Many ip(8) commands in one process, in the namespace `netns`."""
    done = subprocess.run(["ip", *(("-n", netns) if netns else ()), "-batch", "-"], input="\n".join(lines) + "\n",
                          capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise LaboratoryError(f"ip -batch: {done.stderr}\n" + "\n".join(lines))


class Topology:
    """Context manager: a server, its clients, and the bridge between them in a namespace of its own (`wire`)."""

    def __init__(self, dir, kind=None, clients=1, rtt=0, before_up=None):
        """`dir`: where logs go. kind: None for the kernel's where it has one. before_up: called with each end between
        making its device and setting it up, also when it is made again."""
        if not 1 <= clients <= CLIENTS_MAX:
            raise ValueError(f"1 to {CLIENTS_MAX} clients")
        self.kernel = kernel_has_wireguard() if kind is None else kind == "kernel"
        self.rtt = rtt
        self.wire = f"custody-w{os.getpid()}-{next(_serial)}"
        self.server = LabEnd("s", 1, dir)
        self.clients = [LabEnd("c", 2 + i, dir) for i in range(clients)]
        self.ends = (self.server, *self.clients)
        self.delay_line = None
        for end in self.ends:
            end.before_up = before_up or end.before_up

    def __enter__(self):
        try:
            self._make_wire()
            for end in self.ends:
                self._attach(end)
            if self.rtt:
                self.set_rtt(self.rtt)
            for end in self.ends:
                end.make_device(self.kernel)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def _make_wire(self):
        ip_batch(f"netns add {self.wire}", *(f"netns add {end.netns}" for end in self.ends))
        ip_batch("link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0", "link set br0 up", netns=self.wire)

    def _attach(self, end):
        """Lays the cable from an end to the bridge."""
        ip_batch(f"link add {end.veth} netns {end.netns} type veth peer name {end.port_device} netns {self.wire}")
        ip_batch(f"link set {end.port_device} master br0 up", netns=self.wire)
        ip_batch("link set lo up", f"addr add {end.outer}/24 dev {end.veth}", f"link set {end.veth} up", netns=end.netns)

    def set_rtt(self, rtt):
        """Makes the server's cable so long (ms, there and back), with all that is connected left as it is."""
        if self.delay_line:
            self._straighten()
        if has_qdisc("netem", "delay", "1ms"):
            for netns, device in ((self.server.netns, self.server.veth), (self.wire, self.server.port_device)):
                subprocess.run(["tc", "-n", netns, "qdisc", "replace", "dev", device, "root", "netem", "limit", "100000", "delay",
                                f"{rtt * 500}us"], stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        elif rtt:
            self._lengthen(rtt * 500)
        self.rtt = rtt

    def _lengthen(self, delay):
        """The server's port leaves the bridge; what joins them is a pair of interfaces and a process between them, which
        delays by so many microseconds each way."""
        port = self.server.port_device
        ip_batch(f"link set {port} nomaster", "link add far type veth peer name near", "link set near master br0 up",
                 "link set far up", netns=self.wire)
        self.delay_line = subprocess.Popen(
            [*inside(self.wire), find_program(default_builddir(), "delay_line"), port, "far", str(delay)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        if self.delay_line.stdout.readline() != "ready\n":
            raise LaboratoryError("delay_line did not begin")

    def _straighten(self):
        self._end_delay_line()
        ip_batch("link del far", f"link set {self.server.port_device} master br0", netns=self.wire)

    def _end_delay_line(self):
        os.killpg(self.delay_line.pid, signal.SIGKILL)
        self.delay_line.wait(5)
        self.delay_line.stdout.close()
        self.delay_line = None

    def counterparts(self, end):
        """The ends whose peer `end` is."""
        return self.clients if end is self.server else [self.server]

    def inner_prefix(self, end):
        """What `end`'s peers allow it: a client only its own address; the server's clients reach all by it."""
        return "10.66.0.0/16" if end is self.server else f"{end.inner}/32"

    def peer(self, end, public):
        """The peer that `end` is to its counterparts under that key, as an administrator would write it: the server's
        endpoint is known, a client's is not."""
        endpoint = f"{end.outer}:{end.port}" if end is self.server else None
        return Peer(public, endpoint=endpoint, allowed_ips=[self.inner_prefix(end)])

    def connect(self):
        """Gives each end its peers as wg-quick would (the server knows no endpoints), and its own key where that is the
        laboratory's (end.key.private); waits until all clients have a session."""
        peers = (self.peer(client, client.key.public) for client in self.clients)
        self.server.device.set(*peers, private=self.server.key.private)
        for client in self.clients:
            client.device.set(self.peer(self.server, self.server.key.public), private=client.key.private)
        for client in self.clients:
            client.run("ping", "-q", "-c", 1, "-w", PATIENCE, self.server.inner, timeout=PATIENCE + 10)

    def wait_confirmed(self, end, deadline=PATIENCE):
        """Waits until every counterpart has had a handshake with `end` under the key that it has now."""
        for other in self.counterparts(end):
            wait_for(lambda: other.handshake_with(end.key.public), f"a handshake of {other.interface} with "
                     f"{end.interface}", deadline, 0.02)

    # ---- what can befall them ----

    def block(self, client):
        """From now on nothing passes between this client and the others, and neither end is told."""
        ip_batch(f"link set {client.port_device} nomaster", netns=self.wire)

    def unblock(self, client):
        ip_batch(f"link set {client.port_device} master br0", netns=self.wire)

    def recreate(self, end):
        """Takes an end's device away and makes it anew, up, with its address but without key and peers: as a reboot does."""
        end.remove_device()
        end.make_device(self.kernel)

    def kill(self, end, program):
        """kill -9 of every process named PROGRAM in the end's namespace -> how many there were."""
        return kill_named(program, end.netns)

    def close(self):
        for end in self.ends:
            if end.device:
                end.device.close()
            try:
                end.remove_device()
            except (OSError, subprocess.SubprocessError) as e:
                print(f"topology: {end.interface}: {e}", file=sys.stderr)
        if self.delay_line:
            self._end_delay_line()
        for netns in (self.wire, *(end.netns for end in self.ends)):
            ip("netns", "del", netns, check=False)
        if any(os.path.exists(f"/run/netns/{end.netns}") for end in self.ends):
            print("topology: a namespace is left", file=sys.stderr)


def kill_named(program, netns):
    """kill -9 of every process named PROGRAM (also as libtool's lt-PROGRAM) in the namespace NETNS -> how many."""
    where, killed = os.stat(f"/run/netns/{netns}").st_ino, 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            argv0 = (process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if os.path.basename(argv0).removeprefix("lt-") == program and os.stat(process / "ns" / "net").st_ino == where:
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return killed
