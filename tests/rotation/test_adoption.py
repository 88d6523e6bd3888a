# SPDX-License-Identifier: Apache-2.0
"""Adoption: tunnels configured by hand with plaintext keys come under custody, and off those keys, under traffic."""

import base64
import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from custody import KEY  # noqa: E402
from topology import PATIENCE, Key, Topology, default_builddir, find_program, missing, wait_for  # noqa: E402
from device import Peer  # noqa: E402
from estate import ADOPTED, TO_CHANGE, Estate  # noqa: E402
from test_secrets import FOUND, NOWHERE, Wiretap  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def make_estate(tmp_path, **options):
    up = find_program(default_builddir(), "custody-applier")
    with Topology(tmp_path, kind="userspace", clients=1, before_up=lambda end: end.run(up, "up", end.interface)) as net:
        net.connect()
        estate = Estate(tmp_path, net)
        try:
            yield estate.start(**options)
        finally:
            estate.fleet.close()


@pytest.fixture
def estate(tmp_path):
    yield from make_estate(tmp_path)


@pytest.fixture
def strangers(tmp_path):
    yield from make_estate(tmp_path, trust=False)


def find(key, what, where):
    done = subprocess.run([find_program(default_builddir(), "secret_finder"), what, str(where)], input=key.private + "\n",
                          capture_output=True, text=True, timeout=120)
    assert done.returncode in (FOUND, NOWHERE), done.stderr
    return done.returncode


def test_two_hosts_are_adopted_under_traffic(estate):
    told = estate.adopt_both()
    assert "is destroyed in the token after the grace period" in told and "PostUp = custody-applier up %i" in told
    estate.check_adopted()
    # All is done, and said so.
    again = estate.adopt(estate.client, ADOPTED)
    assert "adopted" in again.stdout and len(estate.events(estate.client, "rotation.started")) == 1


def test_the_imported_key_is_nowhere_but_in_the_device(estate, tmp_path):
    client, host = estate.client, estate.host(estate.client)
    key = estate.old[client]
    raw = bytearray(base64.b64decode(key.private))  # as the device has it: clamped
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    key.private = base64.b64encode(raw).decode()
    capture = tmp_path / "traffic" / "capture"
    capture.parent.mkdir()
    tap = Wiretap(host.stack.socket, host.stack.dir / "tap.sock", capture)
    estate.adopt(client, TO_CHANGE, f"--socket={tap.path}")
    tap.close()
    assert estate.events(client, "key.activated")
    assert find(key, "pid", client.process.pid) == FOUND  # the finder and this very key
    for name, pid in (("custodyd", host.stack.custodyd.pid), ("keeper", host.stack.keeper_pid), ("applier", host.applier.pid)):
        assert find(key, "pid", pid) == NOWHERE, name
    assert find(key, "folder", host.stack.dir) == NOWHERE
    assert b"custody import offer v1" in capture.read_bytes(), "the tap taps"
    assert find(key, "folder", capture.parent) == NOWHERE


@pytest.mark.parametrize("event", ["key.imported", "key.activated", "rotation.started", "peer.acknowledged"])
def test_an_adoption_that_was_killed_carries_on(estate, event):
    client, host = estate.client, estate.host(estate.client)
    estate.adopt(estate.server, TO_CHANGE)  # so that the client's counterpart has a bundle
    process = subprocess.Popen(estate.command(client), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=host.stack.env(), start_new_session=True)
    wait_for(lambda: process.poll() is not None or estate.events(client, event), event, PATIENCE, 0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    assert estate.events(client, event)
    estate.adopt(client, ADOPTED)
    assert estate.is_off(client)
    assert len(estate.events(client, "key.imported")) == 1 and len(estate.events(client, "rotation.confirmed")) == 1


def test_custodyd_that_is_killed_in_the_middle_of_an_import_carries_on(estate):
    client, host = estate.client, estate.host(estate.client)
    process = subprocess.Popen(estate.command(client), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=host.stack.env(), start_new_session=True)
    wait_for(lambda: estate.events(client, "key.imported"), "key.imported", PATIENCE, 0.001)
    host.stack.kill()
    assert process.wait(3 * PATIENCE) != ADOPTED
    host.stack.start(deadline=PATIENCE)
    estate.adopt(client, TO_CHANGE)  # up to the counterpart, who is not ready
    assert len(estate.events(client, "key.imported")) == 1 and len(estate.events(client, "key.activated")) == 1


def test_an_interface_made_anew_in_the_middle_gets_the_imported_key_back(estate):
    client = estate.client
    estate.adopt(client, TO_CHANGE)
    estate.net.recreate(client)
    wait_for(lambda: client.public_key() == estate.old[client].public, f"restored\n{estate.fleet.logs()}", PATIENCE)
    granted = estate.events(client, "release.granted")
    assert [r["generation"] for r in granted] == [1] and granted[0]["reason"] in ("BOOT", "RESTORE")
    # For anything else it is not to be had.
    refused = estate.host(client).stack.applier(f"--log-vkey={estate.host(client).stack.log_vkey}", "apply", f"--key={KEY}",
                                                "--reason=OPERATOR", client.interface, netns=client.netns)
    assert refused.returncode == 1 and "was imported" in refused.stderr


def test_who_is_not_trusted_is_named_and_what_to_do(strangers):
    name = strangers.host(strangers.server).name
    told = strangers.adopt(strangers.client, TO_CHANGE).stderr
    assert f"{name} is not ready" in told and f"custodyctl host trust add {name} VKEY" in told
    assert strangers.client.public_key() == strangers.old[strangers.client].public


def test_one_that_does_not_trust_us_is_named_and_nothing_is_lost(estate):
    """The counterpart never stages: the rotation is rolled back, and what to change there is said."""
    client, server = estate.client, estate.server
    estate.adopt(server, TO_CHANGE)
    wait_for(lambda: estate.events(server, "key.activated"), "the server imported")
    estate.trust_nobody_else(server)
    os.kill(estate.host(server).applier.pid, signal.SIGHUP)
    told = estate.adopt(client, TO_CHANGE).stderr
    assert f"{estate.host(server).name} has not staged our next key" in told
    assert f"custodyctl host trust add {estate.host(client).name} '{estate.host(client).stack.status()['host_vkey']}'" in told
    assert client.public_key() == estate.old[client].public
    assert client.run("ping", "-q", "-c", 1, "-w", PATIENCE, server.inner, timeout=PATIENCE + 10, check=False).returncode == 0


def test_an_interface_without_the_counterparts_peer_is_not_touched(estate):
    client = estate.client
    other = Key().public
    client.device.set(Peer(estate.old[estate.server].public, remove=True), Peer(other, allowed_ips=["10.99.0.0/16"]))
    done = estate.adopt(client, TO_CHANGE)
    assert f'says of peer "{estate.host(estate.server).name}"' in done.stderr
    assert f"peer {other} is in no section" in done.stdout
    assert not estate.events(client, "key.imported")


def test_who_may_not_rotate_is_told_what_an_operator_must_run(estate):
    client, host = estate.client, estate.host(estate.client)
    estate.adopt(estate.server, TO_CHANGE)
    host.stack.config.write_text(host.stack.config.read_text().replace('operator "root" { uid = 0 ', 'operator "root" { uid = 4711 '))
    os.kill(host.stack.custodyd.pid, signal.SIGHUP)
    wait_for(lambda: len(estate.events(client, "policy.loaded")) == 2, "the new policy", PATIENCE)
    told = estate.adopt(client, TO_CHANGE).stderr
    assert f"custodyctl key rotate {KEY} --wait" in told and "carries on" in told
    assert client.public_key() == estate.old[client].public


def test_no_applier_that_serves_is_said(estate):
    estate.host(estate.client).stop_applier()
    assert "start one here" in estate.adopt(estate.client, TO_CHANGE).stderr


def test_a_peer_made_by_hand_gives_endpoint_and_preshared_key_to_its_successor(estate):
    """The server's key is custody's from the start, another than the client's peer of it has."""
    client, server = estate.client, estate.server
    psk = pathlib.Path(estate.fleet.dir) / "psk"
    psk.write_text(base64.b64encode(os.urandom(32)).decode())
    by_hand = estate.old[server].public
    client.wg("set", client.interface, "peer", by_hand, "preshared-key", psk)
    server.wg("set", server.interface, "peer", estate.old[client].public, "preshared-key", psk)
    estate.host(server).stack.generate(KEY)
    host = estate.host(client)
    # Counterparts are followed once the own key is under custody.
    estate.adopt(client, ADOPTED)
    new = estate.host(server).public_key()
    wait_for(lambda: host.has_peer(new, estate.net.inner_prefix(server)), f"first contact\n{estate.fleet.logs()}", PATIENCE, 0.1)
    keys = dict(line.split("\t") for line in client.wg("show", client.interface, "preshared-keys").splitlines())
    ends = dict(line.split("\t") for line in client.wg("show", client.interface, "endpoints").splitlines())
    assert keys[new] == psk.read_text() and ends[new] == f"{server.outer}:{server.port}"
    wait_for(lambda: by_hand not in client.device.peers(), f"the old peer gone\n{estate.fleet.logs()}", PATIENCE, 0.1)
