# SPDX-License-Identifier: Apache-2.0
"""custodyctl on the real stack: every command in words and in JSON, each exit code, and errors that say what to do."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import python_client
from python_client import Client, pb
from stack import Stack, wait_for
from test_rotation_requests import Applier

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
PUBLIC_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def ok(done):
    """The output of a command that succeeded, and that fits a terminal."""
    assert (done.returncode, done.stderr) == (DONE, "")
    for line in done.stdout.splitlines():
        assert len(line) <= 80
    return done.stdout


def ok_json(stack, *args):
    done = stack.ctl("--json", *args)
    assert (done.returncode, done.stderr) == (DONE, "")
    return json.loads(done.stdout)


def failed(done, code, *words):
    assert done.returncode == code
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    return done.stderr


@pytest.fixture
def bare(new_stack):
    """Started, not initialised."""
    stack = new_stack()
    stack.start()
    return stack


@pytest.fixture(scope="module")
def stack(builddir):
    """One stack for all tests that need no fresh one: wga and wgb are generated and stay so, the rest is theirs to use."""
    dir = tempfile.mkdtemp(prefix="custody-")
    os.chmod(dir, 0o755)
    stack = Stack(dir, builddir)
    try:
        stack.provision()
        stack.write_config(keys=("wga", "wgb", "wgc", "wgd", "wge", "wgf"))
        stack.start()
        stack.init()
        stack.generate("wga", "wgb")
        yield stack
    finally:
        stack.remove()


def apply(stack, key):
    """Releases a key and reports it applied, as an applier does."""
    with Client(stack.socket) as client:
        client.report(client.release(key, stack.log_vkey.read_text()).lease)


# ---- token ----

def test_token_init(bare):
    failed(bare.ctl("key", "list"), FAILED, "FAILED_PRECONDITION", "custodyctl token init")
    assert "custodyctl token init" in ok(bare.ctl("status"))
    assert "custodyctl token init" in ok(bare.ctl("token", "status"))
    pinned = bare.dir / "pinned.vkey"
    told = ok(bare.ctl("token", "init", f"--vkey-out={pinned}"))
    vkey = pinned.read_text()
    assert vkey.endswith("\n") and vkey.strip() in told
    assert pinned.stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert python_client.parse_vkey(vkey).name == "alpha/custody/log"
    first = bare.records()[0]
    assert (first["event"], first["log_vkey"]) == ("token.initialised", vkey.strip())
    assert "custodyctl key generate" in ok(bare.ctl("key", "list"))
    assert ok_json(bare, "key", "list") == []
    bare.stop()
    words = failed(bare.ctl("status"), UNREACHABLE, str(bare.socket), "is custodyd running?")
    assert words.count("\n") == 1


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_token_init_again_changes_nothing(bare):
    first = ok_json(bare, "token", "init")
    again = ok_json(bare, "token", "init")
    assert (first.pop("already"), again.pop("already")) == (False, True)
    assert first == again
    assert first["token"]["label"] == "custody"
    assert first["token"]["suite"] == "aes-gcm"
    assert "nothing was changed" in ok(bare.ctl("token", "init"))
    assert "log.vkey" in ok(bare.ctl("token", "init"))
    assert [r["event"] for r in bare.records()].count("token.initialised") == 1


def test_a_pinned_key_is_never_overwritten(stack):
    pinned = stack.dir / "pinned.vkey"
    ok(stack.ctl("token", "init", f"--vkey-out={pinned}"))
    before = pinned.read_text()
    ok(stack.ctl("token", "init", f"--vkey-out={pinned}"))
    assert pinned.read_text() == before
    other = b"\1" + python_client.nacl.signing.SigningKey.generate().verify_key.encode()
    id = python_client.hashlib.sha256(b"alpha/custody/log\n" + other).digest()[:4].hex()
    for text in ("", "not a key\n", f"alpha/custody/log+{id}+{base64.b64encode(other).decode()}\n"):
        pinned.write_text(text)
        done = stack.ctl("token", "init", f"--vkey-out={pinned}")
        assert done.returncode == FAILED
        assert str(pinned) in done.stderr
        assert pinned.read_text() == text
    done = stack.ctl("token", "init", f"--vkey-out={stack.dir}/no/such/folder/log.vkey")
    assert done.returncode == FAILED and "no/such/folder" in done.stderr


def test_token_probe(stack):
    text = ok(stack.ctl("token", "probe"))
    assert "The token can do all that custody needs." in text
    probe = ok_json(stack, "token", "probe")
    assert probe["fit"] is True
    assert all(c["passed"] for c in probe["checks"] if c["required"])
    assert len(probe["checks"]) >= 3


def test_token_status(stack):
    text = ok(stack.ctl("token", "status"))
    assert stack.log_vkey.read_text().strip() in text
    status = ok_json(stack, "token", "status")
    assert status["initialised"] is True and status["keeper_ready"] is True
    assert status["token"]["label"] == "custody"
    assert status["token"]["blobs"] >= 2 and status["token"]["leftovers"] == 0
    assert status["log_vkey"] == stack.log_vkey.read_text().strip()
    assert status["host_vkey"].startswith("alpha/custody/host+")


# ---- key ----

def test_key_generate(stack):
    text = ok(stack.ctl("key", "generate", "wgc", "--ticket=NET-1"))
    assert PUBLIC_KEY.search(text)[0] == ok(stack.ctl("key", "show", "wgc")).strip()
    key = ok_json(stack, "key", "generate", "wgd", "--ticket", "NET-2")
    assert (key["name"], key["generation"], key["state"], key["releases"]) == ("wgd", 1, "pre-active", 0)
    assert TIME.fullmatch(key["generated"]) and key["activated"] is None
    generated = [r for r in stack.records() if r["event"] == "key.generated" and "ticket" in r]
    assert [(r["key"], r["generation"], r["ticket"]) for r in generated] == [("wgc", 1, "NET-1"), ("wgd", 1, "NET-2")]
    failed(stack.ctl("key", "generate", "wgc"), FAILED, "FAILED_PRECONDITION", "pre-active")


def test_key_generate_refuses(stack):
    failed(stack.ctl("key", "generate", "undeclared"), FAILED, "FAILED_PRECONDITION", "undeclared")
    failed(stack.ctl("key", "generate", "../wga"), FAILED, "INVALID_ARGUMENT")
    failed(stack.ctl("key", "generate", "wga", "--ticket=" + "t" * 128), FAILED, "INVALID_ARGUMENT")


def test_key_list(stack):
    text = ok(stack.ctl("key", "list"))
    lines = text.splitlines()
    assert lines[0].split() == ["NAME", "GEN", "STATE", "PUBLIC", "KEY"]
    rows = [line.split() for line in lines[1:lines.index("")]]
    assert "  wga           no rotation is due" in lines[lines.index(""):]
    assert [row[:3] for row in rows[:2]] == [["wga", "1", "pre-active"], ["wgb", "1", "pre-active"]]
    assert all(PUBLIC_KEY.fullmatch(row[3]) for row in rows)
    keys = ok_json(stack, "key", "list")
    assert [k["public_key"] for k in keys] == [row[3] for row in rows]
    only = ok_json(stack, "key", "list", "wgb")
    assert only == [keys[1]]
    failed(stack.ctl("key", "list", "nosuch"), FAILED, "nosuch")


def test_key_list_in_full(stack):
    stack.generate("wge")
    apply(stack, "wge")
    text = ok(stack.ctl("key", "list", "wge"))
    assert re.search(r"^wge generation 1$", text, re.M)
    assert re.search(r"^  state +active$", text, re.M)
    assert re.search(r"^  releases +1$", text, re.M)
    assert re.search(r"^  activated +\d{4}-", text, re.M)
    [key] = ok_json(stack, "key", "list", "wge")
    assert key["state"] == "active" and key["releases"] == 1
    assert TIME.fullmatch(key["activated"]) and TIME.fullmatch(key["released"])


def test_key_show_follows_the_active_generation(stack):
    stack.generate("wgf")
    first = ok(stack.ctl("key", "show", "wgf"))
    assert re.fullmatch(PUBLIC_KEY.pattern + r"\n", first)
    apply(stack, "wgf")
    ok(stack.ctl("key", "generate", "wgf"))
    assert ok(stack.ctl("key", "show", "wgf")) == first
    second = ok(stack.ctl("key", "show", "wgf", "--generation=2"))
    assert second != first
    assert ok_json(stack, "key", "show", "wgf", "--generation=2")["public_key"] == second.strip()
    assert ok_json(stack, "key", "show", "wgf")["generation"] == 1
    failed(stack.ctl("key", "show", "wgf", "--generation=3"), FAILED, "no generation 3")
    failed(stack.ctl("key", "show", "nosuch"), FAILED, "nosuch")


def test_key_publish(stack):
    done = stack.ctl("key", "publish", "wga", "--ticket=NET-3")
    assert (done.returncode, done.stderr) == (DONE, "")
    note = done.stdout
    key = python_client.parse_vkey(ok_json(stack, "status")["host_vkey"])
    lines = python_client.open_note(note, key)
    assert lines[0] == "custody bundle v1"
    fields = dict(line.split(" ", 1) for line in lines[1:])
    assert list(fields) == ["host", "key", "generation", "state", "public-key", "receive-key", "address", "port",
                            "peers", "not-before", "not-after", "previous"]
    assert (fields["host"], fields["key"], fields["generation"], fields["state"]) == ("alpha", "wga", "1", "pre-active")
    assert fields["public-key"] == stack.public_key("wga")
    [record] = [r for r in stack.records() if r["event"] == "key.published"]
    assert (record["ticket"], record["not_before"], record["not_after"]) == (
        "NET-3", fields["not-before"], fields["not-after"])
    again = ok_json(stack, "key", "publish", "wga", "--generation=1")["bundle"]
    later = python_client.open_note(again, key)
    assert later[:6] == lines[:6] and fields["previous"] == "-"
    text = "".join(f"{line}\n" for line in lines)
    assert later[-1] == f"previous {hashlib.sha256(text.encode()).hexdigest()}"
    failed(stack.ctl("key", "publish", "wga", "--generation=9"), FAILED, "NOT_FOUND")


def test_key_destroy(new_stack):
    stack = new_stack()
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    apply(stack, "wga")
    assert "2 operators have to approve this first" in ok(stack.ctl("key", "destroy", "wga", "1"))
    text = ok(stack.ctl("key", "destroy", "wgb", "1", "--ticket=NET-4"))
    assert "wgb generation 1 is destroyed" in text
    events = [r for r in stack.records() if r.get("key") == "wgb"]
    assert [r["event"] for r in events[-2:]] == ["key.destroying", "key.destroyed"]
    assert events[-2]["ticket"] == "NET-4"
    failed(stack.ctl("key", "show", "wgb"), FAILED, "no active or pre-active generation")
    failed(stack.ctl("key", "destroy", "wgb", "7"), FAILED, "NOT_FOUND")
    ok(stack.ctl("key", "generate", "wgb"))
    assert ok_json(stack, "key", "show", "wgb")["generation"] == 2
    assert ok_json(stack, "key", "destroy", "wgb", "2")["state"] == "destroyed"
    assert ok_json(stack, "status")["token"]["blobs"] == 1


# ---- keys as a whole ----

PEER = bytes(range(1, 33))


@pytest.fixture
def active(new_stack):
    """A stack of its own: wga's generation 1 is active, and beta's and gamma's keys are on its interface."""
    stack = new_stack()
    stack.start().init()
    stack.generate("wga", "wgb")
    with Applier(stack) as c:
        c.apply()
        for i, host in enumerate(("beta", "gamma")):
            c.peer("PEER_MOVED", 1, peer=host, public_key=bytes([i]) + PEER[1:])
    return stack


@contextlib.contextmanager
def follow(stack, *args):
    with subprocess.Popen([stack.program("custodyctl"), f"--socket={stack.socket}", *args], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_rotate(active):
    text = ok(active.ctl("key", "rotate", "wga", "--ticket=CHG-9", "--reason=a yearly drill"))
    (started,) = [r for r in active.records() if r["event"] == "rotation.started"]
    assert (started["ticket"], started["detail"]) == ("CHG-9", "a yearly drill")
    assert "generation 2 has begun" in text and "key history wga" in text
    failed(active.ctl("key", "rotate", "wga"), FAILED, "FAILED_PRECONDITION", "under way")
    assert "rotating to generation 2 since" in ok(active.ctl("key", "list"))
    assert "rotating to generation 2 since" in ok(active.ctl("status"))
    assert {k["name"]: k["rotation"] for k in ok_json(active, "key", "list")} == {"wga": 2, "wgb": None}
    assert [(r["key"], r["generation"]) for r in ok_json(active, "status")["rotations"]] == [("wga", 2), ("wgb", None)]
    view = ok_json(active, "key", "history", "wga")
    assert (view["rotation"]["generation"], view["rotation"]["ticket"], view["rotation"]["reason"]) == (
        2, "CHG-9", "OPERATOR")
    assert TIME.fullmatch(view["rotation"]["started"])
    failed(active.ctl("key", "rotate", "nosuch"), FAILED, "not declared")


def test_rotate_and_wait(active):
    with follow(active, "key", "rotate", "wga", "--wait") as process, Applier(active) as c:
        seen = []

        def until(words):
            while words not in (line := process.stdout.readline()):
                assert line, (seen, process.stderr.read())
                seen.append(line)
            assert re.match(r"\d\d:\d\d:\d\d  ", line) and len(line) <= 81
            seen.append(line)

        # Each step is shown when it happened, and not at the end.
        until("started to generation 2")
        c.publish(2)
        until("published: generation 2")
        c.peer("PEER_ACKNOWLEDGED", 2, acknowledged=pb.PEER_STAGED)
        until("acknowledged by beta wg0: staged")
        c.peer("PEER_LATE", 2, peer="gamma", detail="no handshake")
        until("not waiting for gamma wg0: no handshake")
        c.apply(2, "ROTATION")
        until("released: generation 2")
        until("applied: generation 2")
        c.peer("PEER_ACKNOWLEDGED", 2, acknowledged=pb.PEER_MOVED)
        until("acknowledged by beta wg0: moved")
        c.end(2, True)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (DONE, "")
    assert "confirmed: generation 2" in rest
    assert rest.splitlines()[-2:] == ["wga generation 2 is active, confirmed by: beta wg0", "Not confirmed by: gamma wg0"]
    text = ok(active.ctl("key", "history", "wga"))
    assert re.search(r"^ +2 +active ", text, re.M) and re.search(r"^ +1 +deactivated ", text, re.M)
    assert "acknowledged by beta wg0: moved" in text and "custody-audit query AUDIT-DIR --key=wga" in text
    assert "beta wg0 generation 1 moved since" in text


def test_rotate_and_wait_for_a_rollback(active):
    with follow(active, "--json", "key", "rotate", "wga", "--wait") as process, Applier(active) as c:
        wait_for(lambda: c.view().rotation.generation == 2, "the rotation")
        c.end(2, False, detail="gamma is silent")
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (FAILED, "")
    view = json.loads(out)
    assert (view["result"], view["confirmed_by"], view["failures"]) == ("rolled-back", [], 1)
    assert [h["host"] for h in view["not_confirmed_by"]] == ["beta", "gamma"]
    step = [s for s in view["steps"] if s["event"] == "rotation.rolled-back"][0]
    assert (step["generation"], step["detail"]) == (2, "gamma is silent")
    with follow(active, "key", "rotate", "wga", "--wait") as process, Applier(active) as c:
        wait_for(lambda: c.view().rotation.generation == 3, "the rotation")
        c.end(3, False)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (FAILED, "")
    assert "generation 3 is withdrawn" in out


def test_a_daemon_that_ends_while_it_is_waited_for(active):
    with follow(active, "key", "rotate", "wga", "--wait") as process:
        process.stdout.readline()
        active.stop()
        out, errors = process.communicate(timeout=60)
    assert process.returncode == FAILED and "key history wga" in errors


def test_suspend_and_resume(active):
    text = ok(active.ctl("key", "suspend", "wga", "--ticket=INC-1"))
    assert "nothing is cleared" in text and "key resume wga" in text
    assert "SUSPENDED" in ok(active.ctl("key", "list")) and "SUSPENDED" in ok(active.ctl("status"))
    assert {k["name"]: k["suspended"] for k in ok_json(active, "key", "list")} == {"wga": True, "wgb": False}
    failed(active.ctl("key", "suspend", "wga"), FAILED, "suspended already")
    failed(active.ctl("key", "rotate", "wga"), FAILED, "suspended by an operator since")
    assert ok_json(active, "key", "resume", "wga")["suspended"] is False
    failed(active.ctl("key", "resume", "wga"), FAILED, "not suspended")
    assert ok_json(active, "key", "suspend", "wga")["suspended"] is True
    assert "released and rotated again" in ok(active.ctl("key", "resume", "wga"))


def test_revoke(active):
    text = ok(active.ctl("key", "revoke", "wga", "--ticket=INC-2"))
    assert "generation 1 is revoked" in text and "Generation 2 replaces it" in text
    assert re.search(r"^NOT dropped by +beta wg0, gamma wg0$", text, re.M)
    failed(active.ctl("key", "revoke", "wga"), FAILED, "no active generation")
    failed(active.ctl("key", "revoke", "wga", "--generation=1"), FAILED, "it cannot be revoked")


def test_revoke_and_wait(active):
    with follow(active, "--timeout=60", "--json", "key", "revoke", "wga", "--wait") as process, Applier(active) as c:
        wait_for(lambda: c.view().rotation.generation == 2, "the replacement")
        c.peer("PEER_ACKNOWLEDGED", 1, acknowledged=pb.PEER_RETIRED)
        c.apply(2, "ROTATION")
        c.end(2, True)
        c.peer("PEER_ACKNOWLEDGED", 1, peer="gamma", acknowledged=pb.PEER_RETIRED)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (DONE, "")
    view = json.loads(out)
    assert view["revoked"] == 1 and view["not_dropped_by"] == []
    assert [h["host"] for h in view["dropped_by"]] == ["beta", "gamma"]
    # One that does not confirm is named when the time is over.
    with follow(active, "--timeout=2", "key", "revoke", "wga", "--wait") as process, Applier(active) as c:
        wait_for(lambda: c.view().rotation.generation == 3, "the replacement")
        c.peer("PEER_ACKNOWLEDGED", 2, acknowledged=pb.PEER_RETIRED)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (FAILED, "")
    assert re.search(r"^dropped by +beta wg0$", out, re.M) and re.search(r"^NOT dropped by +gamma wg0$", out, re.M)


def test_host_trust(active, tmp_path):
    file = f"--file={tmp_path}/trust"
    vkey = ok_json(active, "status")["host_vkey"]

    def trust(*args):
        # It needs no daemon.
        return active.run(active.program("custodyctl"), "--socket=/nonexistent", "host", "trust", *args, file)

    assert "No host is trusted" in ok(trust("list"))
    assert vkey in ok(trust("add", "alpha", vkey))
    ok(trust("add", "alpha", vkey))
    assert ok(trust("list")).split() == ["alpha", vkey]
    assert json.loads(trust("list", "--json").stdout) == [{"host": "alpha", "vkey": vkey}]
    failed(trust("add", "beta", vkey), FAILED, "beta")
    failed(trust("add", "alpha", active.log_vkey.read_text().strip()), FAILED)
    failed(trust("remove", "gamma"), FAILED, "NOT_FOUND")
    assert "not believed" in ok(trust("remove", "alpha"))
    assert "No host is trusted" in ok(trust("list"))


# ---- status ----

def test_status(stack):
    text = ok(stack.ctl("status"))
    assert re.search(r"^host +alpha$", text, re.M)
    assert re.search(r"^keeper +ready$", text, re.M)
    assert re.search(r"^log +ready$", text, re.M)
    assert stack.log_vkey.read_text().strip() in text
    status = ok_json(stack, "status")
    assert status["host"] == "alpha"
    assert status["initialised"] and status["keeper_ready"] and status["log_ready"]
    assert status["log_size"] == len(stack.records())
    assert len(base64.b64decode(status["log_root"])) == 32
    assert status["leases"] == 0
    assert status["keys"] == len(ok_json(stack, "key", "list"))
    assert status["connections"] >= 1
    assert TIME.fullmatch(status["started"])
    with Client(stack.socket) as client:
        lease = client.release("wga", stack.log_vkey.read_text()).lease
        assert ok_json(stack, "status")["leases"] == 1
        client.report(lease, applied=False, detail="a test")


# ---- what goes wrong ----

def test_nobody_there(stack):
    done = stack.run(stack.program("custodyctl"), "--socket=/nonexistent/socket", "key", "list")
    failed(done, UNREACHABLE, "/nonexistent/socket", "is custodyd running?")


def test_not_a_socket(stack):
    done = stack.run(stack.program("custodyctl"), f"--socket={stack.config}", "status")
    failed(done, UNREACHABLE, str(stack.config), "not a socket")
    done = stack.run(stack.program("custodyctl"), f"--socket=/{'x' * 200}", "status")
    failed(done, UNREACHABLE, "bytes long")


def as_nobody(stack, *args):
    """custodyctl as nobody, from a copy: the build folder may be closed to others."""
    built = stack.builddir / ".libs"
    for path in (built / "custodyctl", built / "libcustody.so.0"):
        shutil.copy(path, stack.dir)
    return subprocess.run([stack.dir / "custodyctl", f"--socket={stack.socket}", *args], cwd="/", user=65534, group=65534,
                          extra_groups=[], env={"LD_LIBRARY_PATH": str(stack.dir)}, capture_output=True, text=True,
                          timeout=60)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another uid")
def test_no_permission_to_connect(stack):
    failed(as_nobody(stack, "status"), UNREACHABLE, "PERMISSION_DENIED", str(stack.socket), "group 'root'")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another uid")
def test_no_permission_to_do_it(new_stack):
    stack = new_stack()
    stack.write_config(stack.config_text().replace('mode = "0660"', 'mode = "0660"  group = "nogroup"'))
    stack.start()
    stack.init()
    failed(as_nobody(stack, "key", "generate", "wga"), FAILED, "PERMISSION_DENIED", "custodyd.conf")
    failed(as_nobody(stack, "token", "init"), FAILED, "PERMISSION_DENIED")
    # A denial is answered at once and recorded soon.
    wait_for(lambda: {(65534, "GenerateKey"), (65534, "InitToken")} <= {
        (r["actor"]["uid"], r["request"]) for r in stack.records() if r["event"] == "access.denied"}, "the denials' records")
    assert ok_json(stack, "key", "list") == []


def test_a_daemon_that_is_stopped(stack):
    stack.custodyd.send_signal(signal.SIGSTOP)
    try:
        done = stack.ctl("--timeout=1", "status")
    finally:
        stack.custodyd.send_signal(signal.SIGCONT)
    failed(done, UNREACHABLE, "DEADLINE_EXCEEDED", str(stack.socket))
    ok(stack.ctl("status"))


def test_something_else_behind_the_socket(stack, tmp_path):
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def talk():
            with listener.accept()[0] as peer:
                peer.recv(1024)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        done = stack.run(stack.program("custodyctl"), f"--socket={path}", "status")
        thread.join()
    failed(done, UNREACHABLE, "DATA_LOSS", "does not speak custody's protocol")


@pytest.mark.parametrize("args", [
    [], ["nosuch"], ["key"], ["key", "nosuch"], ["token"], ["status", "more"], ["key", "generate"],
    ["key", "generate", "a", "b"], ["key", "destroy", "wga"], ["key", "destroy", "wga", "x"],
    ["key", "destroy", "wga", "0"], ["key", "destroy", "wga", "-1"], ["key", "show", "wga", "--generation=x"],
    ["key", "show", "wga", "--generation=18446744073709551616"], ["--timeout=0", "status"], ["--timeout=x", "status"],
    ["--nosuch", "status"], ["status", "--nosuch"], ["key", "rotate"], ["key", "suspend"], ["key", "revoke"],
    ["key", "resume", "a", "b"], ["key", "suspend", "wga", "--wait"], ["key", "history"], ["host"], ["host", "trust"],
    ["host", "trust", "add", "beta"], ["host", "trust", "remove"], ["host", "trust", "nosuch"], ["host", "nosuch"],
 ["status", "--ticket=x"], ["key", "list", "--generation=1"],
])
def test_usage(builddir, args):
    done = subprocess.run([builddir / "custodyctl", "--socket=/nonexistent", *args], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == USAGE
    assert "custodyctl" in done.stderr and done.stdout == ""


def test_help_and_version(builddir):
    def run(*args):
        done = subprocess.run([builddir / "custodyctl", *args], capture_output=True, text=True, timeout=60)
        return ok(done)

    text = run("--help")
    for command in ("token init", "token probe", "token status", "key generate NAME", "key list [NAME]",
                    "key show NAME", "key publish NAME", "key destroy NAME GENERATION", "key rotate NAME",
                    "key suspend NAME", "key resume NAME", "key revoke NAME", "key history NAME",
                    "host trust add HOST VKEY", "host trust list", "host trust remove HOST", "status"):
        assert f"\n  {command}\n" in text
    assert "--vkey-out" in run("token", "init", "--help")
    assert "--ticket" in run("key", "destroy", "--help")
    assert run("--version").startswith("custodyctl (custody) ")


def test_output_that_cannot_be_written(stack):
    with open("/dev/full", "w") as full:
        for args in (("status",), ("--json", "key", "list")):
            done = subprocess.run([stack.program("custodyctl"), f"--socket={stack.socket}", *args], stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
            assert done.returncode == FAILED
            assert "could not be written" in done.stderr


def test_status_watched(stack):
    """The same again and again, a stream of JSON values, until nobody reads any more."""
    process = subprocess.Popen([stack.program("custodyctl"), f"--socket={stack.socket}", "--json", "status", "--watch"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=stack.env())
    try:
        first, second = (json.loads("".join(iter(process.stdout.readline, "}\n")) + "}") for _ in range(2))
        assert first["host"] == second["host"] and second["keeper_ready"]
        process.stdout.close()
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
