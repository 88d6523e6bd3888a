# SPDX-License-Identifier: Apache-2.0
"""Metrics as others read them: over HTTP on a Unix socket, by the reference parsers, by promtool."""

import shutil
import socket
import subprocess

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def http(path, request, timeout=10):
    """Sends `request` (bytes) to the Unix socket and returns (head, body) of what comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect(str(path))
        s.sendall(request)
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body.decode()


def scrape(path, accept=None):
    """GET /metrics -> the text; the answer's head is checked against it."""
    line = f"Accept: {accept}\r\n" if accept else ""
    head, body = http(path, f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{line}\r\n".encode())
    assert head.startswith("HTTP/1.0 200 OK\r\n"), head
    assert f"Content-Length: {len(body.encode())}" in head, head
    wanted = "application/openmetrics-text" if accept else "text/plain; version=0.0.4"
    assert f"Content-Type: {wanted}" in head, head
    return body


def samples(text, openmetrics=False):
    """{(name, labels as sorted pairs): value}, by the reference parser, which is strict about OpenMetrics."""
    if openmetrics:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
    else:
        from prometheus_client.parser import text_string_to_metric_families as parse
    found = {}
    for family in parse(text):
        for s in family.samples:
            key = (s.name, tuple(sorted(s.labels.items())))
            assert key not in found, f"told twice: {key}"
            found[key] = s.value
    return found


def value(found, name, **labels):
    return found[(name, tuple(sorted((k.rstrip("_"), v) for k, v in labels.items())))]


def promtool(*args, input=None):
    """promtool -> CompletedProcess; None where it is not installed."""
    if not shutil.which("promtool"):
        return None
    return subprocess.run(["promtool", *map(str, args)], input=input, capture_output=True, text=True, timeout=60)


def check_metrics(text):
    """promtool check metrics has nothing to say."""
    done = promtool("check", "metrics", input=text)
    assert done is not None, "promtool is not installed: tools/install-packages --tests"
    assert done.returncode == 0 and not done.stdout and not done.stderr, done.stdout + done.stderr
