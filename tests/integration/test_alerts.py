# SPDX-License-Identifier: Apache-2.0
"""The shipped alert rules and the dashboard: promtool accepts them, they fire as made-up series say, and what they send
people to read is there."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from scrape import promtool
from stack import TOP

RULES = TOP / "tools" / "monitoring" / "alerts.yml"
DASHBOARD = TOP / "tools" / "monitoring" / "dashboard.json"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


@needs_promtool
def test_promtool_accepts_the_rules():
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_fire_when_they_must(tmp_path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(pathlib.Path(__file__).parent / "alerts_test.yml", tmp_path)
    done = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def test_each_alert_says_what_to_do_and_where_to_read():
    text = RULES.read_text()
    alerts = re.split(r"^      - alert: ", text, flags=re.M)[1:]
    assert len(alerts) >= 12
    for alert in alerts:
        name = alert.splitlines()[0]
        for field in ("severity:", "summary:", "action:"):
            assert field in alert, f"{name}: no {field}"
        action = re.search(r"action: '(.*)'$", alert, re.M)[1].replace("''", "'")
        page = re.search(r"; ([a-z.-]+)\((\d)\)(?:, ([^,;]+))?\.$", action)
        assert page, f"{name}: no manual page at the end of: {action}"
        check_page(name, *page.groups())


def check_page(alert, page, section, part):
    """That the manual page is there, and the part of it that is named: a heading or an item."""
    files = list(TOP.glob(f"*/{page}.{section}")) + list(TOP.glob(f"*/*/{page}.{section}"))
    assert len(files) == 1, f"{alert}: no manual page {page}({section})"
    if part:
        assert re.search(rf"^\.(S[hs]|It (Ic|Cm)) {re.escape(part)}\b", files[0].read_text(), re.M), \
            f"{alert}: {page}({section}) has nothing on '{part}'"


def test_the_dashboard_is_whole():
    board = json.loads(DASHBOARD.read_text())
    assert board["panels"] and all(p["targets"] and p["title"] for p in board["panels"])
    ids = [p["id"] for p in board["panels"]]
    assert len(ids) == len(set(ids))
    # No two panels lie on each other, and none hangs over the edge.
    taken = set()
    for p in board["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken and g["x"] + g["w"] <= 24, p["title"]
        taken |= cells
    assert "instance" in {v["name"] for v in board["templating"]["list"]}


@needs_promtool
def test_the_dashboards_queries_parse(tmp_path):
    """Each as a recording rule, its variables filled in."""
    rules = ["groups:", "  - name: dashboard", "    rules:"]
    for p in json.loads(DASHBOARD.read_text())["panels"]:
        for t in p["targets"]:
            expr = t["expr"].replace("$instance", ".*").replace("$__rate_interval", "5m").replace("$__range", "1h")
            rules += [f"      - record: q:{p['id']}:{t['refId']}", f"        expr: {json.dumps(expr)}"]
    (tmp_path / "queries.yml").write_text("\n".join(rules) + "\n")
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "queries.yml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
