# SPDX-License-Identifier: Apache-2.0
"""The applier's device layer on wireguard-go: what is read and set of a device and its peers. (Kernel: tests/kernel.)"""

import contextlib
import os
import pathlib
import socket
import threading

import pytest

import device_checks
import tunnel as tunnel_module
from tunnel import Tunnel

pytestmark = pytest.mark.skipif(tunnel_module.missing() is not None, reason=str(tunnel_module.missing()))


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """One tunnel for all tests here; each begins with devices that are clear."""
    with Tunnel(tmp_path_factory.mktemp("tunnel")) as t:
        yield t


@pytest.mark.parametrize("check", device_checks.DEVICE_CHECKS, ids=lambda check: check.__name__)
def test_device(joined, check, tmp_path):
    for end in joined.ends:
        device_checks.clear(end)
    check(joined, "kernel" if joined.kernel else "userspace", pathlib.Path(tmp_path))


def test_auto_chooses_as_the_device_is_made(joined):
    with device_checks.Driver(joined.a, "auto") as driver:
        assert driver.backend == ("kernel" if joined.kernel else "userspace")


class Relay:
    """Context manager: a UAPI socket of its own in front of wireguard-go's. A connection serves `requests`; then the relay
    closes it: at once, or where `late` as the next request arrives."""

    def __init__(self, end, requests, late=False):
        folder = pathlib.Path("/var/run/wireguard")
        self.interface = f"rl{os.getpid() % 1000000}"
        self.path, self.real = folder / f"{self.interface}.sock", str(folder / f"{end.interface}.sock")
        self.requests, self.late, self.connections = requests, late, 0
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        self.path.unlink()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                with connection:
                    self._relay(connection)

    def _relay(self, connection):
        for _ in range(self.requests):
            request = paragraph(connection)
            if not request:
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as real:
                real.connect(self.real)
                real.sendall(request)
                connection.sendall(paragraph(real))
        if self.late:
            paragraph(connection)


def paragraph(connection):
    """What comes until an empty line, or the end."""
    text = b""
    while not text.endswith(b"\n\n"):
        piece = connection.recv(65536)
        if not piece:
            break
        text += piece
    return text


@pytest.mark.parametrize("requests, late, connections", [(1000, False, 1), (1, False, 4), (1, True, 4), (2, True, 2)])
def test_a_connection_is_kept_and_made_anew_where_the_daemon_closes_it(joined, requests, late, connections):
    if joined.kernel:
        pytest.skip("the kernel has no socket")
    device_checks.clear(joined.a)
    peer = device_checks.new_key()
    with Relay(joined.a, requests, late) as relay:
        with device_checks.Driver(joined.a, "userspace", relay.interface) as driver:
            driver.view()
            driver.ask("set", f"peer={peer}", "allowed=10.9.0.0/16")
            assert driver.view()["peers"].keys() == device_checks.dump(joined.a)["peers"].keys() == {peer}
            driver.ask("set", f"peer={peer}", "remove")
        assert device_checks.dump(joined.a)["peers"] == {}
        assert relay.connections == connections


def test_a_refused_request_leaves_nothing_that_answers_the_next(joined):
    """The lines after the one that is refused would be taken for requests."""
    if joined.kernel:
        pytest.skip("the kernel has no socket")
    device_checks.clear(joined.a)
    with Relay(joined.a, 1000) as relay, device_checks.Driver(joined.a, "userspace", relay.interface) as driver:
        view = driver.view()
        relay.real = relay.real + ".refuses"
        with refusing(relay.real):
            code, words = device_checks.refusal(driver.ask, "set", f"peer={device_checks.new_key()}", "allowed=10.9.0.0/16")
        relay.real = relay.real.removesuffix(".refuses")
        assert code == "UNKNOWN" and "errno 22" in words
        assert driver.view() == view and relay.connections == 2


@contextlib.contextmanager
def refusing(path):
    """A daemon that refuses one request."""
    def serve():
        connection, _ = listener.accept()
        with connection:
            paragraph(connection)
            connection.sendall(b"errno=22\n\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        try:
            listener.listen()
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield
            thread.join(10)
        finally:
            os.unlink(path)
