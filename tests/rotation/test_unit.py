# SPDX-License-Identifier: Apache-2.0
"""custody-applier.service permits what a rotation takes: hosts rotate under its capabilities and groups, by its system calls."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from custody import Fleet  # noqa: E402
from topology import PATIENCE, Topology, missing, wait_for  # noqa: E402

UNIT = HERE.parents[1] / "tools" / "applier" / "custody-applier.service.in"
SOCKET_UID, SOCKET_GROUP = 1, 61234  # custody.sock belongs to custodyd's user and group, neither of them root

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def settings(name):
    """The words that the unit gives the setting NAME."""
    return [word for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=") for word in line.split("=", 1)[1].split()]


def under_the_unit():
    """What starts a program with the unit's capabilities and groups alone, as root."""
    capabilities = ["-all", *("+" + name.removeprefix("CAP_").lower() for name in settings("CapabilityBoundingSet"))]
    assert settings("AmbientCapabilities") == settings("CapabilityBoundingSet")
    groups = f"--groups={SOCKET_GROUP}" if settings("SupplementaryGroups") == ["custody"] else "--clear-groups"
    return ["setpriv", "--no-new-privs", groups, *(f"--{which}={','.join(capabilities)}" for which in
                                                   ("bounding-set", "inh-caps", "ambient-caps"))]


def permitted_calls():
    """The system calls that SystemCallFilter= lets through."""
    sets, now = {}, None
    done = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            now = sets.setdefault(line.strip(), [])
        elif now is not None and line.strip() and not line.strip().startswith("#"):
            now.append(line.strip())

    def members(name):
        return {call for word in sets[name] for call in (members(word) if word.startswith("@") else [word])}
    return members("@default") | {call for word in settings("SystemCallFilter") for call in members(word)}


@pytest.fixture
def fleet(tmp_path):
    with Topology(tmp_path, kind="userspace") as net:
        fleet = Fleet(tmp_path, net)
        try:
            yield fleet.start()
        finally:
            fleet.close()


def test_hosts_rotate_with_the_units_privileges(fleet, tmp_path):
    hosts = list(fleet.hosts.values())
    for host in hosts:
        assert host.stop_applier() == 0
        os.chown(host.stack.socket, SOCKET_UID, SOCKET_GROUP)
        os.chmod(host.stack.socket, 0o660)
        host.start_applier(under=[*under_the_unit(), "strace", "-f", "-qq", "-e", "signal=none", "-o", tmp_path / f"calls-{host.name}"])
    for host in hosts:
        before = host.public_key()
        host.rotate()
        assert host.end.public_key() == host.public_key() != before
    for host in hosts:
        assert host.stop_applier() == 0
        traced = (tmp_path / f"calls-{host.name}").read_text()
        calls = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", traced, re.M))
        assert {"clone", "sendto", "fsync"} <= calls, "the trace is of something else"
        assert calls <= permitted_calls()
        families = set(re.findall(r"socket\((AF_[A-Z0-9]+)", traced))
        assert families <= set(settings("RestrictAddressFamilies"))


def test_without_the_group_the_socket_is_out_of_reach(fleet):
    host = list(fleet.hosts.values())[0]
    host.stop_applier()
    os.chown(host.stack.socket, SOCKET_UID, SOCKET_GROUP)
    host.start_applier(under=[word if not word.startswith("--groups") else "--clear-groups" for word in under_the_unit()])
    wait_for(lambda: "PERMISSION_DENIED" in host.applier_log.read_text(), "the refusal", PATIENCE, 0.05)
    assert host.end.public_key() == host.public_key()  # what is set stays set


def test_nothing_keeps_the_counterparts_datagrams_out():
    assert not settings("IPAddressDeny")
    assert {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"} <= set(settings("RestrictAddressFamilies"))
