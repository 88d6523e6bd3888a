# SPDX-License-Identifier: Apache-2.0
"""What custody-rotation(7) tells operators to expect is so: registry gone, counterpart gone, key held, key set by hand, revoked."""

import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from custody import KEY, Fleet  # noqa: E402
from topology import PATIENCE, Key, Topology, missing, wait_for  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
WINDOW = 3  # seconds
TOOLS = HERE.parents[1] / "tools"


@pytest.fixture
def fleet(tmp_path):
    with Topology(tmp_path, kind="userspace") as net:
        fleet = Fleet(tmp_path, net, key_options=f"grace = 600\n  window = {WINDOW}")
        try:
            yield fleet.start()
        finally:
            fleet.close()


@pytest.fixture
def client(fleet):
    return fleet.hosts[fleet.net.clients[0]]


@pytest.fixture
def server(fleet):
    return fleet.hosts[fleet.net.server]


def answers(fleet):
    done = fleet.net.clients[0].run("ping", "-q", "-c", 1, "-w", PATIENCE, fleet.net.server.inner, timeout=PATIENCE + 10, check=False)
    return done.returncode == 0


def is_rolled_back(host):
    """Rotates, and tells whether custodyctl says that it was rolled back; what it printed."""
    before = host.public_key()
    done = host.stack.ctl("key", "rotate", KEY, "--wait", timeout=PATIENCE)
    assert done.returncode == 1, done.stdout
    assert host.public_key() == before == host.end.public_key()
    return "was rolled back" in done.stdout, done.stdout


def test_a_rotation_ends_with_its_window_while_the_registry_is_gone(fleet, client):
    fleet.registry.rename(fleet.registry.with_name("away"))
    rolled_back, said = is_rolled_back(client)
    assert rolled_back and "is gone" in said
    assert answers(fleet)
    fleet.registry.with_name("away").rename(fleet.registry)
    client.rotate()
    assert answers(fleet)


def test_a_rotation_is_rolled_back_without_the_counterparts_applier(fleet, client, server):
    server.stop_applier()
    rolled_back, said = is_rolled_back(client)
    assert rolled_back and f"{server.name} has not acknowledged the new key" in " ".join(said.split())
    assert answers(fleet)


def test_suspending_ends_a_rotation_that_nobody_carries_out(client):
    client.stop_applier()
    assert client.stack.ctl("key", "rotate", KEY).returncode == 0
    assert client.stack.ctl("key", "suspend", KEY).returncode == 0
    assert client.stack.ctl("key", "resume", KEY).returncode == 0
    client.start_applier()
    client.rotate()


def test_a_suspended_key_is_not_set_on_a_new_interface(fleet, client):
    public = client.end.public_key()
    assert client.stack.ctl("key", "suspend", KEY).returncode == 0
    assert client.end.public_key() == public
    fleet.net.recreate(client.end)
    wait_for(lambda: client.applier_log.read_text().count("qdisc") > 1 or "gone" in client.applier_log.read_text(),
             "the applier seeing the new interface", PATIENCE, 0.05)
    client.stop_applier()  # a whole pass has been made when it starts anew and says nothing
    client.start_applier()
    assert client.stack.ctl("key", "list").returncode == 0
    assert client.end.public_key() == "(none)"
    assert client.stack.ctl("key", "resume", KEY).returncode == 0
    wait_for(lambda: client.end.public_key() == public, "the key, once it is resumed", PATIENCE, 0.05)


def test_a_key_set_by_hand_gives_way_when_the_appliers_are_back(fleet, client, server):
    net, key = fleet.net, Key()
    public = client.public_key()
    client.stop_applier()
    server.stop_applier()
    client.end.device.set(private=key.private)
    server.end.device.set(net.peer(client.end, key.public))
    assert answers(fleet)
    client.start_applier()
    server.start_applier()
    wait_for(lambda: client.end.public_key() == public and server.has_peer(public, net.inner_prefix(client.end)),
             "custody's key and peer", PATIENCE, 0.05)
    assert answers(fleet)


def test_a_revoked_key_is_dropped_and_replaced(fleet, client, server):
    before = client.public_key()
    done = client.stack.ctl("key", "revoke", KEY, "--wait", timeout=PATIENCE)
    assert done.returncode == 0 and f"dropped by {server.name} {KEY}" in " ".join(done.stdout.split()), done.stdout
    assert client.end.public_key() == client.public_key() != before
    assert before not in server.end.wg("show", server.end.interface, "peers").split()
    assert answers(fleet)


def test_the_page_names_alerts_that_there_are():
    named = set(re.findall(r"Custody[A-Z]\w+", (TOOLS / "applier" / "custody-rotation.7").read_text()))
    rules = set(re.findall(r"alert: (\w+)", (TOOLS / "monitoring" / "alerts.yml").read_text()))
    assert len(named) > 5 and named <= rules
