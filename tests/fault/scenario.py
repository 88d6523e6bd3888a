# SPDX-License-Identifier: Apache-2.0
"""The one scenario that faults are put into: token init, keys generated, released, reported and destroyed, enough of it to
seal a segment, and a stop."""

from world import Client, Hung, Refused, wait_served

HEAL = 5.0  # seconds that custodyd is given to serve again by itself before it is restarted


class Outcome:
    """What became of it: ok, healed (something failed, then all was done), refused (with a code) or killed."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.said = []  # refusals, "CODE: message"
        self.finished = False
        self.ended_early = False
        self.problems = []

    @property
    def outcome(self):
        if self.problems:
            return self.problems[0].partition(":")[0]
        if self.ended_early:
            return "killed"
        if not self.finished:
            return "refused"
        return "healed" if self.said else "ok"


class Scenario:
    def __init__(self, world, client):
        self.world, self.client = world, client
        self.result = Outcome(client.ledger)

    def step(self, do, done=lambda: None):
        """One request. When it fails and custodyd serves again by itself, looks whether it was done after all, and else asks
        once more. Returns what it returned, or what done() did."""
        try:
            value = do()
        except Refused as e:
            self.result.said.append(str(e))
            wait_served(self.world, self.client, HEAL)
            value = done()
            if value is None:
                value = do()
        return value

    def generated(self, key):
        """The generation that waits for its first use: made by a request whose answer was lost."""
        for (_, generation), (state, public) in self.client.list(key).items():
            if state == "pre-active":
                self.client.ledger.note("generated", key, generation, public)
                return generation
        return None

    def destroyed(self, key, generation):
        state, _ = self.client.list(key).get((key, generation), ("destroyed", None))
        if state == "destroyed":
            self.client.ledger.note("destroyed", key, generation)
            return True
        return None

    def release_and_report(self, key, generation):
        def both():
            lease, _ = self.client.release(key, generation)
            self.client.report(lease)
            return True
        self.step(both)

    def play(self):
        client = self.client
        try:
            wait_served(self.world, client, HEAL)
        except Refused as e:
            self.result.said.append(str(e))
            wait_served(self.world, client, HEAL)
        self.step(client.init)
        client.use_vkey(client.ledger.vkey)
        wait_served(self.world, client, HEAL)
        first = self.step(lambda: client.generate("wga"), lambda: self.generated("wga"))
        self.release_and_report("wga", first)
        second = self.step(lambda: client.generate("wga"), lambda: self.generated("wga"))
        self.release_and_report("wga", second)
        self.step(lambda: client.destroy("wga", first), lambda: self.destroyed("wga", first))
        for _ in range(3):
            self.release_and_report("wga", second)


def run(world, spawn):
    """Plays the scenario on a world that spawn() starts; returns its Outcome, with everything ended."""
    spawn()
    client = Client(world)
    scenario = Scenario(world, client)
    result = scenario.result
    try:
        scenario.play()
        result.finished = True
    except Refused as e:
        result.said.append(str(e))
    except Hung as e:
        result.problems.append(f"hung: {e}")
    finally:
        client.close()
    try:
        early = not world.is_running()
        status = world.end()
        result.ended_early = early and status is not None and status < 0
        if status is not None and status != 0 and not result.ended_early:
            result.said.append(f"custodyd's exit status {status}")
            result.ended_early = status < 0
    except Hung as e:
        result.problems.append(f"hung: {e}")
    return result
