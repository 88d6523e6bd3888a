# SPDX-License-Identifier: Apache-2.0
"""proto/PROTOCOL is enough to write a client from: one in Python obtains keys from the real stack and checks all that it gets."""

import base64
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import pytest

import python_client
from python_client import Client, Refused, Unproven, pb
from stack import Stack


@pytest.fixture(scope="module")
def stack(builddir):
    """One stack for all tests here: none of them minds what another one released."""
    stack = Stack(tempfile.mkdtemp(prefix="custody-"), builddir)
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
def client(stack):
    with Client(stack.socket) as c:
        yield c


@pytest.fixture
def vkey(stack):
    return stack.log_vkey.read_text()


def test_release_is_proven_and_reported(stack, client, vkey):
    released = client.release("wga", vkey, reason="BOOT", ticket="NET-\u00e9 \"1\"")
    assert base64.b64encode(released.public_key).decode() == stack.public_key("wga")
    assert released.generation == 1
    assert released.record["ticket"] == "NET-\u00e9 \"1\""
    assert released.record["actor"]["pid"] == os.getpid()
    seq = client.report(released.lease).seq
    lines = b"".join(p.read_bytes() for p in sorted((stack.audit_dir / "log").glob("*.jsonl"))).split(b"\n")
    assert lines[released.record["seq"]] == released.line
    applied = python_client.parse_record(lines[seq])
    assert (applied["event"], applied["lease"]) == ("release.applied", released.lease)
    assert [pb.KeyState.Name(k.state) for k in client.keys("wga")] == ["ACTIVE"]


def test_every_record_has_the_form_that_protocol_says(stack, client, vkey):
    client.report(client.release("wga", vkey).lease, applied=False, detail="no such device: \u201cwga\u201d")
    for path in (stack.audit_dir / "log").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            python_client.parse_record(line)


def test_program(stack):
    program = pathlib.Path(python_client.__file__)
    done = subprocess.run([sys.executable, program, stack.socket, stack.log_vkey, "wgb"], capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, stack.public_key("wgb"), "")


def test_many_in_flight(client, vkey):
    asked = [client.send_release(("wga", "wgb")[i % 2]) for i in range(12)]
    leases = {client.take_release(a, vkey).lease for a in reversed(asked)}
    assert len(leases) == 12


def test_each_release_is_sealed_anew(client, vkey):
    answers = [client.answer(client.send_release("wga").id) for _ in range(2)]
    assert answers[0].box != answers[1].box
    assert answers[0].lease != answers[1].lease
    assert answers[0].public_key == answers[1].public_key


def test_a_lease_is_closed_once(client, vkey):
    released = client.release("wga", vkey)
    client.report(released.lease, applied=False, detail="no such device")
    with pytest.raises(Refused, match="NOT_FOUND"):
        client.report(released.lease)
    with pytest.raises(Refused, match="NOT_FOUND"):
        client.report("00" * 16)


def test_signed_by_another_key(client, vkey):
    name = vkey.split("+")[0]
    other = b"\1" + python_client.nacl.signing.SigningKey.generate().verify_key.encode()
    id = python_client.hashlib.sha256(name.encode() + b"\n" + other).digest()[:4].hex()
    with pytest.raises(Unproven, match="pinned"):
        client.release("wga", f"{name}+{id}+{base64.b64encode(other).decode()}")


def test_box_is_for_us_alone(client, vkey):
    asked = client.send_release("wga")
    answer = client.answer(asked.id)
    python_client.check_release(answer, asked, vkey)
    stranger = asked._replace(private=python_client.nacl.public.PrivateKey.generate())
    with pytest.raises(Unproven, match="applier"):
        python_client.check_release(answer, stranger, vkey)
    with pytest.raises(python_client.nacl.exceptions.CryptoError):
        python_client.nacl.public.SealedBox(stranger.private).decrypt(answer.box)


@pytest.mark.parametrize("field", ["record", "receipt", "box", "public_key", "lease", "expires_us", "generation"])
def test_no_part_of_an_answer_can_be_changed(client, vkey, field):
    asked = client.send_release("wga")
    answer = client.answer(asked.id)
    value = getattr(answer, field)
    if isinstance(value, int):
        setattr(answer, field, value + 1)
    elif isinstance(value, str):
        setattr(answer, field, "0" * len(value))
    else:
        # One bit in the middle: of a hash, a signature, a name, a key.
        changed = bytearray(value)
        changed[len(changed) // 2] ^= 1
        setattr(answer, field, bytes(changed))
    with pytest.raises((Unproven, ValueError)):
        python_client.check_release(answer, asked, vkey)


@pytest.mark.parametrize("options, code", [
    (dict(key="nosuch"), "NOT_FOUND|PERMISSION_DENIED"),
    (dict(key="wga", generation=7), "NOT_FOUND"),
    (dict(key=""), "INVALID_ARGUMENT"),
    (dict(key="../wga"), "INVALID_ARGUMENT"),
    (dict(key="wga", reason="REASON_UNSPECIFIED"), "INVALID_ARGUMENT"),
    (dict(key="wga", ticket="a\nb"), "INVALID_ARGUMENT"),
    (dict(key="wga", ticket="t" * 128), "INVALID_ARGUMENT"),
])
def test_what_is_refused(client, vkey, options, code):
    with pytest.raises(Refused, match=code):
        client.release(vkey=vkey, **options)
    client.release("wga", vkey)


def test_applier_key_must_be_32_bytes_and_not_a_weak_point(client, vkey):
    for public_key in (b"", bytes(31), bytes(33), bytes(32)):
        with pytest.raises(Refused, match="INVALID_ARGUMENT"):
            client.call(release_key=pb.ReleaseKey(key="wga", reason=pb.BOOT, applier_public_key=public_key))
    client.release("wga", vkey)


def as_uid(uid, function):
    """What function() returns, or the code it is refused with, in a process of that uid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)  # nobody's group has the same number
            os.setresuid(uid, uid, uid)
            result = str(function())
        except Refused as e:
            result = e.code
        except BaseException as e:  # whatever it is, the parent is to see it, and the child to end here
            result = repr(e)
        os.write(write, result.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        result = pipe.read()
    os.waitpid(pid, 0)
    return result


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another uid")
def test_another_uid_gets_nothing(new_stack):
    stack = new_stack()
    stack.write_config(stack.config_text().replace('mode = "0660"', 'mode = "0660"  group = "nogroup"'))
    stack.start()
    stack.init()
    stack.generate("wga")
    vkey = stack.log_vkey.read_text()

    def ask(**body):
        with Client(stack.socket) as stranger:
            return stranger.call(**body)

    with Client(stack.socket) as client:
        lease = client.release("wga", vkey).lease
        assert as_uid(65534, lambda: Client(stack.socket).release("wga", vkey)) == "PERMISSION_DENIED"
        assert as_uid(65534, lambda: ask(list_keys=pb.ListKeys())) == "PERMISSION_DENIED"
        assert as_uid(65534, lambda: ask(generate_key=pb.GenerateKey(key="wga"))) == "PERMISSION_DENIED"
        assert as_uid(65534, lambda: ask(destroy_key=pb.DestroyKey(key="wga", generation=1))) == "PERMISSION_DENIED"
        assert as_uid(65534, lambda: ask(report_outcome=pb.ReportOutcome(lease=lease, applied=True))) in (
            "PERMISSION_DENIED", "NOT_FOUND")
        client.report(lease)
    denied = [r for r in stack.records() if r["event"] == "release.denied"]
    assert [(r["actor"]["uid"], r["key"], r["code"]) for r in denied] == [(65534, "wga", "PERMISSION_DENIED")]
    refused = {r["request"] for r in stack.records() if r["event"] == "access.denied"}
    assert {"ListKeys", "GenerateKey", "DestroyKey"} <= refused


def test_a_connection_serves_nobody_once_its_process_has_ended(stack):
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            child = Client(stack.socket)
            child.status()
            socket.send_fds(theirs, [b"x"], [child.socket.fileno()])
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    inherited = socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])
    inherited.sendall(python_client.frame(pb.Request(id=9, get_status=pb.GetStatus()).SerializeToString()))
    inherited.settimeout(20)
    answer = pb.Response.FromString(inherited.recv(65536)[4:])
    assert (answer.id, pb.Code.Name(answer.code)) == (9, "UNAUTHENTICATED")
    for end in (ours, theirs, inherited):
        end.close()
