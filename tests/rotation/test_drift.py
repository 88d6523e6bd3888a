# SPDX-License-Identifier: Apache-2.0
"""Drift on a real device: each kind is told by the command, recorded once by the applier, and repaired where that is wanted."""

import json
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from custody import KEY, Fleet  # noqa: E402
from topology import PATIENCE, Key, Topology, inside, missing, wait_for  # noqa: E402
from device import Peer  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
NO_DRIFT, DRIFT, UNREACHABLE, NO_DEVICE = 0, 1, 3, 4


class Pair:
    """A server and a client under custody, and what the client's side tells of drift."""

    def __init__(self, net, fleet):
        self.net, self.fleet = net, fleet
        self.client = net.clients[0]
        self.host = fleet.hosts[self.client]
        self.server = fleet.hosts[net.server]

    def drift(self, *options, status):
        done = self.host.stack.run(self.host.stack.program("custody-applier"), f"--config={self.host.config}", "drift", "--json", *options,
                                   netns=self.client.netns, timeout=PATIENCE)
        assert done.returncode == status, (done.stdout, done.stderr, self.fleet.logs())
        return {found["kind"]: found for found in json.loads(done.stdout)}

    def recorded(self, event, kind):
        return [r for r in self.host.stack.records() if r["event"] == event and r["detail"].startswith(f"{kind}: ")]

    def look(self):
        """Makes the client's applier look: something is new in a folder of the registry that it follows."""
        folder = self.fleet.registry / self.host.name / KEY
        (folder / ".nudge").write_text("")

    def wait_recorded(self, event, kind, count=1):
        def there():
            self.look()
            return len(self.recorded(event, kind)) == count
        wait_for(there, f"{count} of {event} {kind}\n{self.fleet.logs()}", PATIENCE, 0.5)


def make_pair(tmp_path, interface_extra=""):
    with Topology(tmp_path, kind="userspace", clients=1) as net:
        fleet = Fleet(tmp_path, net, interface_extra=interface_extra)
        try:
            yield Pair(net, fleet.start())
        finally:
            fleet.close()


@pytest.fixture
def pair(tmp_path):
    yield from make_pair(tmp_path)


@pytest.fixture
def repairing(tmp_path):
    yield from make_pair(tmp_path, "  repair = true")


def take_allowed_ips(pair):
    other = Key().public
    pair.client.device.set(Peer(other, allowed_ips=[pair.net.inner_prefix(pair.net.server)]))
    return other


def disturb(pair, kind):
    """Makes the client's interface drift -> what to do to undo it."""
    device, public = pair.client.device, pair.net.server.public_key()
    prefix = pair.net.inner_prefix(pair.net.server)
    sound = Peer(public, endpoint=f"{pair.net.server.outer}:{pair.net.server.port}", allowed_ips=[prefix], keepalive=0)
    if kind == "peer-missing":
        device.set(Peer(public, remove=True))
    elif kind == "allowed-ips":
        device.set(Peer(public, allowed_ips=[prefix, "10.77.0.0/16"]))
        return lambda: device.set(Peer(public, remove=True), sound)
    elif kind == "keepalive":
        device.set(Peer(public, keepalive=7))
    elif kind == "allowed-ips-taken":
        other = take_allowed_ips(pair)
        return lambda: device.set(Peer(other, remove=True), sound)
    return lambda: device.set(sound)


PEER_KINDS = ["peer-missing", "allowed-ips", "keepalive", "allowed-ips-taken"]


def test_drift_of_a_peer_is_found_recorded_once_and_cleared(pair):
    assert pair.drift(status=NO_DRIFT) == {}
    for kind in PEER_KINDS:
        undo = disturb(pair, kind)
        found = pair.drift(status=DRIFT)
        assert found[kind]["drift"] and found[kind]["peer"] == pair.server.name
        pair.wait_recorded("drift.found", kind)
        first, = pair.recorded("drift.found", kind)
        assert first["key"] == KEY and first["peer"] == pair.server.name and first["peer_key"] == KEY
        # Nobody asked for a repair, and a second pass does not tell it again.
        pair.look()
        assert kind in pair.drift(status=DRIFT)
        undo()
        pair.wait_recorded("drift.cleared", kind)
        assert len(pair.recorded("drift.found", kind)) == 1
        assert pair.drift(status=NO_DRIFT) == {}


def test_a_peer_of_nobodys_is_told_and_is_no_drift(pair):
    other = Key().public
    pair.client.device.set(Peer(other, allowed_ips=["10.99.0.0/16"]))
    assert pair.drift(status=NO_DRIFT)["unmanaged"]["public_key"] == other


def test_a_foreign_private_key_is_drift_and_stays_until_it_is_repaired(pair):
    foreign = Key()
    pair.client.device.set(private=foreign.private)
    assert pair.drift(status=DRIFT)["own-key"]["public_key"] == foreign.public
    pair.wait_recorded("drift.found", "own-key")
    assert pair.client.public_key() == foreign.public
    assert pair.drift("--repair", status=NO_DRIFT) == {}
    assert pair.client.public_key() == pair.host.public_key()
    pair.wait_recorded("drift.cleared", "own-key")
    granted = [r for r in pair.host.stack.records() if r["event"] == "release.granted"]
    assert granted[-1]["reason"] == "RESTORE"


def test_the_command_repairs_peers(pair):
    for kind in PEER_KINDS:
        disturb(pair, kind)
        left = pair.drift("--repair", status=NO_DRIFT)
        assert set(left) <= {"unmanaged"}
    assert pair.host.has_peer(pair.net.server.public_key(), pair.net.inner_prefix(pair.net.server))


def test_what_is_configured_to_be_repaired_is_by_the_applier(repairing):
    for kind in PEER_KINDS:
        disturb(repairing, kind)
        repairing.wait_recorded("drift.found", kind)
        repairing.wait_recorded("drift.cleared", kind)
    repairing.client.device.set(private=Key().private)
    repairing.wait_recorded("drift.cleared", "own-key")
    assert repairing.client.public_key() == repairing.host.public_key()
    # And the tunnel works.
    assert repairing.client.run("ping", "-q", "-c", 1, "-w", PATIENCE, repairing.net.server.inner, timeout=PATIENCE + 10,
                                check=False).returncode == 0


def test_a_retired_generation_that_is_a_peer_again_is_drift(pair):
    before = pair.net.server.public_key()
    pair.server.rotate()
    wait_for(lambda: pair.host.has_peer(pair.net.server.public_key(), pair.net.inner_prefix(pair.net.server)), "the move")
    # Revoked, it is retired at once; somebody brings it back.
    done = pair.server.stack.ctl("key", "revoke", KEY, "--generation=1", timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: before not in pair.client.device.peers(), f"the retirement\n{pair.fleet.logs()}", PATIENCE)
    pair.client.device.set(Peer(before))
    assert pair.drift(status=DRIFT)["retired"]["public_key"] == before
    assert pair.drift("--repair", status=NO_DRIFT) == {}
    assert before not in pair.client.device.peers()


def test_an_interface_that_is_made_anew_is_restored_and_is_no_drift(pair):
    pair.net.recreate(pair.client)
    wait_for(lambda: pair.fleet.is_joined(pair.client), f"restored\n{pair.fleet.logs()}", PATIENCE)
    pair.look()
    assert pair.drift(status=NO_DRIFT) == {}
    assert not [r for r in pair.host.stack.records() if r["event"].startswith("drift.")]


def test_an_interface_that_was_configured_without_its_key_is_restored_and_recorded(pair):
    """As `systemctl reload wg-quick@wg0` does it, with a file that has neither key nor peers."""
    public, kinds = pair.client.public_key(), ("no-key", "peer-missing")
    pair.client.wg("setconf", pair.client.interface, "/dev/null")
    assert pair.client.public_key() == "(none)" and not pair.client.device.peers()
    for kind in kinds:
        pair.wait_recorded("drift.cleared", kind)
        assert len(pair.recorded("drift.found", kind)) == 1
    assert pair.client.public_key() == public
    assert pair.host.has_peer(pair.server.public_key(), pair.net.inner_prefix(pair.net.server))
    assert pair.drift(status=NO_DRIFT) == {}


def test_a_key_that_somebody_set_while_there_was_no_applier_is_replaced_and_recorded(pair):
    public, key = pair.client.public_key(), Key()
    pair.host.stop_applier()
    pair.client.device.set(private=key.private)
    pair.host.start_applier()
    pair.wait_recorded("drift.cleared", "own-key")
    found, = pair.recorded("drift.found", "own-key")
    assert key.public in found["detail"] and pair.client.public_key() == public


def test_what_was_changed_while_there_was_no_applier_is_restored_and_recorded(pair):
    pair.host.stop_applier()
    take_allowed_ips(pair)
    pair.host.start_applier()
    pair.wait_recorded("drift.cleared", "allowed-ips")
    assert len(pair.recorded("drift.found", "allowed-ips")) == 1
    assert "when the applier took the interface up" in pair.recorded("drift.found", "allowed-ips")[0]["detail"]
    assert pair.host.has_peer(pair.server.public_key(), pair.net.inner_prefix(pair.net.server))
    pair.drift(status=NO_DRIFT)


def test_an_interface_that_was_made_anew_while_there_was_no_applier_is_no_drift(pair):
    pair.host.stop_applier()
    pair.net.recreate(pair.client)
    pair.host.start_applier()
    wait_for(lambda: pair.host.has_peer(pair.server.public_key(), pair.net.inner_prefix(pair.net.server)),
             f"its peer\n{pair.fleet.logs()}", PATIENCE, 0.05)
    assert not pair.recorded("drift.found", "allowed-ips")


def test_the_exit_status_says_what_is_missing(pair):
    assert pair.host.stack.run(pair.host.stack.program("custody-applier"), f"--config={pair.host.config}", "drift", "nosuch",
                               netns=pair.client.netns).returncode == NO_DEVICE
    pair.host.stop_applier()
    pair.client.remove_device()
    pair.drift(status=NO_DEVICE)
    pair.host.stack.stop()
    pair.drift(status=UNREACHABLE)
