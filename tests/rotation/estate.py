# SPDX-License-Identifier: Apache-2.0
"""Hosts for custody to adopt: tunnels with plaintext keys and traffic, and what must come of an adoption."""

import subprocess

from custody import KEY, Fleet  # first: it tells where the next ones are
from topology import PATIENCE, inside, wait_for
from traffic import Traffic

ADOPTED, TO_CHANGE, USAGE, UNREACHABLE, NO_DEVICE = range(5)
GRACE = 3  # seconds, of the old keys


class Estate:
    """A server and a client with plaintext keys and traffic, beside hosts of custody that know nothing of them yet."""

    def __init__(self, dir, net):
        self.net, self.client, self.server = net, net.clients[0], net.server
        # An emulated processor is slow, and so is what the packets wait for.
        self.fleet = Fleet(dir, net, interface_extra=f"  grace = {GRACE}" + ("\n  hold-limit = 2000" if net.kernel else ""))
        self.old = {end: end.key for end in net.ends}
        self.under = ()  # a program that runs custody-applier, with its arguments

    def start(self, trust=True):
        for end, host in self.fleet.hosts.items():
            host.stack.provision()
            host.stack.write_config(host=host.name, keys=(KEY,), timeout=PATIENCE, lease=60,
                                    key_options=f"grace = {GRACE}\n  window = 30")
            host.stack.start(deadline=PATIENCE)
            host.stack.init()
        for end, host in self.fleet.hosts.items():
            if trust:
                host.trust_all(self.fleet.hosts.values())
            else:
                self.trust_nobody_else(end)
            host.write_applier_config(self.fleet.peers_of(end), interface_extra=self.fleet.interface_extra)
            host.start_applier()
        return self

    def trust_nobody_else(self, end):
        host = self.host(end)
        host.trust.write_text(f"{host.name} {host.stack.status()['host_vkey']}\n")

    def host(self, end):
        return self.fleet.hosts[end]

    def command(self, end, *options):
        host = self.host(end)
        return [str(a) for a in (*inside(end.netns), *self.under, host.stack.program("custody-applier"), f"--config={host.config}",
                                 *options, "adopt", end.interface)]

    def adopt(self, end, status, *options):
        done = subprocess.run(self.command(end, *options), capture_output=True, text=True, timeout=3 * PATIENCE,
                              env=self.host(end).stack.env())
        assert done.returncode == status, (done.stdout, done.stderr, self.fleet.logs())
        for private in (key.private for key in self.old.values()):
            assert private not in done.stdout + done.stderr
        return done

    def events(self, end, name):
        return [r for r in self.host(end).stack.records() if r["event"] == name]

    def is_off(self, end):
        """Whether the end has a key of custody's, which the other side has the allowed-ips for."""
        other = self.server if end is self.client else self.client
        public = end.public_key()
        return public != self.old[end].public and public == self.host(end).public_key() and \
            self.host(other).has_peer(public, self.net.inner_prefix(end))

    def adopt_both(self):
        """The client, which must wait for its counterpart; the server; the client. Under traffic, of which nothing is lost
        -> what the last one printed."""
        with Traffic(self.net, rate=200) as traffic:
            # The counterpart is not under custody yet: imported, and no further.
            first = self.adopt(self.client, TO_CHANGE)
            assert f"{self.host(self.server).name} is not ready" in first.stderr and "custody-applier adopt" in first.stderr
            assert "is imported, as key wg0 generation 1" in first.stdout
            assert self.client.public_key() == self.old[self.client].public and not self.events(self.client, "rotation.started")
            traffic.mark("server")
            self.adopt(self.server, ADOPTED)
            traffic.mark("client")
            last = self.adopt(self.client, ADOPTED)
            account = traffic.finish()
        for direction in (account.to_server, account.to_client):
            assert direction.sent > 0 and direction.lost == 0, account
        return last.stdout

    def check_adopted(self):
        """Both ends are off their old keys; these end in the token and on the other side's interface; the logs are whole."""
        for end in self.net.ends:
            other = self.server if end is self.client else self.client
            assert self.is_off(end), self.fleet.logs()
            imported, = self.events(end, "key.imported")
            assert imported["purpose"] == "wireguard-imported" and imported["public_key"] == self.old[end].public
            assert imported["generation"] == 1
            wait_for(lambda: [r for r in self.events(end, "key.destroyed") if r["generation"] == 1],
                     f"the old key of {end.interface} destroyed\n{self.fleet.logs()}", PATIENCE, 0.2)
            wait_for(lambda: self.old[end].public not in other.device.peers(),
                     f"the old peer at {other.interface} gone\n{self.fleet.logs()}", PATIENCE, 0.2)
        for host in self.fleet.hosts.values():
            done = host.stack.audit("verify", f"--vkey={host.stack.log_vkey}", host.stack.audit_dir)
            assert done.returncode == 0, (done.stdout, done.stderr)
