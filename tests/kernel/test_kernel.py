# SPDX-License-Identifier: Apache-2.0
"""The applier and the whole stack on a real kernel's WireGuard: one guest is booted, each of its lines is a test."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import device_checks  # noqa: E402
from stack import default_builddir, find_program  # noqa: E402

LIMIT = 900  # seconds for the guest; about 150 on two idle cores
PROGRAMS = ("custodyd", "custody-keeper", "custodyctl", "custody-applier", "custody-audit", "device_driver",
            "device_test", "secret_finder")

# Everything that `inside` must have said.
EXPECTED = (
    "device: a fresh device has no key",
    "device: a key that is set is read back",
    "device: the same on a device of many peers",
    "device: a device is read while its peers change",
    "device: WireGuard's interfaces are listed, and no others",
    "device: an interface that does not exist is refused by name",
    "device: an interface that is no WireGuard is refused by name",
    "device: without CAP_NET_ADMIN it is refused",
    "device: wg(8) reads the key that was set",
    "device: setting a key leaves the peers alone",
    *(f"device: {check.__name__}" for check in device_checks.DEVICE_CHECKS),
    *(f"hold by {kind}: {check.__name__}" for kind in ("plug", "tbf") for check in device_checks.HOLD_CHECKS),
    *(f"hold by plug: {check.__name__}" for check in device_checks.ATTACH_CHECKS),
    "hold: auto takes plug where the kernel has it",
    "hold: our qdisc of another kind is refused",
    "adoption: two hosts come under custody and off their plaintext keys, and no packet is lost",
    "apply wga: set and confirmed",
    "apply wga: wg(8) shows what custodyctl shows",
    "apply wgb: set and confirmed",
    "apply wgb: wg(8) shows what custodyctl shows",
    "ping through the tunnel",
    "run: an interface made anew has its key set again",
    "run: the release says RESTORE and is recorded as applied",
    "secrets: once set by netlink, the key is not in the memory of the applier",
    "secrets: once set by netlink, the key is not in the memory of custodyd",
    "secrets: once set by netlink, the key is not in the memory of the keeper",
    "run: SIGTERM ends it cleanly",
    "apply on a device of more than 300 peers",
    "apply on a device of more than 300 peers: wg(8) agrees",
    "apply on no interface: exit 4",
    "apply on another kind of interface: exit 4",
    "a release that policy refuses: exit 1",
    "a release that policy refuses changes nothing",
    "a release that policy refuses is recorded",
    "attestation on a kernel without SO_PEERPIDFD tells uid, pid and program",
    "attestation: this kernel has no SO_PEERPIDFD",
    "custodyd ends cleanly",
    "custody-audit verifies the log",
)


@pytest.fixture(scope="module")
def told():
    """What the guest said: {line: passed}, and all its output."""
    builddir = default_builddir()
    for name in PROGRAMS:
        # In a build folder these are libtool's wrappers, which write beside themselves at their first run.
        subprocess.run([find_program(builddir, name), "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    done = subprocess.run([HERE / "guest", f"--limit={LIMIT}", "env", f"CUSTODY_BUILDDIR={builddir}", HERE / "inside"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT + 700,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    results = {}
    for line in done.stdout.splitlines():
        for word, passed in (("ok - ", True), ("not ok - ", False)):
            if line.startswith(word):
                name = line.removeprefix(word)
                results[name] = results.get(name, True) and passed
    return results, f"guest: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("what", EXPECTED)
def test_on_a_real_kernel(told, what):
    results, output = told
    assert results.get(what) is True, output


def test_nothing_else_failed(told):
    results, output = told
    assert set(results) == set(EXPECTED), output
    assert all(results.values()), output
