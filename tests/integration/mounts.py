# SPDX-License-Identifier: Apache-2.0
"""File systems of a test's own: small ones, one with a quota, one that is remounted, one that hangs when told to."""

import contextlib
import subprocess

import pytest

from stack import DEADLINE, StackError, default_builddir, find_program, wait_for


def _run(*argv):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)


def _need(what, *argv):
    """Runs a command without which the test cannot be: skips, saying why, when it fails."""
    try:
        done = _run(*argv)
    except FileNotFoundError:
        pytest.skip(f"{what}: {argv[0]} is not installed")
    if done.returncode != 0:
        pytest.skip(f"{what}: {' '.join(str(a) for a in argv)}: {(done.stderr or done.stdout).strip().splitlines()[0]}")


def _unmount(path):
    """Gone from the tree at once, whatever still uses it."""
    done = _run("umount", "-l", path)
    if done.returncode != 0 and "not mounted" not in done.stderr:
        raise StackError(f"umount -l {path}: {done.stderr}")


@contextlib.contextmanager
def tmpfs(path, size):
    """A file system of `size` at `path`."""
    path.mkdir(exist_ok=True)
    _need("no tmpfs", "mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "custody-test", path)
    try:
        yield
    finally:
        _unmount(path)


@contextlib.contextmanager
def image(path, size, mkfs, options=""):
    """A disk image of `size` bytes, made into a file system by the command `mkfs`, mounted at `path` with `options`."""
    path.mkdir(exist_ok=True)
    file = path.with_suffix(".img")
    with open(file, "wb") as f:
        f.truncate(size)
    _need("no file system in an image", *mkfs, file)
    _need("no loop device", "mount", "-o", f"loop{options}", file, path)
    try:
        yield
    finally:
        _unmount(path)
        file.unlink()


def ext4(path, size, reserved=0):
    """An ext4, of which `reserved` percent are kept for CAP_SYS_RESOURCE (and for the user 65534, as nobody must have
    it by its uid)."""
    return image(path, size, ["mkfs.ext4", "-q", "-m", str(reserved)], ",resuid=65534")


@contextlib.contextmanager
def quota(path, limit):
    """A file system that lets nobody, root neither, have more than `limit` of it. Of those that the kernel can have,
    btrfs is the one whose quota binds root."""
    with image(path, 128 << 20, ["mkfs.btrfs", "-q"]):
        _need("no quota", "btrfs", "quota", "enable", path)
        _need("no quota", "btrfs", "qgroup", "limit", limit, "0/5", path)
        yield


def remount(path, how):
    """Remounts with the option `how`; returns whether that was possible (a file open for writing forbids ro)."""
    return _run("mount", "-o", f"remount,{how}", path).returncode == 0


class HangingFs:
    """hanging_fs over the folder `backing` at `path`: see hanging_fs.c for what it can be told."""

    def __init__(self, path, backing):
        self.path, self.backing = path, backing
        for folder in (path, backing):
            folder.mkdir(exist_ok=True)
        try:
            program = find_program(default_builddir(), "hanging_fs")
        except StackError:
            pytest.skip("no FUSE: libfuse3-dev was not installed when this was built")
        # A pipe to it is what ends it, with the mount and all that waits, also when pytest itself is killed.
        self.process = subprocess.Popen([program, backing, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True)
        if self.process.stdout.readline() != "ready\n":
            error = self.process.communicate()[1]
            pytest.skip(f"no FUSE: {error.strip()}")

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        *words, verdict = self.process.stdout.readline().split()
        assert verdict == "ok", f"hanging_fs: {command}"
        return words

    def hang(self, *ops):
        self.tell(f"hang {' '.join(ops)}")

    def fail(self, error, *ops, count=1):
        self.tell(f"fail {error} {count} {' '.join(ops)}")

    def release(self):
        self.tell("release")

    def wait_caught(self, *ops, deadline=DEADLINE):
        """Waits until a call of one of `ops` hangs."""
        wait_for(lambda: set(self.tell("waiting")) & set(ops), f"a hanging {' or '.join(ops)}", deadline)

    def close(self):
        """Lets everything go and unmounts: nothing waits for this file system any more afterwards."""
        self.process.stdin.close()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.process.stdout.close()
        self.process.stderr.close()
        _unmount(self.path)


@contextlib.contextmanager
def hanging_fs(path):
    """A HangingFs at `path`, which is gone, and nothing waits for it, when the block ends."""
    fs = HangingFs(path, path.with_name(path.name + ".backing"))
    try:
        yield fs
    finally:
        fs.close()
