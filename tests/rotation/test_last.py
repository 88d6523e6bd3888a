# SPDX-License-Identifier: Apache-2.0
"""The allowed-ips move once all has arrived that was sent under the old key: its host says LAST. That may be lost, too."""

import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from custody import Fleet, default_builddir  # noqa: E402
from topology import Topology, missing  # noqa: E402
from traffic import Traffic  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
ROTATIONS = 6
RATE = 1000  # datagrams a second, each way
LAST = 4  # its kind, PROTOCOL section 15
WAITED = 50  # ms that it is waited for, after the handshake


@pytest.fixture
def fleet(tmp_path):
    with Topology(tmp_path, kind="userspace") as net:
        fleet = Fleet(tmp_path, net, interface_extra='  method = "hold"\n  grace = 600')
        try:
            yield fleet.start()
        finally:
            fleet.close()


def rotate(fleet, end):
    """A few rotations, without loss -> how long packets waited in each, ms."""
    host = fleet.hosts[end]
    before = len(host.applier_log.read_text())
    with Traffic(fleet.net, rate=RATE) as traffic:
        for _ in range(ROTATIONS):
            host.rotate()
        account = traffic.finish()
    assert account.to_server.lost + account.to_client.lost <= account.overflowed, account.as_dict()
    waited = [int(ms) for ms in re.findall(r"outgoing packets waited for (\d+) ms", host.applier_log.read_text()[before:])]
    assert len(waited) == ROTATIONS
    return waited


def test_the_move_waits_for_last_and_not_for_ever(fleet):
    for end in fleet.net.ends:
        host = fleet.hosts[end]
        heard = rotate(fleet, end)
        assert min(heard) < WAITED, heard
        assert host.stop_applier() == 0
        host.start_applier(under=["env", f"LD_PRELOAD={default_builddir() / '.libs/lost_moves.so'}", f"LOST_MOVES={LAST}"])
        assert min(rotate(fleet, end)) >= WAITED
