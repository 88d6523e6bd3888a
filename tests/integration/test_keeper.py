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
