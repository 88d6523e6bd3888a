# SPDX-License-Identifier: Apache-2.0
"""A client of custodyd written from proto/PROTOCOL alone: no code of custody's, only protobuf, NaCl and the standard library."""

import base64
import collections
import datetime
import hashlib
import importlib.util
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile

import nacl.bindings
import nacl.exceptions
import nacl.public
import nacl.signing

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
FRAME_MAX = 65536
EM_DASH = "\u2014 "


def _generate():
    """custody.proto as a Python module, made by protoc."""
    with tempfile.TemporaryDirectory(prefix="custody-pb-") as out:
        subprocess.run(["protoc", f"--proto_path={PROTO}", f"--python_out={out}", "custody.proto"], check=True)
        spec = importlib.util.spec_from_file_location("custody_pb2", f"{out}/custody_pb2.py")
        module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = before
        return module


pb = _generate()


class Refused(Exception):
    """The daemon's answer is not OK."""

    def __init__(self, response):
        self.code = pb.Code.Name(response.code)
        self.message = response.message
        self.id = response.id
        super().__init__(f"{self.code}: {self.message}")


class Closed(Exception):
    """The daemon closed the connection."""


class Unproven(Exception):
    """An answer does not hold what it must."""


def need(condition, what):
    if not condition:
        raise Unproven(what)


# ---- sections 1 and 2: frames and requests ----

def frame(message):
    return struct.pack(">I", len(message)) + message


class Connection:
    """Frames on the socket."""

    def __init__(self, path, timeout=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def send_bytes(self, data):
        self.socket.sendall(data)

    def _read(self, length):
        data = b""
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise Closed("in the middle of a frame" if data else "")
            data += more
        return data

    def receive(self):
        """The next Response."""
        (length,) = struct.unpack(">I", self._read(4))
        need(1 <= length <= FRAME_MAX, "a frame's length")
        return pb.Response.FromString(self._read(length))


class Client(Connection):
    """A connection that has said hello."""

    def __init__(self, path, timeout=20):
        super().__init__(path, timeout)
        self.last_id = 0
        self.early = {}
        self.hello = self.call(hello=pb.Hello(version=1, client="python_client"))

    def send(self, **body):
        """Sends one request and returns its id, without waiting."""
        self.last_id += 1
        self.send_bytes(frame(pb.Request(id=self.last_id, **body).SerializeToString()))
        return self.last_id

    def answer(self, id):
        """The answer to request `id`, whatever comes before it."""
        while id not in self.early:
            response = self.receive()
            if response.id == 0:
                raise Refused(response)
            self.early[response.id] = response
        response = self.early.pop(id)
        if response.code != pb.OK:
            raise Refused(response)
        return getattr(response, response.WhichOneof("body"))

    def call(self, **body):
        return self.answer(self.send(**body))

    # ---- requests ----

    def send_release(self, key, generation=0, reason="BOOT", ticket=""):
        """Asks for a key with a key pair made for this; for take_release."""
        private = nacl.public.PrivateKey.generate()
        id = self.send(release_key=pb.ReleaseKey(
            key=key, generation=generation, reason=pb.Reason.Value(reason), ticket=ticket,
            applier_public_key=bytes(private.public_key)))
        return Asked(id, key, generation, reason, ticket, private)

    def take_release(self, asked, vkey):
        return check_release(self.answer(asked.id), asked, vkey)

    def release(self, key, vkey, **options):
        """A released key, all of whose proof was checked with `vkey`."""
        return self.take_release(self.send_release(key, **options), vkey)

    def report(self, lease, applied=True, detail=""):
        return self.call(report_outcome=pb.ReportOutcome(lease=lease, applied=applied, detail=detail))

    def keys(self, key=""):
        return list(self.call(list_keys=pb.ListKeys(key=key)).keys)

    def status(self):
        return self.call(get_status=pb.GetStatus())


Asked = collections.namedtuple("Asked", "id key generation reason ticket private")
Released = collections.namedtuple("Released", "private_key public_key generation lease expires_us record line receipt")


# ---- section 4: what must be checked ----

def check_release(answer, asked, vkey):
    """The four checks of ReleasedKey; Unproven where one fails."""
    record = parse_record(answer.record)
    need(record["event"] == "release.granted", "event")
    need(record.get("key") == asked.key, "key")
    need(record.get("reason") == asked.reason, "reason")
    need(record.get("ticket", "") == asked.ticket, "ticket")
    need(record.get("generation") == answer.generation != 0, "generation")
    need(asked.generation in (0, answer.generation), "generation")
    need(len(answer.public_key) == 32, "public key")
    need(record.get("public_key") == base64.b64encode(answer.public_key).decode(), "public key")
    own = base64.b64encode(bytes(asked.private.public_key)).decode()
    need(record.get("applier_public_key") == own, "applier's key")
    need(record.get("lease") == answer.lease != "", "lease")
    need(record.get("expires") == format_time(answer.expires_us), "expires")
    key = parse_vkey(vkey)
    need(key.name == f"{record['host']}/custody/log", "host")
    check_receipt(answer.receipt, answer.record, record["seq"], key)
    need(len(answer.box) == 80, "box")
    try:
        private = bytearray(nacl.public.SealedBox(asked.private).decrypt(answer.box))
    except nacl.exceptions.CryptoError:
        raise Unproven("box") from None
    private[0] &= 248
    private[31] = private[31] & 127 | 64
    need(nacl.bindings.crypto_scalarmult_base(bytes(private)) == answer.public_key, "private key")
    return Released(bytes(private), answer.public_key, answer.generation, answer.lease, answer.expires_us, record,
                    answer.record, answer.receipt)


# ---- section 6: the record ----

FIELDS = {
    "v": "u", "seq": "u+", "time": "t+", "event": "e+", "host": "s+", "actor": {
        "uid": "u+", "gid": "u+", "pid": "u+", "unit": "s", "exe": "s", "exe_sha256": "x", "exe_unavailable": "b"},
    "key": "s", "generation": "u", "purpose": "s", "public_key": "32", "applier_public_key": "32", "reason": "s",
    "ticket": "s", "lease": "x", "expires": "t", "not_before": "t", "not_after": "t", "request": "s", "code": "s",
    "detail": "s", "count": "u", "token": {
        "label": "s+", "serial": "s", "manufacturer": "s", "model": "s", "weak": "b"},
    "suite": "s", "log_vkey": "s", "host_vkey": "s", "old_signature": "64", "new_signature": "64", "version": "s",
    "policy_sha256": "x", "offset": "u", "length": "u", "sha256": "x",
}


def format_time(time_us):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=time_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value):
    """JSON in the one form that records have."""
    if value is True:
        return "true"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(k)}:{canonical(v)}" for k, v in value.items()) + "}"
    escaped = re.sub(r'["\\]', lambda m: "\\" + m[0], value)
    return '"' + re.sub(r"[\x01-\x1f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'


def check_fields(record, fields):
    need(list(record) == [name for name in fields if name in record], "order of fields")
    for name, kind in fields.items():
        if isinstance(kind, dict):
            if name in record:
                check_fields(record[name], kind)
            continue
        if name not in record:
            need("+" not in kind, f"{name} is missing")
            continue
        value = record[name]
        need(type(value) is {"u": int, "b": bool}.get(kind[0], str), f"type of {name}")
        need("+" in kind or value not in (0, "", False), f"{name} is empty")
        if kind[0] == "t":
            need(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value), f"time in {name}")
        if kind[0] == "x":
            need(re.fullmatch(r"([0-9a-f]{2})+", value), f"hex in {name}")
        if kind.isdigit():
            need(len(base64.b64decode(value, validate=True)) == int(kind), f"base64 in {name}")


def parse_record(line):
    need(len(line) <= 65535, "length of a record")
    try:
        record = json.loads(line.decode())
    except ValueError:
        raise Unproven("record") from None
    need(isinstance(record, dict) and record.get("v") == 1, "version of a record")
    check_fields(record, FIELDS)
    need(canonical(record).encode() == line, "form of a record")
    return record


# ---- sections 7 to 9: receipt, checkpoint, keys ----

Key = collections.namedtuple("Key", "name id public_key")


def parse_vkey(text):
    name, id, encoded = text.strip().split("+", 2)
    encoded = base64.b64decode(encoded, validate=True)
    need(len(encoded) == 33 and encoded[0] == 1, "type of a verifier key")
    need(hashlib.sha256(name.encode() + b"\n" + encoded).digest()[:4].hex() == id, "id of a verifier key")
    return Key(name, bytes.fromhex(id), encoded[1:])


def open_note(note, key):
    """The lines of a note's text, once `key` is seen to have signed it."""
    text, empty, signatures = note.rpartition("\n\n")
    need(empty, "signatures of a note")
    text += "\n"
    signed = False
    for line in signatures.splitlines():
        need(line.startswith(EM_DASH), "signature line")
        name, encoded = line[len(EM_DASH):].split(" ")
        encoded = base64.b64decode(encoded, validate=True)
        if name != key.name or encoded[:4] != key.id:
            continue
        try:
            nacl.signing.VerifyKey(key.public_key).verify(text.encode(), encoded[4:])
        except nacl.exceptions.CryptoError:
            raise Unproven("signature") from None
        signed = True
    need(signed, "no signature by the pinned key")
    return text.splitlines()


def leaf_hash(line):
    return hashlib.sha256(b"\0" + line).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def check_inclusion(index, size, leaf, path, root):
    need(index < size, "index")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        need(sn != 0, "length of a proof")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    need(sn == 0, "length of a proof")
    need(r == root, "root")


def check_receipt(receipt, line, seq, key):
    head, empty, checkpoint = receipt.decode().partition("\n\n")
    need(empty, "receipt")
    lines = head.split("\n")
    need(lines.pop(0) == "c2sp.org/tlog-proof@v1", "receipt's first line")
    if lines[0].startswith("extra "):
        lines.pop(0)
    index = re.fullmatch(r"index (0|[1-9][0-9]*)", lines.pop(0))
    need(index and int(index[1]) == seq, "receipt's index")
    path = [base64.b64decode(h, validate=True) for h in lines]
    origin, size, root = open_note(checkpoint, key)
    need(origin == key.name, "origin")
    check_inclusion(seq, int(size), leaf_hash(line), path, base64.b64decode(root, validate=True))


def main():
    """Obtains KEY, checks it, reports that it was applied, and prints its public key."""
    path, vkey_file, key = sys.argv[1:]
    with Client(path) as client:
        released = client.release(key, pathlib.Path(vkey_file).read_text())
        client.report(released.lease)
        print(base64.b64encode(released.public_key).decode())


if __name__ == "__main__":
    main()
