# SPDX-License-Identifier: Apache-2.0
"""The keeper against a custodyd that an attacker runs: real SoftHSM token, real channel, and requests that lie."""

import base64
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import shutil
import time

import nacl.bindings
import nacl.public
import nacl.signing
import pytest

from stack import TOP, default_builddir, find_program

HOST = "alpha"
NONE, INIT, ADOPT, RELEASE, DESTROY, PUBLISH = range(6)
WIREGUARD = 1
LEASE = "00112233445566778899aabbccddeeff"
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
    """A SoftHSM token in a folder of its own."""

    def __init__(self, dir):
        self.dir = pathlib.Path(dir)
        done = subprocess.run([TOP / "hsm-config/softhsm/provision", self.dir / "hsm"], capture_output=True, text=True,
                              timeout=30)
        assert done.returncode == 0, done.stderr
        self.uri = done.stdout.strip()
        self.audit = self.dir / "audit"
        (self.audit / "log").mkdir(parents=True)
        self.folder = next((self.dir / "hsm/tokens").iterdir())

    @property
    def object(self):
        return self.folder / "token.object"


class Keeper:
    """A running custody-keeper, and keeper_client at the other end."""

    def __init__(self, token, *, host=HOST, rate=1000, uri=None, env=None):
        builddir = default_builddir()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stderr = open(token.dir / "keeper.log", "w+")
        self.process = subprocess.Popen(
            [find_program(builddir, "custody-keeper"), f"--host={host}", f"--token={uri or token.uri}",
             f"--audit-dir={token.audit}", f"--fd={theirs.fileno()}", f"--releases-per-second={rate}"],
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


@pytest.fixture
def token():
    dir = tempfile.mkdtemp(prefix="custody-keeper-")
    yield Token(dir)
    shutil.rmtree(dir)


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
def honest(token, start):
    """A custodyd on an initialised token with wga generation 1."""
    custodyd = Custodyd(token, start())
    custodyd.initialise()
    custodyd.public = custodyd.generate()
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
    answer = honest.do(PUBLISH, "key.published", key="wga", generation=1, public_key=honest.public,
                       not_before_us=1_790_000_000_000_000, not_after_us=1_792_000_000_000_000)
    text = verify_note(answer["body"]["bundle"], status["host_vkey"])
    assert text.splitlines()[:5] == ["custody bundle v1", f"host {HOST}", "key wga", "generation 1",
                                     f"public-key {base64.b64encode(honest.public).decode()}"]


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
                                           (PUBLISH, "key.published"), (RELEASE, "release.granted")])
def test_nothing_is_done_without_a_record_in_the_file(honest, action, event):
    honest.fill(event, key="wga", generation=1, public_key=honest.public)
    honest.keeper("entry", action)
    refused_commit(honest, "FAILED_PRECONDITION", "before the record does")
    assert honest.keeper.ok("status")["blobs"] == 1
    still_serves(honest)


OTHER_KEY = bytes(range(32))
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
    refused_commit(honest, "FAILED_PRECONDITION", "holds other bytes")
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
                                           (INIT, "token.opened")])
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
    (dict(purpose=2), "PERMISSION_DENIED", "another purpose"),
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
    fields = dict(key="wga", generation=1, public_key=honest.public, not_before_us=2_000_000, not_after_us=1_000_000)
    assert honest.do(PUBLISH, "key.published", **fields)["code"] == "INVALID_ARGUMENT"
    assert honest.do(PUBLISH, "key.published", **{**fields, "public_key": OTHER_KEY})["code"] == "PERMISSION_DENIED"


def test_blob_that_was_changed_in_the_token_is_not_released(honest, start, token):
    """SoftHSM does not authenticate what it stores: every byte of every object that holds no key of ours is flipped."""
    names = {p for p in token.folder.glob("*.object") if p.name != "token.object"}
    honest.generate("wgc")
    assert honest.keeper.end() == 0
    blobs = {p for p in token.folder.glob("*.object") if p.name != "token.object"} - names
    changed = 0
    for path in blobs:
        data = bytearray(path.read_bytes())
        at = data.find(b"custody-key/wgc/1")
        if at < 0:
            # Private attributes are encrypted: the blob's object is the largest of the new ones.
            at = len(data) // 2
        data[-20] ^= 1
        path.write_bytes(data)
        changed += 1
    assert changed > 0
    honest.keeper = start()
    if honest.keeper.process.poll() is None and honest.open()["code"] == "OK":
        answer = release(honest, key="wgc")
        assert answer["code"] != "OK" and "body" not in answer
