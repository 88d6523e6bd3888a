# SPDX-License-Identifier: Apache-2.0
"""The real stack in a folder of its own: a SoftHSM token, custodyd and the keeper that custodyd starts."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 30.0  # seconds that a start, a stop or a command may take
REASONS = ("BOOT", "RESTORE", "ROTATION", "ROLLBACK", "OPERATOR")


class StackError(Exception):
    """The stack did not do what every test needs before it can begin; the message ends with the log's tail."""


def default_builddir():
    """The build folder: $CUSTODY_BUILDDIR, else build/ in the source tree."""
    return pathlib.Path(os.environ.get("CUSTODY_BUILDDIR", TOP / "build")).resolve()


def find_program(builddir, name):
    """The program NAME of the build folder: at its top or in a room's folder; libtool's wrapper where there is one."""
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(pathlib.Path(builddir).glob(pattern)):
            if path.is_file() and os.access(path, os.X_OK) and path.parent.name != ".libs":
                return path
    raise StackError(f"no program {name} in {builddir}: run make there, or set CUSTODY_BUILDDIR")


def wait_for(condition, what, deadline=DEADLINE, interval=0.01):
    """Calls condition() until it is true and returns what it returned; fails after `deadline` seconds, naming WHAT."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise StackError(f"{what}: not within {deadline:g} s")
        time.sleep(interval)


def tail(path, lines=40):
    """The last lines of a file, "" when it is not there."""
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def children(pid):
    """Pids of the processes that PID started and that still are its children."""
    try:
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def inside(netns):
    """What to put before a command that is to run in the network namespace NETNS. Not `ip netns exec`, which mounts
    things besides and so fails in a chroot."""
    return ["nsenter", f"--net=/run/netns/{netns}"]


def _list(words):
    return "{ " + ", ".join(f'"{w}"' for w in words) + " }"


class Stack:
    """custodyd, its keeper and their SoftHSM token under `dir`; `builddir` holds the programs."""

    live = []  # stacks whose logs a failing test shows

    def __init__(self, dir, builddir=None):
        self.dir = pathlib.Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.builddir = pathlib.Path(builddir) if builddir else default_builddir()
        self.socket = self.dir / "custody.sock"
        self.audit_dir = self.dir / "audit"
        self.log_vkey = self.dir / "log.vkey"
        self.config = self.dir / "custodyd.conf"
        self.log = self.dir / "custodyd.log"
        self.hsm = self.dir / "hsm"
        self.token = None  # URI, once provisioned
        self.custodyd = None  # Popen, while it runs
        self.extra_env = {}
        Stack.live.append(self)

    # ---- setting up ----

    def program(self, name):
        return find_program(self.builddir, name)

    def env(self):
        """The environment of every program: the caller's, and the token of this stack."""
        return {**os.environ, "SOFTHSM2_CONF": str(self.hsm / "softhsm2.conf"), **self.extra_env}

    def provision(self, label="custody"):
        """Makes the SoftHSM token; returns its URI, which the default configuration then names."""
        script = TOP / "hsm-config" / "softhsm" / "provision"
        done = subprocess.run([script, self.hsm, label], capture_output=True, text=True, timeout=DEADLINE)
        if done.returncode != 0:
            raise StackError(f"{script}: exit {done.returncode}\n{done.stderr}")
        self.token = done.stdout.strip().splitlines()[-1]
        return self.token

    def config_text(self, *, host="alpha", lease=10, keys=("wga", "wgb"), uid=0, unit="any", reasons=REASONS,
                    rate="10000/60", socket_mode="0660", socket_group=None, releases_per_second=1000, timeout=10, limits="",
                    token=None, program=None, keeper=None, audit_uid=None, key_options="", extra=""):
        """A whole configuration. By default uid 0 in any unit may do all; each argument bends one thing:

        keys: names, each with a grant "applier" of uid/unit/reasons/rate; limits: lines inside limits { };
        keeper: the inside of keeper { }, in place of program, token, releases-per-second and timeout;
        socket_group: lets others than root come in (mode 0660); key_options: lines inside every key; extra: text
        at the end of the file."""
        keeper = keeper or (
            f'  program = "{program or self.program("custody-keeper")}"\n'
            f'  token = "{token or self.token}"\n'
            f"  releases-per-second = {releases_per_second}\n"
            f"  timeout = {timeout}\n")
        group = f'  group = "{socket_group}"' if socket_group else ""
        text = (f'host = "{host}"\n'
                f'audit-dir = "{self.audit_dir}"\n'
                f"lease = {lease}\n"
                f'socket {{ path = "{self.socket}"  mode = "{socket_mode}"{group} }}\n'
                f"keeper {{\n{keeper}}}\n")
        if limits:
            text += f"limits {{ {limits} }}\n"
        text += 'operator "root" { uid = 0  unit = "any" }\n'
        text += f'auditor "audit" {{ uid = {0 if audit_uid is None else audit_uid}  unit = "any" }}\n'
        for key in keys:
            text += (f'key "{key}" {{\n  {key_options}\n'
                     f'  grant "applier" {{ uid = {uid}  unit = "{unit}"  reasons = {_list(reasons)}  rate = "{rate}" }}\n'
                     "}\n")
        return text + extra

    def write_config(self, text=None, **options):
        """Writes the configuration: `text` as it is, else config_text(**options)."""
        self.config.write_text(text if text is not None else self.config_text(**options))
        return self.config

    # ---- running ----

    def spawn(self, *args, **popen):
        """Starts custodyd without waiting for it, in a process group of its own, its standard error appended to the log."""
        with open(self.log, "ab") as log:
            self.custodyd = subprocess.Popen(
                [self.program("custodyd"), f"--config={self.config}", *args], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env(), start_new_session=True, **popen)
        return self.custodyd

    def start(self, wait=True, deadline=DEADLINE, **popen):
        """Starts custodyd and waits until it answers and, unless wait is "listening", has a keeper that is ready."""
        self.spawn(**popen)
        if not wait:
            return self
        try:
            self.wait_listening(deadline)
            if wait != "listening":
                self.wait_ready(deadline)
        except StackError as e:
            self.stop(signal.SIGKILL)
            raise StackError(f"{e}\n{tail(self.log)}") from None
        return self

    def _accepts(self):
        if self.custodyd.poll() is not None:
            raise StackError(f"custodyd ended with exit status {self.custodyd.returncode}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            try:
                s.connect(str(self.socket))
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

    def wait_listening(self, deadline=DEADLINE):
        wait_for(self._accepts, f"custodyd accepting on {self.socket}", deadline)

    def wait_ready(self, deadline=DEADLINE):
        """Waits until the keeper has logged in and the log is open."""
        def ready():
            if self.custodyd.poll() is not None:
                raise StackError(f"custodyd ended with exit status {self.custodyd.returncode}")
            status = self.status()
            # Not ready, and waiting for nothing but `token init`, is as far as a new token gets by itself.
            return status and status["keeper_ready"] and (status["log_ready"] or "token init" in status["log_message"])
        wait_for(ready, "the keeper and the log ready", deadline, 0.02)

    def stop(self, sig=signal.SIGTERM, deadline=DEADLINE):
        """Ends custodyd and everything it started; returns its exit status, None when it was not running."""
        if self.custodyd is None:
            return None
        process, keepers = self.custodyd, children(self.custodyd.pid)
        if process.poll() is None:
            process.send_signal(sig)
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            pass
        # What is left of the group, the keeper among it, goes too: nothing may outlive a test.
        for kill, target in ((os.killpg, process.pid), *((os.kill, pid) for pid in keepers if self._is_keeper(pid))):
            try:
                kill(target, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait(deadline)
        self.custodyd = None
        return process.returncode

    def kill(self):
        """kill -9 of custodyd alone."""
        self.custodyd.kill()
        self.custodyd.wait(DEADLINE)

    def close(self):
        """Ends everything and forgets the stack; the folder stays."""
        self.stop()
        if self in Stack.live:
            Stack.live.remove(self)

    def remove(self):
        """close(), and the folder goes too."""
        self.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def _is_keeper(pid):
        try:
            argv0 = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return argv0.rpartition(b"/")[2].removeprefix(b"lt-") == b"custody-keeper"

    @property
    def keeper_pid(self):
        """Pid of the running keeper, None when there is none now."""
        for pid in children(self.custodyd.pid) if self.custodyd else []:
            if self._is_keeper(pid):
                return pid
        return None

    # ---- talking to it ----

    def run(self, *argv, netns=None, timeout=DEADLINE, check=False, **options):
        """Runs a command with the stack's environment, in the network namespace `netns` if one is named."""
        argv = [str(a) for a in argv]
        if netns:
            argv = [*inside(netns), *argv]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              env=self.env(), **options)
        if check and done.returncode != 0:
            raise StackError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def ctl(self, *args, **options):
        """custodyctl on this stack's socket -> CompletedProcess."""
        return self.run(self.program("custodyctl"), f"--socket={self.socket}", *args, **options)

    def applier(self, *args, **options):
        """custody-applier on this stack's socket and log key -> CompletedProcess."""
        return self.run(self.program("custody-applier"), f"--socket={self.socket}", f"--log-vkey={self.log_vkey}", *args,
                        **options)

    def audit(self, *args, **options):
        """custody-audit -> CompletedProcess."""
        return self.run(self.program("custody-audit"), *args, **options)

    def status(self):
        """custodyctl --json status as a dict, None while the daemon does not answer."""
        done = self.ctl("--json", "status")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def init(self):
        """token init; writes dir/log.vkey, the log's verifier key."""
        self.ctl("token", "init", f"--vkey-out={self.log_vkey}", check=True)
        return self

    def generate(self, *names):
        """Generates a generation of each key; returns the public keys in base64."""
        return [self.ctl("key", "generate", name, check=True) and self.public_key(name) for name in names]

    def public_key(self, name):
        return self.ctl("key", "show", name, check=True).stdout.strip()

    def records(self):
        """The log's records, each a dict, in order."""
        lines = []
        for segment in sorted((self.audit_dir / "log").glob("*.jsonl")):
            lines += segment.read_text().splitlines()
        return [json.loads(line) for line in lines]
