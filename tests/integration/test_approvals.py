# SPDX-License-Identifier: Apache-2.0
"""Dangerous operations: requested, approved by two different operators, carried out once."""

import datetime
import json
import os
import shutil
import subprocess

import pytest

from operators import Operators, encode, guarded, refused, requests, segment, settle, stop_hard, verify
from python_client import Client
from stack import wait_for


def activate(stack, key="wga"):
    """A release that was applied: the generation is active then."""
    with Client(stack.socket) as client:
        client.report(client.release(key, stack.log_vkey.read_text()).lease)
    assert json.loads(stack.ctl("--json", "key", "show", key, check=True).stdout)["state"] == "active"


def events(stack, *names):
    return [r for r in stack.records() if r["event"] in names]


def destroy(stack, *options):
    return stack.ctl("key", "destroy", "wga", "1", *options)


def test_destroying_an_active_key_takes_two_operators(new_stack):
    stack = guarded(new_stack)
    operators = stack.operators
    activate(stack)
    asked = destroy(stack, "--ticket=NET-9")
    assert asked.returncode == 0, asked.stderr
    request, = requests(stack)
    id = request["id"]
    assert f"custodyctl approve {id} --key" in asked.stdout and f"--request {id}" in asked.stdout
    assert (request["operation"], request["key"], request["generation"], request["approved_by"]) == ("key.destroy", "wga", 1, [])
    text = stack.ctl("request", "show", id, check=True).stdout
    assert text.startswith(f"custody approval v1\nhost alpha\nrequest {id}\noperation key.destroy\nkey wga\ngeneration 1\nexpires 2")
    assert not events(stack, "key.destroying")
    operators.make("eve")
    for done, code, words in (
            (destroy(stack, f"--request={id}"), "FAILED_PRECONDITION", "has 0 of the 2 approvals"),
            (destroy(stack, f"--request={'0' * 32}"), "NOT_FOUND", "is not open"),
            (stack.ctl("key", "destroy", "wgb", "1", f"--request={id}"), "FAILED_PRECONDITION", "was for something else"),
            (stack.ctl("approve", id), "FAILED_PRECONDITION", "an approval is a signature here"),
            (stack.ctl("approve", id, f"--key={operators.key('eve')}"), "PERMISSION_DENIED", "by no operator"),
            (stack.ctl("approve", id, f"--signature={operators.sign('ann', text.replace('wga', 'wgb'))}"), "PERMISSION_DENIED",
             "not one over this text"),
            (stack.ctl("approve", "no-such", f"--signature={operators.sign('ann', text)}"), "NOT_FOUND", "is not open")):
        refused(done, code, words)
    assert "1 of 2" in stack.ctl("approve", id, f"--signature={operators.sign('ann', text)}", check=True).stdout
    refused(stack.ctl("approve", id, f"--key={operators.key('ann')}"), "FAILED_PRECONDITION", "operator ann has approved")
    refused(destroy(stack, f"--request={id}"), "FAILED_PRECONDITION", "has 1 of the 2 approvals")
    # Approvals that were recorded outlive an end.
    settle(stack)
    stop_hard(stack)
    stack.start()
    assert requests(stack)[0]["approved_by"] == ["ann"]
    assert f"--request {id}" in stack.ctl("approve", id, f"--key={operators.key('bob')}", check=True).stdout
    assert "is destroyed" in destroy(stack, f"--request={id}").stdout
    assert requests(stack) == []
    assert destroy(stack, f"--request={id}").returncode == 1
    refused(stack.ctl("approve", id, f"--key={operators.key('bob')}"), "NOT_FOUND", "carried out already")
    destroying, = events(stack, "key.destroying")
    assert destroying["request_id"] == id
    assert [r["operator"] for r in events(stack, "approval.given")] == ["ann", "bob"]
    assert events(stack, "approval.requested")[0]["ticket"] == "NET-9"
    assert {"Approve"} == {r["request"] for r in events(stack, "access.denied")}
    verify(stack)


def test_the_token_remembers_an_approval_before_it_is_answered(new_stack):
    """What is not to be undone by putting the log back does not wait for the head's interval."""
    stack = guarded(new_stack)
    activate(stack)
    destroy(stack)
    request, = requests(stack)
    stack.ctl("approve", request["id"], f"--key={stack.operators.key('ann')}", check=True)
    count = len(stack.records())
    stop_hard(stack)
    lines = segment(stack).read_bytes().splitlines(keepends=True)
    segment(stack).write_bytes(b"".join(lines[:count - 1]))
    stack.start(wait="listening")
    status = wait_for(lambda: (s := stack.status()) and s["sealed"] and s, "the sealed phase")
    assert f"record {count - 1} is missing" in status["log_message"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another uid")
def test_two_uids_are_the_weaker_mode(new_stack):
    stack = new_stack()
    nobody = 'operator "second" { uid = 65534  unit = "any" }\napprovals = "uids"\n'
    stack.write_config(stack.config_text(extra=nobody).replace('mode = "0660"', 'mode = "0660"  group = "nogroup"'))
    stack.start()
    stack.init()
    stack.generate("wga")
    activate(stack)
    status = stack.status()
    assert status["approvals"] == "uids" and any("by their uid alone" in w for w in status["warnings"])
    destroy(stack)
    request, = requests(stack)
    stack.ctl("approve", request["id"], check=True)
    refused(stack.ctl("approve", request["id"]), "FAILED_PRECONDITION", "operator root has approved")
    built = stack.builddir / ".libs"
    for path in (built / "custodyctl", built / "libcustody.so.0"):
        shutil.copy(path, stack.dir)
    done = subprocess.run([stack.dir / "custodyctl", f"--socket={stack.socket}", "approve", request["id"]], cwd="/", user=65534,
                          group=65534, extra_groups=[], env={"LD_LIBRARY_PATH": str(stack.dir)}, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "is destroyed" in destroy(stack, f"--request={request['id']}").stdout
    given = events(stack, "approval.given")
    assert [(r["operator"], r["actor"]["uid"]) for r in given] == [("root", 0), ("second", 65534)]
    assert not any("signature" in r or "operator_key" in r for r in given)
    verify(stack)


# ---- what somebody writes into the log while the daemon is down approves nothing ----


def append(stack, records):
    """Appends records as custodyd itself would write them."""
    last = stack.records()[-1]
    with open(segment(stack), "ab") as f:
        for i, record in enumerate(records, 1):
            head = {"v": 1, "seq": last["seq"] + i, "time": last["time"], "event": record["event"], "host": "alpha",
                    "actor": {"uid": 0, "gid": 0, "pid": 1}}
            f.write(encode({**head, **record}))


def forged(stack, id, approvals):
    time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    return [{"event": "approval.requested", "key": "wga", "generation": 1, "expires": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
             "request_id": id, "operation": "key.destroy"},
            *({"event": "approval.given", "request_id": id, **a} for a in approvals),
            {"event": "key.destroying", "key": "wga", "generation": 1, "request_id": id}]


def signed(operators, name, text):
    armour = operators.sign(name, text).read_text().splitlines()
    return {"operator": name, "operator_key": " ".join(operators.public(name).split()[:2]), "signature": "".join(armour[1:-1])}


@pytest.mark.parametrize("how", ["unsigned", "another text", "another's key"])
def test_approvals_that_were_forged_into_the_file(new_stack, how):
    stack = guarded(new_stack)
    activate(stack)
    settle(stack)
    stop_hard(stack)
    id = "0123456789abcdef" * 2
    if how == "unsigned":
        approvals = [{"operator": "ann"}, {"operator": "bob", "actor": {"uid": 1, "gid": 0, "pid": 1}}]
    elif how == "another text":
        approvals = [signed(stack.operators, name, "something else\n") for name in ("ann", "bob")]
    else:
        keys = ("eve", "mallory")
        for name in keys:
            stack.operators.make(name)
        approvals = [{**signed(stack.operators, key, "x"), "operator": name} for key, name in zip(keys, ("ann", "bob"))]
    append(stack, forged(stack, id, approvals))
    appended = segment(stack).read_bytes()
    stack.start()
    assert json.loads(stack.ctl("--json", "key", "show", "wga", check=True).stdout)["state"] == "active"
    assert not events(stack, "approval.given", "key.destroying")
    recovered = events(stack, "log.recovered")[-1]
    assert "approvals that do not hold" in recovered["detail"]
    aside, = (stack.audit_dir / "log").glob("*.torn-*")
    assert appended.endswith(aside.read_bytes()) and b"approval.given" in aside.read_bytes()
    activate(stack)
    verify(stack)


def test_approvals_that_a_crash_left_unsigned_still_hold(new_stack):
    """The same records with operators' true signatures are carried on: the crash came between file and head."""
    stack = guarded(new_stack)
    activate(stack)
    destroy(stack)
    request, = requests(stack)
    settle(stack)
    stop_hard(stack)
    append(stack, [{"event": "approval.given", "request_id": request["id"], **signed(stack.operators, name, request["text"])}
                   for name in ("ann", "bob")])
    stack.start()
    assert requests(stack)[0]["approved_by"] == ["ann", "bob"]
    assert "is destroyed" in destroy(stack, f"--request={request['id']}").stdout
    verify(stack)


# ---- the operators' file ----


@pytest.mark.parametrize("spoil, words", [
    (lambda text: text + text.splitlines()[1].replace("ann ", "eve ") + "\n", "the key of operator eve stands there already, as ann's"),
    (lambda text: text.replace("ssh-ed25519", "ssh-rsa", 1), "line 2: SSH key of type 'ssh-rsa'"),
    (lambda text: "ann\n" + text, "line 1: a name, a key's type"),
    (lambda text: text.rstrip("\n"), "its last line has no end"),
])
def test_operators_file_that_is_wrong(new_stack, spoil, words):
    stack = new_stack()
    operators = Operators(stack.dir)
    stack.write_config(stack.config_text(extra=f'operators = "{operators.file}"\n'))
    check = [stack.program("custodyd"), f"--config={stack.config}", "--check-config"]
    assert stack.run(*check).returncode == 0
    operators.file.write_text(spoil(operators.file.read_text()))
    done = stack.run(*check)
    assert done.returncode == 3 and words in done.stderr and str(operators.file) in done.stderr, done.stderr
    done = stack.run(stack.program("custody-keeper"), "--host=alpha", f"--token={stack.token}", f"--audit-dir={stack.audit_dir}",
                     f"--operators={operators.file}")
    assert done.returncode == 1 and words in done.stderr, done.stderr
