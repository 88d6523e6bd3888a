# SPDX-License-Identifier: Apache-2.0
"""custody-applier on wireguard-go: keys set, confirmed and recorded; and devices that hang, refuse or lie."""

import base64
import contextlib
import hashlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import tunnel as tunnel_module
from stack import Stack, find_program, inside, tail, wait_for
from tunnel import Tunnel, UAPI

needs_tunnel = pytest.mark.skipif(tunnel_module.missing() is not None, reason=str(tunnel_module.missing()))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=f"{UAPI} needs root")


def events(stack, *names):
    """The records of these events, of this test only."""
    return [r for r in stack.records()[getattr(stack, "first", 0):] if r["event"] in names]


def outcomes(stack):
    """What became of the releases, in order."""
    return [r["event"] for r in events(stack, "release.granted", "release.applied", "release.failed", "release.denied")]


@pytest.fixture(scope="module")
def one_stack(builddir):
    """One stack for all tests here: what a test asserts of the log is of its own records."""
    dir = tempfile.mkdtemp(prefix="custody-")
    stack = Stack(dir, builddir)
    try:
        stack.provision()
        stack.write_config()
        stack.start()
        stack.init()
        stack.generate("wga", "wgb")
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def stack(one_stack):
    """The stack, running with its own configuration: a test before may have left it otherwise."""
    if one_stack.config.read_text() != one_stack.config_text():
        one_stack.stop()
        one_stack.write_config()
    if one_stack.custodyd is None:
        one_stack.start()
    one_stack.log_vkey.write_text(one_stack.status()["log_vkey"] + "\n")
    (one_stack.dir / "run.log").unlink(missing_ok=True)
    one_stack.first = len(one_stack.records())
    return one_stack


@pytest.fixture
def userspace(tmp_path):
    """A tunnel of two wireguard-go devices."""
    with Tunnel(tmp_path, backend="userspace") as tunnel:
        yield tunnel


class Run:
    """custody-applier run, as systemd would start it: `told` is what it notified."""

    def __init__(self, stack, *args, netns=None):
        self.told = {}
        self.notifications = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = stack.dir / "notify"
        path.unlink(missing_ok=True)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.log = stack.dir / "run.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*(inside(netns) if netns else ()), stack.program("custody-applier"), f"--socket={stack.socket}",
                 f"--log-vkey={stack.log_vkey}", *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**stack.env(), "NOTIFY_SOCKET": str(path)})

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.socket.close()

    def notified(self, word):
        """Whether a notification had WORD so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.notifications.append(self.socket.recv(4096).decode())
        assert self.process.poll() is None, self.log.read_text()
        return any(word in n for n in self.notifications)

    def wait(self, word):
        wait_for(lambda: self.notified(word), f"{word!r} from run: {tail(self.log)}")

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """SIGTERM -> exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(30)


# ---- apply ----


@needs_tunnel
def test_apply_sets_what_the_hsm_holds_and_the_tunnel_carries(stack, userspace):
    for end, key in ((userspace.a, "wga"), (userspace.b, "wgb")):
        assert end.public_key() == "(none)"
        done = stack.applier("apply", f"--key={key}", end.interface)
        assert done.returncode == 0, done.stderr
        assert end.public_key() == stack.public_key(key)
    userspace.connect(stack.public_key("wga"), stack.public_key("wgb"))
    assert userspace.ping()
    assert outcomes(stack) == ["release.granted", "release.applied"] * 2


@needs_tunnel
def test_apply_says_in_one_line_what_the_log_says(stack, userspace):
    done = stack.applier("apply", "--key=wga", "--reason=OPERATOR", "--ticket=CHG-7", userspace.a.interface)
    granted = events(stack, "release.granted")[0]
    applied = events(stack, "release.applied")[0]
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""
    for word in (userspace.a.interface, "key wga", "generation 1", stack.public_key("wga"), f"log index {granted['seq']}",
                 f"lease {granted['lease']}"):
        assert word in done.stdout
    assert (granted["reason"], granted["ticket"], granted["public_key"]) == ("OPERATOR", "CHG-7", stack.public_key("wga"))
    assert applied["lease"] == granted["lease"]


@needs_tunnel
def test_apply_replaces_another_key(stack, userspace):
    assert stack.applier("apply", "--key=wgb", userspace.a.interface).returncode == 0
    assert stack.applier("apply", "--key=wga", userspace.a.interface).returncode == 0
    assert userspace.a.public_key() == stack.public_key("wga")


@needs_tunnel
def test_a_receipt_of_another_log_sets_nothing(stack, userspace):
    """The pinned key is not the log's: the release comes with a receipt that proves nothing to us."""
    stack.log_vkey.write_text("alpha/custody/log+0ffc1b2d+AQAA\n")
    done = stack.applier("apply", "--key=wga", userspace.a.interface)
    assert done.returncode == 1 and str(stack.log_vkey) in done.stderr
    other = _verifier_key("alpha/custody/log")
    stack.log_vkey.write_text(other + "\n")
    done = stack.applier("apply", "--key=wga", userspace.a.interface)
    assert done.returncode == 1 and "DATA_LOSS" in done.stderr, done.stderr
    assert userspace.a.public_key() == "(none)"
    assert "release.applied" not in outcomes(stack)


def _verifier_key(name):
    """A well-formed verifier key (c2sp.org/signed-note) of nobody."""
    public = b"\x01" + bytes(range(32))
    number = hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8]
    return f"{name}+{number}+{base64.b64encode(public).decode()}"


@needs_tunnel
def test_a_release_that_policy_refuses_changes_nothing(stack, userspace):
    done = stack.applier("apply", "--key=nosuch", userspace.a.interface)
    assert done.returncode == 1
    assert re.search(r"release refused: (PERMISSION_DENIED|NOT_FOUND)", done.stderr) and "nosuch" in done.stderr
    assert userspace.a.public_key() == "(none)"
    assert events(stack, "release.granted") == []


def test_exit_statuses_of_what_is_not_there(stack):
    done = stack.applier("apply", "nosuch0")
    assert done.returncode == 4 and "nosuch0" in done.stderr
    done = stack.applier("apply", "--backend=userspace", "nosuch0")
    assert done.returncode == 4 and "nosuch0.sock" in done.stderr
    assert events(stack, "release.granted") == [], "nothing may be released for an interface that is not there"


@pytest.mark.parametrize("args", [(), ("apply",), ("up",), ("adopt",), ("adopt", "a=b"), ("drift", "a", "b"),
                                  ("apply", "--json", "wg0"), ("apply", "a", "b"), ("apply", "a=b"), ("set", "wg0"),
                                  ("apply", "--reason=WHIM", "wg0"), ("apply", "--generation=0", "wg0"),
                                  ("apply", "a/b"), ("run", "wg0", "wg0"), ("run", "wg0=../x"), ("run", "--key=x", "wg0"),
                                  ("apply", "--rate=1/1", "wg0"), ("--backend=magic", "apply", "wg0")])
def test_usage_is_exit_2(builddir, args):
    done = subprocess.run([find_program(builddir, "custody-applier"), *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and done.stderr.startswith("custody-applier: ") and done.stdout == ""


@needs_tunnel
def test_no_daemon_is_exit_3(stack, userspace):
    stack.stop()
    done = stack.applier("apply", "--key=wga", userspace.a.interface)
    assert done.returncode == 3 and str(stack.socket) in done.stderr
    assert userspace.a.public_key() == "(none)"


# ---- run ----


@needs_tunnel
def test_run_sets_keys_at_start_again_and_when_told(stack, userspace):
    a, b = userspace.ends
    with Run(stack, "run", f"{a.interface}=wga", f"{b.interface}=wgb") as run:
        run.wait("READY=1")
        assert a.public_key() == stack.public_key("wga") and b.public_key() == stack.public_key("wgb")
        assert run.notified("2 of 2 interfaces have their key")
        assert [r["reason"] for r in events(stack, "release.granted")] == ["BOOT", "BOOT"]

        a.remove_device()
        a.make_device(False)
        wait_for(lambda: a.public_key() == stack.public_key("wga"), "the key on the device made anew")
        wait_for(lambda: len(events(stack, "release.applied")) == 3, "its record")
        assert events(stack, "release.granted")[-1]["reason"] == "RESTORE"

        run.signal(signal.SIGHUP)
        wait_for(lambda: len(events(stack, "release.applied")) == 5, "both released again, on SIGHUP")
        assert [r["reason"] for r in events(stack, "release.granted")[3:]] == ["OPERATOR", "OPERATOR"]
        assert run.end() == 0
    assert outcomes(stack).count("release.failed") == 0


@needs_tunnel
def test_run_sets_the_key_of_an_interface_that_was_configured_without_one_and_set_up(stack, userspace):
    """As wg-quick(8) does it: what it does to the key is told to nobody."""
    a = userspace.a
    with Run(stack, "run", f"{a.interface}=wga", netns=a.netns) as run:
        run.wait("READY=1")
        a.run("ip", "link", "set", a.interface, "down")
        a.wg("setconf", a.interface, "/dev/null")
        assert a.public_key() == "(none)"
        a.run("ip", "link", "set", a.interface, "up")
        wait_for(lambda: a.public_key() == stack.public_key("wga"), "the key again")
        assert [r["reason"] for r in events(stack, "release.granted")] == ["BOOT", "RESTORE"]
        # Of one that has its key nothing is released.
        a.run("ip", "link", "set", a.interface, "down")
        a.run("ip", "link", "set", a.interface, "up")
        assert run.end() == 0
    assert len(events(stack, "release.granted")) == 2


def test_run_says_that_it_reads_no_configuration(stack, tmp_path):
    config = tmp_path / "applier.conf"
    config.write_text("")
    with Run(stack, f"--config={config}", "run", "custody-none=wga") as run:
        run.wait("READY=1")
        assert f"{config} is not read" in run.log.read_text()
        assert run.end() == 0
    run.log.unlink()
    with Run(stack, f"--config={tmp_path / 'none.conf'}", "run", "custody-none=wga") as run:
        run.wait("READY=1")
        assert "is not read" not in run.log.read_text()
        assert run.end() == 0


@needs_tunnel
def test_run_waits_for_an_interface_that_comes_later(stack, tmp_path):
    with Tunnel(tmp_path, backend="userspace") as tunnel:
        tunnel.a.remove_device()
        with Run(stack, "run", f"{tunnel.a.interface}=wga") as run:
            run.wait("READY=1")
            assert run.notified("0 of 1 interfaces have their key, 1 not there")
            assert events(stack, "release.granted") == []
            tunnel.a.make_device(False)
            wait_for(lambda: tunnel.a.public_key() == stack.public_key("wga"), "the key")
            wait_for(lambda: events(stack, "release.applied"), "its record")
            assert events(stack, "release.granted")[0]["reason"] == "BOOT"
            assert run.end() == 0


@needs_tunnel
def test_run_outlasts_a_daemon_that_is_not_there(stack, userspace):
    stack.stop()
    with Run(stack, "run", f"{userspace.a.interface}=wga") as run:
        run.wait("READY=1")
        run.wait("cannot reach custodyd")
        assert userspace.a.public_key() == "(none)"
        stack.start()
        wait_for(lambda: userspace.a.public_key() == stack.public_key("wga"), "the key, once the daemon is there")
        run.wait("1 of 1 interfaces have their key")
        assert run.end() == 0
    assert outcomes(stack) == ["release.granted", "release.applied"]


@needs_tunnel
def test_run_leaves_an_interface_alone_that_has_its_key(stack, userspace):
    assert stack.applier("apply", "--key=wga", userspace.a.interface).returncode == 0
    with Run(stack, "run", f"{userspace.a.interface}=wga") as run:
        run.wait("1 of 1 interfaces have their key")
        assert len(events(stack, "release.granted")) == 1
        run.signal(signal.SIGHUP)
        wait_for(lambda: len(events(stack, "release.applied")) == 2, "a release when told")
        assert run.end() == 0


@needs_tunnel
def test_run_needs_no_role_but_its_grant_to_see_that_a_key_is_set(stack, userspace):
    stack.stop()
    text = "".join(line for line in stack.config_text().splitlines(True) if not line.startswith(("operator", "auditor")))
    stack.write_config(text)
    stack.start("listening")
    end = userspace.a
    wait_for(lambda: stack.applier("apply", "--key=wga", end.interface).returncode == 0, "the daemon ready")
    granted = len(events(stack, "release.granted"))
    with Run(stack, "run", f"{end.interface}=wga") as run:
        run.wait("1 of 1 interfaces have their key")
        assert len(events(stack, "release.granted")) == granted
        assert run.end() == 0
    assert events(stack, "access.denied") == []


@needs_tunnel
def test_run_does_not_hammer_a_refusal(stack, userspace):
    with Run(stack, "run", f"{userspace.a.interface}=nosuch") as run:
        run.wait("release refused")
        a = userspace.a
        for _ in range(3):  # an interface that flaps must not make it ask each time
            a.remove_device()
            a.make_device(False)
        assert run.end() == 0
    assert len(events(stack, "release.denied")) <= 1
    assert len(run.log.read_text().splitlines()) == 1, "said once"


# ---- devices that misbehave ----


class FakeDevice:
    """A UAPI socket that answers as its `mode` says once it is told to set a key; before, it is a device without one."""

    def __init__(self, mode, listen_uid=0):
        self.interface = f"fk{os.getpid() % 1000000}"
        self.path = UAPI / f"{self.interface}.sock"
        self.mode = mode
        self.set = False
        UAPI.mkdir(mode=0o755, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.open = [self.listener]
        os.seteuid(listen_uid)  # SO_PEERCRED tells who listened
        try:
            self.listener.listen()
        finally:
            os.seteuid(0)
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        for s in self.open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        self.thread.join(10)
        self.path.unlink(missing_ok=True)

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                self.open.append(connection)
                request = b""
                while not request.endswith(b"\n\n"):
                    piece = connection.recv(4096)
                    if not piece:
                        break
                    request += piece
                self.answer(connection, request)
            except OSError:
                if self.listener.fileno() == -1:
                    return

    def answer(self, connection, request):
        if request.startswith(b"set=1\n"):
            self.set = True
            answer = {"refuses": b"errno=22\n\n", "hangs": None, "garbles": b"\0\xff\n\n", "hangs up": b"errno=",
                      "talks on": b"x" * 100000}.get(self.mode, b"errno=0\n\n")
        elif self.set and self.mode == "lies":
            answer = b"private_key=" + b"40" * 32 + b"\nerrno=0\n\n"
        else:
            answer = b"errno=0\n\n"  # a device without a key
        if answer is None:
            return  # and the connection stays open
        connection.sendall(answer)
        connection.close()


@needs_root
@pytest.mark.parametrize("mode, words", [
    ("lies", "the key was set, but the device has public key"),
    ("forgets", "the key was set, but the device has no key"),
    ("refuses", "errno 22"),
    ("hangs", "does not answer"),
    ("garbles", "UAPI: "),
    ("hangs up", "cut short"),
    ("talks on", "a line of more than"),
])
def test_a_misbehaving_device_is_reported_as_failed(stack, mode, words):
    with FakeDevice(mode) as device:
        done = stack.applier("apply", "--key=wga", device.interface)
        assert device.set
    assert done.returncode == 1 and done.stdout == ""
    assert words in done.stderr and device.interface in done.stderr, done.stderr
    assert outcomes(stack) == ["release.granted", "release.failed"]
    granted, failed = events(stack, "release.granted", "release.failed")
    assert failed["lease"] == granted["lease"] and words in failed["detail"]


@needs_root
def test_a_device_that_hangs_before_gets_no_release(stack):
    with FakeDevice("hangs") as device:
        device.answer = lambda connection, request: None
        done = stack.applier("apply", "--key=wga", device.interface)
    assert done.returncode == 1 and "does not answer" in done.stderr
    assert events(stack, "release.granted") == []


@needs_root
def test_a_socket_of_another_user_gets_no_key(stack):
    with FakeDevice("lies", listen_uid=65534) as device:
        done = stack.applier("apply", "--key=wga", device.interface)
        assert not device.set
    assert done.returncode == 1 and "uid 65534" in done.stderr
    assert events(stack, "release.granted") == []


@needs_root
def test_a_socket_that_nobody_listens_on_is_no_device(stack):
    path = UAPI / f"fk{os.getpid() % 1000000}.sock"
    UAPI.mkdir(mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.bind(str(path))
    try:
        done = stack.applier("apply", "--key=wga", path.stem)
    finally:
        path.unlink()
    assert done.returncode == 4 and "nobody listens" in done.stderr
    assert events(stack, "release.granted") == []


@needs_tunnel
def test_the_process_gives_nothing_away(stack, userspace):
    """No core dump, no tracer of its own user's, its memory locked where that is permitted."""
    with Run(stack, "run", f"{userspace.a.interface}=wga") as run:
        run.wait("1 of 1 interfaces have their key")
        proc = pathlib.Path(f"/proc/{run.process.pid}")
        assert re.search(r"Max core file size\s+0\s+0", (proc / "limits").read_text())
        assert (proc / "environ").stat().st_uid == 0
        assert int(re.search(r"VmLck:\s+(\d+)", (proc / "status").read_text())[1]) > 0
        assert run.end() == 0
