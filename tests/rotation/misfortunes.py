# SPDX-License-Identifier: Apache-2.0
"""What may befall two hosts in the middle of a rotation, other than a crash: each function does it to a crash_world.World, and
returns when it is over; what comes of it is for the world's judge. Returned sentences are problems."""

import contextlib
import os
import shutil
import signal
import tempfile
import time

from topology import PATIENCE
from stack import wait_for

from crash_world import KEY, WINDOW


@contextlib.contextmanager
def stopped(pid):
    """Inside, the process does nothing, as on a machine that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def bundles(world, host):
    folder = world.fleet.registry / host.name / KEY
    return {path.name for path in folder.glob("bundle-*")}


def begin_published(world):
    """Begins a rotation and waits until its bundle is in the registry."""
    before = bundles(world, world.turning)
    generation = world.turning.begin_rotation()
    wait_for(lambda: f"bundle-{generation}" in bundles(world, world.turning) - before, "the new bundle", PATIENCE)
    return generation


def move_away(world):
    """The registry is gone at once: whoever still writes there writes elsewhere."""
    os.rename(world.fleet.registry, tempfile.mkdtemp(dir=world.dir))


def registry_deleted(world):
    with stopped(world.other.applier.pid):
        begin_published(world)
        move_away(world)
        world.fleet.registry.mkdir()
    world.turning.wait_rotation()


def registry_set_back(world):
    """A mirror that shows yesterday's content, again and again."""
    old = world.dir / "old-registry"
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(world.fleet.registry, old)
    with stopped(world.other.applier.pid):
        begin_published(world)
        for _ in range(5):
            move_away(world)
            shutil.copytree(old, world.fleet.registry, dirs_exist_ok=True)  # an applier may have written there
            time.sleep(0.1)
    world.turning.wait_rotation()


def custodyd_hangs(world):
    """Longer than the applier waits for an answer, and than the window."""
    with stopped(world.other.applier.pid):
        begin_published(world)
        with stopped(world.turning.stack.custodyd.pid):
            time.sleep(WINDOW + 1)
    world.turning.wait_rotation()


def counterparts_custodyd_hangs(world):
    with stopped(world.other.stack.custodyd.pid):
        world.turning.begin_rotation()
        world.turning.wait_rotation()


def counterpart_dead(world):
    """Its applier is not there for the whole rotation: rolled back, and nobody notices."""
    world.other.stop_applier(signal.SIGKILL)
    before = world.active(world.turning)
    world.turning.begin_rotation()
    world.turning.wait_rotation()
    world.other.start_applier()
    return [] if world.active(world.turning) == before else ["confirmed without the counterpart that was required"]


def counterpart_blocked(world):
    with stopped(world.other.applier.pid):
        begin_published(world)
        world.net.block(world.net.clients[0])
    try:
        world.turning.wait_rotation()
    finally:
        world.net.unblock(world.net.clients[0])


def interface_made_anew(world):
    """As after a reboot: without key, peers and qdisc."""
    with stopped(world.other.applier.pid):
        begin_published(world)
        world.net.recreate(world.turning.end)
    world.turning.wait_rotation()


def counterparts_interface_made_anew(world):
    with stopped(world.other.applier.pid):
        begin_published(world)
        world.net.recreate(world.other.end)
    world.turning.wait_rotation()


def both_rotate(world):
    """The lower host id goes first; the other's is rolled back or follows."""
    hosts = sorted((world.turning, world.other), key=lambda host: host.name)
    before = world.active(hosts[0])
    for host in hosts:
        host.begin_rotation()
    for host in hosts:
        host.wait_rotation()
    return [] if world.active(hosts[0]) > before else [f"{hosts[0].name} goes first, and its rotation was rolled back"]


def both_rotate_parted(world):
    """The same while nothing passes between them."""
    world.net.block(world.net.clients[0])
    try:
        for host in (world.turning, world.other):
            host.begin_rotation()
        time.sleep(2)
    finally:
        world.net.unblock(world.net.clients[0])
    for host in (world.turning, world.other):
        host.wait_rotation()


ALL = {"the registry is deleted": registry_deleted, "the registry is set back": registry_set_back,
       "custodyd hangs": custodyd_hangs, "the counterpart's custodyd hangs": counterparts_custodyd_hangs,
       "the counterpart is dead": counterpart_dead, "nothing reaches the counterpart": counterpart_blocked,
       "the interface is made anew": interface_made_anew,
       "the counterpart's interface is too": counterparts_interface_made_anew,
       "both ends rotate": both_rotate, "both ends rotate, parted": both_rotate_parted}
