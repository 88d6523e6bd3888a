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
