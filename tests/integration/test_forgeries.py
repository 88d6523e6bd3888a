# SPDX-License-Identifier: Apache-2.0
"""The forgery table: what an outsider alters, and what an insider who holds the log's key signs anew. Each is found, in its
place and in its own words; the sound log beside it is not accused."""

import base64
import datetime
import hashlib
import json
import shutil

import nacl.signing
import pytest

from operators import Operators, encode
from stack import default_builddir
from test_audit import audit, make_log

SEEDS = {"log": 1, "next": 2, "other": 4}  # make_log's: 32 bytes of this
ONE, MANY, CHANGE, ROTATED = "one segment", "many segments", "a changed log key", "a rotated key"


# ---- the sound logs, and signing ----

def key_of(name):
    return nacl.signing.SigningKey(bytes([SEEDS[name]]) * 32)


def root_of(leaves):
    """RFC 6962 section 2.1."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def leaf(line):
    return hashlib.sha256(b"\x00" + line.rstrip(b"\n")).digest()


def head(lines, signer="log", origin="alpha/custody/log", size=None, root=None):
    """A checkpoint as C2SP has it: of these lines, unless told otherwise."""
    root = root if root is not None else root_of([leaf(line) for line in lines])
    text = f"{origin}\n{len(lines) if size is None else size}\n{base64.b64encode(root).decode()}\n"
    key = key_of(signer)
    name = "alpha/custody/log"
    id = hashlib.sha256(name.encode() + b"\n\x01" + bytes(key.verify_key)).digest()[:4]
    signature = base64.b64encode(id + key.sign(text.encode()).signature).decode()
    return f"{text}\n\u2014 {name} {signature}\n"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    dir = tmp_path_factory.mktemp("sound")
    logs = {
        ONE: make_log(dir / "one", 40, "--segment=10000"),
        MANY: make_log(dir / "many", 60, "--segment=15"),
        ROTATED: make_log(dir / "rotated", 40, "--segment=10000", "--rotation"),
        CHANGE: make_log(dir / "change", 60, "--segment=15", "--change-key=40"),
    }
    for log in logs.values():
        assert log.verify().returncode == 0, log.verify().stdout
    return logs


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    dir = tmp_path_factory.mktemp("operators")
    who = Operators(dir)
    who.make("eve")
    return who


class Forgery:
    """A copy of a sound log that can be altered; it is written back as it was cut into segments."""

    def __init__(self, log):
        self.log = log
        self.dir = log.dir
        self.parts = [(p, p.read_bytes().splitlines(keepends=True)) for p in log.segments()]

    def lines(self):
        return [line for _, lines in self.parts for line in lines]

    def write(self):
        for path, lines in self.parts:
            path.write_bytes(b"".join(lines))

    def place(self, index):
        for path, lines in self.parts:
            if index < len(lines):
                return lines, index
            index -= len(lines)
        raise IndexError(index)

    def change(self, index, **fields):
        """Fields of a record: changed in their place, left out (None), or added at the end."""
        lines, i = self.place(index)
        record = json.loads(lines[i])
        record.update(fields)
        lines[i] = encode({k: v for k, v in record.items() if v is not None})

    def replace(self, index, old, new):
        lines, i = self.place(index)
        assert old in lines[i]
        lines[i] = lines[i].replace(old, new, 1)

    def append(self, event, **fields):
        """One more record behind the last, with its number and time."""
        last = json.loads(self.lines()[-1])
        at = datetime.datetime.fromisoformat(last["time"][:-1]) + datetime.timedelta(seconds=fields.pop("after", 1))
        record = {"v": 1, "seq": last["seq"] + 1, "time": at.isoformat(timespec="microseconds") + "Z", "event": event,
                  "host": "alpha", **fields}
        self.parts[-1][1].append(encode(record))
        return record

    def number(self, first=0):
        """Numbers the records anew: a skilled insider leaves no gap."""
        seq = 0
        for _, lines in self.parts:
            for i, line in enumerate(lines):
                if seq >= first:
                    record = json.loads(line)
                    record["seq"] = seq
                    lines[i] = encode(record)
                seq += 1

    def sign(self, **options):
        """What whoever holds the log's key does after altering it: a head of the altered lines, and no tiles to disagree."""
        self.write()
        shutil.rmtree(self.dir / "tile", ignore_errors=True)
        (self.dir / "checkpoint").write_text(head(self.lines(), **options))


# ---- approvals ----

ACTOR = {"uid": 0, "gid": 0, "pid": 1}


def expiry(forgery, seconds=3600):
    last = json.loads(forgery.lines()[-1])
    at = datetime.datetime.fromisoformat(last["time"][:-1]) + datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="microseconds") + "Z"


def approval_text(requested):
    lines = ["custody approval v1", f"host {requested['host']}"]
    if requested["request_id"]:
        lines.append(f"request {requested['request_id']}")
    lines.append(f"operation {requested['operation']}")
    if requested["operation"] == "key.destroy":
        lines += [f"key {requested['key']}", f"generation {requested['generation']}", f"expires {requested['expires']}"]
    else:
        lines += [f"old-size {requested['old_size']}", f"old-root {requested['old_root']}",
                  f"new-size {requested['new_size']}", f"new-root {requested['new_root']}"]
    return "\n".join(lines) + "\n"


def request(forgery, **changes):
    return forgery.append("approval.requested", **{**dict(actor=ACTOR, key="wg0", generation=1, expires=expiry(forgery),
                                                         request_id="ab" * 16, operation="key.destroy"), **changes})


def approve(forgery, operators, requested, name, text=None, key=None, **changes):
    armour = operators.sign(key or name, text or approval_text(requested)).read_text()
    signature = "".join(line for line in armour.splitlines() if not line.startswith("-"))
    public = " ".join(operators.public(key or name).split()[:2])
    forgery.append("approval.given", **{**dict(actor=ACTOR, request_id=requested["request_id"], operator=name,
                                              operator_key=public, signature=signature), **changes})


def destroy(forgery, id="ab" * 16):
    forgery.append("key.destroying", actor=ACTOR, key="wg0", generation=1, **({"request_id": id} if id else {}))


def approved(forgery, operators):
    requested = request(forgery)
    approve(forgery, operators, requested, "ann")
    approve(forgery, operators, requested, "bob")
    destroy(forgery)


def loss(forgery, operators, names=("ann", "bob"), **changes):
    """Operators accept that records 40 to 49 are gone."""
    lines = forgery.lines()
    requested = {"host": "alpha", "request_id": "", "operation": "log.accept-loss", "old_size": 50,
                 "old_root": base64.b64encode(bytes([7]) * 32).decode(), "new_size": len(lines),
                 "new_root": base64.b64encode(root_of([leaf(line) for line in lines])).decode(), **changes}
    id = hashlib.sha256(approval_text(requested).encode()).hexdigest()[:32]
    requested["request_id"] = id
    heads = {k: requested[k] for k in ("old_size", "old_root", "new_size", "new_root")}
    forgery.append("approval.requested", actor=ACTOR, request_id=id, operation="log.accept-loss", **heads)
    for name in names:
        approve(forgery, operators, requested, name)
    forgery.append("log.loss-accepted", actor=ACTOR, request_id=id, **heads)


# ---- the table ----
# name, log, what is done (an insider's signs the log anew), and the words of the finding it must lead to.

def outsider(change):
    def forge(f, who):
        change(f, who)
        f.write()
    return forge


def insider(change, **options):
    def forge(f, who):
        change(f, who)
        f.sign(**options)
    return forge


def swap(lines, i, j):
    lines[i], lines[j] = lines[j], lines[i]


def drop(f, *indices):
    """Records left out, those after them numbered anew."""
    for index in sorted(indices, reverse=True):
        f.parts[0][1].pop(index)
    f.number(min(indices))


def repeat(f, index):
    f.parts[0][1].insert(index, f.parts[0][1][index])
    f.number(index)


def peer(f, step, generation):
    """A step with beta's wg0, by the key that make_log gives that generation."""
    f.append(f"peer.{step}", key="wg0", peer="beta", peer_key="wg0", peer_generation=generation,
             peer_public_key=base64.b64encode(bytes([100 + generation]) * 32).decode(),
             **({"move_sha256": "b" * 64} if step == "staged" else {}))


def grant(f):
    """The lease that record 38 opens and 39 closes, as fields."""
    return json.loads(f.lines()[38])["lease"]


def rename(f, old, new):
    (f.dir / "log" / old).rename(f.dir / "log" / new)


def drop_segment(f, n):
    f.parts[n][0].unlink()
    del f.parts[n]


def swap_segments(f):
    a, b = f.parts[1][1], f.parts[2][1]
    f.parts[1], f.parts[2] = (f.parts[1][0], b), (f.parts[2][0], a)


def overwrite(path, change):
    path.write_bytes(change(bytearray(path.read_bytes())))


def flip(data, at=0):
    data[at] ^= 1
    return data


def checkpoint(text):
    return lambda f, who: (f.dir / "checkpoint").write_text(text(f))


def truncate_record(data):
    return data[:-20]


TABLE = [
    # An outsider: files altered, nothing signed anew.
    ("a value edited", ONE, outsider(lambda f, w: f.replace(6, b'"pid":4242', b'"pid":4243')), "record and the tree's hash of it"),
    ("a line taken out", ONE, outsider(lambda f, w: f.parts[0][1].pop(7)), "1 record is missing before this"),
    ("two lines exchanged", ONE, outsider(lambda f, w: swap(f.parts[0][1], 10, 11)), "must stand here"),
    ("a line doubled", ONE, outsider(lambda f, w: f.parts[0][1].insert(10, f.parts[0][1][10])), "record 11 must stand here"),
    ("the last record cut off", ONE, outsider(lambda f, w: f.parts[0][1].pop()), "its signed head has 40"),
    ("cut off in a record", ONE, lambda f, w: overwrite(f.parts[0][0], truncate_record), "the line has no end"),
    ("all records cut off", ONE, outsider(lambda f, w: f.parts[0][1].clear()), "its signed head has 40"),
    ("the last segment deleted", MANY, lambda f, w: drop_segment(f, 3), "its signed head has 60"),
    ("a segment in the middle deleted", MANY, lambda f, w: drop_segment(f, 1), "records 15 to 29 are missing"),
    ("the first segment deleted", MANY, lambda f, w: drop_segment(f, 0), "records 0 to 14 are missing"),
    ("two segments exchanged", MANY, outsider(lambda f, w: swap_segments(f)), "by its name this segment begins with record 30"),
    ("a segment replayed as the next", MANY, lambda f, w: shutil.copy(f.parts[2][0], f.parts[3][0]), "must stand here"),
    ("a segment under another name", MANY, lambda f, w: rename(f, "000000000015.jsonl", "000000000016.jsonl"),
     "records 15 to 15 are missing before this segment"),
    ("CRLF", ONE, outsider(lambda f, w: f.replace(5, b"\n", b"\r\n")), "something follows the record"),
    ("a NUL in a line", ONE, outsider(lambda f, w: f.replace(5, b'"alpha"', b'"al\0pha"')), "control character"),
    ("invalid UTF-8", ONE, outsider(lambda f, w: f.replace(1, b'"0.1.0"', b'"0.1.\xff"')), "not UTF-8"),
    ("an overlong escape", ONE, outsider(lambda f, w: f.replace(1, b'"0.1.0"', b'"0.1.\\u0030"')), "escape of another form"),
    ("a byte order mark", ONE, outsider(lambda f, w: f.replace(0, b'{"v"', b'\xef\xbb\xbf{"v"')), "no record of version 1"),
    ("an empty line", ONE, outsider(lambda f, w: f.parts[0][1].insert(5, b"\n")), "no record of version 1"),
    ("white space in a record", ONE, outsider(lambda f, w: f.replace(5, b'"seq":5', b'"seq": 5')), "no canonical number in seq"),
    ("fields in another order", ONE, outsider(lambda f, w: f.replace(
        2, b'"key":"wg0","generation":1', b'"generation":1,"key":"wg0"')), "misplaced field"),
    ("an unknown field", ONE, outsider(lambda f, w: f.replace(5, b"}\n", b',"note":"x"}\n')), "unknown or misplaced field"),
    ("a field twice", ONE, outsider(lambda f, w: f.replace(
        5, b'"host":"alpha"', b'"host":"alpha","host":"alpha"')), "misplaced field"),
    ("another version", ONE, outsider(lambda f, w: f.replace(5, b'{"v":1,', b'{"v":2,')), "no record of version 1"),
    ("a number with a leading zero", ONE, outsider(lambda f, w: f.replace(5, b'"seq":5', b'"seq":05')), "no canonical number"),
    ("a day that is none", ONE, outsider(lambda f, w: f.replace(5, b"2026-11-22", b"2026-11-31")), "no time in time"),
    ("an unknown event", ONE, outsider(lambda f, w: f.replace(5, b"policy.loaded", b"policy.loathed")), "unknown value in event"),
    ("garbage behind the last record", ONE, outsider(lambda f, w: f.parts[0][1].insert(39, b"garbage\n")), "no record of version 1"),
    ("a line over the limit", ONE, outsider(lambda f, w: f.parts[0][1].insert(20, b"x" * 65536 + b"\n")), "longer than 65535 bytes"),
    ("a tile edited", MANY, lambda f, w: overwrite(next((f.dir / "tile/0").rglob("60")), flip), "the tree's hash of it in tile/0/000.p/60 differ"),
    ("a tile cut off", MANY, lambda f, w: overwrite(next((f.dir / "tile/0").rglob("60")), truncate_record), "size is wrong"),
    ("a snapshot edited", MANY, lambda f, w: overwrite(f.dir / "log/000000000030.snapshot", lambda d: flip(d, 30)),
     "not the one that log.sealed before it vouches for"),
    ("another segment's snapshot", MANY, lambda f, w: shutil.copy(
        f.dir / "log/000000000015.snapshot", f.dir / "log/000000000030.snapshot"), "not the one that log.sealed before it vouches for"),
    # Heads.
    ("no checkpoint", ONE, lambda f, w: (f.dir / "checkpoint").unlink(), "nothing says which records belong to the log"),
    ("a head signed by another key", ONE, checkpoint(lambda f: head(f.lines(), signer="other")), "not signed by alpha/custody/log"),
    ("a head's size raised", ONE, checkpoint(lambda f: (f.dir / "checkpoint").read_text().replace("\n40\n", "\n41\n")), "signature"),
    ("a head of another tree, signed", ONE, checkpoint(lambda f: head(f.lines(), root=bytes(32))), "root"),
    ("a head of more records, signed", ONE, checkpoint(lambda f: head(f.lines(), size=41)), "its signed head has 41"),
    ("a head of another origin, signed", ONE, checkpoint(lambda f: head(f.lines(), origin="beta/custody/log")), "is of the log beta/custody/log"),
    ("a head that is no note", ONE, checkpoint(lambda f: "alpha/custody/log\n40\n"), "the note is malformed"),
    # An insider: the lines are altered and the head is signed anew.
    ("a gap in seq, signed", ONE, insider(lambda f, w: f.change(39, seq=40)), "1 record is missing before this"),
    ("seq twice, signed", ONE, insider(lambda f, w: f.change(39, seq=38)), "record 39 must stand here"),
    ("time runs back, signed", ONE, insider(lambda f, w: f.change(20, time="2026-11-22T10:00:05.000000Z")), "time runs back"),
    ("another host, signed", ONE, insider(lambda f, w: f.change(20, host="beta")), "host is 'beta'"),
    ("token.initialised twice, signed", ONE, insider(lambda f, w: f.append(
        "token.initialised", token={"label": "x"}, log_vkey="a", host_vkey="b")), "must be record 0, and no other"),
    ("a log that does not begin, signed", ONE, insider(lambda f, w: (f.parts[0][1].pop(0), f.number())), "must be record 0"),
    ("a release never closed, signed", ONE, insider(lambda f, w: (f.parts[0][1].pop(7), f.number(7), f.append(
        "clock.stepped", detail="x", after=200000))), "has no outcome"),
    ("two outcomes, signed", ONE, insider(lambda f, w: f.append(
        "release.applied", key="wg0", generation=1, lease=grant(f))), "a second outcome of lease"),
    ("an outcome without its release, signed", ONE, insider(lambda f, w: f.append(
        "release.applied", key="wg0", generation=1, lease="cd" * 16)), "is not open"),
    ("an outcome of another key, signed", ONE, insider(lambda f, w: f.change(39, key="wg7")), "wg7"),
    ("a lease that expires early, signed", ONE, insider(lambda f, w: (f.change(39, event="lease.expired", detail=None,
                                                                            public_key=None))), "has not expired yet"),
    ("a release of no generation, signed", ONE, insider(lambda f, w: f.change(38, generation=2)), "it is none"),
    ("a release without its actor, signed", ONE, insider(lambda f, w: f.change(38, actor=None)), "actor, lease"),
    ("a release to nobody's key, signed", ONE, insider(lambda f, w: f.change(38, applier_public_key=None)), "applier_public_key"),
    ("a release of another public key, signed", ONE, insider(lambda f, w: f.change(
        38, public_key=base64.b64encode(bytes([9]) * 32).decode())), "public_key is not the generation's"),
    ("a lease twice, signed", ONE, insider(lambda f, w: (f.change(38, lease="ef" * 16), f.change(36, lease="ef" * 16),
                                                         f.parts[0][1].pop(37), f.number(37))), "is open already"),
    ("a generation made twice, signed", ONE, insider(lambda f, w: f.append(
        "key.generated", key="wg0", generation=1, purpose="wireguard-private",
        public_key=base64.b64encode(bytes([3]) * 32).decode())), "key.generated is not legal"),
    ("a second active generation, signed", ONE, insider(lambda f, w: (f.append(
        "key.generated", key="wg0", generation=2, purpose="wireguard-private",
        public_key=base64.b64encode(bytes([3]) * 32).decode()), f.append("key.activated", key="wg0", generation=2))),
     "already has an active generation"),
    ("destroyed before it was said, signed", ONE, insider(lambda f, w: f.append(
        "key.destroyed", key="wg0", generation=1)), "key.destroyed is not legal"),
    ("a revoked key released, signed", ONE, insider(lambda f, w: (f.append("key.revoked", key="wg0", generation=1), f.append(
        "release.granted", actor=ACTOR, key="wg0", generation=1, public_key=json.loads(f.lines()[2])["public_key"],
        applier_public_key=base64.b64encode(bytes([5]) * 32).decode(), reason="BOOT", lease="ef" * 16, expires=expiry(f)))),
     "it is compromised"),
    ("log.sealed with another digest, signed", MANY, insider(lambda f, w: f.change(14, sha256="ab" * 32)),
     "sha256 is not that of the state"),
    ("log.sealed without a digest, signed", MANY, insider(lambda f, w: f.change(14, sha256=None)), "sha256 is not that of the state"),
    ("records behind log.sealed, signed", MANY, insider(lambda f, w: f.parts[0][1].append(f.parts[1][1].pop(0))),
     "goes on after log.sealed"),
    ("a segment that was not sealed, signed", MANY, insider(lambda f, w: f.change(14, event="clock.stepped", sha256=None, detail="x")),
     "ends without log.sealed"),
    ("daemon.stopped with another digest, signed", ONE, insider(lambda f, w: f.append("daemon.stopped", sha256="ab" * 32)),
     "sha256 is not that of the state"),
    # Rotations: records 6 to 15 roll wg0's back from generation 2, 16 to 26 bring 3; 27 to 29 are a counterpart's.
    ("a rotation confirmed that was never started", ROTATED, insider(lambda f, w: drop(f, 17)), "of which no rotation is open"),
    ("a rotation rolled back twice", ROTATED, insider(lambda f, w: repeat(f, 12)), "of which no rotation is open"),
    ("another generation confirmed", ROTATED, insider(lambda f, w: f.change(22, generation=2)), "the open rotation is to generation 3"),
    ("a rotation confirmed without a release", ROTATED, insider(lambda f, w: drop(f, 20, 21)), "nothing can have confirmed it"),
    ("a rotation started in one", ROTATED, insider(lambda f, w: repeat(f, 17)), "while its rotation to generation 3 is open"),
    ("a rotation to the active generation", ROTATED, insider(lambda f, w: f.change(17, generation=1)), "is not its pre-active one"),
    ("a rotation for no reason", ROTATED, insider(lambda f, w: f.change(17, reason=None)), "a rotation's reason is"),
    ("the old generation ended during a rotation", ROTATED, insider(lambda f, w: drop(f, 22)), "while its rotation to generation 3 is open"),
    ("the new generation activated during a rotation", ROTATED, insider(lambda f, w: drop(f, 22, 23)),
     "already has an active generation"),
    ("the new generation destroyed during a rotation", ROTATED, insider(lambda f, w: drop(f, 12)),
     "while its rotation to generation 2 is open"),
    ("a suspended key released", ROTATED, insider(lambda f, w: drop(f, 31)), "which an operator suspended"),
    ("a key resumed that nobody suspended", ROTATED, insider(lambda f, w: drop(f, 30)), "is not suspended"),
    ("a bundle left out of the chain", ROTATED, insider(lambda f, w: drop(f, 15)), "previous is not the digest of the bundle"),
    ("a bundle that lasts longer", ROTATED, insider(lambda f, w: f.change(18, not_after="2036-11-22T10:00:00.000000Z")),
     "previous is not the digest of the bundle"),
    ("a bundle without its state", ROTATED, insider(lambda f, w: f.change(18, bundle_state=None)), "bundle_state is missing"),
    ("a bundle that says active too early", ROTATED, insider(lambda f, w: f.change(18, bundle_state="active")),
     "is pre-active, whose bundle says pre-active"),
    ("a bundle of another public key", ROTATED, insider(lambda f, w: f.change(
        18, public_key=base64.b64encode(bytes([9]) * 32).decode())), "public_key is not the generation's"),
    ("freshness of another bundle", ROTATED, insider(lambda f, w: f.change(26, sha256="ab" * 32)), "are not those of the bundle"),
    ("a peer moved to a retired generation", ROTATED, insider(lambda f, w: peer(f, "moved", 4)), "generation 4, which is retired"),
    ("a peer staged below its current generation", ROTATED, insider(lambda f, w: peer(f, "staged", 3)), "below the current one, 5"),
    ("a peer moved without being staged", ROTATED, insider(lambda f, w: drop(f, 27)), "which was never staged"),
    ("a peer retired twice", ROTATED, insider(lambda f, w: repeat(f, 29)), "which is retired already"),
    ("a peer's public key exchanged", ROTATED, insider(lambda f, w: f.change(
        28, peer_public_key=base64.b64encode(bytes([9]) * 32).decode())), "which had another public key before"),
    ("a staging without the digest of its secret", ROTATED, insider(lambda f, w: f.change(27, move_sha256=None)), "move-sha256"),
    ("an acknowledgement of no generation", ROTATED, insider(lambda f, w: f.change(9, peer_generation=7)), "has no generation 7"),
    # The log's key.
    ("a key change that the old key did not sign", CHANGE, insider(lambda f, w: f.change(
        40, old_signature=base64.b64encode(bytes([1]) * 64).decode()), signer="next"), "not signed by the key before"),
    ("a key change that the new key did not sign", CHANGE, insider(lambda f, w: f.change(
        40, new_signature=base64.b64encode(bytes([1]) * 64).decode()), signer="next"), "not signed by the new key"),
    ("a key change without signatures", CHANGE, insider(lambda f, w: f.change(
        40, old_signature=None, new_signature=None), signer="next"), "not signed by the key before"),
    ("a head by the key that was handed over", CHANGE, checkpoint(lambda f: head(f.lines(), signer="log")), "log's key"),
    # Approvals.
    ("an active key destroyed without a request", ONE, insider(lambda f, w: destroy(f, id=None)), "names no request"),
    ("an active key destroyed by a request nobody made", ONE, insider(lambda f, w: destroy(f)), "is not open"),
    ("one approval only", ONE, insider(lambda f, w: (approve(f, w, request(f), "ann"), destroy(f))), "has 1 of the 2 approvals"),
    ("one operator twice", ONE, insider(lambda f, w: [approve(f, w, r, "ann") for r in [request(f)] for _ in range(2)]),
     "has approved request"),
    ("one key under two names", ONE, insider(lambda f, w: [approve(f, w, r, n, key="ann") for r in [request(f)]
                                                            for n in ("ann", "bob")]), "has approved request"),
    ("a signature over another text", ONE, insider(lambda f, w: approve(f, w, request(f), "ann", text="another\n")),
     "not signed by the key that it names"),
    ("a signature that was edited", ONE, insider(lambda f, w: approve(f, w, request(f), "ann", signature="U1NIU0lH")),
     "not signed by the key that it names"),
    ("an approval by a key that is not pinned", ONE, insider(lambda f, w: approve(f, w, request(f), "ann", key="eve")), "by another key than the one pinned for operator ann"),
    ("an approval after its time", ONE, insider(lambda f, w: approve(f, w, request(f, expires=expiry(f, 2)), "ann", after=60)),
     "is not open"),
    ("a request that was for another key", ONE, insider(lambda f, w: (approved(f, w), destroy(f))), "is not open|was for something else"),
    # An accepted loss.
    ("a loss accepted for another log", ONE, insider(lambda f, w: loss(
        f, w, new_root=base64.b64encode(bytes([8]) * 32).decode())), "new_root is not the root"),
    ("a loss accepted at another place", ONE, insider(lambda f, w: loss(f, w, new_size=39)), "as it is at this record"),
    ("a loss that one operator accepted", ONE, insider(lambda f, w: loss(f, w, names=("ann",))), "has 1 of the 2 approvals"),
]


@pytest.fixture(scope="module")
def table():
    """What was found, a line each; tests/run prints it."""
    lines = []
    yield lines
    logs = default_builddir() / "tests"
    if logs.is_dir():
        (logs / "forgeries.txt").write_text("\n".join(lines) + f"\n{len(lines)} of {len(TABLE)} forgeries found\n")


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60 and len({name for name, *_ in TABLE}) == len(TABLE)


@pytest.mark.parametrize("name, base, forge, words", TABLE, ids=[name for name, *_ in TABLE])
def test_forgery(tmp_path, table, sound, operators, name, base, forge, words):
    log = sound[base].copy(tmp_path / "audit")
    forge(Forgery(log), operators)
    done = log.verify("--json", f"--operators={operators.file}")
    assert done.returncode == 1, f"{name} was not found: {done.stdout}"
    found = json.loads(done.stdout)["findings"]
    told = [f for f in found if any(w in f["finding"] for w in words.split("|"))]
    assert told, f"{name}: none of {[f['finding'] for f in found]} says {words!r}"
    table.append(f"{name:48} {told[0]['file']}:{told[0].get('line', '-')}: {told[0]['finding']}")
    assert sound[base].verify().returncode == 0


@pytest.mark.parametrize("done", [approved, loss], ids=["a destruction", "a loss"])
def test_what_operators_did_approve_is_sound(tmp_path, sound, operators, done):
    log = sound[ONE].copy(tmp_path / "audit")
    forgery = Forgery(log)
    done(forgery, operators)
    forgery.sign()
    verdict = log.verify(f"--operators={operators.file}")
    assert verdict.returncode == 0, verdict.stdout


def test_forked_tail_against_a_kept_head(tmp_path, sound):
    """Whoever holds the key signs another end of the log: only who kept a head can tell."""
    log = sound[MANY].copy(tmp_path / "audit")
    kept = tmp_path / "kept"
    shutil.copy(log.dir / "checkpoint", kept)
    forgery = Forgery(log)
    forgery.change(58, detail="another end")
    forgery.sign()
    assert log.verify().returncode in (0, 1)
    for option in ("--since", "--older"):
        done = log.verify("--json", f"{option}={kept}")
        assert done.returncode == 1 and "older head" in done.stdout, done.stdout


def test_old_copy_against_a_kept_head(tmp_path, sound):
    """The log as it was 15 records before, with the head of that time: sound, but for who kept the newer head."""
    newer = sound[MANY]
    log = newer.copy(tmp_path / "audit")
    forgery = Forgery(log)
    drop_segment(forgery, 3)
    forgery.sign()
    assert log.verify().returncode == 0, log.verify().stdout
    done = log.verify("--json", f"--since={newer.dir / 'checkpoint'}")
    assert done.returncode == 1 and "fewer than the 60" in done.stdout, done.stdout


def test_unsigned_tail_is_told_and_is_no_finding(tmp_path, sound):
    log = sound[ONE].copy(tmp_path / "audit")
    forgery = Forgery(log)
    forgery.append("clock.stepped", detail="x")
    forgery.write()
    done = log.verify()
    assert done.returncode == 0 and "1 record after the signed head" in done.stdout, done.stdout


def test_forged_receipts(tmp_path, sound):
    log = sound[MANY]
    record, proof = tmp_path / "record", tmp_path / "proof"
    record.write_bytes(Forgery(log.copy(tmp_path / "audit")).lines()[20])
    good = audit("prove", log.dir, "20").stdout

    def check(text):
        proof.write_text(text)
        return audit("check", proof, f"--vkey={log.vkey}", f"--record={record}").returncode
    assert check(good) == 0
    lines = good.splitlines()
    hash = next(i for i, line in enumerate(lines) if len(line) == 44)
    forged = {
        "a hash": [*lines[:hash], base64.b64encode(bytes(32)).decode(), *lines[hash + 1:]],
        "one hash less": [*lines[:hash], *lines[hash + 1:]],
        "one hash more": [*lines[:hash], lines[hash], *lines[hash:]],
        "another index": [line.replace("index 20", "index 21") for line in lines],
        "another head": good.split("\n\n")[0].splitlines() + [""] + head([b"x\n"]).splitlines(),
        "no signature": lines[:-1],
    }
    for name, text in forged.items():
        assert check("\n".join(text) + "\n") != 0, name
    record.write_bytes(record.read_bytes().replace(b'"pid":4242', b'"pid":1').replace(b'"seq":20', b'"seq":2'))
    assert check(good) == 1
