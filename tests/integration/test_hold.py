# SPDX-License-Identifier: Apache-2.0
"""Packets held above wireguard-go and let go, by the qdiscs that this kernel has. (Both kinds: tests/kernel.)"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal

import pytest

import device_checks
import tunnel as tunnel_module
from stack import wait_for
from tunnel import Tunnel, ip

pytestmark = pytest.mark.skipif(tunnel_module.missing() is not None or not shutil.which("tc"),
                                reason=str(tunnel_module.missing() or "tc is not installed"))


def kernel_has(kind):
    """Whether the kernel takes that qdisc: tried on a device of our own."""
    name, netns = "try0", f"custody-q{os.getpid()}"
    options = {"plug": (), "tbf": ("rate", "1mbit", "burst", "1600", "limit", "1600")}[kind]
    ip("netns", "add", netns)
    try:
        ip("-n", netns, "link", "add", name, "type", "veth", "peer", "name", "try1")
        return ip("netns", "exec", netns, "tc", "qdisc", "add", "dev", name, "root", kind, *options, check=False).returncode == 0
    finally:
        ip("netns", "del", netns)


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    with Tunnel(tmp_path_factory.mktemp("tunnel")) as t:
        yield t


@pytest.fixture(params=["plug", "tbf"])
def kind(request):
    if not kernel_has(request.param):
        pytest.skip(f"this kernel has no sch_{request.param}")
    return request.param


@contextlib.contextmanager
def under_traffic(joined):
    """-> (device_checks.Traffic, device_checks.Driver) of the end `a`."""
    end = joined.a
    with device_checks.no_qdisc(end), device_checks.Traffic(joined) as traffic, device_checks.Driver(end, "none") as driver:
        yield traffic, driver


@pytest.mark.parametrize("check", device_checks.HOLD_CHECKS + device_checks.ATTACH_CHECKS, ids=lambda check: check.__name__)
def test_hold(joined, check, kind, tmp_path):
    check(joined, kind, pathlib.Path(tmp_path))


def is_stopped(pid):
    return all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
               for task in pathlib.Path(f"/proc/{pid}/task").iterdir())


@contextlib.contextmanager
def daemon_stopped(end):
    """Inside, wireguard-go has no processor."""
    os.killpg(end.process.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: is_stopped(end.process.pid), "each thread of the daemon stopped")
        yield
    finally:
        os.killpg(end.process.pid, signal.SIGCONT)


def dropped(end):
    """Packets that its interface had no room for."""
    link, = json.loads(end.run("ip", "-j", "-s", "link", "show", end.interface).stdout)
    return link["stats64"]["tx"]["dropped"]


def test_what_waited_finds_room_while_the_daemon_stands_still(joined, kind):
    """As many as a cutover lets wait at the most."""
    end = joined.a
    with under_traffic(joined) as (traffic, driver):
        driver.ask("hold", kind, 1 << 24)
        driver.ask("begin")
        traffic.send(800, 100)
        before = dropped(end)
        with daemon_stopped(end):
            driver.ask("end")
            assert int(driver.ask("pending").split()[0]) == 0 and dropped(end) == before


def test_drain_says_what_the_daemon_has_not_taken(joined, kind):
    end = joined.a
    with under_traffic(joined) as (traffic, driver):
        driver.ask("hold", kind, 1 << 20)
        for _ in range(5):  # what it takes for nothing under way is seen by one of them, however busy the machine
            traffic.send(1)
            traffic.arrive(1)
            driver.ask("begin")
            driver.ask("end")
        with daemon_stopped(end):
            traffic.send(5)
            driver.ask("begin")
            code, words = device_checks.refusal(driver.ask, "drain", 20)
            assert code == "DEADLINE_EXCEEDED" and end.interface in words
            assert int(re.search(r"(\d+) packets", words)[1]) >= 5  # and ours
        driver.ask("end")
        traffic.arrive(5)
        driver.ask("begin")
        driver.ask("drain", device_checks.PATIENCE * 1000)
        driver.ask("end")


def test_auto_takes_what_the_kernel_has(joined):
    wanted = next((kind for kind in ("plug", "tbf") if kernel_has(kind)), None)
    if wanted is None:
        pytest.skip("this kernel has neither sch_plug nor sch_tbf")
    with device_checks.no_qdisc(joined.a), device_checks.Driver(joined.a, "none") as driver:
        assert driver.ask("hold", "auto", 1 << 20) == f"{wanted} attached"
        if wanted == "tbf":
            code, words = device_checks.refusal(driver.ask, "hold", "plug", 1 << 20)
            assert code == "FAILED_PRECONDITION" and "our tbf" in words


def test_tbf_says_that_the_interface_is_down(joined):
    if not kernel_has("tbf"):
        pytest.skip("this kernel has no sch_tbf")
    end = joined.a
    with device_checks.no_qdisc(end), device_checks.Driver(end, "none") as driver:
        driver.ask("hold", "tbf", 1 << 20)
        end.run("ip", "link", "set", end.interface, "down")
        try:
            code, words = device_checks.refusal(driver.ask, "begin")
            assert code == "FAILED_PRECONDITION" and "is it up" in words
        finally:
            end.run("ip", "link", "set", end.interface, "up")
            end.run("ip", "addr", "replace", f"{end.inner}/24", "dev", end.interface)
        with device_checks.Traffic(joined) as traffic:
            traffic.send(3)
            traffic.arrive(3)
