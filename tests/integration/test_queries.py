# SPDX-License-Identifier: Apache-2.0
"""What an auditor asks of a log besides whether it is sound: query, follow, stats, export, consistency proofs."""

import base64
import csv
import hashlib
import io
import json
import os
import subprocess

import pytest

from stack import default_builddir, find_program, wait_for
from test_audit import audit, make_log

RECORDS = 200


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """200 records in segments of 15, with two keys, and one release that nothing has closed."""
    return make_log(tmp_path_factory.mktemp("queries") / "audit", RECORDS, "--keys=2", "--open-lease")


def records(log):
    return [json.loads(line) for _, _, line in log.lines()]


def seqs(*args):
    done = audit("query", "--json", *args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["seq"] for line in done.stdout.splitlines()]


def test_query_gives_the_lines_as_they_stand(log):
    assert audit("query", "--json", log.dir).stdout.encode() == b"".join(line for _, _, line in log.lines())


def test_query_by_each_field(log):
    all = records(log)
    actor = next(r["actor"] for r in all if "actor" in r)
    reason = next(r["reason"] for r in all if "reason" in r)
    middle = all[90]["time"]
    wanted = {
        ("--key=wg1",): lambda r: r.get("key") == "wg1",
        ("--event=release.granted",): lambda r: r["event"] == "release.granted",
        (f"--actor={actor['uid']}",): lambda r: r.get("actor", {}).get("uid") == actor["uid"],
        (f"--reason={reason}",): lambda r: r.get("reason") == reason,
        (f"--since={middle}",): lambda r: r["time"] >= middle,
        (f"--until={middle}",): lambda r: r["time"] < middle,
        ("--key=wg0", "--event=release.applied", f"--since={middle}"):
            lambda r: r.get("key") == "wg0" and r["event"] == "release.applied" and r["time"] >= middle,
    }
    for options, chosen in wanted.items():
        expected = [r["seq"] for r in all if chosen(r)]
        assert expected, options
        assert seqs(*options, log.dir) == expected, options
    assert seqs("--ticket=nobody wrote this", log.dir) == []


def test_query_open_leases(log):
    all = records(log)
    closed = {r["lease"] for r in all if r["event"] in ("release.applied", "release.failed", "lease.expired")}
    expected = [r["seq"] for r in all if r["event"] == "release.granted" and r["lease"] not in closed]
    assert len(expected) == 1
    assert seqs("--open", log.dir) == expected


def test_query_table_fits_a_terminal(log):
    lines = audit("query", log.dir).stdout.splitlines()
    assert len(lines) == RECORDS + 1 and max(map(len, lines)) <= 80


def test_query_csv_is_read_by_a_csv_reader(log):
    rows = list(csv.DictReader(io.StringIO(audit("query", "--csv", log.dir).stdout)))
    assert [(int(r["index"]), r["event"], r["key"]) for r in rows] == \
        [(r["seq"], r["event"], r.get("key", "")) for r in records(log)]


@pytest.mark.parametrize("option", ["--since=yesterday", "--event=release", "--reason=BOREDOM", "--no-such-option"])
def test_query_refuses_what_it_does_not_know(log, option):
    done = audit("query", option, log.dir)
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_stats_count_what_is_there(log):
    all = records(log)
    stats = json.loads(audit("stats", "--json", log.dir).stdout)
    assert stats["records"] == RECORDS and stats["segments"] == len(log.segments())
    assert stats["first"] == all[0]["time"] and stats["last"] == all[-1]["time"]
    assert stats["bytes"] == sum(p.stat().st_size for p in log.segments())
    assert stats["events"]["release.granted"] == sum(r["event"] == "release.granted" for r in all)
    assert sum(stats["events"].values()) == RECORDS


def test_follow_goes_on_across_segments(tmp_path, log):
    """The last segments come after it was started: each line is printed, once, in order."""
    copy = log.copy(tmp_path / "audit")
    late = [(p, p.read_bytes()) for p in copy.segments()[-2:]]
    for path, _ in late:
        path.unlink()
    before = copy.segments()[-1].read_bytes().splitlines(keepends=True)[-1]
    out = tmp_path / "out"
    with open(out, "wb") as sink:
        follow = subprocess.Popen([find_program(default_builddir(), "custody-audit"), "follow", "--json", copy.dir],
                                  stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: out.read_bytes().endswith(before), "what was there before", 60)
        for path, content in late:
            with open(path, "wb") as f:
                half = len(content) // 2
                f.write(content[:half])  # in the middle of a line
                f.flush()
                f.write(content[half:])
            wait_for(lambda: out.read_bytes().endswith(content.splitlines(keepends=True)[-1]), f"the end of {path.name}", 60)
    finally:
        follow.terminate()
        follow.wait(60)
    printed = out.read_bytes()
    assert printed.endswith(b"".join(content for _, content in late))
    assert len(set(printed.splitlines())) == len(printed.splitlines())


def root_of(leaves):
    """RFC 6962 section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def test_export_is_all_of_the_log(tmp_path, log):
    done = audit("export", f"--tiles={tmp_path / 'out'}", log.dir)
    assert done.returncode == 0, done.stderr
    bundle = (tmp_path / "out/tile/entries/000.p/200").read_bytes()
    entries = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        entries.append(bundle[2:2 + length])
        bundle = bundle[2 + length:]
    assert entries == [line.rstrip(b"\n") for _, _, line in log.lines()]
    leaves = [hashlib.sha256(b"\x00" + e).digest() for e in entries]
    assert (tmp_path / "out/tile/0/000.p/200").read_bytes() == b"".join(leaves)
    checkpoint = (tmp_path / "out/checkpoint").read_text().splitlines()
    assert checkpoint[1] == "200" and base64.b64decode(checkpoint[2]) == root_of(leaves)
    again = audit("export", f"--tiles={tmp_path / 'out'}", log.dir)
    assert again.returncode == 2 and again.stderr


def test_consistency_is_proven_to_who_kept_a_head(tmp_path, log):
    """The head of an older copy, and the log as it is: check says that one grew into the other."""
    older = make_log(tmp_path / "older", 120, "--keys=2")
    kept = older.dir / "checkpoint"
    proof = tmp_path / "proof"
    done = audit("prove", log.dir, "--consistency", "120")
    assert done.returncode == 0, done.stderr
    proof.write_text(done.stdout)
    assert [line for _, _, line in older.lines()] == [line for _, _, line in log.lines()][:120]
    checked = audit("check", proof, f"--vkey={log.vkey}", f"--since={kept}")
    assert checked.returncode == 0 and "of 120 records grew into the one of 200" in checked.stdout, checked
    lines = done.stdout.splitlines()
    altered = bytearray(base64.b64decode(lines[1]))
    altered[0] ^= 1
    lines[1] = base64.b64encode(altered).decode()
    proof.write_text("\n".join(lines) + "\n")
    assert audit("check", proof, f"--vkey={log.vkey}", f"--since={kept}").returncode != 0


@pytest.mark.parametrize("command", ["query", "stats", "follow", "export"])
def test_a_folder_that_is_no_log(tmp_path, command):
    options = [f"--tiles={tmp_path / 'out'}"] if command == "export" else []
    done = audit(command, *options, tmp_path / "nothing")
    assert done.returncode == 2 and str(tmp_path / "nothing") in done.stderr
    assert not os.path.exists(tmp_path / "out")
