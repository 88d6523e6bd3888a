# SPDX-License-Identifier: Apache-2.0
"""Two hosts under custody as their operators see them: metrics of both programs under real rotations, and `status`."""

import json
import os
import re
import shutil
import signal
import tempfile

import pytest

from topology import PATIENCE, Topology, missing  # first: it tells where the next ones are
from custody import KEY, Fleet
from scrape import OPENMETRICS, check_metrics, samples, scrape, value
from stack import TOP, Stack, wait_for

pytestmark = pytest.mark.skipif(missing() is not None or os.geteuid() != 0, reason=str(missing() or "needs root"))


class Watched(Fleet):
    """A fleet whose custodyds and appliers tell their metrics."""

    def __init__(self, dir, net, **options):
        super().__init__(dir, net, **options)
        for host in self.hosts.values():
            host.applier_metrics = host.stack.dir / "applier-metrics.sock"
            host.applier_textfile = host.stack.dir / "custody-applier.prom"
            host.custodyd_metrics = host.stack.dir / "custodyd-metrics.sock"
            self._extend(host)

    @staticmethod
    def _extend(host):
        write_applier, start = host.write_applier_config, host.start_custodyd

        def write_applier_config(peers, extra="", *more, **options):
            write_applier(peers, f'{extra}\nmetrics-socket = "{host.applier_metrics}"\n'
                          f'metrics-textfile = "{host.applier_textfile}"\nmetrics-interval = 1\n', *more, **options)

        def start_custodyd(**options):
            start(extra=f'metrics {{ socket = "{host.custodyd_metrics}" }}\n', **options)

        host.write_applier_config, host.start_custodyd = write_applier_config, start_custodyd


def applier(host):
    return samples(scrape(host.applier_metrics, OPENMETRICS), openmetrics=True)


def custodyd(host):
    return samples(scrape(host.custodyd_metrics, OPENMETRICS), openmetrics=True)


def status(host, *options):
    return host.stack.run("/usr/bin/env", host.stack.program("custody-applier"), f"--config={host.config}", "status", *options,
                          netns=host.end.netns)


@pytest.fixture
def fleet():
    dir = tempfile.mkdtemp(prefix="custody-watched-")
    os.chmod(dir, 0o755)
    try:
        with Topology(dir, kind="userspace") as net:
            net.connect()
            fleet = Watched(dir, net)
            try:
                yield fleet.start()
            finally:
                fleet.close()
    finally:
        shutil.rmtree(dir, ignore_errors=True)


def both(fleet):
    client, server = fleet.hosts[fleet.net.clients[0]], fleet.hosts[fleet.net.server]
    return client, server


def names_used():
    """The metrics that the shipped alerts and the dashboard speak of."""
    text = "".join((TOP / "tools" / "monitoring" / name).read_text() for name in ("alerts.yml", "dashboard.json"))
    return {name.removesuffix("_bucket") for name in re.findall(r"\bcustody_[a-z_]+", text)}


def test_alerts_and_dashboard_speak_of_metrics_that_there_are(fleet):
    client, _ = both(fleet)
    text = scrape(client.applier_metrics) + scrape(client.custodyd_metrics)
    families = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    assert names_used() <= families, names_used() - families


def test_metrics_and_status_through_a_rotation(fleet):
    client, server = both(fleet)
    interface = client.end.interface
    there = dict(interface=interface, host=server.name, key=KEY)
    for host in (client, server):
        check_metrics(scrape(host.applier_metrics))
        check_metrics(scrape(host.custodyd_metrics))
    before = applier(client)
    assert value(before, "custody_applier_custodyd_reachable") == value(before, "custody_applier_registry_reachable") == 1
    assert value(before, "custody_applier_interface_present", interface=interface) == 1
    wait_for(lambda: value(applier(client), "custody_applier_handshake_age_seconds", **there) < 180, "the handshake seen")
    assert value(before, "custody_applier_counterpart_generation", **there) == 1
    assert ("custody_applier_last_hold_seconds", (("interface", interface),)) not in before, "nothing was held yet"

    client.rotate()
    after = applier(client)
    assert value(after, "custody_applier_rotations_total", interface=interface, outcome="confirmed") == 1
    assert value(after, "custody_applier_rotations_total", interface=interface, outcome="rolled-back") == 0
    assert 0 < value(after, "custody_applier_last_hold_seconds", interface=interface) < PATIENCE
    now = custodyd(client)
    assert value(now, "custody_rotations_total", key=KEY, outcome="confirmed") == 1
    assert value(now, "custody_rotation_open_seconds", key=KEY) == 0
    assert value(now, "custody_key_generation", key=KEY) == 2
    wait_for(lambda: value(applier(server), "custody_applier_counterpart_generation", interface=server.end.interface,
                           host=client.name, key=KEY) == 2, "the counterpart's new generation")
    wait_for(lambda: value(applier(client), "custody_applier_leftover_peers", **there) == 0, "no leftovers")
    wait_for(lambda: value(applier(client), "custody_applier_freshness_age_seconds", **there) < 3600, "a freshness note seen")
    for host in (client, server):
        check_metrics(scrape(host.applier_metrics))
        check_metrics(scrape(host.custodyd_metrics))
    wait_for(lambda: client.applier_textfile.exists() and 'outcome="confirmed"} 1' in client.applier_textfile.read_text(),
             "the textfile with the rotation")
    check_metrics(client.applier_textfile.read_text())
    assert client.applier_textfile.stat().st_mode & 0o777 == 0o644

    done = wait_for(lambda: (d := status(client)).returncode == 0 and d, "all is well")
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    assert interface in done.stdout and server.name in done.stdout and "attention" not in done.stdout
    told = json.loads(status(client, "--json").stdout)
    [mine] = told["interfaces"]
    assert (mine["active"]["generation"], mine["rotation"], mine["present"]) == (2, None, True)
    assert mine["active"]["public_key"] == client.public_key()
    assert mine["counterparts"][0]["host"] == server.name and mine["counterparts"][0]["handshake"]


def test_what_goes_wrong_is_told(fleet):
    client, server = both(fleet)
    interface = client.end.interface
    there = dict(interface=interface, host=server.name, key=KEY)
    # A note that another host signed: refused, once, by its kind.
    folder = fleet.registry / server.name / KEY
    ours = fleet.registry / client.name / KEY / "fresh"
    wait_for(lambda: (folder / "fresh").exists() and ours.exists(), "both hosts' freshness notes")
    kept = (folder / "fresh").read_text()
    (folder / "new").write_text(ours.read_text())
    (folder / "new").rename(folder / "fresh")

    def refused():
        return {dict(labels)["kind"]: v for (name, labels), v in applier(client).items()
                if name == "custody_applier_refused_notes_total" and v}
    wait_for(refused, "the refusal")
    assert list(refused().values()) == [1], refused()
    wait_for(lambda: value(custodyd(client), "custody_findings_total", finding="note.rejected") == 1, "the finding recorded")
    (folder / "new").write_text(kept)
    (folder / "new").rename(folder / "fresh")
    # The registry is gone, and back.
    fleet.registry.rename(fleet.dir / "elsewhere")
    wait_for(lambda: value(applier(client), "custody_applier_registry_reachable") == 0, "the registry's loss")
    done = status(client)
    assert done.returncode == 1 and "registry NOT REACHED" in done.stdout and "attention: registry" in done.stdout
    (fleet.dir / "elsewhere").rename(fleet.registry)
    wait_for(lambda: value(applier(client), "custody_applier_registry_reachable") == 1, "the registry back")
    # custodyd is gone.
    client.stack.stop()
    wait_for(lambda: value(applier(client), "custody_applier_custodyd_reachable") == 0, "custodyd's loss")
    assert value(applier(client), "custody_applier_handshake_age_seconds", **there) >= 0, "what custodyd told last still counts"
    done = status(client)
    assert done.returncode == 3 and "custodyd NOT REACHED" in done.stdout
    assert json.loads(status(client, "--json").stdout)["custodyd_reached"] is False
    assert max(map(len, done.stdout.splitlines())) <= 80
    client.stack.start(deadline=PATIENCE)
    wait_for(lambda: value(applier(client), "custody_applier_custodyd_reachable") == 1, "custodyd back")
    # The interface is gone.
    client.end.remove_device()
    wait_for(lambda: value(applier(client), "custody_applier_interface_present", interface=interface) == 0, "the interface's loss")
    done = status(client)
    assert done.returncode == 4 and f"attention: {interface}: " in done.stdout


def test_a_rotation_that_is_rolled_back(fleet):
    client, _ = both(fleet)
    interface = client.end.interface
    fleet.net.block(client.end)
    client.stack.ctl("key", "rotate", KEY, check=True)
    wait_for(lambda: value(custodyd(client), "custody_rotation_open_seconds", key=KEY) > 0, "the rotation open")
    done = wait_for(lambda: (d := status(client)) and "rotation to generation 2, open for" in d.stdout and d, "seen by status")
    assert max(map(len, done.stdout.splitlines())) <= 80
    wait_for(lambda: value(custodyd(client), "custody_rotations_total", key=KEY, outcome="rolled-back") == 1, "rolled back",
             deadline=2 * PATIENCE)
    assert value(custodyd(client), "custody_rotation_failures", key=KEY) == 1
    wait_for(lambda: value(applier(client), "custody_applier_rotations_total", interface=interface, outcome="rolled-back") == 1,
             "and so in the applier's")
    done = status(client)
    assert done.returncode == 1 and "rolled back" in done.stdout


def test_status_of_a_wrong_configuration(tmp_path):
    stack = Stack(tmp_path / "s")
    config = tmp_path / "applier.conf"
    config.write_text("interfaces = 7\n")
    done = stack.run(stack.program("custody-applier"), f"--config={config}", "status")
    assert done.returncode == 1 and f"{config}:1" in done.stderr
    for arguments in (("status", "wg0"), ("run", "--json"), ("apply", "wg0", "--watch")):
        assert stack.run(stack.program("custody-applier"), *arguments).returncode == 2
    stack.close()


def test_a_revocation_that_is_not_confirmed_yet(fleet):
    client, server = both(fleet)
    assert value(custodyd(client), "custody_revocation_unconfirmed_counterparts", key=KEY) == 0
    server.stop_applier()
    client.stack.ctl("key", "revoke", KEY, check=True)
    now = custodyd(client)
    assert value(now, "custody_revocation_unconfirmed_counterparts", key=KEY) == 1
    assert value(now, "custody_key_generations", key=KEY, state="compromised") == 1
    server.start_applier()
    wait_for(lambda: value(custodyd(client), "custody_revocation_unconfirmed_counterparts", key=KEY) == 0,
             "the counterpart's word that it dropped the key", deadline=PATIENCE)


def test_a_configuration_read_anew(fleet):
    """The socket is there again, under another name when that is said."""
    client, server = both(fleet)
    before = client.applier_metrics
    client.applier_metrics = client.stack.dir / "renamed.sock"
    client.config.write_text(client.config.read_text().replace(str(before), str(client.applier_metrics)))
    os.kill(client.applier.pid, signal.SIGHUP)
    wait_for(client.applier_metrics.exists, "the renamed socket")
    wait_for(lambda: value(applier(client), "custody_applier_handshake_age_seconds", interface=client.end.interface,
                           host=server.name, key=KEY) < 180, "the counterpart as before")
    assert not before.exists()
    assert client.stop_applier() == 0
    assert not client.applier_metrics.exists()
