# SPDX-License-Identifier: Apache-2.0
"""The loss table: results of experiment.measure as lines of at most 100 columns, and whether each promise was kept."""

import statistics
import textwrap

HEADING = (f"{'method':<13}{'device':<10}{'key':<7}{'RTT':>4}{'pps':>6}{'rot':>5}{'lost >server':>14}{'lost >client':>14}"
           f"{'pause ms':>10}{'TCP':>5}{'s':>7}")
NOTE = ("pps: datagrams a second each way, of each client. lost: of all that were sent, each way.\n"
        "pause: the longest time without a packet in a rotation, of either direction: middle/longest.\n"
        "TCP: segments sent again, both directions. s: seconds for the whole row.")


def _lost(direction):
    return f"{direction['lost']}/{direction['sent']}"


def _row(result):
    start = (f"{result['method']:<13}{result['kind']:<10}{result['key']:<7}{result['rtt']:>4}{result['rate']:>6}"
             f"{result['rotations']:>5}")
    if "failure" in result:
        return start + "  NOT MEASURED"
    account = result["account"]
    to_server, to_client, pauses = account["to_server"], account["to_client"], account["pauses"]
    pause = f"{statistics.median(pauses):.0f}/{max(pauses):.0f}"
    return (f"{start}{_lost(to_server):>14}{_lost(to_client):>14}{pause:>10}"
            f"{to_server['retransmits'] + to_client['retransmits']:>5}{result['seconds']:>7.1f}")


def _remarks(result):
    where = f"{result['method']}, {result['kind']}, {result['key']}'s key, RTT {result['rtt']} ms"
    if "failure" in result:
        return [f"{where}: {result['failure']}"]
    account, remarks = result["account"], []
    for name in ("to_server", "to_client"):
        direction = account[name]
        if result["loses_none"] and direction["lost"]:
            remarks.append(f"{where}: lost {name}: {direction['lost_in']}, of which the socket refused {direction['refused']}")
        for what in ("duplicated", "reordered"):
            if direction[what]:
                remarks.append(f"{where}: {what} {name}: {direction[what]}")
    if account["overflowed"]:
        remarks.append(f"{where}: {account['overflowed']} outer packets found no room in a WireGuard's socket: this machine "
                       "is too slow for the traffic, or too much was released at once")
    if result["attempts"] > 1:
        remarks.append(f"{where}: measured {result['attempts']} times, this is the last: before, packets were lost while "
                       "this machine was too slow (no room in a WireGuard's socket, or a sender that stood still)")
    if result["rolled_back"]:
        remarks.append(f"{where}: {len(result['rolled_back'])} more were rolled back, and repeated; their packets are counted: "
                       + "; ".join(result["rolled_back"]))
    if account["late"]:
        remarks.append(f"{where}: {account['late']} packets were sent late, by {account['behind_ms']:.0f} ms at most: "
                       "the pause has that in it")
    return remarks


def lost(result):
    """Packets, both ways, of a row that was measured."""
    return result["account"]["to_server"]["lost"] + result["account"]["to_client"]["lost"]


def kept(result):
    """Whether the row was measured and its method lost nothing where it promises so."""
    return "failure" not in result and (lost(result) == 0 or not result["loses_none"])


def show(results):
    """The table, and below it what is to be known of it."""
    lines = [HEADING, *(_row(result) for result in results), NOTE]
    for result in results:
        for remark in _remarks(result):
            lines += textwrap.wrap(remark, 100, subsequent_indent="  ")
    return "\n".join(lines)
