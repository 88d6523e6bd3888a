# SPDX-License-Identifier: Apache-2.0
"""The shape in which systemd runs custody: keeper and custodyd as two units of two users, each on a socket that was
opened for it, neither of them root."""

import os
import pwd
import socket
import subprocess

import pytest

from python_client import Client
from stack import wait_for

KEEPER = pwd.getpwnam("daemon")
CUSTODYD = pwd.getpwnam("bin")
UNITS_GROUP = 61234  # no group of this host; both are in it, as in group custody

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be two other users")


def listen(path, kind, owner, mode):
    """A listening socket, as systemd would have made it."""
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(str(path))
    os.chown(path, owner.pw_uid, UNITS_GROUP)
    os.chmod(path, mode)
    s.listen(16)
    return s


def start_unit(stack, user, s, *argv):
    """A program as `user`, with the listening socket as descriptor 3 (sd_listen_fds(3))."""
    with open(stack.log, "ab") as log:
        return subprocess.Popen(
            ["/bin/bash", "-c", 'exec 3<&$1; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "bash", str(s.fileno()),
             "setpriv", f"--reuid={user.pw_uid}", f"--regid={UNITS_GROUP}", "--clear-groups", "--no-new-privs", *argv],
            pass_fds=[s.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=stack.env(),
            start_new_session=True)


def chown_tree(path, user):
    for folder, _, files in os.walk(path):
        for name in (folder, *(os.path.join(folder, f) for f in files)):
            os.chown(name, user.pw_uid, UNITS_GROUP)


class Units:
    def __init__(self, stack):
        self.stack = stack
        keeper_socket = stack.dir / "keeper.sock"
        chown_tree(stack.hsm, KEEPER)
        stack.audit_dir.mkdir()
        os.chown(stack.audit_dir, CUSTODYD.pw_uid, UNITS_GROUP)
        os.chmod(stack.audit_dir, 0o750)
        stack.write_config(keeper=f'socket = "{keeper_socket}"\n')
        self.keeper_listens = listen(keeper_socket, socket.SOCK_SEQPACKET, CUSTODYD, 0o600)
        self.custodyd_listens = listen(stack.socket, socket.SOCK_STREAM, CUSTODYD, 0o660)
        self.keeper = None

    def start_keeper(self):
        self.keeper = start_unit(self.stack, KEEPER, self.keeper_listens, self.stack.program("custody-keeper"),
                                 "--host=alpha", f"--token={self.stack.token}",
                                 f"--audit-dir={self.stack.audit_dir}", f"--client-uid={CUSTODYD.pw_uid}")

    def start(self):
        self.start_keeper()
        self.stack.custodyd = start_unit(self.stack, CUSTODYD, self.custodyd_listens, self.stack.program("custodyd"),
                                         f"--config={self.stack.config}")
        self.stack.wait_ready()

    def stop(self):
        for process in (self.stack.custodyd, self.keeper):
            if process and process.poll() is None:
                process.terminate()
        status = self.stack.custodyd.wait(30), self.keeper.wait(30)
        self.keeper_listens.close()
        self.custodyd_listens.close()
        return status


@pytest.fixture
def units(new_stack):
    units = Units(new_stack())
    yield units
    for process in (units.stack.custodyd, units.keeper):
        if process and process.poll() is None:
            process.kill()
            process.wait()


def test_two_unprivileged_units(units):
    stack = units.stack
    units.start()
    stack.init()
    stack.generate("wga")
    with Client(stack.socket) as client:
        client.release("wga", stack.log_vkey.read_text())
    granted = [r for r in stack.records() if r["event"] == "release.granted"][0]
    # What an unprivileged custodyd cannot read of a process of root's, it says it could not.
    assert granted["actor"]["uid"] == 0 and granted["actor"]["exe_unavailable"] is True
    assert "exe" not in granted["actor"]
    assert units.stop() == (0, 0)
    done = stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey)
    assert done.returncode == 0, done.stdout


def test_keeper_unit_restarts_beside_custodyd(units):
    stack = units.stack
    units.start()
    stack.init()
    stack.generate("wga")
    units.keeper.kill()
    units.keeper.wait()
    wait_for(lambda: not stack.status()["keeper_ready"], "custodyd noticing")
    units.start_keeper()
    wait_for(lambda: (s := stack.status())["keeper_ready"] and s["log_ready"], "serving again", interval=0.05)
    with Client(stack.socket) as client:
        client.release("wga", stack.log_vkey.read_text())
    assert units.stop() == (0, 0)
