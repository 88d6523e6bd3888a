# SPDX-License-Identifier: Apache-2.0
"""The log in segments: how they close, that a start needs only the newest, and what a crash around a boundary leaves."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import threading

import pytest

from python_client import Client, Closed, Refused
from stack import DEADLINE, StackError, wait_for

SMALL = "log { segment-size = 4096 }\n"


# ---- helpers ----

def segments(stack):
    """The segments' paths, in order."""
    return sorted((stack.audit_dir / "log").glob("*.jsonl"))


def first_of(path):
    return int(path.name.split(".")[0])


def release(stack, key="wga"):
    with Client(stack.socket) as c:
        return c.release(key, stack.log_vkey.read_text())


def release_until(stack, count):
    """Releases until so many segments stand there."""
    with Client(stack.socket) as c:
        for _ in range(1000):
            if len(segments(stack)) >= count:
                return
            c.release("wga", stack.log_vkey.read_text())
    raise StackError(f"{count} segments: not after 1000 releases")


def started(new_stack, extra=SMALL, **options):
    stack = new_stack(extra=extra, **options)
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    return stack


def verify(stack):
    done = stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey)
    assert done.returncode == 0, done.stdout + done.stderr


def check_segments(stack):
    """Every segment but the last ends with log.sealed, and only so, whose digest is that of the snapshot beside it."""
    paths, seq = segments(stack), 0
    for path, after in zip(paths, paths[1:] + [None]):
        assert first_of(path) == seq
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert [r["seq"] for r in records] == list(range(seq, seq + len(records)))
        seq += len(records)
        sealed = [r for r in records if r["event"] == "log.sealed"]
        if after is None:
            assert not sealed
            break
        assert sealed == records[-1:]
        text = after.with_suffix(".snapshot").read_bytes()
        assert sealed[0]["sha256"] == hashlib.sha256(text).hexdigest()
        assert f"\nsize {seq - 1}\n".encode() in text


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def tiles(stack):
    """What each tile file holds."""
    top = stack.audit_dir / "tile"
    return {p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def refuses(stack, words):
    """Status says so, and why."""
    return wait_for(lambda: (s := stack.status()) and not s["log_ready"] and re.search(words, s["log_message"]) and s,
                    f"not serving because {words}")


@contextlib.contextmanager
def load(stack):
    """Releases all the time; what was released is in the list that this gives."""
    granted, stop = [], threading.Event()

    def run():
        with contextlib.suppress(Closed, OSError):
            with Client(stack.socket) as c:
                while not stop.is_set():
                    with contextlib.suppress(Refused):
                        granted.append(c.release("wga", stack.log_vkey.read_text()).lease)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        yield granted
    finally:
        stop.set()
        for t in threads:
            t.join(DEADLINE)


# ---- closing ----

def test_segments_close_by_size_and_each_starts_the_next(new_stack):
    stack = started(new_stack)
    release_until(stack, 4)
    assert all(p.stat().st_size >= 4096 for p in segments(stack)[:-1])
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


def test_segments_close_by_age_without_a_request(new_stack):
    stack = started(new_stack, extra="log { segment-age = 1 }\n")
    wait_for(lambda: len(segments(stack)) >= 2, "a segment closed for its age")
    release(stack)
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


def test_the_digest_of_the_state_is_in_daemon_stopped(new_stack):
    stack = started(new_stack)
    assert stack.stop() == 0
    assert re.fullmatch("[0-9a-f]{64}", stack.records()[-1]["sha256"])


# ---- starting ----

def test_a_start_reads_no_older_segment_while_the_snapshot_holds(new_stack):
    stack = started(new_stack)
    release_until(stack, 4)
    assert stack.stop() == 0
    # Were it read, the daemon would not start: a signed record is another.
    oldest, whole = segments(stack)[0], segments(stack)[0].read_bytes()
    flip(oldest, len(whole) // 2)
    stack.start()
    release(stack)
    assert stack.stop() == 0
    for snapshot in (stack.audit_dir / "log").glob("*.snapshot"):
        snapshot.unlink()
    stack.start(wait="listening")
    refuses(stack, f"{oldest.name}:[0-9]+")
    # Put right, it serves again by itself, and says in the log that it did not.
    oldest.write_bytes(whole)
    stack.wait_ready()
    release(stack)
    assert stack.stop() == 0
    stuck = [r["detail"] for r in stack.records() if r["event"] == "log.stuck"]
    assert len(stuck) == 1 and "were stopped" in stuck[0] and oldest.name in stuck[0]
    check_segments(stack)
    verify(stack)


@pytest.mark.parametrize("damage", ["missing", "damaged", "older one as well", "empty"])
def test_snapshots_are_made_again(new_stack, damage):
    stack = started(new_stack)
    release_until(stack, 4)
    assert stack.stop() == 0
    *_, older, newest = sorted((stack.audit_dir / "log").glob("*.snapshot"))
    text = {p: p.read_bytes() for p in (older, newest)}
    if damage == "missing":
        newest.unlink()
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        flip(newest, len(text[newest]) // 2)
        if damage == "older one as well":
            flip(older, 20)
    stack.start()
    assert {p: p.read_bytes() for p in (older, newest)} == text
    release(stack)
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_tiles_and_checkpoint_are_made_again(new_stack, damage):
    stack = started(new_stack)
    with Client(stack.socket) as c:
        while len(stack.records()) < 300:
            for _ in range(50):
                c.release("wga", stack.log_vkey.read_text())
    assert stack.stop() == 0
    before = tiles(stack)
    assert any(p.name == "000" for p in before)
    (stack.audit_dir / "checkpoint").unlink()
    if damage == "missing":
        shutil.rmtree(stack.audit_dir / "tile")
    else:
        for path in before:
            (stack.audit_dir / "tile" / path).write_bytes(bytes(len(before[path])))
    stack.start()
    release(stack)
    assert stack.stop() == 0
    after = tiles(stack)
    assert all(after[p] == before[p] for p in before if p.name == "000")
    verify(stack)


# ---- crashes ----

def test_a_kill_around_the_seal_loses_nothing(new_stack):
    stack = started(new_stack)
    for _ in range(4):
        with load(stack) as granted:
            count = len(segments(stack))
            wait_for(lambda: len(segments(stack)) >= count + 2, "segments closed under load", interval=0)
            stack.kill()
        stack.start()
        recorded = {r.get("lease") for r in stack.records() if r["event"] == "release.granted"}
        assert granted and set(granted) <= recorded
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


def test_a_kill_between_the_seal_and_the_next_segment_is_put_right(new_stack):
    stack = started(new_stack)
    while (lines := segments(stack)[-1].read_text().splitlines()) and "log.sealed" not in lines[-1]:
        release(stack)
    wait_for(lambda: segments(stack)[-1].stat().st_size == 0, "the next segment")
    stack.kill()
    # As a kill right after the seal's signature leaves it.
    last = segments(stack)[-1]
    assert last.stat().st_size == 0
    last.unlink()
    last.with_suffix(".snapshot").unlink()
    stack.start()
    release(stack)
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


def test_a_tail_across_segments_is_signed_again(new_stack):
    stack = started(new_stack)
    with load(stack) as granted:
        count = len(segments(stack))
        wait_for(lambda: len(segments(stack)) >= count + 4, "segments closed under load", interval=0)
        # The keeper had no time to bring the head into the token, and the checkpoint is lost.
        os.kill(stack.keeper_pid, signal.SIGKILL)
        stack.kill()
    (stack.audit_dir / "checkpoint").unlink()
    before = [p.read_bytes() for p in segments(stack)[:-1]]
    stack.start()
    recorded = {r.get("lease") for r in stack.records() if r["event"] == "release.granted"}
    assert granted and set(granted) <= recorded
    assert [p.read_bytes() for p in segments(stack)][:len(before)] == before
    assert stack.stop() == 0
    check_segments(stack)
    verify(stack)


# ---- files that go away ----

def test_a_deleted_segment_is_refused_until_it_is_back(new_stack):
    stack = started(new_stack)
    release_until(stack, 2)
    release(stack)
    last = segments(stack)[-1]
    last.unlink()
    with Client(stack.socket) as c:
        with pytest.raises(Refused):
            c.release("wga", stack.log_vkey.read_text())
        message = refuses(stack, "are missing")["log_message"]
        with pytest.raises(Refused) as e:
            c.release("wga", stack.log_vkey.read_text())
    assert e.value.code == "FAILED_PRECONDITION"
    # What needs no log is answered.
    assert stack.ctl("key", "list").returncode == 0
    # The message says how to bring it back.
    command = re.search(r"cp (/proc/\S+) (\S+)", message)
    assert command, message
    shutil.copyfile(command[1], command[2])
    stack.wait_ready()
    release(stack)
    assert stack.stop() == 0
    assert any(r["event"] == "log.stuck" and "deleted" in r["detail"] for r in stack.records())
    check_segments(stack)
    verify(stack)


def test_a_replaced_segment_is_read_again(new_stack):
    stack = started(new_stack)
    release(stack)
    last = segments(stack)[-1]
    shutil.copyfile(last, last.with_suffix(".copy"))
    last.with_suffix(".copy").rename(last)
    with Client(stack.socket) as c, pytest.raises(Refused) as e:
        c.release("wga", stack.log_vkey.read_text())
    assert "replaced" in str(e.value)
    stack.wait_ready()
    release(stack)
    assert stack.stop() == 0
    assert any(r["event"] == "log.stuck" and "replaced" in r["detail"] for r in stack.records())
    verify(stack)
