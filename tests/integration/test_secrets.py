# SPDX-License-Identifier: Apache-2.0
"""After a release a key, private or preshared, is nowhere but in the device: not in files, traffic or any process of
custody's."""

import base64
import hashlib
import os
import pathlib
import socket
import subprocess
import threading

import pytest

import tunnel as tunnel_module
from stack import find_program, wait_for
from test_applier import Run, events
from test_preshared import Link
from tunnel import Tunnel

FOUND, NOWHERE = 1, 0

pytestmark = pytest.mark.skipif(tunnel_module.missing() is not None, reason=str(tunnel_module.missing()))


@pytest.fixture
def finder(builddir):
    """finder(key in base64, "pid", PID) or finder(key, "folder", DIR) -> CompletedProcess."""
    program = find_program(builddir, "secret_finder")

    def find(key, what, where):
        done = subprocess.run([program, what, str(where)], input=key + "\n", capture_output=True, text=True, timeout=120)
        assert done.returncode in (FOUND, NOWHERE), done.stderr
        return done
    return find


NOISE = hashlib.sha256(b"a key that is nobody's").digest()
RAW = bytes([NOISE[0] & 0xf8]) + NOISE[1:31] + bytes([NOISE[31] & 0x3f | 0x40])  # clamped, as a device gives it
KEY = base64.b64encode(RAW).decode()
FORMS = {
    "raw": RAW,
    "raw, not clamped": bytes([RAW[0] | 7]) + RAW[1:31] + bytes([RAW[31] | 0xc0]),
    "first half": RAW[:16],
    "middle": RAW[8:24],
    "second half": RAW[16:],
    "hex": RAW.hex().encode(),
    "HEX": RAW.hex().upper().encode(),
    "half in hex": RAW.hex().encode()[:32],
    "base64": KEY.encode(),
    "base64 inside other": base64.b64encode(b"x" + RAW + b"y"),
    "base64url": base64.urlsafe_b64encode(RAW),
}


class Holder:
    """A process that holds the bytes it is given, and nothing else of them."""

    def __init__(self, held):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-c", "import sys; held = sys.stdin.buffer.read(%d); print('held', flush=True); sys.stdin.read()"
             % len(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdin.write(held)
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"held\n"

    def __enter__(self):
        return self.process.pid

    def __exit__(self, *exc):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


@pytest.mark.parametrize("form", FORMS)
def test_the_finder_finds_a_process_that_holds_the_key(finder, form):
    with Holder(FORMS[form]) as pid:
        assert finder(KEY, "pid", pid).returncode == FOUND


@pytest.mark.parametrize("form", FORMS)
def test_the_finder_finds_a_file_that_holds_the_key(finder, form, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"\0" * ((1 << 20) - 7) + FORMS[form] + b"after")  # across two pieces
    assert finder(KEY, "folder", tmp_path).returncode == FOUND


def test_the_finder_finds_nothing_where_nothing_is(finder, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(100000))
    assert finder(KEY, "folder", tmp_path).returncode == NOWHERE
    with Holder(os.urandom(32)) as pid:
        assert finder(KEY, "pid", pid).returncode == NOWHERE


class Wiretap:
    """A Unix socket that passes all on to custodyd's, and keeps what passed in both directions."""

    def __init__(self, target, path, capture):
        self.target, self.path, self.capture = str(target), str(path), pathlib.Path(capture)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()
        self.lock = threading.Lock()
        self.capture.write_bytes(b"")
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self.target)
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, source, sink):
        try:
            while piece := source.recv(65536):
                with self.lock, open(self.capture, "ab") as capture:
                    capture.write(piece)
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            for s in (source, sink):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.listener.close()


def private_key(end):
    """The device's private key, in base64: what must be nowhere else."""
    return end.wg("show", end.interface, "private-key")


def test_a_released_key_is_nowhere_else(stack, finder, tmp_path):
    with Tunnel(tmp_path, backend="userspace") as tunnel:
        end = tunnel.a
        capture = tmp_path / "traffic" / "capture"
        capture.parent.mkdir()
        tap = Wiretap(stack.socket, stack.dir / "tap.sock", capture)
        with Run(stack, f"--socket={tap.path}", "run", f"{end.interface}=wga") as run:
            run.wait("1 of 1 interfaces have their key")
            key = private_key(end)
            assert len(base64.b64decode(key)) == 32
            # The finder and this very key: the device's own process has it.
            assert finder(key, "pid", end.process.pid).returncode == FOUND

            for name, pid in (("custodyd", stack.custodyd.pid), ("keeper", stack.keeper_pid), ("applier", run.process.pid)):
                done = finder(key, "pid", pid)
                assert done.returncode == NOWHERE, f"{name}: {done.stdout}"
            done = finder(key, "folder", stack.dir)
            assert done.returncode == NOWHERE, done.stdout

            traffic = capture.read_bytes()
            assert base64.b64decode(stack.public_key("wga")) in traffic and b"release.granted" in traffic, "the tap taps"
            done = finder(key, "folder", capture.parent)
            assert done.returncode == NOWHERE, done.stdout
            assert run.end() == 0
        tap.close()
        assert events(stack, "release.applied")


def test_a_key_released_many_times_leaves_no_trace(stack, finder, tmp_path):
    """Twenty releases and a generation, so that what is left now and then is seen too."""
    with Tunnel(tmp_path, backend="userspace") as tunnel:
        end = tunnel.a
        for _ in range(20):
            assert stack.applier("apply", "--key=wga", end.interface).returncode == 0
        key = private_key(end)
        for name, pid in (("custodyd", stack.custodyd.pid), ("keeper", stack.keeper_pid)):
            done = finder(key, "pid", pid)
            assert done.returncode == NOWHERE, f"{name}: {done.stdout}"
        done = finder(key, "folder", stack.dir)
        assert done.returncode == NOWHERE, done.stdout


def test_preshared_keys_are_nowhere_else(finder, tmp_path):
    """Made on one host, sent through the registry, taken on the other: two epochs, each seen in neither host's processes,
    files (log, state, token) nor in the registry."""
    with Link(tmp_path, psk_lifetime=10) as link:
        for epoch in (1, 2):
            key = link.wait_set(epoch)
            end = link.net.server
            assert finder(key, "pid", end.process.pid).returncode == FOUND
            for host in (link.maker, link.taker):
                pids = {"custodyd": host.stack.custodyd.pid, "keeper": host.stack.keeper_pid, "applier": host.applier.pid}
                for name, pid in pids.items():
                    done = finder(key, "pid", pid)
                    assert done.returncode == NOWHERE, f"{host.name}, epoch {epoch}, {name}: {done.stdout}"
                done = finder(key, "folder", host.stack.dir)
                assert done.returncode == NOWHERE, done.stdout
            done = finder(key, "folder", link.fleet.registry)
            assert done.returncode == NOWHERE, done.stdout
            link.net.clients[0].run("ping", "-q", "-c", 1, link.net.server.inner)
