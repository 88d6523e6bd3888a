# SPDX-License-Identifier: Apache-2.0
"""A host whose interface wg-quick(8) makes: adopted, its file changed as it is told to be, and set up again from that file."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from topology import PATIENCE, Topology, default_builddir, find_program, inside, missing, wait_for  # noqa: E402
from estate import ADOPTED, TO_CHANGE, Estate  # noqa: E402

pytestmark = pytest.mark.skipif(missing() is not None or shutil.which("wg-quick") is None, reason="no tunnel, or no wg-quick")
FILES = "/etc/wireguard"
WHILE_OTHERS_ARE_THERE = 'mount --bind "$0" ' + FILES + ' && exec "$@"'  # $0: the folder


class QuickHost:
    """The client of an estate, whose interface is made by wg-quick, from a folder of its own in the place of /etc/wireguard."""

    def __init__(self, dir, estate):
        self.estate, self.end = estate, estate.client
        self.folder = dir / "wireguard"
        self.folder.mkdir(mode=0o700)
        self.file = self.folder / f"{self.end.interface}.conf"
        programs = dir / "programs"  # as an operator has them in his PATH
        programs.mkdir()
        (programs / "custody-applier").symlink_to(find_program(default_builddir(), "custody-applier"))
        self.env = {**estate.host(self.end).stack.env(), "WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"}
        self.env["PATH"] = f"{programs}:{os.environ['PATH']}"
        estate.under = ("unshare", "--mount", "sh", "-c", WHILE_OTHERS_ARE_THERE, self.folder)

    def write_old_file(self):
        net, server = self.estate.net, self.estate.server
        self.file.write_text(f"[Interface]\nAddress = {self.end.inner}/24\nListenPort = {self.end.port}\n"
                             f"# made by hand\nPrivateKey = {self.end.key.private}\n\n[Peer]\nPublicKey = {server.key.public}\n"
                             f"Endpoint = {server.outer}:{server.port}\nAllowedIPs = {net.inner_prefix(server)}\n")

    def change_as_told(self, told):
        """Takes out the lines that the adoption names, and puts in those that it shows."""
        lines = self.file.read_text().splitlines()
        named = re.findall(rf"^  {FILES}/{self.file.name}:(\d+)(?:-(\d+))?: remove ", told, re.MULTILINE)
        assert len(named) == 2, told  # the key, the peer
        gone = {n for first, last in named for n in range(int(first), int(last or first) + 1)}
        shown = re.findall(r"^  (Post\w+ = .+)$", told, re.MULTILINE)
        assert shown, told
        kept = [line for n, line in enumerate(lines, 1) if n not in gone]
        at = kept.index("[Interface]") + 1
        self.file.write_text("\n".join(kept[:at] + shown + kept[at:]) + "\n")

    def quick(self, verb):
        done = subprocess.run([str(a) for a in (*inside(self.end.netns), *self.estate.under, "wg-quick", verb, self.end.interface)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, env=self.env)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def route(self):
        prefix = self.estate.net.inner_prefix(self.estate.server)
        return self.end.run("ip", "route", "show", prefix, "dev", self.end.interface).stdout

    def has_its_key(self):
        return self.end.public_key() == self.estate.host(self.end).public_key()

    def answers(self):
        return self.end.run("ping", "-q", "-c", 1, "-w", PATIENCE, self.estate.server.inner, timeout=PATIENCE + 10,
                            check=False).returncode == 0


@pytest.fixture
def quick(tmp_path):
    up = find_program(default_builddir(), "custody-applier")
    with Topology(tmp_path, kind="userspace", clients=1, before_up=lambda end: end.run(up, "up", end.interface)) as net:
        net.connect()
        estate = Estate(tmp_path, net)
        host = QuickHost(tmp_path, estate)
        host.write_old_file()
        net.clients[0].remove_device()
        host.quick("up")
        try:
            estate.start()
            yield host
        finally:
            estate.fleet.close()
            net.clients[0].run("ip", "link", "del", net.clients[0].interface, check=False)


def test_an_interface_of_wg_quicks_is_adopted_and_comes_up_from_its_new_file(quick):
    estate, end = quick.estate, quick.end
    assert quick.answers()
    estate.adopt(end, TO_CHANGE)
    estate.adopt(estate.server, ADOPTED)
    told = estate.adopt(end, ADOPTED).stdout
    quick.change_as_told(told)
    assert end.key.private not in quick.file.read_text() and "[Peer]" not in quick.file.read_text()
    # While the applier runs: it may have set key and peers before wg-quick takes them off again.
    for _ in range(3):
        quick.quick("down")
        quick.quick("up")
        wait_for(quick.has_its_key, f"custody's key\n{estate.fleet.logs()}", PATIENCE, 0.02)
        assert quick.answers(), estate.fleet.logs()
        assert quick.route(), "the route to what its peer is allowed"
    # And as a machine starts: first wg-quick, then the applier.
    estate.host(end).stop_applier()
    quick.quick("down")
    quick.quick("up")
    assert end.public_key() == "(none)"
    estate.host(end).start_applier()
    wait_for(quick.has_its_key, f"custody's key\n{estate.fleet.logs()}", PATIENCE, 0.02)
    assert quick.answers(), estate.fleet.logs()
