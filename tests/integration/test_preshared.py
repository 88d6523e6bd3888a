# SPDX-License-Identifier: Apache-2.0
"""Preshared keys from one end to the other: two hosts under custody, a registry, wireguard-go, and traffic all the while."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "rotation"))

import topology  # noqa: E402
from custody import KEY, Fleet  # noqa: E402
from stack import tail, wait_for  # noqa: E402
from traffic import Traffic  # noqa: E402

pytestmark = pytest.mark.skipif(topology.missing() is not None, reason=str(topology.missing()))

PATIENCE = 60
OPTIONS = "grace = 600\n  window = 30\n  psk-lifetime = {}"


def records(host):
    """The host's log, as far as it is written."""
    lines = []
    for segment in sorted((host.stack.dir / "audit" / "log").glob("*.jsonl")):
        lines += [json.loads(line) for line in segment.read_text().splitlines()]
    return lines


def of_psk(host):
    """[(event, epoch)] of the host's psk.* records, and of its preshared keys' releases."""
    return [(r["event"], r.get("epoch", 0)) for r in records(host)
            if r["event"].startswith("psk.") or (r["event"] == "release.granted" and r.get("purpose") == "preshared")]


def psk_on(end):
    """The preshared keys on an end's interface, each once; "" stands for none."""
    lines = end.wg("show", end.interface, "preshared-keys").splitlines()
    return {line.split("\t")[1].replace("(none)", "") for line in lines}


class Link:
    """A server and a client under custody, with one preshared key between them."""

    def __init__(self, dir, psk_lifetime=3600, takes=True):
        self.net = topology.Topology(dir, kind="userspace", clients=1)
        self.fleet, self.dir, self.psk_lifetime, self.takes = None, dir, psk_lifetime, takes

    def __enter__(self):
        self.net.__enter__()
        try:
            self.net.connect()
            self.fleet = Fleet(self.dir, self.net, key_options=OPTIONS.format(self.psk_lifetime))
            if not self.takes:
                taker = self.fleet.hosts[self.net.clients[0]]
                start = taker.start_custodyd
                taker.start_custodyd = lambda **options: start(**{**options, "key_options": OPTIONS.format(0)})
            self.fleet.start()
            for end in self.net.ends:
                ours = {other.public_key() for other, _, _ in self.fleet.peers_of(end)}
                for public in set(end.wg("show", end.interface, "peers").split()) - ours:
                    end.wg("set", end.interface, "peer", public, "remove")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        # As many peers on either side, so the lower host id makes the keys: host-1 is the server.
        self.maker, self.taker = self.hosts = [self.fleet.hosts[end] for end in self.net.ends]
        return self

    def __exit__(self, *exc):
        if self.fleet:
            self.fleet.close()
        self.net.__exit__(*exc)

    def wait_set(self, epoch, timeout=PATIENCE):
        """Waits until both ends have recorded this epoch, or a later one, as the latest set -> the key on both interfaces."""
        seen = set()

        def agreed():
            latest = {max((e for event, e in of_psk(host)[-40:] if event == "psk.set"), default=0) for host in self.hosts}
            seen.clear()  # in this order: what is recorded was on the interface before
            seen.update(psk_on(self.net.server) | psk_on(self.net.clients[0]))
            return len(seen) == len(latest) == 1 and "" not in seen and latest.pop() >= epoch
        wait_for(agreed, f"epoch {epoch} on both ends\n{self.fleet.logs()}", timeout, 0.05)
        return seen.pop()

    def latest(self, end):
        return max(int(line.split("\t")[1]) for line in
                   end.wg("show", end.interface, "latest-handshakes").splitlines())


def test_three_epochs_under_traffic_lose_nothing(tmp_path):
    """Each epoch is made, sent, received and set by both; the key rotation after it forces the handshake that proves it."""
    with Link(tmp_path, psk_lifetime=5) as link, Traffic(link.net, rate=200) as traffic:
        keys = [""]
        for epoch in (1, 2, 3):
            key = link.wait_set(epoch)
            assert key not in keys
            keys.append(key)
            traffic.mark(f"rotation.{epoch}")
            link.maker.rotate() if epoch % 2 else link.taker.rotate()
        account = traffic.finish()
        assert account.to_server.sent > 0 and (account.to_server.lost, account.to_client.lost) == (0, 0)
        for epoch in (1, 2, 3):
            assert ("psk.generated", epoch) in of_psk(link.maker) and ("psk.received", epoch) in of_psk(link.taker)
            assert ("release.granted", epoch) in of_psk(link.maker) and ("release.granted", epoch) in of_psk(link.taker)
        # The maker stores none; the taker what it may need still.
        assert not any(event in ("psk.received", "psk.destroyed") for event, _ in of_psk(link.maker))
        wait_for(lambda: ("psk.destroyed", 1) in of_psk(link.taker), "epoch 1 destroyed", PATIENCE, 0.1)
        for host in (link.maker, link.taker):
            text = "".join(p.read_text() for p in (host.stack.dir / "audit" / "log").glob("*.jsonl"))
            assert not any(key and key in text for key in keys)


def test_replays_and_others_boxes_are_refused(tmp_path):
    with Link(tmp_path, psk_lifetime=8) as link:
        link.wait_set(1)
        note = link.fleet.registry / link.maker.name / KEY / f"psk-made-{KEY}@{link.taker.name}"
        old = note.read_text()
        assert old.startswith("custody psk v1\n") and "epoch 1\n" in old
        wait_for(lambda: ("psk.set", 2) in of_psk(link.taker), "epoch 2 in use", PATIENCE, 0.1)
        before = of_psk(link.taker)

        def refused(words):
            return [r for r in records(link.taker) if r["event"] == "note.rejected" and words in r["detail"]]

        link.maker.stop_applier()  # it would put its own note back
        note.write_text(old)
        wait_for(lambda: refused("a replay"), "the replay refused", PATIENCE, 0.1)
        note.write_text(old.replace("epoch 1", "epoch 3"))
        wait_for(lambda: refused("forged"), "the forgery refused", PATIENCE, 0.1)
        assert [e for e in of_psk(link.taker) if e[0] == "psk.received"] == [e for e in before if e[0] == "psk.received"]


def test_a_lost_preshared_key_is_set_again(tmp_path):
    """An interface that has the peer without its preshared key gets it back, released for BOOT and recorded."""
    with Link(tmp_path) as link:
        key = link.wait_set(1)
        client, server = link.net.clients[0], link.net.server
        link.taker.stop_applier()
        client.wg("set", client.interface, "peer", server.public_key(), "preshared-key", "/dev/null")
        assert psk_on(client) == {""}
        link.taker.start_applier()
        wait_for(lambda: psk_on(client) == {key}, f"the key back\n{tail(link.taker.applier_log)}", PATIENCE, 0.1)
        wait_for(lambda: of_psk(link.taker).count(("psk.set", 1)) == 2, "and recorded", PATIENCE, 0.1)
        reasons = [r["reason"] for r in records(link.taker)
                   if r["event"] == "release.granted" and r.get("purpose") == "preshared"]
        assert reasons == ["ROTATION", "BOOT"]


def test_a_dead_counterpart_is_left_alone_and_converges(tmp_path):
    """Nothing is set while the other end has not said that it has the key; once it is back, both come to it."""
    with Link(tmp_path, psk_lifetime=6) as link:
        key = link.wait_set(1)
        link.taker.stop_applier()
        assert psk_on(link.net.server) == {key}
        wait_for(lambda: ("psk.generated", 2) in of_psk(link.maker), "epoch 2 made", PATIENCE, 0.1)
        link.maker.stop_applier()  # and the maker, started again, goes on from what the log and the registry say
        link.maker.start_applier()
        assert ("psk.set", 2) not in of_psk(link.maker) and psk_on(link.net.server) == {key}
        link.taker.start_applier()
        assert link.wait_set(2) != key


def test_an_end_that_takes_none_is_left_alone(tmp_path):
    """Where one end has no psk-lifetime, its bundle has no receive key, and the other makes nothing."""
    with Link(tmp_path, takes=False) as link:
        link.taker.rotate()  # long enough for several passes of both
        link.maker.rotate()
        assert of_psk(link.maker) == of_psk(link.taker) == []
        assert psk_on(link.net.server) | psk_on(link.net.clients[0]) == {""}
