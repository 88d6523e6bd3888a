# SPDX-License-Identifier: Apache-2.0
"""What rotates a key in the laboratory: the interface that every method has.

A new method is a class of this kind, entered in METHODS of experiment.py; tests/rotation/run then measures it under its
name.
"""

from topology import LaboratoryError


class RolledBack(LaboratoryError):
    """A rotation ended with the old key in use again, as it may where a processor was too slow for its deadlines."""


class Rotator:
    """A method of replacing keys. An experiment makes one for a Topology (topology.py), and calls in this order:
    before_up for each device that is made, begin once, rotate as often as it likes under traffic, and end.
    """

    name = ""  # in the table
    loses_none = False  # whether it promises that no packet is lost

    def __init__(self):
        self.net = None

    def before_up(self, end):
        """An end's device has been made and is not up yet."""

    def begin(self, net):
        """The devices of `net` are up, without keys and peers: makes the tunnels carry traffic, under the laboratory's own
        keys. (A method that has its keys from elsewhere sets them, puts Key(public) in each end.key, and connects.)"""
        self.net = net
        net.connect()

    def rotate(self, end):
        """Gives `end` a new key, with all its counterparts; returns when it is in use and the old one is gone. end.key is
        then the new Key, of which nothing but `public` is read. Raises RolledBack where the old one is in use again."""
        raise NotImplementedError

    def end(self):
        """No more rotations: stops what begin started, also when begin failed half way."""
