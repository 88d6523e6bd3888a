# SPDX-License-Identifier: Apache-2.0
"""custodyd's metrics under real releases, denials and failures: what they say is what the log says."""

import os
import signal
import socket
import time

import pytest

from python_client import Client, pb
from scrape import OPENMETRICS, check_metrics, http, samples, scrape, value
from stack import wait_for


@pytest.fixture
def watched(new_stack):
    """A stack that tells its metrics both ways."""
    stack = new_stack(key_options="lifetime = 86400")
    stack.metrics = stack.dir / "metrics.sock"
    stack.textfile = stack.dir / "custody.prom"
    stack.write_config(key_options="lifetime = 86400",
                       extra=f'metrics {{ socket = "{stack.metrics}"  textfile = "{stack.textfile}"  interval = 1 }}\n')
    stack.start()
    stack.init()
    stack.generate("wga", "wgb")
    return stack


def read(stack):
    return samples(scrape(stack.metrics, OPENMETRICS), openmetrics=True)


def count(stack, *events):
    return sum(r["event"] in events for r in stack.records())


def test_what_both_formats_say(watched):
    stack = watched
    with Client(stack.socket) as client:
        client.release("wga", stack.log_vkey.read_text())
    plain = scrape(stack.metrics)
    check_metrics(plain)
    classic, modern = samples(plain), read(stack)
    # Both name the same series; ages and latencies go on meanwhile.
    assert set(classic) == set(modern)
    assert scrape(stack.metrics, OPENMETRICS).endswith("# EOF\n")


def test_counts_are_the_logs(watched):
    stack = watched
    before = read(stack)
    assert value(before, "custody_releases_total", outcome="granted") == 0
    assert value(before, "custody_log_records") == len(stack.records())
    with Client(stack.socket) as client:
        for _ in range(3):
            client.release("wga", stack.log_vkey.read_text())
    # Nobody reports an outcome: the leases are open, and expire.
    now = read(stack)
    assert value(now, "custody_releases_total", outcome="granted") == count(stack, "release.granted") == 3
    assert value(now, "custody_leases_open") == 3
    assert value(now, "custody_records_total", event="release.granted") == 3
    assert value(now, "custody_keeper_ready") == value(now, "custody_log_ready") == 1
    assert value(now, "custody_log_sealed") == value(now, "custody_log_stuck") == 0
    segments = sorted((stack.audit_dir / "log").glob("*.jsonl"))
    assert value(now, "custody_log_segment_bytes") == segments[-1].stat().st_size
    assert value(now, "custody_key_generations", key="wga", state="pre-active") == 1
    assert value(now, "custody_key_generation", key="wga") == 0, "nothing is active before an applier says so"
    assert value(now, "custody_key_lifetime_seconds", key="wga") == 86400


def test_key_age_and_schedule(watched):
    stack = watched
    assert ("custody_key_age_seconds", (("key", "wga"),)) not in read(stack), "no active generation, no age"
    with Client(stack.socket) as client:
        client.report(client.release("wga", stack.log_vkey.read_text()).lease)
    active = [r for r in stack.records() if r["event"] == "key.activated"][0]
    first = read(stack)
    assert value(first, "custody_key_generation", key="wga") == active["generation"]
    assert 0 <= value(first, "custody_key_age_seconds", key="wga") < 600
    due = value(first, "custody_key_next_rotation_timestamp_seconds", key="wga")
    assert abs(due - (time.time() + 86400)) < 600
    assert value(first, "custody_rotations_total", key="wga", outcome="confirmed") == 0
    with Client(stack.socket) as client:
        client.call(rotate_key=pb.RotateKey(key="wga"))
    opened = read(stack)
    assert value(opened, "custody_rotations_started_total", key="wga") == 1
    assert value(opened, "custody_rotation_open_seconds", key="wga") > 0
    assert value(opened, "custody_rotation_open_seconds", key="wgb") == 0
    wait_for(lambda: value(read(stack), "custody_rotation_open_seconds", key="wga") >
             value(opened, "custody_rotation_open_seconds", key="wga"), "an open rotation growing older")


def test_denials_are_counted_with_those_that_were_coalesced(watched):
    stack = watched
    with Client(stack.socket) as client:
        for _ in range(5):
            with pytest.raises(Exception):
                client.release("nosuchkey", stack.log_vkey.read_text())
    # The first is recorded at once, the others as a count when their window is over.
    wait_for(lambda: value(read(stack), "custody_releases_total", outcome="denied") == 5, "all five denials")
    now = read(stack)
    assert value(now, "custody_denials_total", request="ReleaseKey") == 5
    assert not any(dict(labels).get("key") == "nosuchkey" for _, labels in now), "a stranger must not make series"


def test_the_hsm(watched):
    stack = watched
    now = read(stack)
    commits = value(now, "custody_hsm_operation_duration_seconds_count", operation="commit")
    assert commits > 0
    assert value(now, "custody_hsm_operation_duration_seconds_bucket", operation="commit", le="+Inf") == commits
    success = value(now, "custody_hsm_last_success_timestamp_seconds")
    assert abs(success - time.time()) < 600
    with Client(stack.socket) as client:
        client.release("wga", stack.log_vkey.read_text())
    later = read(stack)
    assert value(later, "custody_hsm_operation_duration_seconds_count", operation="commit") > commits
    assert value(later, "custody_hsm_last_success_timestamp_seconds") > success
    # A keeper that does not answer, and then is killed.
    keeper = stack.keeper_pid
    os.kill(keeper, signal.SIGSTOP)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: value(read(stack), "custody_keeper_ready") == 0, "the keeper's loss in the metrics", interval=0.002)
    wait_for(lambda: value(read(stack), "custody_keeper_ready") == 1 and value(read(stack), "custody_log_ready") == 1,
             "the keeper back in the metrics")


def test_textfile_is_replaced_whole_and_readable_by_all(watched):
    stack = watched
    wait_for(stack.textfile.exists, "the textfile")
    assert stack.textfile.stat().st_mode & 0o777 == 0o644
    text = stack.textfile.read_text()
    check_metrics(text)
    inode = stack.textfile.stat().st_ino
    # While it is rewritten, a reader that opens it again and again never sees half of it.
    deadline = time.monotonic() + 20
    seen = {inode}
    while len(seen) < 3 and time.monotonic() < deadline:
        with open(stack.textfile) as file:
            seen.add(os.fstat(file.fileno()).st_ino)
            assert "custody_hook_dropped" in file.read()
    assert len(seen) >= 2


def test_a_textfile_that_cannot_be_written_stops_nothing(new_stack):
    stack = new_stack()
    nowhere = stack.dir / "nowhere"
    stack.write_config(extra=f'metrics {{ textfile = "{nowhere}/custody.prom"  interval = 1 }}\n')
    stack.start()
    stack.init()
    wait_for(lambda: f"metrics file {nowhere}/custody.prom" in stack.log.read_text(), "what is wrong, said")
    nowhere.mkdir()
    wait_for((nowhere / "custody.prom").exists, "the file, once its folder is there")
    assert stack.log.read_text().count("metrics file") == 1, "said once"


def test_requests_that_are_none(watched):
    path = watched.metrics
    assert http(path, b"GET / HTTP/1.0\r\n\r\n")[0].startswith("HTTP/1.0 404 ")
    assert http(path, b"POST /metrics HTTP/1.0\r\n\r\n")[0].startswith("HTTP/1.0 405 ")
    assert http(path, b"nonsense\r\n\r\n")[0].startswith("HTTP/1.0 400 ")
    for junk in (b"GET /metrics HTTP/1.0\r\n\0\r\n\r\n", b"x" * 5000):
        try:
            assert http(path, junk) == ("", "")
        except ConnectionResetError:
            pass
    read(watched)


def test_silent_clients_hold_up_nobody(watched):
    """As many as find a place, and more, that ask nothing and never go: releases are served, scrapes again soon."""
    stack = watched
    silent = []
    for _ in range(12):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(str(stack.metrics))
        silent.append(s)
    with Client(stack.socket) as client:
        client.release("wga", stack.log_vkey.read_text())
    assert "custody_log_ready" in scrape_patiently(stack.metrics)
    for s in silent:
        s.close()


def scrape_patiently(path):
    return http(path, b"GET /metrics HTTP/1.0\r\n\r\n", timeout=30)[1]


def test_the_socket_goes_with_the_daemon_and_comes_again_after_a_kill(watched):
    stack = watched
    stack.kill()
    stack.stop()
    assert stack.metrics.is_socket()
    stack.start()
    assert value(read(stack), "custody_log_ready") == 1
    assert stack.metrics.stat().st_mode & 0o777 == 0o666
    assert stack.stop() == 0
    assert not stack.metrics.exists()


def test_a_socket_that_cannot_be_had_ends_the_start(new_stack):
    stack = new_stack()
    path = stack.dir / "metrics"
    path.write_text("not a socket")
    stack.write_config(extra=f'metrics {{ socket = "{path}" }}\n')
    stack.start(wait=False)
    assert stack.custodyd.wait(30) == 1
    assert "is no socket" in stack.log.read_text()
    assert path.read_text() == "not a socket"
