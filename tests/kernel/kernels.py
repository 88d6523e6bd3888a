# SPDX-License-Identifier: Apache-2.0
"""Kernels for guests: where they are kept, what fetches them, and where a guest finds the folder that it shares."""

import contextlib
import fcntl
import os
import pathlib
import subprocess

INSIDE = "/run/exchange"


class NoKernel(Exception):
    """The kernel cannot be had."""


def folder():
    """Made unless it is there."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "custody-kernel"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@contextlib.contextmanager
def locked(cache):
    """Two runs at once make a kernel once."""
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*argv, **options):
    """A command that must succeed -> its standard output."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: exit {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout
