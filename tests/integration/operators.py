# SPDX-License-Identifier: Apache-2.0
"""Operators with SSH keys of their own, and a log that is put into disorder."""

import json
import os
import shutil
import signal
import subprocess

from stack import wait_for


class Operators:
    """Keys in `dir`, made by the real ssh-keygen, and the file that pins them."""

    def __init__(self, dir, names=("ann", "bob"), kind="ed25519"):
        self.dir = dir
        self.file = dir / "operators"
        for name in names:
            self.make(name, kind)
        self.file.write_text("# NAME TYPE BASE64\n" + "".join(f"{n} {self.public(n)}\n" for n in names))
        self.file.chmod(0o644)

    def make(self, name, kind="ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"{name}@host", "-f", self.key(name)], check=True,
                       stdin=subprocess.DEVNULL, timeout=60)

    def key(self, name):
        return self.dir / f"id_{name}"

    def public(self, name):
        return self.key(name).with_suffix(".pub").read_text().strip()

    def sign(self, name, text, namespace="custody-approval"):
        """The armoured signature, made where custodyctl is not; a file."""
        done = subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", self.key(name)], input=text,
                              capture_output=True, text=True, check=True, timeout=60)
        path = self.dir / f"signature-{name}-{namespace}"
        path.write_text(done.stdout)
        return path


def guarded(new_stack, kind="ed25519", **options):
    """A started, initialised stack with the keys wga and wgb, guarded by operators ann and bob."""
    stack = new_stack()
    stack.operators = Operators(stack.dir, kind=kind)
    stack.write_config(stack.config_text(**options, extra=f'operators = "{stack.operators.file}"\n'))
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    return stack


def settle(stack):
    """Waits until the token's head covers the log, and so remembers all that is in it; how much that is."""
    def covered():
        status = stack.status()
        return status and status["log_ready"] and status["head_size"] == status["log_size"] == len(stack.records()) \
            and status["log_size"]
    return wait_for(covered, "the token's head at the log's end")


def stop_hard(stack):
    """Ends all at once: what the token remembers stays as it is, and nothing is appended."""
    stack.stop(signal.SIGKILL)


def copy_log(stack, to):
    shutil.copytree(stack.audit_dir, to)
    return to


def put_log(stack, copy):
    """Puts another copy of the audit folder in its place."""
    shutil.rmtree(stack.audit_dir, ignore_errors=True)
    shutil.copytree(copy, stack.audit_dir)


def wait_sealed(stack):
    return wait_for(lambda: (s := stack.status()) and s["sealed"] and s, "the sealed phase")


def open_again(stack):
    """The daemon serves, and the token remembers all of the log."""
    wait_for(lambda: (s := stack.status()) and s["log_ready"], "the log served again", 60)


def requests(stack):
    done = stack.ctl("--json", "request", "list", check=True)
    return json.loads(done.stdout)


def refused(done, code, words):
    assert done.returncode == 1, done
    assert f"{code}: " in done.stderr and words in done.stderr, done.stderr


def verify(stack):
    done = stack.audit("verify", stack.audit_dir, f"--vkey={stack.log_vkey}")
    assert done.returncode == 0, done.stdout + done.stderr


def segment(stack):
    return sorted((stack.audit_dir / "log").glob("*.jsonl"))[-1]


def encode(record):
    """A record's one line: its fields stand in the order that they are given in."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def needs_root():
    return os.getuid() != 0
