# SPDX-License-Identifier: Apache-2.0
"""custody-audit on logs that were made sound and then altered: every alteration is found, and its place is named."""

import base64
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess

import nacl.signing
import pytest

from python_client import Client, Refused
from stack import default_builddir, find_program

LISTED = 999  # findings at the most; the rest is counted
RECORDS, SEGMENT = 40, 15
DEADLINE = 60


def run(*argv, **options):
    return subprocess.run([str(a) for a in argv], stdin=options.pop("stdin", subprocess.DEVNULL), capture_output=True,
                          timeout=DEADLINE, **options)


def audit(*args, **options):
    """custody-audit -> CompletedProcess with text; it must never die of a signal, nor speak of a crash."""
    done = run(find_program(default_builddir(), "custody-audit"), *args, **options)
    assert done.returncode in (0, 1, 2), done
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert "Sanitizer" not in done.stderr, done.stderr
    return done


def make_log(dir, records=RECORDS, *options):
    done = run(find_program(default_builddir(), "make_log"), dir, records, f"--segment={SEGMENT}", *options)
    assert done.returncode == 0, done.stderr
    return Log(dir)


class Log:
    """An audit-dir, and what verify says of it."""

    def __init__(self, dir, vkey=None):
        self.dir = pathlib.Path(dir)
        self.vkey = pathlib.Path(vkey) if vkey else self.dir / "log.vkey"

    def copy(self, dir):
        shutil.rmtree(dir, ignore_errors=True)
        return Log(shutil.copytree(self.dir, dir), dir / "log.vkey" if self.vkey.parent == self.dir else self.vkey)

    def segments(self):
        return sorted((self.dir / "log").glob("*.jsonl"))

    def lines(self):
        """(segment's path, line number, bytes) of each line."""
        return [(path, i + 1, line) for path in self.segments()
                for i, line in enumerate(path.read_bytes().splitlines(keepends=True))]

    def verify(self, *args, vkey=None):
        return audit("verify", self.dir, f"--vkey={vkey or self.vkey}", *args)

    def findings(self):
        """What verify finds, as (file, line, record, text); the exit status must fit, and the verdict count them."""
        done = self.verify("--json")
        verdict = json.loads(done.stdout)
        found = verdict["findings"]
        assert verdict["sound"] == (not found) and (verdict["found"] == len(found) or len(found) >= LISTED)
        assert done.returncode == (1 if found else 0), done
        return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_log(tmp_path_factory.mktemp("sound") / "audit")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The same log without tiles."""
    return make_log(tmp_path_factory.mktemp("bare") / "audit", RECORDS, "--tiles=0")


# ---- sound logs ----

def test_sound(sound):
    done = sound.verify()
    assert done.returncode == 0
    root = (sound.dir / "checkpoint").read_text().splitlines()[2]
    assert done.stdout == f"sound: {RECORDS} records, signed head {RECORDS}, root {root}\n"


@pytest.mark.parametrize("records", [1, 2, SEGMENT, SEGMENT + 1, 255, 256, 257, 1000])
def test_sound_sizes(tmp_path, records):
    assert make_log(tmp_path / "audit", records).findings() == []


def test_unsigned_tail_is_reported_and_no_finding(tmp_path):
    log = make_log(tmp_path / "audit", RECORDS, "--unsigned=7")
    done = log.verify()
    assert done.returncode == 0
    assert "note: 7 records after the signed head" in done.stdout
    assert f"sound: {RECORDS} records, signed head {RECORDS - 7}," in done.stdout
    # A crash's half line is no finding either, what is complete but wrong is one.
    path = log.segments()[-1]
    path.write_bytes(path.read_bytes()[:-9])
    done = log.verify()
    assert done.returncode == 0 and "has no end" in done.stdout
    path.write_bytes(path.read_bytes() + b"\n")
    assert [f["record"] for f in log.findings()] == [RECORDS - 1]


def test_open_lease_is_a_note_and_a_stale_one_a_finding(tmp_path):
    done = make_log(tmp_path / "open", RECORDS, "--open-lease").verify()
    assert done.returncode == 0 and "still open at the log's end" in done.stdout
    [finding] = make_log(tmp_path / "stale", 100, "--stale-lease").findings()
    assert (finding["file"], finding["line"], finding["record"]) == ("log/000000000000.jsonl", 7, 6)
    assert "no outcome" in finding["finding"]


def test_key_change(tmp_path):
    log = make_log(tmp_path / "audit", RECORDS, "--change-key=20")
    done = log.verify()
    assert done.returncode == 0 and "handed over to" in done.stdout
    assert log.verify(vkey=log.dir / "next.vkey").returncode == 0
    assert log.verify(vkey=log.dir / "other.vkey").returncode == 1
    forged = make_log(tmp_path / "forged", RECORDS, "--change-key=20", "--forge-change")
    assert forged.verify().returncode == 1
    done = forged.verify(vkey=forged.dir / "next.vkey")
    assert done.returncode == 1
    assert "log/000000000015.jsonl:6: record 20: the change of the log's key is not signed by the key before" in done.stdout


def test_older_head(tmp_path, sound):
    older = make_log(tmp_path / "older", 20)
    assert sound.verify(f"--older={older.dir}/checkpoint").returncode == 0
    done = older.verify(f"--older={sound.dir}/checkpoint")
    assert done.returncode == 1 and "fewer than the 40 of the older head" in done.stdout
    other = make_log(tmp_path / "other", 20, "--stale-lease")
    done = sound.verify(f"--older={other.dir}/checkpoint")
    assert done.returncode == 1 and "the log was rewritten" in done.stdout
    assert sound.verify(f"--older={sound.dir}/absent").returncode == 2


# ---- every line altered ----

def edited(line):
    """The record with another microsecond: still a record, only not the one that was signed."""
    return re.sub(rb'(\d)Z"', lambda digit: b'%dZ"' % ((int(digit[1]) + 1) % 10), line, count=1)


def alter(log, how, n):
    """Alters line `n` (from 0) of the whole log; returns the places of which one must be named."""
    lines = log.lines()
    path, number, line = lines[n]
    here = [(path.name, number)]
    content = [l for p, _, l in lines if p == path]
    after = [(p.name, i) for p, i, _ in lines[n + 1:n + 2]]
    before = [(p.name, i) for p, i, _ in lines[max(n - 1, 0):n]]
    if how == "edit":
        content[number - 1] = edited(line)
        assert content[number - 1] != line
    elif how == "spoil":
        content[number - 1] = b"X" + line[1:]
    elif how == "renumber":
        content[number - 1] = re.sub(rb'"seq":(\d+)', rb'"seq":1\1', line, count=1)
    elif how == "delete":
        del content[number - 1]
        # What is missing shows where the next record stands, or where the log ends.
        here += [(p, 0) for p, _ in after] + before
    elif how == "duplicate":
        content.insert(number, line)
        here += [(path.name, number + 1)]
    elif how == "swap":
        # The last line of a segment changes places with the one before it.
        other = number if number < len(content) else number - 2
        content[number - 1], content[other] = content[other], content[number - 1]
        here += [(path.name, other + 1)]
    elif how == "cut":
        # The file ends in the middle of this line, and what follows is gone.
        content = content[:number - 1] + [line[:len(line) // 2]]
        for later in log.segments():
            if later.name > path.name:
                later.unlink()
    elif how == "truncate":
        content = content[:number - 1]
        for later in log.segments():
            if later.name > path.name:
                later.unlink()
        here += before + [(path.name, 0)]
    path.write_bytes(b"".join(content))
    return here


HOWS = ["edit", "spoil", "renumber", "delete", "duplicate", "swap", "cut", "truncate"]


@pytest.mark.parametrize("how", HOWS)
def test_every_line_altered(tmp_path, sound, how):
    for n in range(RECORDS):
        log = sound.copy(tmp_path / "audit")
        here = alter(log, how, n)
        found = log.findings()
        assert found, f"{how} of record {n} was not found"
        named = [(f["file"].removeprefix("log/"), f.get("line", 0)) for f in found]
        assert set(named) & set(here), f"{how} of record {n}: {here} is not named in {found}"
        if how in ("edit", "spoil"):
            # And nothing else is: the line itself, the root that it spoils, and the digest of the state that it changes.
            rest = [f for f in found if "sha256 is not that of the state" not in f["finding"]]
            assert {(f["file"], f.get("line")) for f in rest} == {("log/" + here[0][0], here[0][1]), ("checkpoint", None)}


def test_one_wrong_number_is_one_finding(tmp_path, sound):
    """Whether a number is too large or too small, the records after it are in step again."""
    for number in (b"2", b"39", b"1000000"):
        log = sound.copy(tmp_path / "audit")
        path = log.segments()[1]
        path.write_bytes(path.read_bytes().replace(b'"seq":20', b'"seq":' + number))
        assert [f["line"] for f in log.findings() if "must stand here" in f["finding"]] == [6]


def test_last_line_without_its_end(tmp_path, sound):
    """Inside what was signed that is a finding, even where the line is whole but for the newline."""
    log = sound.copy(tmp_path / "audit")
    path = log.segments()[-1]
    path.write_bytes(path.read_bytes()[:-1])
    assert ("log/000000000030.jsonl", 10, "the line has no end") in [
        (f["file"], f.get("line"), f["finding"]) for f in log.findings()]


def contains(finding, segment, line):
    """Whether the finding's place, or the range that it gives, holds the line."""
    if finding["file"] != f"log/{segment}":
        start = finding["file"].removeprefix("log/")
    else:
        start = segment
    if finding.get("line") == line and start == segment:
        return True
    match = re.search(r"a record from here to log/(\S+):(\d+)", finding["finding"])
    return bool(match) and (start, finding["line"]) <= (segment, line) <= (match[1], int(match[2]))


@pytest.mark.parametrize("how", HOWS)
def test_every_line_altered_without_tiles(tmp_path, bare, how):
    for n in range(RECORDS):
        log = bare.copy(tmp_path / "audit")
        here = alter(log, how, n)
        found = log.findings()
        assert any(contains(f, *place) or (f["file"].removeprefix("log/"), f.get("line", 0)) == place
                   for f in found for place in here), f"{how} of record {n}: {here} is not named in {found}"


def test_human_finding_names_segment_line_and_record(tmp_path, sound):
    log = sound.copy(tmp_path / "audit")
    alter(log, "edit", 20)
    out = log.verify().stdout.splitlines()
    assert out[0].startswith("log/000000000015.jsonl:6: record 20: the record and the tree's hash of it")
    assert out[1].startswith("    = ") and "only those" in out[4]
    assert out[-1] == "NOT SOUND: 2 findings"


def test_large_log_altered(tmp_path):
    """A log of several full tiles and levels: the one altered record is named, and so is an altered tile."""
    log = make_log(tmp_path / "large", 70000, "--segment=20000")
    assert log.findings() == []
    copy = log.copy(tmp_path / "audit")
    here = alter(copy, "edit", 54321)
    assert {(f["file"], f.get("line")) for f in copy.findings()} == {("log/" + here[0][0], here[0][1]), ("checkpoint", None)}
    copy = log.copy(tmp_path / "audit")
    tile = copy.dir / "tile/0/200"
    tile.write_bytes(tile.read_bytes()[:32] + bytes(32) + tile.read_bytes()[64:])
    [finding] = copy.findings()
    assert finding["record"] == 200 * 256 + 1 and "tile/0/200" in finding["finding"]
    assert "what differs from them in tile/ is wrong" in copy.verify().stdout
    copy = log.copy(tmp_path / "audit")
    tile = copy.dir / "tile/1/000"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    assert [f["file"] for f in copy.findings()] == ["tile/1/000"]
    tile.write_bytes(b"short")
    assert [f["file"] for f in copy.findings()] == ["tile/1/000"]


def test_verify_needs_the_same_memory_for_any_log(tmp_path):
    def peak(records):
        log = make_log(tmp_path / str(records), records, "--segment=100000")
        pid = os.posix_spawn("/usr/bin/env", ["env", str(find_program(default_builddir(), "custody-audit")), "verify",
                                              str(log.dir), f"--vkey={log.vkey}"], os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        return usage.ru_maxrss  # KiB
    # The threads' buffers fill as they are scheduled, up to a bound; the larger log itself has 45 MB.
    assert peak(150000) < peak(1500) + 16384


# ---- segments ----

def test_missing_segment(tmp_path, sound):
    for n, name in enumerate(p.name for p in sound.segments()):
        log = sound.copy(tmp_path / "audit")
        (log.dir / "log" / name).unlink()
        found = log.findings()
        if n < 2:
            after = sound.segments()[n + 1].name
            assert found[0]["file"] == f"log/{after}" and "are missing before this segment" in found[0]["finding"]
        else:
            assert any("the last 10 are missing" in f["finding"] for f in found)


def test_renamed_and_doubled_segment(tmp_path, sound):
    log = sound.copy(tmp_path / "audit")
    (log.dir / "log/000000000015.jsonl").rename(log.dir / "log/000000000016.jsonl")
    assert log.findings()[0]["file"] == "log/000000000016.jsonl"
    log = sound.copy(tmp_path / "audit")
    shutil.copy(log.dir / "log/000000000015.jsonl", log.dir / "log/000000000020.jsonl")
    assert log.findings()[0]["file"] == "log/000000000020.jsonl"


def test_stray_files_are_noted(tmp_path, sound):
    log = sound.copy(tmp_path / "audit")
    for name in ("README", "1.jsonl", "000000000015.jsonl~", "\x1b[31m\xff.jsonl", "-000000000001.jsonl"):
        (log.dir / "log" / name).write_text("x")
    (log.dir / "log/subfolder").mkdir()
    done = log.verify()
    assert done.returncode == 0
    assert done.stdout.count("is no segment") == 6 and "\x1b" not in done.stdout


# ---- hostile files ----

def hostile(log, what):
    segment, checkpoint = log.dir / "log/000000000015.jsonl", log.dir / "checkpoint"
    data = segment.read_bytes()
    actions = {
        "empty segment": lambda: segment.write_bytes(b""),
        "huge line": lambda: segment.write_bytes(data[:100] + b"A" * 3_000_000 + data[100:]),
        "longest line and one": lambda: segment.write_bytes(b"A" * 65536 + b"\n" + data),
        "only newlines": lambda: segment.write_bytes(b"\n" * 10_000),
        "NULs": lambda: segment.write_bytes(b"\0" * 1_000_000),
        "NUL in a line": lambda: segment.write_bytes(data[:50] + b"\0" + data[51:]),
        "no last newline": lambda: segment.write_bytes(data[:-1]),
        "carriage returns": lambda: segment.write_bytes(data.replace(b"\n", b"\r\n")),
        "random bytes": lambda: segment.write_bytes(random.Random(1).randbytes(200_000)),
        "not UTF-8": lambda: segment.write_bytes(data.replace(b"alpha", b"alph\xff")),
        "escapes": lambda: segment.write_bytes(data.replace(b'"alpha"', b'"\\u001b[31m"')),
        "numbers too large": lambda: segment.write_bytes(data.replace(b'"seq":1', b'"seq":1844674407370955161')),
        "largest number": lambda: segment.write_bytes(data.replace(b'"seq":15', b'"seq":18446744073709551615')),
        "deep nesting": lambda: segment.write_bytes(b'{"v":1,"seq":15' + b"[" * 60_000 + b"\n" + data),
        "a folder": lambda: (segment.unlink(), segment.mkdir()),
        "a pipe": lambda: (segment.unlink(), os.mkfifo(segment)),
        "a dangling link": lambda: (segment.unlink(), segment.symlink_to("nowhere")),
        "an endless device": lambda: (segment.unlink(), segment.symlink_to("/dev/zero")),
        "a link to itself": lambda: (segment.unlink(), segment.symlink_to(segment.name)),
        "no checkpoint": lambda: checkpoint.unlink(),
        "empty checkpoint": lambda: checkpoint.write_bytes(b""),
        "checkpoint is a folder": lambda: (checkpoint.unlink(), checkpoint.mkdir()),
        "checkpoint is a pipe": lambda: (checkpoint.unlink(), os.mkfifo(checkpoint)),
        "huge checkpoint": lambda: checkpoint.write_bytes(b"A\n" * 10_000_000),
        "checkpoint of NULs": lambda: checkpoint.write_bytes(bytes(1000)),
        "checkpoint of another size": lambda: checkpoint.write_bytes(checkpoint.read_bytes().replace(b"\n40\n", b"\n39\n")),
        "tile is a folder": lambda: ((log.dir / "tile/0/000.p/40").unlink(), (log.dir / "tile/0/000.p/40").mkdir()),
        "tile is short": lambda: (log.dir / "tile/0/000.p/40").write_bytes(bytes(17)),
        "tile is altered": lambda: (log.dir / "tile/0/000.p/40").write_bytes(bytes(40 * 32)),
        "far segment": lambda: shutil.copy(segment, log.dir / "log/18446744073709551615.jsonl"),
    }
    actions[what]()


HOSTILE = ["empty segment", "huge line", "longest line and one", "only newlines", "NULs", "NUL in a line", "no last newline",
           "carriage returns", "random bytes", "not UTF-8", "escapes", "numbers too large", "largest number",
           "deep nesting", "a folder", "a pipe", "a dangling link", "an endless device", "a link to itself", "no checkpoint",
           "empty checkpoint", "checkpoint is a folder", "checkpoint is a pipe", "huge checkpoint", "checkpoint of NULs",
           "checkpoint of another size", "tile is a folder", "tile is short", "tile is altered", "far segment"]


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(tmp_path, sound, what):
    log = sound.copy(tmp_path / "audit")
    hostile(log, what)
    assert log.findings()
    out = log.verify().stdout
    assert out.splitlines()[-1].startswith("NOT SOUND: ") and not re.search(r"[\0-\x09\x0b-\x1f\x7f]", out)
    # The other commands bear it as well.
    audit("show", log.dir)
    audit("show", log.dir, "--json")
    for index in (0, 16, 39):
        audit("prove", log.dir, index)


def test_random_damage(tmp_path, sound):
    """A byte changed, put in or taken out anywhere in the records is found, and nothing crashes."""
    rng = random.Random(20261122)
    for _ in range(80):
        log = sound.copy(tmp_path / "audit")
        path = rng.choice(log.segments())
        data = bytearray(path.read_bytes())
        at = rng.randrange(len(data))
        what = rng.randrange(3)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data.insert(at, rng.randrange(256))
        else:
            del data[at]
        path.write_bytes(data)
        assert log.findings()


def test_what_cannot_be_checked(tmp_path, sound):
    vkey = f"--vkey={sound.vkey}"
    (tmp_path / "file").write_text("x")
    for args in (["verify", tmp_path / "absent", vkey], ["verify", tmp_path, vkey], ["verify", tmp_path / "file", vkey],
                 ["verify", sound.dir], ["verify", vkey], ["verify", sound.dir, f"--vkey={tmp_path}/absent"],
                 ["verify", sound.dir, f"--vkey={tmp_path}/file"], ["verify", sound.dir, f"--vkey={tmp_path}"],
                 ["verify", sound.dir, sound.dir, vkey], ["verify", sound.dir, vkey, "--bogus"], [], ["bogus"],
                 ["show"], ["show", tmp_path], ["show", sound.dir, "--event=bogus"], ["show", sound.dir, "--since-index=x"],
                 ["prove", sound.dir], ["prove", sound.dir, "x"], ["prove", sound.dir, "-1"], ["prove", sound.dir, RECORDS],
                 ["prove", sound.dir, "99999999999999999999"], ["check", "proof"],
                 ["check", tmp_path / "absent", vkey, f"--record={tmp_path}/file"]):
        done = audit(*args)
        assert done.returncode == 2, args
        assert done.stderr and "sound:" not in done.stdout, args


def test_full_disk_is_no_verdict(sound):
    with open("/dev/full", "w") as full:
        done = subprocess.run([find_program(default_builddir(), "custody-audit"), "verify", sound.dir, f"--vkey={sound.vkey}"],
                              stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE)
    assert done.returncode == 2


@pytest.mark.parametrize("command", [[], ["verify"], ["show"], ["prove"], ["check"]])
def test_help_and_version(command):
    done = audit(*command, "--help")
    assert done.returncode == 0 and "Exit status:" in done.stdout
    assert audit("--version").stdout.startswith("custody-audit (custody) ")


# ---- show ----

def test_show(sound):
    done = audit("show", sound.dir)
    assert done.returncode == 0
    rows = done.stdout.splitlines()
    assert rows[0].split()[0] == "INDEX" and len(rows) == RECORDS + 1
    assert max(map(len, rows)) <= 100
    assert rows[7].split() == ["6", "2026-11-22T10:00:06Z", "release.granted", "wg0/1", "uid", "0", "BOOT", "lease", "00000000"]


def test_show_filters(sound):
    def shown(*args):
        return [json.loads(line)["seq"] for line in audit("show", sound.dir, "--json", *args).stdout.splitlines()]
    assert audit("show", sound.dir, "--json").stdout.encode() == b"".join(line for _, _, line in sound.lines())
    assert shown("--since-index=14") == list(range(14, RECORDS))
    assert shown("--since-index=15") == list(range(15, RECORDS))
    assert shown("--since-index=1000") == []
    assert shown("--key=wg1") == []
    records = [json.loads(line) for _, _, line in sound.lines()]
    denied = [r["seq"] for r in records if r["event"] == "release.denied"]
    granted = [r["seq"] for r in records if r["event"] == "release.granted" and r["key"] == "wg0" and r["seq"] >= 30]
    assert denied and granted
    assert shown("--event=release.denied") == denied
    assert shown("--event=release.granted", "--key=wg0", "--since-index=30") == granted


# ---- prove and check ----

def prove(log, index, dir):
    done = audit("prove", log.dir, index)
    assert done.returncode == 0, done
    (dir / "proof").write_text(done.stdout)
    (dir / "record").write_bytes(log.lines()[index][2])
    return dir / "proof", dir / "record"


def test_prove_and_check_every_record(tmp_path, sound):
    other = tmp_path / "other"
    other.write_bytes(sound.lines()[0][2])
    for index in range(RECORDS):
        proof, record = prove(sound, index, tmp_path)
        done = audit("check", proof, f"--vkey={sound.vkey}", f"--record={record}")
        assert done.returncode == 0
        assert done.stdout.startswith(f"proven: record {index} of the log alpha/custody/log, in its signed head of 40 records\n")
        done = audit("check", proof, f"--vkey={sound.dir}/other.vkey", f"--record={record}")
        assert done.returncode == 1 and done.stdout.startswith("NOT PROVEN: ")
        done = audit("check", proof, f"--vkey={sound.vkey}", f"--record={other}")
        assert done.returncode == (0 if index == 0 else 1)


def test_check_reads_standard_input(tmp_path, sound):
    proof, record = prove(sound, 8, tmp_path)
    with open(record, "rb") as stdin:
        done = audit("check", proof, f"--vkey={sound.vkey}", "--record=-", stdin=stdin)
    assert done.returncode == 0
    assert "release.granted, key wg0 generation 1, by uid 0 gid 0 pid 4242 in custody-applier.service, reason BOOT" in done.stdout


def test_altered_proofs(tmp_path, sound):
    proof, record = prove(sound, 17, tmp_path)
    text = proof.read_bytes()
    rng = random.Random(7)
    for _ in range(100):
        altered = bytearray(text)
        altered[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
        proof.write_bytes(altered)
        done = audit("check", proof, f"--vkey={sound.vkey}", f"--record={record}")
        assert done.returncode == 1, bytes(altered)
    for size in (0, 10, 60, 200, len(text) - 1):
        proof.write_bytes(text[:size])
        assert audit("check", proof, f"--vkey={sound.vkey}", f"--record={record}").returncode == 1


def test_record_that_lies_about_its_number(tmp_path, sound):
    """A signed log of one line, which says that it is record 5: the receipt is right, the record is not."""
    line = sound.lines()[5][2]
    key = nacl.signing.SigningKey(bytes(32))
    public = b"\x01" + bytes(key.verify_key)
    id = hashlib.sha256(b"alpha/custody/log\n" + public).digest()[:4]
    root = hashlib.sha256(b"\0" + line[:-1]).digest()
    text = f"alpha/custody/log\n1\n{base64.b64encode(root).decode()}\n"
    signature = base64.b64encode(id + key.sign(text.encode()).signature).decode()
    (tmp_path / "vkey").write_text(f"alpha/custody/log+{id.hex()}+{base64.b64encode(public).decode()}\n")
    (tmp_path / "proof").write_text(
        f"c2sp.org/tlog-proof@v1\nindex 0\n\n{text}\n\u2014 alpha/custody/log {signature}\n")
    (tmp_path / "record").write_bytes(line)
    done = audit("check", tmp_path / "proof", f"--vkey={tmp_path}/vkey", f"--record={tmp_path}/record")
    assert done.returncode == 1
    assert done.stdout == "NOT PROVEN: the line stands at index 0, but says that it is record 5\n"


def test_nothing_is_proven_from_an_altered_log(tmp_path, sound):
    log = sound.copy(tmp_path / "audit")
    alter(log, "edit", 5)
    done = audit("prove", log.dir, 30)
    assert done.returncode == 1 and done.stdout == "" and "not those that were signed" in done.stderr


# ---- other people's judges ----

def test_sumdb_opens_the_checkpoint(sound, judge):
    done = run(judge, "open", sound.vkey, sound.dir / "checkpoint")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[:2] == ["alpha/custody/log", "40"]
    assert run(judge, "open", sound.dir / "other.vkey", sound.dir / "checkpoint").returncode == 1


def test_sumdb_checks_the_proofs(tmp_path, sound, judge):
    for index in range(RECORDS):
        proof, record = prove(sound, index, tmp_path)
        record.write_bytes(record.read_bytes()[:-1])
        done = run(judge, "check", sound.vkey, proof, record)
        assert done.returncode == 0, done.stderr
    record.write_bytes(b"another")
    assert run(judge, "check", sound.vkey, proof, record).returncode == 1


# ---- the log of the real daemon ----

@pytest.fixture
def daemon_log(stack):
    """The log of a daemon that published, released, was told of outcomes and of none, and refused; and its receipts."""
    vkey = stack.log_vkey.read_text()
    stack.ctl("key", "publish", "wga", check=True)
    with Client(stack.socket) as client:
        released = [client.release("wga", vkey, ticket="NET-1"), client.release("wgb", vkey), client.release("wgb", vkey)]
        client.report(released[0].lease)
        client.report(released[1].lease, applied=False, detail="no such device")
        with pytest.raises(Refused):
            client.release("wga", vkey, generation=9)
    log = Log(stack.audit_dir, stack.log_vkey)
    assert log.findings() == []  # while it runs
    stack.stop()
    return log, released


def test_log_of_the_daemon(daemon_log, tmp_path, judge):
    log, released = daemon_log
    done = log.verify()
    count = len(log.lines())
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(f"sound: {count} records, signed head {count}, root ")
    assert f"lease {released[2].lease} of wgb generation 1 is still open" in done.stdout
    assert run(judge, "open", log.vkey, log.dir / "checkpoint").returncode == 0
    wrong = tmp_path / "wrong.vkey"
    make_log(tmp_path / "made", 1).vkey.rename(wrong)
    assert run(judge, "open", wrong, log.dir / "checkpoint").returncode == 1
    assert log.verify(vkey=wrong).returncode == 1
    for index in range(count):
        proof, record = prove(log, index, tmp_path)
        assert audit("check", proof, f"--vkey={log.vkey}", f"--record={record}").returncode == 0


def test_receipts_of_the_daemon(daemon_log, tmp_path, judge):
    log, released = daemon_log
    proof, record = tmp_path / "proof", tmp_path / "record"
    for release in released:
        proof.write_bytes(as_bytes(release.receipt))
        record.write_bytes(as_bytes(release.line))
        done = audit("check", proof, f"--vkey={log.vkey}", f"--record={record}")
        assert done.returncode == 0
        assert f"release.granted, key {release.record['key']} generation 1, by uid 0 gid 0 pid {os.getpid()}" in done.stdout
        assert run(judge, "check", log.vkey, proof, record).returncode == 0
        record.write_bytes(edited(as_bytes(release.line)))
        assert audit("check", proof, f"--vkey={log.vkey}", f"--record={record}").returncode == 1
        assert run(judge, "check", log.vkey, proof, record).returncode == 1


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def test_every_line_of_the_daemon_altered(daemon_log, tmp_path):
    original, _ = daemon_log
    for how in HOWS:
        for n in range(len(original.lines())):
            log = original.copy(tmp_path / "audit")
            here = alter(log, how, n)
            found = log.findings()
            assert any(contains(f, *place) or (f["file"].removeprefix("log/"), f.get("line", 0)) == place
                       for f in found for place in here), f"{how} of record {n}: {here} is not named in {found}"
