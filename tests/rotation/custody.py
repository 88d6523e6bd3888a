# SPDX-License-Identifier: Apache-2.0
"""Rotation by custody itself: each end has a host of its own, with token, custodyd and applier, and they share a registry."""

import base64
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from rotator import RolledBack, Rotator
from topology import PATIENCE, Key, LaboratoryError  # first: it tells where the next ones are
from python_client import Client, Closed, pb
from stack import Stack, default_builddir, find_program, inside, tail, wait_for
from tunnel import End

KEY = "wg0"  # every host's name for its key
MOVE_PORT = 51900
GRACE = 20  # seconds, in a long row of rotations: so old keys are retired and destroyed in it as well


def binary(builddir, name):
    """The program itself, not libtool's script, which in an emulated machine takes a second to get to it."""
    path = builddir / ".libs" / name
    return path if path.exists() else find_program(builddir, name)


class Host:
    """An end's host: a custodyd with its SoftHSM token, and the applier in the end's namespace."""

    def __init__(self, dir, end, shared):
        self.end, self.shared = end, pathlib.Path(shared)
        self.name = end.inner.replace("10.66.0.", "host-")
        self.stack = Stack(pathlib.Path(dir) / self.name)
        self.config = self.stack.dir / "custody-applier.conf"
        self.applier_log = self.stack.dir / "applier.log"
        self.trust = self.stack.dir / "trust"
        self.applier = None  # Popen, while it runs
        self.connection = None  # a Client, once one was needed
        self.stack.program = lambda name: binary(self.stack.builddir, name)
        self.stack.extra_env = {"LD_LIBRARY_PATH": str(self.stack.builddir / ".libs"), "LD_BIND_NOW": "1"}

    def start_custodyd(self, **options):
        """A new token and log, and the key's first generation."""
        self.stack.provision()
        options.setdefault("key_options", "grace = 600\n  window = 30")
        self.stack.write_config(host=self.name, keys=(KEY,), timeout=PATIENCE, lease=60, **options)
        self.stack.start(deadline=PATIENCE)
        self.stack.init()
        self.stack.generate(KEY)

    def trust_all(self, hosts):
        lines = [f"{h.name} {h.stack.status()['host_vkey']}\n" for h in hosts if h is not self]
        self.trust.write_text("".join(lines))

    def write_applier_config(self, peers, extra="", interface_extra="", pair=None):
        """peers: [(Host, allowed-ips, endpoint or None)]. pair: the end's second device, an End."""
        interface_extra += f'\n  pair = "{pair.interface}"' if pair else ""
        text = (f'registry = "dir:{self.shared}"\ntrust = "{self.trust}"\nsocket = "{self.stack.socket}"\n'
                f'log-vkey = "{self.stack.log_vkey}"\nrescan = 2\n{extra}\n'
                f'interface "{self.end.interface}" {{\n  key = "{KEY}"\n  move-address = "{self.end.inner}"\n'
                f"  move-port = {MOVE_PORT}\n{interface_extra}\n")
        for host, prefix, endpoint in peers:
            text += f'  peer "{host.name}" {{\n    key = "{KEY}"\n    allowed-ips = {{ "{prefix}" }}\n'
            text += f'    endpoint = "{endpoint}"\n' if endpoint else ""
            text += f'    pair-endpoint = "{host.end.outer}:{pair.port}"\n' if endpoint and pair else ""
            text += "  }\n"
        self.config.write_text(text + "}\n")

    def start_applier(self, under=()):
        """under: a program that starts it, with its arguments."""
        argv = [*inside(self.end.netns), *under, self.stack.program("custody-applier"), f"--config={self.config}", "run"]
        with open(self.applier_log, "ab") as log:
            self.applier = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.stack.env(), start_new_session=True)

    def stop_applier(self, sig=signal.SIGTERM):
        if self.applier is None:
            return None
        if self.applier.poll() is None:
            os.killpg(self.applier.pid, sig)
        code = self.applier.wait(PATIENCE)
        self.applier = None
        return code

    def call(self, **body):
        """A request to custodyd over a connection that is kept; one that broke is made anew, once."""
        if self.connection is None:
            self.connection = Client(self.stack.socket, PATIENCE)
        try:
            return self.connection.call(**body)
        except (OSError, Closed):
            self.hang_up()
            self.connection = Client(self.stack.socket, PATIENCE)
            return self.connection.call(**body)

    def hang_up(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def view(self):
        """The KeyView of its key."""
        return self.call(get_view=pb.GetView(key=KEY))

    def generation(self, *states):
        """The generation that is in one of the states -> pb.Key, None where there is none."""
        numbers = [pb.KeyState.Value(state) for state in states]
        return next((each for each in self.view().generations if each.state in numbers), None)

    def public_key(self):
        """The active generation's, before there is one the first's; base64."""
        by_state = {each.state: each for each in self.view().generations}  # one look: it may be activated just now
        found = by_state.get(pb.KeyState.Value("ACTIVE")) or by_state[pb.KeyState.Value("PRE_ACTIVE")]
        return base64.b64encode(found.public_key).decode()

    def has_peer(self, public, prefix):
        """Whether the end's device has that peer, with that allowed-ip."""
        peer = self.end.device.peers().get(public)
        return peer is not None and prefix in peer.allowed_ips

    def begin_rotation(self):
        """As `custodyctl key rotate` does -> the generation that is to take over."""
        return self.call(rotate_key=pb.RotateKey(key=KEY)).rotation.generation

    def wait_rotation(self, timeout=PATIENCE):
        """Waits until no rotation is open -> the KeyView then."""
        end = time.monotonic() + timeout
        while True:
            view = self.view()
            if view.rotation.generation == 0:
                return view
            left = end - time.monotonic()
            if left <= 0:
                raise LaboratoryError(f"{self.name}: its rotation did not end\n{tail(self.applier_log)}")
            self.call(watch_keys=pb.WatchKeys(after=view.seq, timeout_ms=max(1, min(20000, int(left * 1000)))))

    def rotate(self, timeout=PATIENCE):
        """A whole rotation, which must be confirmed."""
        generation = self.begin_rotation()
        self.wait_rotation(timeout)
        active = self.generation("ACTIVE")
        if active is None or active.generation != generation:
            raise RolledBack(f"{self.name}: the rotation was rolled back: {self.why_rolled_back()}\n{tail(self.applier_log)}")

    def why_rolled_back(self):
        """What the log says of the last one."""
        return next((r["detail"] for r in reversed(self.stack.records()) if r["event"] == "rotation.rolled-back"), "not recorded")

    def close(self):
        try:
            self.stop_applier()
        except subprocess.TimeoutExpired:
            self.stop_applier(signal.SIGKILL)
        self.hang_up()
        self.stack.close()


class Fleet:
    """Hosts for all ends of a Topology, with one `dir:` registry. Where the tests keep what is theirs: `dir`."""

    def __init__(self, dir, net, extra="", interface_extra="", pairs=None, **custodyd):
        """pairs: {end: its second device}."""
        self.dir, self.net, self.pairs = pathlib.Path(dir), net, pairs or {}
        self.registry = self.dir / "registry"
        self.registry.mkdir()
        self.extra, self.interface_extra, self.custodyd = extra, interface_extra, custodyd
        self.hosts = {end: Host(self.dir, end, self.registry) for end in net.ends}

    def peers_of(self, end):
        """As an administrator would write them: the server's endpoint is known, a client's is not."""
        known = f"{self.net.server.outer}:{self.net.server.port}"
        return [(self.hosts[other], self.net.inner_prefix(other), known if other is self.net.server else None)
                for other in self.net.counterparts(end)]

    def start(self):
        """Brings all up, until each pair has a session under keys that custody released."""
        for host in self.hosts.values():
            host.start_custodyd(**self.custodyd)
        for end, host in self.hosts.items():
            host.trust_all(self.hosts.values())
            host.write_applier_config(self.peers_of(end), self.extra, self.interface_extra, self.pairs.get(end))
            host.start_applier()
        for end in self.net.ends:
            wait_for(lambda: self.is_joined(end), f"{self.hosts[end].name} under custody\n{self.logs()}", PATIENCE, 0.05)
        for client in self.net.clients:
            done = client.run("ping", "-q", "-c", 1, "-w", PATIENCE, self.net.server.inner, timeout=PATIENCE + 10, check=False)
            if done.returncode != 0:
                raise LaboratoryError(f"{client.interface}: no session under custody\n{self.logs()}")
        return self

    def is_joined(self, end):
        host = self.hosts[end]
        if host.applier.poll() is not None:
            raise LaboratoryError(f"{host.name}: the applier ended\n{tail(host.applier_log)}")
        return end.public_key() == host.public_key() and all(
            host.has_peer(other.public_key(), prefix) for other, prefix, _ in self.peers_of(end))

    def logs(self):
        return "\n".join(f"--- {h.name}\n{tail(h.applier_log, 15)}" for h in list(self.hosts.values())[:4])

    def close(self):
        for host in self.hosts.values():
            host.close()


class Custody(Rotator):
    """custody-applier's rotation by the method of its configuration."""

    name = "custody"
    loses_none = True
    method = "auto"

    def _fleet(self, net, **options):
        # An emulated processor is slow, and so is what the packets wait for.
        extra = f'  method = "{self.method}"\n  grace = {GRACE}' + ("\n  hold-limit = 2000" if net.kernel else "")
        return Fleet(self.folder(), net, interface_extra=extra, key_options=f"grace = {GRACE}\n  window = 30", **options)

    def __init__(self):
        super().__init__()
        self.dir = self.fleet = None

    def folder(self):
        """Where the hosts' files are: made when the first is."""
        self.dir = self.dir or tempfile.mkdtemp(prefix="custody-fleet-")
        return self.dir

    def before_up(self, end):
        builddir = default_builddir()
        done = end.run("env", f"LD_LIBRARY_PATH={builddir / '.libs'}", binary(builddir, "custody-applier"), "up", end.interface,
                       check=False)
        if done.returncode != 0:
            raise LaboratoryError(f"custody-applier up: exit {done.returncode}\n{done.stderr}")

    def begin(self, net):
        self.net = net
        self.fleet = self.make_fleet(net)
        self.fleet.start()
        for end in net.ends:
            end.key = Key(self.fleet.hosts[end].public_key())

    def make_fleet(self, net):
        return self._fleet(net)

    def rotate(self, end):
        host = self.fleet.hosts[end]
        host.rotate()
        end.key = Key(host.public_key())

    def end(self):
        if self.fleet:
            self.fleet.close()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)


class Second(End):
    """The second device of an end, without routes; on a port of its own."""

    def __init__(self, end, dir):
        super().__init__("", 0, end.outer, end.inner, dir)
        self.netns, self.interface, self.port, self.bits = end.netns, f"{end.interface}b", 51821, 32


    def handshakes(self):
        """How many of its peers it has had a handshake with."""
        return sum(line.split()[-1] != "0" for line in self.wg("show", self.interface, "latest-handshakes").splitlines())


class CustodyPair(Custody):
    """custody-applier's rotation by a second device on each end."""

    name = "custody-pair"
    method = "pair"

    def __init__(self):
        super().__init__()
        self.pairs = {}

    def before_up(self, end):
        """Nothing is held."""

    def make_fleet(self, net):
        for end in net.ends:
            self.pairs[end] = Second(end, self.folder())
            self.pairs[end].make_device(net.kernel)
        return self._fleet(net, pairs=self.pairs)

    def begin(self, net):
        """As ever, and until the second tunnels are there: an initiation that came too early is repeated after 5 s."""
        super().begin(net)
        for client in net.clients:
            wait_for(lambda: self.pairs[client].handshakes() > 0, f"a session of {self.pairs[client].interface}\n"
                     f"{self.fleet.logs()}", PATIENCE, 0.05)

    def end(self):
        for pair in self.pairs.values():
            pair.remove_device()
        super().end()
