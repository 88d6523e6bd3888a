# SPDX-License-Identifier: Apache-2.0
"""Trees judged by others: Go's sumdb packages recompute our root from our tiles and take our proofs, at every size that matters."""

import random

import pytest

from test_audit import audit, make_log, run

# One leaf, two, around a full tile, and a third level of tiles.
LARGE = 256 * 256 + 300
SIZES = [1, 2, 255, 256, 257, LARGE]


@pytest.fixture(scope="module", params=SIZES)
def log(request, tmp_path_factory):
    log = make_log(tmp_path_factory.mktemp("judged") / "audit", request.param, "--segment=10000")
    log.size = request.param
    return log


@pytest.fixture
def small(tmp_path):
    return make_log(tmp_path / "audit", 257)


def judged(judge, log, what="tiles", dir=None):
    return run(judge, what, log.vkey, log.dir / "checkpoint", dir or log.dir)


def record_of(log, index):
    """The line of a record without its newline."""
    first, path = max((int(p.stem), p) for p in log.segments() if int(p.stem) <= index)
    return path.read_bytes().split(b"\n")[index - first]


def test_root_from_tiles(judge, log):
    done = judged(judge, log)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{log.size}\n"


def test_inclusion(judge, log, tmp_path):
    indexes = {0, log.size // 2, log.size - 1, min(log.size - 1, 256)}
    proof, record = tmp_path / "proof", tmp_path / "record"
    for index in indexes:
        done = audit("prove", log.dir, index)
        assert done.returncode == 0, done.stderr
        proof.write_text(done.stdout)
        record.write_bytes(record_of(log, index))
        done = run(judge, "check", log.vkey, proof, record)
        assert done.returncode == 0, (index, done.stderr)
    # Not for another record.
    record.write_bytes(record.read_bytes() + b" ")
    assert run(judge, "check", log.vkey, proof, record).returncode == 1


def test_tampered_proof(judge, small, tmp_path):
    proof, record = tmp_path / "proof", tmp_path / "record"
    text = audit("prove", small.dir, 5).stdout
    record.write_bytes(record_of(small, 5))
    proof.write_text(text)
    assert run(judge, "check", small.vkey, proof, record).returncode == 0
    lines = text.split("\n")
    flipped = "A" if lines[3][0] != "A" else "B"
    for altered in (text.replace("index 5", "index 4"),
                    "\n".join(lines[:3] + [flipped + lines[3][1:]] + lines[4:]),
                    "\n".join(lines[:3] + lines[4:]),
                    text.replace("\n257\n", "\n256\n")):
        assert altered != text
        proof.write_text(altered)
        assert run(judge, "check", small.vkey, proof, record).returncode == 1


def test_tampered_tiles(judge, small):
    assert judged(judge, small).returncode == 0
    tiles = sorted(path for path in (small.dir / "tile").rglob("*") if path.is_file())
    assert [str(path.relative_to(small.dir)) for path in tiles] == ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]
    for path in tiles:
        good = path.read_bytes()
        at = random.Random(path.name).randrange(len(good))
        for bad in (good[:at] + bytes([good[at] ^ 1]) + good[at + 1:], good[:-32], good + bytes(32)):
            path.write_bytes(bad)
            assert judged(judge, small).returncode == 1, path
        path.unlink()
        assert judged(judge, small).returncode == 1, path
        path.write_bytes(good)
    assert judged(judge, small).returncode == 0


def test_another_key(judge, small):
    assert run(judge, "tiles", small.dir / "other.vkey", small.dir / "checkpoint", small.dir).returncode == 1


def entries_of(bundle):
    """(offset, length) of each entry in a bundle, its length prefix left out."""
    at = 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at:at + 2], "big")
        yield at + 2, length
        at += 2 + length


def test_export(judge, log, tmp_path):
    """c2sp.org/tlog-tiles as a whole: hash tiles to the root, and entry bundles to the hash tiles."""
    out = tmp_path / "out"
    done = audit("export", f"--tiles={out}", log.dir)
    assert done.returncode == 0, done.stderr
    done = judged(judge, log, "entries", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{log.size}\n"


def test_tampered_export(judge, small, tmp_path):
    out = tmp_path / "out"
    assert audit("export", f"--tiles={out}", small.dir).returncode == 0
    assert judged(judge, small, "entries", out).returncode == 0
    bundles = sorted(p for p in (out / "tile/entries").rglob("*") if p.is_file())
    assert [str(p.relative_to(out)) for p in bundles] == ["tile/entries/000", "tile/entries/001.p/1"]
    for path in bundles:
        good = path.read_bytes()
        at, length = list(entries_of(good))[-1]
        for altered in (good[:at] + b"[" + good[at + 1:], good[:-1], good + b"\0", good[:at - 2],
                        good[:at - 2] + (length - 1).to_bytes(2, "big") + good[at:]):
            path.write_bytes(altered)
            assert judged(judge, small, "entries", out).returncode == 1
        path.write_bytes(good)


@pytest.mark.parametrize("old, new", [(1, 2), (2, 255), (255, 256), (256, 257), (257, 257), (257, 1000), (1, 1000)])
def test_consistency(judge, tmp_path, old, new):
    older = make_log(tmp_path / "older", old, "--segment=10000")
    log = make_log(tmp_path / "newer", new, "--segment=10000")
    proof = tmp_path / "proof"
    text = audit("prove", log.dir, "--consistency", old).stdout
    proof.write_text(text)
    done = run(judge, "growth", log.vkey, proof, older.dir / "checkpoint")
    assert done.returncode == 0, done.stderr
    lines = text.split("\n")
    hashes = lines.index("") - 1
    flipped = "A" if lines[1][:1] != "A" else "B"
    forged = [text.replace(f"old {old}\n", f"old {old + 1}\n"), text.replace(f"\n{new}\n", f"\n{new + 1}\n")]
    if hashes:
        forged += ["\n".join([lines[0], flipped + lines[1][1:], *lines[2:]]), "\n".join([lines[0], *lines[2:]])]
    for altered in forged:
        assert altered != text
        proof.write_text(altered)
        assert run(judge, "growth", log.vkey, proof, older.dir / "checkpoint").returncode == 1, altered
