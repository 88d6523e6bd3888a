# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests: real stacks and tunnels, whose logs a failing test shows."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import tunnel as tunnel_module
from stack import Stack, default_builddir, find_program, tail
from tunnel import Tunnel


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows the tails of the logs of all that still runs."""
    report = (yield).get_result()
    if report.failed:
        for stack in Stack.live:
            report.sections.append((f"tail of {stack.log}", tail(stack.log)))
        for t in Tunnel.live:
            for end in t.ends:
                if end.log.exists():
                    report.sections.append((f"tail of {end.log}", tail(end.log)))


@pytest.fixture(scope="session")
def builddir():
    """The build folder, with its programs built."""
    path = default_builddir()
    find_program(path, "custodyd")
    return path


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """Go's sumdb packages as a program, built once a run."""
    if not shutil.which("go") or not pathlib.Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/note").is_dir():
        pytest.skip("Go or golang-golang-x-mod-dev is not installed")
    dir = tmp_path_factory.mktemp("judge")
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(dir / "cache")}
    sources = sorted((pathlib.Path(__file__).parent / "sumdb").glob("*.go"))
    subprocess.run(["go", "build", "-o", dir / "judge", *sources], check=True, env=env, timeout=300)
    return dir / "judge"


@pytest.fixture
def new_stack(builddir):
    """Makes stacks: new_stack(**options of config_text) -> provisioned and configured, not started. Ended by the test's end."""
    made = []

    def make(**options):
        # Not pytest's tmp_path: socket paths are short, and a test may come in as another uid.
        dir = tempfile.mkdtemp(prefix="custody-")
        os.chmod(dir, 0o755)
        stack = Stack(dir, builddir)
        made.append(stack)
        stack.provision()
        stack.write_config(**options)
        return stack

    yield make
    for stack in made:
        stack.remove()


@pytest.fixture
def stack(new_stack):
    """A started and initialised stack with the keys wga and wgb generated; uid 0 of any unit may do all."""
    stack = new_stack()
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    return stack


@pytest.fixture
def tunnel(tmp_path):
    """Two network namespaces joined by WireGuard devices that have no keys yet."""
    reason = tunnel_module.missing()
    if reason:
        pytest.skip(reason)
    with Tunnel(tmp_path) as t:
        yield t
