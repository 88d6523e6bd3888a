# SPDX-License-Identifier: Apache-2.0
"""Kills a running process at the n-th of its system calls, by strace; and says in words what each call does for a rotation."""

import codecs
import collections
import os
import re
import select
import signal
import subprocess
import time

from topology import PATIENCE, LaboratoryError  # first: it tells where the next ones are
from python_client import pb

SYSCALLS = ("sendto", "write", "writev", "pwrite64", "renameat", "fsync", "fdatasync", "ftruncate", "unlink", "unlinkat")
LINE = re.compile(r"^(\d+)\s+(\w+)\((.*)$")
FD = re.compile(r"^(?:AT_FDCWD|-?\d+)<([^>]*(?:->[^>]*)?)>")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SHOWN = 16  # bytes of what is written: enough to tell what it is, too few for a key
MOVES = {1: "ready?", 2: "ready", 3: "moved", 4: "last"}
NETLINK = {"0x24": "set the qdisc", "0x26": "read the qdisc", "0x12": "read the counters"}

# The nth call of this name of the process's thread; `step` is what it does.
Point = collections.namedtuple("Point", "process name nth step")


def request_name(data):
    """What a frame to custodyd asks for: the second field of the Request, after its id."""
    i = 5
    while i < len(data) and data[i] & 0x80:
        i += 1
    tag, shift = 0, 0
    for byte in data[i + 1:i + 4]:
        tag |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    field = pb.Request.DESCRIPTOR.fields_by_number.get(tag >> 3)
    return field.name if field else None


def sent(where, data):
    """The step of a sendto."""
    if "NETLINK" in where:
        return None
    if data.startswith(b"suck"):
        return f"channel: message {data[6]}"
    if data.startswith(b"custody-move1"):
        return f"move datagram: {MOVES.get(data[13], '?')}"
    if "UDP" in where:
        return "a packet of the hold's own"
    for start, step in ((b"get=1", "device: read"), (b"set=1\npriv", "device: set the key"), (b"set=1", "device: set peers")):
        if data.startswith(start):
            return step
    name = request_name(data)
    return f"custodyd: {name}" if name else None


def step_of(name, arguments):
    """What a call does, None where it does nothing for a rotation."""
    fd = FD.match(arguments)
    where = fd.group(1) if fd else ""
    texts = [codecs.decode(text.encode(), "unicode_escape").encode("latin-1") for text in QUOTED.findall(arguments)]
    if name == "sendto":
        if "NETLINK" in where:
            kind = re.search(r"nlmsg_type=(\w+)", arguments)
            return "netlink: " + NETLINK.get(kind.group(1), kind.group(1)) if kind else None
        return sent(where, texts[0] if texts else b"")
    if name == "renameat":
        return f"rename to {re.sub('[0-9]+', 'N', texts[-1].decode())}" if texts else None
    if name == "writev":
        return "an answer"
    if "pipe" in where:
        return {b"h": "the guard: held", b"n": "the guard: not held"}.get(texts[0] if texts else b"")
    if not where.startswith("/") or where.endswith((".log", ".object", ".lock")) and name != "fsync":
        return None
    return f"{name} {os.path.basename(re.sub('[0-9]+', 'N', UUID.sub('U', re.sub('new-[0-9a-f]+', 'new', where))))}"


def read(text, process):
    """The points of a trace, in its order."""
    counts, points = collections.Counter(), []
    for line in text.splitlines():
        found = LINE.match(line)
        if not found or found.group(2) not in SYSCALLS:
            continue
        thread, name, arguments = found.groups()
        counts[thread, name] += 1
        step = step_of(name, arguments)
        if step:
            points.append(Point(process, name, counts[thread, name], step))
    return points


class Tracer:
    """strace at a running process; with a point, the process dies when it comes there."""

    def __init__(self, pid, output, point=None):
        names = point.name if point else ",".join(SYSCALLS)
        inject = ["-e", f"inject={point.name}:signal=SIGKILL:when={point.nth}"] if point else []
        self.output = output
        self.process = subprocess.Popen(
            ["strace", "-f", "-yy", "-s", str(SHOWN), "-o", str(output), "-e", f"trace={names}", *inject, "-p", str(pid)],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        self._wait_attached()

    def _wait_attached(self):
        said, end = b"", time.monotonic() + PATIENCE
        while b"attached" not in said:
            ready, _, _ = select.select([self.process.stderr], [], [], max(0, end - time.monotonic()))
            piece = os.read(self.process.stderr.fileno(), 4096) if ready else b""
            if not piece:
                raise LaboratoryError(f"strace: {said.decode(errors='replace')}")
            said += piece

    def end(self):
        """Lets the process go on untraced -> what was seen."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE)
        self.process.stderr.close()
        return self.output.read_text(errors="replace")
