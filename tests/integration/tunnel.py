# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces joined by a veth pair, each with a WireGuard device: the kernel's, else wireguard-go's."""

import itertools
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess

from stack import inside, wait_for

_serial = itertools.count()
UAPI = pathlib.Path("/var/run/wireguard")


def ip(*args, check=True):
    return subprocess.run(["ip", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=check)


def kernel_has_wireguard():
    """Whether this kernel makes WireGuard devices: tried, since modules load on demand."""
    name = f"wgt{os.getpid() % 10000000}"
    if ip("link", "add", name, "type", "wireguard", check=False).returncode != 0:
        return False
    ip("link", "del", name)
    return True


def missing():
    """Why no tunnel can be made here, None when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "wg", "ping"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if kernel_has_wireguard():
        return None
    if not shutil.which("wireguard-go"):
        return "this kernel has no WireGuard, and wireguard-go is not installed"
    try:
        if not stat.S_ISCHR(os.stat("/dev/net/tun").st_mode):
            return "/dev/net/tun is not a device"
    except FileNotFoundError:
        return "there is no /dev/net/tun, which wireguard-go needs"
    return None


class End:
    """One end: namespace, veth with its outer address, WireGuard device with its inner address."""

    def __init__(self, name, number, outer, inner, dir):
        # Names are unique on the host: UAPI sockets belong to the host, not to a namespace.
        self.netns = f"custody-{name}{os.getpid()}-{number}"
        self.interface = f"wg{name}{os.getpid() % 10000000}x{number}"
        self.veth = f"v{name}"
        self.outer, self.inner = outer, inner
        self.port = 51820
        self.bits = 24  # of its inner network
        self.log = pathlib.Path(dir) / f"{self.interface}.log"
        self.process = None  # wireguard-go, where it is that
        self.before_up = lambda end: None  # called when the device is made, before it is up

    def run(self, *argv, check=True, timeout=30):
        """Runs a command in the namespace -> CompletedProcess."""
        return subprocess.run([*inside(self.netns), *map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout, check=check)

    def wg(self, *args):
        return self.run("wg", *args).stdout.strip()

    def public_key(self):
        """What the device says; "(none)" without a key."""
        return self.wg("show", self.interface, "public-key")

    def latest_handshake(self):
        """Seconds since 1970 of the latest handshake with the one peer; 0 = never."""
        return int(self.wg("show", self.interface, "latest-handshakes").split()[-1])

    def _uapi_answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"wireguard-go {self.interface}: exit {self.process.returncode}\n{self.log.read_text()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            try:
                s.connect(str(UAPI / f"{self.interface}.sock"))
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

    def make_device(self, kernel):
        """Makes the device, up, with its address and port but without key and peers."""
        if kernel:
            self.run("ip", "link", "add", self.interface, "type", "wireguard")
        else:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    [*inside(self.netns), "wireguard-go", "-f", self.interface], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True, env={**os.environ, "LOG_LEVEL": "error"})
            wait_for(self._uapi_answers, f"wireguard-go {self.interface} answering")
        self.wg("set", self.interface, "listen-port", self.port)
        self.run("ip", "addr", "add", f"{self.inner}/{self.bits}", "dev", self.interface)
        self.before_up(self)
        self.run("ip", "link", "set", self.interface, "up")

    def remove_device(self):
        """Takes the device away, as an unplugged card would go."""
        if self.process is None:
            self.run("ip", "link", "del", self.interface, check=False)
            return
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self.process = None
        (UAPI / f"{self.interface}.sock").unlink(missing_ok=True)


class Tunnel:
    """Context manager: inside, `a` and `b` are the ends, their devices up and waiting for keys and peers."""

    live = []

    def __init__(self, dir, backend=None):
        """`dir`: where logs go. backend: "kernel", "userspace", or None for the kernel's where it has one."""
        number = next(_serial)
        self.kernel = kernel_has_wireguard() if backend is None else backend == "kernel"
        self.a = End("a", number, "192.0.2.1", "10.66.0.1", dir)
        self.b = End("b", number, "192.0.2.2", "10.66.0.2", dir)
        self.ends = (self.a, self.b)

    def __enter__(self):
        Tunnel.live.append(self)
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def _make(self):
        for end in self.ends:
            ip("netns", "add", end.netns)
            end.run("ip", "link", "set", "lo", "up")
        ip("link", "add", self.a.veth, "netns", self.a.netns, "type", "veth", "peer", "name", self.b.veth, "netns",
           self.b.netns)
        for end in self.ends:
            end.run("ip", "addr", "add", f"{end.outer}/24", "dev", end.veth)
            end.run("ip", "link", "set", end.veth, "up")
        for end in self.ends:
            end.make_device(self.kernel)

    def connect(self, public_a, public_b):
        """Makes each end the other's peer, under these public keys (base64)."""
        for end, other, public in ((self.a, self.b, public_b), (self.b, self.a, public_a)):
            end.wg("set", end.interface, "peer", public, "allowed-ips", f"{other.inner}/32",
                   "endpoint", f"{other.outer}:{other.port}")

    def ping(self, count=3, deadline=15):
        """Whether COUNT answers come back through the tunnel within `deadline` seconds."""
        done = self.a.run("ping", "-q", "-i", "0.2", "-c", count, "-w", deadline, self.b.inner, check=False, timeout=deadline + 10)
        return done.returncode == 0

    def close(self):
        """Takes everything away, also what a failed beginning left."""
        for end in self.ends:
            end.remove_device()
            ip("netns", "del", end.netns, check=False)
        if self in Tunnel.live:
            Tunnel.live.remove(self)
