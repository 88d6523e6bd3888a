# SPDX-License-Identifier: Apache-2.0
"""What rotates a key in the laboratory: the interface that every method has."""


class Rotator:
    """A method of replacing keys. An experiment makes one, and calls in this order: before_up for each device that is
    made, begin once (the tunnels carry traffic, none of it is counted yet), rotate as often as it likes, and end.
    """

    name = ""  # in the table
    loses_none = False  # whether it promises that no packet is lost

    def __init__(self):
        self.net = None

    def before_up(self, end):
        """An end's device has been made and is not up yet."""

    def begin(self, net):
        """`net`, a connected Topology, is what will be rotated in."""
        self.net = net

    def rotate(self, end):
        """Gives `end` a new key, with all its counterparts; returns when it is in use and the old one is gone. end.key is
        then the new Key, of which an experiment reads only `public`."""
        raise NotImplementedError

    def end(self):
        """No more rotations: stops what begin started."""
