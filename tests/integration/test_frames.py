# SPDX-License-Identifier: Apache-2.0
"""Hostile frames at the real custodyd: each gets its clear error or a closed connection, and the next client is served."""

import contextlib
import os
import random
import socket
import struct
import time

import pytest

from python_client import Client, Closed, Connection, Refused, frame, pb
from stack import Stack, wait_for

HELLO = frame(pb.Request(id=1, hello=pb.Hello(version=1)).SerializeToString())
STATUS = frame(pb.Request(id=2, get_status=pb.GetStatus()).SerializeToString())


@pytest.fixture(scope="module")
def daemon(builddir, tmp_path_factory):
    """One stack for all tests here: it has to outlive them all."""
    stack = Stack(tmp_path_factory.mktemp("f"), builddir)
    try:
        stack.provision()
        stack.write_config(limits="connections-per-uid = 40  connections = 60  requests-in-flight = 8  idle = 4")
        stack.start()
        stack.init()
        stack.generate("wga")
        yield stack
    finally:
        stack.close()


@pytest.fixture(autouse=True)
def served_after(daemon):
    """After whatever a test did the same process serves the next client, and still holds its limits."""
    pid = daemon.custodyd.pid
    yield
    with Client(daemon.socket) as client:
        assert client.status().log_ready
        assert client.release("wga", daemon.log_vkey.read_text()).generation == 1
    assert daemon.custodyd.poll() is None and daemon.custodyd.pid == pid


def connect(daemon):
    return Connection(daemon.socket)


def greeted(daemon):
    connection = connect(daemon)
    connection.send_bytes(HELLO)
    assert connection.receive().code == pb.OK
    return connection


def ends_with(connection, code):
    """The connection says `code` about itself, and ends."""
    response = connection.receive()
    assert pb.Code.Name(response.code) == code
    assert response.message != "" and response.WhichOneof("body") is None
    with pytest.raises(Closed):
        connection.receive()
    return response


# ---- frames ----

@pytest.mark.parametrize("length", [0, 65537, 1 << 24, (1 << 32) - 1])
def test_bad_length(daemon, length):
    for start in (connect, greeted):
        with start(daemon) as connection:
            connection.send_bytes(struct.pack(">I", length) + b"x" * 100)
            assert ends_with(connection, "INVALID_ARGUMENT").id == 0


def test_what_came_before_a_bad_frame_is_answered(daemon):
    with greeted(daemon) as connection:
        connection.send_bytes(STATUS + struct.pack(">I", 0))
        codes = {r.id: r.code for r in (connection.receive(), connection.receive())}
        assert codes == {2: pb.OK, 0: pb.INVALID_ARGUMENT}


@pytest.mark.parametrize("message", [b"\xff", b"\x08", b"\x12\xff\xff\xff\xff\x0f", b"\x00" * 10, b"\x0b" * 1000,
                                     b"\x12\x05hello", b"{\"id\":1}", b"\xff" * 65536])
def test_not_protobuf(daemon, message):
    for start in (connect, greeted):
        with start(daemon) as connection:
            connection.send_bytes(frame(message))
            ends_with(connection, "INVALID_ARGUMENT")


def test_truncated(daemon):
    for data in (b"\0", b"\0\0\0", HELLO[:4], HELLO[:5], HELLO[:-1], HELLO + STATUS[:-1]):
        with connect(daemon) as connection:
            connection.send_bytes(data)
            connection.socket.shutdown(socket.SHUT_WR)
            answers = []
            with pytest.raises(Closed):
                while True:
                    answers.append(connection.receive())
            assert len(answers) <= 2


def test_random_bytes(daemon):
    generator = random.Random(20261122)
    for _ in range(200):
        with (greeted if generator.random() < 0.5 else connect)(daemon) as connection:
            data = generator.randbytes(generator.randrange(1, 300))
            if generator.random() < 0.7:
                data = frame(data)
            try:
                connection.send_bytes(data)
                connection.socket.shutdown(socket.SHUT_WR)
                while True:
                    assert connection.receive().code != pb.OK
            except (Closed, BrokenPipeError, ConnectionResetError):
                pass


def test_mutated_requests(daemon):
    """Requests of every kind with bytes changed, cut or doubled: an answer or an end, never silence."""
    generator = random.Random(7)
    # Such as change nothing even where the mutation leaves them valid.
    requests = [pb.Request(id=5, list_keys=pb.ListKeys(key="wga")), pb.Request(id=5, get_status=pb.GetStatus()),
                pb.Request(id=5, release_key=pb.ReleaseKey(key="nosuch", generation=1, reason=1, ticket="t",
                                                           applier_public_key=bytes(range(32)))),
                pb.Request(id=5, report_outcome=pb.ReportOutcome(lease="00" * 16, applied=True, detail="d")),
                pb.Request(id=5, destroy_key=pb.DestroyKey(key="nosuch", generation=1 << 63)),
                pb.Request(id=5, publish_key=pb.PublishKey(key="nosuch"))]
    for _ in range(300):
        data = bytearray(generator.choice(requests).SerializeToString())
        for _ in range(generator.randrange(1, 4)):
            at = generator.randrange(len(data))
            change = generator.randrange(3)
            if change == 0:
                data[at] ^= 1 << generator.randrange(8)
            elif change == 1:
                data[at:at] = data[at:at + 8]
            elif len(data) > 1:
                del data[at]
        with greeted(daemon) as connection:
            connection.send_bytes(frame(bytes(data)))
            try:
                connection.receive()
            except Closed:
                pass


def test_unknown_fields_are_passed_over(daemon):
    with greeted(daemon) as connection:
        connection.send_bytes(frame(STATUS[4:] + b"\xfa\x7f\x03abc"))
        response = connection.receive()
        assert (response.id, response.code) == (2, pb.OK)


# ---- requests out of place ----

def test_unknown_or_missing_body(daemon):
    with greeted(daemon) as connection:
        for message in (pb.Request(id=9).SerializeToString(), b"\x08\x09" + b"\xa2\x06\x02\x08\x01"):
            connection.send_bytes(frame(message))
            response = connection.receive()
            assert (response.id, pb.Code.Name(response.code)) == (9, "INVALID_ARGUMENT")
        connection.send_bytes(STATUS)
        assert connection.receive().code == pb.OK


def test_id_0(daemon):
    with greeted(daemon) as connection:
        connection.send_bytes(frame(pb.Request(get_status=pb.GetStatus()).SerializeToString()))
        assert ends_with(connection, "INVALID_ARGUMENT").id == 0


def test_second_hello(daemon):
    with greeted(daemon) as connection:
        connection.send_bytes(HELLO)
        ends_with(connection, "INVALID_ARGUMENT")


def test_request_before_hello(daemon):
    with connect(daemon) as connection:
        connection.send_bytes(STATUS)
        ends_with(connection, "INVALID_ARGUMENT")


def test_another_version(daemon):
    for version in (0, 2, 4294967295):
        with connect(daemon) as connection:
            connection.send_bytes(frame(pb.Request(id=1, hello=pb.Hello(version=version)).SerializeToString()))
            assert "1" in ends_with(connection, "INVALID_ARGUMENT").message


def test_strings_that_are_none(daemon):
    """NUL, control characters, broken UTF-8 and great length in each string."""
    with Client(daemon.socket) as client:
        for key in ("a/b", "../wga", "a\nb", "x" * 64, "x" * 60000, "\u202e", "w\u00e9", "\0wga"):
            for body in (dict(generate_key=pb.GenerateKey(key=key)), dict(publish_key=pb.PublishKey(key=key)),
                         dict(destroy_key=pb.DestroyKey(key=key, generation=1))):
                with pytest.raises(Refused, match="INVALID_ARGUMENT"):
                    client.call(**body)
            assert key[:1] == "\0" or client.keys(key) == []
        lease = client.release("wga", daemon.log_vkey.read_text()).lease
        for detail in ("x" * 448, "x" * 60000):
            with pytest.raises(Refused, match="INVALID_ARGUMENT"):
                client.report(lease, applied=False, detail=detail)
        client.report(lease, applied=False, detail="line\nbreak\t\"\\ \u00e9")
    assert daemon.records()[-1]["event"] == "release.failed"
    # Not UTF-8: Python's protobuf would not send it by itself, nor take it back in an answer.
    message = pb.Request(id=2, publish_key=pb.PublishKey(key="wXY")).SerializeToString().replace(b"XY", b"\xff\xfe")
    with greeted(daemon) as connection:
        connection.send_bytes(frame(message))
        response = connection.receive()
        assert (response.id, pb.Code.Name(response.code)) == (2, "INVALID_ARGUMENT")


# ---- limits ----

def test_too_many_in_flight(daemon):
    """More requests at once than a connection may have open: the others are refused, each by its id."""
    with greeted(daemon) as connection:
        release = pb.ReleaseKey(key="wga", reason=pb.BOOT, applier_public_key=os.urandom(32))
        connection.send_bytes(b"".join(frame(pb.Request(id=i, release_key=release).SerializeToString())
                                       for i in range(2, 102)))
        answers = [connection.receive() for _ in range(100)]
        assert sorted(r.id for r in answers) == list(range(2, 102))
        assert {pb.Code.Name(r.code) for r in answers} == {"OK", "RESOURCE_EXHAUSTED"}
        assert sum(r.code == pb.OK for r in answers) >= 8
        connection.send_bytes(STATUS)
        assert connection.receive().code == pb.OK


def test_slow_writer(daemon):
    """Bytes that trickle in are put together; others are served meanwhile."""
    with connect(daemon) as slow:
        for i, byte in enumerate(HELLO + STATUS):
            slow.send_bytes(bytes([byte]))
            if i == 10:
                with Client(daemon.socket) as other:
                    other.status()
        assert [slow.receive().id, slow.receive().id] == [1, 2]


def test_idle_connection_is_closed(daemon):
    """Nothing, no request, or half a one, within the idle time."""
    with connect(daemon) as silent, greeted(daemon) as quiet, greeted(daemon) as half:
        start = time.monotonic()
        half.send_bytes(STATUS[:-1])
        for connection in (silent, quiet, half):
            with pytest.raises(Closed):
                connection.receive()
        assert 3 < time.monotonic() - start < 20


def test_one_who_never_reads(daemon):
    """Answers nobody takes do not pile up: the connection stops being read, then ends."""
    with greeted(daemon) as deaf:
        deaf.socket.settimeout(0.5)
        sent = 0
        end = time.monotonic() + 20
        with pytest.raises((BrokenPipeError, ConnectionResetError, TimeoutError)):
            while time.monotonic() < end:
                sent += deaf.socket.send(STATUS * 50)
        with Client(daemon.socket) as other:
            other.status()
        assert sent < 64 * 1024 * 1024


def test_too_many_connections(daemon):
    connections = []
    try:
        refused = None
        for _ in range(60):
            connection = connect(daemon)
            connections.append(connection)
            # Turned away at once: the answer may be there, and the connection closed, before the Hello is sent.
            with contextlib.suppress(BrokenPipeError):
                connection.send_bytes(HELLO)
            try:
                response = connection.receive()
            except Closed:
                refused = "closed"
                break
            if response.code != pb.OK:
                refused = pb.Code.Name(response.code)
                break
        assert refused == "RESOURCE_EXHAUSTED"
        assert 20 <= len(connections) <= 41
    finally:
        for connection in connections:
            connection.close()

    def served():
        try:
            with Client(daemon.socket) as client:
                return client.status()
        except (Refused, Closed, OSError):
            return None
    wait_for(served, "a place after others left")


def test_clients_that_vanish(daemon):
    """Requests whose client is gone before the answer: carried out, recorded, forgotten."""
    before = len([r for r in daemon.records() if r["event"] == "release.granted"])
    release = pb.ReleaseKey(key="wga", reason=pb.BOOT, applier_public_key=os.urandom(32))
    for _ in range(30):
        with connect(daemon) as connection:
            connection.send_bytes(HELLO + frame(pb.Request(id=2, release_key=release).SerializeToString()))
    with Client(daemon.socket) as client:
        client.release("wga", daemon.log_vkey.read_text())
    granted = [r for r in daemon.records() if r["event"] == "release.granted"]
    assert before < len(granted) <= before + 31


def test_memory_and_descriptors_come_back(daemon):
    """A thousand connections of every bad kind leave the daemon as it was."""
    def measure():
        pid = daemon.custodyd.pid
        with open(f"/proc/{pid}/status") as f:
            rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        return len(os.listdir(f"/proc/{pid}/fd")), rss

    def round():
        for data in (b"", b"\0", HELLO, HELLO + STATUS, HELLO[:7], struct.pack(">I", 65536) + b"x" * 5000, frame(b"\xff")):
            for _ in range(36):
                try:
                    with connect(daemon) as connection:
                        if data:
                            connection.send_bytes(data)
                except OSError:
                    pass  # turned away: there are many more of us than there may be

    def quiet():
        try:
            with Client(daemon.socket) as client:
                return client.status().connections == 1
        except (Refused, Closed, OSError):
            return False

    round()
    wait_for(quiet, "the daemon alone with one client")
    fds, rss = measure()
    for _ in range(3):
        round()
    wait_for(quiet, "the daemon alone with one client")
    wait_for(lambda: measure()[0] <= fds + 1, "descriptors given back")
    assert measure()[1] < rss + 4096
