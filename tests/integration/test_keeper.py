# SPDX-License-Identifier: Apache-2.0
"""The keeper against a custodyd that an attacker runs: real SoftHSM token, real channel, and requests that lie."""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import nacl.bindings
import nacl.public
import nacl.signing
import pytest

from operators import Operators
from stack import TOP, default_builddir, find_program

HOST = "alpha"
NONE, INIT, ADOPT, RELEASE, DESTROY, PUBLISH, ACKNOWLEDGE, REFRESH, PSK_MAKE, PSK_TAKE, PSK_SET, PSK_DESTROY = range(12)
WIREGUARD, PRESHARED, RECEIVE, IMPORTED = range(1, 5)
BOOT, RESTORE, ROTATION, ROLLBACK, OPERATOR = range(1, 6)
LEASE = "00112233445566778899aabbccddeeff"
OTHER_KEY = bytes(range(32))
EXIT_NO_TOKEN, EXIT_NO_LOGIN, EXIT_TOKEN_LOST = 3, 4, 5


# ---- RFC 6962, written here a second time so that the keeper is not judged by its own arithmetic ----


def leaf(line):
    return hashlib.sha256(b"\0" + line).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def root(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(root(leaves[:k]), root(leaves[k:]))


def edge(leaves):
    """The roots of the complete subtrees that the number of leaves is the sum of, largest first."""
    out = []
    while leaves:
        k = 1 << (len(leaves).bit_length() - 1)
        out.append(root(leaves[:k]))
        leaves = leaves[k:]
    return b"".join(out)


def consistency(old, leaves, whole=True):
    """PROOF(old, leaves) of RFC 6962 section 2.1.2."""
    if old == len(leaves):
        return b"" if whole else root(leaves)
    k = split(len(leaves))
    if old <= k:
        return consistency(old, leaves[:k], whole) + root(leaves[k:])
    return consistency(old - k, leaves[k:], False) + root(leaves[:k])


# ---- the keeper and the hostile end of its channel ----


class Token:
    """A SoftHSM token in a folder of its own: provisioned, or a copy of another that no keeper uses."""

    def __init__(self, dir, copied=None):
        self.dir = pathlib.Path(dir)
        self.audit = self.dir / "audit"
        if copied:
            shutil.copytree(copied.dir, self.dir, dirs_exist_ok=True)
            conf = self.dir / "hsm/softhsm2.conf"
            conf.write_text(conf.read_text().replace(str(copied.dir), str(self.dir)))
            self.uri = copied.uri.replace(str(copied.dir), str(self.dir))
        else:
            done = subprocess.run([TOP / "hsm-config/softhsm/provision", self.dir / "hsm"], capture_output=True,
                                  text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            self.uri = done.stdout.strip()
            (self.audit / "log").mkdir(parents=True)
        self.folder = next((self.dir / "hsm/tokens").iterdir())

    @property
    def object(self):
        return self.folder / "token.object"


class Keeper:
    """A running custody-keeper, and keeper_client at the other end."""

    def __init__(self, token, *, host=HOST, rate=1000, uri=None, env=None, options=()):
        builddir = default_builddir()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stderr = open(token.dir / "keeper.log", "w+")
        self.process = subprocess.Popen(
            [find_program(builddir, "custody-keeper"), f"--host={host}", f"--token={uri or token.uri}",
             f"--audit-dir={token.audit}", f"--fd={theirs.fileno()}", f"--releases-per-second={rate}", *options],
            pass_fds=[theirs.fileno()], stderr=self.stderr, stdin=subprocess.DEVNULL,
            env={**os.environ, "SOFTHSM2_CONF": str(token.dir / "hsm/softhsm2.conf"), **(env or {})})
        theirs.close()
        self.client = subprocess.Popen([find_program(builddir, "keeper_client"), str(ours.fileno())],
                                       pass_fds=[ours.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       text=True)
        ours.close()

    def __call__(self, *words):
        self.client.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.client.stdin.flush()
        return json.loads(self.client.stdout.readline())

    def ok(self, *words):
        answer = self(*words)
        assert answer["code"] == "OK", answer
        return answer.get("body")

    def said(self):
        return pathlib.Path(self.stderr.name).read_text()

    def end(self):
        """Leaves the channel as custodyd's end would; returns the keeper's exit status."""
        self.client.stdin.close()
        self.client.wait(10)
        return self.process.wait(20)

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.client.stdin.close()
        self.client.wait(10)


class Custodyd:
    """An honest custodyd's log keeping, which tests then bend."""

    def __init__(self, token, keeper):
        self.token, self.keeper = token, keeper
        self.lines = []  # of every record in the file
        self.checkpoint = ""
        self.first = 0
        self.segment.touch()

    @property
    def segment(self):
        return self.token.audit / "log" / f"{self.first:012d}.jsonl"

    @property
    def leaves(self):
        return [leaf(line) for line in self.lines]

    def size(self):
        return int(self.checkpoint.splitlines()[1]) if self.checkpoint else 0

    def open(self, *, checkpoint=None, proof=None):
        """Asks the keeper to open the log at the latest head."""
        note = self.checkpoint if checkpoint is None else checkpoint
        words = [w.hex() if w else "-" for w in (note.encode(), edge(self.leaves[:self.first]), proof or b"")]
        return self.keeper("log_open", self.first, *words)

    def fill(self, event, **values):
        """Makes a record the client's current one, and returns its line."""
        self.keeper("reset")
        record = {"seq": len(self.lines), "time_us": 1_790_000_000_000_000 + len(self.lines), "host": HOST, **values}
        self.keeper("set", "event", event)
        for name, value in record.items():
            if isinstance(value, str):
                value = value.encode()
            if isinstance(value, bytes):
                value = value.hex() or "00"
            answer = self.keeper("set", name.replace("__", "."), value)
            assert answer["code"] == "OK", answer
        answer = self.keeper("line")
        assert answer["code"] == "OK", answer
        return answer["line"].encode()

    def append(self, line):
        self.lines.append(line)
        with open(self.segment, "ab") as f:
            f.write(line + b"\n")

    def entry(self, action, event, **values):
        """Appends a record and sends its entry."""
        self.append(self.fill(event, **values))
        self.keeper("entry", action)

    def commit(self, count=1):
        answer = self.keeper("commit", count)
        if answer["code"] == "OK":
            self.checkpoint = answer["body"]["checkpoint"]
        return answer

    def do(self, action, event, **values):
        """One record, committed; returns the entry's answer, or the commit's where there is none."""
        self.entry(action, event, **values)
        answer = self.commit()
        assert answer["code"] == "OK", answer
        return answer["results"][0] if answer["results"] else answer

    def initialise(self):
        status = self.keeper.ok("init")
        assert self.open()["code"] == "OK"
        return self.do(INIT, "token.initialised", token__present=1, suite=status["suite"],
                       log_vkey=status["log_vkey"], host_vkey=status["host_vkey"],
                       **{f"token__{k}": v for k, v in status["token"].items()})

    def generate(self, key="wga", generation=1):
        public = bytes.fromhex(self.keeper.ok("generate", key, generation, WIREGUARD))
        answer = self.do(ADOPT, "key.generated", key=key, generation=generation, purpose=WIREGUARD, public_key=public)
        assert answer["code"] == "OK", answer
        return public

    def release_fields(self, key, generation, public, applier):
        return dict(key=key, generation=generation, public_key=public, lease=LEASE, reason=1,
                    expires_us=1_890_000_000_000_000, applier_public_key=bytes(applier))

    def forget_line(self):
        """Takes the last line off the file: it was promised to nobody."""
        self.lines.pop()
        self.segment.write_bytes(b"".join(line + b"\n" for line in self.lines))


def opened(answer, applier):
    """The private key in a release's box."""
    return nacl.public.SealedBox(applier).decrypt(bytes.fromhex(answer["body"]["box"]))


def verify_note(note, vkey):
    """Verifies a C2SP signed note with PyNaCl; returns its text."""
    name, key_id, key = vkey.split("+", 2)
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    raw = base64.b64decode(key)
    assert hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() == key_id
    dash, signer, signature = signatures.strip().split(" ")
    blob = base64.b64decode(signature)
    assert (dash, signer, blob[:4].hex()) == ("\u2014", name, key_id)
    nacl.signing.VerifyKey(raw[1:]).verify(text.encode(), blob[4:])
    return text


def in_folder():
    """Makes a folder for the length of a fixture."""
    return tempfile.TemporaryDirectory(prefix="custody-keeper-")


@pytest.fixture(scope="session")
def empty_token():
    """A provisioned token that nobody starts a keeper on: tests get copies."""
    with in_folder() as dir:
        yield Token(dir)


@pytest.fixture(scope="session")
def used_token(empty_token):
    """An initialised token with wga generation 1, likewise; and its custodyd, whose keeper has ended."""
    with in_folder() as dir:
        token = Token(dir, copied=empty_token)
        custodyd = Custodyd(token, Keeper(token))
        custodyd.initialise()
        custodyd.public = custodyd.generate()
        assert custodyd.keeper.end() == 0
        yield custodyd


@pytest.fixture
def token(request, empty_token):
    """A token of the test's own: initialised for a test that asks for `honest`, else as provisioned."""
    with in_folder() as dir:
        if "honest" in request.fixturenames:
            yield Token(dir, copied=request.getfixturevalue("used_token").token)
        else:
            yield Token(dir, copied=empty_token)


@pytest.fixture
def start(token):
    """Starts keepers; ends those that a test leaves."""
    made = []

    def make(**options):
        made.append(Keeper(token, **options))
        return made[-1]

    yield make
    for keeper in made:
        keeper.process.kill()
        keeper.client.kill()
        keeper.process.wait()
        keeper.client.wait()


@pytest.fixture
def honest(token, start, used_token):
    """A custodyd on an initialised token with wga generation 1, its log open."""
    custodyd = Custodyd(token, start())
    custodyd.lines, custodyd.checkpoint = list(used_token.lines), used_token.checkpoint
    custodyd.public = used_token.public
    assert custodyd.open()["code"] == "OK"
    custodyd.applier = nacl.public.PrivateKey.generate()
    return custodyd


def release(custodyd, **bent):
    """An honest release, but for what is bent; the entry's answer."""
    fields = custodyd.release_fields("wga", 1, custodyd.public, custodyd.applier.public_key)
    return custodyd.do(RELEASE, "release.granted", **{**fields, **bent})


def still_serves(custodyd):
    """The keeper opens the log and releases as if nothing had been tried."""
    assert custodyd.open()["code"] == "OK"
    answer = release(custodyd)
    assert answer["code"] == "OK", answer
    assert nacl.bindings.crypto_scalarmult_base(opened(answer, custodyd.applier)) == custodyd.public


# ---- what an honest custodyd gets ----


def test_release_gives_the_key_whose_public_half_is_recorded(honest):
    still_serves(honest)


def test_head_is_signed_over_the_tree_of_the_lines(honest):
    vkey = honest.keeper.ok("status")["log_vkey"]
    release(honest)
    text = verify_note(honest.checkpoint, vkey)
    assert text == f"{HOST}/custody/log\n{len(honest.lines)}\n{base64.b64encode(root(honest.leaves)).decode()}\n"


def test_bundle_is_signed_by_the_host_key(honest):
    status = honest.keeper.ok("status")
    answer = honest.do(PUBLISH, "key.published", key="wga", generation=1, public_key=honest.public, bundle_state=2,
                       not_before_us=1_790_000_000_000_000, not_after_us=1_792_000_000_000_000)
    text = verify_note(answer["body"]["note"], status["host_vkey"])
    assert text.splitlines()[:6] == ["custody bundle v1", f"host {HOST}", "key wga", "generation 1", "state active",
                                     f"public-key {base64.b64encode(honest.public).decode()}"]


BUNDLE_STATES = {"pre-active": 1, "active": 2, "compromised": 3, "destroyed": 4}
PERIOD = dict(not_before_us=1_790_000_000_000_000, not_after_us=1_792_000_000_000_000)


def test_bundle_says_all_that_its_record_does(honest):
    status = honest.keeper.ok("status")
    answer = honest.do(PUBLISH, "key.published", key="wga", generation=1, public_key=honest.public, bundle_state=1,
                       receive_key=OTHER_KEY, address="fd00::1", port=51821, count=3, previous="ab" * 32, **PERIOD)
    assert verify_note(answer["body"]["note"], status["host_vkey"]).splitlines()[4:] == [
        "state pre-active", f"public-key {base64.b64encode(honest.public).decode()}",
        f"receive-key {base64.b64encode(OTHER_KEY).decode()}", "address fd00::1", "port 51821", "peers 3",
        "not-before 2026-09-21T14:13:20.000000Z", "not-after 2026-10-14T17:46:40.000000Z", f"previous {'ab' * 32}"]


@pytest.mark.parametrize("state", BUNDLE_STATES)
@pytest.mark.parametrize("generation, own", [(1, True), (1, False), (7, True)])
def test_only_what_the_token_holds_is_published_as_usable(honest, state, generation, own):
    """Others are told of an end whatever the token holds: of a key in use only when it is that key."""
    answer = honest.do(PUBLISH, "key.published", key="wga", generation=generation,
                       public_key=honest.public if own else OTHER_KEY, bundle_state=BUNDLE_STATES[state], **PERIOD)
    usable = state in ("pre-active", "active")
    expected = "OK" if not usable or (own and generation == 1) else "NOT_FOUND" if own else "PERMISSION_DENIED"
    assert answer["code"] == expected
    if expected == "OK":
        note = verify_note(answer["body"]["note"], honest.keeper.ok("status")["host_vkey"])
        assert f"\nstate {state}\n" in note


PEER = dict(key="wga", peer="beta", peer_key="wg1", peer_generation=4, peer_public_key=bytes([8]) * 32)


def test_acknowledgement_is_signed_by_the_host_key(honest):
    status = honest.keeper.ok("status")
    whom = ["custody acknowledgement v1", f"host {HOST}", "key wga", "peer beta", "peer-key wg1", "generation 4",
            f"public-key {base64.b64encode(bytes([8]) * 32).decode()}"]
    staged = honest.do(ACKNOWLEDGE, "peer.staged", move_sha256="cd" * 32, **PEER)
    lines = verify_note(staged["body"]["note"], status["host_vkey"]).splitlines()
    assert lines[:-1] == whom + ["state staged", f"move-sha256 {'cd' * 32}"]
    assert lines[-1] == "time " + json.loads(honest.lines[-1])["time"]
    retired = honest.do(ACKNOWLEDGE, "peer.retired", **PEER)
    lines = verify_note(retired["body"]["note"], status["host_vkey"]).splitlines()
    assert lines[:-1] == whom + ["state retired", "move-sha256 -"]


def test_freshness_is_signed_by_the_host_key(honest):
    answer = honest.do(REFRESH, "key.refreshed", key="wga", generation=1, sha256="ef" * 32)
    text = verify_note(answer["body"]["note"], honest.keeper.ok("status")["host_vkey"])
    assert text.splitlines() == ["custody freshness v1", f"host {HOST}", "key wga", "generation 1", f"bundle {'ef' * 32}",
                                 "time " + json.loads(honest.lines[-1])["time"]]


@pytest.mark.parametrize("action, event, fields", [
    ("PUBLISH", "key.published", dict(key="wga", generation=1, **PERIOD)),  # no state
    ("PUBLISH", "key.published", dict(key="wga", generation=1, bundle_state=2, address="beta", port=1, **PERIOD)),
    ("PUBLISH", "key.published", dict(key="wga", generation=1, bundle_state=2, port=1, **PERIOD)),
    ("ACKNOWLEDGE", "peer.staged", PEER),  # no digest of a secret
    ("ACKNOWLEDGE", "peer.retired", {**PEER, "move_sha256": "cd" * 32}),
    ("ACKNOWLEDGE", "peer.retired", {**PEER, "peer_generation": 0}),
    ("ACKNOWLEDGE", "peer.retired", {**PEER, "peer": "Beta"}),
    ("REFRESH", "key.refreshed", dict(key="wga", generation=1)),
    ("REFRESH", "key.refreshed", dict(key="wga", sha256="ef" * 32)),
])
def test_texts_of_another_form_are_not_signed(honest, action, event, fields):
    public = dict(public_key=honest.public) if action == "PUBLISH" else {}
    answer = honest.do(globals()[action], event, **fields, **public)
    assert answer["code"] == "INVALID_ARGUMENT" and "body" not in answer
    still_serves(honest)


# ---- preshared keys: reckoned here a second time ----

LINK = dict(key="wga", peer="beta", peer_key="wg1")


def chained(parts):
    """The preshared keys that these parts lead to, from the first on."""
    keys, key = [], bytes(32)
    for part in parts:
        key = hmac.new(key, part, "sha256").digest()
        keys.append(key)
    return keys


def release_psk(honest, epoch, method, **bent):
    """The preshared key that a release gives, or the refused answer."""
    answer = honest.do(RELEASE, "release.granted", **{**LINK, **dict(
        purpose=PRESHARED, epoch=epoch, method=method, lease=LEASE, reason=3, expires_us=1_890_000_000_000_000,
        applier_public_key=bytes(honest.applier.public_key)), **bent})
    return opened(answer, honest.applier) if answer["code"] == "OK" else answer


def make_psk(honest, epoch, whose, **bent):
    """(the part that is sent, the note's text)."""
    answer = honest.do(PSK_MAKE, "psk.generated", epoch=epoch, receive_key=bytes(whose.public_key), **{**LINK, **bent})
    text = verify_note(answer["body"]["note"], honest.keeper.ok("status")["host_vkey"])
    box = base64.b64decode(next(line for line in text.splitlines() if line.startswith("box "))[4:])
    return nacl.public.SealedBox(whose).decrypt(box), text


def receive_psk(honest, epoch, part, box=None):
    """Hands a box to the keeper."""
    if box is None:
        box = nacl.public.SealedBox(nacl.public.PublicKey(honest.receive)).encrypt(part)
    return honest.keeper("receive", *LINK.values(), epoch, 1, box.hex())


@pytest.fixture
def taker(honest):
    """An honest custodyd whose token has a receive key."""
    honest.receive = bytes.fromhex(honest.keeper.ok("generate", "_receive", 1, RECEIVE))
    answer = honest.do(ADOPT, "key.generated", key="_receive", generation=1, purpose=RECEIVE, public_key=honest.receive)
    assert answer["code"] == "OK", answer
    return honest


def test_preshared_key_that_is_made_follows_from_what_is_sent(honest):
    other = nacl.public.PrivateKey.generate()
    parts = [make_psk(honest, epoch, other)[0] for epoch in (1, 2, 3)]
    assert len(set(parts)) == 3
    assert [release_psk(honest, epoch, "made") for epoch in (1, 2, 3)] == chained(parts)
    part, text = make_psk(honest, 2, other)
    assert part == parts[1]  # sent anew: the same, in another box
    lines = text.splitlines()
    assert lines[:7] == ["custody psk v1", f"host {HOST}", "key wga", "peer beta", "peer-key wg1", "epoch 2", "state made"]
    assert lines[7] == f"receive-key {base64.b64encode(bytes(other.public_key)).decode()}"
    assert honest.keeper.ok("status")["blobs"] == 1  # wga's own: the maker stores none
    for bent in (dict(peer="gamma"), dict(peer_key="wg2"), dict(key="wgb")):
        assert make_psk(honest, 1, other, **bent)[0] not in parts


def test_preshared_key_outlives_the_keeper(honest, start):
    before = release_psk(honest, 4, "made")
    assert honest.keeper.end() == 0
    honest.keeper = start()
    assert honest.open()["code"] == "OK"
    assert release_psk(honest, 4, "made") == before


def test_chain_begins_anew_so_that_it_has_an_end(honest):
    """The first of the second chain follows from its own part alone."""
    part = make_psk(honest, 4097, other := nacl.public.PrivateKey.generate())[0]
    assert release_psk(honest, 4097, "made") == chained([part])[0]
    before = time.monotonic()
    assert len(release_psk(honest, 4096, "made")) == 32  # the longest
    assert time.monotonic() - before < 10


def test_preshared_key_is_taken_and_released(taker):
    parts = [os.urandom(32) for _ in range(3)]
    keys = chained(parts)
    for epoch, part in enumerate(parts, 1):
        assert receive_psk(taker, epoch, part)["code"] == "OK"
        refused = release_psk(taker, epoch, "received")
        assert refused["code"] == "NOT_FOUND"  # before its record it is released to nobody
        answer = taker.do(PSK_TAKE, "psk.received", epoch=epoch, **LINK)
        text = verify_note(answer["body"]["note"], taker.keeper.ok("status")["host_vkey"])
        assert f"epoch {epoch}\nstate received\nreceive-key -\nbox -\n" in text
        assert release_psk(taker, epoch, "received") == keys[epoch - 1]
    assert release_psk(taker, 2, "received") == keys[1]
    refused = release_psk(taker, 1, "received")
    assert refused["code"] == "FAILED_PRECONDITION" and "highest" in refused["message"]


def test_what_is_sent_wrongly_is_not_taken(taker):
    part = os.urandom(32)
    other = nacl.public.SealedBox(nacl.public.PrivateKey.generate().public_key).encrypt(part)
    answer = receive_psk(taker, 1, part, other)
    assert answer["code"] == "PERMISSION_DENIED" and "another's" in answer["message"]
    assert receive_psk(taker, 2, part)["code"] == "NOT_FOUND"  # the one before is not there
    assert receive_psk(taker, 0, part)["code"] == "INVALID_ARGUMENT"
    assert receive_psk(taker, 1, part)["code"] == "OK"
    again = os.urandom(32)
    assert receive_psk(taker, 1, again)["code"] == "OK"  # nobody recorded the other
    assert taker.do(PSK_TAKE, "psk.received", epoch=1, **LINK)["code"] == "OK"
    assert release_psk(taker, 1, "received") == chained([again])[0]
    assert receive_psk(taker, 1, part)["code"] == "ALREADY_EXISTS"
    assert taker.do(PSK_TAKE, "psk.received", epoch=1, **LINK)["code"] == "OK"  # said once more
    assert taker.keeper.ok("status")["leftovers"] == 0


def test_preshared_key_is_gone_once_its_record_says_so(taker):
    assert receive_psk(taker, 1, os.urandom(32))["code"] == "OK"
    assert taker.do(PSK_TAKE, "psk.received", epoch=1, **LINK)["code"] == "OK"
    taker.entry(NONE, "psk.destroyed", epoch=1, **LINK)
    refused_commit(taker, "FAILED_PRECONDITION", "still holds it")
    taker.forget_line()
    assert taker.open()["code"] == "OK"
    assert taker.do(PSK_DESTROY, "psk.destroyed", epoch=1, **LINK)["code"] == "OK"
    assert release_psk(taker, 1, "received")["code"] == "NOT_FOUND"
    assert taker.do(PSK_DESTROY, "psk.destroyed", epoch=1, **LINK)["code"] == "OK"  # as after a crash


@pytest.mark.parametrize("bent, code", [
    (dict(method="lost"), "INVALID_ARGUMENT"), (dict(epoch=0), "INVALID_ARGUMENT"), (dict(peer=""), "INVALID_ARGUMENT"),
    (dict(lease=""), "INVALID_ARGUMENT"), (dict(applier_public_key=bytes(32)), "INVALID_ARGUMENT"),
])
def test_preshared_release_that_cannot_be_done(honest, bent, code):
    fields = {"epoch": 1, "method": "made", **bent}
    assert release_psk(honest, fields.pop("epoch"), fields.pop("method"), **fields)["code"] == code


def test_receive_key_is_released_to_nobody(taker):
    answer = taker.do(RELEASE, "release.granted", **taker.release_fields("_receive", 1, taker.receive,
                                                                         taker.applier.public_key))
    assert answer["code"] == "PERMISSION_DENIED" and "another purpose" in answer["message"]
    for name, purpose in (("_receive", WIREGUARD), ("wgz", RECEIVE), ("_psk.0", WIREGUARD), ("wgz", PRESHARED)):
        assert taker.keeper("generate", name, 2, purpose)["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("action, event", [(PSK_MAKE, "psk.set"), (PSK_TAKE, "psk.generated"), (PSK_SET, "psk.received"),
                                           (PSK_DESTROY, "psk.set")])
def test_preshared_action_under_another_event(honest, action, event):
    honest.entry(action, event, epoch=1, **LINK)
    refused_commit(honest, "PERMISSION_DENIED", "is done under")


def test_batch_is_answered_in_order_and_signed_once(honest):
    applier = honest.applier.public_key
    fields = honest.release_fields("wga", 1, honest.public, applier)
    for i in range(64):
        honest.entry(RELEASE if i % 2 else NONE, "release.granted", **fields)
    answer = honest.commit(64)
    assert answer["code"] == "OK"
    assert [r["body"]["index"] for r in answer["results"]] == list(range(1, 64, 2))
    assert len({opened(r, honest.applier) for r in answer["results"]}) == 1
    assert answer["body"]["size"] == len(honest.lines)


def test_release_right_after_its_adoption_in_one_batch(honest):
    public = bytes.fromhex(honest.keeper.ok("generate", "wga", 2, WIREGUARD))
    honest.entry(ADOPT, "key.generated", key="wga", generation=2, purpose=WIREGUARD, public_key=public)
    honest.entry(RELEASE, "release.granted",
                 **honest.release_fields("wga", 2, public, honest.applier.public_key))
    answer = honest.commit(2)
    assert [r["code"] for r in answer["results"]] == ["OK", "OK"]
    assert nacl.bindings.crypto_scalarmult_base(opened(answer["results"][1], honest.applier)) == public


def test_destroyed_key_is_gone(honest):
    honest.generate(generation=2)
    gone = dict(key="wga", generation=2)
    refused = honest.entry(NONE, "key.destroyed", **gone) or honest.commit()
    assert refused["code"] == "FAILED_PRECONDITION" and "still holds" in refused["message"]
    honest.forget_line()
    assert honest.open()["code"] == "OK"
    assert honest.do(DESTROY, "key.destroying", **gone)["code"] == "OK"
    assert honest.do(NONE, "key.destroyed", **gone)["code"] == "OK"
    assert [b["generation"] for b in honest.keeper.ok("list", 0)] == [1]
    again = honest.do(DESTROY, "key.destroying", **gone)
    assert again["code"] == "NOT_FOUND"
    still_serves(honest)


def test_a_second_start_finds_everything(honest, start):
    before = honest.keeper.ok("status")
    assert honest.keeper.end() == 0
    honest.keeper = start()
    after = honest.keeper.ok("status")
    assert after["head"] == honest.checkpoint
    assert {**after, "head": ""} == {**before, "head": ""}
    still_serves(honest)


def test_log_goes_on_in_a_later_segment(honest):
    release(honest)
    honest.first = len(honest.lines)
    honest.segment.touch()
    answer = honest.open()
    assert answer["body"] == {"size": honest.first, "offset": 0}
    assert release(honest)["code"] == "OK"
    assert honest.open()["body"]["size"] == honest.first + 1


# ---- a commit that lies is refused whole ----


def refused_commit(custodyd, code, words, count=1):
    """The commit is refused with that code and words, without any answer to an entry, and the log is closed."""
    answer = custodyd.commit(count)
    assert (answer["code"], answer["results"]) == (code, []), answer
    assert words in answer["message"], answer["message"]
    assert "body" not in answer
    custodyd.keeper("entry", NONE)
    closed = custodyd.keeper("commit", 1)
    assert closed["code"] == "FAILED_PRECONDITION" and "has to be opened" in closed["message"]


def test_release_without_any_record(honest):
    honest.fill("release.granted", **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    honest.keeper("entry", RELEASE)
    refused_commit(honest, "FAILED_PRECONDITION", "before the record does")
    still_serves(honest)


@pytest.mark.parametrize("action, event", [(ADOPT, "key.generated"), (DESTROY, "key.destroying"),
                                           (PUBLISH, "key.published"), (RELEASE, "release.granted"),
                                           (ACKNOWLEDGE, "peer.staged"), (REFRESH, "key.refreshed")])
def test_nothing_is_done_without_a_record_in_the_file(honest, action, event):
    honest.fill(event, key="wga", generation=1, public_key=honest.public)
    honest.keeper("entry", action)
    refused_commit(honest, "FAILED_PRECONDITION", "before the record does")
    assert honest.keeper.ok("status")["blobs"] == 1
    still_serves(honest)


LIES = {
    "another key": dict(key="wgb"),
    "another generation": dict(generation=2),
    "another applier key": dict(applier_public_key=OTHER_KEY),
    "another public key": dict(public_key=OTHER_KEY),
    "another lease": dict(lease="ff" * 16),
    "another time": dict(time_us=1_790_000_000_000_999),
    "another reason": dict(reason=2),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_entry_that_differs_from_its_line(honest, lie):
    fields = honest.release_fields("wga", 1, honest.public, honest.applier.public_key)
    honest.append(honest.fill("release.granted", **fields))
    honest.fill("release.granted", **{"seq": len(honest.lines) - 1, "time_us": 1_790_000_000_000_000 +
                                      len(honest.lines) - 1, **fields, **lie})
    honest.keeper("entry", RELEASE)
    refused_commit(honest, "FAILED_PRECONDITION", "record 2: log segment 000000000000.jsonl holds other bytes")
    honest.forget_line()
    still_serves(honest)


@pytest.mark.parametrize("bent, code, words", [
    (dict(seq=7), "FAILED_PRECONDITION", "the next record is 2"),
    (dict(seq=1), "FAILED_PRECONDITION", "the next record is 2"),
    (dict(host="beta"), "PERMISSION_DENIED", "is of host 'beta'"),
])
def test_record_of_another_place_in_the_file_too(honest, bent, code, words):
    fields = honest.release_fields("wga", 1, honest.public, honest.applier.public_key)
    honest.entry(RELEASE, "release.granted", **{**fields, **bent})
    refused_commit(honest, code, words)
    honest.forget_line()
    still_serves(honest)


@pytest.mark.parametrize("action, event", [(RELEASE, "release.denied"), (RELEASE, "key.published"),
                                           (DESTROY, "release.granted"), (DESTROY, "key.destroyed"),
                                           (ADOPT, "daemon.started"), (PUBLISH, "key.generated"),
                                           (INIT, "token.opened"), (ACKNOWLEDGE, "peer.moved"),
                                           (ACKNOWLEDGE, "key.published"), (REFRESH, "key.published")])
def test_action_under_another_event(honest, action, event):
    honest.entry(action, event, **honest.release_fields("wga", 3, honest.public, honest.applier.public_key))
    refused_commit(honest, "PERMISSION_DENIED", "is done under")
    honest.forget_line()
    still_serves(honest)


def test_unknown_action(honest):
    honest.entry(77, "release.granted", **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    refused_commit(honest, "INVALID_ARGUMENT", "action 77 is unknown")
    honest.forget_line()
    still_serves(honest)


def test_second_initialisation_and_change_of_the_log_key(honest):
    status = honest.keeper.ok("status")
    honest.entry(NONE, "token.initialised", token__present=1, suite=status["suite"], log_vkey=status["log_vkey"])
    refused_commit(honest, "FAILED_PRECONDITION", "record 0 must be token.initialised")
    honest.forget_line()
    assert honest.open()["code"] == "OK"
    honest.entry(NONE, "log.key-changed", old_signature=OTHER_KEY * 2, new_signature=OTHER_KEY * 2)
    refused_commit(honest, "FAILED_PRECONDITION", "not offered")
    honest.forget_line()
    refused = honest.keeper("init")
    assert refused["code"] == "ALREADY_EXISTS"
    still_serves(honest)


@pytest.mark.parametrize("field", ["log_vkey", "host_vkey", "suite", "token__serial"])
def test_initialisation_that_names_what_the_token_has_not(token, start, field):
    custodyd = Custodyd(token, start())
    status = custodyd.keeper.ok("init")
    assert custodyd.open()["code"] == "OK"
    fields = dict(token__present=1, suite=status["suite"], log_vkey=status["log_vkey"], host_vkey=status["host_vkey"],
                  **{f"token__{k}": v for k, v in status["token"].items()})
    lie = {"log_vkey": status["host_vkey"], "host_vkey": status["log_vkey"], "suite": "none", "token__serial": "0"}
    custodyd.entry(INIT, "token.initialised", **{**fields, field: lie[field]})
    refused_commit(custodyd, "FAILED_PRECONDITION", "than the token has")
    custodyd.forget_line()
    custodyd.initialise()


def test_commit_that_counts_wrong(honest):
    honest.entry(NONE, "daemon.started", version="0.1.0")
    refused_commit(honest, "INVALID_ARGUMENT", "a commit of 2 records came with 1", count=2)
    assert honest.open()["code"] == "OK"
    refused_commit(honest, "INVALID_ARGUMENT", "a commit of 0 records", count=0)
    honest.forget_line()
    still_serves(honest)


def test_more_entries_than_a_commit_takes(honest):
    for _ in range(65):
        honest.entry(NONE, "daemon.started", version="0.1.0")
    refused_commit(honest, "RESOURCE_EXHAUSTED", "64 records", count=65)
    honest.lines = honest.lines[:2] + [b""]
    honest.forget_line()
    still_serves(honest)


def test_entries_before_the_log_is_open(token, start):
    custodyd = Custodyd(token, start())
    custodyd.keeper.ok("init")
    custodyd.entry(NONE, "daemon.started")
    refused_commit(custodyd, "FAILED_PRECONDITION", "has to be opened")


# ---- an action that cannot be done fails alone, and its record stands ----


@pytest.mark.parametrize("bent, code, words", [
    (dict(key="wgb"), "NOT_FOUND", "no key wgb"),
    (dict(generation=2), "NOT_FOUND", "generation 2"),
    (dict(public_key=OTHER_KEY), "PERMISSION_DENIED", "another public key"),
    (dict(lease=""), "INVALID_ARGUMENT", "lease"),
    (dict(applier_public_key=bytes(32)), "INVALID_ARGUMENT", "applier's public key"),
    (dict(applier_public_key=b"\1" + bytes(31)), "INVALID_ARGUMENT", "low order"),
    (dict(purpose=RECEIVE), "PERMISSION_DENIED", "another purpose"),
    (dict(purpose=PRESHARED), "INVALID_ARGUMENT", "a preshared key needs"),
])
def test_release_that_cannot_be_done_fails_alone(honest, bent, code, words):
    fields = honest.release_fields("wga", 1, honest.public, honest.applier.public_key)
    honest.entry(RELEASE, "release.granted", **{**fields, **bent})
    honest.entry(RELEASE, "release.granted", **fields)
    answer = honest.commit(2)
    assert answer["code"] == "OK"
    bad, good = answer["results"]
    assert bad["code"] == code and words in bad["message"] and "body" not in bad
    assert nacl.bindings.crypto_scalarmult_base(opened(good, honest.applier)) == honest.public


def test_new_key_is_released_to_nobody_before_its_record(honest):
    public = bytes.fromhex(honest.keeper.ok("generate", "wgb", 1, WIREGUARD))
    answer = release(honest, key="wgb", public_key=public)
    assert answer["code"] == "NOT_FOUND" and "recorded as generated" in answer["message"]
    wrong = honest.do(ADOPT, "key.generated", key="wgb", generation=1, purpose=WIREGUARD, public_key=OTHER_KEY)
    assert wrong["code"] == "PERMISSION_DENIED"
    assert honest.keeper.ok("status")["leftovers"] == 1


def test_only_the_two_highest_generations_are_released(honest):
    publics = {1: honest.public, **{g: honest.generate(generation=g) for g in (2, 3)}}
    for generation, code in ((3, "OK"), (2, "OK"), (1, "FAILED_PRECONDITION")):
        answer = release(honest, generation=generation, public_key=publics[generation])
        assert answer["code"] == code, answer


def test_generations_only_rise(honest):
    honest.generate(generation=5)
    for generation, code in ((5, "ALREADY_EXISTS"), (4, "ALREADY_EXISTS"), (0, "INVALID_ARGUMENT")):
        assert honest.keeper("generate", "wga", generation, WIREGUARD)["code"] == code
    assert honest.keeper("generate", "../x", 1, WIREGUARD)["code"] == "INVALID_ARGUMENT"
    assert honest.keeper("generate", "wgb", 1, 3)["code"] == "INVALID_ARGUMENT"


# ---- importing ----


def offer_for(custodyd, private, key="wgb", generation=1):
    """The keeper's offer for that private key -> (its public half, the key to box it to)."""
    public = nacl.bindings.crypto_scalarmult_base(private)
    note = custodyd.keeper.ok("offer", key, generation, public.hex())
    text = verify_note(note, custodyd.keeper.ok("status")["log_vkey"])
    lines = text.splitlines()
    assert lines[:4] == ["custody import offer v1", f"host {HOST}", f"key {key}", f"generation {generation}"]
    assert lines[4] == f"public-key {base64.b64encode(public).decode()}" and len(lines) == 6
    return public, nacl.public.PublicKey(base64.b64decode(lines[5].removeprefix("box-key ")))


def boxed(private, box_key):
    return nacl.public.SealedBox(box_key).encrypt(bytes(private)).hex()


@pytest.fixture
def private():
    raw = bytearray(os.urandom(32))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


def imported(custodyd, private):
    public, box_key = offer_for(custodyd, private)
    custodyd.keeper.ok("import", "wgb", 1, public.hex(), boxed(private, box_key))
    answer = custodyd.do(ADOPT, "key.imported", key="wgb", generation=1, purpose=IMPORTED, public_key=public)
    assert answer["code"] == "OK", answer
    return public


def test_an_imported_key_is_sealed_and_released_as_it_was(honest, private):
    public = imported(honest, private)
    answer = release(honest, key="wgb", public_key=public)
    assert answer["code"] == "OK" and opened(answer, honest.applier) == private


def test_an_imported_key_is_released_to_be_set_again_and_for_nothing_else(honest, private):
    public = imported(honest, private)
    for reason in (ROTATION, OPERATOR):
        answer = release(honest, key="wgb", public_key=public, reason=reason)
        assert answer["code"] == "FAILED_PRECONDITION" and "imported" in answer["message"]
    for reason in (BOOT, RESTORE, ROLLBACK):
        assert release(honest, key="wgb", public_key=public, reason=reason)["code"] == "OK"


def test_a_box_is_taken_once(honest, private):
    public, box_key = offer_for(honest, private)
    box = boxed(private, box_key)
    honest.keeper.ok("import", "wgb", 1, public.hex(), box)
    again = honest.keeper("import", "wgb", 1, public.hex(), box)
    assert again["code"] == "FAILED_PRECONDITION" and "no offer" in again["message"]
    # Nor as another key or generation, under another offer.
    other, _ = offer_for(honest, private, "wgc", 1)
    replayed = honest.keeper("import", "wgc", 1, other.hex(), box)
    assert replayed["code"] == "INVALID_ARGUMENT" and "does not open" in replayed["message"]


def test_only_the_last_offer_stands(honest, private):
    public, box_key = offer_for(honest, private)
    offer_for(honest, private)
    answer = honest.keeper("import", "wgb", 1, public.hex(), boxed(private, box_key))
    assert answer["code"] == "INVALID_ARGUMENT"
    # And that attempt has used it up.
    answer = honest.keeper("import", "wgb", 1, public.hex(), boxed(private, box_key))
    assert answer["code"] == "FAILED_PRECONDITION"


def test_another_key_than_was_offered_for_is_not_imported(honest, private):
    public, box_key = offer_for(honest, private)
    answer = honest.keeper("import", "wgb", 1, public.hex(), boxed(os.urandom(32), box_key))
    assert answer["code"] == "INVALID_ARGUMENT" and "not that of the public key" in answer["message"]
    public, box_key = offer_for(honest, private)
    answer = honest.keeper("import", "wgb", 2, public.hex(), boxed(private, box_key))
    assert answer["code"] == "FAILED_PRECONDITION"
    assert honest.keeper.ok("status")["leftovers"] == 0


@pytest.mark.parametrize("event, purpose", [("key.generated", IMPORTED), ("key.imported", WIREGUARD),
                                            ("key.generated", WIREGUARD)])
def test_an_imported_key_is_recorded_as_such_or_not_at_all(honest, private, event, purpose):
    public, box_key = offer_for(honest, private)
    honest.keeper.ok("import", "wgb", 1, public.hex(), boxed(private, box_key))
    answer = honest.do(ADOPT, event, key="wgb", generation=1, purpose=purpose, public_key=public)
    assert answer["code"] == "PERMISSION_DENIED", answer
    assert honest.keeper.ok("status")["leftovers"] == 1


def test_what_is_generated_is_not_recorded_as_imported(honest):
    public = bytes.fromhex(honest.keeper.ok("generate", "wgb", 1, WIREGUARD))
    answer = honest.do(ADOPT, "key.imported", key="wgb", generation=1, purpose=IMPORTED, public_key=public)
    assert answer["code"] == "PERMISSION_DENIED", answer


def test_nothing_is_imported_in_the_place_of_a_key_that_the_token_made(honest, private):
    public = nacl.bindings.crypto_scalarmult_base(private)
    answer = honest.keeper("offer", "wga", 2, public.hex())
    assert answer["code"] == "FAILED_PRECONDITION" and "the token made wga generation 1" in answer["message"]


def test_no_offer_for_a_generation_that_is_there(honest, private):
    public = imported(honest, private)
    assert honest.keeper("offer", "wgb", 1, public.hex())["code"] == "ALREADY_EXISTS"
    assert honest.keeper("offer", "../x", 1, public.hex())["code"] == "INVALID_ARGUMENT"
    assert honest.keeper("offer", "wgb", 1, bytes(32).hex())["code"] == "INVALID_ARGUMENT"


def test_keys_that_nobody_records_have_a_limit(honest):
    for i in range(64):
        honest.keeper.ok("generate", f"k{i}", 1, WIREGUARD)
    assert honest.keeper("generate", "one-more", 1, WIREGUARD)["code"] == "RESOURCE_EXHAUSTED"
    assert honest.do(DESTROY, "key.destroying", key="k0", generation=1)["code"] == "OK"
    honest.keeper.ok("generate", "one-more", 1, WIREGUARD)


def test_releases_have_a_rate(token, start):
    custodyd = Custodyd(token, start(rate=5))
    custodyd.initialise()
    custodyd.public = custodyd.generate()
    custodyd.applier = nacl.public.PrivateKey.generate()
    fields = custodyd.release_fields("wga", 1, custodyd.public, custodyd.applier.public_key)
    for _ in range(20):
        custodyd.entry(RELEASE, "release.granted", **fields)
    codes = [r["code"] for r in custodyd.commit(20)["results"]]
    assert codes.count("OK") in (5, 6) and set(codes) == {"OK", "RESOURCE_EXHAUSTED"}


def test_bundle_that_ends_before_it_begins_or_names_another_key(honest):
    fields = dict(key="wga", generation=1, public_key=honest.public, bundle_state=2)
    assert honest.do(PUBLISH, "key.published", not_before_us=2_000_000, not_after_us=1_000_000,
                     **fields)["code"] == "INVALID_ARGUMENT"
    assert honest.do(PUBLISH, "key.published", **{**fields, **PERIOD, "public_key": OTHER_KEY})["code"] == "PERMISSION_DENIED"


def flip_blob(path):
    """Flips one byte of the sealed blob in a SoftHSM object file, past the blob's header; False when it holds none."""
    data = bytearray(path.read_bytes())
    at = data.find(bytes.fromhex("0000000000000011" "0000000000000003"))  # CKA_VALUE, a byte string
    if at < 0 or int.from_bytes(data[at + 16:at + 24], "big") != 96:  # 72 bytes as SoftHSM encrypts them
        return False
    data[at + 24 + 16 + 40] ^= 1  # past SoftHSM's IV and into its third block
    path.write_bytes(data)
    return True


def objects(token):
    return {p for p in token.folder.glob("*.object") if p.name != "token.object"}


def test_blob_that_was_changed_in_the_token_is_not_released(honest, start, token):
    """SoftHSM does not authenticate what it stores: it hands out the changed bytes as if nothing had happened."""
    before = objects(token)
    public = honest.generate("wgc")
    assert honest.keeper.end() == 0
    assert [flip_blob(path) for path in objects(token) - before].count(True) == 1
    honest.keeper = start()
    assert honest.open()["code"] == "OK"
    answer = release(honest, key="wgc", public_key=public)
    assert answer["code"] == "DATA_LOSS" and "cannot be unsealed" in answer["message"]
    still_serves(honest)


# ---- where the log stands: the keeper believes the file and the token, not custodyd ----


def test_log_that_went_back_behind_the_token(honest, start):
    """A fork: the log is cut back to an older signed head, and would go on from there another way."""
    older = honest.checkpoint
    release(honest)
    assert honest.keeper.end() == 0  # the head is in the token now
    lines, newest = honest.lines, honest.checkpoint
    honest.lines = lines[:-1] + [b""]
    honest.forget_line()
    honest.keeper = start()
    answer = honest.open(checkpoint=older)
    assert answer["code"] == "DATA_LOSS"
    assert "the token remembers 3 records, the log's head has 2" in answer["message"]
    answer = honest.open(checkpoint="")
    assert answer["code"] == "DATA_LOSS" and "the log's head has 0" in answer["message"]
    answer = honest.open(checkpoint=newest)
    assert answer["code"] == "DATA_LOSS" and "ends before record 2" in answer["message"]
    honest.append(lines[-1])
    still_serves(honest)


def test_head_reaches_the_token_after_each_commit_while_they_are_few(honest):
    release(honest)
    # The next request is taken up only after the head was written.
    assert honest.keeper.ok("status")["head"] == honest.checkpoint


def test_head_waits_for_its_interval_while_commits_are_many(token, start, used_token):
    custodyd = Custodyd(token, start(options=["--head-interval=60000"]))
    custodyd.initialise()
    custodyd.public = custodyd.generate()
    custodyd.applier = nacl.public.PrivateKey.generate()
    began = time.monotonic()
    heads = []
    for _ in range(60):
        release(custodyd)
        heads.append(custodyd.keeper.ok("status")["head"] == custodyd.checkpoint)
    assert heads[0]
    if time.monotonic() - began < 2:  # else this machine is so slow that commits were few
        assert not all(heads)
    # What must not be forgotten does not wait.
    custodyd.do(NONE, "key.revoked", key="wga", generation=1)
    assert custodyd.keeper.ok("status")["head"] == custodyd.checkpoint
    custodyd.keeper.kill()
    custodyd.keeper = start()
    assert custodyd.keeper.ok("status")["head"] == custodyd.checkpoint


# ---- a log that lacks what the token remembers: the keeper judges itself who accepts that ----


ACCEPT_LOSS = 2
BLANK_ROOT = bytes(32)


class Loss:
    """A log cut back by one record, before a keeper that knows operators ann and bob, and what they would sign."""

    def __init__(self, custodyd, start, *options, pinned=True):
        release(custodyd)
        assert custodyd.keeper.ok("status")["head"] == custodyd.checkpoint
        self.old = len(custodyd.lines), root(custodyd.leaves)
        custodyd.keeper.kill()
        custodyd.forget_line()
        self.new = len(custodyd.lines), root(custodyd.leaves)
        self.operators = Operators(custodyd.token.dir, ("ann", "bob", "eve"))
        pins = self.operators.file.read_text().splitlines(keepends=True)
        self.operators.file.write_text("".join(line for line in pins if not line.startswith("eve ")))
        if pinned:
            options = (f"--operators={self.operators.file}", *options)
        self.custodyd, self.options, self.start = custodyd, options, start
        custodyd.keeper = start(options=options)

    def heads(self, **bent):
        return {"old_size": self.old[0], "old_root": self.old[1], "new_size": self.new[0], "new_root": self.new[1], **bent}

    def text(self, heads, id=None):
        lines = [f"old-size {heads['old_size']}", f"old-root {base64.b64encode(heads['old_root']).decode()}",
                 f"new-size {heads['new_size']}", f"new-root {base64.b64encode(heads['new_root']).decode()}"]
        request = [f"request {id}"] if id else []
        return "\n".join(["custody approval v1", f"host {HOST}", *request, "operation log.accept-loss", *lines, ""])

    def id(self, heads):
        return hashlib.sha256(self.text(heads).encode()).hexdigest()[:32]

    def approval(self, heads, name, by=None, text=None, uid=0):
        """Operator `name`'s approval record, signed with the key of `by`."""
        signature = self.operators.sign(by or name, text or self.text(heads, self.id(heads))).read_text().splitlines()
        return dict(operator_name=name, operator_key=" ".join(self.operators.public(by or name).split()[:2]),
                    signature="".join(signature[1:-1]), actor__present=1, actor__uid=uid)

    def open(self):
        c = self.custodyd
        return c.keeper("log_loss", c.first, len(c.lines), edge(c.leaves[:c.first]).hex() or "-")

    def try_batch(self, approvals, heads=None, after=(), accepted=None):
        """Commits the records of an accepted loss; the lines of a refused batch are taken off the file again."""
        c, heads = self.custodyd, heads or self.heads()
        before = len(c.lines)
        id = self.id(heads)
        c.entry(NONE, "approval.requested", request_id=id, operation=ACCEPT_LOSS, actor__present=1, **heads)
        for approval in approvals:
            c.entry(NONE, "approval.given", request_id=id, **approval)
        c.entry(NONE, "log.loss-accepted", request_id=id, actor__present=1, **(accepted or heads))
        for action, event, fields in after:
            c.entry(action, event, **fields)
        answer = c.commit(len(c.lines) - before)
        if answer["code"] != "OK":
            while len(c.lines) > before:
                c.forget_line()
        return answer


def test_loss_is_accepted_by_two_operators_signatures(honest, start):
    loss = Loss(honest, start)
    assert loss.open()["code"] == "OK"
    answer = loss.try_batch([loss.approval(loss.heads(), n) for n in ("ann", "bob")])
    assert answer["code"] == "OK", answer
    assert int(honest.checkpoint.splitlines()[1]) == loss.new[0] + 4
    assert honest.keeper.ok("status")["head"] == honest.checkpoint
    assert honest.keeper.end() == 0
    honest.keeper = start(options=loss.options)
    assert honest.keeper.ok("status")["head"] == honest.checkpoint  # no larger one came back
    still_serves(honest)


def test_loss_that_was_not_accepted_by_two_operators(honest, start):
    loss = Loss(honest, start)
    heads = loss.heads()
    ann, bob = loss.approval(heads, "ann"), loss.approval(heads, "bob")
    by_uid = dict(operator_name="bob", actor__present=1, actor__uid=1000)
    other = loss.heads(new_root=hashlib.sha256(b"another log").digest())
    shorter = loss.heads(new_size=loss.new[0] - 1)
    older = loss.heads(old_size=loss.old[0] - 1)
    both = lambda h: [loss.approval(h, n) for n in ("ann", "bob")]
    for what, code, words, options in (
            ("one operator twice", "PERMISSION_DENIED", "two different", dict(approvals=[ann, ann])),
            ("one key under two names", "PERMISSION_DENIED", "not in the operators' file",
             dict(approvals=[ann, loss.approval(heads, "bob", by="ann")])),
            ("a stranger's key", "PERMISSION_DENIED", "not in the operators' file", dict(approvals=[ann, loss.approval(heads, "eve")])),
            ("a stranger's signature under bob's key", "PERMISSION_DENIED", "by another key",
             dict(approvals=[ann, {**bob, "signature": loss.approval(heads, "eve")["signature"]}])),
            ("a signature over another text", "PERMISSION_DENIED", "over this text",
             dict(approvals=[ann, loss.approval(heads, "bob", text=loss.text(other, loss.id(heads)))])),
            ("no signature", "PERMISSION_DENIED", "--approve-by-uid", dict(approvals=[ann, by_uid])),
            ("one approval", "PERMISSION_DENIED", "takes one request, two approvals", dict(approvals=[ann])),
            ("three", "PERMISSION_DENIED", "takes one request, two approvals", dict(approvals=[ann, bob, ann])),
            ("a record more", "PERMISSION_DENIED", "nothing else",
             dict(approvals=[ann, bob], after=[(NONE, "daemon.started", {})])),
            ("another log", "PERMISSION_DENIED", "that of the lines", dict(approvals=both(other), heads=other)),
            ("a shorter log", "PERMISSION_DENIED", "that of the lines", dict(approvals=both(shorter), heads=shorter)),
            ("an older head of the token", "PERMISSION_DENIED", "the token's", dict(approvals=both(older), heads=older)),
            ("another loss than was approved", "PERMISSION_DENIED", "that of the lines",
             dict(approvals=[ann, bob], accepted=other))):
        assert loss.open()["code"] == "OK"
        answer = loss.try_batch(**options)
        assert answer["code"] == code and words in answer["message"], (what, answer)
    # Nothing else is done in a log that the token does not know, and it is not opened the ordinary way.
    assert loss.open()["code"] == "OK"
    honest.entry(RELEASE, "release.granted", **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    answer = honest.commit()
    assert answer["code"] == "PERMISSION_DENIED" and not answer["results"]
    honest.forget_line()
    assert honest.open()["code"] != "OK"
    # The same signatures serve when all is right.
    assert loss.open()["code"] == "OK"
    assert loss.try_batch([ann, bob])["code"] == "OK"
    still_serves(honest)


def test_loss_where_nothing_is_lost(honest, start):
    heads = dict(old_size=2, old_root=root(honest.leaves), new_size=2, new_root=root(honest.leaves))
    honest.entry(NONE, "log.loss-accepted", request_id="0" * 32, actor__present=1, **heads)
    answer = honest.commit()
    assert answer["code"] == "FAILED_PRECONDITION" and "token and log agree" in answer["message"]
    honest.forget_line()
    still_serves(honest)


def test_loss_is_accepted_by_two_uids_only_where_that_is_configured(honest, start):
    loss = Loss(honest, start, "--approve-by-uid", pinned=False)
    uids = [dict(operator_name=n, actor__present=1, actor__uid=u) for n, u in (("ann", 1000), ("bob", 1001))]
    assert loss.open()["code"] == "OK"
    answer = loss.try_batch([uids[0], {**uids[1], "actor__uid": 1000}])
    assert answer["code"] == "PERMISSION_DENIED" and "two different" in answer["message"]
    assert loss.open()["code"] == "OK"
    answer = loss.try_batch([uids[0], loss.approval(loss.heads(), "bob")])
    assert answer["code"] == "PERMISSION_DENIED" and "operators' file" in answer["message"]
    assert loss.open()["code"] == "OK"
    assert loss.try_batch(uids)["code"] == "OK"
    still_serves(honest)


def test_newer_log_needs_a_proof_that_it_continues_the_token(honest, start, token):
    honest.keeper.ok("status")
    honest.keeper.end()
    keeper_head = 2
    snapshot = {p: p.read_bytes() for p in token.folder.iterdir()}
    honest.keeper = start()
    assert honest.open()["code"] == "OK"
    for _ in range(5):
        release(honest)
    honest.keeper.kill()
    for path in token.folder.iterdir():  # the token as it was: its head lags behind the log's
        path.unlink()
    for path, data in snapshot.items():
        path.write_bytes(data)
    honest.keeper = start()
    answer = honest.open()
    assert answer["code"] == "DATA_LOSS" and "does not continue the 2" in answer["message"]
    proof = consistency(keeper_head, honest.leaves)
    assert honest.open(proof=proof[:-1] + bytes([proof[-1] ^ 1]))["code"] == "DATA_LOSS"
    assert honest.open(proof=proof)["code"] == "OK"
    assert release(honest)["code"] == "OK"


def test_head_that_others_signed_or_nobody(honest):
    text = honest.checkpoint.rsplit("\n\n", 1)[0]
    for note in (text + "\n", honest.checkpoint.replace("alpha/", "beta/"),
                 honest.checkpoint.replace("\n2\n", "\n3\n"), "x", "\n\n", honest.checkpoint[:-8] + "AAAAAAA\n"):
        answer = honest.open(checkpoint=note)
        assert answer["code"] != "OK", note
        assert "signed head" in answer["message"]
    still_serves(honest)


def test_line_that_was_edited_after_it_was_committed(honest):
    release(honest)
    good = honest.segment.read_bytes()
    honest.segment.write_bytes(good.replace(b'"seq":1', b'"seq":9'))
    answer = honest.open()
    assert answer["code"] == "DATA_LOSS" and "a line was changed" in answer["message"]
    honest.segment.write_bytes(good)
    still_serves(honest)


def test_line_that_is_edited_between_append_and_commit(honest):
    fields = honest.release_fields("wga", 1, honest.public, honest.applier.public_key)
    honest.entry(RELEASE, "release.granted", **fields)
    data = honest.segment.read_bytes()
    honest.segment.write_bytes(data[:-10] + b"X" + data[-9:])
    refused_commit(honest, "FAILED_PRECONDITION", "holds other bytes")
    honest.forget_line()
    still_serves(honest)


def test_line_without_its_newline(honest):
    fields = honest.release_fields("wga", 1, honest.public, honest.applier.public_key)
    honest.entry(RELEASE, "release.granted", **fields)
    os.truncate(honest.segment, honest.segment.stat().st_size - 1)
    refused_commit(honest, "FAILED_PRECONDITION", "before the record does")
    honest.forget_line()
    still_serves(honest)


def swap_by_rename(segment):
    other = segment.with_name("other")
    other.write_bytes(segment.read_bytes())
    other.rename(segment)


def swap_by_link(segment):
    os.link(segment, segment.parent / "second-name")


def swap_by_symlink(segment):
    segment.rename(segment.parent / "moved")
    segment.symlink_to("moved")


@pytest.mark.parametrize("swap, words", [
    (swap_by_rename, "was replaced by another file"),
    (pathlib.Path.unlink, "is gone from its folder"),
    (swap_by_link, "has 2 names"),
    (swap_by_symlink, "was replaced by another file"),
])
def test_segment_that_is_swapped_after_it_was_opened(honest, swap, words):
    honest.append(honest.fill("release.granted",
                              **honest.release_fields("wga", 1, honest.public, honest.applier.public_key)))
    honest.keeper("entry", RELEASE)
    swap(honest.segment)
    refused_commit(honest, "FAILED_PRECONDITION", words)
    for path in honest.segment.parent.iterdir():
        path.unlink()
    honest.forget_line()
    still_serves(honest)


@pytest.mark.parametrize("spoil, code, words", [
    (lambda log: log.rename(log.with_name("elsewhere")), "NOT_FOUND", "audit"),
    (lambda log: (log / "000000000000.jsonl").unlink(), "NOT_FOUND", "000000000000.jsonl"),
    (lambda log: ((log / "000000000000.jsonl").unlink(), (log / "000000000000.jsonl").mkdir()), "FAILED_PRECONDITION",
     "not a regular file"),
    (lambda log: ((log / "000000000000.jsonl").unlink(), os.mkfifo(log / "000000000000.jsonl")), "FAILED_PRECONDITION",
     "not a regular file"),
])
def test_log_that_is_not_there(honest, spoil, code, words):
    data = honest.segment.read_bytes()
    spoil(honest.segment.parent)
    answer = honest.open()
    assert answer["code"] == code and words in answer["message"], answer
    honest.segment.parent.mkdir(exist_ok=True)
    if honest.segment.is_dir():
        honest.segment.rmdir()
    honest.segment.unlink(missing_ok=True)
    honest.segment.write_bytes(data)
    still_serves(honest)


def test_segment_that_does_not_fit_the_head(honest):
    honest.first = 99
    honest.segment.touch()
    answer = honest.open()
    assert answer["code"] == "INVALID_ARGUMENT" and "does not belong" in answer["message"]
    honest.first = 0
    still_serves(honest)


# ---- the disk ----


@pytest.fixture
def slow_disk(token):
    """The environment for a keeper whose disk hangs while the file `hold` exists, and fails while `fail` does."""
    library = default_builddir() / ".libs/slow_disk.so"
    assert library.exists(), "make check builds it"
    return {"LD_PRELOAD": str(library), "SLOW_DISK": str(token.dir / "disk")}


def test_nothing_is_answered_before_the_disk_has_it(honest, start, token, slow_disk):
    assert honest.keeper.end() == 0
    honest.keeper = start(env=slow_disk)
    assert honest.open()["code"] == "OK"
    honest.entry(RELEASE, "release.granted", **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    hold = token.dir / "disk.hold"
    hold.touch()
    client = honest.keeper.client
    client.stdin.write("commit 1\n")
    client.stdin.flush()
    assert select.select([client.stdout], [], [], 1.0)[0] == [], "an answer came before fdatasync had returned"
    hold.unlink()
    answer = json.loads(client.stdout.readline())
    assert answer["code"] == "OK" and answer["results"][0]["code"] == "OK"


def test_disk_that_fails_lets_nothing_out(honest, start, token, slow_disk):
    assert honest.keeper.end() == 0
    honest.keeper = start(env=slow_disk)
    assert honest.open()["code"] == "OK"
    head = honest.keeper.ok("status")["head"]
    fail = token.dir / "disk.fail"
    fail.touch()
    honest.entry(RELEASE, "release.granted", **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    refused_commit(honest, "UNAVAILABLE", "fdatasync: Input/output error")
    assert honest.keeper.ok("status")["head"] == head
    # The same entry, asked for again as if the error had been a passing one: the log has to be opened first.
    fail.unlink()
    honest.keeper("entry", RELEASE)
    assert honest.commit()["code"] == "FAILED_PRECONDITION"
    honest.forget_line()
    still_serves(honest)


def test_second_keeper_on_one_token_gives_up(honest, start):
    """Two logins can destroy a SoftHSM token."""
    said = exits(start(), EXIT_NO_TOKEN)
    assert "another keeper uses the SoftHSM token" in said
    still_serves(honest)


# ---- packets that are no requests ----


def packets(keeper):
    """Hostile packets by what is wrong with them."""
    head = {op: keeper("header", op) for op in range(1, 9)}
    raw = {op: bytes.fromhex(h["header"]) for op, h in head.items()}
    size = {op: h["size"] for op, h in head.items()}
    entry, log_open, generate = 7, 6, 5
    yield "short", raw[1][:7]
    yield "one byte", b"\0"
    yield "bad magic", b"\xff" * size[1]
    yield "bad version", raw[1][:4] + b"\x63\0" + raw[1][6:]
    yield "unknown operation", raw[1][:6] + b"\xff\xff" + raw[1][8:]
    yield "operation 0", raw[1][:6] + b"\0\0" + raw[1][8:]
    yield "truncated", raw[entry] + bytes(size[entry] - len(raw[entry]) - 1)
    yield "oversized", raw[1] + b"\0"
    yield "far oversized", raw[entry] + bytes(60000)
    yield "no string ends", raw[entry] + b"A" * (size[entry] - len(raw[entry]))
    yield "unterminated name", raw[generate] + b"A" * (size[generate] - len(raw[generate]))
    yield "counts beyond", raw[log_open] + b"\0" * 8 + b"\0" * 4096 + b"\xff" * (size[log_open] - len(raw[1]) - 4104)
    for i in range(40):
        yield f"garbage {i}", hashlib.shake_128(bytes([i])).digest(1 + 97 * i)


def test_packets_that_are_no_requests(honest):
    for what, packet in packets(honest.keeper):
        answer = honest.keeper("raw", packet.hex())
        assert answer["code"] == "INVALID_ARGUMENT", (what, answer)
        assert "keeper channel" in answer["message"], (what, answer)
    still_serves(honest)


def test_malformed_entry_spoils_its_batch(honest):
    honest.entry(NONE, "daemon.started", version="0.1.0")
    head = honest.keeper("header", 7)
    bad = bytes.fromhex(head["header"])
    assert honest.keeper("raw", (bad + b"A" * (head["size"] - len(bad))).hex())["code"] == "INVALID_ARGUMENT"
    refused_commit(honest, "INVALID_ARGUMENT", "a commit of 2 records came with 1", count=2)
    honest.forget_line()
    still_serves(honest)


# ---- the token ----


def exits(keeper, status):
    assert keeper.process.wait(20) == status, keeper.said()
    return keeper.said()


def test_wrong_pin(token, start):
    pin = token.dir / "hsm/pin"
    right = pin.read_text()
    pin.write_text("wrong")
    said = exits(start(), EXIT_NO_LOGIN)
    assert "token 'custody': C_Login: the PIN is wrong (CKR_PIN_INCORRECT" in said
    assert "counts wrong PINs" in said and "wrong\n" not in said
    pin.write_text(right + "\n")
    assert start().ok("status")["token"]["label"] == "custody"


def test_pin_from_the_credentials_folder(token, start):
    (token.dir / "credentials").mkdir()
    (token.dir / "hsm/pin").rename(token.dir / "credentials/token-pin")
    uri = token.uri.split("?")[0] + "?" + token.uri.split("&")[1]
    assert "no PIN" in exits(start(uri=uri), EXIT_NO_LOGIN)
    keeper = start(uri=uri, env={"CREDENTIALS_DIRECTORY": str(token.dir / "credentials")})
    assert keeper.ok("status")["initialised"] is False


@pytest.mark.parametrize("spoil, words", [
    (lambda pin: pin.unlink(), "No such file"),
    (lambda pin: pin.write_text(""), "is empty"),
    (lambda pin: pin.write_text("x" * 300), "longer than a PIN can be"),
    (lambda pin: pin.chmod(0o644), "open to every user"),
    (lambda pin: (pin.unlink(), pin.mkdir()), "not a regular file"),
])
def test_pin_file_that_cannot_be_used(token, start, spoil, words):
    spoil(token.dir / "hsm/pin")
    assert words in exits(start(), EXIT_NO_LOGIN)


@pytest.mark.parametrize("bend, words", [
    (lambda uri: uri.replace("token=custody", "token=other"), "no token matches"),
    (lambda uri: uri.replace("/usr/lib", "/nowhere"), "PKCS#11 module /nowhere"),
])
def test_token_that_is_not_there(token, start, bend, words):
    assert words in exits(start(uri=bend(token.uri)), EXIT_NO_TOKEN)


@pytest.mark.parametrize("uri, words", [("nonsense", "token URI nonsense"),
                                        ("pkcs11:token=custody?pin-value=1234", "change the PIN")])
def test_uri_that_cannot_be_used(token, start, uri, words):
    said = exits(start(uri=uri), 1)
    assert words in said and "1234" not in said


def test_emptied_token_object_is_put_back(honest, start, token):
    """What a kill inside SoftHSM's C_Login leaves."""
    assert honest.keeper.end() == 0
    os.truncate(token.object, 0)
    honest.keeper = start()
    still_serves(honest)
    assert "put back from the copy made at provisioning" in honest.keeper.said()


def test_missing_token_object_is_put_back(honest, start, token):
    assert honest.keeper.end() == 0
    token.object.unlink()
    honest.keeper = start()
    still_serves(honest)


def test_token_that_goes_away_ends_the_keeper_and_returns(honest, start, token):
    honest.entry(RELEASE, "release.granted",
                 **honest.release_fields("wga", 1, honest.public, honest.applier.public_key))
    away = token.folder.parent.with_name("away")
    token.folder.parent.rename(away)
    answer = honest.commit()
    assert answer["code"] == "UNAVAILABLE" and "no longer works" in answer["message"]
    assert answer["results"] == []
    assert "no longer works" in exits(honest.keeper, EXIT_TOKEN_LOST)
    assert "C_Initialize" in exits(start(), EXIT_NO_TOKEN)
    token.folder.parent.mkdir()
    assert "no token matches" in exits(start(), EXIT_NO_TOKEN)
    token.folder.parent.rmdir()
    away.rename(token.folder.parent)
    honest.keeper = start()
    honest.forget_line()
    still_serves(honest)


def test_keys_gone_from_a_token_that_holds_blobs_are_not_made_anew(honest, start, token):
    """Initialising is for an empty token: one that lost its keys must be restored."""
    assert honest.keeper.end() == 0
    # The public halves are the objects whose names SoftHSM does not encrypt.
    gone = [path for path in objects(token) if b"custody-log-1" in path.read_bytes()]
    assert len(gone) == 1
    gone[0].unlink()
    keeper = start()
    assert keeper.ok("status")["initialised"] is False
    answer = keeper("init")
    assert answer["code"] == "DATA_LOSS" and "restore the token" in answer["message"]
    answer = keeper("log_open", 0, honest.checkpoint.encode().hex(), "-", "-")
    assert answer["code"] == "FAILED_PRECONDITION" and "not initialised" in answer["message"]


def test_torn_object_is_a_leftover(honest, start, token):
    """What a kill inside SoftHSM's C_CreateObject leaves."""
    assert honest.keeper.end() == 0
    (token.folder / "00000000-0000-0000-0000-000000000001.object").touch(mode=0o600)
    honest.keeper = start()
    assert honest.keeper.ok("status")["blobs"] == 1
    still_serves(honest)


def test_probe_passes_and_leaves_nothing_behind(honest, token):
    before = objects(token)
    checks = honest.keeper.ok("probe")
    assert [c["name"] for c in checks if c["required"] and not c["passed"]] == []
    assert len(checks) >= 13
    empty_iv = next(c for c in checks if "empty IV" in c["name"])
    assert not empty_iv["required"]
    assert objects(token) == before
    still_serves(honest)


def test_keys_never_leave_by_other_tools(honest, token):
    """OpenSC's pkcs11-tool, logged in with the PIN, as judge of the attributes."""
    assert honest.keeper.end() == 0
    listing = subprocess.run(
        ["pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "custody", "--login", "--pin",
         "env:PIN", "--list-objects"], capture_output=True, text=True, timeout=30,
        env={**os.environ, "SOFTHSM2_CONF": str(token.dir / "hsm/softhsm2.conf"),
             "PIN": (token.dir / "hsm/pin").read_text()}).stdout
    sections = {}
    for part in listing.replace("Private Key Object", "\0Private").replace("Secret Key Object", "\0Secret").replace(
            "Public Key Object", "\0Public").replace("Data object", "\0Data").split("\0"):
        for line in part.splitlines():
            if line.strip().startswith("label:"):
                sections.setdefault(line.split(":", 1)[1].strip(" '"), []).append(part)
    for name in ("custody-kek-1", "custody-mac-1", "custody-psk-1", "custody-log-1", "custody-host-1"):
        private = [part for part in sections[name] if not part.startswith("Public")]
        assert len(private) == 1
        assert "sensitive" in private[0] and "never extractable" in private[0] and "local" in private[0]
    usage = next(line for line in sections["custody-kek-1"][0].splitlines() if "Usage:" in line)
    assert usage.split(":")[1].strip() == "encrypt, decrypt"


# ---- death and rebirth ----


def test_kill_between_operations(honest, start):
    for _ in range(5):
        release(honest)
        honest.keeper.kill()
        honest.keeper = start()
        status = honest.keeper.ok("status")
        # The head may lag behind the log, never lead it.
        size = int(status["head"].splitlines()[1])
        assert size <= honest.size()
        answer = honest.open(proof=consistency(size, honest.leaves[:honest.size()]))
        assert answer["code"] == "OK", answer
    answer = release(honest)
    assert answer["code"] == "OK"


def test_kill_before_the_answer_and_the_record_again(honest, start):
    """The record was durable but its answer never came: it is committed again as a plain record, or with its action."""
    public = bytes.fromhex(honest.keeper.ok("generate", "wga", 2, WIREGUARD))
    generated = dict(key="wga", generation=2, purpose=WIREGUARD, public_key=public)
    honest.append(honest.fill("key.generated", **generated))
    honest.keeper.kill()
    honest.keeper = start()
    size = int(honest.keeper.ok("status")["head"].splitlines()[1])
    assert honest.open(proof=consistency(size, honest.leaves[:honest.size()]))["code"] == "OK"
    honest.keeper("entry", ADOPT)
    assert honest.keeper("commit", 1)["code"] == "FAILED_PRECONDITION"  # a new client's record is empty
    assert honest.open(proof=consistency(size, honest.leaves[:honest.size()]))["code"] == "OK"
    honest.lines.pop()
    line = honest.fill("key.generated", **generated)
    honest.lines.append(line)
    honest.keeper("entry", ADOPT)
    answer = honest.commit()
    assert answer["results"][0]["code"] == "OK"
    again = honest.do(ADOPT, "key.generated", **generated)
    assert again["code"] == "OK"
    assert release(honest, generation=2, public_key=public)["code"] == "OK"


def send_and_kill(keeper, delay, *words):
    """Sends a command and kills the keeper `delay` seconds later, wherever it is then."""
    keeper.client.stdin.write(" ".join(str(w) for w in words) + "\n")
    keeper.client.stdin.flush()
    time.sleep(delay)
    keeper.kill()


def reopened(custodyd, start):
    """A new keeper with the log open; the checkpoint is the larger of custodyd's and the token's, as custodyd takes it."""
    custodyd.keeper = start()
    head = custodyd.keeper.ok("status")["head"]
    size = int(head.splitlines()[1])
    if size > custodyd.size():
        custodyd.checkpoint = head
    answer = custodyd.open(proof=consistency(size, custodyd.leaves[:custodyd.size()]))
    assert answer["code"] == "OK", answer


def test_kill_while_a_key_is_made(honest, start):
    chance = random.Random(2)
    for _ in range(12):
        highest = max([b["generation"] for b in honest.keeper.ok("list", 0) if b["key"] == "wgx"], default=0)
        send_and_kill(honest.keeper, chance.uniform(0, 0.03), "generate", "wgx", highest + 1, WIREGUARD)
        reopened(honest, start)
        assert honest.keeper.ok("status")["blobs"] == 1
        assert release(honest)["code"] == "OK"


def test_kill_while_a_key_is_adopted_loses_none(honest, start):
    chance = random.Random(3)
    for generation in range(2, 12):
        public = bytes.fromhex(honest.keeper.ok("generate", "wga", generation, WIREGUARD))
        generated = dict(key="wga", generation=generation, purpose=WIREGUARD, public_key=public)
        honest.entry(ADOPT, "key.generated", **generated)
        send_and_kill(honest.keeper, chance.uniform(0, 0.03), "commit", 1)
        line = honest.lines[-1]
        reopened(honest, start)
        if honest.size() < len(honest.lines):  # the answer never came: the record is committed again
            honest.lines.pop()
            assert honest.fill("key.generated", **generated) == line
            honest.lines.append(line)
            honest.keeper("entry", ADOPT)
            answer = honest.commit()
            assert answer["code"] == "OK" and answer["results"][0]["code"] == "OK", answer
        assert release(honest, generation=generation, public_key=public)["code"] == "OK"


def test_kill_while_a_key_is_destroyed(honest, start):
    chance = random.Random(4)
    for generation in range(2, 10):
        honest.generate(generation=generation)
        gone = dict(key="wga", generation=generation)
        honest.entry(DESTROY, "key.destroying", **gone)
        send_and_kill(honest.keeper, chance.uniform(0, 0.03), "commit", 1)
        line = honest.lines[-1]
        reopened(honest, start)
        there = generation in [b["generation"] for b in honest.keeper.ok("list", 0)]
        recorded = honest.size() == len(honest.lines)
        assert there or recorded, "the key went before the token knew its record"
        if not recorded:
            honest.lines.pop()
            assert honest.fill("key.destroying", **gone) == line
            honest.lines.append(line)
            honest.keeper("entry", NONE)
            assert honest.commit()["code"] == "OK"
        if there:
            assert honest.do(DESTROY, "key.destroying", **gone)["code"] == "OK"
        assert honest.do(NONE, "key.destroyed", **gone)["code"] == "OK"
    assert release(honest)["code"] == "OK"


def test_sigterm_writes_the_head_and_ends_well(honest, start):
    release(honest)
    honest.keeper.process.send_signal(signal.SIGTERM)
    assert honest.keeper.process.wait(20) == 0
    assert start().ok("status")["head"] == honest.checkpoint


# ---- the process ----


def test_process_is_shut(honest):
    pid = honest.keeper.process.pid
    status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
                  if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["SigIgn"], 16) & (1 << (signal.SIGPIPE - 1))
    limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert b"LD_BIND_NOW=1" in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    # Not dumpable: /proc/PID belongs to root even where the process does not.
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0


def test_descriptors_that_were_not_given_are_closed(token, start):
    r, w = os.pipe()
    os.set_inheritable(w, True)
    keeper = start()
    keeper.ok("status")
    links = [os.readlink(p) for p in pathlib.Path(f"/proc/{keeper.process.pid}/fd").iterdir()]
    assert not any("pipe:" in link for link in links if link != os.readlink(f"/proc/{keeper.process.pid}/fd/2"))
    os.close(r)
    os.close(w)


def listening(token, *options):
    path = token.dir / "keeper.sock"
    process = subprocess.Popen(
        [find_program(default_builddir(), "custody-keeper"), f"--host={HOST}", f"--token={token.uri}",
         f"--audit-dir={token.audit}", f"--socket={path}", *options], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "SOFTHSM2_CONF": str(token.dir / "hsm/softhsm2.conf")})
    assert "logged in" in process.stderr.readline()
    return process, path


def talk(path, *words):
    """One client's visit: connects, sends one command, leaves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(str(path))
        done = subprocess.run([find_program(default_builddir(), "keeper_client"), str(s.fileno())],
                              pass_fds=[s.fileno()], input=" ".join(words) + "\n", capture_output=True, text=True,
                              timeout=60)
    return json.loads(done.stdout)


def test_socket_serves_one_client_after_the_other(token):
    process, path = listening(token)
    try:
        assert path.stat().st_mode & 0o777 == 0o700
        assert talk(path, "init")["code"] == "OK"
        assert talk(path, "status")["body"]["initialised"] is True
        second = subprocess.run(process.args, capture_output=True, text=True, timeout=20)
        assert second.returncode == 1 and "another keeper's socket" in second.stderr
        assert talk(path, "status")["code"] == "OK"
        process.terminate()
        assert process.wait(20) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def test_socket_turns_other_users_away(token):
    process, path = listening(token, "--client-uid=12345")
    try:
        assert talk(path, "status")["code"] == "CHANNEL"
        assert "uid 0 was turned away" in process.stderr.readline()
    finally:
        process.kill()
        process.wait()


def test_socket_of_systemd(token):
    """Socket activation (sd_listen_fds(3)): the listening socket is descriptor 3."""
    path = token.dir / "keeper.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.bind(str(path))
        s.listen(1)
        process = subprocess.Popen(
            ["/bin/bash", "-c", 'exec 3<&$1; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "bash", str(s.fileno()),
             find_program(default_builddir(), "custody-keeper"), f"--host={HOST}", f"--token={token.uri}",
             f"--audit-dir={token.audit}"], pass_fds=[s.fileno()],
            env={**os.environ, "SOFTHSM2_CONF": str(token.dir / "hsm/softhsm2.conf")})
    try:
        assert talk(path, "init")["code"] == "OK"
        assert talk(path, "status")["body"]["initialised"] is True
        assert pathlib.Path(f"/proc/{process.pid}/comm").read_text() == "custody-keeper\n"
        process.terminate()
        assert process.wait(20) == 0
        assert path.exists(), "systemd's socket is not the keeper's to remove"
    finally:
        process.kill()
        process.wait()


def test_token_is_found_among_the_modules_p11_kit_is_configured_with(token, start):
    if not list(pathlib.Path("/usr/share/p11-kit/modules").glob("softhsm*")):
        pytest.skip("p11-kit is not configured with SoftHSM here")
    keeper = start(uri=token.uri.split("&module-path")[0])
    assert keeper.ok("status")["token"]["manufacturer"] == "SoftHSM project"


def test_stale_socket_is_replaced(token):
    process, path = listening(token)
    process.kill()
    process.wait()
    assert path.exists()
    process, path = listening(token)
    assert talk(path, "status")["code"] == "OK"
    process.kill()
    process.wait()


@pytest.mark.parametrize("arguments", [[], ["--host=alpha"], ["--nonsense"], ["stray"],
                                       ["--host=Not_a_host", "--token=pkcs11:", "--audit-dir=/"],
                                       ["--host=a", "--token=pkcs11:", "--audit-dir=/", "--fd=3", "--socket=/x"],
                                       ["--host=a", "--token=pkcs11:", "--audit-dir=/", "--releases-per-second=0"]])
def test_usage_errors(arguments):
    done = subprocess.run([find_program(default_builddir(), "custody-keeper"), *arguments], capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 2 and "--help" in done.stderr


def test_provision_never_touches_a_token_that_is_there(token):
    before = token.object.read_bytes()
    done = subprocess.run([TOP / "hsm-config/softhsm/provision", token.dir / "hsm"], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 1 and "never overwritten" in done.stderr and done.stdout == ""
    assert token.object.read_bytes() == before
    for name in ("pin", "so-pin", "softhsm2.conf"):
        assert (token.dir / "hsm" / name).stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_never_recorded_is_taken_for_the_next(honest):
    """A crash between a key and its record leaves it in the token: it is used up, so that such keys never gather."""
    public = honest.keeper.ok("generate", "wgb", 1, WIREGUARD)
    assert honest.keeper.ok("generate", "wgb", 1, WIREGUARD) == public
    assert honest.keeper.ok("status")["leftovers"] == 1
    done = honest.do(ADOPT, "key.generated", key="wgb", generation=1, purpose=WIREGUARD, public_key=bytes.fromhex(public))
    assert done["code"] == "OK" and honest.keeper.ok("status")["leftovers"] == 0
    again = honest.keeper("generate", "wgb", 1, WIREGUARD)
    assert again["code"] == "ALREADY_EXISTS"
