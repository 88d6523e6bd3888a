# SPDX-License-Identifier: Apache-2.0
"""Hooks: programs run for records, as somebody else, with the record's line as their input, and never in the way."""

import json
import os
import pwd
import signal
import subprocess

import pytest

from python_client import Client
from scrape import OPENMETRICS, samples, scrape, value
from stack import wait_for

NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to run a hook as another user")


class Hooked:
    """A stack with one hook, whose program is a shell script that may write to the folder `out`."""

    def __init__(self, new_stack, script, events=("release.granted",), user="nobody", timeout=10, arguments=(), extra=""):
        self.stack = new_stack()
        self.out = self.stack.dir / "out"
        self.out.mkdir()
        os.chmod(self.out, 0o777)
        self.program = self.stack.dir / "hook"
        self.program.write_text(f"#!/bin/sh\nout={self.out}\n{script}\n")
        self.program.chmod(0o755)
        self.metrics = self.stack.dir / "metrics.sock"
        command = ", ".join(f'"{word}"' for word in (self.program, *arguments))
        events = ", ".join(f'"{event}"' for event in events)
        who = f'user = "{user}"' if user else ""
        self.text = (f'metrics {{ socket = "{self.metrics}" }}\n'
                     f'hook "pager" {{ command = {{ {command} }}  events = {{ {events} }}  {who}  timeout = {timeout} }}\n')
        self.stack.write_config(extra=self.text + extra)

    def start(self):
        self.stack.start()
        self.stack.init()
        self.stack.generate("wga")
        return self

    def release(self, times=1):
        with Client(self.stack.socket) as client:
            for _ in range(times):
                client.release("wga", self.stack.log_vkey.read_text())

    def runs(self, outcome):
        found = samples(scrape(self.metrics, OPENMETRICS), openmetrics=True)
        return value(found, "custody_hook_runs_total", hook="pager", outcome=outcome)

    def dropped(self):
        found = samples(scrape(self.metrics, OPENMETRICS), openmetrics=True)
        return value(found, "custody_hook_dropped_total", hook="pager")

    def written(self, name):
        """Waits for a whole line of a hook's in that file (which is there before it is written) -> its text."""
        path = self.out / name
        wait_for(lambda: path.exists() and path.read_text().endswith("\n"), f"what the hook writes into {name}")
        return path.read_text()

    def wait_runs(self, outcome, n):
        wait_for(lambda: self.runs(outcome) == n, f"{n} runs {outcome}")


@needs_root
def test_it_gets_the_records_line_as_nobody_and_nothing_else(new_stack):
    hooked = Hooked(new_stack, """
        cat >$out/stdin.$$
        id -u >$out/uid; id -g >$out/gid; id -G >$out/groups
        env | sort >$out/env
        pwd >$out/cwd
        ls /proc/self/fd >$out/fds
        cat /proc/self/status >$out/status
        echo "$@" >$out/arguments
        streams=$(readlink /proc/$$/fd/1 /proc/$$/fd/2); echo $streams >$out/streams""", arguments=("--urgent", "a b"))
    os.environ["CUSTODY_TEST_LEAK"] = "it leaked"
    try:
        hooked.start()
    finally:
        del os.environ["CUSTODY_TEST_LEAK"]
    hooked.release()
    hooked.wait_runs("succeeded", 1)
    out = {f.name.partition(".")[0]: f.read_text() for f in hooked.out.iterdir()}
    # Byte for byte the log's line.
    lines = [line for segment in (hooked.stack.audit_dir / "log").glob("*.jsonl") for line in segment.read_text().splitlines()]
    [granted] = [line for line in lines if json.loads(line)["event"] == "release.granted"]
    assert out["stdin"] == granted + "\n"
    assert (out["uid"].strip(), out["gid"].strip(), out["groups"].strip()) == (
        str(NOBODY.pw_uid), str(NOBODY.pw_gid), str(NOBODY.pw_gid))
    variables = {line.partition("=")[0] for line in out["env"].splitlines()}
    assert variables <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "_", "SHLVL"} and "leak" not in out["env"]
    assert out["cwd"].strip() == "/"
    # ls has its three, and the folder it lists.
    assert len(out["fds"].split()) == 4
    status = dict(line.split(":\t", 1) for line in out["status"].splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert int(status["SigBlk"], 16) == int(status["SigIgn"], 16) == 0
    assert out["arguments"].strip() == "--urgent a b"
    assert out["streams"].split() == ["/dev/null"] * 2


@needs_root
def test_only_its_events_in_their_order(new_stack):
    hooked = Hooked(new_stack, "cat >>$out/all", events=("release.granted", "release.applied", "key.activated"))
    hooked.start()
    with Client(hooked.stack.socket) as client:
        for _ in range(4):
            client.report(client.release("wga", hooked.stack.log_vkey.read_text()).lease)
    wanted = [r for r in hooked.stack.records()
              if r["event"] in ("release.granted", "release.applied", "key.activated")]
    assert len(wanted) == 9
    hooked.wait_runs("succeeded", 9)
    seen = [json.loads(line) for line in (hooked.out / "all").read_text().splitlines()]
    assert seen == wanted


@needs_root
def test_one_that_hangs_is_killed_with_its_children_and_holds_up_nobody(new_stack):
    hooked = Hooked(new_stack, "trap '' TERM; sleep 1000 & echo $! >$out/child; echo $$ >$out/self; sleep 1000", timeout=1)
    hooked.start()
    hooked.release()
    hooked.written("self")
    hooked.stack.ctl("key", "generate", "wgb", check=True)  # served while it hangs
    hooked.wait_runs("timed-out", 1)
    pids = [int((hooked.out / name).read_text()) for name in ("self", "child")]
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "hook and child gone")
    assert "hook 'pager' was killed: it took too long" in hooked.stack.log.read_text()
    assert hooked.stack.keeper_pid, "the keeper is none of its business"


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_root
def test_too_many_are_dropped_counted_and_said(new_stack):
    hooked = Hooked(new_stack, 'test -e $out/go || { while ! test -e $out/go; do sleep 0.05; done; }; cat >>$out/all',
                    timeout=300)
    hooked.start()
    hooked.release(70)
    wait_for(lambda: hooked.dropped() == 5, "one runs, 64 wait, 5 dropped")
    assert hooked.stack.log.read_text().count("loses records") == 1, "said once"
    (hooked.out / "go").touch()
    hooked.wait_runs("succeeded", 65)
    granted = [r for r in hooked.stack.records() if r["event"] == "release.granted"]
    seen = [json.loads(line) for line in (hooked.out / "all").read_text().splitlines()]
    assert seen == granted[:65], "the first ones, in their order"
    hooked.release(1)
    hooked.wait_runs("succeeded", 66)


@needs_root
def test_failures_are_said(new_stack):
    hooked = Hooked(new_stack, "exit 3")
    hooked.start()
    hooked.release()
    hooked.wait_runs("failed", 1)
    assert "hook 'pager' failed: exit status 3" in hooked.stack.log.read_text()
    hooked.program.unlink()
    hooked.release()
    hooked.wait_runs("failed", 2)
    assert "exit status 127 (its program cannot be run by its user)" in hooked.stack.log.read_text()


@needs_root
def test_a_stop_kills_what_runs(new_stack):
    hooked = Hooked(new_stack, "echo $$ >$out/self; sleep 1000", timeout=300)
    hooked.start()
    hooked.release()
    pid = int(hooked.written("self"))
    assert hooked.stack.stop() == 0
    wait_for(lambda: not is_alive(pid), "the hook gone")


@needs_root
def test_reload_takes_up_new_hooks_and_keeps_what_is_right(new_stack):
    hooked = Hooked(new_stack, "cat >>$out/all")
    hooked.start()
    stack = hooked.stack
    more = hooked.text + f'hook "second" {{ command = {{ "{hooked.program}" }}  events = {{ "key.generated" }}  user = "nobody" }}\n'
    stack.write_config(extra=more)
    stack.custodyd.send_signal(signal.SIGHUP)
    wait_for(lambda: "configuration read again" in stack.log.read_text(), "the reload")
    stack.generate("wgb")
    assert json.loads(hooked.written("all"))["event"] == "key.generated"
    stack.write_config(extra=hooked.text.replace("nobody", "root"))
    stack.custodyd.send_signal(signal.SIGHUP)
    wait_for(lambda: "the configuration stays as it was: hook 'pager': 'user' is 'root'" in stack.log.read_text(), "the refusal")
    hooked.release()
    hooked.wait_runs("succeeded", 1)


@needs_root
@pytest.mark.parametrize("user, says", [("root", "hooks do not run as root"), (None, "needs 'user'"),
                                        ("no-such-user", "is not known on this host")])
def test_root_runs_none_as_root(new_stack, user, says):
    hooked = Hooked(new_stack, "true", user=user)
    hooked.stack.start(wait=False)
    assert hooked.stack.custodyd.wait(30) == 3
    assert says in hooked.stack.log.read_text()


@needs_root
@pytest.mark.parametrize("user, fine", [("nobody", False), ("bin", True), (None, True)])
def test_without_privileges_only_as_itself(new_stack, user, fine):
    """custodyd as its unit runs it: another user, who may gain no privileges."""
    hooked = Hooked(new_stack, "id -u >$out/uid", user=user, events=("daemon.started", "token.initialised"))
    stack = hooked.stack
    own = pwd.getpwnam("bin")
    for path in (stack.dir, *stack.dir.rglob("*")):
        os.chown(path, own.pw_uid, own.pw_gid, follow_symlinks=False)
    program = stack.program("custodyd")
    with open(stack.log, "ab") as log:
        stack.custodyd = subprocess.Popen(
            ["setpriv", f"--reuid={own.pw_uid}", f"--regid={own.pw_gid}", "--clear-groups", "--no-new-privs", program,
             f"--config={stack.config}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=stack.env(),
            start_new_session=True)
    if not fine:
        assert stack.custodyd.wait(30) == 3
        assert "cannot run it as user 'nobody'" in stack.log.read_text()
        return
    stack.wait_ready()
    stack.init()
    assert hooked.written("uid").strip() == str(own.pw_uid)


@pytest.mark.parametrize("hook, says", [
    ('command = { "page" }  events = { "log.stuck" }', "absolute path"),
    ('command = { }  events = { "log.stuck" }', "needs 'command'"),
    ('events = { "log.stuck" }', "needs 'command'"),
    ('command = { "/bin/true" }', "needs 'events'"),
    ('command = { "/bin/true" }  events = { "log.stuck", "log.burnt" }', "'log.burnt' is no event"),
    ('command = { "/bin/true" }  events = { "log.stuck" }  timeout = 0', "must be 1 to 300"),
    ('command = { "/bin/true" }  events = { "log.stuck" }  shell = true', "no such option"),
])
def test_nonsense_is_refused(new_stack, hook, says):
    stack = new_stack()
    stack.write_config(extra=f'hook "x" {{ {hook} }}\n')
    done = stack.run(stack.program("custodyd"), f"--config={stack.config}", "--check-config")
    assert done.returncode == 3 and says in done.stderr and f"{stack.config}:" in done.stderr, done.stderr
