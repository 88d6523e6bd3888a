# SPDX-License-Identifier: Apache-2.0
"""The laboratory measures right: it finds the loss that is there, none where there is none, and leaves nothing behind."""

import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import experiment  # noqa: E402
import table  # noqa: E402
from device import in_namespace  # noqa: E402
from experiment import Cell, attempt, measure  # noqa: E402
from held import HandHeld  # noqa: E402
from rotator import RolledBack  # noqa: E402
from topology import UAPI, Key, LaboratoryError, Topology, default_builddir, find_program, inside, ip, missing  # noqa: E402
from traffic import Traffic  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
PROBE_PORT = 7000
MAGIC, DATA, END, DONE, RUN = 0x63707262, 1, 2, 3, 42


# ---- the probe's account, against a peer that loses what it likes ----

class FakePeer:
    """The other end of a probe's datagrams, in the test's hand."""

    def __init__(self, netns):
        self.socket = in_namespace(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.bind(("127.0.0.2", PROBE_PORT))
        self.socket.settimeout(30)

    def send(self, kind, number=0, window=0, run=RUN):
        packet = struct.pack("!IIQQQII", MAGIC, kind, run, number, time.monotonic_ns(), window, 0)
        self.socket.sendto(packet.ljust(64, b"\0"), ("127.0.0.1", PROBE_PORT))

    def receive(self, wanted):
        """The number in the next packet of the kind WANTED; others are passed over."""
        while True:
            magic, kind, _, number = struct.unpack_from("!IIQQ", self.socket.recv(2048))
            assert magic == MAGIC
            if kind == wanted:
                return number


@pytest.fixture
def loopback():
    """A namespace with nothing but its loopback."""
    netns = f"custody-l{os.getpid()}"
    ip("netns", "add", netns)
    try:
        ip("-n", netns, "link", "set", "lo", "up")
        yield netns
    finally:
        ip("netns", "del", netns)


@pytest.fixture
def probe(loopback):
    """Starts a udp probe at 127.0.0.1 whose peer is 127.0.0.2."""
    started = []

    def start(*args):
        process = subprocess.Popen(
            [*inside(loopback), find_program(default_builddir(), "probe"), "udp", "127.0.0.1", "127.0.0.2", f"--run={RUN}",
             *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert json.loads(process.stdout.readline()) == {"event": "ready"}
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def result(process):
    said = json.loads(process.stdout.readline())
    assert said["event"] == "result"
    return said


def test_the_probe_counts_what_is_lost_doubled_and_overtaken(probe, loopback):
    process, peer = probe(), FakePeer(loopback)
    missing_numbers = {3, *range(40, 50), 99}
    order = [n for n in range(100) if n not in missing_numbers]
    i = order.index(20)
    order[i], order[i + 1] = order[i + 1], order[i]
    for number in order:
        peer.send(DATA, number, window=int(number >= 50))
    peer.send(DATA, 7)
    peer.send(DATA, 5, run=RUN + 1)
    tell(process, "mark second")
    assert json.loads(process.stdout.readline()) == {"event": "marked"}
    tell(process, "stop")
    assert peer.receive(END) == 0
    peer.send(END, 100)
    peer.receive(DONE)
    peer.send(DONE)
    time.sleep(0.1)
    peer.send(DATA, 3)  # it was only late
    said = result(process)
    assert (said["drained"], said["exact"], said["peer_sent"]) == (True, True, 100)
    assert (said["received"], said["lost"], said["duplicated"], said["foreign"]) == (89, 11, 1, 1)
    assert said["reordered"] == 2  # 20, and 3
    assert [(w["name"], w["received"]) for w in said["windows"]] == [("begin", 40), ("second", 49)]


def test_the_probe_says_how_many_it_sent_and_until_when(probe, loopback):
    process, peer = probe("--rate=1000"), FakePeer(loopback)
    tell(process, "start")
    assert json.loads(process.stdout.readline()) == {"event": "started"}
    seen = [peer.receive(DATA) for _ in range(50)]
    assert seen == list(range(50))
    tell(process, "stop")
    total = peer.receive(END)
    assert peer.receive(END) == total  # again, until it is acknowledged
    peer.send(END, 0)
    peer.send(DONE)
    said = result(process)
    assert (said["sent"], said["windows"][0]["sent"], said["lost"], said["refused"]) == (total, total, 0, 0)


def test_a_peer_that_is_gone_is_no_account(probe, loopback):
    process = probe("--patience=1")
    tell(process, "start")
    process.stdout.readline()
    tell(process, "stop")
    said = result(process)
    assert said["drained"] is False and "lost" not in said


@pytest.mark.parametrize("line", ["nonsense", "mark ", "mark a/b", "mark " + "x" * 64, "y" * 200])
def test_a_line_that_is_no_command_ends_the_probe(probe, line):
    process = probe()
    tell(process, line)
    assert process.wait(10) == 1
    assert process.stderr.read().startswith("probe: ")


@pytest.mark.parametrize("args", [[], ["udp"], ["udp", "127.0.0.1"], ["tcp", "127.0.0.1", "127.0.0.2"],
                                  ["udp", "127.0.0.1", "127.0.0.2", "--rate=0"], ["udp", "127.0.0.1", "127.0.0.2", "--size=1"]])
def test_a_wrong_command_line(args):
    done = subprocess.run([find_program(default_builddir(), "probe"), *args], stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 2 and done.stderr


# ---- the topology ----

@pytest.fixture
def net(tmp_path):
    """A server and two clients, connected."""
    with Topology(tmp_path, kind="userspace", clients=2) as net:
        net.connect()
        yield net


def test_what_is_blocked_is_lost_and_nothing_else(net):
    with Traffic(net, rate=200, streams=True) as traffic:
        traffic.mark("blocked")
        net.block(net.clients[0])
        time.sleep(1)
        net.unblock(net.clients[0])
        traffic.mark("after")
        account = traffic.finish()
    for direction in (account.to_server, account.to_client):
        assert set(direction.lost_in) == {"blocked"}
        assert direction.lost == direction.lost_in["blocked"] < direction.sent / 2  # the other client's all came
    assert account.to_server.retransmits > 0
    assert max(account.pauses) >= 900  # until the first packet that comes again, of either window, or the end


def test_undisturbed_traffic_loses_nothing(net):
    with Traffic(net, rate=200, streams=True) as traffic:
        time.sleep(1)
        account = traffic.finish()
    for direction in (account.to_server, account.to_client):
        assert direction.sent > 0 and (direction.lost, direction.duplicated, direction.refused) == (0, 0, 0)


def test_a_stream_of_all_that_goes(net):
    with Traffic(net, rate=50, streams=True, stream_rate=0) as traffic:
        traffic.mark("more")
        account = traffic.finish()
    assert account.to_server.stream_bytes > 0 and account.to_client.stream_bytes > 0


def test_a_key_from_elsewhere(tmp_path):
    """A method that sets keys itself tells the laboratory only their public halves."""
    with Topology(tmp_path, kind="userspace") as net:
        for end in net.ends:
            end.device.set(private=end.key.private)
            end.key = Key(end.key.public)
        net.connect()
        net.wait_confirmed(net.server)


def test_a_device_made_anew_has_no_key(net):
    client = net.clients[0]
    assert client.public_key() == client.key.public == client.device.public_key()
    net.recreate(client)
    assert client.public_key() == "(none)" and client.device.public_key() is None and client.device.peers() == {}
    net.connect()


def test_kill_strikes_only_in_that_namespace(net):
    client, other = net.clients
    process = client.process
    assert net.kill(client, "wireguard-go") == 1
    assert process.wait(10) == -9 and other.process.poll() is None
    net.recreate(client)
    net.connect()


def test_a_long_cable(tmp_path):
    with Topology(tmp_path, kind="userspace", rtt=40) as net:
        net.connect()
        said = net.clients[0].run("ping", "-q", "-c", 5, "-i", "0.2", net.server.inner).stdout
    least = float(re.search(r"= ([0-9.]+)/", said)[1])
    assert 40 <= least < 80


def test_a_cable_that_grows_and_shrinks(net):
    for rtt in (40, 0, 20):
        net.set_rtt(rtt)
        said = net.clients[0].run("ping", "-q", "-c", 3, "-i", "0.2", net.server.inner).stdout
        least = float(re.search(r"= ([0-9.]+)/", said)[1])
        assert rtt <= least < rtt + 20


def left_behind():
    names = [line.split()[0] for line in ip("netns", "list").stdout.splitlines()]
    return ([name for name in names if re.match(rf"custody-[wsc]{os.getpid()}-", name)] +
            [path.name for path in UAPI.glob(f"wg[sc]{os.getpid() % 10000000}x*")])


def test_nothing_is_left_behind_after_a_failure(tmp_path):
    processes = []
    with pytest.raises(ZeroDivisionError):
        with Topology(tmp_path, kind="userspace", rtt=20) as net:
            net.connect()
            assert left_behind()
            with Traffic(net, streams=True) as traffic:
                processes = [probe.process for probe in traffic._probes] + [end.process for end in net.ends]
                raise ZeroDivisionError
    assert left_behind() == []
    assert processes and all(process.poll() is not None for process in processes)


def test_nothing_is_left_behind_when_the_beginning_fails(tmp_path):
    def refuse(end):
        raise LaboratoryError("no")
    with pytest.raises(LaboratoryError), Topology(tmp_path, kind="userspace", before_up=refuse):
        pass
    assert left_behind() == []


# ---- rotations, and the table ----

@pytest.mark.parametrize("key", ["client", "server"])
@pytest.mark.parametrize("rtt", [0, 20])
def test_a_held_rotation_loses_nothing(key, rtt):
    account = attempt(Cell("hand-held", "userspace", key, rtt, rotations=3, rate=200))["account"]
    for name in ("to_server", "to_client"):
        assert account[name]["sent"] > 0 and account[name]["lost"] == 0, account
    assert len(account["pauses"]) == 3


@pytest.mark.parametrize("key", ["client", "server"])
def test_the_usual_script_loses_packets(key):
    account = measure(Cell("usual", "userspace", key, rotations=1))["account"]
    assert account["to_server"]["lost"] + account["to_client"]["lost"] > 100, account
    assert account["to_server"]["retransmits"] + account["to_client"]["retransmits"] > 0


def test_a_server_of_many_clients():
    account = attempt(Cell("hand-held", "userspace", "server", rotations=1, rate=20, clients=20))["account"]
    assert (account["to_server"]["lost"], account["to_client"]["lost"]) == (0, 0), account


class OnceTooSlow(HandHeld):
    """Its first rotation changes nothing."""

    turns = 0

    def rotate(self, end):
        self.turns += 1
        if self.turns == 1:
            raise RolledBack("too slow")
        super().rotate(end)


@pytest.mark.parametrize("of_so_many, measured", [(2, True), (3, False)])
def test_a_rotation_that_is_rolled_back_is_told_and_made_up_for(monkeypatch, of_so_many, measured):
    monkeypatch.setitem(experiment.METHODS, "hand-held", OnceTooSlow)
    monkeypatch.setattr(experiment, "ROLLED_BACK", of_so_many)
    result = attempt(Cell("hand-held", "userspace", "client", rotations=2, rate=100))
    assert table.kept(result) == measured, result
    assert "too slow" in table.show([result])
    assert not measured or (result["rolled_back"] == ["too slow"] and len(result["account"]["pauses"]) == 3)


def row(**changes):
    direction = {"sent": 123456, "lost": 0, "refused": 0, "duplicated": 0, "reordered": 0, "retransmits": 0, "lost_in": {}}
    account = {"to_server": direction, "to_client": {**direction, **changes}, "pauses": [1.0, 30.0], "late": 0,
               "behind_ms": 0.0, "overflowed": 0}
    return {"method": "hand-held", "kind": "userspace", "key": "client", "rtt": 200, "rate": 1000, "rotations": 1000,
            "seconds": 1000.0, "loses_none": True, "attempts": 1, "rolled_back": [], "account": account}


def test_the_table_tells_a_broken_promise():
    good, bad, failed = row(), row(lost=2, lost_in={"rotation.7": 2}), attempt(Cell("no such method", "kernel", "client"))
    assert [table.kept(result) for result in (good, bad, failed)] == [True, False, False]
    assert table.kept({**bad, "loses_none": False})
    text = table.show([good, bad, failed])
    assert "2/123456" in text and "rotation.7" in text and "NOT MEASURED" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_on_a_real_kernel():
    done = subprocess.run([HERE / "run", "--kinds=kernel", "--rotations=3", "--rtt=0", "--keys=client", "--limit=300"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if " kernel " in line[:24]}
    assert rows["hand-held"][6].startswith("0/") and rows["hand-held"][7].startswith("0/")
    assert not rows["usual"][6].startswith("0/")
