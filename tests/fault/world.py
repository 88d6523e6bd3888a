# SPDX-License-Identifier: Apache-2.0
"""What the fault tests share: stacks copied from one provisioned token, a client that keeps what it was acknowledged,
and the judge who starts a stack again after a fault and compares."""

import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from stack import DEADLINE, Stack, StackError, default_builddir, find_program, wait_for  # noqa: E402

PIPE_STRUCK = re.compile(r"write\(\d+<pipe:[^\n]*\(INJECTED\)")
SOON = 5.0  # seconds in which an end comes, as a rule
HANG = 60.0  # seconds without an answer, a start or an end that count as a hang


class Hung(Exception):
    """Something did not come within HANG seconds."""


class Programs:
    """The build folder's programs, found once."""

    def __init__(self, builddir=None):
        self.builddir = pathlib.Path(builddir) if builddir else default_builddir()
        for name in ("custodyd", "custody-keeper", "custody-audit"):
            setattr(self, name.replace("-", "_"), str(find_program(self.builddir, name)))
        self.client = str(self.builddir / "tests" / "fault" / "client")
        self.shim = str(self.builddir / ".libs" / "fault_shim.so")


def scratch_folder():
    """A folder for many short-lived stacks: in memory where there is some, since the faults are put in and not waited for."""
    return tempfile.mkdtemp(prefix="custody-fault-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def configuration_takes(programs, dir, text, extra):
    """Whether this custodyd knows what `extra` says."""
    path = pathlib.Path(dir) / "trial.conf"
    path.write_text(text + extra)
    done = subprocess.run([programs.custodyd, f"--config={path}", "--check-config"], capture_output=True, timeout=DEADLINE)
    path.unlink()
    return done.returncode == 0


class Template:
    """One provisioned token, copied for each stack: provisioning costs more than all else."""

    SMALL_SEGMENTS = "log { segment-size = 4096 }\n"

    def __init__(self, dir, programs, keys=("wga", "wgb"), rate="100000/60"):
        self.programs, self.keys, self.rate = programs, keys, rate
        self.stack = Stack(pathlib.Path(dir) / "template", programs.builddir)
        self.stack.provision()
        self.extra = self.SMALL_SEGMENTS if configuration_takes(
            programs, dir, self.stack.config_text(keys=keys), self.SMALL_SEGMENTS) else ""

    @property
    def seals(self):
        return bool(self.extra)

    def copy(self, dir, keeper=None):
        return World(dir, self, keeper)


class World(Stack):
    """A stack that is started under faults, and again without."""

    def __init__(self, dir, template, keeper=None):
        super().__init__(dir, template.programs.builddir)
        Stack.live.remove(self)
        self.template, self.programs = template, template.programs
        old = str(template.stack.hsm)
        if not self.hsm.exists():
            shutil.copytree(template.stack.hsm, self.hsm)
            self.audit_dir.mkdir(exist_ok=True)
        conf = self.hsm / "softhsm2.conf"
        conf.write_text(conf.read_text().replace(old, str(self.hsm)))
        self.token = template.stack.token.replace(old, str(self.hsm))
        # The keeper would otherwise start itself again for this.
        self.extra_env = {"LD_BIND_NOW": "1"}
        self.configure(keeper)

    def configure(self, keeper=None, timeout=10):
        """Writes the configuration; `keeper` is a program in the keeper's place."""
        self.write_config(keys=self.template.keys, program=keeper or self.programs.custody_keeper, timeout=timeout,
                          rate=self.template.rate, releases_per_second=100000, key_options="grace = 604800",
                          limits="connections-per-uid = 64", extra=self.template.extra)

    def spawn(self, *before, env=None):
        """Starts custodyd behind the command `before`; does not wait for it."""
        with open(self.log, "ab") as log:
            self.custodyd = subprocess.Popen(
                [*before, self.programs.custodyd, f"--config={self.config}"], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**self.env(), **(env or {})}, start_new_session=True)
        return self.custodyd

    def client(self):
        return Client(self)

    def is_running(self):
        return self.custodyd is not None and self.custodyd.poll() is None

    def _signal(self, sig):
        """Sends it, where custodyd runs, and waits for its end -> exit status."""
        if self.is_running():
            self.custodyd.send_signal(sig)
        try:
            return self.custodyd.wait(SOON)
        except subprocess.TimeoutExpired:
            # strace counts a thread's calls whatever they touch: what it failed, too, may be the write to a pipe by which
            # the signal wakes the event loop, as no kernel does.
            trace = self.dir / "trace"
            if trace.exists() and PIPE_STRUCK.search(trace.read_text(errors="replace")):
                self.custodyd.send_signal(sig)
            return self.custodyd.wait(HANG)

    def end(self, sig=signal.SIGTERM):
        """Ends custodyd; Hung when it does not end. Returns its exit status. Its keeper ends by itself: it has lost its peer."""
        if self.custodyd is None:
            return None
        keeper = self.keeper_pid
        try:
            status = self._signal(sig)
        except subprocess.TimeoutExpired:
            self.stop(signal.SIGKILL)
            raise Hung("custodyd did not end") from None
        self.custodyd = None
        if keeper:
            try:
                wait_for(lambda: not self._is_keeper(keeper), "the keeper's end", HANG, 0.002)
            except StackError:
                os.kill(keeper, signal.SIGKILL)
                raise Hung("the keeper did not end after its custodyd") from None
        return status

    def lines(self):
        """The log's lines, by index."""
        out = []
        for segment in sorted((self.audit_dir / "log").glob("*.jsonl")):
            data = segment.read_bytes()
            out += data.decode(errors="replace").splitlines()
        return out

    def log_tail(self, count=12):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""


class Refused(Exception):
    """custodyd, or the way to it, did not do what it was asked."""

    def __init__(self, code, message, seconds=0.0):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.seconds = code, message, seconds


class Ledger:
    """What clients were acknowledged, in this life of a token, and when."""

    def __init__(self):
        self.journal = []  # (time, what, arguments)
        self.vkey = None
        self.generated = {}  # (key, generation) -> public key
        self.opened = {}  # lease -> the record's line
        self.applied = set()  # leases
        self.destroyed = set()  # (key, generation)
        self.destroy_asked = set()

    def note(self, what, *arguments, at=None):
        self.journal.append((at or time.time(), what, arguments))
        if what == "initialised":
            (self.vkey,) = arguments
        elif what == "generated":
            self.generated[arguments[:2]] = arguments[2]
        elif what == "opened":
            self.opened[arguments[0]] = arguments[1]
        elif what == "applied":
            self.applied.add(arguments[0])
        else:  # destroyed, destroy_asked
            getattr(self, what).add(arguments)

    def until(self, moment):
        """What had been acknowledged by then."""
        ledger = Ledger()
        for at, what, arguments in self.journal:
            if at < moment:
                ledger.note(what, *arguments, at=at)
        return ledger

    def add(self, other):
        for at, what, arguments in other.journal:
            self.note(what, *arguments, at=at)

    def living(self):
        """Generations that nobody asked to destroy."""
        return {g: public for g, public in self.generated.items() if g not in self.destroy_asked}


class Client:
    """A libcustody client in a process of its own; notes in `ledger` what it is acknowledged."""

    def __init__(self, world, ledger=None):
        self.ledger = ledger or Ledger()
        self.process = subprocess.Popen([world.programs.client, str(world.socket)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.buffer = b""

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # a request that was still in the buffer: it was killed before that was written
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _line(self):
        end = time.monotonic() + HANG + 10
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise Hung("the client")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise Refused("CLIENT", "the client ended")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def ask(self, *words):
        """One command; its answer's fields."""
        try:
            self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Refused("CLIENT", "the client ended") from None
        kind, *fields = self._line().split("\t")
        if kind == "ok":
            return fields
        code, seconds, message = fields
        if float(seconds) >= HANG - 1:
            raise Hung(f"{' '.join(map(str, words))}: no answer within {seconds} s")
        raise Refused(code, message, float(seconds))

    def status(self):
        """A dict, None while nobody answers."""
        try:
            initialised, keeper, log, size, vkey, keeper_message, log_message = self.ask("status")
        except Refused:
            return None
        return {"initialised": initialised == "1", "keeper": keeper == "1", "log": log == "1", "size": int(size),
                "vkey": vkey, "why": keeper_message or log_message}

    def use_vkey(self, vkey):
        self.ask("vkey", vkey)

    def init(self):
        self.ledger.note("initialised", *self.ask("init"))

    def generate(self, key):
        name, generation, _, public = self.ask("generate", key)
        self.ledger.note("generated", name, int(generation), public)
        return int(generation)

    def list(self, key):
        fields = self.ask("list", key)
        return {(fields[i], int(fields[i + 1])): (fields[i + 2], fields[i + 3]) for i in range(0, len(fields), 4)}

    def release(self, key, generation, reason="RESTORE"):
        _, _, lease, public, record = self.ask("release", key, generation, reason)
        self.ledger.note("opened", lease, record)
        return lease, public

    def report(self, lease):
        self.ask("report", lease)
        self.ledger.note("applied", lease)

    def destroy(self, key, generation):
        self.ledger.note("destroy_asked", key, generation)
        self.ask("destroy", key, generation)
        self.ledger.note("destroyed", key, generation)


def wait_served(world, client, deadline=HANG):
    """Waits until the daemon serves, or waits for `token init` alone; returns its status. Refused with the reason when it
    does not come to that, or ends."""
    end = time.monotonic() + deadline
    status = None
    while True:
        status = client.status() or status
        if status and status["keeper"] and (status["log"] or "token init" in status["why"]):
            return status
        if not world.is_running():
            raise Refused("ENDED", f"custodyd ended with status {world.custodyd.poll() if world.custodyd else None}")
        if time.monotonic() > end:
            raise Refused("NOT_SERVED", status["why"] if status else "no answer")
        time.sleep(0.003)


# ---- the judge ----

def check_keys(client, ledger, problems):
    """Each generation that was acknowledged is there and is released again, unless its destruction was asked for."""
    for (key, generation), public in sorted(ledger.living().items()):
        here = client.list(key)
        state, there = here.get((key, generation), ("gone", None))
        if there != public:
            problems.append(f"lost: {key}/{generation} is {state}, its public key {there} and not {public}")
            continue
        try:
            _, released = client.release(key, generation, "ROLLBACK" if state == "deactivated" else "RESTORE")
            if released != public:
                problems.append(f"lost: {key}/{generation} was released as {released}")
        except Refused as e:
            newest = sorted(g for k, g in here if k == key)[-2:]
            # The keeper lets the two newest generations out and no others.
            if generation in newest:
                problems.append(f"lost: {key}/{generation} ({state}) is not released: {e}")
    for key, generation in sorted(ledger.destroyed):
        state, _ = client.list(key).get((key, generation), ("destroyed", None))
        if state != "destroyed":
            problems.append(f"lost: {key}/{generation} was destroyed, now it is {state}")


def check_service(client, key, problems):
    """A new key can be had, from the first step to the last."""
    try:
        here = client.list(key)
        waiting = [g for (_, g), (state, _) in here.items() if state == "pre-active"]
        generation = waiting[0] if waiting else client.generate(key)
        lease, _ = client.release(key, generation)
        client.report(lease)
    except Refused as e:
        problems.append(f"lost: a new key cannot be had: {e}")


def check_records(world, ledger, problems):
    """Each release and outcome that a client saw is in the log, to the byte."""
    lines = world.lines()
    applied = set()
    for line in lines:
        if '"event":"release.applied"' in line:
            applied.add(json.loads(line).get("lease"))
    for lease, record in ledger.opened.items():
        seq = json.loads(record)["seq"]
        if seq >= len(lines) or lines[seq] != record:
            problems.append(f"unrecorded: a key was opened with record {seq}, lease {lease}, which is not in the log")
    for lease in ledger.applied - applied:
        problems.append(f"lost: the outcome of lease {lease} was acknowledged and is not in the log")


def verify(world, vkey, problems):
    vkey_file = world.dir / "judge.vkey"
    vkey_file.write_text(vkey + "\n")
    done = subprocess.run([world.programs.custody_audit, "verify", f"--vkey={vkey_file}", str(world.audit_dir)],
                          capture_output=True, text=True, timeout=HANG)
    if done.returncode != 0:
        problems.append(f"lost: custody-audit verify: exit {done.returncode}: {done.stdout.strip()} {done.stderr.strip()}")


def initialise(world, client):
    """token init. SoftHSM may say of an object whose files a power cut left in part that it cannot be destroyed, and has then
    destroyed it: an operator asks again."""
    try:
        client.init()
    except Refused:
        wait_served(world, client)
        client.init()


def judge(world, ledger):
    """Starts the world again without faults and compares it with what clients were acknowledged. Returns the problems:
    sentences that begin with "lost", "unrecorded" or "hung"."""
    problems = []
    world.configure()
    world.spawn()
    try:
        with Client(world, ledger) as client:
            status = wait_served(world, client)
            if not status["initialised"] and ledger.vkey:
                problems.append("lost: the token was initialised, now it is not")
            elif not status["initialised"]:
                initialise(world, client)
                wait_served(world, client)
            vkey = ledger.vkey or status["vkey"]
            client.use_vkey(vkey)
            check_keys(client, ledger, problems)
            check_service(client, world.template.keys[-1], problems)
        status = world.end()
        if status != 0:
            problems.append(f"lost: the stop after it had exit status {status}")
        verify(world, vkey, problems)
        check_records(world, ledger, problems)
    except Refused as e:
        problems.append(f"{'hung' if e.code == 'NOT_SERVED' else 'lost'}: after the restart: {e}")
    except Hung as e:
        problems.append(f"hung: after the restart: {e}")
    finally:
        world.stop(signal.SIGKILL)
    return problems
