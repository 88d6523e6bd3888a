# SPDX-License-Identifier: Apache-2.0
"""state.db: it says what the log says, is made again whatever becomes of it, and nothing waits for it."""

import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile

import pytest

from python_client import Client
from stack import wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to mount")
COLUMNS = ("name", "generation", "state", "public_key", "generated", "activated", "deactivated", "releases", "released")


# ---- helpers ----

def path(stack):
    return stack.audit_dir / "state.db"


def ask(stack, sql):
    """The rows that a copy of state.db answers (custodyd keeps it locked); None while it is being made, or changed
    while it was copied."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "state.db")
        try:
            shutil.copyfile(path(stack), copy)
            shutil.copyfile(f"{path(stack).resolve()}-wal", f"{copy}-wal")
        except FileNotFoundError:
            pass
        try:
            with contextlib.closing(sqlite3.connect(copy)) as db:
                return db.execute(sql).fetchall()
        except sqlite3.DatabaseError:
            return None


def wait_current(stack):
    """Waits until state.db has all that is in the log."""
    def current():
        rows = ask(stack, "SELECT value FROM meta WHERE name = 'size'")
        return rows and int(rows[0][0]) == stack.status()["log_size"]
    wait_for(current, "state.db having what the log has")


def agrees(stack):
    """state.db and custodyctl say the same of every key, and of how many leases are open."""
    wait_current(stack)
    listed = json.loads(stack.ctl("--json", "key", "list", check=True).stdout)
    rows = ask(stack, f"SELECT {', '.join(COLUMNS)} FROM keys ORDER BY name, generation")
    assert rows == [tuple(key[column] for column in COLUMNS) for key in listed]
    # A lease may expire meanwhile.
    wait_for(lambda: ask(stack, "SELECT count(*) FROM leases") == [(stack.status()["leases"],)],
             "state.db having as many leases as are open")


def release(stack, key="wga"):
    with Client(stack.socket) as c:
        return c.release(key, stack.log_vkey.read_text())


def set_asides(stack):
    return sorted(p.name for p in stack.audit_dir.glob("state.db.bad-*") if not p.name.endswith("-wal"))


def warnings(stack):
    return [w for w in stack.status()["warnings"] if "state.db" in w]


def alter(stack, sql):
    with contextlib.closing(sqlite3.connect(path(stack), isolation_level=None)) as db:
        assert db.execute(sql).rowcount == 1


def invert(stack, first, count):
    """Inverts bytes of the file; all of it is in one file once the daemon has stopped."""
    with open(path(stack), "r+b") as file:
        file.seek(first)
        bytes_there = file.read(count)
        assert len(bytes_there) == count
        file.seek(first)
        file.write(bytes(b ^ 0xff for b in bytes_there))


# ---- what it says ----

def test_it_says_what_the_log_says(stack):
    agrees(stack)
    for _ in range(3):
        release(stack)
    agrees(stack)
    key, generation, uid = ask(stack, "SELECT key, generation, uid FROM leases ORDER BY seq")[0]
    assert (key, generation, uid) == ("wga", 1, os.geteuid())
    assert ask(stack, "SELECT value FROM meta WHERE name = 'host'") == [("alpha",)]


# ---- what becomes of it ----

def test_deleted_or_older_is_made_right_without_a_word_of_alarm(stack):
    wait_current(stack)
    # Under the running daemon.
    for file in stack.audit_dir.glob("state.db*"):
        file.unlink()
    release(stack)
    wait_for(path(stack).exists, "state.db made again under the running daemon")
    agrees(stack)
    stack.stop()
    # An older copy knows less, but nothing else.
    older = stack.dir / "older.db"
    shutil.copy(path(stack), older)
    stack.start()
    release(stack)
    stack.stop()
    shutil.copy(older, path(stack))
    stack.start()
    agrees(stack)
    stack.stop()
    path(stack).unlink()
    stack.start()
    agrees(stack)
    assert set_asides(stack) == [] and warnings(stack) == []


def test_altered_or_damaged_is_set_aside_and_said(stack):
    release(stack)
    faults = (
        lambda: alter(stack, "UPDATE keys SET state = 'active' WHERE name = 'wga'"),
        lambda: alter(stack, "DELETE FROM keys WHERE name = 'wgb'"),
        lambda: alter(stack, "UPDATE leases SET uid = uid + 1"),
        lambda: alter(stack, "UPDATE meta SET value = 'beta' WHERE name = 'host'"),
        lambda: alter(stack, "UPDATE meta SET value = value + 1 WHERE name = 'size'"),
        lambda: invert(stack, 0, 16),
        lambda: invert(stack, 4096, 16),
        lambda: path(stack).write_text("no database"),
    )
    for number, fault in enumerate(faults, 1):
        wait_current(stack)
        assert stack.stop() == 0
        fault()
        stack.start()
        name = f"state.db.bad-{number}"
        wait_for(lambda: warnings(stack), "a warning of state.db in status")
        assert len(warnings(stack)) == 1 and f"set aside as {name}" in warnings(stack)[0]
        assert f"state.db was set aside as {name}" in stack.log.read_text()
        assert name in set_asides(stack) and len(set_asides(stack)) == number
        agrees(stack)


def test_killed_under_load_it_is_never_accused(stack):
    for _ in range(3):
        argv = [stack.program("load"), f"--socket={stack.socket}", f"--log-vkey={stack.log_vkey}", "--clients=4",
                "--count=100000", "--report"]
        before = stack.status()["log_size"]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            wait_for(lambda: stack.status()["log_size"] > before + 200, "some records")
            stack.kill()
            load.wait()
        stack.start()
        agrees(stack)
        assert set_asides(stack) == [] and warnings(stack) == []


# ---- nothing waits for it ----

def test_releases_go_on_while_it_cannot_be_written(stack):
    wait_current(stack)
    stack.stop()
    lock = sqlite3.connect(path(stack), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        stack.start()
        release(stack)
        wait_for(lambda: warnings(stack), "a warning of state.db in status")
        assert "not up to date" in warnings(stack)[0]
        for _ in range(5):
            release(stack)
    finally:
        lock.rollback()
        lock.close()
    agrees(stack)
    wait_for(lambda: not warnings(stack), "no warning of state.db any more")
    assert stack.log.read_text().count("state.db is not written for now") == 1
    assert set_asides(stack) == []


@needs_root
def test_releases_go_on_while_its_disk_is_full(new_stack):
    stack = new_stack()
    small = stack.dir / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], capture_output=True).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        stack.audit_dir.mkdir()
        path(stack).symlink_to(small / "state.db")
        stack.start().init().generate("wga", "wgb")
        wait_current(stack)
        with pytest.raises(OSError), open(small / "filler", "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        for _ in range(400):
            release(stack)
            if warnings(stack):
                break
        assert "not up to date" in warnings(stack)[0]
        release(stack)
        (small / "filler").unlink()
        agrees(stack)
        wait_for(lambda: not warnings(stack), "no warning of state.db any more")
        assert stack.stop() == 0
    finally:
        stack.stop()
        subprocess.run(["umount", small], check=True)
