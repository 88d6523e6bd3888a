# SPDX-License-Identifier: Apache-2.0
"""A rotation by a pair of interfaces: no packet is lost, whatever ends it, and the routes lead where they did."""

import pathlib
import signal
import sys
import threading

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from custody import Custody, CustodyPair  # noqa: E402
from topology import LaboratoryError, Topology, missing  # noqa: E402
from traffic import Traffic  # noqa: E402
from stack import wait_for  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
PATIENCE = 60


class Auto(CustodyPair):
    """What the machine can do."""

    method = "auto"
    before_up = Custody.before_up


@pytest.fixture
def laboratory(request, tmp_path):
    """(rotator, topology), with two clients. The parameter is the rotator's class and the RTT: CustodyPair, 0 ms."""
    method, rtt = getattr(request, "param", (CustodyPair, 0))
    rotator = method()
    with Topology(tmp_path, kind="userspace", clients=2, rtt=rtt, before_up=rotator.before_up) as net:
        try:
            rotator.begin(net)
            yield rotator, net
        finally:
            rotator.end()


def routes(end):
    """Its routes, those that lead out by its cable aside."""
    lines = end.run("ip", "route", "show").stdout.splitlines()
    return [line.strip() for line in lines if end.veth not in line.split()]


def is_away(rotator, end):
    name = rotator.pairs[end].interface
    return any(name in line.split() for line in routes(end))


def log_of(rotator, end):
    return rotator.fleet.hosts[end].applier_log.read_text()


def lost(traffic, *directions):
    """Packets that were lost, those aside that found no room in a WireGuard's socket. directions: of "to_server",
    "to_client"; both."""
    account = traffic.finish()
    print(account.as_dict())
    return max(0, sum(getattr(account, d).lost for d in directions or ("to_server", "to_client")) - account.overflowed)


class Rotation:
    """Context manager: a rotation that was begun -> its end is waited for, and `failure` is what came of it."""

    def __init__(self, rotator, end):
        self.failure = None
        self.thread = threading.Thread(target=self._rotate, args=(rotator, end))

    def _rotate(self, rotator, end):
        try:
            rotator.rotate(end)
        except LaboratoryError as e:
            self.failure = str(e)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.thread.join(PATIENCE)


def test_each_end_rotates(laboratory):
    rotator, net = laboratory
    before = {end: routes(end) for end in net.ends}
    with Traffic(net, rate=500) as traffic:
        for end in (net.clients[0], net.server, net.clients[1], net.clients[0]):
            rotator.rotate(end)
        assert lost(traffic) == 0
    for end in net.ends:
        assert routes(end) == before[end]
        assert "outgoing packets waited" not in log_of(rotator, end)
        pair = rotator.pairs[end]
        wait_for(lambda: pair.public_key() == end.public_key(), "the key on the second device, too", PATIENCE, 0.05)
    confirmed = [r for r in rotator.fleet.hosts[net.server].stack.records() if r["event"] == "rotation.confirmed"]
    assert [r["method"] for r in confirmed] == ["pair"]


@pytest.mark.parametrize("whose", ["client", "server"])
def test_killed_while_away(laboratory, whose):
    rotator, net = laboratory
    end = net.server if whose == "server" else net.clients[0]
    host, before, key = rotator.fleet.hosts[end], routes(end), end.public_key()
    with Traffic(net, rate=500) as traffic:
        with Rotation(rotator, end) as rotation:
            wait_for(lambda: is_away(rotator, end), "routes that lead to the second device", PATIENCE, 0)
            host.stop_applier(signal.SIGKILL)
            assert is_away(rotator, end)
            host.start_applier()
        assert rotation.failure is None
        wait_for(lambda: routes(end) == before, "routes as they were", PATIENCE, 0.05)
        assert end.public_key() != key
        assert lost(traffic) == 0


@pytest.mark.parametrize("laboratory", [(CustodyPair, 200)], indirect=True)
def test_rolled_back(laboratory):
    """The counterpart never says that it moved: the key before comes back, and then the routes. (It is stopped before the
    handshake has come to its end of the long cable.)"""
    rotator, net = laboratory
    client, server = net.clients[0], rotator.fleet.hosts[net.server]
    before, key = routes(client), client.public_key()
    with Traffic(net, rate=500) as traffic:
        with Rotation(rotator, client) as rotation:
            wait_for(lambda: client.device.public_key() != key, "the next key", PATIENCE, 0.005)
            server.applier.send_signal(signal.SIGSTOP)
            try:
                rotation.thread.join(PATIENCE)
            finally:
                server.applier.send_signal(signal.SIGCONT)
        assert rotation.failure is not None
        ended, = (r for r in rotator.fleet.hosts[client].stack.records() if r["event"] == "rotation.rolled-back")
        assert "no word that the allowed-ips moved" in ended["detail"] and ended["method"] == "pair"
        assert client.public_key() == key
        wait_for(lambda: routes(client) == before, "routes as they were", PATIENCE, 0.05)
        rotator.rotate(client)
        # What was on its way to the client, under the session before the one that is taken back, may be lost.
        assert lost(traffic, "to_server") == 0
    assert client.public_key() != key


@pytest.mark.parametrize("laboratory", [(Auto, 0)], indirect=True)
def test_auto_says_why_not_by_the_pair(laboratory):
    rotator, net = laboratory
    client = net.clients[0]
    rotator.rotate(client)
    assert "not by the pair" not in log_of(rotator, client)
    rotator.pairs[net.server].remove_device()
    rotator.rotate(client)
    assert "not by the pair" in log_of(rotator, client)
    assert rotator.pairs[net.server].interface in log_of(rotator, net.server)


def test_strict_filter_is_refused(laboratory):
    rotator, net = laboratory
    client = net.clients[0]
    host = rotator.fleet.hosts[client]
    host.stop_applier()
    client.run("sysctl", "-q", f"net.ipv4.conf.{client.interface}.rp_filter=1")
    host.start_applier()
    wait_for(lambda: "rp_filter is 1" in log_of(rotator, client), "words about rp_filter", PATIENCE, 0.05)


@pytest.mark.parametrize("laboratory", [(CustodyPair, 20)], indirect=True)
def test_one_rotation_after_another_finds_the_pair_ready(laboratory):
    """Two ends that begin a handshake at once end without one, for 5 s."""
    rotator, net = laboratory
    for _ in range(10):
        for end in net.ends:
            rotator.rotate(end)
    for end in net.ends:
        assert "no applier answers" not in log_of(rotator, end)


class Preshared(CustodyPair):
    """With preshared keys that custody makes."""

    def make_fleet(self, net):
        fleet = super().make_fleet(net)
        fleet.custodyd["key_options"] = "grace = 600\n  window = 30\n  psk-lifetime = 3600"
        return fleet


def preshared_keys(interface):
    """{peer: its preshared key} of a device; without those that have none."""
    lines = (line.split() for line in interface.wg("show", interface.interface, "preshared-keys").splitlines())
    return {peer: key for peer, key in lines if key != "(none)"}


@pytest.mark.parametrize("laboratory", [(Preshared, 0)], indirect=True)
def test_the_pair_has_the_preshared_keys_of_the_interface(laboratory):
    rotator, net = laboratory
    for end in net.ends:
        wait_for(lambda: len(preshared_keys(end)) == len(net.counterparts(end)) and
                 preshared_keys(rotator.pairs[end]) == preshared_keys(end),
                 f"preshared keys on both devices\n{rotator.fleet.logs()}", PATIENCE, 0.1)
    with Traffic(net, rate=500) as traffic:
        for end in net.ends:
            rotator.rotate(end)
        assert lost(traffic) == 0
    for end in net.ends:
        ended, = (r for r in rotator.fleet.hosts[end].stack.records() if r["event"] == "rotation.confirmed")
        assert ended["method"] == "pair"
