# SPDX-License-Identifier: Apache-2.0
"""Two hosts under custody with traffic between them, and the judge who says after a misfortune whether all came right."""

import base64
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time

from topology import PATIENCE, LaboratoryError, Topology
from custody import KEY, Custody, Fleet
from python_client import Closed, Refused, pb
from stack import StackError, wait_for
from traffic import Traffic

GRACE, WINDOW = 2, 6  # seconds
SETTLED = 90  # seconds within which everything must have come right
RATE = 100  # datagrams a second each way


class World:
    """Context manager. `turning` is the host whose key rotates, `other` its counterpart; server and client, or the other
    way round."""

    def __init__(self, server_turns=False):
        self.server_turns = server_turns

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="custody-crashes-")
        self.dir = pathlib.Path(self.temporary.name)
        self.net = Topology(self.dir, kind="userspace", before_up=Custody().before_up)
        self.fleet = self.traffic = None
        try:
            self.net.__enter__()
            self.fleet = Fleet(self.dir, self.net, interface_extra=f"  grace = {GRACE}\n  window = {WINDOW}",
                               key_options=f"grace = {GRACE}\n  window = 30")
            self.fleet.start()
            self.traffic = Traffic(self.net, rate=RATE).__enter__()
        except BaseException:
            self.__exit__()
            raise
        ends = (self.net.server, self.net.clients[0])
        self.turning, self.other = (self.fleet.hosts[end] for end in (ends if self.server_turns else ends[::-1]))
        return self

    def __exit__(self, *exc):
        for part in (self.traffic, self.fleet):
            if part:
                part.close()
        self.net.close()
        self.temporary.cleanup()

    def pid(self, process):
        """custodyd, keeper and applier are the turning host's; counterpart is the other's applier."""
        return {"applier": lambda: self.turning.applier.pid, "counterpart": lambda: self.other.applier.pid,
                "custodyd": lambda: self.turning.stack.custodyd.pid,
                "keeper": lambda: self.turning.stack.keeper_pid}[process]()

    def is_alive(self, process, pid):
        """Whether that process still runs: a killed one may wait to be reaped."""
        if process == "applier":
            return self.turning.applier.poll() is None
        if process == "counterpart":
            return self.other.applier.poll() is None
        if process == "custodyd":
            return self.turning.stack.custodyd.poll() is None
        return os.path.exists(f"/proc/{pid}")

    def restart(self, process):
        """What systemd does after a crash; custodyd does it for its keeper."""
        if process == "applier":
            self.turning.stop_applier()
            self.turning.start_applier()
        elif process == "counterpart":
            self.other.stop_applier()
            self.other.start_applier()
        elif process == "custodyd":
            self.turning.hang_up()
            self.turning.stack.stop(signal.SIGKILL)
            self.turning.stack.start(deadline=PATIENCE)

    def begin(self):
        """Begins a rotation. What dies under it may take the answer with it."""
        def ask():
            try:
                self.turning.begin_rotation()
            except (OSError, Closed, Refused):
                pass
        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    def active(self, host):
        found = host.generation("ACTIVE")
        return found.generation if found else 0

    # ---- the judge ----

    def wrong(self):
        """What is not as it should be in the end, "" when all is."""
        for host, other in ((self.turning, self.other), (self.other, self.turning)):
            try:
                found = self._wrong_with(host, other)
            except (OSError, Closed, Refused) as e:
                found = f"{type(e).__name__}: {e}"
            if found:
                return f"{host.name}: {found}"
        return ""

    @staticmethod
    def _wrong_with(host, other):
        view = host.view()
        if view.rotation.generation:
            return f"a rotation to generation {view.rotation.generation} is open"
        active = host.generation("ACTIVE")
        if active is None:
            return "no generation is active"
        public = base64.b64encode(active.public_key).decode()
        if host.end.device.public_key() != public:
            return f"its interface has another key than generation {active.generation}"
        peers = other.end.device.peers()
        if set(peers) != {public} or not peers[public].allowed_ips:
            return f"{other.name}'s interface has as its peers {[(p, peers[p].allowed_ips) for p in peers]}, not just {public}"
        recorded = [(p.generation, pb.PeerState.Name(p.state)) for p in other.view().peers
                    if pb.PeerState.Name(p.state) != "PEER_RETIRED"]
        if recorded != [(active.generation, "PEER_MOVED")]:
            return f"{other.name}'s log has {recorded} of it, not generation {active.generation} moved"
        return ""

    def pings(self):
        client = self.net.clients[0]
        return client.run("ping", "-q", "-c", 1, "-w", 15, self.net.server.inner, timeout=30, check=False).returncode == 0

    def judge(self):
        """Waits until all is right again -> problems."""
        problems = []
        try:
            wait_for(lambda: not self.wrong(), "", SETTLED, 0.1)
        except StackError:
            problems.append(f"after {SETTLED} s: {self.wrong()}")
        if not self.pings():
            problems.append("no traffic")
        for host in (self.turning, self.other):
            done = host.stack.audit("verify", f"--vkey={host.stack.log_vkey}", host.stack.audit_dir, timeout=PATIENCE)
            if done.returncode != 0:
                problems.append(f"{host.name}: custody-audit verify: exit {done.returncode}: {done.stdout}{done.stderr}")
        return problems

    def lost(self):
        """{window: lost}, of both directions."""
        account, lost = self.traffic.finish(), {}
        for direction in (account.to_server, account.to_client):
            for name, count in direction.lost_in.items():
                lost[name] = lost.get(name, 0) + count
        return lost
