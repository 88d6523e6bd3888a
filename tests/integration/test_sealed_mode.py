# SPDX-License-Identifier: Apache-2.0
"""Token and log that disagree: what the daemon says, what it refuses, and the two ways out."""

import re
import shutil
import signal
import subprocess
import time

import pytest

from operators import (copy_log, encode, guarded, open_again, put_log, refused, requests, segment, settle, stop_hard, verify,
                       wait_sealed)
from python_client import Client, Refused
from stack import wait_for


def release(stack):
    with Client(stack.socket) as client:
        lease = client.release("wga", stack.log_vkey.read_text()).lease
        client.report(lease)


def restored(stack):
    """Ends the stack and puts the log back as it was one record before; the newer copy, and how many the token remembers."""
    settle(stack)
    older = copy_log(stack, stack.dir / "older")
    stack.ctl("key", "publish", "wga", check=True)
    remembered = settle(stack)
    stop_hard(stack)
    newer = copy_log(stack, stack.dir / "newer")
    put_log(stack, older)
    return newer, remembered


def test_older_copy_of_the_log_seals_until_the_newer_is_back(new_stack):
    stack = guarded(new_stack)
    newer, remembered = restored(stack)
    stack.start(wait="listening")
    status = wait_sealed(stack)
    message = (f"the token remembers {remembered} records, the log in {stack.audit_dir} holds {remembered - 1}: "
               f"record {remembered - 1} is missing")
    assert status["log_message"] == message and not status["log_ready"]
    assert "SEALED: the token remembers" in re.sub(r"\s+", " ", stack.ctl("status", check=True).stdout)
    for command in (("key", "list"), ("key", "generate", "wga"), ("key", "publish", "wga"), ("key", "destroy", "wgb", "1"),
                    ("token", "init"), ("token", "probe")):
        refused(stack.ctl(*command), "FAILED_PRECONDITION", message)
    with Client(stack.socket) as client, pytest.raises(Refused, match="FAILED_PRECONDITION: sealed: the token remembers"):
        client.release("wga", stack.log_vkey.read_text())
    assert [r["operation"] for r in requests(stack)] == ["log.accept-loss"]
    assert len(stack.records()) == remembered - 1  # nothing is written meanwhile
    put_log(stack, newer)
    open_again(stack)
    assert len(stack.records()) >= remembered
    release(stack)
    verify(stack)


def edit(stack, index, change):
    lines = segment(stack).read_bytes().splitlines(keepends=True)
    lines[index:index + 1] = change(lines[index])
    segment(stack).write_bytes(b"".join(lines))


def test_the_record_that_was_changed_or_taken_out_is_named(new_stack):
    stack = guarded(new_stack)
    stack.ctl("key", "publish", "wga", "--ticket=NET-1", check=True)
    remembered = settle(stack)
    wait_for(lambda: list((stack.audit_dir / "tile/0").rglob(f"*.p/{remembered}")), "the unfinished tile written")
    stop_hard(stack)
    sound = copy_log(stack, stack.dir / "sound")
    place = f"record {{}} ({segment(stack)}:{{}})"
    last = remembered - 1

    def seen(message):
        stack.custodyd.send_signal(signal.SIGHUP)  # look again at once; it would by itself within 10 s
        wait_for(lambda: (s := stack.status()) and s["sealed"] and message in s["log_message"], message, 60)

    edit(stack, last, lambda line: [line.replace(b"NET-1", b"NET-2")])
    stack.start(wait="listening")
    wait_sealed(stack)
    seen(f"{place.format(last, last + 1)} is not the one that was signed")
    put_log(stack, sound)
    edit(stack, 3, lambda line: [])
    seen(f"{place.format(3, 4)} is not the one that was signed: here stands record 4; what is missing begins here")
    put_log(stack, sound)
    edit(stack, 3, lambda line: [line[:-9] + b"\n"])
    seen(f"{place.format(3, 4)} is not the one that was signed: byte")
    (stack.audit_dir / "log" / "000000000000.jsonl").unlink()
    seen(f"the token remembers {remembered} records, the log in {stack.audit_dir} holds none: records 0 to {last} are missing")
    refused(stack.ctl("log", "accept-loss"), "FAILED_PRECONDITION", "no record is left")
    shutil.rmtree(stack.audit_dir)
    stack.custodyd.send_signal(signal.SIGHUP)
    seen("holds none")
    assert not stack.audit_dir.exists()  # nothing is in the way of a copy
    put_log(stack, sound)
    stack.custodyd.send_signal(signal.SIGHUP)
    open_again(stack)
    verify(stack)


def test_a_change_that_a_full_tile_covers_is_named_at_each_look(new_stack):
    """What stands beside the log tells which record was changed: a sealed daemon leaves it as it is."""
    stack = guarded(new_stack, rate="100000/1")
    vkey = stack.log_vkey.read_text()
    with Client(stack.socket) as client:
        while len(stack.records()) < 300:
            client.report(client.release("wga", vkey).lease)
    settle(stack)
    wait_for((stack.audit_dir / "tile/0/000").exists, "the full tile written")
    tile = (stack.audit_dir / "tile/0/000").read_bytes()
    stop_hard(stack)
    sound = copy_log(stack, stack.dir / "sound")
    edit(stack, 100, lambda line: [re.sub(rb'"pid":[0-9]+', b'"pid":1', line)])
    stack.start(wait="listening")
    for look in range(2):
        wait_sealed(stack)
        message = f"record 100 ({segment(stack)}:101) is not the one that was signed"
        wait_for(lambda: message in stack.status()["log_message"], message, 60)
        assert (stack.audit_dir / "tile/0/000").read_bytes() == tile
        stack.custodyd.send_signal(signal.SIGHUP)
    put_log(stack, sound)
    open_again(stack)
    verify(stack)


def test_token_that_forgot_its_head(new_stack):
    stack = guarded(new_stack)
    count = settle(stack)
    stop_hard(stack)
    pin = next(stack.hsm.glob("pin*")).read_text().strip()
    for _ in range(2):  # a crash may have left two
        subprocess.run(["pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--login", "--pin", pin, "--delete-object",
                        "--type", "data", "--label", "custody-head"], env=stack.env(), capture_output=True, timeout=60)
    stack.start(wait="listening")
    assert wait_sealed(stack)["log_message"] == (
        f"the log in {stack.audit_dir} holds {count} records, but the token remembers none: its custody-head is missing")
    request, = requests(stack)
    assert (request["old_size"], request["new_size"]) == (0, count)
    for name in ("ann", "bob"):
        approve(stack, request["id"], name)
    stack.ctl("log", "accept-loss", check=True)
    open_again(stack)
    settle(stack)
    verify(stack)


def test_status_says_what_the_token_cannot_resist(new_stack):
    """An older copy of a SoftHSM folder, put back together with the log, is not noticed: status must say so beforehand."""
    stack = guarded(new_stack)
    settle(stack)
    status = stack.status()
    assert status["restore"] == "unnoticed" and any("goes unnoticed" in w for w in status["warnings"])
    assert status["head_interval_ms"] == 1000 and status["head_lag"] == 0
    text = re.sub(r"\s+", " ", stack.ctl("status", check=True).stdout)
    assert "goes UNNOTICED" in text and "at most those of the last 1000 ms" in text
    stack.stop()
    shutil.copytree(stack.hsm, stack.dir / "hsm-then")
    then = copy_log(stack, stack.dir / "then")
    stack.start()
    stack.ctl("key", "publish", "wga", check=True)
    stack.stop()
    put_log(stack, then)
    shutil.rmtree(stack.hsm)
    shutil.copytree(stack.dir / "hsm-then", stack.hsm)
    stack.start()
    assert not stack.status()["sealed"]
    assert not any(r["event"] == "key.published" for r in stack.records())


# ---- accepting the loss ----


def approve(stack, id, name):
    done = stack.ctl("approve", id, f"--key={stack.operators.key(name)}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(stack):
    return [r for r in stack.records() if r["event"] == "log.loss-accepted"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_loss_that_two_operators_accept(new_stack, kind):
    stack = guarded(new_stack, kind=kind)
    operators = stack.operators
    _, remembered = restored(stack)
    stack.start(wait="listening")
    wait_sealed(stack)
    asked = stack.ctl("log", "accept-loss", check=True).stdout
    request = requests(stack)[0]
    id, text = request["id"], request["text"]
    assert id in asked and f"custodyctl approve {id} --key" in asked
    assert stack.ctl("request", "show", id, check=True).stdout == text
    assert f"\nrequest {id}\noperation log.accept-loss\nold-size {remembered}\n" in text
    signature = operators.sign("ann", text)
    operators.make("eve")
    for done, code, words in (
            (stack.ctl("approve", id), "FAILED_PRECONDITION", "an approval is a signature here"),
            (stack.ctl("approve", id, f"--key={operators.key('eve')}"), "PERMISSION_DENIED", "by no operator"),
            (stack.ctl("approve", id, f"--signature={operators.sign('bob', text + ' ')}"), "PERMISSION_DENIED",
             "not one over this text"),
            (stack.ctl("approve", id, f"--signature={operators.sign('bob', text, 'file')}"), "PERMISSION_DENIED", "namespace"),
            (stack.ctl("approve", "0" * 32, f"--signature={signature}"), "NOT_FOUND", "is not open")):
        refused(done, code, words)
    assert "Approved by operator ann: 1 of 2" in stack.ctl("approve", id, f"--signature={signature}", check=True).stdout
    refused(stack.ctl("approve", id, f"--key={operators.key('ann')}"), "FAILED_PRECONDITION", "2 different")
    assert "1 of 2" in stack.ctl("log", "accept-loss", check=True).stdout
    # Nothing can be recorded yet, so an end forgets the approval; the signature serves again.
    stop_hard(stack)
    stack.start(wait="listening")
    wait_sealed(stack)
    assert requests(stack)[0]["id"] == id and requests(stack)[0]["approved_by"] == []
    stack.ctl("approve", id, f"--signature={signature}", check=True)
    assert "custodyctl log accept-loss" in approve(stack, id, "bob")
    assert "The loss is accepted" in stack.ctl("log", "accept-loss", check=True).stdout
    open_again(stack)
    four = stack.records()[remembered - 1:remembered + 3]
    assert [r["event"] for r in four] == ["approval.requested", "approval.given", "approval.given", "log.loss-accepted"]
    assert {r["operator"] for r in four[1:3]} == {"ann", "bob"} and {r["request_id"] for r in four} == {id}
    assert all(r["signature"] and r["operator_key"].startswith(("ssh-ed25519 ", "ecdsa-")) for r in four[1:3])
    assert (four[3]["old_size"], four[3]["new_size"]) == (remembered, remembered - 1)
    refused(stack.ctl("log", "accept-loss"), "FAILED_PRECONDITION", "no loss to accept")
    refused(stack.ctl("approve", id, f"--signature={signature}"), "NOT_FOUND", "carried out already")
    release(stack)
    settle(stack)
    stop_hard(stack)
    stack.start()  # the smaller head is the one that counts now
    assert not stack.status()["sealed"]
    verify(stack)


def test_records_after_a_changed_one_are_set_aside(new_stack):
    """What is accepted is the log up to the line that is no record; the rest is kept in a file of its own."""
    stack = guarded(new_stack)
    settle(stack)
    stop_hard(stack)
    edit(stack, 3, lambda line: [])
    stack.start(wait="listening")
    wait_sealed(stack)
    request = requests(stack)[0]
    assert request["new_size"] == 3
    for name in ("ann", "bob"):
        approve(stack, request["id"], name)
    stack.ctl("log", "accept-loss", check=True)
    open_again(stack)
    assert [r["new_size"] for r in losses(stack)] == [3]
    assert list((stack.audit_dir / "log").glob("*.torn-*"))
    verify(stack)


def test_acceptance_that_was_forged_into_the_file(new_stack):
    """The four records stand there, but no operator signed: they are set aside, and the operators' own count."""
    stack = guarded(new_stack)
    restored(stack)
    stack.start(wait="listening")
    wait_sealed(stack)
    request, = requests(stack)
    for name in ("ann", "bob"):
        approve(stack, request["id"], name)
    stop_hard(stack)
    last = stack.records()[-1]
    heads = dict(zip(("old_size", "old_root", "new_size", "new_root"), (
        int(v) if v.isdigit() else v for v in re.findall(r"^(?:old|new)-(?:size|root) (.*)$", request["text"], re.M))))
    forged = [("approval.requested", {"operation": "log.accept-loss"} | heads), ("approval.given", {"operator": "ann"}),
              ("approval.given", {"operator": "bob"}), ("log.loss-accepted", heads)]
    with open(segment(stack), "ab") as f:
        for i, (event, fields) in enumerate(forged, 1):
            f.write(encode({"v": 1, "seq": last["seq"] + i, "time": last["time"], "event": event, "host": "alpha",
                            "actor": {"uid": i, "gid": 0, "pid": 1}, "request_id": request["id"], **fields}))
    stack.start(wait="listening")
    wait_sealed(stack)
    assert requests(stack)[0]["id"] == request["id"]
    assert "0 of 2" in stack.ctl("log", "accept-loss", check=True).stdout
    for name in ("ann", "bob"):
        approve(stack, request["id"], name)
    stack.ctl("log", "accept-loss", check=True)
    open_again(stack)
    assert len(losses(stack)) == 1
    assert all("signature" in r for r in stack.records() if r["event"] == "approval.given")
    verify(stack)


def test_kills_while_the_loss_is_accepted(new_stack):
    """Whenever all is killed, the same two signatures serve, and the loss stands in the log once."""
    stack = guarded(new_stack)
    restored(stack)
    stack.start(wait="listening")
    wait_sealed(stack)
    request = requests(stack)[0]
    signatures = [stack.operators.sign(name, request["text"]) for name in ("ann", "bob")]
    for delay in (0.0, 0.005, 0.01, 0.015, 0.02, 0.03):
        status = wait_for(lambda: (s := stack.status()) and (s["sealed"] or s["log_ready"]) and s, "sealed or served", 60)
        if status["log_ready"]:
            break
        for signature in signatures:
            stack.ctl("approve", request["id"], f"--signature={signature}")  # it may be going on by itself already
        asking = subprocess.Popen([stack.program("custodyctl"), f"--socket={stack.socket}", "log", "accept-loss"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: asking.poll() is not None or len(stack.records()) >= request["new_size"] + 1, "the records appended")
        time.sleep(delay)  # no wait for an event: any instant is as good
        stop_hard(stack)
        asking.wait(60)
        stack.start(wait="listening")
    status = wait_for(lambda: (s := stack.status()) and (s["sealed"] or s["log_ready"]) and s, "sealed or served", 60)
    if not status["log_ready"]:
        for signature in signatures:
            stack.ctl("approve", request["id"], f"--signature={signature}")
        stack.ctl("log", "accept-loss")
    open_again(stack)
    assert len(losses(stack)) == 1
    release(stack)
    verify(stack)


def test_torn_remains_of_an_old_head_stop_nothing(stack):
    """A power cut may leave an old head's object with half of its bytes, which SoftHSM then cannot destroy."""
    def objects():
        return {path: path.read_bytes() for path in stack.hsm.rglob("*.object")}
    before = objects()
    stack.ctl("key", "publish", "wga", check=True)
    assert stack.stop() == 0
    gone = [(path, data) for path, data in before.items() if path not in objects()]
    assert gone, "the head of before is destroyed once there is a newer one"
    for path, data in gone:
        path.write_bytes(data[:len(data) // 2])
    stack.start()
    stack.ctl("key", "publish", "wgb", check=True)
    wait_for(lambda: stack.status()["head_lag"] == 0, "the head in the token")
    assert stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey).returncode == 0
