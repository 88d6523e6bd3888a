# SPDX-License-Identifier: Apache-2.0
"""Whoever can write in the registry changes nothing: two hosts under custody, with traffic, and an attacker's notes there.

The applier that owns a folder puts it right as soon as it sees it: it is stopped meanwhile, as if the attacker were always
faster."""

import shutil
import time

import pytest

from topology import PATIENCE, missing  # first: it tells where the next ones are
from stack import wait_for

from crash_world import KEY, World
from misfortunes import stopped

RESCAN = 2  # seconds, as Host.write_applier_config has it
FEW = 64

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def world():
    """A world whose `first_bundle` is what was in the registry of a generation that is retired by now. In the end nothing
    was lost, whatever was done to it."""
    with World() as world:
        if world.net.kernel:
            pytest.skip("its devices are wireguard-go's")
        world.first_bundle = (folder(world) / "bundle-1").read_text()
        for _ in range(2):
            world.turning.rotate()
        wait_for(lambda: not world.wrong(), "the old keys' retirement", PATIENCE)
        yield world
        assert world.lost() == {}


def folder(world):
    """Where the turning host's notes are."""
    return world.fleet.registry / world.turning.name / KEY


def devices(world):
    """What both interfaces have: keys, peers and their allowed-ips."""
    return [(host.end.device.public_key(), {public: sorted(peer.allowed_ips) for public, peer in host.end.device.peers().items()})
            for host in (world.turning, world.other)]


def rejected(world, words):
    """What the counterpart's log says of notes that it refused, as far as WORDS are in it."""
    return [r["detail"] for r in world.other.stack.records() if r["event"] == "note.rejected" and words in r.get("detail", "")]


def refusals(world):
    """How many its log tells of: many within ten seconds become one record more, with a count."""
    return sum(1 + r.get("count", 0) for r in world.other.stack.records() if r["event"] == "note.rejected")


def put(path, text):
    """As the appliers do it: at once."""
    fresh = path.with_name(".attack")
    fresh.write_text(text)
    fresh.rename(path)


def attack(world, path, text, kind):
    """Puts the note; it is refused as KIND, once, however often it is looked at, and nothing changes."""
    before = devices(world)
    words = f"{kind}: {path.relative_to(world.fleet.registry)}"
    with stopped(world.turning.applier.pid):
        put(path, text)
        wait_for(lambda: rejected(world, words), f"a record of a note that is {words}", PATIENCE)
        # It looks again with the next one, which is another.
        told = refusals(world)
        put(path.with_name("bundle-77"), f"nonsense beside {path.name}\n")
        wait_for(lambda: refusals(world) > told, "a second look", PATIENCE)
        assert len(rejected(world, words)) == 1
        assert devices(world) == before
        path.with_name("bundle-77").unlink()
    wait_for(lambda: not world.wrong(), "all as before", PATIENCE)
    assert devices(world) == before


def test_the_folder_is_deleted(world):
    before, active = devices(world), world.turning.generation("ACTIVE").generation
    with stopped(world.turning.applier.pid):
        shutil.rmtree(folder(world))
        wait_for(lambda: rejected(world, "withheld"), "a record that something is withheld", PATIENCE)
        assert devices(world) == before
    wait_for(lambda: (folder(world) / f"bundle-{active}").exists(), "the bundle put again", PATIENCE)
    assert devices(world) == before


def test_a_bundle_of_long_ago_takes_the_place_of_the_newest(world):
    before, active = devices(world), world.turning.generation("ACTIVE").generation
    words = f"retired: {world.turning.name}/{KEY}/bundle-1: "  # between the two steps, that it is withheld may be recorded, too
    with stopped(world.turning.applier.pid):
        (folder(world) / f"bundle-{active}").unlink()
        put(folder(world) / "bundle-1", world.first_bundle)
        wait_for(lambda: rejected(world, words), "a record of the old bundle", PATIENCE)
        told = refusals(world)
        put(folder(world) / "bundle-77", "nonsense\n")
        wait_for(lambda: refusals(world) > told, "a second look", PATIENCE)
        assert len(rejected(world, words)) == 1
        assert devices(world) == before
        (folder(world) / "bundle-77").unlink()
    wait_for(lambda: (folder(world) / f"bundle-{active}").exists(), "the bundle put again", PATIENCE)
    assert devices(world) == before and not world.wrong()


def test_a_bundle_is_forged(world):
    active = world.turning.generation("ACTIVE").generation
    note = (folder(world) / f"bundle-{active}").read_text()
    attack(world, folder(world) / f"bundle-{active + 1}", note.replace(f"generation {active}\n", f"generation {active + 1}\n"),
           "forged")


def test_a_bundle_of_another_place(world):
    """A true one of the counterpart's own, put as if it were the turning host's."""
    theirs = world.other.generation("ACTIVE").generation
    note = (world.fleet.registry / world.other.name / KEY / f"bundle-{theirs}").read_text()
    above = folder(world) / f"bundle-{world.turning.generation('ACTIVE').generation + 2}"
    attack(world, above, note, "forged")


def test_a_flood(world):
    before = devices(world)
    with stopped(world.turning.applier.pid):
        for i in range(2000):
            (folder(world) / f"bundle-{10 ** 6 + i}").write_text(f"nonsense {i}\n")
        wait_for(lambda: rejected(world, "bundle-100"), "a record of one of them", PATIENCE)
        time.sleep(3 * RESCAN)
        assert len(rejected(world, "bundle-100")) <= FEW  # who floods the registry does not flood the log
        assert devices(world) == before
    wait_for(lambda: len(list(folder(world).iterdir())) < 100, "the flood cleared by the folder's owner", PATIENCE)
    assert devices(world) == before
    world.turning.rotate()
    wait_for(lambda: not world.wrong(), "the old key's retirement", PATIENCE)
