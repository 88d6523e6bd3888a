# SPDX-License-Identifier: Apache-2.0
"""custodyd's promises on the real stack: who is let in, what is recorded, and what it does when things break under it."""

import contextlib
import hashlib
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from python_client import Client, Closed, Refused, pb
from stack import DEADLINE, REASONS, Stack, children, wait_for

HERE = pathlib.Path(__file__).resolve().parent
NOBODY = pwd.getpwnam("nobody")
ALL = "{ " + ", ".join(f'"{r}"' for r in REASONS) + " }"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be another user, or to mount")


# ---- helpers ----

def client(stack):
    return Client(stack.socket)


def vkey(stack):
    return stack.log_vkey.read_text()


def release(stack, key="wga", **options):
    with client(stack) as c:
        return c.release(key, vkey(stack), **options)


def refused(stack, code, key="wga", **options):
    """A release that must be refused with CODE; returns the message."""
    with client(stack) as c, pytest.raises(Refused) as e:
        c.release(key, vkey(stack), **options)
    assert e.value.code == code, e.value
    assert e.value.message
    return e.value.message


def events(stack, *names):
    return [r for r in stack.records() if r["event"] in names]


def wait_event(stack, name, count=1, deadline=DEADLINE):
    return wait_for(lambda: len(events(stack, name)) >= count and events(stack, name), f"{count} {name}", deadline)


def verify(stack):
    """custody-audit finds nothing."""
    done = stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey)
    assert done.returncode == 0, done.stdout + done.stderr


def initialised(new_stack, **options):
    """A stack of options, with the keys wga and wgb."""
    stack = new_stack(**options)
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    return stack


def reload(stack, text):
    """A new configuration, read."""
    seen = stack.log.read_bytes().count(b"configuration ")
    stack.write_config(text)
    stack.custodyd.send_signal(signal.SIGHUP)
    wait_for(lambda: stack.log.read_bytes().count(b"configuration ") > seen, "the configuration read")


def ready_again(stack):
    """The daemon serves again by itself."""
    wait_for(lambda: (s := stack.status()) and s["keeper_ready"] and s["log_ready"], "serving again", interval=0.05)


def not_ready(stack):
    return wait_for(lambda: (s := stack.status()) and not (s["keeper_ready"] and s["log_ready"]) and s, "not serving")


# A client as a process of its own: what attestation sees is not this one. Prints a line for each answer.
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from python_client import Client, Refused
try:
    with Client(sys.argv[2]) as c:
        for key in sys.argv[4:]:
            try:
                print("OK", c.release(key, open(sys.argv[3]).read()).lease, flush=True)
            except Refused as e:
                print(e.code, e.message, flush=True)
except (PermissionError, OSError) as e:
    print(type(e).__name__, flush=True)
"""


def child(stack, *keys, **options):
    """Releases of keys by another process; returns the words of each answer."""
    done = subprocess.run([sys.executable, "-c", CHILD, HERE, stack.socket, stack.log_vkey, *keys], text=True,
                          capture_output=True, timeout=DEADLINE, **options)
    assert done.returncode == 0, done.stderr
    return [line.split(" ", 1) for line in done.stdout.splitlines()]


# ---- before token init ----

def test_before_init(new_stack):
    stack = new_stack()
    stack.start()
    status = stack.status()
    assert not status["initialised"] and status["keeper_ready"]
    for command in (["key", "list"], ["key", "generate", "wga"], ["key", "publish", "wga"], ["key", "destroy", "wga", "1"]):
        done = stack.ctl(*command)
        assert done.returncode == 1 and "token init" in done.stderr, command
    with client(stack) as c, pytest.raises(Refused) as e:
        c.answer(c.send_release("wga").id)
    assert e.value.code == "FAILED_PRECONDITION" and "token init" in e.value.message
    assert stack.records() == []
    stack.init()
    assert stack.records()[0]["event"] == "token.initialised"
    stack.generate("wga")
    assert release(stack).generation == 1


# ---- attestation ----

@contextlib.contextmanager
def cgroup(name):
    """A group of that name at the top of the unified hierarchy; yields its cgroup.procs."""
    if os.geteuid() != 0:
        pytest.skip("no cgroup2 can be written: not root")
    top = pathlib.Path(tempfile.mkdtemp(prefix="custody-cgroup-"))
    mounted = subprocess.run(["mount", "-t", "cgroup2", "none", top], capture_output=True, text=True)
    group = top / name
    try:
        if mounted.returncode != 0:
            pytest.skip(f"no cgroup2 can be mounted: {mounted.stderr.strip()}")
        try:
            group.mkdir()
        except OSError as e:
            pytest.skip(f"no cgroup2 can be written: {e}")
        yield group / "cgroup.procs"
    finally:
        if group.is_dir():
            wait_for(lambda: not (group / "cgroup.procs").read_text(), "the group empty")
            group.rmdir()
        if mounted.returncode == 0:
            subprocess.run(["umount", top], check=True)
        top.rmdir()


def grants(stack, **units):
    """A configuration: for each key, the one unit it is released to."""
    return stack.config_text(keys=()) + "".join(
        f'key "{key}" {{ grant "g" {{ uid = 0  unit = "{unit}"  reasons = {ALL}  rate = "1000/1" }} }}\n'
        for key, unit in units.items())


@needs_root
def test_unit_is_the_boundary(stack):
    reload(stack, grants(stack, wga="custody-test.service", wgb="custody-test2.service"))
    with cgroup("custody-test.service") as procs:
        answers = child(stack, "wga", "wgb", preexec_fn=lambda: procs.write_text(str(os.getpid())))
    assert [a[0] for a in answers] == ["OK", "PERMISSION_DENIED"]
    assert "custody-test.service" in answers[1][1]
    granted = events(stack, "release.granted")[-1]
    exe = os.path.realpath(sys.executable)
    assert granted["actor"]["unit"] == "custody-test.service" and granted["actor"]["uid"] == 0
    assert granted["actor"]["exe"] == exe
    sha256sum = subprocess.run(["sha256sum", exe], capture_output=True, text=True, check=True).stdout.split()[0]
    assert granted["actor"]["exe_sha256"] == sha256sum
    assert "exe_unavailable" not in granted["actor"]
    denied = wait_event(stack, "release.denied")[-1]
    assert (denied["key"], denied["actor"]["unit"]) == ("wgb", "custody-test.service")
    # Out of the unit the same user gets neither.
    assert [a[0] for a in child(stack, "wga", "wgb")] == ["PERMISSION_DENIED"] * 2
    verify(stack)


@needs_root
def test_no_unit(stack):
    reload(stack, grants(stack, wga="none", wgb="any"))
    with cgroup("custody-test.service") as procs:
        answers = child(stack, "wga", "wgb", preexec_fn=lambda: procs.write_text(str(os.getpid())))
    assert [a[0] for a in answers] == ["PERMISSION_DENIED", "OK"]
    assert [a[0] for a in child(stack, "wga", "wgb")] == ["OK", "OK"]


def before_pidfds(stack):
    """Has the stack's custodyd run as on a kernel that has no SO_PEERPIDFD."""
    def spawn(*args, **popen):
        with open(stack.log, "ab") as log:
            stack.custodyd = subprocess.Popen(
                [stack.program("without_pidfd"), stack.program("custodyd"), f"--config={stack.config}", *args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=stack.env(), start_new_session=True, **popen)
        return stack.custodyd
    stack.spawn = spawn


@needs_root
def test_without_pidfd(new_stack):
    """The path of kernels before 6.5: the peer is held by its pid and start time."""
    stack = new_stack()
    before_pidfds(stack)
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    assert release(stack).generation == 1
    reload(stack, grants(stack, wga="custody-test.service", wgb="custody-test2.service"))
    with cgroup("custody-test.service") as procs:
        answers = child(stack, "wga", "wgb", preexec_fn=lambda: procs.write_text(str(os.getpid())))
    assert [a[0] for a in answers] == ["OK", "PERMISSION_DENIED"]
    verify(stack)


@pytest.mark.parametrize("wrapped", [False, True])
def test_process_that_connected_is_gone(new_stack, wrapped):
    """A connection handed on by a process that then ended serves nobody: who asks now is not who was attested."""
    stack = new_stack()
    if wrapped:
        before_pidfds(stack)
    stack.start()
    stack.init()
    stack.generate("wga")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        c = Client(stack.socket)
        socket.send_fds(theirs, [b"x"], [c.socket.fileno()])
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.waitpid(pid, 0)
    c = Client.__new__(Client)
    c.socket, c.last_id, c.early = socket.socket(fileno=fds[0]), 10, {}
    c.socket.settimeout(DEADLINE)
    with c, pytest.raises(Refused) as e:
        c.answer(c.send_release("wga").id)
    assert e.value.code == "UNAUTHENTICATED", e.value
    assert events(stack, "release.granted") == []
    ours.close()
    theirs.close()


# ---- policy ----

def open_to_all(stack):
    """Lets every user reach the socket, which no configuration can."""
    os.chmod(stack.socket, 0o666)


@needs_root
def test_wrong_uid(stack):
    def be_nobody():
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)

    def answers():
        # The modules' folder may not be reachable for nobody: hand in the client's code on standard input.
        code = (HERE / "python_client.py").read_text().replace(
            'pathlib.Path(__file__).resolve().parents[2] / "proto"', f'pathlib.Path("{proto}")').replace('__name__ == "__main__"', "False")
        code += ('\nwith Client(sys.argv[1]) as c:\n'
                 '    for ask in (lambda: c.answer(c.send_release("wga").id), c.keys, c.status):\n'
                 '        try:\n            ask(); print("OK")\n'
                 '        except Refused as e:\n            print(e.code)\n')
        done = subprocess.run([sys.executable, "-", stack.socket], input=code, text=True, capture_output=True, cwd="/",
                              env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}, timeout=DEADLINE, preexec_fn=be_nobody)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    with tempfile.TemporaryDirectory(prefix="custody-proto-") as proto:
        os.chmod(proto, 0o755)
        shutil.copy(HERE.parents[1] / "proto" / "custody.proto", proto)
        os.chmod(f"{proto}/custody.proto", 0o644)
        open_to_all(stack)
        assert answers() == ["PERMISSION_DENIED"] * 3
    denied = wait_event(stack, "release.denied")[-1]
    assert denied["actor"]["uid"] == NOBODY.pw_uid and denied["code"] == "PERMISSION_DENIED" and denied["key"] == "wga"
    asked = {r["request"] for r in wait_event(stack, "access.denied", 2)}
    assert asked == {"ListKeys", "GetStatus"}
    assert events(stack, "release.granted") == []
    assert release(stack).generation == 1


def test_denied_reason(new_stack):
    stack = initialised(new_stack, reasons=("BOOT",))
    assert release(stack, reason="BOOT").generation == 1
    message = refused(stack, "PERMISSION_DENIED", reason="OPERATOR", ticket="OPS-1")
    assert "wga" in message and "OPERATOR" in message
    denied = wait_event(stack, "release.denied")[-1]
    assert (denied["key"], denied["reason"], denied["ticket"], denied["code"], denied["request"]) == (
        "wga", "OPERATOR", "OPS-1", "PERMISSION_DENIED", "ReleaseKey")


def test_undeclared_key_and_ungenerated_key(new_stack):
    stack = initialised(new_stack, keys=("wga", "wgb", "empty"))
    assert "nothere" in refused(stack, "PERMISSION_DENIED", key="nothere")
    assert "key generate empty" in refused(stack, "NOT_FOUND", key="empty")
    keys = {r["key"]: r["code"] for r in wait_event(stack, "release.denied", 2)}
    assert keys == {"nothere": "PERMISSION_DENIED", "empty": "NOT_FOUND"}


def test_rate(new_stack):
    stack = initialised(new_stack, rate="2/600")
    for _ in range(2):
        release(stack)
    assert "wait" in refused(stack, "RESOURCE_EXHAUSTED")
    assert wait_event(stack, "release.denied")[-1]["code"] == "RESOURCE_EXHAUSTED"
    release(stack, key="wgb")
    # Neither a reload nor one that broke the file gives anybody a new rate.
    reload(stack, stack.config_text(rate="2/600"))
    refused(stack, "RESOURCE_EXHAUSTED")


def test_denials_are_coalesced(new_stack):
    stack = initialised(new_stack, reasons=("BOOT",))
    before = stack.status()["log_size"]
    for _ in range(50):
        refused(stack, "PERMISSION_DENIED", reason="OPERATOR")
    for _ in range(3):
        refused(stack, "PERMISSION_DENIED", key="other")
    first = wait_event(stack, "release.denied", 2)
    wait_for(lambda: stack.status()["log_size"] >= before + 2, "both records signed")
    assert [r.get("count", 0) for r in first] == [0, 0] and stack.status()["log_size"] == before + 2
    both = wait_event(stack, "release.denied", 4, 20)
    # A second record stands for one more denial and `count` says for how many beside: 1 + 1 + 48, 1 + 1 + 1.
    assert sorted((r["key"], r.get("count", 0)) for r in both) == [("other", 0), ("other", 1), ("wga", 0), ("wga", 48)]
    verify(stack)


def test_denials_are_counted_at_stop(new_stack):
    stack = initialised(new_stack, reasons=("BOOT",))
    for _ in range(5):
        refused(stack, "PERMISSION_DENIED", reason="OPERATOR")
    assert stack.stop() == 0
    assert [r.get("count", 0) for r in events(stack, "release.denied")] == [0, 3]
    assert stack.records()[-1]["event"] == "daemon.stopped"
    verify(stack)


# ---- leases ----

def test_lease_expires(new_stack):
    stack = initialised(new_stack, lease=1)
    with client(stack) as c:
        released = c.release("wga", vkey(stack))
        expired = wait_event(stack, "lease.expired")[-1]
        assert expired["lease"] == released.lease and expired["key"] == "wga" and "actor" not in expired
        assert expired["time"] >= released.record["expires"]
        with pytest.raises(Refused) as e:
            c.report(released.lease)
        assert e.value.code == "NOT_FOUND" and "expired" in e.value.message
    assert events(stack, "release.applied") == [] and stack.status()["leases"] == 0
    verify(stack)


def test_lease_expires_while_stopped(new_stack):
    stack = initialised(new_stack, lease=1)
    released = release(stack)
    assert stack.stop(signal.SIGKILL) is not None
    stack.start()
    assert wait_event(stack, "lease.expired")[-1]["lease"] == released.lease
    verify(stack)


def test_outcomes(stack):
    with client(stack) as c:
        first, second = c.release("wga", vkey(stack)), c.release("wgb", vkey(stack))
        c.report(first.lease)
        for lease in (first.lease, "00" * 16, "", "x" * 300):
            with pytest.raises(Refused) as e:
                c.report(lease)
            assert e.value.code == "NOT_FOUND"
        c.report(second.lease, applied=False, detail="no such device")
    applied, failed = events(stack, "release.applied")[0], events(stack, "release.failed")[0]
    assert applied["lease"] == first.lease and applied["actor"]["pid"] == os.getpid()
    assert failed["lease"] == second.lease and failed["detail"] == "no such device"
    assert len(events(stack, "release.applied", "release.failed", "lease.expired")) == 2
    active = {r["key"] for r in events(stack, "key.activated")}
    assert active == {"wga"} # what failed is not active
    verify(stack)


@needs_root
def test_outcome_by_another_uid(stack):
    """A lease is its uid's: another user, applier of a key of his own, cannot close it."""
    text = stack.config_text() + (f'key "wgn" {{ grant "n" {{ uid = {NOBODY.pw_uid}  unit = "any"  reasons = {ALL}  '
                                  'rate = "9/9" } }\n')
    reload(stack, text)
    released = release(stack)
    open_to_all(stack)
    ran = os.fork()
    if ran == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            with client(stack) as c:
                c.report(released.lease)
        except Refused as e:
            code = 42 if e.code == "PERMISSION_DENIED" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(ran, 0)[1]) == 42
    denied = wait_event(stack, "access.denied")[-1]
    assert denied["request"] == "ReportOutcome" and denied["actor"]["uid"] == NOBODY.pw_uid and denied["key"] == "wga"
    with client(stack) as c:
        c.report(released.lease) # still open for whom it was opened


# ---- signals ----

def test_reload(stack):
    pid = stack.custodyd.pid
    text = stack.config_text(reasons=("BOOT",))
    reload(stack, text)
    loaded = wait_event(stack, "policy.loaded", 2)
    assert loaded[-1]["policy_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert loaded[0]["policy_sha256"] != loaded[-1]["policy_sha256"]
    refused(stack, "PERMISSION_DENIED", reason="OPERATOR")
    # Broken: what was in force stays, and the operator is told file and line.
    reload(stack, text + "nonsense = 1\n")
    line = text.count("\n") + 1
    assert f"{stack.config}:{line}: " in stack.log.read_text()
    assert release(stack).generation == 1
    refused(stack, "PERMISSION_DENIED", reason="OPERATOR")
    assert len(events(stack, "policy.loaded")) == 2 and stack.custodyd.pid == pid and stack.custodyd.poll() is None
    verify(stack)


def test_reload_takes_rights_from_open_connections(stack):
    with client(stack) as c:
        c.release("wga", vkey(stack))
        reload(stack, stack.config_text(keys=("wgb",)))
        with pytest.raises(Refused) as e:
            c.release("wga", vkey(stack))
        assert e.value.code == "PERMISSION_DENIED"
        c.release("wgb", vkey(stack))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stop_drains(new_stack, sig):
    """Every release that was asked for before the stop is answered; daemon.stopped is the last record."""
    stack = initialised(new_stack, limits="requests-in-flight = 64")
    clients = [client(stack) for _ in range(8)]
    asked = [[c.send_release("wga") for _ in range(16)] for c in clients]
    # A request is in flight once the daemon has read it: the first answer says that it reads.
    first = clients[0].take_release(asked[0].pop(0), vkey(stack))
    assert first.generation == 1
    stack.custodyd.send_signal(sig)
    got = [first.lease]
    for c, waiting in zip(clients, asked):
        try:
            for a in waiting:
                got.append(c.take_release(a, vkey(stack)).lease)
        except Closed as e:
            assert str(e) == "" # between two answers, not within one
    assert stack.custodyd.wait(DEADLINE) == 0
    stack.stop()
    records = stack.records()
    granted = {r["lease"] for r in records if r["event"] == "release.granted"}
    # What was recorded as granted was answered, and the other way round.
    assert granted == set(got)
    assert records[-1]["event"] == "daemon.stopped"
    assert not stack.socket.exists()
    verify(stack)
    for c in clients:
        c.close()


def test_stop_with_an_outcome_in_flight(stack):
    with client(stack) as c:
        released = c.release("wga", vkey(stack))
        id = c.send(report_outcome=pb.ReportOutcome(lease=released.lease, applied=True))
        wait_for(lambda: events(stack, "release.applied"), "the outcome recorded", interval=0.001)
        stack.custodyd.send_signal(signal.SIGTERM)
        assert c.answer(id).seq > 0
    assert stack.custodyd.wait(DEADLINE) == 0
    stack.stop()
    names = [r["event"] for r in stack.records()]
    assert names[-1] == "daemon.stopped" and "key.activated" in names
    verify(stack)


# ---- what dies ----

def test_keeper_killed(stack):
    keeper = stack.keeper_pid
    with client(stack) as c:
        c.release("wga", vkey(stack))
        os.kill(keeper, signal.SIGKILL)
        try:
            c.release("wga", vkey(stack))
        except Refused as e:
            assert e.code == "UNAVAILABLE" and "keeper" in e.message
        assert c.status().host == "alpha" # answered whatever the keeper does
        ready_again(stack)
        assert stack.keeper_pid not in (None, keeper)
        c.release("wga", vkey(stack)) # on the same connection
    assert wait_event(stack, "token.opened")
    verify(stack)


def test_keeper_killed_under_load(stack):
    """Whatever moment it dies at: each client gets a key with its proof or UNAVAILABLE, and each key given is in the log."""
    got, ends, lock, stop = [], set(), threading.Lock(), threading.Event()

    def run():
        with client(stack) as c:
            while not stop.is_set():
                try:
                    lease = c.release("wga", vkey(stack)).lease
                    with lock:
                        got.append(lease)
                except Refused as e:
                    with lock:
                        ends.add(e.code)
                    time.sleep(0.02)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for t in threads:
        t.start()
    generator = random.Random(1)
    for _ in range(3):
        ready_again(stack)
        so_far = len(got)
        wait_for(lambda: len(got) > so_far, "a release")
        time.sleep(generator.random() * 0.1)
        keeper = stack.keeper_pid
        os.kill(keeper, signal.SIGKILL)
        wait_for(lambda: stack.keeper_pid not in (None, keeper), "another keeper")
    stop.set()
    for t in threads:
        t.join(DEADLINE)
    ready_again(stack)
    assert ends <= {"UNAVAILABLE"}, ends
    assert set(got) <= {r["lease"] for r in events(stack, "release.granted")}
    release(stack)
    verify(stack)


def test_custodyd_killed_under_load(stack):
    """kill -9 at random moments: after the restart the log is sound and holds every release that anybody got."""
    got, lock = [], threading.Lock()
    generator = random.Random(2)

    def run():
        try:
            with client(stack) as c:
                while True:
                    lease = c.release(generator.choice(("wga", "wgb")), vkey(stack)).lease
                    with lock:
                        got.append(lease)
        except (Closed, OSError):
            pass

    for _ in range(4):
        so_far = len(got)
        threads = [threading.Thread(target=run) for _ in range(4)]
        for t in threads:
            t.start()
        wait_for(lambda: len(got) > so_far + 3, "releases")
        time.sleep(generator.random() * 0.05)
        keepers = children(stack.custodyd.pid)
        stack.kill()
        for t in threads:
            t.join(DEADLINE)
        wait_for(lambda: not any(Stack._is_keeper(p) for p in keepers), "the keeper gone after its custodyd")
        stack.start()
        verify(stack)
        assert set(got) <= {r["lease"] for r in events(stack, "release.granted")}
    assert len(events(stack, "daemon.started")) == 5
    release(stack)


def test_second_daemon_refuses(stack):
    other = stack.dir / "second.conf"
    other.write_text(stack.config_text().replace("custody.sock", "second.sock"))
    done = stack.run(stack.program("custodyd"), f"--config={other}")
    assert done.returncode == 1
    assert str(stack.audit_dir) in done.stderr and "another custodyd" in done.stderr
    # And one on the same socket with another log.
    other.write_text(stack.config_text().replace(str(stack.audit_dir), str(stack.dir / "audit2")))
    done = stack.run(stack.program("custodyd"), f"--config={other}")
    assert done.returncode == 1 and str(stack.socket) in done.stderr
    assert release(stack).generation == 1


# ---- the token ----

def test_token_moved_away(stack):
    tokens, away = stack.hsm / "tokens", stack.hsm / "away"
    tokens.rename(away)

    def message():
        try:
            release(stack)
        except Refused as e:
            assert e.code == "UNAVAILABLE"
            return e.message
        return None

    try:
        wait_for(message, "releases refused")
        status = wait_for(lambda: (s := stack.status()) and not s["keeper_ready"] and s, "status says so")
        assert status["keeper_message"]
        # The module itself fails without its folder; the keeper's message names module and folder.
        wait_for(lambda: "SOFTHSM2_CONF" in stack.log.read_text(), "the keeper says why")
        wait_for(lambda: "no token" in stack.status()["keeper_message"], "status says why", 10)
    finally:
        away.rename(tokens)
    ready_again(stack)
    assert release(stack).generation == 1
    verify(stack)


def test_wrong_pin(new_stack):
    stack = new_stack()
    pin = stack.hsm / "pin"
    right = pin.read_bytes()
    pin.write_text("000000")
    stack.start(wait="listening")
    wait_for(lambda: "the PIN is wrong" in stack.log.read_text(), "the keeper says that the PIN is wrong")
    status = wait_for(lambda: (s := stack.status()) and "PIN" in s["keeper_message"] and s, "status says so")
    assert not status["keeper_ready"] and "SIGHUP" in status["keeper_message"]
    done = stack.ctl("token", "init")
    assert done.returncode == 1 and "PIN" in done.stderr
    # Tokens lock after a few tries, so there is but one until somebody says so: within several of the usual waits.
    time.sleep(2)
    assert stack.log.read_text().count("the PIN is wrong") == 1
    assert "PIN" in stack.status()["keeper_message"]
    pin.write_bytes(right)
    stack.custodyd.send_signal(signal.SIGHUP)
    wait_for(lambda: (s := stack.status()) and s["keeper_ready"], "the keeper ready", 40)


# ---- the audit folder ----

@contextlib.contextmanager
def tmpfs(path, size):
    """A small file system at `path`."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "custody-test", path],
                          capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def refused_until(stack, code, words):
    """Releases until one is refused; that one with CODE and a message that holds WORDS."""
    def tried():
        try:
            release(stack)
        except Refused as e:
            return e
        return None
    e = wait_for(tried, "a refused release")
    assert e.code == code and words in e.message, e
    return e


@needs_root
def test_no_space(new_stack):
    stack = new_stack()
    with tmpfs(stack.audit_dir, "512k"):
        stack.start()
        stack.init()
        stack.generate("wga")
        filler = stack.audit_dir / "filler"
        with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        refused_until(stack, "UNAVAILABLE", "No space left")
        assert "No space left" in not_ready(stack)["log_message"]
        granted = len(events(stack, "release.granted")) if stack.records else 0
        filler.unlink()
        ready_again(stack)
        release(stack)
        assert len(events(stack, "release.granted")) > granted - 1
        verify(stack)
        stack.stop()


@needs_root
def test_read_only(new_stack):
    stack = new_stack()
    with tmpfs(stack.audit_dir, "8m"):
        stack.start()
        stack.init()
        stack.generate("wga")
        release(stack)
        # The daemon's own descriptor is open for writing, so the whole file system is made read-only by force.
        done = subprocess.run(["mount", "-o", "remount,ro", stack.audit_dir], capture_output=True, text=True)
        if done.returncode != 0:
            # Busy: a file open for writing keeps it so. Folders that cannot be written are the nearest thing.
            stack.stop()
            subprocess.run(["mount", "-o", "remount,ro", stack.audit_dir], check=True)
            stack.start(wait="listening")
            status = wait_for(lambda: (s := stack.status()) and s["keeper_ready"] and s["log_message"] and not s["log_ready"] and
                              "Read-only" in s["log_message"] and s, "status says read-only")
            assert str(stack.audit_dir) in status["log_message"]
        refused_until(stack, "UNAVAILABLE", "Read-only")
        subprocess.run(["mount", "-o", "remount,rw", stack.audit_dir], check=True)
        ready_again(stack)
        release(stack)
        verify(stack)
        stack.stop()


def segment(stack):
    return sorted((stack.audit_dir / "log").glob("*.jsonl"))[-1]


def test_segment_deleted(stack):
    release(stack)
    path = segment(stack)
    saved = path.read_bytes()
    path.unlink()
    refused_until(stack, "UNAVAILABLE", "deleted under the daemon")
    # Nothing is begun anew: what was signed is missed, and said.
    message = wait_for(lambda: (s := stack.status()) and "are missing" in s["log_message"] and s["log_message"], "status")
    assert str(stack.audit_dir) in message
    for _ in range(3):
        with client(stack) as c, pytest.raises(Refused):
            c.release("wga", vkey(stack))
    path.write_bytes(saved)
    ready_again(stack)
    release(stack)
    verify(stack)


def test_segment_replaced(stack):
    release(stack)
    path = segment(stack)
    saved = path.read_bytes()
    other = path.with_name("other")
    other.write_bytes(saved.replace(b'"BOOT"', b'"BOOK"', 1))
    other.rename(path)
    refused_until(stack, "UNAVAILABLE", "under the daemon")
    message = wait_for(lambda: (s := stack.status()) and "is not the one that was signed" in s["log_message"] and s["log_message"], "status")
    assert f"{path}:" in message
    path.write_bytes(saved)
    ready_again(stack)
    release(stack)
    verify(stack)


@pytest.mark.parametrize("tail", [b"\0" * 4096, b'{"v":1,"seq":', b"\n", b"\xff\n{}\n"])
def test_torn_tail(stack, tail):
    release(stack)
    assert stack.stop() == 0
    path = segment(stack)
    size = path.stat().st_size
    with open(path, "ab") as f:
        f.write(tail)
    stack.start()
    recovered = wait_event(stack, "log.recovered")[-1]
    assert (recovered["offset"], recovered["length"]) == (size, len(tail))
    assert recovered["sha256"] == hashlib.sha256(tail).hexdigest()
    asides = [p for p in (stack.audit_dir / "log").iterdir() if p.suffix != ".jsonl"]
    assert [p.read_bytes() for p in asides] == [tail]
    release(stack)
    verify(stack)


def test_signed_lines_cut_off(stack):
    """What was signed is not recovered but missed: no releases until it is back."""
    release(stack)
    assert stack.stop() == 0
    path = segment(stack)
    saved = path.read_bytes()
    path.write_bytes(saved[:saved.rindex(b"\n", 0, -1) + 1])
    stack.start(wait="listening")
    status = wait_for(lambda: (s := stack.status()) and s["sealed"] and s["log_message"] and s, "status")
    assert not status["log_ready"]
    path.write_bytes(saved)
    ready_again(stack)
    release(stack)
    verify(stack)
