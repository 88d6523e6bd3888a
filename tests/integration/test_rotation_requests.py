# SPDX-License-Identifier: Apache-2.0
"""The requests of rotations: who may make them, in which order, what a crash leaves, and what custodyd does when it is due."""

import hashlib
import os
import pwd
import signal
import subprocess
import sys
import time

import pytest

from python_client import Client, Refused, frame, open_note, parse_vkey, pb
from stack import DEADLINE, children, wait_for
from test_daemon import HERE, events, reload, verify, wait_event

NOBODY = pwd.getpwnam("nobody")
PEER_KEY = bytes(range(1, 33))
MOVE = hashlib.sha256(b"r").hexdigest()


# ---- helpers ----

class Applier(Client):
    """A client that says what an applier and an operator say."""

    def __init__(self, stack):
        super().__init__(stack.socket)
        self.vkey = stack.log_vkey.read_text()

    def view(self, key="wga"):
        return self.call(get_view=pb.GetView(key=key))

    def watch(self, after, timeout_ms=20000):
        return self.send(watch_keys=pb.WatchKeys(after=after, timeout_ms=timeout_ms))

    def rotate(self, key="wga", ticket=""):
        return self.call(rotate_key=pb.RotateKey(key=key, ticket=ticket))

    def publish(self, generation=0, key="wga", **options):
        return self.call(publish_key=pb.PublishKey(key=key, generation=generation, **options))

    def end(self, generation, confirmed, key="wga", method="hold", detail=""):
        return self.call(end_rotation=pb.EndRotation(key=key, generation=generation, confirmed=confirmed, method=method,
                                                     detail=detail))

    def peer(self, state, generation=1, key="wga", peer="beta", peer_key="wg0", public_key=PEER_KEY, **options):
        if state in ("PEER_LATE", "PEER_ACKNOWLEDGED"):
            public_key = b""
        if state == "PEER_STAGED":
            options.setdefault("move_sha256", MOVE)
        return self.call(record_peer=pb.RecordPeer(
            key=key, state=pb.PeerState.Value(state), peer=peer, peer_key=peer_key, generation=generation,
            public_key=public_key, **options))

    def suspend(self, key="wga", ticket=""):
        return self.call(suspend_key=pb.SuspendKey(key=key, ticket=ticket))

    def resume(self, key="wga", ticket=""):
        return self.call(resume_key=pb.ResumeKey(key=key, ticket=ticket))

    def revoke(self, generation=0, key="wga", ticket=""):
        return self.call(revoke_key=pb.RevokeKey(key=key, generation=generation, ticket=ticket))

    def finding(self, finding, key="wga", **options):
        id = self.send(record_finding=pb.RecordFinding(key=key, finding=pb.Finding.Value(finding), **options))
        answer = self.receive()
        assert answer.id == id
        if answer.code != pb.OK:
            raise Refused(answer)

    def apply(self, generation=0, reason="BOOT", key="wga"):
        """Releases a generation and reports it applied."""
        released = self.release(key, self.vkey, generation=generation, reason=reason)
        self.report(released.lease)
        return released


def refuses(code, call, *words):
    with pytest.raises(Refused) as e:
        call()
    assert e.value.code == code, e.value
    for word in words:
        assert word in e.value.message, e.value.message


def generations(view):
    return {g.generation: pb.KeyState.Name(g.state) for g in view.generations}


def state_of(stack, key="wga"):
    with Applier(stack) as c:
        return generations(c.view(key))


@pytest.fixture
def active(stack):
    """A stack whose key wga has an active generation, 1."""
    with Applier(stack) as c:
        c.apply()
    return stack


def bundle(stack, note):
    """The fields of a signed note of this host."""
    lines = open_note(note, parse_vkey(stack.status()["host_vkey"]))
    return dict(line.split(" ", 1) for line in lines[1:])


def digest(note):
    """SHA-256 of a note's signed text."""
    return hashlib.sha256((note.rpartition("\n\n")[0] + "\n").encode()).hexdigest()


def trail(stack, key="wga", start="rotation.started"):
    """The key's events from the last `start` on, but for leases'."""
    names = [r["event"] for r in stack.records() if r.get("key") == key and r["event"] != "lease.expired"]
    return names[len(names) - 1 - names[::-1].index(start):]


# ---- a rotation, start to end ----

def test_rotation_confirmed(active):
    with Applier(active) as c:
        assert c.view().rotation.generation == 0
        view = c.rotate(ticket="CHG-1")
        assert (view.rotation.generation, view.rotation.ticket, view.rotation.reason) == (2, "CHG-1", pb.OPERATOR)
        assert generations(view) == {1: "ACTIVE", 2: "PRE_ACTIVE"}
        first = c.publish(2, address="10.0.0.1", port=51900).bundle
        fields = bundle(active, first)
        assert (fields["state"], fields["address"], fields["port"], fields["previous"]) == (
            "pre-active", "10.0.0.1", "51900", "-")
        assert c.view().rotation.bundle_sha256 == digest(first)
        c.peer("PEER_ACKNOWLEDGED", 2, acknowledged=pb.PEER_STAGED)
        c.apply(2, "ROTATION")
        # It is set, and not yet active: handshakes will tell.
        assert generations(c.view()) == {1: "ACTIVE", 2: "PRE_ACTIVE"}
        c.peer("PEER_ACKNOWLEDGED", 2, acknowledged=pb.PEER_MOVED)
        c.end(2, True, detail="both shook hands")
        view = c.view()
        assert generations(view) == {1: "DEACTIVATED", 2: "ACTIVE"}
        assert (view.rotation.generation, view.rotation.failures) == (0, 0) and view.rotation.ended_us > 0
        seen = [s.event for s in view.steps]
        second = c.publish(2).bundle
        fields = bundle(active, second)
        assert (fields["state"], fields["previous"]) == ("active", digest(first))
        c.end(2, True)  # asked again
    confirmed, = events(active, "rotation.confirmed")
    assert (confirmed["generation"], confirmed["method"], confirmed["detail"]) == (2, "hold", "both shook hands")
    assert trail(active) == [
        "rotation.started", "key.published", "peer.acknowledged", "release.granted", "release.applied",
        "peer.acknowledged", "rotation.confirmed", "key.deactivated", "key.activated", "key.published"]
    assert seen == trail(active)[:-1]
    verify(active)


def test_a_view_holds_the_latest_of_many_deactivated_generations(active):
    """A long grace and frequent rotations: what does not fit into a frame must not keep a key from being used."""
    with Applier(active) as c:
        for generation in range(2, 140):
            c.rotate()
            c.apply(generation, "ROTATION")
            c.end(generation, True)
        shown = generations(c.view())
    assert shown == {139: "ACTIVE", **{generation: "DEACTIVATED" for generation in range(11, 139)}}


def test_a_view_fits_its_frame_however_long_the_names_in_it_are(active):
    """As many counterparts as fill more than one frame, and the first part of the view as full as can be."""
    count = 900
    with Applier(active) as c:
        for i in range(count):
            c.peer("PEER_STAGED", peer=f"h{i:062}", move_sha256="0" * 64)
        for length in range(1, 64):
            c.peer("PEER_STAGED", peer="a" * length, move_sha256="0" * 64)
            view = c.view()
            assert view.more_peers and len(view.peers) > 400
            rest = c.call(get_view=pb.GetView(key="wga", peers_from=len(view.peers), as_of=view.as_of))
            assert len(view.peers) + len(rest.peers) == count + length


def test_rotation_rolled_back(active):
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
        c.end(2, False, detail="no handshake with beta")
        view = c.view()
        assert generations(view).get(2) in (None, "DESTROYING") and generations(view)[1] == "ACTIVE"
        assert (view.rotation.generation, view.rotation.failures) == (0, 1)
        wait_event(active, "key.destroyed")
        c.end(2, False)  # asked again
        c.apply(1, "ROLLBACK")
        assert bundle(active, c.publish(2).bundle)["state"] == "destroyed"
        assert generations(c.view()) == {1: "ACTIVE"}
        # The next attempt has a generation of its own.
        assert c.rotate().rotation.generation == 3
    assert len(events(active, "rotation.rolled-back")) == 1
    verify(active)


def test_pre_active_generation_is_used(active):
    active.generate("wga")
    with Applier(active) as c:
        assert c.rotate().rotation.generation == 2
    assert len(events(active, "key.generated")) == 3  # wga, wgb, and that one


def test_order(active):
    with Applier(active) as c:
        refuses("FAILED_PRECONDITION", lambda: c.end(2, True), "no rotation of key 'wga' to generation 2")
        refuses("FAILED_PRECONDITION", lambda: c.end(1, True))
        refuses("FAILED_PRECONDITION", lambda: c.rotate("wgz"), "not declared")
        refuses("INVALID_ARGUMENT", lambda: c.rotate("../x"))
        refuses("INVALID_ARGUMENT", lambda: c.rotate(ticket="x" * 128))
        c.rotate()
        refuses("FAILED_PRECONDITION", c.rotate, "under way")
        refuses("FAILED_PRECONDITION", lambda: c.end(2, True), "was not released")
        refuses("FAILED_PRECONDITION", lambda: c.end(3, True))
        # Neither destroyed nor activated by another way.
        refuses("FAILED_PRECONDITION",
                lambda: c.call(destroy_key=pb.DestroyKey(key="wga", generation=2)), "rotation")
        c.apply(2, "BOOT")
        assert generations(c.view()) == {1: "ACTIVE", 2: "PRE_ACTIVE"}
        refuses("INVALID_ARGUMENT", lambda: c.end(2, True, method="x" * 16), "method")
        refuses("INVALID_ARGUMENT", lambda: c.publish(2, address="10.0.0.1"), "port")
        refuses("INVALID_ARGUMENT", lambda: c.publish(2, address="here", port=1), "address")
        refuses("NOT_FOUND", lambda: c.publish(7))
    verify(active)


def test_what_is_refused_in_part_is_refused_whole(active):
    """Two ends of one rotation in one breath: the second is let in, as the first is not recorded yet, and refused when
    it is its turn. With it go the key.deactivated and key.activated that belong to it."""
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
        frames = b""
        for confirmed in (False, True):
            c.last_id += 1
            frames += frame(pb.Request(id=c.last_id, end_rotation=pb.EndRotation(
                key="wga", generation=2, confirmed=confirmed, method="hold")).SerializeToString())
        c.send_bytes(frames)
        c.answer(c.last_id - 1)
        refuses("FAILED_PRECONDITION", lambda: c.answer(c.last_id), "no rotation is open")
        assert generations(c.view())[1] == "ACTIVE"
    assert not events(active, "key.deactivated")
    verify(active)


def test_key_without_generation(new_stack):
    stack = new_stack()
    stack.start().init()
    with Applier(stack) as c:
        refuses("FAILED_PRECONDITION", c.rotate, "key generate wga")
        assert generations(c.view()) == {}
        refuses("FAILED_PRECONDITION", lambda: c.suspend(), "no generation")


# ---- roles ----

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from python_client import Client, Refused, pb
asks = {
    "RotateKey": dict(rotate_key=pb.RotateKey(key="wga")),
    "SuspendKey": dict(suspend_key=pb.SuspendKey(key="wga")),
    "ResumeKey": dict(resume_key=pb.ResumeKey(key="wga")),
    "RevokeKey": dict(revoke_key=pb.RevokeKey(key="wga")),
    "GetView": dict(get_view=pb.GetView(key="wga")),
    "WatchKeys": dict(watch_keys=pb.WatchKeys(after=1 << 40, timeout_ms=0)),
    "PublishKey": dict(publish_key=pb.PublishKey(key="wga")),
    "EndRotation": dict(end_rotation=pb.EndRotation(key="wga", generation=99)),
    "RecordPeer": dict(record_peer=pb.RecordPeer(key="wga")),
    "RefreshKey": dict(refresh_key=pb.RefreshKey(key="wga")),
    "RecordFinding": dict(record_finding=pb.RecordFinding(key="wga")),
}
with Client(sys.argv[2]) as c:
    for name, ask in asks.items():
        id = c.send(**ask)
        answer = c.receive()
        print(name, pb.Code.Name(answer.code), flush=True)
"""

REQUESTS = {"RotateKey", "SuspendKey", "ResumeKey", "RevokeKey", "GetView", "WatchKeys", "PublishKey", "EndRotation",
            "RecordPeer", "RefreshKey", "RecordFinding"}


def allowed_to_nobody(stack):
    """What another user is not denied."""
    done = subprocess.run([sys.executable, "-B", "-c", CHILD, HERE, stack.socket], text=True, capture_output=True,
                          timeout=DEADLINE, user=NOBODY.pw_uid, group=NOBODY.pw_gid, extra_groups=[])
    assert done.returncode == 0, done.stderr
    answers = dict(line.split() for line in done.stdout.splitlines())
    assert set(answers) == REQUESTS
    return {name for name, code in answers.items() if code != "PERMISSION_DENIED"}


ROLES = {
    "applier": ({"GetView", "WatchKeys", "PublishKey", "EndRotation", "RecordPeer", "RefreshKey", "RecordFinding"},
                'grant "n" {{ uid = {uid} unit = "any" reasons = {{ "ROTATION" }} rate = "9/9" }}', ""),
    "applier without ROTATION": ({"GetView", "WatchKeys"},
                                 'grant "n" {{ uid = {uid} unit = "any" reasons = {{ "BOOT" }} rate = "9/9" }}', ""),
    "operator": ({"RotateKey", "SuspendKey", "ResumeKey", "RevokeKey", "GetView", "WatchKeys", "PublishKey"}, "",
                 'operator "n" {{ uid = {uid} unit = "any" }}\n'),
    "auditor": ({"GetView", "WatchKeys"}, "", 'auditor "n" {{ uid = {uid} unit = "any" }}\n'),
    "nobody": (set(), "", ""),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be another user")
@pytest.mark.parametrize("role", ROLES)
def test_roles(new_stack, role):
    allowed, grant, extra = ROLES[role]
    stack = new_stack(socket_group="nogroup", keys=("wga",), key_options=grant.format(uid=NOBODY.pw_uid),
                      extra=extra.format(uid=NOBODY.pw_uid))
    stack.start().init()
    stack.generate("wga")
    assert allowed_to_nobody(stack) == allowed
    def denied():
        return {r["request"] for r in events(stack, "access.denied") if r["actor"]["uid"] == NOBODY.pw_uid}
    wait_for(lambda: denied() == REQUESTS - allowed, "all that was denied recorded")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be another user")
def test_applier_of_one_key_is_not_of_another(new_stack):
    stack = new_stack(socket_group="nogroup", keys=("wga",), extra=(
        f'key "wgb" {{ grant "n" {{ uid = {NOBODY.pw_uid} unit = "any" reasons = {{ "ROTATION" }} rate = "9/9" }} }}\n'))
    stack.start().init()
    stack.generate("wga", "wgb")
    assert allowed_to_nobody(stack) == {"WatchKeys"}


# ---- counterparts ----

def test_counterparts_key(active):
    with Applier(active) as c:
        answer = c.peer("PEER_STAGED", 4)
        fields = bundle(active, answer.note)
        assert fields["host"] == "alpha" and fields["peer"] == "beta" and fields["peer-key"] == "wg0"
        assert (fields["generation"], fields["state"], fields["move-sha256"]) == ("4", "staged", MOVE)
        peer, = c.view().peers
        assert (peer.host, peer.key, peer.generation, peer.state) == ("beta", "wg0", 4, pb.PEER_STAGED)
        assert peer.public_key == PEER_KEY and peer.staged_us > 0 and peer.moved_us == 0
        assert c.peer("PEER_MOVED", 4).note == ""
        assert c.view().peers[0].state == pb.PEER_MOVED
        other = bytes(32 * [7])
        refuses("FAILED_PRECONDITION", lambda: c.peer("PEER_STAGED", 4, public_key=other), "another public key")
        refuses("FAILED_PRECONDITION", lambda: c.peer("PEER_STAGED", 3, public_key=other), "below")
        c.peer("PEER_STAGED", 5, public_key=other)
        c.peer("PEER_MOVED", 5, public_key=other)
        assert bundle(active, c.peer("PEER_RETIRED", 4).note)["state"] == "retired"
        assert "note" not in [f[0].name for f in c.peer("PEER_LATE", 1, detail="no handshake").ListFields()]
    assert [r["event"] for r in active.records() if r["event"].startswith("peer.")] == [
        "peer.staged", "peer.moved", "peer.staged", "peer.moved", "peer.retired", "peer.late"]
    verify(active)


def test_peer_steps_that_are_wrong(active):
    with Applier(active) as c:
        for bad in (dict(peer="Beta"), dict(peer_key=".x"), dict(generation=0), dict(public_key=b"short"),
                    dict(move_sha256="ABC"), dict(move_sha256=MOVE.upper()), dict(detail="x" * 448)):
            refuses("INVALID_ARGUMENT", lambda: c.peer("PEER_STAGED", **{"generation": 1, **bad}))
        refuses("INVALID_ARGUMENT", lambda: c.peer("PEER_STATE_UNSPECIFIED"))
        refuses("INVALID_ARGUMENT", lambda: c.peer("PEER_ACKNOWLEDGED"), "acknowledged")
        refuses("INVALID_ARGUMENT", lambda: c.peer("PEER_ACKNOWLEDGED", acknowledged=pb.PEER_LATE), "acknowledged")
        refuses("FAILED_PRECONDITION", lambda: c.peer("PEER_ACKNOWLEDGED", 9, acknowledged=pb.PEER_STAGED))
        refuses("FAILED_PRECONDITION", lambda: c.call(refresh_key=pb.RefreshKey(key="wga")), "published")
    assert not [r for r in active.records() if r["event"].startswith("peer.")]


def test_a_view_of_many_counterparts_comes_in_parts(active):
    """However many there are, each answer fits a frame; together they are the state, each counterpart once and in order."""
    count = 1500  # more than two frames hold
    names = sorted((f"a-counterpart-with-a-rather-long-name-{i}", i) for i in range(1, count + 1))
    with Applier(active) as c:
        waiting = []
        for name, i in names:
            waiting.append(c.send(record_peer=pb.RecordPeer(
                key="wga", state=pb.PEER_MOVED, peer=name, peer_key="wg0", generation=i, public_key=i.to_bytes(32, "big"))))
            if len(waiting) == 8:
                c.answer(waiting.pop(0))
        for id in waiting:
            c.answer(id)
        c.peer("PEER_MOVED", key="wgb")  # of another key
        first = c.view()
        view, seen, parts = first, [(p.host, p.generation) for p in first.peers], 1
        while view.more_peers:
            view = c.call(get_view=pb.GetView(key="wga", peers_from=len(seen), as_of=first.as_of))
            assert view.as_of == first.as_of and view.peers and not view.generations and not view.HasField("rotation")
            seen += [(p.host, p.generation) for p in view.peers]
            parts += 1
        assert seen == names and parts > 2
        # What came is worth nothing once the state is another.
        c.peer("PEER_MOVED", peer="zeta")
        refuses("ABORTED", lambda: c.call(get_view=pb.GetView(key="wga", peers_from=1, as_of=first.as_of)), "beginning")
        # An operator's answer is as whole as it can be, and the key's own part always is.
        assert c.rotate().rotation.generation == 2
    shown = active.ctl("--json", "key", "history", "wga")
    assert shown.returncode == 0, shown.stderr


def test_a_view_of_many_preshared_keys_comes_in_parts(new_stack):
    """They follow the counterparts, each once."""
    stack = new_stack(key_options="psk-lifetime = 86400")
    stack.start().init()
    stack.generate("wga")
    names = sorted(f"a-counterpart-with-a-rather-long-name-{i}" for i in range(1500))  # more than a frame holds
    with Applier(stack) as c:
        c.apply()
        c.peer("PEER_MOVED", peer=names[0])
        waiting = []
        for name in names:
            waiting.append(c.send(make_psk=pb.MakePsk(key="wga", peer=name, peer_key="wg0", epoch=1, receive_key=os.urandom(32))))
            if len(waiting) == 8:
                c.answer(waiting.pop(0))
        for id in waiting:
            c.answer(id)
        view = first = c.view()
        peers, psks, parts = list(view.peers), [p.host for p in view.psks], 1
        while view.more_peers:
            view = c.call(get_view=pb.GetView(key="wga", peers_from=len(peers) + len(psks), as_of=first.as_of))
            peers += view.peers
            psks += [p.host for p in view.psks]
            parts += 1
        assert len(peers) == 1 and psks == names and parts > 1
    shown = stack.ctl("--json", "key", "history", "wga")
    assert shown.returncode == 0, shown.stderr


def test_freshness(active):
    with Applier(active) as c:
        published = c.publish(1).bundle
        fields = bundle(active, c.call(refresh_key=pb.RefreshKey(key="wga")).note)
        assert (fields["host"], fields["key"], fields["generation"], fields["bundle"]) == (
            "alpha", "wga", "1", digest(published))
    verify(active)


def test_findings_are_coalesced(active):
    with Applier(active) as c:
        for i in range(20):
            c.finding("NOTE_REJECTED", peer="beta", peer_key="wg0", detail=f"look {i}")
        c.finding("NOTE_REJECTED", peer="gamma")
        c.finding("DRIFT_FOUND", detail="a peer that nobody declared")
        refuses("INVALID_ARGUMENT", lambda: c.finding("FINDING_UNSPECIFIED"))
        refuses("INVALID_ARGUMENT", lambda: c.finding("DRIFT_FOUND", peer_key="wg0"), "peer")
        refuses("INVALID_ARGUMENT", lambda: c.finding("DRIFT_FOUND", peer="not a host"))
    active.stop()  # what is counted is recorded
    rejected = events(active, "note.rejected")
    assert [(r["peer"], r.get("detail"), r.get("count", 0)) for r in rejected] == [
        ("beta", "look 0", 0), ("gamma", None, 0), ("beta", "look 19", 18)]
    assert len(events(active, "drift.found")) == 1


# ---- watches ----

def test_watch(active):
    with Applier(active) as c, Applier(active) as other:
        seq = c.view().seq
        id = c.watch(seq)
        assert c.view().seq == seq  # calls go on meanwhile
        # Neither a finding nor a denial is a change, nor is what is about no key.
        other.finding("DRIFT_FOUND")
        refuses("NOT_FOUND", lambda: other.release("wga", other.vkey, generation=77))
        wait_event(active, "release.denied")
        assert id not in c.early
        other.rotate()
        answer = c.answer(id)
        assert answer.changed and answer.seq > seq
        assert c.view().rotation.generation == 2
        # What has happened by then is told at once.
        assert c.answer(c.watch(seq)).changed
        # What has not is not told before the time is over.
        began = time.monotonic()
        seq = c.view().seq
        wait_for(lambda: c.view().seq == (s := c.view().seq) and s, "the log at rest")
        answer = c.answer(c.watch(c.view().seq, 300))
        assert not answer.changed and time.monotonic() - began >= 0.2
        refuses("INVALID_ARGUMENT", lambda: c.answer(c.watch(0, 60001)), "timeout_ms")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be another user")
def test_watch_sees_only_what_the_caller_may_see(new_stack):
    uid = NOBODY.pw_uid
    stack = new_stack(socket_group="nogroup", keys=("wga",), extra=(
        f'key "wgb" {{ grant "n" {{ uid = {uid} unit = "any" reasons = {{ "ROTATION" }} rate = "9/9" }} }}\n'))
    stack.start().init()
    stack.generate("wga", "wgb")
    program = CHILD.split("asks = {")[0] + """
with Client(sys.argv[2]) as c:
    seq = c.call(get_view=pb.GetView(key="wgb")).seq
    id = c.send(watch_keys=pb.WatchKeys(after=seq, timeout_ms=30000))
    c.call(get_status=pb.GetStatus())
    print("watching", flush=True)
    print(c.answer(id).seq, flush=True)
"""
    with subprocess.Popen([sys.executable, "-B", "-c", program, HERE, stack.socket], text=True, stdout=subprocess.PIPE,
                          user=uid, group=NOBODY.pw_gid, extra_groups=[]) as process, Applier(stack) as c:
        assert process.stdout.readline() == "watching\n"
        c.rotate("wga")
        before = c.view("wga").seq
        c.rotate("wgb")
        assert int(process.stdout.readline()) > before


def test_watches_are_bounded_and_those_of_the_gone_make_room(active):
    limit, each = 256, 16
    clients = [Applier(active) for _ in range(limit // each)]
    try:
        seq = clients[0].view().seq
        for c in clients:
            for _ in range(each - 1):
                c.watch(seq, 60000)
        for c in clients:
            c.watch(seq, 60000)
        with Applier(active) as c:
            refuses("RESOURCE_EXHAUSTED", lambda: c.answer(c.watch(seq, 60000)), "watches")
            clients.pop().close()
            def room():
                try:
                    return c.answer(c.watch(seq, 1)) is not None
                except Refused as e:
                    assert e.code == "RESOURCE_EXHAUSTED"
            wait_for(room, "room for a watch")
    finally:
        for c in clients:
            c.close()


def test_a_stop_ends_watches(active):
    with Applier(active) as c:
        id = c.watch(c.view().seq, 60000)
        c.status()
        began = time.monotonic()
        assert active.stop() == 0
        assert time.monotonic() - began < 9  # that is, not by the drain's own patience
        refuses("UNAVAILABLE", lambda: c.answer(id), "stopping")
    assert active.records()[-1]["event"] == "daemon.stopped"


def test_watch_over_a_keeper_that_is_lost(active):
    with Applier(active) as c:
        id = c.watch(c.view().seq, 60000)
        c.status()
        os.kill(active.keeper_pid, signal.SIGKILL)
        assert c.answer(id).changed  # the log was read again
        assert c.view().seq > 0


# ---- crashes ----

def crash_within(stack, ask, keep, after):
    """Makes a request whose records stand in the file when custodyd and the keeper are killed, of which the first
    `keep` survive. `after`: the event of the first."""
    os.kill(stack.keeper_pid, signal.SIGSTOP)
    keeper = stack.keeper_pid
    with Applier(stack) as c:
        before = sum(1 for _ in stack.records())
        ask(c)
        wait_for(lambda: len(stack.records()) > before, "the records in the file")
        records = stack.records()
        stack.kill()
        os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{keeper}"), "the keeper gone")
    assert records[before]["event"] == after
    segment = sorted((stack.audit_dir / "log").glob("*.jsonl"))[-1]
    lines = segment.read_bytes().splitlines(keepends=True)
    drop = len(stack.records()) - before - keep
    assert drop >= 0
    segment.write_bytes(b"".join(lines[:len(lines) - drop]))
    stack.start()


def end_request(generation, confirmed):
    return lambda c: c.send(end_rotation=pb.EndRotation(key="wga", generation=generation, confirmed=confirmed,
                                                        method="hold"))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_crash_after_a_part_of_confirmed(active, keep):
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
    crash_within(active, end_request(2, True), keep, "rotation.confirmed")
    wait_for(lambda: state_of(active) == {1: "DEACTIVATED", 2: "ACTIVE"}, "what was half done finished")
    with Applier(active) as c:
        c.end(2, True)  # the applier, which had no answer, asks again
    for event in ("rotation.confirmed", "key.deactivated"):
        assert len(events(active, event)) == 1
    assert len(events(active, "key.activated")) == 2
    verify(active)


def test_crash_before_anything_of_confirmed(active):
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
    crash_within(active, end_request(2, True), 0, "rotation.confirmed")
    with Applier(active) as c:
        assert c.view().rotation.generation == 2
        c.end(2, True)
        assert generations(c.view()) == {1: "DEACTIVATED", 2: "ACTIVE"}
    verify(active)


@pytest.mark.parametrize("keep", [1, 2])
def test_crash_after_a_part_of_rolled_back(active, keep):
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
    crash_within(active, end_request(2, False), keep, "rotation.rolled-back")
    wait_for(lambda: state_of(active) == {1: "ACTIVE"}, "what was half done finished")
    with Applier(active) as c:
        c.end(2, False)
    wait_event(active, "key.destroyed")
    assert len(events(active, "rotation.rolled-back")) == 1
    assert active.status()["token"]["blobs"] == 2
    verify(active)


def test_crash_after_a_part_of_suspended(active):
    with Applier(active) as c:
        c.rotate()
    crash_within(active, lambda c: c.send(suspend_key=pb.SuspendKey(key="wga")), 1, "rotation.rolled-back")
    wait_for(lambda: state_of(active) == {1: "ACTIVE"}, "what was half done finished")
    with Applier(active) as c:
        assert not c.view().rotation.suspended
        assert c.suspend().rotation.suspended


def test_crash_after_revoked(active):
    crash_within(active, lambda c: c.send(revoke_key=pb.RevokeKey(key="wga")), 1, "key.revoked")
    wait_for(lambda: state_of(active) == {1: "COMPROMISED", 2: "PRE_ACTIVE"}, "the replacement")
    with Applier(active) as c:
        wait_for(lambda: c.view().rotation.generation == 2, "its rotation")
    assert events(active, "rotation.started")[-1]["reason"] == "OPERATOR"
    verify(active)


# ---- an operator's hold ----

def test_suspend_and_resume(active):
    with Applier(active) as c:
        assert c.suspend(ticket="INC-7").rotation.suspended
        since = events(active, "key.suspended")[0]
        assert "generation" not in since and since["ticket"] == "INC-7"
        refuses("FAILED_PRECONDITION", lambda: c.release("wga", c.vkey), "suspended by an operator since", since["time"][:19])
        refuses("FAILED_PRECONDITION", c.rotate, "suspended by an operator since")
        refuses("FAILED_PRECONDITION", c.suspend, "suspended already")
        assert c.release("wgb", c.vkey).generation == 1
        assert c.view().next_rotation_us == 0
    active.stop()
    active.start()
    with Applier(active) as c:
        refuses("FAILED_PRECONDITION", lambda: c.release("wga", c.vkey), "suspended")
        assert not c.resume(ticket="INC-7").rotation.suspended
        refuses("FAILED_PRECONDITION", c.resume, "not suspended")
        assert c.apply().generation == 1
    verify(active)


def test_suspend_rolls_an_open_rotation_back(active):
    with Applier(active) as c:
        c.rotate()
        view = c.suspend()
        assert (view.rotation.generation, view.rotation.failures, view.rotation.suspended) == (0, 1, True)
        wait_event(active, "key.destroyed")
        assert generations(c.view()) == {1: "ACTIVE"}
    assert [e for e in trail(active) if e != "key.destroyed"] == [
        "rotation.started", "rotation.rolled-back", "key.suspended", "key.destroying"]
    verify(active)


def test_suspend_lets_a_rotation_end_that_has_released_its_key(active):
    with Applier(active) as c:
        c.rotate()
        c.apply(2, "ROTATION")
        refuses("ABORTED", c.suspend, "ends within 60 s")
        c.end(2, True)
        assert c.suspend().rotation.suspended


# ---- revoking ----

def test_revoke(active):
    with Applier(active) as c:
        view = c.revoke(ticket="INC-8")
        assert generations(view) == {1: "COMPROMISED", 2: "PRE_ACTIVE"}
        assert (view.rotation.generation, view.rotation.reason, view.rotation.ticket) == (2, pb.OPERATOR, "INC-8")
        assert bundle(active, c.publish(1).bundle)["state"] == "compromised"
        refuses("FAILED_PRECONDITION", lambda: c.release("wga", c.vkey, generation=1), "compromised")
        # Nothing is active any more: what is set is active at once.
        c.apply(2, "ROTATION")
        assert generations(c.view()) == {1: "COMPROMISED", 2: "ACTIVE"}
        c.peer("PEER_ACKNOWLEDGED", 1, acknowledged=pb.PEER_RETIRED)
        c.end(2, True)
        view = c.view()
        assert view.rotation.generation == 0 and generations(view)[2] == "ACTIVE"
        assert [(s.event, s.peer, s.generation, s.peer_state) for s in view.steps if s.peer] == [
            ("peer.acknowledged", "beta", 1, pb.PEER_RETIRED)]
        refuses("FAILED_PRECONDITION", lambda: c.revoke(1), "compromised")
        refuses("NOT_FOUND", lambda: c.revoke(9))
    assert [r["ticket"] for r in events(active, "key.revoked")] == ["INC-8"]
    verify(active)


def test_revoke_rolls_an_open_rotation_back(active):
    with Applier(active) as c:
        c.rotate()
        view = c.revoke()
        assert view.rotation.generation == 3
        wait_event(active, "key.destroyed")
        assert generations(c.view()) == {1: "COMPROMISED", 3: "PRE_ACTIVE"}
    verify(active)


def test_revoke_of_what_is_not_active_makes_no_replacement(active):
    with Applier(active) as c:
        c.rotate()
        view = c.revoke(2)  # what the rotation leads to: it is kept as compromised, not destroyed
        assert generations(view) == {1: "ACTIVE", 2: "COMPROMISED"}
        assert view.rotation.generation == 0
        c.rotate()
        c.apply(3, "ROTATION")
        c.end(3, True)
        assert generations(c.revoke(1))[1] == "COMPROMISED"
        assert c.view().rotation.generation == 0
    verify(active)


def test_revoke_while_suspended_is_replaced_when_resumed(active):
    with Applier(active) as c:
        c.suspend()
        assert generations(c.revoke()) == {1: "COMPROMISED"}
        active.generate("wga")  # as a crash may leave it: generated, and no rotation to it
        assert c.view().rotation.generation == 0
        c.resume()
        wait_for(lambda: c.view().rotation.generation == 2, "the replacement's rotation")
        c.apply(2, "ROTATION")
        c.end(2, True)
        assert generations(c.view())[2] == "ACTIVE"
    verify(active)


def test_a_replacement_that_cannot_be_confirmed_stays(active):
    with Applier(active) as c:
        c.revoke()
        c.apply(2, "ROTATION")
        c.end(2, False, detail="nobody shook hands")
        view = c.view()
        assert generations(view)[2] == "ACTIVE" and view.rotation.generation == 0
        c.end(2, False)
    verify(active)


# ---- what is done by itself ----

SHORT = "lifetime = 5  grace = 1  window = 1  jitter = 2"


def carry_out(c, key="wga", confirmed=True):
    """What an applier does, from a rotation that is seen to its end; returns the generation."""
    view = wait_for(lambda: (v := c.view(key)).rotation.generation and v, "a rotation by itself")
    generation = view.rotation.generation
    c.apply(generation, "ROTATION", key)
    c.end(generation, confirmed, key)
    return generation


def test_schedule(new_stack):
    stack = new_stack(keys=("wga",), key_options=SHORT)
    stack.start().init()
    stack.generate("wga")
    with Applier(stack) as c:
        assert c.view().next_rotation_us == 0
        c.apply()
        view = c.view()
        due = view.next_rotation_us - view.generations[0].activated_us
        assert 3_000_000 <= due <= 5_000_000
        assert view.policy.lifetime_s == 5 and view.policy.jitter_s == 2
        assert carry_out(c) == 2
        started, = events(stack, "rotation.started")
        assert started["reason"] == "ROTATION" and "actor" not in started
        assert c.view().rotation.started_us == 0
        # The old generation has its grace, and is destroyed then, by itself.
        destroying = wait_event(stack, "key.destroying")[0]
        assert destroying["generation"] == 1 and "actor" not in destroying and "grace" in destroying["detail"]
        wait_event(stack, "key.destroyed")
        deactivated, = events(stack, "key.deactivated")
        assert destroying["time"] > deactivated["time"]
        # A rotation that is rolled back is followed by another, after a while.
        assert carry_out(c, confirmed=False) == 3
        assert c.view().next_rotation_us >= c.view().rotation.ended_us + 1_000_000
        assert carry_out(c) == 4
    verify(stack)


def test_a_time_that_was_missed_comes_at_the_start(new_stack):
    stack = new_stack(keys=("wga",), key_options=SHORT)
    stack.start().init()
    stack.generate("wga")
    with Applier(stack) as c:
        c.apply()
        due = c.view().next_rotation_us
    stack.stop()
    wait_for(lambda: time.time() * 1e6 > due, "the time passed")
    stack.start()
    wait_event(stack, "rotation.started")


def test_jitter_is_the_same_after_a_restart(new_stack):
    stack = new_stack(key_options="lifetime = 10000  jitter = 5000")
    stack.start().init()
    stack.generate("wga", "wgb")
    def shares():
        with Applier(stack) as c:
            return [(v := c.view(k)).next_rotation_us - v.generations[0].activated_us for k in ("wga", "wgb")]
    with Applier(stack) as c:
        c.apply()
        c.apply(key="wgb")
    before = shares()
    assert before[0] != before[1] and all(5_000_000_000 <= s <= 10_000_000_000 for s in before)
    stack.stop()
    stack.start()
    assert shares() == before


def test_a_key_that_nobody_can_rotate_is_not(new_stack):
    stack = new_stack(keys=("wga",), key_options=SHORT, reasons=("BOOT",))
    done = stack.run(stack.program("custodyd"), f"--config={stack.config}", "--check-config")
    assert done.returncode == 0 and "no grant for ROTATION" in done.stderr
    stack.start().init()
    stack.generate("wga")
    with Applier(stack) as c:
        c.apply()
        assert c.view().next_rotation_us == 0
    assert any("no grant for ROTATION" in w for w in stack.status()["warnings"])


def test_a_new_policy_counts_at_once(active):
    with Applier(active) as c:
        assert c.view().next_rotation_us == 0
        reload(active, active.config_text(key_options=SHORT))
        assert carry_out(c) == 2


def test_no_rotation_by_schedule_while_suspended(new_stack):
    stack = new_stack(keys=("wga",), key_options=SHORT)
    stack.start().init()
    stack.generate("wga")
    with Applier(stack) as c:
        c.apply()
        due = c.view().next_rotation_us
        c.suspend()
        wait_for(lambda: time.time() * 1e6 > due + 500_000, "the time passed")
        assert c.view().rotation.generation == 0
        c.resume()
        wait_for(lambda: c.view().rotation.generation == 2, "the rotation that was held")
    verify(stack)
