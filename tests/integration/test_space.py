# SPDX-License-Identifier: Apache-2.0
"""Space and place: what custodyd does when the folder of its log is full, read-only, hangs, fails, or is changed under it.
Releases stop within a bound, with a code and a sentence; what needs no log answers; service comes back by itself."""

import concurrent.futures
import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from mounts import ext4, hanging_fs, quota, remount, tmpfs
from python_client import Client, Closed, Refused
from stack import DEADLINE, Stack, tail, wait_for

WRITE_BOUND, SYNC_BOUND = 10, 30  # seconds until a log's write, and the keeper's fdatasync, count as hanging
SLACK = 40  # seconds, of a machine that does much else
FULL = ["No space left", "disk is full"]
STOPPED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "DATA_LOSS")  # how a release may be refused for want of a log

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")


# ---- helpers ----

class Releases:
    """Asks a stack for the key wga, and remembers the leases that were granted."""

    def __init__(self, stack):
        self.stack, self.leases = stack, []

    def one(self, timeout=SYNC_BOUND + SLACK):
        with Client(self.stack.socket, timeout) as client:
            self.leases.append(client.release("wga", self.stack.log_vkey.read_text()).lease)

    def refused(self, words, timeout=SYNC_BOUND + SLACK):
        """One that must be refused for want of a log, with a sentence that holds one of `words`."""
        with pytest.raises(Refused) as e:
            self.one(timeout)
        return check_refusal(e.value, words)

    def until_refused(self, words):
        """Asks until it is refused, for want of a log, with a sentence that holds one of `words`."""
        def tried():
            try:
                self.one()
            except Refused as e:
                return e
            return None
        return check_refusal(wait_for(tried, "a refused release"), words)

    def check(self):
        """Every one that was granted has its record, exactly one, and the log is sound."""
        granted = [r["lease"] for r in events(self.stack, "release.granted")]
        assert not set(self.leases) - set(granted), "releases without a record"
        assert len(granted) == len(set(granted))
        verify(self.stack)


def check_refusal(refusal, words):
    assert refusal.code in STOPPED, refusal
    assert any(w in refusal.message for w in words), refusal
    return refusal.message


def events(stack, *names):
    return [r for r in stack.records() if r["event"] in names]


def verify(stack):
    done = stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey)
    assert done.returncode == 0, done.stdout + done.stderr


def populate(stack, **popen):
    """Starts the stack, initialises it and generates wga; a Releases that has released it once."""
    stack.start(**popen)
    stack.init()
    stack.generate("wga")
    releases = Releases(stack)
    releases.one()
    return releases


def wait_stopped(stack, *words, deadline=DEADLINE):
    """Waits until status says that the log is not ready, for one of the reasons `words`; the log says it too."""
    def stopped():
        status = stack.status()
        assert status, "status does not answer"
        return not status["log_ready"] and any(w in status["log_message"] for w in words) and status["log_message"]
    message = wait_for(stopped, f"status saying {' or '.join(words)}", deadline, 0.1)
    wait_for(lambda: any(w in stack.log.read_text() for w in words), f"the daemon's log saying {' or '.join(words)}")
    return message


def check_answers(stack):
    """What needs no log answers."""
    assert stack.status()
    done = stack.ctl("key", "list")
    assert done.returncode == 0 and "wga" in done.stdout, done.stderr


def wait_resumed(stack, releases, deadline=DEADLINE + SLACK):
    """Waits until the same daemon serves by itself."""
    pid = stack.custodyd.pid

    def serves():
        assert stack.custodyd.poll() is None and stack.custodyd.pid == pid
        status = stack.status()
        return status and status["keeper_ready"] and status["log_ready"]
    wait_for(serves, "serving again", deadline, 0.1)
    releases.one()


def check_stuck(stack, since):
    """log.stuck says from when on nothing could be recorded and why, log.recovered until when; both after record `since`."""
    def recovered():
        return [r for r in events(stack, "log.recovered") if r["seq"] >= since and "stopped from" in r.get("detail", "")]
    end = wait_for(recovered, "log.recovered")[-1]
    stuck = [r for r in events(stack, "log.stuck") if r["seq"] >= since][-1]
    began, ended = re.match(r"releases were stopped from (\S+) to (\S+) because: .", end["detail"]).groups()
    assert re.match(rf"releases (are|were) stopped from {began} (on|to \S+) because: .", stuck["detail"]), stuck
    assert stack.records()[since - 1]["time"] <= began < ended <= end["time"], (stuck, end)


def size(stack):
    return len(stack.records())


FILL = """
import contextlib, sys
with open(sys.argv[1], "ab", buffering=0) as f:
    for block in (65536, 4096, 512, 1):
        with contextlib.suppress(OSError):
            while True:
                f.write(bytes(block))
"""


def fill(path, **popen):
    """A file that takes all the space that there is, or that is left for the process that popen describes."""
    subprocess.run([sys.executable, "-c", FILL, path], check=True, timeout=DEADLINE, **popen)


# ---- space ----

def exhaust(stack, releases, words, **popen):
    """Takes all space away and gives it back."""
    since, filler = size(stack), stack.audit_dir / "filler"
    fill(filler, **popen)
    releases.until_refused(words)
    message = wait_stopped(stack, *words)
    assert str(stack.audit_dir) in message
    # Even when somebody takes what the daemon keeps in reserve, as soon as it gives that up.
    fill(filler, **popen)
    releases.refused(words)
    check_answers(stack)
    filler.unlink()
    wait_resumed(stack, releases)
    check_stuck(stack, since)
    releases.check()


def test_full_tmpfs(new_stack):
    stack = new_stack()
    with tmpfs(stack.audit_dir, "4m"):
        releases = populate(stack)
        # More than once: the reserve is there again.
        for _ in range(2):
            exhaust(stack, releases, FULL)
        stack.stop()


def test_full_from_the_start(new_stack):
    """A daemon that is started on a full file system says so, and serves once there is room."""
    stack = new_stack()
    with tmpfs(stack.audit_dir, "4m"):
        releases = populate(stack)
        stack.stop()
        fill(stack.audit_dir / "filler")
        stack.start(wait="listening")
        # daemon.started itself may still fit into the last block.
        with contextlib.suppress(Refused):
            releases.one()
        if not stack.status()["log_ready"]:
            wait_stopped(stack, "No space left", "disk is full")
        releases.until_refused(FULL)
        (stack.audit_dir / "filler").unlink()
        wait_resumed(stack, releases)
        releases.check()
        stack.stop()


def test_quota(new_stack):
    stack = new_stack()
    with quota(stack.audit_dir, "8M"):
        releases = populate(stack)
        exhaust(stack, releases, ["Disk quota exceeded", "disk is full"])
        stack.stop()


def without_sys_resource():
    """In a child before its program: not even root is to have what is kept for root."""
    PR_CAPBSET_DROP, CAP_SYS_RESOURCE = 24, 24
    if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) != 0:
        raise OSError("PR_CAPBSET_DROP")


def test_blocks_reserved_for_others(new_stack):
    """The file system is not full, but for the daemon it is."""
    stack = new_stack()
    with ext4(stack.audit_dir, 8 << 20, reserved=20):
        releases = populate(stack, preexec_fn=without_sys_resource)
        exhaust(stack, releases, FULL, preexec_fn=without_sys_resource)
        stack.stop()


# ---- read-only ----

def test_remounted_read_only(new_stack):
    stack = new_stack()
    with tmpfs(stack.audit_dir, "8m"):
        releases = populate(stack)
        if not remount(stack.audit_dir, "ro"):
            # A file open for writing forbids it.
            stack.stop()
            assert remount(stack.audit_dir, "ro")
            stack.start(wait="listening")
        message = wait_stopped(stack, "Read-only")
        assert str(stack.audit_dir) in message
        releases.refused(["Read-only"])
        assert stack.status()
        assert remount(stack.audit_dir, "rw")
        wait_resumed(stack, releases)
        releases.check()
        stack.stop()


def test_read_only_after_an_error(new_stack):
    """ext4 turns itself read-only on an error; it comes back by mounting it anew, which replaces the whole folder."""
    stack = new_stack()
    with ext4(stack.audit_dir, 16 << 20):
        releases = populate(stack)
        since = size(stack)
        if not remount(stack.audit_dir, "abort"):
            pytest.skip("ext4 cannot be told to abort")
        releases.until_refused(["Read-only", "Input/output error"])
        wait_stopped(stack, "Read-only", "Input/output error")
        check_answers(stack)
        releases.refused(["Read-only", "Input/output error"])
        image = stack.audit_dir.with_suffix(".img")
        subprocess.run(["umount", "-l", stack.audit_dir], check=True)
        wait_stopped(stack, str(stack.audit_dir))
        # What still has files open in it keeps the old mount: its journal is aborted, nothing is written any more.
        copy = image.with_suffix(".copy")
        shutil.copyfile(image, copy)
        subprocess.run(["e2fsck", "-fy", copy], stdout=subprocess.DEVNULL, timeout=DEADLINE)
        subprocess.run(["mount", "-o", "loop", copy, stack.audit_dir], check=True, timeout=DEADLINE)
        wait_resumed(stack, releases)
        check_stuck(stack, since)
        releases.check()
        stack.stop()
        copy.unlink()


# ---- the place: what stands under the log's names ----

def segment(stack):
    return sorted((stack.audit_dir / "log").glob("*.jsonl"))[-1]


def deleted(path, saved):
    path.unlink()


def moved_away(path, saved):
    path.rename(path.with_name("elsewhere"))


def replaced_by_a_copy(path, saved):
    path.with_name("other").write_bytes(saved)
    path.with_name("other").rename(path)


def replaced_by_an_older_one(path, saved):
    path.with_name("other").write_bytes(saved[:saved.rindex(b"\n", 0, -1) + 1])
    path.with_name("other").rename(path)


def replaced_by_an_altered_one(path, saved):
    path.with_name("other").write_bytes(saved.replace(b'"BOOT"', b'"BOOK"', 1))
    path.with_name("other").rename(path)


def truncated(path, saved):
    os.truncate(path, saved.rindex(b"\n", 0, -1) + 1)


def truncated_inside_a_line(path, saved):
    os.truncate(path, len(saved) - 7)


def emptied(path, saved):
    os.truncate(path, 0)


def lengthened(path, saved):
    with open(path, "ab") as f:
        f.write(b"{}\n")


def made_a_folder(path, saved):
    path.unlink()
    path.mkdir()


def put_back(path, saved):
    """The file as it was."""
    elsewhere = path.with_name("elsewhere")
    if path.is_dir():
        path.rmdir()
    if elsewhere.exists():
        elsewhere.rename(path)
    elif path.exists():
        with open(path, "r+b") as f:
            f.write(saved)
            f.truncate()
    else:
        path.write_bytes(saved)


@pytest.mark.parametrize("harm, words", [
    (deleted, ["deleted"]),
    (moved_away, ["moved", "gone", "deleted", "signed"]),
    (replaced_by_an_older_one, ["replaced", "deleted"]),
    (replaced_by_an_altered_one, ["replaced", "deleted"]),
    (truncated, ["changed"]),
    (truncated_inside_a_line, ["changed"]),
    (emptied, ["changed"]),
    (made_a_folder, ["replaced", "deleted"]),
], ids=lambda value: value.__name__ if callable(value) else "")
def test_segment_harmed(stack, harm, words):
    """Releases stop at once, nothing is begun anew, and service comes back with the file."""
    releases = Releases(stack)
    releases.one()
    path = segment(stack)
    saved, since = path.read_bytes(), size(stack)
    harm(path, saved)
    # Either a release meets it, or the daemon has looked before.
    releases.until_refused([*words, "signed", "Is a directory"])
    # It looks again by itself, and says what is missing and where.
    message = wait_stopped(stack, "signed", "No such file", "not a regular file", "Is a directory")
    assert str(stack.audit_dir) in message
    for _ in range(3):
        releases.refused([str(stack.audit_dir)])
    check_answers(stack)
    put_back(path, saved)
    wait_resumed(stack, releases)
    check_stuck(stack, since)
    releases.check()


def test_deleted_segment_is_brought_back(stack):
    """By the command that status names, from the descriptor that is still open."""
    releases = Releases(stack)
    releases.one()
    segment(stack).unlink()
    message = wait_stopped(stack, "cp /proc/")
    command = re.search(r"cp (\S+) (\S+) brings it back", message)
    shutil.copyfile(command[1], command[2])
    wait_resumed(stack, releases)
    releases.check()


@pytest.mark.parametrize("harm", [replaced_by_a_copy, lengthened], ids=lambda value: value.__name__)
def test_segment_healed(stack, harm):
    """All that was signed is there: it is looked at, and service goes on by itself."""
    releases = Releases(stack)
    releases.one()
    path = segment(stack)
    since = size(stack)
    harm(path, path.read_bytes())
    # It is noticed even when nobody asks for anything.
    check_stuck(stack, since)
    wait_resumed(stack, releases)
    if harm is lengthened:
        assert [r["length"] for r in events(stack, "log.recovered") if "offset" in r] == [len(b"{}\n")]
    releases.check()


def test_line_changed_in_place(stack):
    """A signed line that is changed under the daemon is found by the auditor, and by whoever reads it next."""
    releases = Releases(stack)
    releases.one()
    path = segment(stack)
    saved = path.read_bytes()
    at = saved.index(b'"BOOT"')
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b'"BOOK"')
    line = saved[:at].count(b"\n") + 1
    done = stack.audit("verify", stack.audit_dir, "--vkey", stack.log_vkey)
    assert done.returncode == 1 and f"{path.name}:{line}:" in done.stdout
    stack.stop()
    stack.start(wait="listening")
    message = wait_stopped(stack, "not as it was signed")
    assert f"{path}:{line}:" in message
    releases.refused(["not as it was signed"])
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(b'"BOOT"')
    wait_resumed(stack, releases)
    releases.check()


def test_audit_folder_moved_away(stack):
    releases = Releases(stack)
    releases.one()
    since, away = size(stack), stack.audit_dir.with_name("away")
    stack.audit_dir.rename(away)
    releases.until_refused([str(stack.audit_dir)])
    wait_stopped(stack, str(stack.audit_dir))
    for _ in range(3):
        releases.refused([str(stack.audit_dir)])
    check_answers(stack)
    assert not stack.audit_dir.exists(), "a new log was begun"
    away.rename(stack.audit_dir)
    wait_resumed(stack, releases)
    check_stuck(stack, since)
    releases.check()


# ---- a file system that hangs or fails ----

def test_calls_that_fail(new_stack):
    """Whatever fails, for whatever reason: a release is granted with its record, or refused; and service comes back."""
    stack = new_stack()
    with hanging_fs(stack.audit_dir) as fs:
        releases = populate(stack)
        for op in ("write", "fsync", "read", "open", "getattr", "create", "rename"):
            for error in ("EIO", "ENOSPC"):
                fs.fail(error, op)
                try:
                    releases.one()
                except Refused as e:
                    check_refusal(e, [""])
                fs.release()
                wait_resumed(stack, releases)
        releases.check()
        stack.stop()


def hang(stack, fs, *ops, bound, words):
    """`ops` hang and go on: what is asked for is refused within `bound` seconds, and what needs no log answers."""
    releases = populate(stack)
    since = size(stack)
    fs.hang(*ops)
    began = time.monotonic()
    with Client(stack.socket, bound + SLACK) as client:
        asked = client.send_release("wga")
        fs.wait_caught(*ops)
        check_answers(stack)
        with pytest.raises(Refused) as e:
            client.answer(asked.id)
    check_refusal(e.value, words)
    assert time.monotonic() - began < bound + SLACK
    wait_stopped(stack, *words)
    # What comes later waits for nothing but the same bound.
    releases.refused(words, bound + SLACK)
    check_answers(stack)
    fs.release()
    wait_resumed(stack, releases)
    check_stuck(stack, since)
    releases.check()


def writes_hang(stack, fs):
    hang(stack, fs, "write", bound=WRITE_BOUND, words=["hang"])


def fdatasync_hangs(stack, fs):
    hang(stack, fs, "fsync", bound=SYNC_BOUND, words=["hang"])


def fdatasync_hangs_patient(stack, fs):
    """With a custodyd that leaves it to the keeper to find that out."""
    stack.stop()
    stack.write_config(stack.config_text(timeout=SYNC_BOUND + SLACK).replace(str(stack.audit_dir), str(fs.path)))
    hang(stack, fs, "fsync", bound=SYNC_BOUND, words=["hang"])


def everything_hangs_under_load(stack, fs):
    releases = populate(stack)
    since, ended = size(stack), threading.Event()

    def load():
        while not ended.is_set():
            with contextlib.suppress(Refused, Closed, OSError):
                releases.one()
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(releases.leases) > 20, "releases under load")
        fs.hang("all")
        wait_stopped(stack, "hang", deadline=WRITE_BOUND + SLACK)
        releases.refused(["hang"])
        check_answers(stack)
        fs.release()
        wait_resumed(stack, releases)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    check_stuck(stack, since)
    releases.check()


def started_while_it_hangs(stack, fs):
    releases = populate(stack)
    stack.stop()
    fs.hang("all")
    stack.start(wait="listening")
    wait_stopped(stack, "hang", deadline=WRITE_BOUND + SLACK)
    releases.refused(["hang"])
    assert stack.ctl("key", "list").returncode in (0, 1)  # an answer, of whatever kind: the keys are in the log
    fs.release()
    wait_resumed(stack, releases)
    releases.check()


def stopped_while_it_hangs(stack, fs):
    """SIGTERM while a write hangs: it ends at the latest when the write comes back; nothing is lost by that."""
    releases = populate(stack)
    fs.hang("write")
    with Client(stack.socket) as client:
        client.send_release("wga")
        fs.wait_caught("write")
        stack.custodyd.send_signal(signal.SIGTERM)
    fs.release()
    stack.custodyd.wait(DEADLINE + SLACK)
    stack.stop()
    stack.start()
    wait_resumed(stack, releases)
    releases.check()


def killed_while_it_hangs(stack, fs):
    """kill -9 while the keeper's fdatasync hangs: what was not made durable is looked at again."""
    releases = populate(stack)
    fs.hang("fsync")
    with Client(stack.socket) as client:
        client.send_release("wga")
        fs.wait_caught("fsync")
        stack.custodyd.kill()
        fs.release()
        with pytest.raises((Closed, OSError)):
            client.receive()
    stack.stop()
    stack.start()
    wait_resumed(stack, releases)
    releases.check()


def fdatasync_fails(stack, fs):
    """After an error of fdatasync nothing is served before the tail was read again, from the disk."""
    releases = populate(stack)
    path = segment(stack)
    saved, since = path.read_bytes(), size(stack)
    fs.hang("fsync")
    with Client(stack.socket, SYNC_BOUND + SLACK) as client:
        asked = client.send_release("wga")
        fs.wait_caught("fsync")
        # Nobody can read the log again yet; and then it is not what was written, as after lost pages.
        fs.hang("open", "readdir")
        fs.fail("EIO", "fsync")
        with pytest.raises(Refused) as e:
            client.answer(asked.id)
    check_refusal(e.value, ["fdatasync", "Input/output error"])
    fs.wait_caught("open", "readdir")
    wait_stopped(stack, "Input/output error", "is being read", "hang")
    releases.refused([""])
    lost = path.stat().st_size - len(saved)
    assert lost > 0
    with open(path, "r+b") as f:
        f.seek(len(saved))
        f.write(bytes(lost))
    fs.release()
    wait_resumed(stack, releases)
    recovered = [(r["offset"], r["length"]) for r in events(stack, "log.recovered") if "offset" in r]
    assert recovered == [(len(saved), lost)]
    check_stuck(stack, since)
    releases.check()


SCENARIOS = [writes_hang, fdatasync_hangs, fdatasync_hangs_patient, everything_hangs_under_load, started_while_it_hangs,
             stopped_while_it_hangs, killed_while_it_hangs, fdatasync_fails]


def run_scenario(scenario):
    stack = Stack(tempfile.mkdtemp(prefix="custody-"))
    try:
        stack.provision()
        stack.write_config()
        with hanging_fs(stack.audit_dir) as fs:
            stack.audit_dir = fs.backing  # where the log can be read, whatever hangs
            scenario(stack, fs)
            stack.stop()
    except Exception as e:
        raise AssertionError(f"{type(e).__name__}: {e}\n{tail(stack.log)}") from e
    finally:
        stack.remove()


@pytest.fixture(scope="module", autouse=True)
def scenarios(request):
    """All at once and beside the other tests, for most of their time is waiting for a bound to pass: each has a stack and
    a thread of its own."""
    chosen = [item.callspec.params["scenario"] for item in request.session.items
              if getattr(item, "function", None) is test_file_system]
    with concurrent.futures.ThreadPoolExecutor(len(SCENARIOS)) as executor:
        yield {scenario: executor.submit(run_scenario, scenario) for scenario in chosen}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_file_system(scenarios, scenario):
    scenarios[scenario].result()
